/* Replaying a trace: what an allocator offers to the replayer, and what a replay finds out. */
#ifndef STEVE_REPLAY_H
#define STEVE_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trace_format.h"

/* When Jeff compacts; other allocators cannot and have POLICY_NEVER. */
enum replay_policy {
    POLICY_NEVER,
    POLICY_IDLE,          /* at idle points, with a budget */
    POLICY_OUT_OF_MEMORY, /* only when an allocation meets the heap's limit */
    POLICY_BACKGROUND,    /* a thread of its own, one part of its time in ten */
};

struct replay_options;

/* One allocator. A reference names a block: an address, or a handle. NULL references are failures,
 * and errno says why. Called from one thread. */
struct replay_backend {
    const char *name;
    const char *description;
    const char
        *library; /* preloaded in the worker: a path, or a name the linker finds; NULL = none */
    const char *package; /* Debian's, that has the library */
    enum replay_policy policy;
    bool ideal;           /* no allocator: the memory is the live bytes, the blocks are not there */
    bool handles;         /* references are handles; locks of the trace are taken */
    size_t alignment_max; /* larger ones are asked for as this; 0 = any */
    void *(*allocate)(size_t size);
    void *(*allocate_zeroed)(size_t size);
    void *(*allocate_aligned)(size_t alignment, size_t size);
    void *(*resize)(void *reference, size_t size); /* the reference from now on */
    void (*release)(void *reference);
    /* Of handles only: the block's address, good until close. */
    void *(*open)(void *reference);
    void (*close)(void *reference);
    /* Compacts for at most `budget_us`. NULL when the allocator cannot. */
    void (*compact)(uint32_t budget_us);
    /* Gives back all it can, however long that takes. Returns what was done, in words. */
    const char *(*tidy)(void);
    /* The largest hole in memory the allocator holds; -1 = it cannot tell. NULL = it holds none
     * that counts: what is free is given back. */
    int64_t (*largest_hole)(void);
    /* Keeps the heap within `bytes` from now on; 0, or -1 with errno set. NULL = by the system's
     * limit on the data of a process. `first`: nothing is allocated
     * yet. */
    int (*limit)(size_t bytes, bool first);
};

extern const struct replay_backend replay_jeff, replay_jeff_never, replay_jeff_oom,
    replay_jeff_background, replay_jeff_fixed, replay_malloc, replay_ideal;

/* The backend of that name; of a path, the system's malloc with that library preloaded. NULL when
 * there is none. Lives as long as the program. */
const struct replay_backend *replay_backend_find(const char *name);

/* All the known ones, NULL after the last. */
const struct replay_backend *replay_backend_at(size_t index);

/* Whether what it preloads is there. */
bool replay_backend_is_installed(const struct replay_backend *backend);

/* What replay_scan finds out. */
struct replay_plan {
    bool scanned;        /* else the trace's own totals say enough, and only this is valid: */
    uint64_t stop_event; /* where a round ends, if not at the trace's end */
    struct trace_totals totals;       /* of one round */
    uint64_t survivors;               /* blocks that a round leaves */
    uint64_t peak_bytes, peak_blocks; /* live at most, of all rounds */
};

struct replay_options {
    uint64_t idle_every; /* operations between idle points */
    uint32_t budget_us;  /* for a compaction at each; 0 = none */
    uint64_t samples;    /* points of the memory curve, about */
    bool partial;        /* a trace without its end will do */
    uint32_t rounds;     /* document churn: how often the trace is run, 1 = once */
    double free_share;   /* of the blocks that are left after a round, freed before the next */
    uint64_t seed;
    bool stop_at_peak; /* a round ends where live bytes are most, not at the end of the trace */
    size_t heap_bytes; /* of REPLAY_FIT */
    uint32_t maps;     /* pictures of the heap to be taken in the memory pass; 0 = none */
    char map_path[512];
    struct replay_plan plan;
};

/* Looks through the trace for what the options ask for and its end does not tell, and fills the
 * plan. 0, or -1 after a complaint. */
int replay_scan(const char *path, struct replay_options *options);

/* The random numbers that decide which blocks survive a round: the next one of the sequence that
 * `state` is in, and whether something of that chance happens. */
uint64_t replay_random(uint64_t *state);
bool replay_chance(uint64_t *state, double share);

/* A pass over the trace. Memory: blocks are filled and verified completely, memory is sampled.
 * Speed: every page is touched and a stamp verified, operations and pauses are timed. Latency:
 * every call of the allocator is timed by itself. Fit: does it run in so small a heap? */
enum replay_pass { REPLAY_MEMORY, REPLAY_SPEED, REPLAY_LATENCY, REPLAY_FIT };

struct replay_sample {
    uint64_t event;     /* operations done */
    uint64_t time_us;   /* of the recorded program */
    uint64_t live;      /* bytes asked for in live blocks */
    uint64_t blocks;    /* live */
    int64_t resident;   /* bytes more than before the first allocation */
    int64_t share;      /* the same of the proportional set size */
    uint32_t compacted; /* 1 = just after a compaction at an idle point; the sample before is just
                           before */
    uint32_t round;
};

/* One compaction at an idle point. */
struct replay_pause {
    uint64_t event, time_us;
    uint64_t wall_ns, cpu_ns;
    uint64_t blocks, locked_blocks; /* live then */
    uint64_t bytes, locked_bytes;
};

struct replay_percentiles {
    double p50_us, p99_us, max_us, total_us;
};

/* Times of single calls, without the cost of reading the clock. */
struct replay_latency {
    uint64_t count;
    double mean_ns, p50_ns, p99_ns, p999_ns, max_ns;
};
enum replay_kind { KIND_ALLOCATE, KIND_RESIZE, KIND_RELEASE, KIND_ALL, KINDS };

enum { REPLAY_SAMPLES_MAX = 16384, REPLAY_PAUSES_MAX = 8192 };

/* What a worker hands to its parent, in memory they share. */
struct replay_result {
    uint32_t done;             /* 1 = everything below is valid */
    uint32_t out_of_memory;    /* 1 = the allocator had nothing to give; the pass failed by that */
    _Atomic uint64_t progress; /* operations done, while it runs; of progress_total */
    uint64_t progress_total;
    uint32_t sample_count;
    uint32_t pause_kept; /* of pause_count; every pause_every-th */
    uint32_t pause_every;
    uint64_t operations;
    uint64_t peak_live, end_live, end_blocks;
    int64_t resident_peak;   /* as the kernel saw it, not only at samples */
    double resident_average; /* over operations */
    double share_average;    /* of the proportional set size */
    double live_average;     /* at the same points */
    int64_t resident_end;    /* after the last operation */
    int64_t resident_tidy;   /* after `tidy` */
    int64_t largest_end;     /* block to be had without exceeding resident_peak, */
    int64_t largest_tidy;    /* before and after `tidy` */
    double tidy_wall_us, tidy_cpu_us;
    char tidy_what[48];
    uint64_t verified_bytes;     /* contents found as they were written */
    uint64_t alignments_reduced; /* aligned allocations beyond alignment_max */
    uint64_t limit_raises;       /* POLICY_OUT_OF_MEMORY: how often the limit was too small */
    uint64_t pause_count;
    struct replay_percentiles pause_wall, pause_cpu;
    double seconds;     /* in operations, pauses not counted: wall clock */
    double cpu_seconds; /* and this thread's use of the processor */
    struct replay_latency latency[KINDS];
    struct replay_pause pauses[REPLAY_PAUSES_MAX];
    struct replay_sample samples[REPLAY_SAMPLES_MAX];
};

/* Runs the pass on this process. 0, or -1 after a complaint (none when a REPLAY_FIT pass finds the
 * heap too small). */
int replay_run(const char *path, const struct replay_backend *backend, enum replay_pass pass,
               const struct replay_options *options, struct replay_result *ret_result);

/* Runs the pass in a process of its own. NULL after a complaint; then `ret_failure` (of
 * REPLAY_FAILURE_TEXT bytes) has a word for the table. `timeout_s` 0 = none; `quiet`: no progress. */
enum { REPLAY_FAILURE_TEXT = 24 };
struct replay_result *replay_spawn(const char *trace, const struct replay_backend *backend,
                                   enum replay_pass pass, const struct replay_options *options,
                                   uint32_t timeout_s, bool quiet, char *ret_failure);
void replay_forget(struct replay_result *result);

enum { REPLAY_REPEAT_MAX = 100 };

/* A mean of repeats and half the width of its 95 % confidence interval (0 when there is but one). */
struct replay_mean {
    double mean, half_width;
};

/* All results of one allocator. */
struct replay_report {
    const struct replay_backend *backend;
    const struct replay_result *memory;  /* NULL = a pass failed */
    const struct replay_result *speed;   /* the median one of the repeats */
    const struct replay_result *latency; /* the first one of the repeats */
    double speeds[REPLAY_REPEAT_MAX];    /* operations per second, ascending */
    struct replay_mean speed_mean;
    struct replay_mean p50, p99, p999, max; /* ns, over repeats, all kinds of calls */
    unsigned repeats;
    int64_t smallest_heap; /* that still runs the trace; -1 = not looked for, or none does */
    char failure[REPLAY_FAILURE_TEXT];
};

#endif
