/* The set of live blocks while a trace is followed. */
#include "trace_live.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { CAPACITY_MIN = 1024 };

int trace_live_init(struct trace_live *live, uint64_t capacity) {
    memset(live, 0, sizeof *live);
    live->capacity = capacity < CAPACITY_MIN ? CAPACITY_MIN : capacity;
    live->blocks = mmap(NULL, live->capacity * sizeof *live->blocks, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (live->blocks == MAP_FAILED)
        live->blocks = NULL;
    return live->blocks != NULL ? 0 : -1;
}

void trace_live_finish(struct trace_live *live) {
    if (live->blocks != NULL)
        munmap(live->blocks, live->capacity * sizeof *live->blocks);
    live->blocks = NULL;
}

static int grow(struct trace_live *live) {
    size_t size = live->capacity * sizeof *live->blocks;
    void *blocks = mremap(live->blocks, size, 2 * size, MREMAP_MAYMOVE);
    if (blocks == MAP_FAILED)
        return -1;
    live->blocks = blocks;
    live->capacity *= 2;
    return 0;
}

static int fail(struct trace_error *error, const char *before, uint64_t value, const char *after) {
    snprintf(error->text, sizeof error->text, "%s%llu%s", before, (unsigned long long)value, after);
    return -1;
}

static void set_live(struct trace_live *live, uint64_t bytes, uint64_t blocks) {
    live->live_bytes = bytes;
    live->live_blocks = blocks;
    if (bytes > live->totals.peak_live_bytes)
        live->totals.peak_live_bytes = bytes;
    if (blocks > live->totals.peak_live_blocks)
        live->totals.peak_live_blocks = blocks;
    live->totals.end_live_bytes = bytes;
    live->totals.end_live_blocks = blocks;
}

static int apply_allocation(struct trace_live *live, struct trace_event *event,
                            struct trace_error *error) {
    struct trace_totals *totals = &live->totals;
    if (event->block > totals->block_numbers)
        return fail(error, "block number ", event->block, " skips unused ones");
    if (event->block >= live->capacity && grow(live) != 0)
        return fail(error, "no memory for a table of ", event->block, " blocks");
    struct trace_live_block *block = &live->blocks[event->block];
    if (block->size != 0)
        return fail(error, "block ", event->block, " is allocated but live already");
    if (event->block == totals->block_numbers)
        totals->block_numbers++;
    block->size = event->size + 1;
    block->serial = event->serial = ++live->serials;
    block->locks = 0;
    event->old_size = 0;
    totals->allocations++;
    totals->total_bytes += event->size;
    set_live(live, live->live_bytes + event->size, live->live_blocks + 1);
    return 0;
}

static int apply_change(struct trace_live *live, struct trace_event *event,
                        struct trace_error *error) {
    struct trace_totals *totals = &live->totals;
    if (event->block >= totals->block_numbers || live->blocks[event->block].size == 0)
        return fail(error, "block ", event->block,
                    event->op == TRACE_FREE ? " is freed but not live"
                                            : " is reallocated but not live");
    struct trace_live_block *block = &live->blocks[event->block];
    if (event->op == TRACE_FREE && block->locks != 0)
        return fail(error, "block ", event->block, " is freed while it is locked");
    event->old_size = block->size - 1;
    event->serial = block->serial;
    event->locks = block->locks;
    if (block->locks != 0)
        live->locked_bytes += event->size - event->old_size;
    uint64_t bytes = live->live_bytes - event->old_size;
    if (event->op == TRACE_FREE) {
        block->size = 0;
        totals->frees++;
        set_live(live, bytes, live->live_blocks - 1);
    } else {
        block->size = event->size + 1;
        totals->reallocations++;
        if (event->size > event->old_size)
            totals->total_bytes += event->size - event->old_size;
        set_live(live, bytes + event->size, live->live_blocks);
    }
    return 0;
}

/* A lock taken, or given back. */
static void change_locks(struct trace_live *live, struct trace_live_block *block, bool lock) {
    uint64_t before = block->locks;
    block->locks = lock ? before + 1 : before - 1;
    live->totals.locks += lock;
    if (before != 0 && block->locks != 0)
        return;
    live->locked_blocks += lock ? 1 : UINT64_MAX;
    live->locked_bytes += lock ? block->size - 1 : 1 - block->size;
}

static void count_event(struct trace_live *live, const struct trace_event *event) {
    live->totals.events++;
    live->totals.duration_us = event->time_us;
    if (event->thread >= live->totals.threads)
        live->totals.threads = (uint64_t)event->thread + 1;
}

static int apply_use(struct trace_live *live, struct trace_event *event,
                     struct trace_error *error) {
    if (event->block >= live->totals.block_numbers || live->blocks[event->block].size == 0)
        return fail(error, "block ", event->block, " is used but not live");
    struct trace_live_block *block = &live->blocks[event->block];
    event->old_size = block->size - 1;
    event->serial = block->serial;
    if (event->op == TRACE_UNLOCK && block->locks == 0)
        return fail(error, "block ", event->block, " is unlocked but not locked");
    change_locks(live, block, event->op == TRACE_LOCK);
    return 0;
}

int trace_live_access(struct trace_live *live, const struct trace_event *event,
                      struct trace_error *error) {
    uint64_t size = event->block < live->totals.block_numbers ? live->blocks[event->block].size : 0;
    if (size == 0)
        return fail(error, "block ", event->block, " is used but not live");
    if (event->offset >= size || event->size >= size - event->offset)
        return fail(error, "block ", event->block, " is accessed beyond its end");
    live->totals.access_runs++;
    live->totals.reads += event->reads;
    live->totals.writes += event->writes;
    count_event(live, event);
    return 0;
}

int trace_live_apply(struct trace_live *live, struct trace_event *event,
                     struct trace_error *error) {
    int result;
    if (event->op == TRACE_ACCESS) {
        result = trace_live_access(live, event, error);
        if (result == 0) {
            event->old_size = live->blocks[event->block].size - 1;
            event->serial = live->blocks[event->block].serial;
        }
        return result;
    }
    if (event->op == TRACE_FREE || event->op == TRACE_REALLOC)
        result = apply_change(live, event, error);
    else if (event->op == TRACE_STACK || event->op == TRACE_MODULE)
        result = 0;
    else if (event->op >= TRACE_OP_SKIPPABLE)
        result = apply_use(live, event, error);
    else if (event->op != TRACE_EXEC)
        result = apply_allocation(live, event, error);
    else if (live->live_blocks != 0)
        result =
            fail(error, "another program begins while ", live->live_blocks, " blocks are live");
    else
        result = 0;
    if (result == 0)
        count_event(live, event);
    return result;
}

uint64_t trace_live_size(const struct trace_live *live, uint32_t block, int *ret_live) {
    uint64_t size = block < live->totals.block_numbers ? live->blocks[block].size : 0;
    *ret_live = size != 0;
    return size != 0 ? size - 1 : 0;
}
