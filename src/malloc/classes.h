/* Size classes of the malloc facade: multiples of 16 up to 512, then eight to a doubling, so that two
 * neighbours are at most 12.5 % apart from 128 bytes on. Classes 1..64 (to 8 KiB) are small, 65..96 (to
 * 128 KiB) are medium; what is larger has a chunk of its own.
 */
#ifndef JEFF_MALLOC_CLASSES_H
#define JEFF_MALLOC_CLASSES_H

#include "base/bits.h"

enum {
    JF_CLASS_GRAIN_SHIFT = 4,
    JF_CLASS_LINEAR = 32, /* classes 1..32 are multiples of 16 */
    JF_CLASS_LINEAR_SHIFT = JF_CLASS_GRAIN_SHIFT + 5,
    JF_CLASS_SMALL_SHIFT = 13,
    JF_CLASS_MEDIUM_SHIFT = 17,
    JF_CLASS_SMALL_LAST =
        JF_CLASS_LINEAR + 8 * (JF_CLASS_SMALL_SHIFT - JF_CLASS_LINEAR_SHIFT),              /* 64 */
    JF_CLASS_LAST = JF_CLASS_LINEAR + 8 * (JF_CLASS_MEDIUM_SHIFT - JF_CLASS_LINEAR_SHIFT), /* 96 */
    JF_CLASSES = JF_CLASS_LAST + 1,
};
#define JF_SMALL_MAX ((size_t)1 << JF_CLASS_SMALL_SHIFT)
#define JF_MEDIUM_MAX ((size_t)1 << JF_CLASS_MEDIUM_SHIFT)

/* The smallest class that holds `size`, 1..JF_MEDIUM_MAX bytes; 0 counts as 1. */
static inline unsigned jf_class_of(size_t size) {
    if (size <= (size_t)1 << JF_CLASS_LINEAR_SHIFT)
        return size == 0 ? 1 : (unsigned)((size + 15) >> JF_CLASS_GRAIN_SHIFT);
    unsigned shift = jf_bits_log2(size - 1);
    unsigned step = (unsigned)((size - 1) >> (shift - 3)) & 7;
    return JF_CLASS_LINEAR + 1 + 8 * (shift - JF_CLASS_LINEAR_SHIFT) + step;
}

/* Bytes of a cell of class 1..JF_CLASS_LAST. */
static inline size_t jf_class_size(unsigned number) {
    if (number <= JF_CLASS_LINEAR)
        return (size_t)number << JF_CLASS_GRAIN_SHIFT;
    unsigned from = number - JF_CLASS_LINEAR - 1;
    return (size_t)(9 + (from & 7)) << (JF_CLASS_LINEAR_SHIFT - 3 + from / 8);
}

/* The smallest class whose cells all lie at multiples of the alignment, a power of two; 0 when the block is
 * to have a chunk of its own. Spans begin at multiples of 64 KiB, those of medium classes of 1 MiB. */
static inline unsigned jf_class_of_aligned(size_t alignment, size_t size) {
    if (size > JF_MEDIUM_MAX || alignment > JF_MEDIUM_MAX)
        return 0;
    if (alignment <= (size_t)1 << JF_CLASS_GRAIN_SHIFT)
        return jf_class_of(size);
    size_t whole = jf_bits_round_up(size == 0 ? 1 : size, alignment);
    unsigned number = whole <= JF_MEDIUM_MAX ? jf_class_of(whole) : JF_CLASS_LAST + 1;
    while (number <= JF_CLASS_LAST && (jf_class_size(number) & (alignment - 1)) != 0)
        number++;
    return number <= JF_CLASS_LAST ? number : 0;
}

#endif
