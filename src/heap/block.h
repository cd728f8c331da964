/* The block header: 8 bytes before every payload, and at the start of every hole.
 *
 *   63..32 entry index | 31..12 stride / 16 | 11..8 slack | 7..4 log2(alignment) - 4 | 3..0 kind
 *
 * The stride is the distance to the next header, a multiple of 16; headers lie at addresses that are 8
 * modulo 16, payloads at multiples of 16. Usable size = stride - 8 - slack. From the first header of a
 * region, stride by stride, one gets to every block and hole and exactly to the region's end.
 *
 * A stride of 16 MiB or more (fixed heaps only) does not fit: its field is 0 then. Such a hole keeps
 * the stride in its third word. Such a block is preceded by two words of its own, the first of them
 * with the kind JF_KIND_EXTENDED and the whole stride, the second unused; what follows is an ordinary
 * header with stride 0 and the slack, then the payload:   [extended][unused][header][payload ...]
 */
#ifndef JEFF_HEAP_BLOCK_H
#define JEFF_HEAP_BLOCK_H

#include "base/atomic.h"
#include "base/bits.h"
#include "base/mark.h"

enum jf_kind {
    JF_KIND_BAD = 0,      /* never written */
    JF_KIND_HOLE = 1,     /* no block: free, its second word belongs to whoever keeps the hole */
    JF_KIND_DEAD = 2,     /* a block that was freed and accounted; free to be reused */
    JF_KIND_EXTENDED = 3, /* stride in this word, the real header two words on */
    JF_KIND_BLOCK = 8,    /* a block; plus its purge priority, 0..7 */
};

enum {
    JF_HEADER_SIZE = 8,
    JF_GRAIN = 16,          /* strides are multiples of this */
    JF_EXTENDED_SIZE = 24,  /* bytes before the payload of an extended block */
    JF_ALIGN_LOG2_MIN = 4,  /* 16 bytes */
    JF_ALIGN_LOG2_MAX = 19, /* 512 KiB */
};
#define JF_STRIDE_FIELD_MAX ((size_t)((1u << 20) - 1) * JF_GRAIN)

static inline jf_word jf_header_make(uint32_t index, size_t stride, unsigned slack,
                                     unsigned align_log2, unsigned kind) {
    return (jf_word)index << 32 | (jf_word)(stride / JF_GRAIN) << 12 | (jf_word)slack << 8 |
           (jf_word)(align_log2 - JF_ALIGN_LOG2_MIN) << 4 | kind;
}

static inline jf_word jf_header_hole(size_t stride) {
    return (jf_word)(stride / JF_GRAIN) << 12 | JF_KIND_HOLE;
}

static inline uint32_t jf_header_index(jf_word header) {
    return (uint32_t)(header >> 32);
}

/* 0 when the stride is kept elsewhere. */
static inline size_t jf_header_stride(jf_word header) {
    return (size_t)(header >> 12 & 0xfffff) * JF_GRAIN;
}

static inline unsigned jf_header_slack(jf_word header) {
    return (unsigned)(header >> 8) & 15;
}

static inline unsigned jf_header_align_log2(jf_word header) {
    return ((unsigned)(header >> 4) & 15) + JF_ALIGN_LOG2_MIN;
}

static inline unsigned jf_header_kind(jf_word header) {
    return (unsigned)header & 15;
}

static inline bool jf_header_is_block(jf_word header) {
    return (header & JF_KIND_BLOCK) != 0;
}

static inline unsigned jf_header_priority(jf_word header) {
    return (unsigned)header & 7;
}

static inline jf_word jf_header_with_kind(jf_word header, unsigned kind) {
    return (header & ~(jf_word)15) | kind;
}

/* Headers are read by walkers while other threads mark blocks dead: always whole words. */
static inline jf_word jf_header_load(uintptr_t address) {
    return jf_mark_load((const jf_word *)address);
}

static inline void jf_header_store(uintptr_t address, jf_word header) {
    jf_mark_store((jf_word *)address, header);
}

/* The low half of a header, all of it but the index. Not for memory that a debugger watches. */
static inline uint32_t jf_header_load_low(uintptr_t address) {
#if JF_LITTLE_ENDIAN
    return __atomic_load_n((const uint32_t *)address, __ATOMIC_RELAXED);
#else
    return (uint32_t)jf_header_load(address);
#endif
}

static inline void jf_header_store_low(uintptr_t address, uint32_t low) {
#if JF_LITTLE_ENDIAN
    __atomic_store_n((uint32_t *)address, low, __ATOMIC_RELEASE);
#else
    jf_header_store(address, jf_header_load(address) >> 32 << 32 | low);
#endif
}

/* Stride of an ordinary (not extended) block of `size` bytes; false when the sum overflows. */
static inline bool jf_block_stride(size_t size, size_t *ret_stride) {
    size_t sum;
    if (!jf_bits_add(size, JF_HEADER_SIZE + JF_GRAIN - 1, &sum))
        return false;
    *ret_stride = sum & ~(size_t)(JF_GRAIN - 1);
    return true;
}

/* First address at or after `header`, 8 modulo 16, whose payload is aligned. */
static inline uintptr_t jf_block_align(uintptr_t header, unsigned align_log2) {
    return jf_bits_round_up(header + JF_HEADER_SIZE, (uintptr_t)1 << align_log2) - JF_HEADER_SIZE;
}

#endif
