/* Replaying a trace: what an allocator offers to the replayer, and what a replay finds out. */
#ifndef STEVE_REPLAY_H
#define STEVE_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One allocator. A reference names a block: an address, or a handle. NULL references are failures,
 * and errno says why. Called from one thread. */
struct replay_backend {
    const char *name;
    const char *description;
    size_t alignment_max; /* larger ones are asked for as this; 0 = any */
    void *(*allocate)(size_t size);
    void *(*allocate_zeroed)(size_t size);
    void *(*allocate_aligned)(size_t alignment, size_t size);
    void *(*resize)(void *reference, size_t size); /* the reference from now on */
    void (*release)(void *reference);
    void *(*open)(void *reference); /* the block's address, good until close */
    void (*close)(void *reference);
    /* Compacts for at most `budget_us`. NULL when the allocator cannot. */
    void (*compact)(uint32_t budget_us);
    /* Gives back all it can, however long that takes. Returns what was done, in words. */
    const char *(*tidy)(void);
    /* The largest hole in memory the allocator holds; -1 = it cannot tell. NULL = it holds none
     * that counts: what is free is given back. */
    int64_t (*largest_hole)(void);
};

extern const struct replay_backend replay_jeff;
extern const struct replay_backend replay_malloc;

/* The backend of that name, or NULL. `replay_backend_at` lists them all, NULL after the last. */
const struct replay_backend *replay_backend_find(const char *name);
const struct replay_backend *replay_backend_at(size_t index);

struct replay_options {
    uint64_t idle_every; /* operations between idle points */
    uint32_t budget_us;  /* for a compaction at each; 0 = none */
    uint64_t samples;    /* points of the memory curve, about */
    bool partial;        /* a trace without its end will do */
};

/* A pass over the trace. Memory: blocks are filled and verified completely, memory is sampled.
 * Speed: every page is touched and a stamp verified, operations and pauses are timed. */
enum replay_pass { REPLAY_MEMORY, REPLAY_SPEED };

struct replay_sample {
    uint64_t event;     /* events done */
    uint64_t time_us;   /* of the recorded program */
    uint64_t live;      /* bytes asked for in live blocks */
    uint64_t blocks;    /* live */
    int64_t resident;   /* bytes more than before the first allocation */
    uint32_t compacted; /* 1 = just after a compaction at an idle point; the sample before is just
                           before */
    uint32_t unused;
};

struct replay_percentiles {
    double p50_us, p99_us, max_us, total_us;
};

/* What a worker hands to its parent, in memory they share. */
struct replay_result {
    uint32_t done; /* 1 = everything below is valid */
    uint32_t sample_count;
    uint64_t operations;
    uint64_t peak_live, end_live, end_blocks;
    int64_t resident_peak;   /* as the kernel saw it, not only at samples */
    double resident_average; /* over operations */
    double live_average;     /* at the same points */
    int64_t resident_end;    /* after the last operation */
    int64_t resident_tidy;   /* after `tidy` */
    int64_t largest_end;     /* block to be had without exceeding resident_peak, */
    int64_t largest_tidy;    /* before and after `tidy` */
    double tidy_wall_us, tidy_cpu_us;
    char tidy_what[48];
    uint64_t verified_bytes;     /* contents found as they were written */
    uint64_t alignments_reduced; /* aligned allocations beyond alignment_max */
    uint64_t pause_count;
    struct replay_percentiles pause_wall, pause_cpu;
    double seconds;                 /* in operations, pauses not counted */
    struct replay_sample samples[]; /* REPLAY_SAMPLES_MAX */
};

enum { REPLAY_SAMPLES_MAX = 16384 };
#define REPLAY_RESULT_BYTES                                                                        \
    (sizeof(struct replay_result) + REPLAY_SAMPLES_MAX * sizeof(struct replay_sample))

/* Runs the pass on this process. 0, or -1 after a complaint. */
int replay_run(const char *path, const struct replay_backend *backend, enum replay_pass pass,
               const struct replay_options *options, struct replay_result *ret_result);

/* All results of one allocator. */
struct replay_report {
    const struct replay_backend *backend;
    const struct replay_result *memory; /* NULL = the pass failed */
    const struct replay_result *speed;  /* the median one of the repeats */
    double speed_lowest, speed_highest; /* operations per second over the repeats */
    unsigned repeats;
};

#endif
