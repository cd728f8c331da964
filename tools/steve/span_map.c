/* Which block an address is in. */
#include "span_map.h"

#include <stdlib.h>

static size_t slot_of(const struct span_table *table, uint64_t number) {
    size_t at = (size_t)(number * 0x9e3779b97f4a7c15u >> 20) & (table->capacity - 1);
    while (table->parts[at].number != 0 && table->parts[at].number != number + 1)
        at = (at + 1) & (table->capacity - 1);
    return at;
}

static bool grow(struct span_table *table) {
    enum { CAPACITY_MIN = 1024 };
    struct span_table larger = {
        .capacity = table->capacity != 0 ? 2 * table->capacity : CAPACITY_MIN,
        .used = table->used,
    };
    larger.parts = calloc(larger.capacity, sizeof *larger.parts);
    if (larger.parts == NULL)
        return false;
    for (size_t i = 0; i < table->capacity; i++) {
        if (table->parts[i].number != 0)
            larger.parts[slot_of(&larger, table->parts[i].number - 1)] = table->parts[i];
    }
    free(table->parts);
    *table = larger;
    return true;
}

static struct span_part *find_part(const struct span_table *table, uint64_t number) {
    if (table->capacity == 0)
        return NULL;
    struct span_part *found = &table->parts[slot_of(table, number)];
    return found->number != 0 ? found : NULL;
}

static struct span_part *make_part(struct span_table *table, uint64_t number) {
    if (table->used * 2 >= table->capacity && !grow(table))
        return NULL;
    struct span_part *found = &table->parts[slot_of(table, number)];
    if (found->number == 0) {
        found->number = number + 1;
        table->used++;
    }
    return found;
}

static struct span_part *make_page(struct span_map *map, uint64_t page) {
    struct span_part *stretch = make_part(&map->stretches, page / (SPAN_STRETCH / SPAN_PAGE));
    if (stretch == NULL)
        return NULL;
    stretch->used = 1;
    return make_part(&map->pages, page);
}

/* Sets places [from, to) of a page that several blocks share. */
static bool set_places(struct span_part *page, unsigned from, unsigned to, uint32_t value) {
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

/* Sets what [granule, end) has of one page. */
static bool set_in_page(struct span_map *map, uint64_t granule, uint64_t end, uint32_t value) {
    uint64_t number = granule / SPAN_PLACES;
    uint64_t page_end = (number + 1) * SPAN_PLACES;
    unsigned from = (unsigned)(granule % SPAN_PLACES);
    unsigned to = end < page_end ? (unsigned)(end % SPAN_PLACES) : SPAN_PLACES;
    struct span_part *page = value != 0 ? make_page(map, number) : find_part(&map->pages, number);
    if (page == NULL)
        return value == 0;
    if (from != 0 || to != SPAN_PLACES || page->used != 0)
        return set_places(page, from, to, value);
    page->whole = value;
    return true;
}

/* Sets a whole stretch, where no page has anything. */
static bool set_stretch(struct span_map *map, uint64_t number, uint32_t value) {
    struct span_part *stretch =
        value != 0 ? make_part(&map->stretches, number) : find_part(&map->stretches, number);
    if (stretch == NULL)
        return value == 0;
    stretch->whole = value;
    return true;
}

static bool set_values(struct span_map *map, uint64_t address, uint64_t size, uint32_t value) {
    enum { PLACES = SPAN_STRETCH / SPAN_GRANULE };
    uint64_t granule = address / SPAN_GRANULE;
    uint64_t end = (address + (size != 0 ? size : 1) + SPAN_GRANULE - 1) / SPAN_GRANULE;
    while (granule < end) {
        bool stretch = granule % PLACES == 0 && end - granule >= PLACES;
        if (!(stretch ? set_stretch(map, granule / PLACES, value)
                      : set_in_page(map, granule, end, value)))
            return false;
        granule = stretch ? granule + PLACES : (granule / SPAN_PLACES + 1) * SPAN_PLACES;
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
    const struct span_part *stretch = find_part(&map->stretches, address / SPAN_STRETCH);
    if (stretch == NULL)
        return false;
    uint32_t value = stretch->whole;
    const struct span_part *page = value == 0 ? find_part(&map->pages, address / SPAN_PAGE) : NULL;
    if (page != NULL)
        value =
            page->places != NULL ? page->places[address % SPAN_PAGE / SPAN_GRANULE] : page->whole;
    *ret_block = value - 1;
    return value != 0;
}

/* Where to look next when no block has this address: whatever cannot be anybody's is passed. The highest
 * address when that is beyond. */
static uint64_t next_to_look(const struct span_map *map, uint64_t address) {
    const struct span_part *stretch = find_part(&map->stretches, address / SPAN_STRETCH);
    const struct span_part *page = find_part(&map->pages, address / SPAN_PAGE);
    uint64_t step = SPAN_STRETCH;
    if (stretch != NULL && stretch->used != 0)
        step = page != NULL && page->places != NULL ? SPAN_GRANULE : SPAN_PAGE;
    uint64_t next = address / step * step + step;
    return next > address ? next : UINT64_MAX;
}

bool span_map_find_any(const struct span_map *map, uint64_t address, uint64_t size,
                       uint32_t *ret_block) {
    uint64_t end = address + (size != 0 ? size : 1);
    for (; address < end; address = next_to_look(map, address))
        if (span_map_find(map, address, ret_block))
            return true;
    return false;
}

void span_map_finish(struct span_map *map) {
    for (size_t i = 0; i < map->pages.capacity; i++)
        free(map->pages.parts[i].places);
    free(map->pages.parts);
    free(map->stretches.parts);
    *map = (struct span_map){0};
}
