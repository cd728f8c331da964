/* Part of Steve's Valgrind tool, a program of its own.
 * SPDX-License-Identifier: GPL-2.0-or-later; see COPYING.
 *
 * Which block has an address: a table of 4 MiB pieces of the address space, and for each piece with
 * blocks in it a number for every 16 bytes. */
#include "pub_tool_aspacemgr.h"
#include "pub_tool_hashtable.h"
#include "pub_tool_libcassert.h"
#include "pub_tool_mallocfree.h"

#include "steve_tool.h"

enum { GRANULE_LOG2 = 4, PIECE_LOG2 = 22, ADDRESS_LOG2 = 47 };
#define PIECES ((SizeT)1 << (ADDRESS_LOG2 - PIECE_LOG2))
#define GRANULES ((SizeT)1 << (PIECE_LOG2 - GRANULE_LOG2))

Block *steve_blocks;
static UInt block_capacity, block_count;
static UInt *free_numbers;
static UInt free_count;
static UInt **pieces;

static UInt *piece_of(Addr address) {
    UInt **piece;
    if (pieces == NULL) {
        pieces = VG_(am_shadow_alloc)(PIECES * sizeof *pieces);
        tl_assert2(pieces != NULL, "no memory for a table of blocks");
    }
    tl_assert(address >> ADDRESS_LOG2 == 0);
    piece = &pieces[address >> PIECE_LOG2];
    if (*piece == NULL) {
        *piece = VG_(am_shadow_alloc)(GRANULES * sizeof **piece);
        tl_assert2(*piece != NULL, "no memory for a table of blocks");
    }
    return *piece;
}

UInt steve_block_at(Addr address) {
    const UInt *piece;
    if (address >> ADDRESS_LOG2 != 0 || pieces == NULL)
        return 0;
    piece = pieces[address >> PIECE_LOG2];
    return piece != NULL ? piece[address >> GRANULE_LOG2 & (GRANULES - 1)] : 0;
}

static void set_numbers(Addr start, SizeT size, UInt value) {
    Addr granule = start >> GRANULE_LOG2;
    Addr end = (start + (size != 0 ? size : 1) + (1 << GRANULE_LOG2) - 1) >> GRANULE_LOG2;
    while (granule < end) {
        UInt *piece = piece_of(granule << GRANULE_LOG2);
        Addr at = granule & (GRANULES - 1);
        Addr count = end - granule < GRANULES - at ? end - granule : GRANULES - at;
        granule += count;
        for (; count > 0; count--)
            piece[at++] = value;
    }
}

static void grow(void) {
    UInt capacity = block_capacity != 0 ? 2 * block_capacity : 4096;
    steve_blocks = VG_(realloc)("steve.blocks", steve_blocks, capacity * sizeof *steve_blocks);
    free_numbers = VG_(realloc)("steve.numbers", free_numbers, capacity * sizeof *free_numbers);
    block_capacity = capacity;
}

UInt steve_block_new(Addr start, SizeT size) {
    UInt block;
    if (free_count > 0) {
        block = free_numbers[--free_count];
    } else {
        if (block_count == block_capacity)
            grow();
        block = block_count++;
    }
    steve_block_set(block, start, size);
    return block;
}

void steve_block_set(UInt block, Addr start, SizeT size) {
    steve_blocks[block].start = start;
    steve_blocks[block].size = size;
    set_numbers(start, size, block + 1);
}

void steve_block_clear(UInt block) {
    set_numbers(steve_blocks[block].start, steve_blocks[block].size, 0);
}

void steve_block_free(UInt block) {
    steve_block_clear(block);
    steve_blocks[block].start = 0;
    free_numbers[free_count++] = block;
}

/* --- Blocks of the process that this one was forked from: known by address only. */

typedef struct Inherited {
    struct Inherited *next;
    UWord start; /* these two are what the hash table asks for */
    SizeT size;
} Inherited;

static VgHashTable *inherited;

void steve_blocks_inherit(void) {
    UInt block;
    if (inherited == NULL)
        inherited = VG_(HT_construct)("steve.inherited");
    for (block = 0; block < block_count; block++) {
        if (steve_blocks[block].start == 0)
            continue;
        Inherited *node = VG_(malloc)("steve.inherited.node", sizeof *node);
        node->start = steve_blocks[block].start;
        node->size = steve_blocks[block].size;
        VG_(HT_add_node)(inherited, node);
        steve_block_clear(block);
    }
    block_count = 0;
    free_count = 0;
}

Bool steve_block_inherited(Addr start, SizeT *ret_size) {
    const Inherited *node = inherited != NULL ? VG_(HT_lookup)(inherited, start) : NULL;
    if (node != NULL)
        *ret_size = node->size;
    return node != NULL;
}

void steve_block_disown(Addr start) {
    VG_(free)(VG_(HT_remove)(inherited, start));
}
