/* Which block an address is in. A hash table of pages, and for each page that holds parts of several
 * blocks a place for every 8 bytes. Not thread-safe. */
#ifndef STEVE_SPAN_MAP_H
#define STEVE_SPAN_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SPAN_GRANULE = 8, SPAN_PAGE = 4096, SPAN_PLACES = SPAN_PAGE / SPAN_GRANULE };

struct span_page {
    uint64_t page;    /* address / page size + 1; 0 = unused */
    uint32_t whole;   /* number + 1 of the block that has the whole page; 0 = see `places` */
    uint32_t used;    /* places taken */
    uint32_t *places; /* number + 1; 0 = nobody's */
};

struct span_map {
    struct span_page *pages; /* open addressing, linear probing; entries are never taken out */
    size_t capacity;         /* a power of two, or 0 */
    size_t used;
};

/* Blocks are below UINT32_MAX, begin at multiples of 8, and have at least one byte here. Of what
 * another block has, nothing may be set. False when there is no memory. O(size). */
bool span_map_set(struct span_map *map, uint64_t address, uint64_t size, uint32_t block);
void span_map_clear(struct span_map *map, uint64_t address, uint64_t size);

/* False when the address is in no block. O(1). */
bool span_map_find(const struct span_map *map, uint64_t address, uint32_t *ret_block);

/* A block that has a byte of the range; false when none has. O(size) at worst. */
bool span_map_find_any(const struct span_map *map, uint64_t address, uint64_t size,
                       uint32_t *ret_block);

void span_map_finish(struct span_map *map);

#endif
