/* What the compactor of a growing heap keeps between the steps and calls of a compaction: the region it
 * is in, and the places that blocks may be moved to. Everything is guarded by the heap's `compacting`
 * mutex; between two steps the headers of all regions it holds are a valid chain.
 *
 * Places to move to, best first:
 *   pocket  a hole in pages that stay anyway, because a block there is locked (or stays for another
 *           reason); kept by size in bins, linked through the hole's second word. A cycle with much to do
 *           begins with those of a region whose blocks all stay: they have their memory, fresh pages do not
 *   gap     whole pages vacated by earlier moves, between blocks that stay; used in the order they came
 *           about, so blocks go to the lowest addresses first. More than some is given back at once.
 *   empty   a whole region vacated; a few are kept, so that those given back are mostly neighbours: the
 *           system takes two MiB that begin at a multiple of their size in less time than one, and after
 *           each time the processor's memory of the page tables is gone
 *   fresh   a new region, when there is neither: so a compaction needs about one region of memory
 */
#ifndef JEFF_COMPACT_COMPACTOR_H
#define JEFF_COMPACT_COMPACTOR_H

#include "heap/region.h"

enum {
    JF_GAPS_MAX = 256, /* as many as a step may leave behind, besides those of the one before */
    JF_GAPS_KEEP = 64, /* gaps that keep their memory, */
    JF_GAPS_BYTES = 2 << 20, /* of so many bytes; more are given back, in steps of their own */
    JF_EMPTY_KEEP = 3,       /* vacated regions that are kept to be filled; */
    JF_EMPTY_KEEP_LONG = 24, /* without a time limit, when all is given back in the same call */
    JF_EMPTY_MAX = 32,       /* most of them, where there was no time to give some back */
    JF_POCKET_BINS = 10,     /* pockets of 16 << bin .. bytes */
    JF_POCKET_MIN = 32,
    JF_BATCH_BLOCKS = 2048, /* most blocks looked at in a step */
    JF_BATCH_BYTES = 256 << 10,
    JF_GROUP_BLOCKS = 512,  /* most blocks that are marked, asked about and moved together */
    JF_BATCH_NS_MIN = 4000, /* with less time left nothing is begun */
    JF_COMPACT_OVER = JF_CLAIM_SIZE, /* bytes above the heap's limit that a compaction may use */
};

struct jf_compaction;

struct jf_gap {
    struct jf_region *region;
    uintptr_t from, to;
};

/* The gap that blocks are being moved to. What lies before `limit` has its memory and is counted in the
 * region's live bytes before a block is there: somebody may free it as soon as its entry names the place.
 * Between two steps `limit` is `from`: nothing is counted that is not there. */
struct jf_filling {
    struct jf_region *region; /* NULL: none */
    uintptr_t from, limit, to;
    uintptr_t
        counted; /* `from` when the region's blocks and `filled` were brought up to date last, plus the
                        * bytes that alignment has cost since */
    uint32_t blocks; /* placed since then */
};

/* What becomes of a block in a batch. */
enum jf_fate {
    JF_FATE_LOCKED,
    JF_FATE_STAYS,
    JF_FATE_MOVES,
    JF_FATE_MARKED, /* in the end: moved */
    JF_FATE_GONE,   /* freed since it was looked at */
};

/* A block of a group. The entry remains the one that its header names, whatever else changes there. */
struct jf_member {
    uintptr_t at; /* its header */
    jf_word *entry;
    jf_word word; /* the entry's when it was looked at, or as it is marked */
    enum jf_fate fate;
};

/* Blocks that are marked, asked about and moved together. */
struct jf_group {
    unsigned count;
    bool marked;  /* some are, or were, marked */
    bool staying; /* some have not moved */
    struct jf_member members[JF_GROUP_BLOCKS];
};

struct jf_compactor {
    struct jf_region *source;              /* region being walked; NULL: choose one */
    uintptr_t cursor;                      /* next header to look at */
    uintptr_t run;                         /* start of the free run that ends at the cursor */
    uint64_t pinned[JF_REGION_PAGES / 64]; /* pages of the source with a block that cannot move */
    bool any_pinned;
    bool in_place;    /* the source's blocks stay, its holes are to be filled */
    uint32_t witness; /* entry of a block that was locked in the source */
    uintptr_t
        last_source; /* where the region began that was walked last; 0: none, or its buddy was too */
    struct jf_filling gap; /* being filled */
    size_t claim;          /* bytes of it that are made ready at a time */
    size_t
        left_behind; /* bytes given back behind places that were given up, not yet in a call's result */
    size_t filled; /* live bytes that its region would have, had nothing been freed there since */
    struct jf_gap gaps[JF_GAPS_MAX];
    unsigned gap_first, gap_count;
    size_t gap_bytes;
    struct jf_region *empty[JF_EMPTY_MAX]; /* vacated regions, the oldest first */
    unsigned empty_count;
    uintptr_t pockets[JF_POCKET_BINS];
    uint32_t pocket_mask;
    bool in_cycle; /* a cycle has begun and not ended */
    /* Regions that the cycle may still choose, at first as many as there were: so it ends however busy other threads
     * are, and what they have emptied meanwhile is let go of. */
    size_t sources_left;
    bool begun;   /* and a region to begin with was looked for */
    bool starved; /* a block stayed in this cycle because there was no room to move it to */
    uint64_t committed_before; /* the heap's committed bytes when the cycle began */
    uint64_t give_ns;  /* what giving back a region, or two, takes on this machine at most */
    uint64_t purge_ns; /* and a step of giving back what the arena keeps */
    struct jf_group groups[2]; /* being moved, and being looked at meanwhile */
};

/* --- gaps.c */

/* A place for `stride` bytes: address of the header, its pages marked as holding memory, its bytes counted in
 * its region, and a header over what is left of the hole it was taken from where that is a pocket. 0: no room
 * to be had. */
uintptr_t jf_gaps_place(struct jf_heap *heap, struct jf_compactor *compactor, size_t stride,
                        unsigned align_log2);

/* The same without a call where there is nothing to decide. */
static inline uintptr_t jf_gaps_place_fast(struct jf_heap *heap, struct jf_compactor *compactor,
                                           size_t stride, unsigned align_log2) {
    struct jf_filling *gap = &compactor->gap;
    uintptr_t at = gap->from;
    if (compactor->pocket_mask != 0 || align_log2 != JF_ALIGN_LOG2_MIN || gap->limit - at < stride)
        return jf_gaps_place(heap, compactor, stride, align_log2);
    gap->from = at + stride;
    gap->blocks++;
    return at;
}

/* Takes a place back that was given out last and not used. */
void jf_gaps_return(struct jf_heap *heap, struct jf_compactor *compactor, uintptr_t at,
                    size_t stride);

/* Brings the accounts of the region being filled up to date: a step ends. */
void jf_gaps_settle(struct jf_compactor *compactor);

/* Writes a header over the rest of the gap being filled. */
void jf_gaps_make_walkable(struct jf_compactor *compactor);

/* Leaves the rest of the gap being filled as a hole and gives its pages back. */
void jf_gaps_leave(struct jf_compactor *compactor);

/* Takes up the free run [from, to) between blocks that stay: headers, pockets, a gap or given back. Returns
 * bytes given back. */
size_t jf_gaps_add_run(struct jf_compactor *compactor, struct jf_region *region, uintptr_t from,
                       uintptr_t to);

/* Keeps a region that is empty now, to be filled or given back. There are less than JF_EMPTY_MAX. */
void jf_gaps_add_region(struct jf_compactor *compactor, struct jf_region *region);

/* Gives back empty regions that are neighbours, at most `most` of them; returns bytes. There is one. */
size_t jf_gaps_give_regions(struct jf_heap *heap, struct jf_compactor *compactor, unsigned most);

/* Whether more gaps keep their memory than shall; and whether there might be no room for those of another step. */
bool jf_gaps_are_many(const struct jf_compactor *compactor);
bool jf_gaps_are_too_many(const struct jf_compactor *compactor);

/* Gives back the gap that came about last, of which there is one; returns bytes. */
size_t jf_gaps_give_one(struct jf_compactor *compactor);

/* No gap and no empty region is left but the one being filled: gives back the rest of that, and forgets the
 * pockets; returns bytes. */
size_t jf_gaps_finish(struct jf_compactor *compactor);

/* --- collect.c */

/* Accounts for what was freed and waits: in the heap's depot, in the calling thread's ring and bins and in those
 * of other threads that are idle; takes sparse regions from them. *ret_left: in a call with a budget, something of
 * a busy thread's was left to it. False when the budget has ended. */
bool jf_collect(struct jf_compaction *compaction, bool *ret_left);

/* --- choose.c. Nothing is moved here. */

/* Whether moving the region's blocks elsewhere would free enough memory to be worth it. */
bool jf_choose_is_sparse(const struct jf_region *region);

/* The sparsest region that is worth it, HELD now; NULL when there is none. A neighbour of the region that
 * begins at `last` (0: none) goes before those that are hardly sparser: neighbours are given back in one go. Dense
 * ones met on the way are settled. Takes the window's mutex. Looks at no more than `most` regions; *ret_more says
 * that it stopped for that. */
struct jf_region *jf_choose_source(struct jf_heap *heap, uintptr_t last, unsigned most,
                                   bool *ret_more);

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

/* When there is much to move: a region that is worth it and has all its memory, HELD now; else NULL. Takes the
 * window's mutex. Looks at no more than `most` regions. */
struct jf_region *jf_choose_to_fill(struct jf_heap *heap, unsigned most);

/* How many regions the heap has; whether one is listed, whether one is stuck. Take the window's mutex. */
size_t jf_choose_count(struct jf_heap *heap);
bool jf_choose_has_listed(struct jf_heap *heap);
bool jf_choose_has_stuck(struct jf_heap *heap);

/* Dead bytes that locked blocks keep in stuck regions. */
uint64_t jf_choose_pinned(struct jf_heap *heap);

#endif
