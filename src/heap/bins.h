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
    JF_BINS = JF_BIN_STRIDE_MAX / JF_GRAIN + 1, /* by stride in grains */
    JF_BIN_BLOCKS = 64,                         /* that a bin has room for */
    JF_BIN_BYTES = 16 << 10,                    /* that it may keep */
};

/* A thread's bins of one heap. Only the thread changes them, while it is inside. */
struct jf_bins {
    const jf_word *last; /* the entry given out last, which may well be the next to be freed */
    size_t last_bin;     /* out of this bin */
    uint8_t count[JF_BINS];
    uint32_t slot[JF_BINS][JF_BIN_BLOCKS];
};

/* The bin of blocks for `size` bytes; JF_BINS or more when such are not kept. The size is no more than
 * SIZE_MAX - 32. */
static inline size_t jf_bins_of_size(size_t size) {
    return (size + JF_HEADER_SIZE + JF_GRAIN - 1) / JF_GRAIN;
}

/* How many blocks a bin may keep: by its stride in grains. */
extern const uint8_t jf_bins_room[JF_BINS] __attribute__((visibility("hidden")));

/* The header of a block of `size` bytes, of a stride that is no larger than need be: stride and slack are the
 * two parts of one sum, what the slack lacks to 15 being what the size goes beyond a whole grain. */
static inline jf_word jf_bins_header(uint32_t index, size_t size) {
    size_t sum = size + JF_HEADER_SIZE + JF_GRAIN - 1;
    return (jf_word)index << 32 | ((jf_word)sum << 8 ^ ((JF_GRAIN - 1) << 8 | JF_KIND_BLOCK));
}

/* Gives out the newest of `count` blocks of a bin, for `size` bytes. `table` and `base` are the space's. The
 * thread is inside; or `single`, the only one there is. */
static inline rmhandle_t jf_bins_pop(struct jf_bins *bins, size_t bin, unsigned count, size_t size,
                                     uintptr_t table, uintptr_t base, bool single) {
    uint32_t index = bins->slot[bin][count - 1];
    jf_word *entry = (jf_word *)table + index;
    jf_word word = __atomic_load_n(entry, __ATOMIC_RELAXED);
    bins->count[bin] = (uint8_t)(count - 1);
    bins->last = entry;
    bins->last_bin = bin;
    jf_header_store_low(base + (uintptr_t)jf_entry_offset(word) - JF_HEADER_SIZE,
                        jf_bins_header(index, size));
    jf_word_publish_byte_light(entry, word ^ (JF_ENTRY_PENDING ^ JF_ENTRY_LIVE), single);
    return (rmhandle_t)((uintptr_t)entry | (uintptr_t)(word & JF_ENTRY_GENERATION_MASK) << 12);
}

#endif
