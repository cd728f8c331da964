/* Walks a heap of either profile that is held still: its parts (regions), and the steps in a part. */
#ifndef JEFF_CHECK_WALK_H
#define JEFF_CHECK_WALK_H

#include "check/hold.h"

/* A chain of headers. */
struct jf_part {
    struct jf_heap *heap;
    struct jf_region *region;     /* NULL: the fixed heap's only one */
    const struct jf_local *local; /* what bumps into it; NULL: nothing */
    uintptr_t first, last;        /* the first header; where the chain must end */
};

/* Calls `visit` for every part but those in the hands of threads that are inside, until it returns
 * false; returns that, or true. Trusts the lists of regions. */
typedef bool jf_part_fn(void *context, const struct jf_part *part);
bool jf_walk_parts(const struct jf_hold *hold, jf_part_fn *visit, void *context);

/* How a step went. */
enum jf_walk {
    JF_WALK_STEP,
    JF_WALK_NO_HEADER, /* rule 2: what lies there is of no kind */
    JF_WALK_BROKEN,    /* rule 1: the stride is 0 or leads beyond the end */
};

/* Reads the step at `at`, first <= at < last, and vouches that all of it lies in the part. */
enum jf_walk jf_walk_step(const struct jf_part *part, uintptr_t at, struct jf_step *ret_step);

/* The entry that a header's index names; NULL when there is no such entry. */
const jf_word *jf_walk_entry(const struct jf_heap *heap, uint32_t index);

/* Entries that may be looked at: indexes below this. */
uint32_t jf_walk_entries(const struct jf_heap *heap);

/* Whether the word stands for a block that lies somewhere. */
static inline bool jf_walk_has_memory(jf_word word) {
    enum jf_entry_state state = jf_entry_state(word);
    return state == JF_ENTRY_LIVE || state == JF_ENTRY_MOVING || state == JF_ENTRY_RESIZING ||
           state == JF_ENTRY_PENDING;
}

/* Whether the step is a block that the program still has: `word` is its entry. */
static inline bool jf_walk_is_live(const struct jf_heap *heap, const struct jf_step *step,
                                   jf_word word) {
    return !step->hole && jf_walk_has_memory(word) && jf_entry_state(word) != JF_ENTRY_PENDING &&
           jf_space_address(heap->space, word) == step->payload;
}

/* A number that differs for different places with near certainty, so that the sum over a set tells
 * sets apart (mixing function of splitmix64, Steele, Lea, Flood 2014). */
static inline uint64_t jf_walk_hash(uint64_t value) {
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

#endif
