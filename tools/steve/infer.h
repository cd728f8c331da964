/* Inferring where a program would hold locks, from its accesses. A method sees the events in order
 * and hands them on to the sink with locks and unlocks among them; the sink writes them, and compares
 * them with the locks that a hand placed. The clock counts accesses, and one for every other
 * operation on a block. */
#ifndef STEVE_INFER_H
#define STEVE_INFER_H

#include <stdbool.h>
#include <stdint.h>

#include "trace_format.h"
#include "trace_live.h"
#include "trace_write.h"

enum infer_method { INFER_COARSE, INFER_FINE, INFER_BURST };

struct infer_options {
    enum infer_method method;
    double share; /* coarse: of the accesses in its life, for a block to be locked for life */
    double gain;  /* fine: life value for an own access, */
    double loss;  /* and taken off for an operation on another block */
    uint64_t gap; /* burst: operations on other blocks that end a burst when there are more */
};

/* What a comparison with locks placed by hand finds; in blocks times clock. */
struct infer_score {
    double hand, inferred, both;
    double hand_bytes, inferred_bytes, both_bytes; /* in bytes times clock */
    double live, live_bytes;                       /* of all blocks */
    uint64_t accesses, covered; /* covered: made while the inferred lock was held */
    uint64_t locks;             /* inferred */
    uint64_t hand_locks;
};

struct infer_block {
    uint64_t serial; /* 0 = not live */
    uint64_t size;
    uint64_t since;       /* clock at the last change of what follows */
    uint32_t hand;        /* locks placed by hand */
    bool locked;          /* by inference */
    bool queued;          /* fine: has an entry in the queue */
    double life;          /* fine: value at */
    uint64_t touched;     /* this clock, that of the last own access */
    uint64_t last_access; /* burst: place in the delay line + 1 of the last own access; 0 = none */
};

/* A block whose free was not recorded ends after this event. */
struct infer_end {
    uint64_t event;
    uint32_t block;
};

struct infer_sink {
    struct trace_writer *writer; /* NULL: score only */
    bool with_accesses;
    bool with_stacks;
    struct trace_live live; /* of what is written */
    struct infer_block *blocks;
    uint64_t block_count;
    uint64_t clock;
    uint64_t live_blocks, live_bytes;
    struct infer_score score;
    struct infer_end *ends; /* by event, ascending */
    size_t end_count, end_next;
    struct trace_error error;
};

/* All return 0, or -1 with sink->error filled. */

/* Hands an event on, in order. Ends blocks that end with it. */
int infer_emit(struct infer_sink *sink, const struct trace_event *event);

/* Locks or unlocks a block, as of the event emitted last or, `event`, about to be. */
int infer_lock(struct infer_sink *sink, uint32_t block, const struct trace_event *event);
int infer_unlock(struct infer_sink *sink, uint32_t block, const struct trace_event *event);

/* Ends the comparison: what is still locked is so until now. */
void infer_finish_score(struct infer_sink *sink);

/* A method at work. `locked_for_life` has a bit for every allocation of the trace (coarse). */
struct infer_machine;
struct infer_machine *infer_machine_create(const struct infer_options *options,
                                           struct infer_sink *sink,
                                           const uint64_t *locked_for_life);

/* The next event of the trace, in order; then the end. 0, or -1 with sink->error filled. */
int infer_machine_next(struct infer_machine *machine, const struct trace_event *event);
int infer_machine_finish(struct infer_machine *machine);

/* NULL is a no-op. */
void infer_machine_destroy(struct infer_machine *machine);

/* How far the event moves the clock. */
static inline uint64_t infer_weight(const struct trace_event *event) {
    if (event->op == TRACE_ACCESS)
        return event->reads + event->writes;
    return event->op < TRACE_OP_SKIPPABLE && event->op != TRACE_EXEC;
}

#endif
