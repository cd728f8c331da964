/* Guards and quarantine: see hardened.h. */
#include "malloc/hardened.h"

#include "malloc/fast.h"

#include <string.h>

enum {
    GUARD_BYTE = 0xab,
    FREED_BYTE = 0xdf,
    QUARANTINE_CELLS = 256,
};
#define QUARANTINE_BYTES ((size_t)1 << 20)

struct jf_quarantine {
    struct {
        unsigned char *cell;
        size_t size;
    } ring[QUARANTINE_CELLS];
    uint32_t first, count;
    size_t bytes;
};

static size_t *size_word(const void *pointer, size_t whole) {
    return (size_t *)((uintptr_t)pointer + whole - sizeof(size_t));
}

void jf_guard_write(void *pointer, size_t size, size_t whole) {
    memset((char *)pointer + size, GUARD_BYTE, whole - sizeof(size_t) - size);
    *size_word(pointer, whole) = size ^ jf_malloc.key ^ (uintptr_t)pointer;
}

size_t jf_guard_check(const void *pointer, size_t whole, const char *call) {
    size_t size = *size_word(pointer, whole) ^ jf_malloc.key ^ (uintptr_t)pointer;
    if (size > whole - JF_GUARD_MIN)
        jf_malloc_report(call, pointer, "the bytes behind the block were written to");
    const unsigned char *bytes = pointer;
    for (size_t i = size; i < whole - sizeof(size_t); i++)
        if (bytes[i] != GUARD_BYTE)
            jf_malloc_report(call, pointer, "the bytes behind the block were written to");
    return size;
}

static void check_untouched(const unsigned char *cell, size_t size) {
    bool same = jf_cell_is_free((const void *)cell);
    for (size_t i = sizeof(struct jf_cell); i < size; i++)
        same = same && cell[i] == FREED_BYTE;
    if (!same)
        jf_malloc_report("free", cell, "it was written to after it was freed");
}

static void *leave(struct jf_quarantine *quarantine) {
    uint32_t first = quarantine->first;
    unsigned char *cell = quarantine->ring[first].cell;
    size_t size = quarantine->ring[first].size;
    quarantine->first = (first + 1) % QUARANTINE_CELLS;
    quarantine->count--;
    quarantine->bytes -= size;
    check_untouched(cell, size);
    return cell;
}

void *jf_quarantine_put(struct jf_cache *cache, void *cell, size_t whole) {
    if (cache->quarantine == NULL)
        cache->quarantine = jf_arena_meta_alloc(jf_malloc.arena, sizeof *cache->quarantine);
    struct jf_quarantine *quarantine = cache->quarantine;
    if (quarantine == NULL)
        return cell;
    const struct jf_span *span = jf_central_span_at((uintptr_t)cell);
    span->states[((uintptr_t)cell - span->start) / span->size] = 0; /* a second free is found */
    jf_cell_link(cell, NULL);
    memset((char *)cell + sizeof(struct jf_cell), FREED_BYTE, whole - sizeof(struct jf_cell));
    void *oldest = NULL;
    if (quarantine->count == QUARANTINE_CELLS || quarantine->bytes + whole > QUARANTINE_BYTES)
        oldest = quarantine->count != 0 ? leave(quarantine) : NULL;
    uint32_t last = (quarantine->first + quarantine->count) % QUARANTINE_CELLS;
    quarantine->ring[last].cell = cell;
    quarantine->ring[last].size = whole;
    quarantine->count++;
    quarantine->bytes += whole;
    return oldest;
}
