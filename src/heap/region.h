/* Regions of a growing heap: making, listing by density, the account of their bytes and pages; and the
 * holes that threads bump blocks into.
 */
#ifndef JEFF_HEAP_REGION_H
#define JEFF_HEAP_REGION_H

#include "base/debug.h"
#include "heap/heap.h"

/* --- Whole regions. The window's mutex is held. */

/* A fresh region, one hole, OWNED, in the heap's owned list; NULL when there is no memory. */
struct jf_region *jf_region_create(struct jf_heap *heap);

/* Gives an empty region, in whatever list it is, back to the arena. */
void jf_region_release(struct jf_region *region);

/* Puts a region into the list of its new state; one that nobody has and that has no live byte is
 * released, unless the window says to keep such for now. */
void jf_region_set_state(struct jf_region *region, enum jf_region_state state);

/* The bin that a region of this many live bytes belongs to. */
static inline unsigned jf_region_bin(size_t live) {
    return (unsigned)(live >> (JF_REGION_SHIFT - 5));
}

/* --- Accounts. Safe from any thread. */

/* Whether a quarter of what lived when the region was swept in vain has died since. */
static inline bool jf_region_has_thinned(const struct jf_region *region) {
    return jf_region_live_bytes(region) + region->swept_live / 4 <= region->swept_live;
}

/* The region's density has fallen into another bin: puts it into the window's crossed list. */
void jf_region_cross(struct jf_window *window, struct jf_region *region);

/* Takes freed blocks out of region.live. If the density falls into another bin the region is put into
 * the window's crossed list; jf_window_relist does the rest. The region must not be touched afterwards. */
static inline void jf_region_account(struct jf_window *window, struct jf_region *region,
                                     uint32_t bytes, uint32_t blocks) {
    uint32_t before = (uint32_t)jf_word_fetch_add_light(
        &region->live, (jf_word)0 - (((jf_word)blocks << 32) + bytes));
    uint32_t after = before - bytes;
    JF_ASSERT(before >= bytes);
    if (!RM_LIKELY(jf_region_bin(before) == jf_region_bin(after) && after != 0))
        jf_region_cross(window, region);
}

static inline void jf_region_add(struct jf_region *region, uint32_t bytes, uint32_t blocks) {
    jf_word_fetch_add_light(&region->live, ((jf_word)blocks << 32) + bytes);
}

/* Adds to the heap's committed bytes (negative: takes away); false, and nothing done, when the heap's
 * limit forbids it. `over` bytes above the limit are tolerated. */
bool jf_heap_commit(struct jf_heap *heap, size_t bytes, size_t over);
void jf_heap_uncommit(struct jf_heap *heap, size_t bytes);

/* --- Pages. The caller owns or holds the region. */

/* Marks the pages of [from, to) as holding memory; false when the heap's limit forbids it. */
bool jf_region_commit(struct jf_region *region, uintptr_t from, uintptr_t to, size_t over);

/* Gives back the marked pages that lie wholly in [from, to); returns bytes. */
size_t jf_region_give_back(struct jf_region *region, uintptr_t from, uintptr_t to);

/* The region's memory has been given back as a whole; returns bytes that were marked. */
size_t jf_region_was_given_back(struct jf_region *region);

/* Whether the page of this address is marked. */
bool jf_region_has_page(const struct jf_region *region, uintptr_t address);

/* Bytes of marked pages. */
size_t jf_region_committed(const struct jf_region *region);

/* As jf_block_step, in a region, where nothing is too large for its header. */
static inline bool jf_region_step(uintptr_t at, struct jf_step *ret_step) {
    jf_word header = jf_header_load(at);
    ret_step->at = at;
    ret_step->header = header;
    ret_step->payload = at + JF_HEADER_SIZE;
    ret_step->hole = !jf_header_is_block(header);
    ret_step->stride = jf_header_stride(header);
    return ret_step->stride != 0 && jf_header_kind(header) != JF_KIND_BAD;
}

/* --- Holes to bump into. The local's thread is inside, or the window's mutex guards the local. */

/* Takes up a region with the hole [from, to). */
void jf_local_open(struct jf_local *local, struct jf_region *region, uintptr_t from, uintptr_t to);

/* Forgets the region. */
static inline void jf_local_leave_region(struct jf_local *local) {
    local->region = NULL;
    local->sweep = 0;
    if (local->holes != NULL)
        local->holes->count = 0;
}

/* Whether there may be another hole in the region. */
static inline bool jf_local_has_more(const struct jf_local *local) {
    return local->sweep != 0 || (local->holes != NULL && local->holes->count != 0);
}

/* Claims more of the hole, so that `need` (an address) is within the limit. False when the hole ends
 * before it or the heap's limit forbids it. */
bool jf_local_claim(struct jf_local *local, uintptr_t need, size_t over);

/* Writes a header over what is left of the hole, so that the region can be walked; the local goes on. */
void jf_local_make_walkable(struct jf_local *local);

/* Lets go of the hole, not of the region: the rest becomes a hole again, the account is settled. */
void jf_local_close(struct jf_local *local);

/* Lets go of the hole, and looks for the next of the adopted region in which `stride` bytes fit: the smallest of those
 * that were noted, or the next in address order; few misfits are passed by, but for those that are noted. */
bool jf_local_next_hole(struct jf_local *local, size_t stride, unsigned align_log2);

#endif
