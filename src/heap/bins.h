/* Freed blocks kept at hand to be given out again: a stack for every stride up to 1 KiB, of the indexes of
 * their entries. A block in a bin keeps its entry, which is PENDING and points to it, and its header says
 * block; its bytes stay in its region's account. So the next block of that stride takes over block and
 * entry together, and neither table nor region is touched (docs: design/map).
 */
#ifndef JEFF_HEAP_BINS_H
#define JEFF_HEAP_BINS_H

#include "handle/entry.h"
#include "heap/block.h"

enum {
    JF_BIN_STRIDE_MAX = 1024,
    JF_BIN_SIZE_MAX = JF_BIN_STRIDE_MAX - JF_HEADER_SIZE,
    JF_BINS = JF_BIN_STRIDE_MAX / JF_GRAIN + 1, /* by stride in grains */
    JF_BIN_BLOCKS = 62,                         /* that a bin has room for */
    JF_BIN_BYTES = 16 << 10,                    /* that it may keep */
};

struct jf_block_bin {
    uint32_t count;
    uint32_t room; /* blocks that it may keep */
    uint32_t slot[JF_BIN_BLOCKS];
};

/* A thread's bins of one heap. Only the thread changes them, while it is inside. */
struct jf_bins {
    struct jf_block_bin of[JF_BINS];
    uint32_t depot_part; /* where what overflows goes */
};

/* The bin of blocks for `size` bytes; JF_BINS or more when such are not kept. The size is no more than
 * SIZE_MAX - 32. */
static inline size_t jf_bins_of_size(size_t size) {
    return (size + JF_HEADER_SIZE + JF_GRAIN - 1) / JF_GRAIN;
}

/* Of empty bins, all zero. */
void jf_bins_init(struct jf_bins *bins, uint32_t depot_part);

/* Puts a block into its bin; false when there is no room. */
static inline bool jf_bin_push(struct jf_block_bin *bin, uint32_t index) {
    uint32_t count = bin->count;
    if (!RM_LIKELY(count < bin->room))
        return false;
    uint32_t *slot = bin->slot;
    __asm__("" : "+r"(slot)); /* else the slot's address is worked out anew */
    slot[count] = index;
    bin->count = count + 1;
    return true;
}

/* The newest of a bin's blocks; there must be one. */
static inline uint32_t jf_bin_pop(struct jf_block_bin *bin) {
    uint32_t *end = bin->slot + bin->count;
    bin->count--;
    return end[-1];
}

/* The low half of the header of a block of `size` bytes, of a stride that is no larger than need be: stride and slack
 * are the two parts of one sum, what the slack lacks to 15 being what the size goes beyond a whole grain. */
static inline uint32_t jf_bins_header(size_t size) {
    uint32_t sum = (uint32_t)size + JF_HEADER_SIZE + JF_GRAIN - 1;
    return sum << 8 ^ ((JF_GRAIN - 1) << 8 | JF_KIND_BLOCK);
}

/* Gives out the block with its header at `at` that has waited, for `size` bytes of its stride; `word` is its entry's as it
 * is to become, LIVE. The thread is inside; or `single`, the only one there is. */
static inline void jf_bins_give_out(jf_word *entry, jf_word word, uintptr_t at, size_t size,
                                    bool single) {
    jf_header_store_low(at, jf_bins_header(size));
    jf_word_publish_byte_light(entry, word, single);
}

/* Its handle. */
static inline rmhandle_t jf_bins_handle(const jf_word *entry, jf_word word) {
    return (rmhandle_t)((uintptr_t)entry | (uintptr_t)(word & JF_ENTRY_GENERATION_MASK) << 12);
}

#endif
