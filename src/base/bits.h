/* Small integer helpers: rounding, logarithms, overflow-checked sums. Bottom of the layers. */
#ifndef JEFF_BASE_BITS_H
#define JEFF_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* For what a fast path hands on to. */
#define JF_NOINLINE __attribute__((noinline))

/* Position of the lowest set bit. `value` is not 0. */
static inline unsigned jf_bits_lowest(uint64_t value) {
    return (unsigned)__builtin_ctzll(value);
}

/* floor(log2(value)). `value` is not 0. */
static inline unsigned jf_bits_log2(uint64_t value) {
    return 63u - (unsigned)__builtin_clzll(value);
}

/* ceil(log2(value)). `value` is not 0. */
static inline unsigned jf_bits_log2_up(uint64_t value) {
    return value <= 1 ? 0 : jf_bits_log2(value - 1) + 1;
}

static inline bool jf_bits_is_power_of_two(size_t value) {
    return value != 0 && (value & (value - 1)) == 0;
}

/* `value` rounded to a multiple of `unit`, a power of two. The sum must not overflow. */
static inline uintptr_t jf_bits_round_up(uintptr_t value, uintptr_t unit) {
    return (value + unit - 1) & ~(unit - 1);
}

static inline uintptr_t jf_bits_round_down(uintptr_t value, uintptr_t unit) {
    return value & ~(unit - 1);
}

/* *ret_sum = a + b; false, and *ret_sum undefined, when that overflows. */
static inline bool jf_bits_add(size_t a, size_t b, size_t *ret_sum) {
    return !__builtin_add_overflow(a, b, ret_sum);
}

/* *ret_product = a * b; false, and *ret_product undefined, when that overflows. */
static inline bool jf_bits_multiply(size_t a, size_t b, size_t *ret_product) {
    return !__builtin_mul_overflow(a, b, ret_product);
}

/* The upper half of a * b; *ret_low: the lower one. */
static inline uint64_t jf_bits_multiply_wide(uint32_t a, uint64_t b, uint64_t *ret_low) {
#if defined(__SIZEOF_INT128__)
    __extension__ typedef unsigned __int128 product;
    product both = (product)a * b;
    *ret_low = (uint64_t)both;
    return (uint64_t)(both >> 64);
#else
    uint64_t low = (uint64_t)a * (uint32_t)b;
    uint64_t high = (uint64_t)a * (b >> 32) + (low >> 32);
    *ret_low = high << 32 | (uint32_t)low;
    return high >> 32;
#endif
}

#endif
