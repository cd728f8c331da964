/* The public calls that make, resize and end blocks or ask about them, and what is done when memory runs
 * out: compact, purge, ask the program, give up.
 */
#include "api.h"

#include "base/mark.h"
#include "heap/fast.h"

#include <string.h>

enum {
    MEMORY_LOW_CALLS_MAX = 1000, /* times the program is asked for one request */
    BUSY_NS = 1000000000,        /* that a compaction by another thread is waited for */
};

/* ------------------------------------------------------------------------------------- in need */

/* How far the search for memory for one request has come. */
struct need {
    bool compacted;    /* nothing has changed since the last compaction */
    unsigned priority; /* purging goes on here */
    unsigned batch;    /* blocks to be purged in the next step */
    unsigned calls;    /* of the memory_low callback */
};

static void need_init(struct need *ret_need) {
    *ret_need = (struct need){.priority = 1, .batch = 1};
}

static void follow_table(struct jf_heap *heap) {
    if (!heap->fixed)
        return;
    jf_heap_lock(heap);
    jf_api_follow_table(heap);
    jf_heap_unlock(heap);
}

static void compact_all(struct jf_heap *heap) {
    struct rm_compact_result result;
    if (heap->fixed)
        jf_slide_again(heap);
    uint64_t start = jf_os_clock_ns();
    do {
        rm_compact_status status = jf_compact(heap, &jf_api.readers, jf_api_reader(), 0, &result);
        /* Without a limit only another thread's compaction can end this one before its time. */
        if (status != RM_COMPACT_BUDGET)
            break;
        jf_os_yield();
    } while (jf_os_clock_ns() - start < BUSY_NS);
    follow_table(heap);
}

static bool purge_one(struct jf_heap *heap, unsigned priority) {
    if (JF_HAS_GROWING && !heap->fixed) {
        struct jf_thread *thread = jf_thread_begin_change(jf_api.window);
        bool emptied = jf_grow_purge_one(heap, priority, &jf_api.readers, jf_api_reader());
        jf_thread_end_change(thread);
        return emptied;
    }
    jf_heap_lock(heap);
    bool purged = jf_fixed_purge_one(heap, priority, &jf_api.readers, jf_api_reader());
    jf_heap_unlock(heap);
    return purged;
}

/* Purges the next batch, lowest priority first; false when there was nothing left. Batches double, so
 * that a request for much does not have to be tried after every block. */
static bool purge_batch(struct jf_heap *heap, struct need *need) {
    unsigned purged = 0;
    while (purged < need->batch && need->priority <= RM_PURGE_PRIORITY_MAX) {
        uint32_t marks = __atomic_load_n(&heap->purge_marks, __ATOMIC_RELAXED);
        if ((marks >> need->priority & 1) != 0 && purge_one(heap, need->priority))
            purged++;
        else
            need->priority++;
    }
    need->batch *= 2;
    return purged != 0;
}

/* Whether the request could be met if everything else were gone. */
static bool could_ever_fit(const struct jf_heap *heap, size_t size) {
    if (heap->options.limit != 0 && size > heap->options.limit)
        return false;
    return size < heap->space->limit - heap->space->base;
}

/* Does the next thing that may bring memory for the request; false when there is none left. */
static bool make_room(struct jf_heap *heap, size_t size, struct need *need) {
    if (!could_ever_fit(heap, size))
        return false;
    if (!need->compacted) {
        compact_all(heap);
        need->compacted = true;
        return true;
    }
    need->compacted = false;
    if (purge_batch(heap, need))
        return true;
    rm_memory_low_fn *memory_low = heap->options.memory_low;
    if (memory_low == NULL || need->calls == MEMORY_LOW_CALLS_MAX)
        return false;
    need->calls++;
    return memory_low(heap->options.context, size) != 0;
}

/* ------------------------------------------------------------------------------------- allocation */

static rmhandle_t try_fixed(struct jf_heap *heap, size_t size, unsigned align_log2, bool zero) {
    struct jf_space *space = heap->space;
    rmhandle_t handle = NULL;
    jf_heap_lock(heap);
    uint32_t index = jf_fixed_allocate(heap, size, align_log2);
    if (index != 0) {
        jf_word word = jf_word_load(jf_space_entry(space, index));
        handle = jf_handle_make(space, index, jf_entry_generation(word));
        if (zero)
            jf_mark_fill((void *)jf_space_address(space, word), 0, size);
    }
    jf_api_follow_table(heap);
    jf_heap_unlock(heap);
    return handle;
}

static inline rmhandle_t try_growing(struct jf_heap *heap, size_t size, unsigned align_log2,
                                     bool zero) {
    if (!JF_HAS_GROWING)
        return NULL;
    rmhandle_t handle = jf_grow_malloc(heap, size, align_log2, zero);
    if (handle != NULL) {
        uint32_t index = jf_handle_index(heap->space, handle);
        if (!RM_LIKELY(index < __atomic_load_n(&jf_api.entries, __ATOMIC_RELAXED)))
            jf_api_reach(index);
    }
    return handle;
}

static inline rmhandle_t try_allocate(struct jf_heap *heap, size_t size, unsigned align_log2,
                                      bool zero) {
    return heap->fixed ? try_fixed(heap, size, align_log2, zero)
                       : try_growing(heap, size, align_log2, zero);
}

static rmhandle_t allocate_in_need(struct jf_heap *heap, size_t size, unsigned align_log2,
                                   bool zero) {
    struct need need;
    need_init(&need);
    rmhandle_t handle = NULL;
    while (handle == NULL && make_room(heap, size, &need))
        handle = try_allocate(heap, size, align_log2, zero);
    if (handle == NULL)
        jf_os_set_errno(JF_OS_ENOMEM);
    return handle;
}

static void scramble_when_due(struct jf_heap *heap) {
    uint32_t count = __atomic_add_fetch(&heap->allocations, 1, __ATOMIC_RELAXED);
    if (count % heap->options.scramble_period != 0)
        return;
    jf_scramble(heap, &jf_api.readers, jf_api_reader());
    follow_table(heap);
}

bool jf_api_insist(struct jf_heap *heap, size_t size, bool (*attempt)(void *context),
                   void *context) {
    struct need need;
    need_init(&need);
    while (!attempt(context)) {
        if (make_room(heap, size, &need))
            continue;
        jf_os_set_errno(JF_OS_ENOMEM);
        return false;
    }
    return true;
}

static inline rmhandle_t allocate(struct jf_heap *heap, size_t size, unsigned align_log2, bool zero,
                                  const char *call) {
    if (!RM_LIKELY(heap != NULL))
        return NULL;
    if (!RM_LIKELY(heap->options.scramble_period == 0))
        scramble_when_due(heap);
    rmhandle_t handle = try_allocate(heap, size, align_log2, zero);
    if (!RM_LIKELY(handle != NULL))
        handle = allocate_in_need(heap, size, align_log2, zero);
    if (!RM_LIKELY(heap->options.check < 2))
        jf_api_check_after(heap, call);
    return handle;
}

rmhandle_t jf_api_allocate(struct jf_heap *heap, size_t size, unsigned align_log2, bool zero,
                           const char *call) {
    return allocate(heap, size, align_log2, zero, call);
}

rmhandle_t rmheap_malloc(rmheap_t heap, size_t size) {
    return allocate(jf_api_heap(heap), size, JF_ALIGN_LOG2_MIN, false, "rmmalloc");
}

/* The next calls of this thread may take the fast path if nothing forbids it. */
static void allow_fast(const struct jf_heap *heap) {
    struct jf_thread *thread = JF_HAS_GROWING ? jf_thread_self() : NULL;
    if (thread != NULL && thread->fence_all && thread->fast_share == NULL && heap != NULL &&
        !heap->fixed && heap->is_default && heap->options.check == 0 &&
        heap->options.scramble_period == 0)
        jf_thread_allow_fast(thread, heap);
}

/* Functions of their own, so that the fast path needs no registers saved. */
static JF_NOINLINE rmhandle_t malloc_slow(size_t size) {
    struct jf_heap *heap = jf_api_heap(NULL);
    allow_fast(heap);
    return allocate(heap, size, JF_ALIGN_LOG2_MIN, false, "rmmalloc");
}

static JF_NOINLINE rmhandle_t malloc_bump(size_t size) {
    return jf_fast_bump(size, malloc_slow);
}

rmhandle_t rmmalloc(size_t size) {
    return jf_fast_malloc(size, malloc_bump);
}

rmhandle_t rmheap_calloc(rmheap_t heap, size_t count, size_t size) {
    size_t bytes;
    if (!jf_bits_multiply(count, size, &bytes)) {
        jf_os_set_errno(JF_OS_ENOMEM);
        return NULL;
    }
    return allocate(jf_api_heap(heap), bytes, JF_ALIGN_LOG2_MIN, true, "rmcalloc");
}

rmhandle_t rmcalloc(size_t count, size_t size) {
    return rmheap_calloc(NULL, count, size);
}

rmhandle_t rmheap_aligned_alloc(rmheap_t heap, size_t alignment, size_t size) {
    if (!jf_bits_is_power_of_two(alignment) || alignment > (size_t)1 << JF_ALIGN_LOG2_MAX) {
        jf_os_set_errno(JF_OS_EINVAL);
        return NULL;
    }
    unsigned align_log2 = jf_bits_log2(alignment);
    if (align_log2 < JF_ALIGN_LOG2_MIN)
        align_log2 = JF_ALIGN_LOG2_MIN;
    return allocate(jf_api_heap(heap), size, align_log2, false, "rmaligned_alloc");
}

rmhandle_t rmaligned_alloc(size_t alignment, size_t size) {
    return rmheap_aligned_alloc(NULL, alignment, size);
}

/* ------------------------------------------------------------------------------------- free */

static enum jf_access free_fixed(const struct jf_home *home, rmhandle_t handle) {
    struct jf_heap *heap = home->fixed;
    jf_word word;
    jf_heap_lock(heap);
    enum jf_access access = jf_access_free(home->space, home->index, handle, &word);
    if (access == JF_ACCESS_OK) {
        if (jf_entry_state(word) != JF_ENTRY_PURGED)
            jf_fixed_release_block(heap, jf_space_address(home->space, word));
        jf_fixed_release_entry(heap, home->index);
        jf_api_follow_table(heap);
    }
    jf_heap_unlock(heap);
    return access;
}

static inline enum jf_access free_growing(const struct jf_home *home, rmhandle_t handle) {
    if (!JF_HAS_GROWING)
        return JF_ACCESS_STALE;
    jf_word word;
    struct jf_thread *thread = jf_thread_begin_change(jf_api.window);
    enum jf_access access = jf_access_free(home->space, home->index, handle, &word);
    if (RM_LIKELY(access == JF_ACCESS_OK))
        jf_grow_freed(jf_api.window, home->index, word);
    jf_thread_end_change(thread);
    return access;
}

JF_NOINLINE void jf_api_free(rmhandle_t handle, const char *call) {
    struct jf_home home;
    if (!jf_api_find(handle, &home)) {
        jf_api_misuse_handle(call, handle);
        return;
    }
    rmheap_t checked = !RM_LIKELY(jf_api.checking == 0) ? rmheap_of(handle) : NULL;
    enum jf_access access =
        home.fixed != NULL ? free_fixed(&home, handle) : free_growing(&home, handle);
    if (!RM_LIKELY(access == JF_ACCESS_OK))
        jf_api_misuse_access(call, handle, &home, access);
    else if (checked != NULL)
        jf_api_check_after((struct jf_heap *)checked, call);
}

static JF_NOINLINE void free_slow(rmhandle_t handle, enum jf_fast_freed freed) {
    if (freed != JF_FAST_NOT_FREED)
        jf_thread_leave_with_full_ring(jf_thread_self());
    else if (handle != NULL)
        jf_api_free(handle, "rmfree");
}

void rmfree(rmhandle_t handle) {
    enum jf_fast_freed freed = jf_fast_free(handle);
    if (!RM_LIKELY(freed == JF_FAST_FREED))
        free_slow(handle, freed);
}

/* ------------------------------------------------------------------------------------- resizing */

struct jf_region *jf_api_pool_at(const struct jf_home *home, uintptr_t payload) {
    struct jf_window *window = home->fixed == NULL ? jf_api_window() : NULL;
    if (window == NULL || jf_window_pool_ops(window) == NULL)
        return NULL;
    struct jf_chunk chunk = jf_arena_find(window->arena, payload);
    return chunk.kind == JF_CHUNK_POOL ? chunk.owner : NULL;
}

bool jf_api_is_element(const struct jf_home *home) {
    jf_word word = jf_word_load(jf_space_entry(home->space, home->index));
    return jf_entry_state(word) != JF_ENTRY_FREE &&
           jf_api_pool_at(home, jf_space_address(home->space, word)) != NULL;
}

size_t jf_api_size_at(const struct jf_home *home, uintptr_t payload) {
    if (home->fixed == NULL && JF_HAS_GROWING) {
        struct jf_large *large = jf_grow_large_at(jf_api.window, payload);
        if (large != NULL)
            return large->size;
        struct jf_region *pool = jf_api_pool_at(home, payload);
        if (!RM_LIKELY(pool == NULL))
            return jf_pool_size_at(pool);
    }
    struct jf_step step;
    return jf_block_step_of(payload, &step) ? jf_step_size(&step) : 0;
}

/* Claims the block, resizes it, gives it back. In a fixed heap its mutex is held. */
static enum jf_api_resized resize_claimed(const struct jf_home *home, rmhandle_t handle,
                                          const struct jf_api_resizing *resizing,
                                          struct jf_heap **ret_heap) {
    jf_word word;
    enum jf_access access = jf_access_claim(home->space, home->index, handle, &word);
    if (access == JF_ACCESS_STALE)
        return JF_API_STALE;
    bool locked = access == JF_ACCESS_LOCKED;
    *ret_heap = jf_api_heap_of_word(home, word);
    if (resizing->keep_only && jf_entry_state(word) == JF_ENTRY_PURGED) {
        jf_access_unclaim(home->space, home->index, word);
        return JF_API_PURGED;
    }
    size_t old_size =
        JF_MARK_ACTIVE && locked ? jf_api_size_at(home, jf_space_address(home->space, word)) : 0;
    bool done = false;
    if (locked && resizing->unlocked_only)
        done = false;
    else if (home->fixed != NULL)
        done = jf_fixed_resize(home->fixed, home->index, resizing->size, locked);
    else if (JF_HAS_GROWING)
        done = jf_grow_resize(jf_api.window, home->index, resizing->size, resizing->room, locked);
    if (done) {
        jf_api_remark(home, old_size);
        return JF_API_RESIZED;
    }
    jf_access_unclaim(home->space, home->index, word);
    return locked ? JF_API_LOCKED : JF_API_NO_ROOM;
}

static enum jf_api_resized try_resize(const struct jf_home *home, rmhandle_t handle,
                                      const struct jf_api_resizing *resizing,
                                      struct jf_heap **ret_heap) {
    enum jf_api_resized outcome;
    if (JF_HAS_GROWING && home->fixed == NULL) {
        struct jf_thread *thread = jf_thread_begin_change(jf_api.window);
        outcome = resize_claimed(home, handle, resizing, ret_heap);
        jf_thread_end_change(thread);
        return outcome;
    }
    jf_heap_lock(home->fixed);
    outcome = resize_claimed(home, handle, resizing, ret_heap);
    jf_api_follow_table(home->fixed);
    jf_heap_unlock(home->fixed);
    return outcome;
}

/* The block is locked. Another thread may be resizing it where it lies, so the header's other fields
 * may change meanwhile. */
static void set_priority(const struct jf_home *home, uintptr_t payload, unsigned priority) {
    struct jf_heap *heap = home->fixed != NULL || !JF_HAS_GROWING
                               ? home->fixed
                               : jf_grow_heap_at(jf_api.window, payload);
    if (priority != 0)
        __atomic_fetch_or(&heap->purge_marks, 1u << priority, __ATOMIC_RELAXED);
    if (home->fixed == NULL && JF_HAS_GROWING) {
        struct jf_large *large = jf_grow_large_at(jf_api.window, payload);
        if (large != NULL) {
            jf_large_set_priority(large, priority);
            return;
        }
    }
    uintptr_t at = payload - JF_HEADER_SIZE;
    jf_word header = jf_header_load(at);
    if (JF_MARK_ACTIVE) {
        jf_header_store(at, jf_header_with_kind(header, JF_KIND_BLOCK | priority));
        return;
    }
    while (!jf_word_compare_swap((jf_word *)at, &header,
                                 jf_header_with_kind(header, JF_KIND_BLOCK | priority)))
        continue;
}

static unsigned priority_at(const struct jf_home *home, uintptr_t payload) {
    struct jf_large *large =
        home->fixed == NULL && JF_HAS_GROWING ? jf_grow_large_at(jf_api.window, payload) : NULL;
    return large != NULL ? jf_large_priority(large)
                         : jf_header_priority(jf_header_load(payload - JF_HEADER_SIZE));
}

/* Gives the block another priority and returns what it had; 0 when it has no memory. */
static unsigned exchange_priority(const struct jf_home *home, rmhandle_t handle,
                                  unsigned priority) {
    void *pointer;
    if (jf_api_count(home, handle, true, &pointer) != JF_ACCESS_OK)
        return 0;
    unsigned before = priority_at(home, (uintptr_t)pointer);
    set_priority(home, (uintptr_t)pointer, priority);
    jf_api_uncount(home, handle);
    return before;
}

enum jf_api_resized jf_api_resize(rmhandle_t handle, const struct jf_api_resizing *resizing) {
    struct jf_home home;
    struct jf_heap *heap = NULL;
    struct need need;
    if (!jf_api_find(handle, &home)) {
        jf_api_misuse_handle(resizing->call, handle);
        return JF_API_STALE;
    }
    if (jf_api_is_element(&home)) {
        jf_os_set_errno(JF_OS_EINVAL);
        return JF_API_ELEMENT;
    }
    need_init(&need);
    enum jf_api_resized outcome = try_resize(&home, handle, resizing, &heap);
    if (outcome == JF_API_NO_ROOM && resizing->in_need && heap != NULL) {
        /* what is emptied to make room must not be the contents that are to be kept */
        unsigned priority = exchange_priority(&home, handle, 0);
        /* The block is given back between two tries: the callback may lock it. */
        while (outcome == JF_API_NO_ROOM && make_room(heap, resizing->size, &need))
            outcome = try_resize(&home, handle, resizing, &heap);
        if (priority != 0)
            exchange_priority(&home, handle, priority);
    }
    if (outcome == JF_API_STALE)
        jf_api_misuse_access(resizing->call, handle, &home, JF_ACCESS_STALE);
    jf_api_check_after(heap, resizing->call);
    return outcome;
}

int rmrealloc(rmhandle_t handle, size_t size) {
    struct jf_api_resizing resizing = {.size = size, .in_need = true, .call = "rmrealloc"};
    if (JF_HAS_GROWING && jf_grow_swap_handle(handle, size))
        return 0;
    enum jf_api_resized outcome = jf_api_resize(handle, &resizing);
    if (outcome == JF_API_LOCKED || outcome == JF_API_NO_ROOM)
        jf_os_set_errno(outcome == JF_API_LOCKED ? JF_OS_EBUSY : JF_OS_ENOMEM);
    return outcome == JF_API_RESIZED ? 0 : -1;
}

/* ------------------------------------------------------------------------------------- questions */

/* Reads the size without holding the block: when it is where it was after as before, that was its own
 * header. In a fixed heap its mutex is held, for a slide may cut off the block's old place. */
static enum jf_access read_size(const struct jf_home *home, rmhandle_t handle, size_t *ret_size) {
    void *before = NULL;
    void *after = NULL;
    for (;;) {
        enum jf_access access = jf_access_peek(home->space, home->index, handle, &before);
        if (access != JF_ACCESS_OK)
            return access;
        *ret_size = jf_api_size_at(home, (uintptr_t)before);
        access = jf_access_peek(home->space, home->index, handle, &after);
        if (access != JF_ACCESS_OK)
            return access;
        if (before == after)
            return JF_ACCESS_OK;
    }
}

size_t rmsize(rmhandle_t handle) {
    struct jf_home home;
    size_t size = 0;
    if (!jf_api_find(handle, &home)) {
        jf_api_misuse_handle("rmsize", handle);
        return 0;
    }
    if (home.fixed != NULL)
        jf_heap_lock(home.fixed);
    enum jf_access access = read_size(&home, handle, &size);
    if (home.fixed != NULL)
        jf_heap_unlock(home.fixed);
    if (access == JF_ACCESS_OK)
        return size;
    if (access != JF_ACCESS_PURGED)
        jf_api_misuse_access("rmsize", handle, &home, access);
    return 0;
}

/* The handle of entry `index` if it says that its locked block is at `payload`. */
static rmhandle_t locked_handle(const struct jf_space *space, uint32_t index, size_t entries,
                                uintptr_t payload) {
    if (index == 0 || index >= entries)
        return NULL;
    jf_word word = jf_word_load(jf_space_entry(space, index));
    enum jf_entry_state state = jf_entry_state(word);
    bool in_use = state == JF_ENTRY_LIVE || state == JF_ENTRY_RESIZING;
    if (!in_use || jf_entry_count(word) == 0 || jf_space_address(space, word) != payload)
        return NULL;
    return jf_handle_make(space, index, jf_entry_generation(word));
}

static uint32_t index_before(uintptr_t payload) {
    jf_word header = jf_header_load(payload - JF_HEADER_SIZE);
    return jf_header_is_block(header) ? jf_header_index(header) : 0;
}

static rmhandle_t handle_in_window(const struct jf_window *window, uintptr_t payload) {
    struct jf_chunk chunk = jf_arena_find(window->arena, payload);
    uint32_t index = 0;
    if (chunk.kind == JF_CHUNK_LARGE && chunk.address == payload)
        index = ((struct jf_large *)chunk.owner)->index;
    else if (chunk.kind == JF_CHUNK_POOL)
        index = jf_pool_index_at(chunk.owner, payload);
    else if (chunk.kind == JF_CHUNK_REGION && payload - chunk.address >= JF_GRAIN)
        index = index_before(payload);
    size_t entries = __atomic_load_n(&jf_api.entries, __ATOMIC_ACQUIRE);
    return locked_handle(&window->space, index, entries, payload);
}

static rmhandle_t handle_in_fixed(struct jf_heap *heap, uintptr_t payload) {
    rmhandle_t handle = NULL;
    jf_heap_lock(heap);
    if (payload - JF_HEADER_SIZE >= heap->u.fixed_part.start && payload < heap->space->table)
        handle = locked_handle(heap->space, index_before(payload), jf_space_entries(heap->space),
                               payload);
    jf_heap_unlock(heap);
    return handle;
}

rmhandle_t rmhandle_of(const void *locked_pointer) {
    uintptr_t payload = (uintptr_t)locked_pointer;
    if (payload % JF_GRAIN != 0)
        return NULL;
    const struct jf_window *window = jf_api_window();
    if (JF_HAS_GROWING && window != NULL && payload >= window->space.base &&
        payload < window->space.limit)
        return handle_in_window(window, payload);
    uint32_t count = __atomic_load_n(&jf_api.fixed_count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        const struct jf_fixed_slot *slot = &jf_api.fixed[i];
        struct jf_heap *heap = __atomic_load_n(&slot->heap, __ATOMIC_ACQUIRE);
        if (heap != NULL && payload > __atomic_load_n(&slot->base, __ATOMIC_RELAXED) &&
            payload < __atomic_load_n(&slot->table_end, __ATOMIC_RELAXED))
            return handle_in_fixed(heap, payload);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------- purging */

int rmpurgeable(rmhandle_t handle, int priority) {
    struct jf_home home;
    if (!jf_api_find(handle, &home)) {
        jf_api_misuse_handle("rmpurgeable", handle);
        return -1;
    }
    if (jf_api_is_element(&home)) {
        jf_os_set_errno(JF_OS_EINVAL);
        return -1;
    }
    if (priority < 0)
        priority = 0;
    if (priority > RM_PURGE_PRIORITY_MAX)
        priority = RM_PURGE_PRIORITY_MAX;
    void *pointer;
    enum jf_access access = jf_api_count(&home, handle, true, &pointer);
    if (access == JF_ACCESS_PURGED)
        return 1;
    if (access != JF_ACCESS_OK) {
        jf_api_misuse_access("rmpurgeable", handle, &home, access);
        return -1;
    }
    set_priority(&home, (uintptr_t)pointer, (unsigned)priority);
    jf_api_uncount(&home, handle);
    if (jf_api.checking)
        jf_api_check_after((struct jf_heap *)rmheap_of(handle), "rmpurgeable");
    return 0;
}
