/* The address map of the recorder. */
#include "record_map.h"

#include <stdlib.h>

enum { ENTRIES_MIN = 1 << 12 };

static size_t home(const struct record_map *map, uint64_t address) {
    /* Fibonacci hashing; the low four bits of an address are always zero. */
    return (size_t)((address >> 4) * 0x9e3779b97f4a7c15u >> 20) & map->mask;
}

bool record_map_init(struct record_map *map) {
    map->entries = calloc(ENTRIES_MIN, sizeof *map->entries);
    map->mask = ENTRIES_MIN - 1;
    map->used = 0;
    return map->entries != NULL;
}

void record_map_finish(struct record_map *map) {
    free(map->entries);
    map->entries = NULL;
}

static void put(struct record_map *map, struct record_map_entry entry) {
    size_t at = home(map, entry.address);
    while (map->entries[at].address != 0)
        at = (at + 1) & map->mask;
    map->entries[at] = entry;
}

static bool grow(struct record_map *map) {
    size_t count = map->mask + 1;
    struct record_map bigger = {.mask = 2 * count - 1, .used = map->used};
    bigger.entries = calloc(2 * count, sizeof *bigger.entries);
    if (bigger.entries == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (map->entries[i].address != 0)
            put(&bigger, map->entries[i]);
    }
    free(map->entries);
    *map = bigger;
    return true;
}

bool record_map_add(struct record_map *map, uint64_t address, uint32_t block) {
    if (2 * (map->used + 1) > map->mask && !grow(map))
        return false;
    put(map, (struct record_map_entry){.address = address, .block = block});
    map->used++;
    return true;
}

/* Moves later entries of the run down over the gap, unless that would put one before its home. */
static void close_gap(struct record_map *map, size_t gap) {
    for (size_t at = (gap + 1) & map->mask; map->entries[at].address != 0;
         at = (at + 1) & map->mask) {
        size_t distance_home = (at - home(map, map->entries[at].address)) & map->mask;
        if (distance_home >= ((at - gap) & map->mask)) {
            map->entries[gap] = map->entries[at];
            gap = at;
        }
    }
    map->entries[gap].address = 0;
}

bool record_map_take(struct record_map *map, uint64_t address, uint32_t *ret_block) {
    for (size_t at = home(map, address); map->entries[at].address != 0; at = (at + 1) & map->mask) {
        if (map->entries[at].address == address) {
            *ret_block = map->entries[at].block;
            close_gap(map, at);
            map->used--;
            return true;
        }
    }
    return false;
}
