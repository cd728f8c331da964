/* What the compactor of a growing heap keeps between the steps and calls of a compaction: the region it
 * is in, and the places that blocks may be moved to. Everything is guarded by the heap's `compacting`
 * mutex; between two steps the headers of all regions it holds are a valid chain.
 *
 * Places to move to, best first:
 *   pocket  a hole in pages that stay anyway, because a block there is locked (or stays for another
 *           reason); kept by size in bins, linked through the hole's second word
 *   gap     whole pages vacated by earlier moves; used in the order they came about, so blocks go to the
 *           lowest addresses first. More than a few regions' worth is given back at once.
 *   fresh   a new region, when there is no gap yet: so a compaction needs about one region of memory
 */
#ifndef JEFF_COMPACT_COMPACTOR_H
#define JEFF_COMPACT_COMPACTOR_H

#include "heap/region.h"

enum {
    JF_GAPS_MAX = 64,
    JF_GAPS_KEEP = 2 << 20, /* bytes of gaps that keep their memory */
    JF_POCKET_BINS = 10,    /* pockets of 16 << bin .. bytes */
    JF_POCKET_MIN = 32,
    JF_BATCH_BLOCKS = 512, /* most blocks looked at in a step */
    JF_BATCH_BYTES = 32 << 10,
    JF_COMPACT_OVER = JF_CLAIM_SIZE, /* bytes above the heap's limit that a compaction may use */
};

struct jf_gap {
    struct jf_region *region;
    uintptr_t from, to;
};

/* What becomes of a block in a batch. */
enum jf_fate { JF_FATE_LOCKED, JF_FATE_STAYS, JF_FATE_MOVES, JF_FATE_MARKED, JF_FATE_MOVED };

struct jf_compactor {
    struct jf_region *source;              /* region being walked; NULL: choose one */
    uintptr_t cursor;                      /* next header to look at */
    uintptr_t run;                         /* start of the free run that ends at the cursor */
    uint64_t pinned[JF_REGION_PAGES / 64]; /* pages of the source with a block that cannot move */
    uint32_t witness;                      /* entry of a block that was locked in the source */
    struct jf_gap gap;                     /* being filled from `from`; region NULL: none */
    size_t filled; /* live bytes that its region would have, had nothing been freed there since */
    struct jf_gap gaps[JF_GAPS_MAX];
    unsigned gap_first, gap_count;
    size_t gap_bytes;
    uintptr_t pockets[JF_POCKET_BINS];
    uint32_t pocket_mask;
    bool in_cycle; /* a cycle has begun and not ended */
    bool starved;  /* a block stayed in this cycle because there was no room to move it to */
    uint64_t committed_before; /* the heap's committed bytes when the cycle began */
    unsigned count;
    uintptr_t at[JF_BATCH_BLOCKS];
    jf_word word[JF_BATCH_BLOCKS];
    uint8_t fate[JF_BATCH_BLOCKS];
};

/* --- gaps.c */

/* A place for `stride` bytes: address of the header, its pages marked as holding memory, and a header over
 * what is left of the hole it was taken from where that is a pocket. 0: no room to be had. */
uintptr_t jf_gaps_place(struct jf_heap *heap, struct jf_compactor *compactor, size_t stride,
                        unsigned align_log2);

/* Takes a place back that was not used. */
void jf_gaps_return(struct jf_compactor *compactor, uintptr_t at, size_t stride);

/* Writes a header over the rest of the gap being filled. */
void jf_gaps_make_walkable(struct jf_compactor *compactor);

/* Leaves the rest of the gap being filled as a hole and gives its pages back. */
void jf_gaps_leave(struct jf_compactor *compactor);

/* Takes up the free run [from, to) between blocks that stay: headers, pockets, a gap or given back. Returns
 * bytes given back. */
size_t jf_gaps_add_run(struct jf_compactor *compactor, struct jf_region *region, uintptr_t from,
                       uintptr_t to);

/* Keeps a region that is empty now as a gap, or gives it back. Returns bytes given back. */
size_t jf_gaps_add_region(struct jf_heap *heap, struct jf_compactor *compactor,
                          struct jf_region *region);

/* Gives back the oldest gap, of which there is one; returns bytes. */
size_t jf_gaps_give_one(struct jf_compactor *compactor);

/* Gives back what is left of all gaps but the one being filled, and forgets the pockets; returns bytes. */
size_t jf_gaps_finish(struct jf_compactor *compactor);

/* --- choose.c. Nothing is moved here. */

/* Whether moving the region's blocks elsewhere would free enough memory to be worth it. */
bool jf_choose_is_sparse(const struct jf_region *region);

/* The sparsest region that is worth it, HELD now; NULL when there is none. Dense ones met on the way are
 * settled. Takes the window's mutex. Looks at no more than `most` regions; *ret_more says that it stopped
 * for that. */
struct jf_region *jf_choose_source(struct jf_heap *heap, unsigned most, bool *ret_more);

/* A compaction call begins: all stuck regions may be looked at again, unless the last call did not get
 * through with them. */
void jf_choose_begin_retry(struct jf_heap *heap);

/* Looks again at stuck regions: those whose witness is no longer locked may be chosen again. At most
 * `most`; false when there are more. Takes the window's mutex. */
bool jf_choose_retry_stuck(struct jf_heap *heap, unsigned most);

/* Ends a cycle: lets go of all held regions but `filling`. They are settled, or stuck where locked blocks
 * keep memory; those that could be walked with more success by now, because an earlier call walked them or (`roomier`)
 * because there is more room, are listed again. */
void jf_choose_settle(struct jf_heap *heap, const struct jf_region *filling, bool roomier);

/* Whether so much was freed in the region being filled, which had `filled` live bytes, that it is to be walked
 * itself. */
bool jf_choose_filling_is_sparse(const struct jf_region *filling, size_t filled);

/* Whether a region is listed, whether one is stuck. Take the window's mutex. */
bool jf_choose_has_listed(struct jf_heap *heap);
bool jf_choose_has_stuck(struct jf_heap *heap);

/* Dead bytes that locked blocks keep in stuck regions. */
uint64_t jf_choose_pinned(struct jf_heap *heap);

#endif
