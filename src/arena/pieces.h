/* The free pieces of the buddy system: per order a set of piece numbers from which the lowest is found
 * in four looks at a 64-bit word. Laid out so that all orders of one stretch of the window lie on one
 * page: a small heap in a large window touches two or three pages.
 *
 * A set is an array of words: the first says which of the others are not 0. 4096 units form a block,
 * with a set for each order that fits in it. The blocks themselves are the units of one more such
 * block, the top, which holds the larger orders. `filled` says for each small order which blocks have
 * a free piece of it.
 *
 * Thread-safety: none; the arena's mutex guards it.
 */
#ifndef JEFF_ARENA_PIECES_H
#define JEFF_ARENA_PIECES_H

#include "arena/arena.h"

enum {
    JF_PIECES_BLOCK_ORDER = 12,  /* log2 of the units in a block */
    JF_PIECES_SET_WORDS = 65,    /* the largest set: 4096 members */
    JF_PIECES_BLOCK_WORDS = 146, /* sets of 4096, 2048, ... 1 members */
};
#define JF_PIECES_NONE SIZE_MAX

struct jf_pieces {
    size_t count[JF_ARENA_ORDERS]; /* free pieces of each order */
    uint64_t top[JF_PIECES_BLOCK_WORDS];
    uint64_t filled[JF_PIECES_BLOCK_ORDER][JF_PIECES_SET_WORDS];
    uint64_t (
        *blocks)[JF_PIECES_BLOCK_WORDS]; /* one for each 4096 units, zeroed memory of the caller */
};

/* Bytes of `blocks` for a window of so many units. */
size_t jf_pieces_blocks_size(size_t unit_count);

/* Adds, removes, asks for the free piece of 2^order units that starts at `unit`, a multiple of its
 * size. Adding needs it to be absent, removing to be there. O(1). */
void jf_pieces_add(struct jf_pieces *pieces, size_t unit, unsigned order);
void jf_pieces_remove(struct jf_pieces *pieces, size_t unit, unsigned order);
bool jf_pieces_has(const struct jf_pieces *pieces, size_t unit, unsigned order);

/* First unit of the free piece of exactly that order with the lowest address, or JF_PIECES_NONE. O(1). */
size_t jf_pieces_first(const struct jf_pieces *pieces, unsigned order);

/* Pieces of an order that can be reached from the upper levels, counted one by one: differs from `count`
 * when a level is damaged. O(pieces). */
size_t jf_pieces_reachable(const struct jf_pieces *pieces, unsigned order);

#endif
