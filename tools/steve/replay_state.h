/* A replay under way, shared by the files of one pass. */
#ifndef STEVE_REPLAY_STATE_H
#define STEVE_REPLAY_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "replay.h"
#include "replay_latency.h"
#include "trace_live.h"
#include "trace_read.h"

enum { BATCH_EVENTS = 1024 };

/* A block that outlived a round. */
struct replay_kept {
    void *reference;
    uint64_t serial, size;
};

struct replay {
    const char *path;
    const struct replay_backend *backend;
    const struct replay_options *options;
    enum replay_pass pass;
    struct replay_result *result;
    struct trace_reader *reader;
    struct trace_live live;
    struct trace_totals totals;
    void **references; /* by block number; NULL = not live */
    struct replay_kept *kept;
    size_t kept_count, kept_capacity;
    uint64_t kept_bytes;
    uint64_t *pause_wall;
    uint64_t *pause_cpu;
    size_t pause_capacity;
    uint64_t operations;     /* done: allocations, reallocations, frees, over all rounds */
    uint64_t operations_all; /* to be done, about */
    uint64_t next_idle;      /* in operations, as all of these */
    uint64_t next_sample;
    uint64_t sample_every;
    uint64_t next_map;
    uint64_t map_every;
    uint64_t elapsed_ns, cpu_ns;
    uint64_t time_us;   /* of the last event, over all rounds */
    uint64_t time_base; /* where the round began */
    uint32_t round;
    uint64_t serial_base; /* so that no two rounds write the same */
    uint64_t random;
    size_t limit; /* of POLICY_OUT_OF_MEMORY, now */
    int64_t baseline, share_baseline;
    double resident_sum, share_sum, live_sum;
    uint64_t point_count;
    bool at_end; /* of the round */
    int map_file;
    pthread_t compactor;
    _Atomic int compactor_ends;
    struct latency_histogram *histograms; /* KINDS */
    uint64_t clock_cost;
    struct trace_event batch[BATCH_EVENTS];
    size_t batch_count;
    uint64_t batch_operations;
};

/* The address of a block, good until the close. Where a reference is an address nobody is called. */
static inline void *replay_open(const struct replay *replay, void *reference) {
    return replay->backend->handles ? replay->backend->open(reference) : reference;
}

static inline void replay_close(const struct replay *replay, void *reference) {
    if (replay->backend->handles)
        replay->backend->close(reference);
}

/* Does what the event says. 0, or -1 after a complaint. */
int replay_event(struct replay *replay, const struct trace_event *event);

/* Bytes asked for in live blocks, those of earlier rounds included. */
uint64_t replay_live_bytes(const struct replay *replay);

/* Whether the block has what was written into it; what is checked depends on the pass. */
bool replay_check(const struct replay *replay, const void *address, uint64_t serial, size_t size);

/* Adds a picture of the heap to the map file: which pages hold how many live and locked bytes.
 * Does nothing when there is none. */
void replay_take_map(struct replay *replay);

#endif
