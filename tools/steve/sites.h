/* Which call stacks own a program's memory, from the stacks in its trace. Not thread-safe. */
#ifndef STEVE_SITES_H
#define STEVE_SITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trace_format.h"

struct sites;

/* NULL when there is no memory. */
struct sites *sites_create(void);

/* The next event of the trace, after trace_live_apply; `live_bytes` are those after it. A block is of
 * the stack that allocated it, or reallocated it last. O(1). False when there is no memory. */
bool sites_take(struct sites *sites, const struct trace_event *event, uint64_t live_bytes);

/* Prints the `limit` stacks that own most at the peak of live bytes. False, and nothing, when there
 * was no stack in the trace. */
bool sites_print(struct sites *sites, size_t limit);

/* NULL is a no-op. */
void sites_destroy(struct sites *sites);

#endif
