/* Which block an address is in. A hash table of pages, and for each page that holds parts of several
 * blocks a place for every 8 bytes; and one of stretches of 16 MiB, so that a huge block takes no entry for
 * each of its pages. Not thread-safe. */
#ifndef STEVE_SPAN_MAP_H
#define STEVE_SPAN_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SPAN_GRANULE = 8,
    SPAN_PAGE = 4096,
    SPAN_PLACES = SPAN_PAGE / SPAN_GRANULE,
    SPAN_STRETCH = 16 << 20,
};

/* Of a page, or of a stretch. */
struct span_part {
    uint64_t number; /* address / size of the part + 1; 0 = unused */
    uint32_t whole;  /* number + 1 of the block that has all of it; 0 = see `places` or the pages */
    uint32_t used;   /* page: places taken; stretch: 1 when one of its pages is in the table */
    uint32_t *places; /* page: number + 1; 0 = nobody's */
};

struct span_table {
    struct span_part *parts; /* open addressing, linear probing; entries are never taken out */
    size_t capacity;         /* a power of two, or 0 */
    size_t used;
};

struct span_map {
    struct span_table pages, stretches;
};

/* Blocks are below UINT32_MAX, begin at multiples of 8, and have at least one byte here. Of what
 * another block has, nothing may be set. False when there is no memory. O(size), in stretches. */
bool span_map_set(struct span_map *map, uint64_t address, uint64_t size, uint32_t block);
void span_map_clear(struct span_map *map, uint64_t address, uint64_t size);

/* False when the address is in no block. O(1). */
bool span_map_find(const struct span_map *map, uint64_t address, uint32_t *ret_block);

/* A block that has a byte of the range; false when none has. O(size) at worst, in stretches where there is
 * nothing. */
bool span_map_find_any(const struct span_map *map, uint64_t address, uint64_t size,
                       uint32_t *ret_block);

void span_map_finish(struct span_map *map);

#endif
