/* The fast paths of rmmalloc and rmfree in the growing profile: what most calls come to. Everything else
 * goes to grow.c. They are inlined into the public functions, and keep to the rules of heap/heap.h.
 */
#ifndef JEFF_HEAP_FAST_H
#define JEFF_HEAP_FAST_H

#include "heap/heap.h"

/* How a quick free went: not; it is done; or it is, and the thread, which is still inside, has to empty its ring. */
enum jf_fast_freed { JF_FAST_NOT_FREED, JF_FAST_FREED, JF_FAST_RING_FULL };

#if JF_HAS_GROWING

extern JF_THREAD_LOCAL struct jf_thread *jf_thread_root __attribute__((visibility("hidden")));

/* The growing window as the fast paths need it; `entries` is 0 while they are forbidden. Set by the
 * public layer. */
struct jf_fast {
    uintptr_t base;
    uintptr_t table;
    uintptr_t entries;
    uintptr_t heads; /* as in the space */
    uintptr_t
        reach; /* entries of the table that are accessible, also while fast paths are forbidden */
};
extern struct jf_fast jf_fast __attribute__((visibility("hidden")));

/* Read while others may be set: `base` and `table` never change once `entries` is not 0. */
#define JF_FAST(field) __atomic_load_n(&jf_fast.field, __ATOMIC_RELAXED)

/* Index of the entry that a handle of the growing window names, given the handle's bits; too large a number when it
 * is none. */
static inline uintptr_t jf_fast_index(uintptr_t bits) {
    uintptr_t offset = (bits & RM_HANDLE_ENTRY) - JF_FAST(table);
    return offset >> 3 | offset << 61;
}

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

/* Gives out the block at hand, which is of that stride. The thread is inside; or `single`, the only one there is. Nothing
 * is read of the block: what its entry says is known, so that no load waits for the stores that freed it. */
static inline rmhandle_t jf_fast_give_kept(struct jf_thread *thread, size_t size, bool single) {
    jf_word word = thread->last_word + JF_ENTRY_GENERATION_ONE;
    rmhandle_t handle = (rmhandle_t)((uintptr_t)thread->last + ((uintptr_t)1 << 52));
    thread->kept_bin = JF_KEPT_NONE;
    thread->last_word = word;
    thread->last = handle;
    jf_bins_give_out(thread->last_entry, word, thread->last_at, size, single);
    return handle;
}

/* What is called instead when a quick call cannot be done. */
typedef rmhandle_t jf_fast_else(size_t size);

/* Gives out a block of a bin, and notes that it was the last. As above, but the thread, if it is inside, leaves. */
static inline rmhandle_t jf_fast_pop(struct jf_thread *thread, struct jf_share *share,
                                     uint32_t *bin, size_t size, bool single,
                                     jf_fast_else *otherwise) {
    if (!RM_LIKELY(*bin != 0)) {
        if (!single)
            jf_thread_leave(thread);
        return otherwise(size);
    }
    jf_word *entry = (jf_word *)JF_FAST(table) + jf_bin_pop(bin);
    jf_word word = __atomic_load_n(entry, __ATOMIC_RELAXED) ^ (JF_ENTRY_PENDING ^ JF_ENTRY_LIVE);
    uintptr_t at = JF_FAST(base) + (uintptr_t)jf_entry_offset(word) - JF_HEADER_SIZE;
    jf_bins_give_out(entry, word, at, size, single);
    rmhandle_t handle = jf_bins_handle(entry, word);
    if (!RM_LIKELY(thread->kept_bin == JF_KEPT_NONE))
        return jf_thread_leave_with_other_kept(thread, share, handle);
    thread->last = handle;
    thread->last_entry = entry;
    /* without the count of somebody who locks by mistake */
    thread->last_word = single ? word : word & ~JF_ENTRY_COUNT_MASK;
    thread->last_at = at;
    if (!single)
        jf_thread_leave(thread);
    return handle;
}

/* Allocates in the default heap, the block at hand or one of a bin. While there is a single thread nobody asks whether it
 * is inside. */
static inline rmhandle_t jf_fast_malloc(size_t size, jf_fast_else *otherwise) {
    struct jf_thread *thread = jf_thread_root;
    size_t number = (size + JF_HEADER_SIZE + JF_GRAIN - 1) / JF_GRAIN;
    if (!RM_LIKELY(thread != NULL))
        return otherwise(size);
    struct jf_share *share = __atomic_load_n(&thread->fast_share, __ATOMIC_RELAXED);
    if (!RM_LIKELY(share != NULL))
        return otherwise(size);
    if (jf_is_single_threaded()) {
        if (thread->kept_bin == number)
            return jf_fast_give_kept(thread, size, true);
        return RM_LIKELY(size <= JF_BIN_SIZE_SMALL)
                   ? jf_fast_pop(thread, share, share->bins.small[number], size, true, otherwise)
                   : otherwise(size);
    }
    if (!RM_LIKELY(size <= JF_BIN_SIZE_SMALL && jf_fast_enter(thread)))
        return otherwise(size);
    if (thread->kept_bin != number)
        return jf_fast_pop(thread, share, share->bins.small[number], size, false, otherwise);
    rmhandle_t handle = jf_fast_give_kept(thread, size, false);
    jf_thread_leave(thread);
    return handle;
}

/* The same by bumping, a block of a size for which there is none in a bin; or out of a bin of the larger strides. Not
 * when that takes more than the thread has at hand, or the heap's depot has one. */
static inline rmhandle_t jf_fast_bump(size_t size, jf_fast_else *otherwise) {
    struct jf_thread *thread = jf_thread_root;
    if (!RM_LIKELY(thread != NULL && size < JF_STRIDE_LARGE - JF_GRAIN))
        return otherwise(size);
    struct jf_share *share = __atomic_load_n(&thread->fast_share, __ATOMIC_RELAXED);
    size_t bin = jf_bins_of_size(size);
    if (!RM_LIKELY(share != NULL && !jf_depot_has(share->heap, &share->bins, bin) &&
                   jf_fast_enter(thread)))
        return otherwise(size);
    if (bin >= JF_BINS_SMALL && bin < JF_BINS && *jf_bins_at(&share->bins, bin) != 0)
        return jf_fast_pop(thread, share, jf_bins_at(&share->bins, bin), size, false, otherwise);
    struct jf_local *local = &share->local[JF_LOCAL_SMALL];
    size_t stride = bin * JF_GRAIN;
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
        return otherwise(size);
    }
    jf_word *entry = (jf_word *)JF_FAST(table) + index;
    jf_word word = __atomic_load_n(entry, __ATOMIC_RELAXED);
    if (RM_LIKELY(!carve))
        page->free = jf_entry_link(word);
    else
        jf_table_page_carved(page);
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

/* Puts a block that was freed into the ring: its header is wanted when that is emptied. The thread is inside; or `single`,
 * the only one there is. */
static inline enum jf_fast_freed jf_fast_put(struct jf_thread *thread, uintptr_t at,
                                             uint32_t index) {
    __builtin_prefetch((void *)at, 1);
    thread->ring[thread->ring_count++] = index;
    return RM_LIKELY(thread->ring_count != JF_RING_SIZE) ? JF_FAST_FREED : JF_FAST_RING_FULL;
}

/* Ends the life of a block that is not locked, given its entry's word as it was just read: LIVE. While there is a single
 * thread only a signal handler can have changed it since, by a lock that it keeps; that it finds out when it unlocks. Only
 * a generation that comes round changes the count. */
static inline bool jf_fast_end(jf_word *entry, jf_word word, jf_word freed, bool single) {
    if (!RM_LIKELY((freed & JF_ENTRY_COUNT_ONE) == 0))
        return false;
    if (single)
        __atomic_store_n(entry, freed, __ATOMIC_RELEASE);
    else if (!RM_LIKELY(jf_word_compare_swap(entry, &word, freed)))
        return false;
    jf_fence_release(); /* as after a move: who reads without a lock sees the end before what comes next */
    return true;
}

/* Frees the block that was given out last, if it is as it was then but for its stride. One of the least stride is not
 * kept at hand: with some sizes close to SIZE_MAX the sum that makes a bin of a size overflows, to that bin or to 0. */
static inline enum jf_fast_freed jf_fast_keep(struct jf_thread *thread, bool single) {
    jf_word *entry = thread->last_entry;
    jf_word word = thread->last_word;
    jf_word keep = __atomic_load_n(&thread->keep, __ATOMIC_RELAXED);
    if (!RM_LIKELY(keep != 0) ||
        (single && !RM_LIKELY(__atomic_load_n(entry, __ATOMIC_RELAXED) == word)) ||
        !jf_fast_end(entry, word, word + keep, single))
        return JF_FAST_NOT_FREED;
    size_t bin = jf_header_load_low(thread->last_at) >> 12;
    if (!RM_LIKELY(bin - 2 < JF_BINS - 2))
        return jf_fast_put(thread, thread->last_at,
                           (uint32_t)(thread->last_entry - (jf_word *)JF_FAST(table)));
    thread->kept_bin = bin;
    return JF_FAST_FREED;
}

/* Frees a plainly live, unlocked, ordinary block. */
static inline enum jf_fast_freed jf_fast_free_any(struct jf_thread *thread, rmhandle_t handle,
                                                  bool single) {
    uintptr_t bits = (uintptr_t)handle;
    uintptr_t index = jf_fast_index(bits);
    if (!RM_LIKELY(index < JF_FAST(entries)))
        return JF_FAST_NOT_FREED;
    jf_word *entry = (jf_word *)(bits & RM_HANDLE_ENTRY);
    jf_word word = __atomic_load_n(entry, __ATOMIC_RELAXED);
    /* count 0, the handle's generation, and LIVE: nothing but the address is left then; and that of a large block is a
     * multiple of a unit, as few others are */
    jf_word address = word ^ (jf_word)(bits >> 52) << 40 ^ JF_ENTRY_LIVE;
    if (!RM_LIKELY((address << 60 | address >> 4) >> 36 == 0 &&
                   (address & (JF_UNIT_SIZE - 1)) != 0) ||
        !jf_fast_end(entry, word, word + JF_WORD_FREED, single))
        return JF_FAST_NOT_FREED;
    return jf_fast_put(thread, JF_FAST(base) + (uintptr_t)address - JF_HEADER_SIZE,
                       (uint32_t)index);
}

/* Frees what can be freed in few steps; nothing is done when it is anything else. The block that was given out last is
 * kept at hand. If it waits there already, or there is none and the handle is NULL, its entry is not as expected. */
static inline enum jf_fast_freed jf_fast_free(rmhandle_t handle) {
    struct jf_thread *thread = jf_thread_root;
    if (!RM_LIKELY(thread != NULL))
        return JF_FAST_NOT_FREED;
    enum jf_fast_freed freed = JF_FAST_NOT_FREED;
    if (jf_is_single_threaded()) {
        if (handle == thread->last)
            freed = jf_fast_keep(thread, true);
        return freed != JF_FAST_NOT_FREED ? freed : jf_fast_free_any(thread, handle, true);
    }
    if (!RM_LIKELY(jf_fast_enter(thread)))
        return JF_FAST_NOT_FREED;
    if (handle == thread->last)
        freed = jf_fast_keep(thread, false);
    if (freed == JF_FAST_NOT_FREED)
        freed = jf_fast_free_any(thread, handle, false);
    if (RM_LIKELY(freed == JF_FAST_FREED || freed == JF_FAST_NOT_FREED))
        jf_thread_leave(thread);
    return freed;
}

#else

typedef rmhandle_t jf_fast_else(size_t size);

static inline rmhandle_t jf_fast_malloc(size_t size, jf_fast_else *otherwise) {
    return otherwise(size);
}

static inline rmhandle_t jf_fast_bump(size_t size, jf_fast_else *otherwise) {
    return otherwise(size);
}

static inline enum jf_fast_freed jf_fast_free(rmhandle_t handle) {
    (void)handle;
    return JF_FAST_NOT_FREED;
}

#endif
#endif
