/* The rules of heap.h, one function for each; check.c calls them in an order in which every rule may rely
 * on those before it. A function returns false after it has noted the fault.
 */
#ifndef JEFF_CHECK_RULES_H
#define JEFF_CHECK_RULES_H

#include "check/walk.h"

enum jf_rule {
    JF_RULE_HEADER_CHAIN = 1,
    JF_RULE_HEADER_KIND,
    JF_RULE_ENTRY_BACK,
    JF_RULE_ENTRY_ONCE,
    JF_RULE_ALIGNMENT,
    JF_RULE_LIVE_SUM,
    JF_RULE_PAGE_MAP,
    JF_RULE_COMMITTED_SUM,
    JF_RULE_LIST_PLACE,
    JF_RULE_HOLE_BINS,
    JF_RULE_ENTRY_FREE,
    JF_RULE_LARGE_ENTRY,
    JF_RULE_ARENA,
    JF_RULE_TABLE_PAGE,
    JF_RULE_POOL,
    JF_RULE_BINS,
    JF_RULES
};

/* One check under way. */
struct jf_inspection {
    struct jf_hold hold;
    struct jf_heap *heap;
    struct rm_fault fault;
    /* what the walk of the part under way has met */
    size_t part_live; /* strides of blocks */
    uint32_t part_blocks;
    /* what the walk of all parts has met */
    size_t live;
    size_t blocks;
    size_t committed;
    uint64_t blocks_hash; /* of the blocks whose entries point back */
    struct jf_hole_sum {
        size_t bytes;
        uint64_t hash;
    } holes[2];            /* of a fixed heap: below the cursor, and not */
    uintptr_t first_hole;  /* 0 = none */
    uintptr_t last_hole;   /* the hole that ends the chain; 0 = none */
    bool cursor_met;       /* the cursor is a header's address */
    uint64_t waiting_hash; /* of the blocks that were freed and not yet accounted for */
};

/* A set of free entries as a number, so that those that say they are free can be compared with those
 * that are linked; entries that may or may not be linked are only counted. */
struct jf_free_sum {
    uint64_t hash;
    size_t optional;
};

static inline void jf_free_sum_add(struct jf_free_sum *sum, uint32_t index, bool optional) {
    if (optional)
        sum->optional++;
    else
        sum->hash += jf_walk_hash(index);
}

/* Notes a fault; gives false. `index`: entry of the block concerned, 0 = none. */
bool jf_rule_broken(struct jf_inspection *inspection, enum jf_rule rule, uint32_t index,
                    uintptr_t address);

/* --- rules.c: of both profiles */

/* 1 and 2, for the step at `at`; on success *ret_step is to be trusted. */
bool jf_rule_header(struct jf_inspection *inspection, const struct jf_part *part, uintptr_t at,
                    struct jf_step *ret_step);
bool jf_rule_entry_back(struct jf_inspection *inspection, const struct jf_step *step); /* 3 */
bool jf_rule_entry_once(struct jf_inspection *inspection);                             /* 4 */
bool jf_rule_alignment(struct jf_inspection *inspection, const struct jf_step *step);  /* 5 */

/* --- rules_grow.c */

bool jf_rule_region_live(struct jf_inspection *inspection, const struct jf_part *part); /* 6 */
bool jf_rule_page_map(struct jf_inspection *inspection, const struct jf_part *part,
                      const struct jf_step *step);            /* 7 */
bool jf_rule_committed_sum(struct jf_inspection *inspection); /* 8 */
bool jf_rule_list_place(struct jf_inspection *inspection);    /* 9 */
bool jf_rule_table_free(struct jf_inspection *inspection);    /* 11 */
bool jf_rule_large_entry(struct jf_inspection *inspection);   /* 12 */
bool jf_rule_arena(struct jf_inspection *inspection);         /* 13 */
bool jf_rule_table_page(struct jf_inspection *inspection);    /* 14 */
bool jf_rule_pool(struct jf_inspection *inspection);          /* 15 */
bool jf_rule_bins(struct jf_inspection *inspection);          /* 16 */
/* Gathers what rule 16 compares. */
void jf_rule_note_waiting(struct jf_inspection *inspection, const struct jf_step *step);

/* --- rules_fixed.c */

bool jf_rule_fixed_live(struct jf_inspection *inspection); /* 6 */
bool jf_rule_hole_bins(struct jf_inspection *inspection);  /* 10 */
bool jf_rule_fixed_free(struct jf_inspection *inspection); /* 11 */
bool jf_rule_fixed_used(struct jf_inspection *inspection); /* 14 */
/* Gathers what rule 10 compares. */
void jf_rule_note_hole(struct jf_inspection *inspection, const struct jf_step *step);

#endif
