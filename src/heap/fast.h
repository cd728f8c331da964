/* The fast paths of rmmalloc and rmfree in the growing profile: what most calls come to. Everything else
 * goes to grow.c. They are inlined into the public functions, and keep to the rules of heap/heap.h.
 */
#ifndef JEFF_HEAP_FAST_H
#define JEFF_HEAP_FAST_H

#include "heap/heap.h"

#if JF_HAS_GROWING

extern JF_THREAD_LOCAL struct jf_thread *jf_thread_root __attribute__((visibility("hidden")));

/* The growing window as the fast paths need it; `entries` is 0 while they are forbidden. Set by the
 * public layer. */
struct jf_fast {
    uintptr_t base;
    uintptr_t table;
    uintptr_t entries;
};
extern struct jf_fast jf_fast __attribute__((visibility("hidden")));

/* Read while others may be set: `base` and `table` never change once `entries` is not 0. */
#define JF_FAST(field) __atomic_load_n(&jf_fast.field, __ATOMIC_RELAXED)

/* As jf_thread_enter, but gives up instead of waiting. The fast paths are forbidden where threads have to
 * fence themselves. */
static inline bool jf_fast_enter(struct jf_thread *thread) {
    __atomic_store_n(&thread->inside, 1, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    /* acquire: what others did to the thread's state before they opened it again is to be seen */
    if (RM_LIKELY(__atomic_load_n(&thread->closed, __ATOMIC_ACQUIRE) == 0))
        return true;
    jf_thread_leave(thread);
    return false;
}

/* Allocates in the default heap; NULL when that takes more than bumping and popping. */
static inline rmhandle_t jf_fast_malloc(size_t size) {
    struct jf_thread *thread = jf_thread_root;
    if (!RM_LIKELY(thread != NULL && size < JF_LARGE_MIN / 2))
        return NULL;
    struct jf_local *local = __atomic_load_n(&thread->fast_local, __ATOMIC_RELAXED);
    if (!RM_LIKELY(local != NULL && jf_fast_enter(thread)))
        return NULL;
    size_t stride = (size + JF_HEADER_SIZE + JF_GRAIN - 1) & ~(size_t)(JF_GRAIN - 1);
    uintptr_t at = local->bump;
    struct jf_table_page *page = thread->entries.page;
    uint32_t index = page != NULL ? page->free : 0;
    bool carve = false;
    if (!RM_LIKELY(index != 0) && page != NULL && page->carved < JF_TABLE_PAGE_ENTRIES &&
        page->floor == 0) {
        index = jf_table_page_first(thread->table, page) + page->carved;
        carve = true;
    }
    if (!RM_LIKELY(at + stride <= local->limit && index != 0 && index < JF_FAST(entries))) {
        jf_thread_leave(thread);
        return NULL;
    }
    jf_word *entry = (jf_word *)JF_FAST(table) + index;
    jf_word word = __atomic_load_n(entry, __ATOMIC_RELAXED);
    if (RM_LIKELY(!carve))
        page->free = jf_entry_link(word);
    else
        page->carved++;
    page->used++;
    local->bump = at + stride;
    local->blocks++;
    unsigned slack = (unsigned)(stride - JF_HEADER_SIZE - size);
    jf_header_store(at, jf_header_make(index, stride, slack, JF_ALIGN_LOG2_MIN, JF_KIND_BLOCK));
    jf_word_publish_low_light(entry, word,
                              jf_entry_low(at + JF_HEADER_SIZE - JF_FAST(base), JF_ENTRY_LIVE));
    jf_thread_leave(thread);
    return (rmhandle_t)((uintptr_t)entry | (uintptr_t)(word & JF_ENTRY_GENERATION_MASK) << 12);
}

enum { JF_FAST_NEAR = 4096 };

/* Frees a block that ends where the thread bumps, with its entry: the thread is inside. False, and nothing
 * done, when it is no such block or the entry is another thread's. */
static inline bool jf_fast_unbump(struct jf_thread *thread, jf_word *entry, uint32_t index,
                                  jf_word word) {
    struct jf_local *local = __atomic_load_n(&thread->fast_local, __ATOMIC_RELAXED);
    uintptr_t at = JF_FAST(base) + (uintptr_t)jf_entry_offset(word) - JF_HEADER_SIZE;
    /* only a header near the bump is likely to be in the cache */
    if (local == NULL || local->bump - at > JF_FAST_NEAR ||
        at + jf_header_stride(jf_header_load(at)) != local->bump)
        return false;
    struct jf_table_page *page = jf_table_page_of(thread->table, index);
    jf_word freed =
        (jf_entry_next_generation(word) & JF_ENTRY_GENERATION_MASK) | jf_entry_low_free(page->free);
    if (page != thread->entries.page || jf_entry_generation(freed) == 0 ||
        !jf_word_compare_swap_light(entry, &word, freed))
        return false;
    page->free = index;
    page->used--;
    local->bump = at;
    local->blocks--;
    return true;
}

/* Frees a plainly live, unlocked, ordinary block; false, and nothing done, when it is anything else. */
static inline bool jf_fast_free(rmhandle_t handle) {
    uintptr_t bits = (uintptr_t)handle;
    struct jf_thread *thread = jf_thread_root;
    uintptr_t offset = (bits & RM_HANDLE_ENTRY) - JF_FAST(table);
    uintptr_t index = offset >> 3 | offset << 61;
    if (!RM_LIKELY(index < JF_FAST(entries) && thread != NULL))
        return false;
    jf_word *entry = (jf_word *)(bits & RM_HANDLE_ENTRY);
    jf_word word = __atomic_load_n(entry, __ATOMIC_RELAXED);
    /* a large block lies at a multiple of a unit; few others do */
    if (!RM_LIKELY(RM_WORD_DIFFERS_(word, bits, JF_ENTRY_COUNT_MASK) == JF_ENTRY_LIVE &&
                   (word & (JF_UNIT_SIZE - 1) & JF_ENTRY_ADDRESS_MASK) != 0))
        return false;
    if (!RM_LIKELY(jf_fast_enter(thread)))
        return false;
    bool done = jf_fast_unbump(thread, entry, (uint32_t)index, word);
    if (!done) {
        jf_word freed = (jf_entry_next_generation(word) & ~JF_ENTRY_STATE_MASK) | JF_ENTRY_PENDING;
        done = RM_LIKELY(jf_word_compare_swap_light(entry, &word, freed));
        if (done) {
            thread->ring[thread->ring_count++] = (uint32_t)index;
            if (thread->ring_count == JF_RING_SIZE)
                jf_thread_drain(thread);
        }
    }
    jf_thread_leave(thread);
    return done;
}

#else

static inline rmhandle_t jf_fast_malloc(size_t size) {
    (void)size;
    return NULL;
}

static inline bool jf_fast_free(rmhandle_t handle) {
    (void)handle;
    return false;
}

#endif
#endif
