/* From the address of a live block of the recorded program to the block's number. Open addressing with
 * linear probing; deletions close the gap, so it never fills with the dead. Not thread-safe. */
#ifndef STEVE_RECORD_MAP_H
#define STEVE_RECORD_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct record_map_entry {
    uint64_t address; /* 0 = empty */
    uint32_t block;
};

struct record_map {
    struct record_map_entry *entries;
    size_t mask; /* entries - 1 */
    size_t used;
};

/* False when there is no memory. */
bool record_map_init(struct record_map *map);
void record_map_finish(struct record_map *map);

/* Adds an address, not 0, that is not in the map. False when there is no memory. O(1) amortised. */
bool record_map_add(struct record_map *map, uint64_t address, uint32_t block);

/* Takes an address out and tells its block; false when it is not in the map. O(1). */
bool record_map_take(struct record_map *map, uint64_t address, uint32_t *ret_block);

#endif
