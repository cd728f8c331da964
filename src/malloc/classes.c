/* The bins by size, worked out by the compiler: what the fast path looks up. */
#include "malloc/facade.h"

/* As jf_class_of, for 16 times `steps` bytes, as a constant expression. */
#define SHIFT(size) (63 - __builtin_clzll((size)-1))
#define LARGER(size)                                                                               \
    (JF_CLASS_LINEAR + 1 + 8 * (SHIFT(size) - JF_CLASS_LINEAR_SHIFT) +                             \
     (int)(((size)-1) >> (SHIFT(size) - 3) & 7))
#define NUMBER(steps)                                                                              \
    ((steps) <= 1 ? 1 : (steps) <= JF_CLASS_LINEAR ? (steps) : LARGER((steps)*16ULL))
#define BIN(steps)                                                                                 \
    ((uint16_t)(offsetof(struct jf_cache, bins) + (size_t)NUMBER(steps) * sizeof(struct jf_bin)))
#define BINS_8(first)                                                                              \
    BIN(first), BIN((first) + 1), BIN((first) + 2), BIN((first) + 3), BIN((first) + 4),            \
        BIN((first) + 5), BIN((first) + 6), BIN((first) + 7)
#define BINS_64(first)                                                                             \
    BINS_8(first), BINS_8((first) + 8), BINS_8((first) + 16), BINS_8((first) + 24),                \
        BINS_8((first) + 32), BINS_8((first) + 40), BINS_8((first) + 48), BINS_8((first) + 56)

const uint16_t jf_bin_of[JF_SMALL_MAX / 16 + 1] = {
    BINS_64(0),   BINS_64(64),  BINS_64(128), BINS_64(192), BINS_64(256),
    BINS_64(320), BINS_64(384), BINS_64(448), BIN(512),
};
