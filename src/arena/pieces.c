/* Sets of free buddy pieces: see pieces.h. */
#include "arena/pieces.h"

#define BLOCK_UNITS ((size_t)1 << JF_PIECES_BLOCK_ORDER)

/* First word of each order's set in a block: a word of summary, then one word for 64 members. */
static const uint16_t set_starts[JF_PIECES_BLOCK_ORDER + 1] = {0,   65,  98,  115, 124, 129, 132,
                                                               134, 136, 138, 140, 142, 144};
_Static_assert(JF_PIECES_BLOCK_WORDS == 144 + 2, "the last set has one word and its summary");
_Static_assert(JF_ARENA_ORDERS == 2 * JF_PIECES_BLOCK_ORDER + 1, "the top block holds the rest");

static bool is_small(unsigned order) {
    return order < JF_PIECES_BLOCK_ORDER;
}

static size_t block_of(size_t unit) {
    return unit >> JF_PIECES_BLOCK_ORDER;
}

/* The set that holds a piece, and its number there. */
static const uint64_t *set_of(const struct jf_pieces *pieces, size_t unit, unsigned order,
                              size_t *ret_number) {
    if (is_small(order)) {
        *ret_number = (unit & (BLOCK_UNITS - 1)) >> order;
        return pieces->blocks[block_of(unit)] + set_starts[order];
    }
    *ret_number = unit >> order;
    return pieces->top + set_starts[order - JF_PIECES_BLOCK_ORDER];
}

static bool set_has(const uint64_t *set, size_t number) {
    return ((set[1 + number / 64] >> (number % 64)) & 1u) != 0;
}

static void set_add(uint64_t *set, size_t number) {
    set[1 + number / 64] |= (uint64_t)1 << (number % 64);
    set[0] |= (uint64_t)1 << (number / 64);
}

static void set_remove(uint64_t *set, size_t number) {
    uint64_t *word = &set[1 + number / 64];
    *word &= ~((uint64_t)1 << (number % 64));
    if (*word == 0) {
        set[0] &= ~((uint64_t)1 << (number / 64));
    }
}

static size_t set_first(const uint64_t *set) {
    size_t word = jf_bits_lowest(set[0]);
    return word * 64 + jf_bits_lowest(set[1 + word]);
}

static size_t set_count(const uint64_t *set) {
    size_t count = 0;
    for (uint64_t words = set[0]; words != 0; words &= words - 1) {
        count += (size_t)__builtin_popcountll(set[1 + jf_bits_lowest(words)]);
    }
    return count;
}

size_t jf_pieces_blocks_size(size_t unit_count) {
    size_t blocks = (unit_count + BLOCK_UNITS - 1) / BLOCK_UNITS;
    return blocks * JF_PIECES_BLOCK_WORDS * sizeof(uint64_t);
}

void jf_pieces_add(struct jf_pieces *pieces, size_t unit, unsigned order) {
    size_t number;
    uint64_t *set = (uint64_t *)(uintptr_t)set_of(pieces, unit, order, &number);
    set_add(set, number);
    if (is_small(order)) {
        set_add(pieces->filled[order], block_of(unit));
    }
    pieces->count[order]++;
}

void jf_pieces_remove(struct jf_pieces *pieces, size_t unit, unsigned order) {
    size_t number;
    uint64_t *set = (uint64_t *)(uintptr_t)set_of(pieces, unit, order, &number);
    set_remove(set, number);
    if (is_small(order) && set[0] == 0) {
        set_remove(pieces->filled[order], block_of(unit));
    }
    pieces->count[order]--;
}

bool jf_pieces_has(const struct jf_pieces *pieces, size_t unit, unsigned order) {
    size_t number;
    const uint64_t *set = set_of(pieces, unit, order, &number);
    return set_has(set, number);
}

size_t jf_pieces_first(const struct jf_pieces *pieces, unsigned order) {
    if (pieces->count[order] == 0) {
        return JF_PIECES_NONE;
    }
    if (!is_small(order)) {
        return set_first(pieces->top + set_starts[order - JF_PIECES_BLOCK_ORDER]) << order;
    }
    size_t block = set_first(pieces->filled[order]);
    size_t number = set_first(pieces->blocks[block] + set_starts[order]);
    return (block << JF_PIECES_BLOCK_ORDER) + (number << order);
}

size_t jf_pieces_reachable(const struct jf_pieces *pieces, unsigned order) {
    if (!is_small(order)) {
        return set_count(pieces->top + set_starts[order - JF_PIECES_BLOCK_ORDER]);
    }
    const uint64_t *filled = pieces->filled[order];
    size_t count = 0;
    for (uint64_t words = filled[0]; words != 0; words &= words - 1) {
        size_t word = jf_bits_lowest(words);
        for (uint64_t bits = filled[1 + word]; bits != 0; bits &= bits - 1) {
            size_t block = word * 64 + jf_bits_lowest(bits);
            count += set_count(pieces->blocks[block] + set_starts[order]);
        }
    }
    return count;
}
