/* The time limit of a compaction call, and what a step is expected to cost. */
#ifndef JEFF_COMPACT_BUDGET_H
#define JEFF_COMPACT_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jf_budget {
    uint64_t start_ns;
    uint64_t total_ns;  /* 0 = no limit */
    uint64_t worked_ns; /* where there is no clock: estimated cost of the work done */
};

enum {
    JF_BUDGET_SLACK_NS = 15000, /* kept back for what the estimates do not see */
    /* Copying 1 KiB, out of cache, to pages that have memory; small processors: 1 us per 64 bytes. */
    JF_BUDGET_COPY_NS_KIB = UINTPTR_MAX == UINT64_MAX ? 260 : 15625,
    JF_BUDGET_FAULT_NS_KIB = 430, /* touching 1 KiB of pages that have none */
    JF_BUDGET_BLOCK_NS = 60,      /* looking at or moving one block, without its bytes */
    JF_BUDGET_GIVE_NS_KIB = 65,   /* giving 1 KiB back */
};

/* Starts the clock. `max_us` microseconds, 0 = no limit. */
void jf_budget_start(struct jf_budget *ret_budget, uint32_t max_us);

/* Nanoseconds that are left after the slack, 0 when spent; UINT64_MAX without limit. */
uint64_t jf_budget_left(const struct jf_budget *budget);

/* Whether a step of this cost still fits. */
bool jf_budget_affords(const struct jf_budget *budget, uint64_t cost_ns);

/* Whether a step of this cost would fit into a call that has just begun. */
bool jf_budget_could_ever_afford(const struct jf_budget *budget, uint64_t cost_ns);

/* Counts work done, for ports without a clock. */
void jf_budget_worked(struct jf_budget *budget, size_t bytes, size_t blocks);

/* Expected cost of moving `blocks` blocks of together `bytes` bytes. */
static inline uint64_t jf_budget_move_ns(size_t bytes, size_t blocks) {
    return (uint64_t)blocks * JF_BUDGET_BLOCK_NS + (uint64_t)bytes * JF_BUDGET_COPY_NS_KIB / 1024;
}

/* Microseconds since the start. */
uint32_t jf_budget_elapsed_us(const struct jf_budget *budget);

#endif
