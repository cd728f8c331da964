/* The fast paths of malloc and free: what most calls come to. Inlined into the public functions; all
 * else is in blocks.c.
 */
#ifndef JEFF_MALLOC_FAST_H
#define JEFF_MALLOC_FAST_H

#include "malloc/facade.h"

#include <jeff/jeff.h>

/* The calling thread's cache as the fast paths see it: jf_cache_none while there is none, and while every
 * call is to take the slow path. */
extern JF_THREAD_LOCAL struct jf_cache *jf_cache_front __attribute__((visibility("hidden")));

static inline struct jf_bin *jf_bin_at(struct jf_cache *cache, size_t offset) {
    return (struct jf_bin *)(void *)((char *)cache + offset);
}

static inline struct jf_cell *jf_cell_next(const struct jf_cell *cell) {
    return (struct jf_cell *)(cell->link ^ jf_malloc.key);
}

static inline void jf_cell_link(struct jf_cell *cell, const struct jf_cell *next) {
    uintptr_t link = (uintptr_t)next ^ jf_malloc.key;
    cell->link = link;
    cell->check = link ^ jf_malloc.seal;
}

/* Whether its two words belong together: it is free, and nobody has written to them. */
static inline bool jf_cell_is_free(const struct jf_cell *cell) {
    return (cell->link ^ cell->check) == jf_malloc.seal;
}

/* The word of a unit, 0 unless it is in a span: the offset of the bin in a cache, and for small cells in the
 * low half the reciprocal of their size in 2^-32ths, rounded up, 0 for others. */
static inline uint64_t jf_map_word(size_t unit) {
    return __atomic_load_n(&jf_malloc.map[unit].word, __ATOMIC_RELAXED);
}

/* The number of a small cell in its span: a division by multiplication with the reciprocal, whose low half
 * tells multiples (Lemire, Kaser, Kurz: "Faster remainder by direct computation", 2019). */
static inline uint32_t jf_map_divide(uint64_t word, uintptr_t address, bool *ret_exact) {
    uint64_t product = (address & (JF_UNIT_SIZE - 1)) * (uint32_t)word;
    *ret_exact = (uint32_t)product < (uint32_t)word;
    return (uint32_t)(product >> 32);
}

/* A small cell from the thread's bin, or NULL. */
static inline void *jf_fast_take(struct jf_cache *cache, size_t size) {
    struct jf_bin *bin = jf_bin_at(cache, jf_bin_of[(size + 15) / 16]);
    struct jf_slot *slot = bin->top;
    void *cell = slot->cell;
    if (!RM_LIKELY(cell != NULL))
        return NULL;
    bin->top = slot - 1;
    *slot->state = JF_CELL_LIVE;
    return cell;
}

static inline void *jf_fast_malloc_bytes(size_t size) {
    if (!RM_LIKELY(size <= JF_SMALL_MAX))
        return jf_malloc_slow(size);
    void *cell = jf_fast_take(jf_cache_front, size);
    return RM_LIKELY(cell != NULL) ? cell : jf_malloc_slow(size);
}

/* False when the pointer is to take the slow path. */
static inline bool jf_fast_put(struct jf_cache *cache, void *pointer) {
    size_t units = jf_malloc_units();
    size_t unit = ((uintptr_t)pointer - jf_malloc.base) >> JF_UNIT_SHIFT;
    if (!RM_LIKELY(unit < units))
        return false;
    uint64_t word = jf_map_word(unit);
    bool exact;
    uint32_t number = jf_map_divide(word, (uintptr_t)pointer, &exact);
    if (!RM_LIKELY(exact))
        return false;
    uint8_t *state = &jf_malloc.map[unit].states[number];
    struct jf_bin *bin = jf_bin_at(cache, word >> JF_MAP_BIN_SHIFT);
    struct jf_slot *slot = bin->top;
    if (!RM_LIKELY(*state == JF_CELL_LIVE && slot != bin->end))
        return false;
    *state = 0;
    slot[1].cell = pointer;
    slot[1].state = state;
    /* in this order: a child of fork may find the bin at any moment of another thread */
    __atomic_signal_fence(__ATOMIC_RELEASE);
    bin->top = slot + 1;
    return true;
}

static inline void jf_fast_free(void *pointer, const char *call) {
    if (!RM_LIKELY(jf_fast_put(jf_cache_front, pointer)) && pointer != NULL)
        jf_free_slow(pointer, call);
}

#endif
