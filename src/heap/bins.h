/* Freed blocks kept at hand to be given out again: a stack for every stride up to 4 KiB, of the indexes of
 * their entries. A block in a bin keeps its entry, which is PENDING and points to it, and its header says
 * block; its bytes stay in its region's account. So the next block of that stride takes over block and
 * entry together, and neither table nor region is touched (docs: design/map).
 */
#ifndef JEFF_HEAP_BINS_H
#define JEFF_HEAP_BINS_H

#include "handle/entry.h"
#include "heap/block.h"

enum {
    JF_BIN_STRIDE_MAX = 4096,
    JF_BIN_STRIDE_SMALL =
        1024, /* bins of larger strides hold few blocks, and none is passed on to other threads */
    JF_BIN_SIZE_SMALL = JF_BIN_STRIDE_SMALL - JF_HEADER_SIZE,
    JF_BINS = JF_BIN_STRIDE_MAX / JF_GRAIN + 1, /* by stride in grains */
    JF_BINS_SMALL = JF_BIN_STRIDE_SMALL / JF_GRAIN + 1,
    JF_BIN_BLOCKS = 63,       /* that a bin has room for, */
    JF_BIN_BLOCKS_LARGER = 7, /* and one of a larger stride */
    JF_BIN_BYTES = 16 << 10,  /* that it may keep, */
    JF_BIN_BYTES_LARGER = 8 << 10,
    JF_BIN_WORDS = (JF_BINS + 63) / 64,
};

/* A thread's bins of one heap. Only the thread changes them, while it is inside. Of each bin the first word is the count, and
 * the blocks follow, the newest last. */
struct jf_bins {
    uint32_t small[JF_BINS_SMALL][JF_BIN_BLOCKS + 1];
    uint32_t larger[JF_BINS - JF_BINS_SMALL][JF_BIN_BLOCKS_LARGER + 1];
    uint64_t filled
        [JF_BIN_WORDS];  /* a bit for each bin with a block in it, and for some that were emptied */
    uint32_t depot_part; /* where what overflows goes */
};

static inline uint32_t *jf_bins_at(struct jf_bins *bins, size_t number) {
    return RM_LIKELY(number < JF_BINS_SMALL) ? bins->small[number]
                                             : bins->larger[number - JF_BINS_SMALL];
}

/* The bin of blocks for `size` bytes; JF_BINS or more when such are not kept. The size is no more than
 * SIZE_MAX - 32. */
static inline size_t jf_bins_of_size(size_t size) {
    return (size + JF_HEADER_SIZE + JF_GRAIN - 1) / JF_GRAIN;
}

/* How many blocks a bin may keep, 2 or more: by its stride in grains. */
extern const uint8_t jf_bins_room[JF_BINS] __attribute__((visibility("hidden")));

static inline void jf_bins_note(struct jf_bins *bins, size_t number) {
    bins->filled[number / 64] |= (uint64_t)1 << number % 64;
}

/* Puts a block into a bin, which lies there; false when there is no room. */
static inline bool jf_bins_push_at(struct jf_bins *bins, uint32_t *bin, size_t number,
                                   uint32_t index) {
    uint32_t count = *bin;
    if (!RM_LIKELY(count < jf_bins_room[number]))
        return false;
    bin[count + 1] = index;
    *bin = count + 1;
    if (!RM_LIKELY(count != 0))
        jf_bins_note(bins, number);
    return true;
}

static inline bool jf_bins_push(struct jf_bins *bins, size_t number, uint32_t index) {
    return jf_bins_push_at(bins, jf_bins_at(bins, number), number, index);
}

/* The newest of a bin's blocks; there must be one. */
static inline uint32_t jf_bin_pop(uint32_t *bin) {
    uint32_t index = bin[*bin];
    --*bin;
    return index;
}

/* The first bin from this one on that has a block; JF_BINS when none has. */
size_t jf_bins_next(struct jf_bins *bins, size_t number);

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
