/* The fixed heap's own parts, for fixed*.c and compact/slide.c: holes, places for blocks, entries, table.
 * Everything needs the heap's mutex held. Addresses named `at` are of headers in the chain.
 */
#ifndef JEFF_HEAP_FIXED_H
#define JEFF_HEAP_FIXED_H

#include "base/mark.h"
#include "handle/readers.h"
#include "heap/heap.h"

static inline struct jf_fixed *jf_fixed_part(struct jf_heap *heap) {
    return &heap->u.fixed_part;
}

/* What a new place for a block must have. */
struct jf_request {
    size_t stride;
    unsigned slack;
    unsigned align_log2;
    bool extended;
};

/* A hole and where in it the block would start. */
struct jf_place {
    uintptr_t hole;
    size_t hole_stride;
    uintptr_t at;
};

/* --- fixed_holes.c */

/* False when no block can be that large. */
bool jf_fixed_request(size_t size, unsigned align_log2, struct jf_request *ret_request);

/* First address from `hole` on at which a block with this alignment may start. */
static inline uintptr_t jf_fixed_align(uintptr_t hole, unsigned align_log2, bool extended) {
    uintptr_t prefix = extended ? JF_EXTENDED_SIZE : JF_HEADER_SIZE;
    return jf_bits_round_up(hole + prefix, (uintptr_t)1 << align_log2) - prefix;
}

/* Bin of a hole or of a request of this stride. */
static inline unsigned jf_fixed_bin(size_t stride) {
    unsigned bin = jf_bits_log2(stride / JF_GRAIN);
    return bin < JF_HOLE_BINS ? bin : JF_HOLE_BINS - 1;
}

/* Whether there is a hole at `at` (which may be the chain's end: no). */
bool jf_fixed_is_hole(const struct jf_heap *heap, uintptr_t at);
size_t jf_fixed_hole_stride(uintptr_t at);

/* Bytes of the hole at the end of the chain; 0 when there is none. */
static inline size_t jf_fixed_tail_stride(struct jf_heap *heap) {
    uintptr_t tail = jf_fixed_part(heap)->tail;
    return tail != 0 ? jf_fixed_hole_stride(tail) : 0;
}

/* Writes a hole's header and puts the hole into its bin. The cursor decides into which set. O(1). */
void jf_fixed_hole_insert(struct jf_heap *heap, uintptr_t at, size_t stride);
/* Takes a hole out of its bin; its header stays as it is. O(1). */
void jf_fixed_hole_remove(struct jf_heap *heap, uintptr_t at, size_t stride);

/* The hole will be taken out soon: has its neighbours in the bin brought near. */
void jf_fixed_hole_prefetch(const struct jf_heap *heap, uintptr_t at);

/* Space [at, at + stride) belongs to no bin: takes the holes behind it that begin before `end` out of
 * their bins, and gives the stride of all together. */
size_t jf_fixed_absorb(struct jf_heap *heap, uintptr_t at, size_t stride, uintptr_t end);

/* The headers strictly between `from` and `to` are gone: the addresses that the heap keeps of them
 * become `instead`. */
void jf_fixed_headers_gone(struct jf_heap *heap, uintptr_t from, uintptr_t to, uintptr_t instead);

/* Makes space that belongs to no bin a hole, joined with the holes behind it and, if that is the one
 * made last, the one before. */
void jf_fixed_free_space(struct jf_heap *heap, uintptr_t at, size_t stride);

/* A place for the request in any hole, the set below the cursor first. Tries a few holes of each size,
 * and only when none of them fits all. */
bool jf_fixed_find(struct jf_heap *heap, const struct jf_request *request,
                   struct jf_place *ret_place);

/* Cuts the block's space out of the hole; what is left before and behind are holes. Gives `at`. */
uintptr_t jf_fixed_take(struct jf_heap *heap, const struct jf_place *place, size_t stride);

/* Whether some hole below the cursor may take a block of this stride. O(1). */
static inline bool jf_fixed_may_place_below(struct jf_heap *heap, size_t stride) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    return fixed->mask[fixed->low_set] >> jf_fixed_bin(stride) != 0;
}

/* Takes a place for a block out of the holes below the cursor, after a bounded number of tries; its
 * address, or 0. Joins nothing, so the cursor stays. */
uintptr_t jf_fixed_place_below(struct jf_heap *heap, const struct jf_request *request);

/* The lowest place for the request that ends at or before `below`, of a bounded number of holes looked
 * at. Joins nothing. */
bool jf_fixed_find_lowest(struct jf_heap *heap, const struct jf_request *request, uintptr_t below,
                          struct jf_place *ret_place);

/* The heap has no block: one hole from the first header to the table. */
void jf_fixed_one_hole(struct jf_heap *heap);

/* --- fixed_table.c */

/* Sets the table up with the entry 0, which is never given out. */
void jf_fixed_table_init(struct jf_heap *heap, uintptr_t end);

/* Index of an entry to use, its word FREE; 0 when there is none and the table cannot grow. */
uint32_t jf_fixed_entry_pop(struct jf_heap *heap);
/* Puts back an entry that was popped and not used. */
void jf_fixed_entry_push(struct jf_heap *heap, uint32_t index);

/* Goes on with dropping the unused entries at the table's end; at most `count` entries are looked at.
 * False when that is finished. */
bool jf_fixed_trim(struct jf_heap *heap, unsigned count);
/* Starts it. */
void jf_fixed_trim_start(struct jf_heap *heap);

/* --- fixed.c */

/* Writes the header of a block, extended or not. */
void jf_fixed_write_block(uintptr_t at, const struct jf_request *request, uint32_t index,
                          unsigned kind);
static inline uintptr_t jf_fixed_payload(uintptr_t at, bool extended) {
    return at + (extended ? JF_EXTENDED_SIZE : JF_HEADER_SIZE);
}

/* Takes a place for the request out of any hole; its address, or 0. */
uintptr_t jf_fixed_place(struct jf_heap *heap, const struct jf_request *request);

/* Gives an entry that the caller owns a new block, and makes it LIVE; false when no hole fits. */
bool jf_fixed_new_block(struct jf_heap *heap, uint32_t index, size_t size, unsigned align_log2);

/* Names the block's address in its entry, which the caller owns, and makes it LIVE. */
void jf_fixed_publish(struct jf_heap *heap, uint32_t index, uintptr_t payload);

/* The same space elsewhere: what to ask for to move a block. */
void jf_fixed_request_of(const struct jf_step *step, struct jf_request *ret_request);

/* Makes an unlocked LIVE entry RESIZING, so that its block may be moved; false when it is locked or not
 * LIVE, or when a read section is open. */
bool jf_fixed_claim(struct jf_heap *heap, uint32_t index, struct jf_readers *readers,
                    const struct rm_reader *own);
/* The claim in two steps for many blocks at once: marks as MOVING; takes those that still are. */
bool jf_fixed_mark(jf_word *entry);
bool jf_fixed_claim_marked(jf_word *entry);
void jf_fixed_unmark(jf_word *entry);
/* Whether marked blocks may be moved as far as read sections are concerned. */
bool jf_fixed_readers_quiet(struct jf_readers *readers, const struct rm_reader *own);

#endif
