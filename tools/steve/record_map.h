/* From the address of a live block of the recorded program to the block's number. A hash table of
 * the pages that hold blocks, and for each page an array with a place for every 8 bytes: neighbours
 * in the program's memory stay neighbours here, and a lookup finds in the cache what the program
 * just used. Pages without blocks are dropped. Not thread-safe. */
#ifndef STEVE_RECORD_MAP_H
#define STEVE_RECORD_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RECORD_MAP_PAGE_LOG2 = 12, RECORD_MAP_PLACES = 512 };

struct record_map_page {
    struct record_map_page *next; /* among the unused ones */
    uint32_t used;
    uint32_t blocks[RECORD_MAP_PLACES]; /* number + 1; 0 = none. All 0 while unused */
};

struct record_map_entry {
    uint64_t page; /* address / page size; meaningless where `places` is NULL */
    struct record_map_page *places;
};

struct record_map {
    struct record_map_entry *entries; /* open addressing, linear probing */
    unsigned entries_log2;
    size_t used;
    struct record_map_page *unused;
};

/* False when there is no memory. */
bool record_map_init(struct record_map *map);
void record_map_finish(struct record_map *map);

/* Adds an address that is not in the map; a block is below UINT32_MAX. False when there is no
 * memory. O(1) amortised. */
bool record_map_add(struct record_map *map, uint64_t address, uint32_t block);

/* Takes an address out and tells its block; false when it is not in the map. O(1). */
bool record_map_take(struct record_map *map, uint64_t address, uint32_t *ret_block);

#endif
