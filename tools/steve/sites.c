/* Sums by call stack. What a stack owns at the peak of live bytes is known without a second pass: the
 * peaks are numbered, and a sum is kept aside when it changes for the first time since the last. */
#include "sites.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "steve.h"
#include "symbols.h"

struct site {
    uint64_t first_frame; /* in the pool */
    uint32_t frame_count;
    uint32_t program;
    uint64_t hash;
    uint64_t bytes, blocks; /* live */
    uint64_t peak_bytes, peak_blocks, peak;
    uint64_t allocated_bytes, allocations;
};

struct sites {
    struct site *table; /* 0: without a stack */
    size_t count, capacity;
    uint32_t *places; /* hash table: number in `table`; 0 = none */
    size_t place_count;
    uint64_t *pool;
    size_t pool_used, pool_capacity;
    uint32_t *owners; /* by block */
    size_t owner_capacity;
    uint32_t next; /* of the operation that follows */
    uint32_t program;
    uint64_t peak, peak_bytes;
    struct symbols symbols;
};

struct sites *sites_create(void) {
    enum { PLACES = 1024 };
    struct sites *sites = calloc(1, sizeof *sites);
    if (sites == NULL)
        return NULL;
    sites->capacity = PLACES / 2;
    sites->count = 1;
    sites->table = calloc(sites->capacity, sizeof *sites->table);
    sites->places = calloc(PLACES, sizeof *sites->places);
    sites->place_count = PLACES;
    if (sites->table != NULL && sites->places != NULL)
        return sites;
    sites_destroy(sites);
    return NULL;
}

void sites_destroy(struct sites *sites) {
    if (sites == NULL)
        return;
    symbols_finish(&sites->symbols);
    free(sites->table);
    free(sites->places);
    free(sites->pool);
    free(sites->owners);
    free(sites);
}

static uint64_t hash_stack(const struct sites *sites, const struct trace_event *event) {
    uint64_t hash = sites->program;
    for (uint32_t i = 0; i < event->frame_count; i++) {
        hash = (hash ^ event->frames[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return hash;
}

static bool is_same(const struct sites *sites, const struct site *site,
                    const struct trace_event *event, uint64_t hash) {
    return site->hash == hash && site->program == sites->program &&
           site->frame_count == event->frame_count &&
           memcmp(sites->pool + site->first_frame, event->frames,
                  event->frame_count * sizeof *event->frames) == 0;
}

/* Twice as many sites and places. */
static bool grow(struct sites *sites) {
    struct site *table = realloc(sites->table, 2 * sites->capacity * sizeof *table);
    uint32_t *places = calloc(2 * sites->place_count, sizeof *places);
    if (table != NULL) {
        sites->table = table;
        sites->capacity *= 2;
    }
    if (table == NULL || places == NULL) {
        free(places);
        return false;
    }
    free(sites->places);
    sites->places = places;
    sites->place_count *= 2;
    for (uint32_t i = 1; i < sites->count; i++) {
        size_t at = sites->table[i].hash & (sites->place_count - 1);
        while (places[at] != 0)
            at = (at + 1) & (sites->place_count - 1);
        places[at] = i;
    }
    return true;
}

static bool keep_frames(struct sites *sites, const struct trace_event *event) {
    if (sites->pool_used + event->frame_count > sites->pool_capacity) {
        size_t capacity = 2 * sites->pool_capacity + 1024;
        uint64_t *pool = realloc(sites->pool, capacity * sizeof *pool);
        if (pool == NULL)
            return false;
        sites->pool = pool;
        sites->pool_capacity = capacity;
    }
    memcpy(sites->pool + sites->pool_used, event->frames,
           event->frame_count * sizeof *event->frames);
    sites->pool_used += event->frame_count;
    return true;
}

static bool take_stack(struct sites *sites, const struct trace_event *event) {
    uint64_t hash = hash_stack(sites, event);
    if (event->frame_count == 0)
        return true;
    if (sites->count == sites->capacity && !grow(sites))
        return false;
    size_t at = hash & (sites->place_count - 1);
    for (; sites->places[at] != 0; at = (at + 1) & (sites->place_count - 1)) {
        if (is_same(sites, &sites->table[sites->places[at]], event, hash)) {
            sites->next = sites->places[at];
            return true;
        }
    }
    uint64_t first = sites->pool_used;
    if (!keep_frames(sites, event))
        return false;
    sites->next = sites->places[at] = (uint32_t)sites->count++;
    sites->table[sites->next] = (struct site){.first_frame = first,
                                              .frame_count = event->frame_count,
                                              .program = sites->program,
                                              .hash = hash};
    return true;
}

/* Keeps what was there at the last peak, before it changes. */
static struct site *change(struct sites *sites, uint32_t number) {
    struct site *site = &sites->table[number];
    if (site->peak != sites->peak) {
        site->peak = sites->peak;
        site->peak_bytes = site->bytes;
        site->peak_blocks = site->blocks;
    }
    return site;
}

static bool own(struct sites *sites, const struct trace_event *event) {
    if (event->block >= sites->owner_capacity) {
        size_t capacity = 2 * (size_t)event->block + 1024;
        uint32_t *owners = realloc(sites->owners, capacity * sizeof *owners);
        if (owners == NULL)
            return false;
        sites->owners = owners;
        sites->owner_capacity = capacity;
    }
    sites->owners[event->block] = sites->next;
    struct site *site = change(sites, sites->next);
    site->bytes += event->size;
    site->blocks++;
    site->allocated_bytes += event->size;
    site->allocations++;
    sites->next = 0;
    return true;
}

static void disown(struct sites *sites, const struct trace_event *event) {
    struct site *site = change(sites, sites->owners[event->block]);
    site->bytes -= event->old_size;
    site->blocks--;
}

bool sites_take(struct sites *sites, const struct trace_event *event, uint64_t live_bytes) {
    bool has_memory = true;
    switch (event->op) {
    case TRACE_STACK:
        return take_stack(sites, event);
    case TRACE_MODULE:
        return symbols_add_module(&sites->symbols, sites->program, event->frames, event->name);
    case TRACE_EXEC:
        sites->program++;
        return true;
    case TRACE_MALLOC:
    case TRACE_CALLOC:
    case TRACE_ALIGNED:
        has_memory = own(sites, event);
        break;
    case TRACE_REALLOC:
        disown(sites, event);
        has_memory = own(sites, event);
        break;
    case TRACE_FREE:
        disown(sites, event);
        return true;
    default:
        return true;
    }
    if (live_bytes > sites->peak_bytes) {
        sites->peak_bytes = live_bytes;
        sites->peak++;
    }
    return has_memory;
}

/* --- The table. */

static int compare(const void *left, const void *right) {
    const struct site *a = left, *b = right;
    if (a->peak_bytes != b->peak_bytes)
        return a->peak_bytes < b->peak_bytes ? 1 : -1;
    return (a->allocated_bytes < b->allocated_bytes) - (a->allocated_bytes > b->allocated_bytes);
}

static void print_frame(const struct sites *sites, uint32_t program, uint64_t address) {
    const struct symbol *symbol = symbols_find(&sites->symbols, program, address);
    if (symbol == NULL || symbol->module == NULL) {
        printf("          0x%" PRIx64 "\n", address);
        return;
    }
    const char *slash = strrchr(symbol->module->path, '/');
    const char *file = slash != NULL ? slash + 1 : symbol->module->path;
    printf("          %s%s%s+0x%" PRIx64 "%s", symbol->function != NULL ? symbol->function : "",
           symbol->function != NULL ? "  " : "", file, address - symbol->module->base,
           symbol->place != NULL ? "  " : "\n");
    if (symbol->place != NULL)
        printf("%s\n", symbol->place);
}

static void print_site(const struct sites *sites, const struct site *site) {
    char peak[STEVE_BYTES_TEXT], all[STEVE_BYTES_TEXT];
    double share =
        sites->peak_bytes != 0 ? 100 * (double)site->peak_bytes / (double)sites->peak_bytes : 0;
    printf("%5.1f %%  %12s  %10" PRIu64 "  %12s  %12" PRIu64 "\n", share,
           steve_bytes_text((double)site->peak_bytes, peak), site->peak_blocks,
           steve_bytes_text((double)site->allocated_bytes, all), site->allocations);
    if (site->frame_count == 0)
        printf("          (allocated without a call stack)\n");
    for (uint32_t i = 0; i < site->frame_count; i++)
        print_frame(sites, site->program, sites->pool[site->first_frame + i]);
}

bool sites_print(struct sites *sites, size_t limit) {
    char text[STEVE_BYTES_TEXT];
    if (sites->count == 1)
        return false;
    for (uint32_t i = 0; i < sites->count; i++)
        change(sites, i);
    qsort(sites->table, sites->count, sizeof *sites->table, compare);
    size_t shown = 0;
    for (; shown < limit && shown < sites->count && sites->table[shown].allocations != 0; shown++) {
        const struct site *site = &sites->table[shown];
        for (uint32_t i = 0; i < site->frame_count; i++)
            symbols_want(&sites->symbols, site->program, sites->pool[site->first_frame + i]);
    }
    symbols_resolve(&sites->symbols);
    printf("\nWho owns the memory at the peak of live bytes, %s; %zu call stacks, the largest "
           "%zu:\n\n",
           steve_bytes_text((double)sites->peak_bytes, text), sites->count - 1, shown);
    printf("  share   at the peak      blocks  in all bytes   allocations\n");
    for (size_t i = 0; i < shown; i++)
        print_site(sites, &sites->table[i]);
    return true;
}
