/* The address map of the recorder. */
#include "record_map.h"

#include <stdlib.h>
#include <string.h>

enum { ENTRIES_LOG2_MIN = 10 };

static size_t home(const struct record_map *map, uint64_t page) {
    /* Fibonacci hashing. */
    return (size_t)(page * 0x9e3779b97f4a7c15u >> (64 - map->entries_log2));
}

static size_t mask(const struct record_map *map) {
    return ((size_t)1 << map->entries_log2) - 1;
}

static uint32_t *place(struct record_map_page *places, uint64_t address) {
    return &places->blocks[(address & (((uint64_t)1 << RECORD_MAP_PAGE_LOG2) - 1)) / 8];
}

/* The page's entry, or the empty one where it would be. */
static size_t find(const struct record_map *map, uint64_t page) {
    size_t at = home(map, page);
    while (map->entries[at].places != NULL && map->entries[at].page != page)
        at = (at + 1) & mask(map);
    return at;
}

static bool init_entries(struct record_map *map, unsigned log2) {
    map->entries = calloc((size_t)1 << log2, sizeof *map->entries);
    map->entries_log2 = log2;
    return map->entries != NULL;
}

bool record_map_init(struct record_map *map) {
    memset(map, 0, sizeof *map);
    return init_entries(map, ENTRIES_LOG2_MIN);
}

void record_map_finish(struct record_map *map) {
    for (size_t i = 0; map->entries != NULL && i <= mask(map); i++)
        free(map->entries[i].places);
    for (struct record_map_page *next; map->unused != NULL; map->unused = next) {
        next = map->unused->next;
        free(map->unused);
    }
    free(map->entries);
    map->entries = NULL;
}

static bool grow(struct record_map *map) {
    struct record_map bigger = *map;
    if (!init_entries(&bigger, map->entries_log2 + 1))
        return false;
    for (size_t i = 0; i <= mask(map); i++) {
        if (map->entries[i].places != NULL)
            bigger.entries[find(&bigger, map->entries[i].page)] = map->entries[i];
    }
    free(map->entries);
    *map = bigger;
    return true;
}

static struct record_map_page *take_unused(struct record_map *map) {
    struct record_map_page *places = map->unused;
    if (places == NULL)
        return calloc(1, sizeof *places);
    map->unused = places->next;
    return places;
}

bool record_map_add(struct record_map *map, uint64_t address, uint32_t block) {
    uint64_t page = address >> RECORD_MAP_PAGE_LOG2;
    size_t at = find(map, page);
    if (map->entries[at].places == NULL) {
        if (2 * (map->used + 1) > mask(map)) {
            if (!grow(map))
                return false;
            at = find(map, page);
        }
        struct record_map_page *places = take_unused(map);
        if (places == NULL)
            return false;
        map->entries[at] = (struct record_map_entry){.page = page, .places = places};
        map->used++;
    }
    *place(map->entries[at].places, address) = block + 1;
    map->entries[at].places->used++;
    return true;
}

/* Drops a page. Later entries of the run move down over the gap, unless that would put one before
 * its home. */
static void drop_page(struct record_map *map, size_t gap) {
    map->entries[gap].places->next = map->unused;
    map->unused = map->entries[gap].places;
    map->used--;
    for (size_t at = (gap + 1) & mask(map); map->entries[at].places != NULL;
         at = (at + 1) & mask(map)) {
        size_t distance_home = (at - home(map, map->entries[at].page)) & mask(map);
        if (distance_home >= ((at - gap) & mask(map))) {
            map->entries[gap] = map->entries[at];
            gap = at;
        }
    }
    map->entries[gap].places = NULL;
}

bool record_map_take(struct record_map *map, uint64_t address, uint32_t *ret_block) {
    size_t at = find(map, address >> RECORD_MAP_PAGE_LOG2);
    struct record_map_page *places = map->entries[at].places;
    if (places == NULL)
        return false;
    uint32_t *number = place(places, address);
    if (*number == 0)
        return false;
    *ret_block = *number - 1;
    *number = 0;
    if (--places->used == 0)
        drop_page(map, at);
    return true;
}
