/* Pools: creation and end, elements out and in, visits, figures. */
#include "collections/pool.h"

#include "base/mark.h"
#include "heap/fast.h"
#include "heap/misuse.h"

#include <string.h>

enum {
    BLOCK_DEFAULT = 1 << 20, /* bytes */
    BLOCK_ELEMENTS_MIN = 64,
    ALIGN_MAX = 64 << 10,
    CACHE_BYTES = 32 << 10,
    STRIDE_MIN = 8,
    COLOURS_MAX = 16,
};
#define BLOCK_MAX ((size_t)1 << 30)

/* ------------------------------------------------------------------------------------- misuse */

static void report(const struct jf_pool *pool, const char *call, enum rm_misuse_kind kind,
                   uintptr_t element, const char *detail) {
    struct jf_misuse misuse = {
        .kind = kind,
        .call = call,
        .handle = (rmhandle_t)element,
        .heap = pool != NULL ? pool->heap : NULL,
        .detail = detail,
    };
    jf_misuse_report(&misuse, pool != NULL ? &pool->heap->options : NULL);
}

static bool is_pool(const struct jf_pool *pool, const char *call) {
    if (pool == NULL)
        report(NULL, call, RM_MISUSE_NULL_HANDLE, 0, "a pool is needed here");
    return pool != NULL;
}

/* Whether the pool is of the kind that the call is for. */
static bool is_kind(const struct jf_pool *pool, bool handles) {
    if (pool->handles != handles)
        jf_os_set_errno(JF_OS_EINVAL);
    return pool->handles == handles;
}

/* ------------------------------------------------------------------------------------- life */

void rmpool_options_init(struct rm_pool_options *ret_options) {
    memset(ret_options, 0, sizeof *ret_options);
    ret_options->struct_size = sizeof *ret_options;
}

static size_t alignment_of(size_t element_size, const struct rm_pool_options *options) {
    size_t least = (options->flags & RM_POOL_HANDLES) != 0 ? JF_GRAIN : 1;
    size_t alignment = options->alignment;
    if (alignment == 0) {
        alignment = (size_t)1 << jf_bits_lowest(element_size | JF_GRAIN);
        if (alignment < STRIDE_MIN)
            alignment = STRIDE_MIN;
    }
    return alignment > least ? alignment : least;
}

static size_t slots_for_marks(const struct jf_pool *pool, size_t slots) {
    size_t mark = pool->handles ? sizeof(uint32_t) : 1;
    size_t bytes = jf_bits_round_up(slots * mark, 64) + (slots + 63) / 64 * sizeof(uint64_t) + 64;
    return (bytes + pool->stride - 1) / pool->stride;
}

/* Chooses the chunk for so many elements and how it is cut up; false when no element fits. */
static bool lay_out(struct jf_pool *pool, size_t elements) {
    size_t bytes = BLOCK_DEFAULT;
    bool chosen = elements != 0;
    if (pool->stride > BLOCK_MAX / 4)
        return false;
    if (!chosen && bytes < BLOCK_ELEMENTS_MIN * pool->stride) {
        elements = BLOCK_ELEMENTS_MIN;
        chosen = true;
    }
    if (chosen) {
        size_t most = BLOCK_MAX / (pool->stride + 8);
        elements = elements < most ? elements : most > 0 ? most : 1;
        bytes = (elements + slots_for_marks(pool, 2 * elements + 64)) * pool->stride;
        bytes = bytes < BLOCK_MAX ? bytes : BLOCK_MAX;
    }
    pool->shift = jf_bits_log2_up(bytes);
    if (pool->shift < JF_UNIT_SHIFT)
        pool->shift = JF_UNIT_SHIFT;
    pool->order = pool->shift - JF_UNIT_SHIFT;
    size_t slots = ((size_t)1 << pool->shift) / pool->stride;
    pool->marks = (uint32_t)(((size_t)1 << pool->shift) / pool->stride + 1);
    pool->taken = (uint32_t)slots_for_marks(pool, pool->marks);
    if (chosen && elements + pool->taken < slots)
        slots = elements + pool->taken;
    pool->slots = (uint32_t)slots;
    uint32_t places = pool->slots / pool->taken;
    pool->colours = pool->handles || places < 2 ? 1 : places < COLOURS_MAX ? places : COLOURS_MAX;
    return slots > pool->taken;
}

/* False when an option is bad. */
static bool import(struct jf_pool *pool, size_t element_size, size_t elements,
                   const struct rm_pool_options *options) {
    size_t alignment = options->alignment != 0 ? options->alignment : 1;
    if (options->struct_size != sizeof *options || element_size == 0 || element_size > BLOCK_MAX ||
        !jf_bits_is_power_of_two(alignment) || alignment > ALIGN_MAX ||
        (options->flags & ~(unsigned)(RM_POOL_HANDLES | RM_POOL_ZEROED)) != 0)
        return false;
    pool->handles = (options->flags & RM_POOL_HANDLES) != 0;
    pool->zeroed = (options->flags & RM_POOL_ZEROED) != 0;
    pool->element_size = element_size;
    pool->stride = element_size > STRIDE_MIN ? element_size : STRIDE_MIN;
    pool->stride = jf_bits_round_up(pool->stride, alignment_of(element_size, options));
    pool->reciprocal = UINT64_MAX / pool->stride + 1;
    size_t most = CACHE_BYTES / pool->stride;
    pool->cache_most = most < 2 ? 2 : most > JF_POOL_CACHE_MAX ? JF_POOL_CACHE_MAX : (uint32_t)most;
    return lay_out(pool, elements);
}

/* The list is in the order of the ids: the first gap is the next pool's. */
static void enlist(struct jf_pool *pool) {
    struct jf_window *window = pool->window;
    struct jf_pool **link = &window->pools;
    struct jf_pool *before = NULL;
    jf_os_mutex_lock(&window->mutex);
    while (*link != NULL && (*link)->id == pool->id) {
        before = *link;
        link = &before->next;
        pool->id++;
    }
    pool->fast_id = pool->handles ? UINT32_MAX : pool->id;
    pool->previous = before;
    pool->next = *link;
    if (pool->next != NULL)
        pool->next->previous = pool;
    *link = pool;
    __atomic_store_n(&window->pool_ops, &jf_pool_ops, __ATOMIC_RELEASE);
    jf_window_leave_sole(window);
    jf_os_mutex_unlock(&window->mutex);
}

rmpool_t rmpool_create(rmheap_t opaque, size_t element_size, size_t elements_per_block,
                       const struct rm_pool_options *options) {
    struct rm_pool_options defaults;
    struct jf_pool made = {0};
    rmpool_options_init(&defaults);
    if (!import(&made, element_size, elements_per_block, options != NULL ? options : &defaults)) {
        jf_os_set_errno(JF_OS_EINVAL);
        return NULL;
    }
    struct jf_heap *heap = jf_blocks_heap(opaque);
    if (heap == NULL)
        return NULL;
    if (!JF_HAS_GROWING || heap->fixed) {
        jf_os_set_errno(JF_OS_EINVAL);
        return NULL;
    }
    made.heap = heap;
    made.window = heap->u.grow.window;
    struct jf_pool *pool = jf_arena_meta_alloc(made.window->arena, sizeof *pool);
    if (pool == NULL) {
        jf_os_set_errno(JF_OS_ENOMEM);
        return NULL;
    }
    *pool = made;
    enlist(pool);
    return (rmpool_t)pool;
}

/* Ends the entries of elements that go with their pool. */
static void drop_entries(struct jf_pool_block *block, struct jf_thread *thread) {
    struct jf_pool *pool = block->pool;
    struct jf_space *space = &pool->window->space;
    for (uint32_t slot = 0; slot < block->carved; slot++) {
        uint32_t index = jf_pool_is_taken(block, slot) ? 0 : *jf_pool_index(block, slot);
        if (index == 0)
            continue;
        jf_word *entry = jf_space_entry(space, index);
        jf_word word = jf_word_load(entry);
        jf_word next;
        do
            next = (jf_entry_next_generation(word) & JF_ENTRY_GENERATION_MASK) | JF_ENTRY_PENDING;
        while (!jf_word_compare_swap(entry, &word, next));
        jf_table_push(&pool->window->table, &thread->entries, index, pool->heap->options.retire);
    }
}

static void drop_list(struct jf_pool_block **list, struct jf_thread *thread) {
    while (*list != NULL) {
        struct jf_pool_block *block = *list;
        if (block->pool->handles)
            drop_entries(block, thread);
        jf_pool_remove(block);
        jf_pool_release(block, true);
        jf_pool_forget(thread->window, block);
    }
}

static void destroy(struct jf_pool *pool) {
    struct jf_window *window = pool->window;
    struct jf_thread *thread = jf_thread_get(window);
    jf_os_mutex_lock(&window->mutex);
    if (thread == NULL)
        thread = window->fallback;
    jf_pool_recall(pool, true);
    jf_pool_drop_caches(pool);
    drop_list(&pool->full, thread);
    for (unsigned bin = 0; bin < JF_POOL_BINS; bin++)
        drop_list(&pool->bins[bin], thread);
    if (pool->previous != NULL)
        pool->previous->next = pool->next;
    else
        window->pools = pool->next;
    if (pool->next != NULL)
        pool->next->previous = pool->previous;
    jf_os_mutex_unlock(&window->mutex);
    jf_arena_meta_free(window->arena, pool, sizeof *pool);
}

void rmpool_destroy(rmpool_t opaque) {
    if (opaque != NULL)
        destroy((struct jf_pool *)opaque);
}

void jf_pool_drop_all(struct jf_heap *heap) {
    struct jf_pool *pool = heap->u.grow.window->pools;
    while (pool != NULL) {
        struct jf_pool *next = pool->next;
        if (pool->heap == heap)
            destroy(pool);
        pool = next;
    }
}

/* ------------------------------------------------------------------------------------- caches */

/* The calling thread's cache of the pool with this id if it has one. */
static inline struct jf_pool_cache *own_cache(uint32_t id) {
    const struct jf_thread *thread = jf_thread_root;
    return RM_LIKELY(thread != NULL && id < thread->pool_cache_count) ? thread->pool_caches[id]
                                                                      : NULL;
}

struct filling {
    struct jf_pool *pool;
    struct jf_thread *thread;
    struct jf_pool_cache *cache;
};

/* Makes sure of a slot at hand, and of an entry in a handle pool. */
static bool fill(void *context) {
    struct filling *filling = context;
    struct jf_pool *pool = filling->pool;
    struct jf_window *window = pool->window;
    filling->thread = jf_thread_root;
    filling->cache = own_cache(pool->id);
    if (filling->cache == NULL)
        filling->cache = jf_pool_cache_get(pool, &filling->thread);
    if (filling->cache == NULL)
        return false;
    struct jf_thread *thread = filling->thread;
    jf_os_mutex_lock(&window->mutex);
    bool done = jf_pool_at_hand(filling->cache) != 0 || jf_pool_fill(pool, filling->cache);
    if (done && pool->handles && !jf_table_ready(&thread->entries) &&
        !jf_table_refill(&window->table, &thread->entries))
        done = jf_window_add_page(window, &thread->entries) &&
               jf_table_refill(&window->table, &thread->entries);
    jf_os_mutex_unlock(&window->mutex);
    return done;
}

/* ------------------------------------------------------------------------------------- stable */

/* Takes the slot that is given out next; false when it is live: two threads freed it at the same time, and it
 * was given out again since. */
static inline bool take_slot(struct jf_pool_cache *cache, struct jf_pool_slot *ret_slot) {
    *ret_slot = cache->top[-1];
    unsigned char *state = ret_slot->mark;
    if (!RM_LIKELY(__atomic_load_n(state, __ATOMIC_RELAXED) == JF_POOL_FREE))
        return false;
    /* The program will write to it: stores wait for their lines one by one, prefetches do not. */
    __builtin_prefetch((const void *)ret_slot->element, 1);
    __atomic_store_n(state, JF_POOL_LIVE, __ATOMIC_RELAXED);
    cache->top--;
    return true;
}

static JF_NOINLINE void *clear(const struct jf_pool *pool, uintptr_t element) {
    return memset((void *)element, 0, pool->element_size);
}

static inline void *give_out(const struct jf_pool *pool, uintptr_t element) {
    jf_mark_open(element, pool->element_size);
    return RM_LIKELY(!pool->zeroed) ? (void *)element : clear(pool, element);
}

static JF_NOINLINE void *alloc_slow(struct jf_pool *pool) {
    if (!is_pool(pool, "rmpool_alloc") || !is_kind(pool, false))
        return NULL;
    for (;;) {
        struct filling filling = {.pool = pool};
        struct jf_pool_slot slot;
        if (!fill(&filling) && !jf_blocks_insist(pool->heap, pool->stride, fill, &filling))
            return NULL;
        if (take_slot(filling.cache, &slot))
            return give_out(pool, slot.element);
        filling.cache->top--;
        report(pool, "rmpool_alloc", RM_MISUSE_DOUBLE_FREE, slot.element,
               "two threads freed it at the same time");
    }
}

void *rmpool_alloc(rmpool_t opaque) {
    struct jf_pool *pool = (struct jf_pool *)opaque;
    if (RM_LIKELY(pool != NULL)) {
        struct jf_pool_cache *cache = own_cache(pool->fast_id);
        struct jf_pool_slot slot;
        if (RM_LIKELY(cache != NULL && cache->top != cache->slots) &&
            RM_LIKELY(take_slot(cache, &slot)))
            return give_out(pool, slot.element);
    }
    return alloc_slow(pool);
}

/* Reports why the address is no live element of the pool. */
static void report_free(const struct jf_pool *pool, uintptr_t address) {
    const struct jf_pool_block *block = jf_pool_block_at(pool->window, address);
    const struct jf_pool *other =
        block != NULL ? __atomic_load_n(&block->pool, __ATOMIC_ACQUIRE) : NULL;
    enum rm_misuse_kind kind = RM_MISUSE_FOREIGN_POINTER;
    if (other != NULL) {
        uint32_t slot = jf_pool_slot_at(other, block, address);
        bool element = slot < block->carved && !jf_pool_is_taken(block, slot) &&
                       jf_pool_element(block, slot) == address;
        if (element && other != pool)
            kind = RM_MISUSE_WRONG_POOL;
        else if (element)
            kind = RM_MISUSE_DOUBLE_FREE;
    }
    report(pool, "rmpool_free", kind, address, NULL);
}

/* The block that the address lies in, as the thread remembers it; *ret_offset into its chunk. The descriptor
 * may serve another chunk or pool by now, and another thread may be writing that into it. */
static inline const struct jf_pool_block *recent_block(const struct jf_pool *pool,
                                                       const struct jf_pool_cache *cache,
                                                       uintptr_t address, uintptr_t *ret_offset) {
    const struct jf_pool_block *block =
        cache->recent[address >> pool->shift & (JF_POOL_RECENT - 1)];
    *ret_offset = address - __atomic_load_n(&block->region.start, __ATOMIC_RELAXED);
    return RM_LIKELY(*ret_offset >> pool->shift == 0 &&
                     __atomic_load_n(&block->pool, __ATOMIC_ACQUIRE) == pool)
               ? block
               : NULL;
}

/* False when no live element begins there. */
static inline bool put_slot(struct jf_pool *pool, struct jf_pool_cache *cache,
                            const struct jf_pool_block *block, uintptr_t offset) {
    bool exact;
    unsigned char *state = jf_pool_state(block, jf_pool_divide(pool, offset, &exact));
    if (!RM_LIKELY(exact && __atomic_load_n(state, __ATOMIC_RELAXED) == JF_POOL_LIVE))
        return false;
    __atomic_store_n(state, JF_POOL_FREE, __ATOMIC_RELAXED);
    uintptr_t element = block->region.start + offset;
    jf_mark_close(element, pool->stride);
    *cache->top++ = (struct jf_pool_slot){element, state};
    return true;
}

static void flush(struct jf_pool *pool, struct jf_pool_cache *cache, uint32_t count) {
    jf_os_mutex_lock(&pool->window->mutex);
    jf_pool_flush(pool, cache, count);
    jf_os_mutex_unlock(&pool->window->mutex);
}

/* With a block that is looked up; without memory for a cache straight into the block. */
static void free_found(struct jf_pool *pool, uintptr_t address) {
    struct jf_thread *thread;
    struct jf_pool_cache spare;
    struct jf_pool_cache *cache = own_cache(pool->id);
    if (cache == NULL)
        cache = jf_pool_cache_get(pool, &thread);
    struct jf_pool_block *block = jf_pool_block_at(pool->window, address);
    if (cache == NULL) {
        jf_pool_cache_init(pool, &spare);
        cache = &spare;
    }
    if (cache->top == cache->most)
        flush(pool, cache, pool->cache_most / 2);
    if (block == NULL || __atomic_load_n(&block->pool, __ATOMIC_ACQUIRE) != pool ||
        !put_slot(pool, cache, block, address - block->region.start)) {
        report_free(pool, address);
        return;
    }
    cache->recent[address >> pool->shift & (JF_POOL_RECENT - 1)] = block;
    if (cache == &spare)
        flush(pool, cache, 1);
}

static JF_NOINLINE void free_slow(struct jf_pool *pool, void *element) {
    if (element == NULL || !is_pool(pool, "rmpool_free"))
        return;
    if (pool->handles) {
        report(pool, "rmpool_free", RM_MISUSE_BAD_ARGUMENT, (uintptr_t)element,
               "the pool's elements are freed by their handles");
        return;
    }
    int saved = jf_os_save_errno();
    free_found(pool, (uintptr_t)element);
    jf_os_restore_errno(saved);
}

void rmpool_free(rmpool_t opaque, void *element) {
    struct jf_pool *pool = (struct jf_pool *)opaque;
    if (RM_LIKELY(pool != NULL)) {
        struct jf_pool_cache *cache = own_cache(pool->fast_id);
        if (RM_LIKELY(cache != NULL && cache->top != cache->most)) {
            uintptr_t offset;
            const struct jf_pool_block *block =
                recent_block(pool, cache, (uintptr_t)element, &offset);
            if (RM_LIKELY(block != NULL) && RM_LIKELY(put_slot(pool, cache, block, offset)))
                return;
        }
    }
    free_slow(pool, element);
}

/* ------------------------------------------------------------------------------------- handles */

/* The thread is inside, with a slot and an entry. */
static rmhandle_t publish(struct jf_pool *pool, struct jf_thread *thread,
                          struct jf_pool_cache *cache) {
    const struct jf_space *space = &pool->window->space;
    struct jf_pool_slot slot = *--cache->top;
    uint32_t index = jf_table_pop(&pool->window->table, &thread->entries);
    jf_word *entry = jf_space_entry(space, index);
    if (pool->zeroed)
        jf_mark_fill((void *)slot.element, 0, pool->element_size);
    __atomic_store_n((uint32_t *)slot.mark, index, __ATOMIC_RELAXED);
    jf_word_publish_low(entry, jf_entry_low(slot.element - space->base, JF_ENTRY_LIVE));
    rmhandle_t handle = jf_handle_make(space, index, jf_entry_generation(jf_word_load(entry)));
    jf_thread_leave(thread);
    jf_blocks_reach(index);
    return handle;
}

static void scramble_when_due(struct jf_pool *pool) {
    uint32_t period = pool->heap->options.scramble_period;
    if (period != 0 && __atomic_add_fetch(&pool->allocations, 1, __ATOMIC_RELAXED) % period == 0)
        jf_pool_scramble(pool);
}

rmhandle_t rmpool_alloc_handle(rmpool_t opaque) {
    struct jf_pool *pool = (struct jf_pool *)opaque;
    if (!is_pool(pool, "rmpool_alloc_handle") || !is_kind(pool, true))
        return NULL;
    scramble_when_due(pool);
    for (;;) {
        struct jf_thread *thread = jf_thread_root;
        struct jf_pool_cache *cache = own_cache(pool->id);
        if (RM_LIKELY(cache != NULL)) {
            jf_thread_enter(thread);
            if (RM_LIKELY(cache->top != cache->slots &&
                          (jf_table_ready(&thread->entries) ||
                           jf_table_refill(&pool->window->table, &thread->entries)))) {
                rmhandle_t handle = publish(pool, thread, cache);
                jf_blocks_check(pool->heap, "rmpool_alloc_handle");
                return handle;
            }
            jf_thread_leave(thread);
        }
        struct filling filling = {.pool = pool};
        if (!fill(&filling) && !jf_blocks_insist(pool->heap, pool->stride, fill, &filling))
            return NULL;
    }
}

/* Whether a handle in use names something else than an element of the pool. The element may be moved meanwhile, and its
 * block given up: then its entry is not as it was. */
static bool is_of_other(const struct jf_pool *pool, rmhandle_t element, uint32_t index,
                        enum rm_misuse_kind *ret_kind) {
    const struct jf_window *window = pool->window;
    const jf_word *entry = jf_space_entry(&window->space, index);
    for (;;) {
        jf_word word = jf_word_load(entry);
        if (!jf_handle_matches(element, word) || jf_entry_state(word) == JF_ENTRY_FREE)
            return false;
        const struct jf_pool_block *block =
            jf_pool_block_at(window, jf_space_address(&window->space, word));
        if (block != NULL && __atomic_load_n(&block->pool, __ATOMIC_ACQUIRE) == pool)
            return false;
        *ret_kind = block == NULL ? RM_MISUSE_FOREIGN_POINTER : RM_MISUSE_WRONG_POOL;
        if (jf_word_load(entry) == word)
            return true;
    }
}

void rmpool_free_handle(rmpool_t opaque, rmhandle_t element) {
    struct jf_pool *pool = (struct jf_pool *)opaque;
    enum rm_misuse_kind kind;
    if (element == NULL || !is_pool(pool, "rmpool_free_handle"))
        return;
    uint32_t index = jf_handle_index(&pool->window->space, element);
    if (jf_pool_is_entry(pool->window, index) && is_of_other(pool, element, index, &kind))
        report(pool, "rmpool_free_handle", kind, (uintptr_t)element, NULL);
    else /* stale, foreign and locked ones are reported there */
        jf_blocks_free(element, "rmpool_free_handle");
}

/* ------------------------------------------------------------------------------------- questions */

/* A live element's handle; NULL when there is none in the slot. */
static rmhandle_t handle_at(const struct jf_pool_block *block, uint32_t slot) {
    const struct jf_space *space = &block->pool->window->space;
    uint32_t index = jf_pool_index_at(&block->region, jf_pool_element(block, slot));
    if (!jf_pool_is_entry(block->pool->window, index))
        return NULL;
    jf_word word = jf_word_load(jf_space_entry(space, index));
    enum jf_entry_state state = jf_entry_state(word);
    bool live = state == JF_ENTRY_LIVE || state == JF_ENTRY_MOVING;
    if (!live || jf_space_address(space, word) != jf_pool_element(block, slot))
        return NULL;
    return jf_handle_make(space, index, jf_entry_generation(word));
}

static bool is_live(const struct jf_pool_block *block, uint32_t slot, rmhandle_t *ret_handle) {
    *ret_handle = NULL;
    if (jf_pool_is_taken(block, slot))
        return false;
    if (!block->pool->handles)
        return __atomic_load_n(jf_pool_state(block, slot), __ATOMIC_RELAXED) == JF_POOL_LIVE;
    *ret_handle = handle_at(block, slot);
    return *ret_handle != NULL;
}

static int visit_block(const struct jf_pool_block *block, rm_pool_visit_fn *visit, void *context) {
    int result = 0;
    for (uint32_t slot = 0; slot < block->carved && result == 0; slot++) {
        rmhandle_t handle;
        if (is_live(block, slot, &handle))
            result = visit(context, handle == NULL ? (void *)jf_pool_element(block, slot) : NULL,
                           handle);
    }
    return result;
}

/* The blocks are gone through by lists that change when elements are freed; so they are gathered first, and
 * none is given back meanwhile. */
int rmpool_visit(rmpool_t opaque, rm_pool_visit_fn *visit, void *context) {
    struct jf_pool *pool = (struct jf_pool *)opaque;
    if (!is_pool(pool, "rmpool_visit"))
        return 0;
    struct jf_window *window = pool->window;
    jf_os_mutex_lock(&window->mutex);
    pool->visiting++;
    struct jf_pool_block *first = NULL;
    for (unsigned bin = 0; bin <= JF_POOL_BINS; bin++) {
        struct jf_pool_block *block = bin < JF_POOL_BINS ? pool->bins[bin] : pool->full;
        for (; block != NULL; block = block->next) {
            block->visit_next = first;
            first = block;
        }
    }
    jf_os_mutex_unlock(&window->mutex);
    int result = 0;
    for (struct jf_pool_block *block = first; block != NULL && result == 0;
         block = block->visit_next)
        result = visit_block(block, visit, context);
    jf_os_mutex_lock(&window->mutex);
    if (--pool->visiting == 0)
        jf_pool_trim(pool);
    jf_os_mutex_unlock(&window->mutex);
    return result;
}

rmpool_t rmpool_of(const void *element) {
    struct jf_heap *heap = jf_blocks_heap(NULL);
    if (heap == NULL || heap->fixed || element == NULL)
        return NULL;
    uintptr_t address = (uintptr_t)element;
    const struct jf_pool_block *block = jf_pool_block_at(heap->u.grow.window, address);
    const struct jf_pool *pool = block != NULL ? block->pool : NULL;
    if (pool == NULL)
        return NULL;
    uint32_t slot = jf_pool_slot_at(pool, block, address);
    rmhandle_t handle;
    bool element_there = slot < block->carved && jf_pool_element(block, slot) == address;
    return element_there && is_live(block, slot, &handle) ? (rmpool_t)(uintptr_t)pool : NULL;
}

static int count_element(void *context, void *element, rmhandle_t handle) {
    (void)element, (void)handle;
    ++*(size_t *)context;
    return 0;
}

void rmpool_stats(rmpool_t opaque, struct rm_pool_stats *ret_stats) {
    struct jf_pool *pool = (struct jf_pool *)opaque;
    memset(ret_stats, 0, sizeof *ret_stats);
    if (!is_pool(pool, "rmpool_stats"))
        return;
    ret_stats->element_size = pool->element_size;
    ret_stats->stride = pool->stride;
    ret_stats->block_elements = pool->slots - pool->taken;
    rmpool_visit(opaque, count_element, &ret_stats->elements);
    jf_os_mutex_lock(&pool->window->mutex);
    jf_pool_collect(pool);
    ret_stats->blocks = pool->blocks;
    ret_stats->capacity = pool->blocks * ret_stats->block_elements;
    ret_stats->empty_blocks = pool->empty;
    for (unsigned bin = 0; bin <= JF_POOL_BINS; bin++) {
        struct jf_pool_block *block = bin < JF_POOL_BINS ? pool->bins[bin] : pool->full;
        for (; block != NULL; block = block->next) {
            ret_stats->committed += block->committed;
            ret_stats->partial_blocks += bin != 0 && bin < JF_POOL_BINS;
        }
    }
    jf_os_mutex_unlock(&pool->window->mutex);
}
