/* Which block an address is in. */
#include "span_map.h"

#include <stdlib.h>

static size_t slot_of(const struct span_map *map, uint64_t page) {
    size_t at = (size_t)(page * 0x9e3779b97f4a7c15u >> 20) & (map->capacity - 1);
    while (map->pages[at].page != 0 && map->pages[at].page != page + 1)
        at = (at + 1) & (map->capacity - 1);
    return at;
}

static bool grow(struct span_map *map) {
    enum { CAPACITY_MIN = 1024 };
    struct span_map larger = {.capacity = map->capacity != 0 ? 2 * map->capacity : CAPACITY_MIN,
                              .used = map->used};
    larger.pages = calloc(larger.capacity, sizeof *larger.pages);
    if (larger.pages == NULL)
        return false;
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->pages[i].page != 0)
            larger.pages[slot_of(&larger, map->pages[i].page - 1)] = map->pages[i];
    }
    free(map->pages);
    *map = larger;
    return true;
}

static struct span_page *find_page(const struct span_map *map, uint64_t page) {
    if (map->capacity == 0)
        return NULL;
    struct span_page *found = &map->pages[slot_of(map, page)];
    return found->page != 0 ? found : NULL;
}

static struct span_page *make_page(struct span_map *map, uint64_t page) {
    if (map->used * 2 >= map->capacity && !grow(map))
        return NULL;
    struct span_page *found = &map->pages[slot_of(map, page)];
    if (found->page == 0) {
        found->page = page + 1;
        map->used++;
    }
    return found;
}

/* Sets places [from, to) of a page that several blocks share. */
static bool set_places(struct span_page *page, unsigned from, unsigned to, uint32_t value) {
    if (page->places == NULL && (page->places = calloc(SPAN_PLACES, sizeof(uint32_t))) == NULL)
        return false;
    for (unsigned at = from; at < to; at++) {
        page->used += value != 0;
        page->used -= page->places[at] != 0;
        page->places[at] = value;
    }
    if (page->used == 0) {
        free(page->places);
        page->places = NULL;
    }
    return true;
}

static bool set_values(struct span_map *map, uint64_t address, uint64_t size, uint32_t value) {
    uint64_t granule = address / SPAN_GRANULE;
    uint64_t end = (address + (size != 0 ? size : 1) + SPAN_GRANULE - 1) / SPAN_GRANULE;
    while (granule < end) {
        uint64_t number = granule / SPAN_PLACES;
        uint64_t page_end = (number + 1) * SPAN_PLACES;
        unsigned from = (unsigned)(granule % SPAN_PLACES);
        unsigned to = end < page_end ? (unsigned)(end % SPAN_PLACES) : SPAN_PLACES;
        struct span_page *page = value != 0 ? make_page(map, number) : find_page(map, number);
        if (page == NULL && value != 0)
            return false;
        if (page != NULL && from == 0 && to == SPAN_PLACES && page->used == 0)
            page->whole = value;
        else if (page != NULL && !set_places(page, from, to, value))
            return false;
        granule = page_end;
    }
    return true;
}

bool span_map_set(struct span_map *map, uint64_t address, uint64_t size, uint32_t block) {
    return set_values(map, address, size, block + 1);
}

void span_map_clear(struct span_map *map, uint64_t address, uint64_t size) {
    set_values(map, address, size, 0);
}

bool span_map_find(const struct span_map *map, uint64_t address, uint32_t *ret_block) {
    const struct span_page *page = find_page(map, address / SPAN_PAGE);
    if (page == NULL)
        return false;
    uint32_t value = page->whole;
    if (page->places != NULL)
        value = page->places[address % SPAN_PAGE / SPAN_GRANULE];
    *ret_block = value - 1;
    return value != 0;
}

bool span_map_find_any(const struct span_map *map, uint64_t address, uint64_t size,
                       uint32_t *ret_block) {
    uint64_t end = address + (size != 0 ? size : 1);
    while (address < end) {
        const struct span_page *page = find_page(map, address / SPAN_PAGE);
        if (span_map_find(map, address, ret_block))
            return true;
        address = page != NULL && page->places != NULL
                      ? address / SPAN_GRANULE * SPAN_GRANULE + SPAN_GRANULE
                      : address / SPAN_PAGE * SPAN_PAGE + SPAN_PAGE;
    }
    return false;
}

void span_map_finish(struct span_map *map) {
    for (size_t i = 0; i < map->capacity; i++)
        free(map->pages[i].places);
    free(map->pages);
    *map = (struct span_map){0};
}
