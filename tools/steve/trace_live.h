/* The set of live blocks while a trace is followed: checks that the events make sense, knows each
 * block's size, and keeps the totals. O(1) per event. Not thread-safe. Its table lies in memory
 * mapped directly, outside the program's malloc. */
#ifndef STEVE_TRACE_LIVE_H
#define STEVE_TRACE_LIVE_H

#include "trace_format.h"

#ifdef __cplusplus
extern "C" {
#endif

struct trace_live_block {
    uint64_t size;   /* bytes + 1; 0 = not live */
    uint64_t serial; /* see struct trace_event */
    uint64_t locks;  /* held */
};

struct trace_live {
    struct trace_live_block *blocks;
    uint64_t capacity; /* of the table */
    uint64_t serials;  /* given out */
    uint64_t live_bytes;
    uint64_t live_blocks;
    uint64_t locked_bytes; /* of the blocks with a lock or more */
    uint64_t locked_blocks;
    struct trace_totals totals; /* from the events; what only the recorder knows stays 0 */
};

/* Starts with an empty set and a table for `capacity` blocks, present in memory at once; it grows
 * when needed. -1 when there is no memory. */
int trace_live_init(struct trace_live *live, uint64_t capacity);

void trace_live_finish(struct trace_live *live);

/* Follows one event and fills its old_size and serial. -1, with the reason in `error` and nothing
 * changed, when it cannot be: a block number that is in use or skips one, anything else with a block
 * that is not live, an access beyond its end, an unlock without a lock, a free of a locked block, an
 * exec with live blocks, or no memory. */
int trace_live_apply(struct trace_live *live, struct trace_event *event, struct trace_error *error);

/* The same for an access only, which is most of what a trace can hold; fills nothing. */
int trace_live_access(struct trace_live *live, const struct trace_event *event,
                      struct trace_error *error);

/* The size of a live block; 0 and `*ret_live` 0 when it is not. */
uint64_t trace_live_size(const struct trace_live *live, uint32_t block, int *ret_live);

#ifdef __cplusplus
}
#endif

#endif
