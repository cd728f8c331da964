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

/* Of the unit that an address in the window lies in, without waiting for where the window begins. */
static inline const struct jf_map_entry *jf_map_entry_of(const void *address) {
    _Static_assert(sizeof(struct jf_map_entry) == 16, "16 bytes for each unit");
    uintptr_t offset = (uintptr_t)address >> (JF_UNIT_SHIFT - 4) & ~(uintptr_t)15;
    return (const struct jf_map_entry *)(jf_malloc.map_bias + offset);
}

static inline uint32_t jf_map_reciprocal(const struct jf_map_entry *entry) {
    return __atomic_load_n(&entry->reciprocal, __ATOMIC_RELAXED);
}

static inline uint32_t jf_map_bin_and_tag(const struct jf_map_entry *entry) {
    return __atomic_load_n(&entry->bin, __ATOMIC_RELAXED);
}

/* The offset of the bin in a cache. */
static inline size_t jf_map_bin(const struct jf_map_entry *entry) {
    return (uint16_t)jf_map_bin_and_tag(entry);
}

/* A division by multiplication with the reciprocal: the high half is the number of the small cell in its span that
 * holds an address, and the low half tells whether it starts there (Lemire, Kaser, Kurz: "Faster remainder by direct
 * computation", 2019). */
static inline uint64_t jf_map_divide(uint32_t reciprocal, uintptr_t address) {
    return (address & (JF_UNIT_SIZE - 1)) * reciprocal;
}

static inline bool jf_map_is_exact(uint32_t reciprocal, uint64_t product) {
    return (uint32_t)product < reciprocal;
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

enum { JF_ANY_BIN = 0 };

/* False when the pointer is to take the slow path, and when the block is not of the bin that is expected. */
static inline bool jf_fast_put(struct jf_cache *cache, void *pointer, size_t expected_bin) {
    size_t window = __atomic_load_n(&jf_malloc.window, __ATOMIC_ACQUIRE);
    if (!RM_LIKELY((uintptr_t)pointer - jf_malloc.base < window))
        return false;
    const struct jf_map_entry *entry = jf_map_entry_of(pointer);
    uint32_t reciprocal = jf_map_reciprocal(entry);
    uint64_t product = jf_map_divide(reciprocal, (uintptr_t)pointer);
    if (!RM_LIKELY(jf_map_is_exact(reciprocal, product)))
        return false;
    size_t offset = jf_map_bin_and_tag(entry) ^ cache->tag;
    if (!RM_LIKELY(expected_bin != JF_ANY_BIN ? offset == expected_bin
                                              : offset < (size_t)1 << JF_TAG_SHIFT)) {
        offset = jf_map_bin(entry); /* of another cache's span */
        if (expected_bin != JF_ANY_BIN && offset != expected_bin)
            return false;
        offset += offsetof(struct jf_cache, others) - offsetof(struct jf_cache, bins);
        __asm__("" : "+r"(offset)); /* a branch: to select would make all frees wait */
    }
    uint8_t *state = entry->states + (product >> 32);
    struct jf_bin *bin = jf_bin_at(cache, offset);
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
    if (!RM_LIKELY(jf_fast_put(jf_cache_front, pointer, JF_ANY_BIN)) && pointer != NULL)
        jf_free_slow(pointer, call);
}

#endif
