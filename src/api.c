/* The library's one global state, and the public calls that concern whole heaps: creation, options,
 * compaction, figures, checks.
 */
#include "api.h"

#include "base/mark.h"
#include "base/options.h"
#include "heap/fast.h"
#include "heap/fixed.h"
#include "malloc/facade.h"

#include <string.h>

struct jf_api jf_api;

#if !defined(RM_NO_INLINE)
#if JF_HAS_GROWING
struct jf_fast jf_fast;
#endif
struct rm_window rm_window_v1 = {.reader_fence = 1};
#endif

/* The options as the first released header had them. */
#define RM_OPTIONS_SIZE_FIRST (offsetof(struct rm_options, misuse) + sizeof(rm_misuse_fn *))

/* ------------------------------------------------------------------------------------- start, fork */

enum { NOT_STARTED, STARTING, STARTED };

static void for_each_heap(void (*work)(struct jf_heap *heap)) {
    struct jf_window *window = jf_api_window();
    for (uint32_t i = 0; window != NULL && i < window->heap_count; i++)
        if (window->heaps[i] != NULL)
            work(window->heaps[i]);
    for (uint32_t i = 0; i < jf_api.fixed_count; i++)
        if (jf_api.fixed[i].heap != NULL)
            work(jf_api.fixed[i].heap);
}

static void hold_compaction(struct jf_heap *heap) {
    jf_os_mutex_lock(&heap->compacting);
}

static void hold_heap(struct jf_heap *heap) {
    jf_os_mutex_lock(&heap->mutex);
}

static void let_go(struct jf_heap *heap) {
    jf_os_mutex_unlock(&heap->mutex);
    jf_os_mutex_unlock(&heap->compacting);
}

/* In the child the thread that was compacting is gone, and nobody waits for a mutex: a slide would give way
 * to those that waited in the parent, step after step. */
static void renew(struct jf_heap *heap) {
    jf_os_mutex_init(&heap->mutex);
    jf_os_mutex_init(&heap->compacting);
    if (JF_HAS_GROWING && !heap->fixed)
        jf_depot_renew(heap);
    heap->compactor_busy = 0;
    heap->waiting = 0;
}

static bool forking_marks; /* under the mutex of the API */

/* The process is copied while all mutexes are held, in the order in which they are taken elsewhere. */
static void fork_prepare(void) {
    jf_os_mutex_lock(&jf_api.mutex);
    for_each_heap(hold_compaction);
    for_each_heap(hold_heap);
    if (jf_api_window() != NULL) {
        jf_malloc_fork_prepare();
        jf_thread_fork_prepare(jf_api.window);
        jf_arena_fork_prepare(jf_api.window->arena);
    }
    jf_os_mutex_lock(&jf_api.readers.mutex);
    forking_marks = jf_mark_enter();
}

static void fork_parent(void) {
    jf_mark_leave(forking_marks);
    jf_os_mutex_unlock(&jf_api.readers.mutex);
    if (jf_api_window() != NULL) {
        jf_arena_fork_done(jf_api.window->arena, false);
        jf_thread_fork_parent(jf_api.window);
        jf_malloc_fork_parent();
    }
    for_each_heap(let_go);
    jf_os_mutex_unlock(&jf_api.mutex);
}

static void fork_child(void) {
    jf_mark_leave(forking_marks);
    jf_api_reader_fork_child();
    if (jf_api_window() != NULL) {
        jf_arena_fork_done(jf_api.window->arena, true);
        jf_thread_fork_child(jf_api.window);
        jf_malloc_fork_child();
    }
    for_each_heap(renew);
    jf_os_mutex_init(&jf_api.mutex);
}

void jf_api_start(void) {
    if (jf_word_load(&jf_api.started) == STARTED)
        return;
    jf_word before = NOT_STARTED;
    if (jf_word_compare_swap(&jf_api.started, &before, STARTING)) {
        jf_os_mutex_init(&jf_api.mutex);
        jf_readers_init(&jf_api.readers);
        jf_api.slow = JF_MARK_ACTIVE;
        jf_os_at_fork(fork_prepare, fork_parent, fork_child);
        jf_word_store(&jf_api.started, STARTED);
        return;
    }
    while (jf_word_load(&jf_api.started) != STARTED)
        jf_os_yield();
}

/* ------------------------------------------------------------------------------------- fast path */

/* Shows the inlined calls a table. They read the two words one after the other, in any order; a table
 * that grows downwards is therefore moved first: old table with old or new length stays within it but
 * for the moment between two loads, in which only a handle that was never given out could be misjudged. */
static void show_table(uintptr_t table, uintptr_t entries) {
#if !defined(RM_NO_INLINE)
    __atomic_store_n(&rm_window_v1.table, table, __ATOMIC_RELEASE);
    __atomic_store_n(&rm_window_v1.entries, jf_api.slow ? 0 : entries, __ATOMIC_RELEASE);
#else
    (void)table;
    (void)entries;
#endif
}

static void show_base(uintptr_t base) {
#if !defined(RM_NO_INLINE)
    __atomic_store_n(&rm_window_v1.base, base, __ATOMIC_RELEASE);
#else
    (void)base;
#endif
}

/* Shows the fast paths of rmmalloc and rmfree the growing window as far as they may use it. */
static void show_window(void) {
#if JF_HAS_GROWING
    const struct jf_window *window = jf_api.window;
    __atomic_store_n(&jf_fast.base, window->space.base, __ATOMIC_RELAXED);
    __atomic_store_n(&jf_fast.table, window->space.table, __ATOMIC_RELAXED);
    __atomic_store_n(&jf_fast.heads, window->space.heads, __ATOMIC_RELAXED);
    __atomic_store_n(&jf_fast.reach, jf_api.entries, __ATOMIC_RELEASE);
    bool allowed = !jf_api.slow && window->fence_all;
    __atomic_store_n(&jf_fast.entries, allowed ? jf_api.entries : 0, __ATOMIC_RELEASE);
#endif
}

/* The api's mutex is held. */
static void take_fast_path(enum jf_fast_owner owner, const struct jf_space *space) {
    if (jf_api.fast_owner != JF_FAST_NOBODY)
        return;
    jf_api.fast_owner = owner;
    show_base(space->base);
    show_table(space->table, owner == JF_FAST_FIXED ? jf_space_entries(space) : jf_api.entries);
}

static void leave_fast_path(void) {
    show_table(0, 0);
    show_base(0);
    jf_api.fast_owner = JF_FAST_NOBODY;
    struct jf_window *window = jf_api_window();
    if (window != NULL)
        take_fast_path(JF_FAST_WINDOW, &window->space);
}

void jf_api_reach(uint32_t index) {
    jf_os_mutex_lock(&jf_api.mutex);
    uintptr_t entries = ((uintptr_t)index | (JF_TABLE_PAGE_ENTRIES - 1)) + 1;
    if (entries > jf_api.entries) {
        __atomic_store_n(&jf_api.entries, entries, __ATOMIC_RELEASE);
        show_window();
        if (jf_api.fast_owner == JF_FAST_WINDOW)
            show_table(jf_api.window->space.table, entries);
    }
    jf_os_mutex_unlock(&jf_api.mutex);
}

void jf_api_follow_table(struct jf_heap *heap) {
    struct jf_fixed_slot *slot = &jf_api.fixed[heap->space->id];
    uintptr_t table = heap->space->table;
    if (slot->table == table)
        return;
    __atomic_store_n(&slot->table, table, __ATOMIC_RELEASE);
    if (heap->is_default && jf_api.fast_owner == JF_FAST_FIXED)
        show_table(table, jf_space_entries(heap->space));
}

/* A section that was opened without a fence of its own counts only while nobody but compactions that
 * fence all threads looks at it. */
static void set_reader_fence(bool own_fence) {
#if !defined(RM_NO_INLINE)
    __atomic_store_n(&rm_window_v1.reader_fence, own_fence, __ATOMIC_RELAXED);
#endif
    if (own_fence && jf_api.readers.fence_all)
        jf_os_fence_all();
}

/* ------------------------------------------------------------------------------------- finding */

/* Where the table of a fixed heap begins: now, or where it began when it was longest. */
static uintptr_t fixed_table(const struct jf_fixed_slot *slot, struct jf_heap *heap,
                             uintptr_t table_end, bool longest) {
    if (!longest)
        return __atomic_load_n(&slot->table, __ATOMIC_ACQUIRE);
    uint32_t entries = __atomic_load_n(&jf_fixed_part(heap)->entries_peak, __ATOMIC_RELAXED);
    return table_end - (uintptr_t)entries * sizeof(jf_word);
}

struct jf_heap *jf_api_find_fixed(rmhandle_t handle, bool longest, uint32_t *ret_index) {
    uint32_t count = __atomic_load_n(&jf_api.fixed_count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        const struct jf_fixed_slot *slot = &jf_api.fixed[i];
        struct jf_heap *heap = __atomic_load_n(&slot->heap, __ATOMIC_ACQUIRE);
        if (heap == NULL)
            continue;
        uintptr_t table_end = __atomic_load_n(&slot->table_end, __ATOMIC_RELAXED);
        struct jf_space seen = {
            .table = fixed_table(slot, heap, table_end, longest),
            .table_end = table_end,
            .id = i,
            .descending = true,
        };
        uint32_t index = jf_handle_index(&seen, handle);
        if (index != 0) {
            *ret_index = index;
            return heap;
        }
    }
    return NULL;
}

bool jf_api_find(rmhandle_t handle, struct jf_home *ret_home) {
    struct jf_window *window = jf_api_window();
    if (window != NULL) {
        /* Not the whole table: only as far as it is known to be accessible. */
        struct jf_space reached = window->space;
        reached.table_end =
            reached.table + __atomic_load_n(&jf_api.entries, __ATOMIC_ACQUIRE) * sizeof(jf_word);
        uint32_t index = jf_handle_index(&reached, handle);
        if (index != 0) {
            *ret_home = (struct jf_home){&window->space, NULL, index};
            return true;
        }
    }
    struct jf_heap *heap = jf_api_find_fixed(handle, false, &ret_home->index);
    if (heap == NULL)
        return false;
    ret_home->space = heap->space;
    ret_home->fixed = heap;
    return true;
}

struct jf_heap *jf_api_heap_of_word(const struct jf_home *home, jf_word word) {
    if (home->fixed != NULL)
        return home->fixed;
    if (!JF_HAS_GROWING || jf_entry_state(word) == JF_ENTRY_FREE)
        return NULL;
    return jf_grow_heap_at(jf_api.window, jf_space_address(home->space, word));
}

rmheap_t rmheap_of(rmhandle_t handle) {
    struct jf_home home;
    if (handle == NULL || !jf_api_find(handle, &home))
        return NULL;
    jf_word word = jf_word_load(jf_space_entry(home.space, home.index));
    enum jf_entry_state state = jf_entry_state(word);
    if (!jf_handle_matches(handle, word) || state == JF_ENTRY_FREE || state == JF_ENTRY_PENDING)
        return NULL;
    return (rmheap_t)jf_api_heap_of_word(&home, word);
}

/* ------------------------------------------------------------------------------------- options */

void rmoptions_init(struct rm_options *ret_options) {
    memset(ret_options, 0, sizeof *ret_options);
    ret_options->struct_size = sizeof *ret_options;
}

/* False when the options are none that rmoptions_init has filled, or are out of range. */
static bool import_options(const struct rm_options *given, bool fixed,
                           struct jf_options *ret_options) {
    if (given == NULL) {
        memset(ret_options, 0, sizeof *ret_options);
        return true;
    }
    /* a program built with an older header knows the first fields only; the others have their defaults */
    struct rm_options all;
    rmoptions_init(&all);
    size_t size = given->struct_size;
    if (size < RM_OPTIONS_SIZE_FIRST || size > sizeof all)
        return false;
    memcpy(&all, given, size);
    const struct rm_options *options = &all;
    if (options->check > JF_CHECK_MAX)
        return false;
    if (fixed && options->limit != 0)
        return false;
    *ret_options = (struct jf_options){
        .limit = options->limit,
        .check = options->check,
        .scramble_period = options->scramble_period,
        .scramble_seed = options->scramble_seed,
        .retire = options->retire != 0,
        .context = options->context,
        .moved = options->moved,
        .memory_low = options->memory_low,
        .misuse = options->misuse,
    };
    if (options->check == JF_CHECK_MAX && options->scramble_period == 0)
        ret_options->scramble_period = 1;
    return true;
}

/* The options the default heap starts with. The api's mutex is held. */
static struct jf_options default_options(bool fixed) {
    struct jf_options options = jf_api.options;
    if (!jf_api.configured) {
        struct rm_options environment;
        rmoptions_init(&environment);
        jf_options_from_environment(&environment);
        import_options(&environment, false, &options);
    }
    if (fixed)
        options.limit = 0;
    return options;
}

/* Takes notice of a heap's options. The api's mutex is held. */
static void apply_options(struct jf_heap *heap, const struct jf_options *options) {
    heap->options = *options;
    heap->scramble_state = options->scramble_seed;
    if (JF_HAS_GROWING && !heap->fixed)
        jf_window_forbid_fast(heap->u.grow.window); /* until rmmalloc finds that they permit it */
    if (options->check >= 2)
        __atomic_store_n(&jf_api.checking, 1, __ATOMIC_RELAXED);
    if (options->check == 0 || jf_api.slow)
        return;
    /* Only a call into the library can check more than the inlined ones do. */
    jf_api.slow = 1;
    show_table(0, 0);
    if (jf_api.window != NULL)
        show_window();
}

static int fail(enum jf_os_error error) {
    jf_os_set_errno(error);
    return -1;
}

int rmconfigure(const struct rm_options *options) {
    jf_api_start();
    jf_os_mutex_lock(&jf_api.mutex);
    struct jf_heap *heap = jf_api.default_heap;
    struct jf_options imported;
    bool valid = options != NULL && import_options(options, heap != NULL && heap->fixed, &imported);
    if (valid) {
        jf_api.options = imported;
        jf_api.configured = true;
        if (heap != NULL)
            apply_options(heap, &imported);
    }
    jf_os_mutex_unlock(&jf_api.mutex);
    return valid ? 0 : fail(JF_OS_EINVAL);
}

int rmheap_configure(rmheap_t opaque, const struct rm_options *options) {
    struct jf_heap *heap = (struct jf_heap *)opaque;
    if (heap == NULL || heap->is_default)
        return rmconfigure(options);
    struct jf_options imported;
    if (options == NULL || !import_options(options, heap->fixed, &imported))
        return fail(JF_OS_EINVAL);
    jf_os_mutex_lock(&jf_api.mutex);
    apply_options(heap, &imported);
    jf_os_mutex_unlock(&jf_api.mutex);
    return 0;
}

/* ------------------------------------------------------------------------------------- heaps */

/* The api's mutex is held for everything in this section that is static. */
static struct jf_window *start_window(void) {
    if (!JF_HAS_GROWING)
        return NULL;
    if (jf_api.window != NULL)
        return jf_api.window;
    struct jf_window *window = jf_window_create();
    if (window == NULL)
        return NULL;
    jf_mark_pool_create(&window->space);
    jf_api.readers.fence_all = window->fence_all;
    set_reader_fence(!window->fence_all || jf_api.fixed_count != 0);
    __atomic_store_n(&jf_api.window, window, __ATOMIC_RELEASE);
    take_fast_path(JF_FAST_WINDOW, &window->space);
    return window;
}

struct jf_window *jf_api_start_window(void) {
    jf_api_start();
    struct jf_window *window = jf_api_window();
    if (window != NULL)
        return window;
    jf_os_mutex_lock(&jf_api.mutex);
    window = start_window();
    jf_os_mutex_unlock(&jf_api.mutex);
    return window;
}

static struct jf_heap *create_growing(const struct jf_options *options) {
    struct jf_window *window = start_window();
    if (window == NULL)
        return NULL;
    struct jf_heap *heap = jf_grow_create(window, options);
    if (heap != NULL)
        apply_options(heap, options);
    return heap;
}

static uint32_t free_slot(void) {
    uint32_t i = 0;
    while (i < jf_api.fixed_count && jf_api.fixed[i].heap != NULL)
        i++;
    return i;
}

static struct jf_heap *create_fixed(void *buffer, size_t size, const struct jf_options *options) {
    uint32_t id = free_slot();
    if (id == JF_FIXED_MAX) {
        jf_os_set_errno(JF_OS_ENOMEM);
        return NULL;
    }
    struct jf_heap *heap = buffer != NULL ? jf_fixed_create(buffer, size, options, id) : NULL;
    if (heap == NULL) {
        jf_os_set_errno(JF_OS_EINVAL);
        return NULL;
    }
    apply_options(heap, options);
    struct jf_fixed_slot *slot = &jf_api.fixed[id];
    __atomic_store_n(&slot->base, heap->space->base, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->table, heap->space->table, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->table_end, heap->space->table_end, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->heap, heap, __ATOMIC_RELEASE);
    if (id == jf_api.fixed_count)
        __atomic_store_n(&jf_api.fixed_count, id + 1, __ATOMIC_RELEASE);
    set_reader_fence(true);
    return heap;
}

static void destroy(struct jf_heap *heap) {
    if (!heap->fixed) {
        if (JF_HAS_GROWING) {
            jf_pool_drop_all(heap);
            jf_grow_destroy(heap);
        }
        return;
    }
    if (heap->is_default && jf_api.fast_owner == JF_FAST_FIXED)
        leave_fast_path();
    struct jf_fixed_slot *slot = &jf_api.fixed[heap->space->id];
    __atomic_store_n(&slot->heap, NULL, __ATOMIC_RELEASE);
    jf_fixed_destroy(heap);
}

struct jf_heap *jf_api_start_default(void) {
    jf_api_start();
    jf_os_mutex_lock(&jf_api.mutex);
    struct jf_heap *heap = jf_api.default_heap;
    if (heap == NULL) {
        struct jf_options options = default_options(false);
        heap = create_growing(&options);
        if (heap != NULL) {
            heap->is_default = true;
            __atomic_store_n(&jf_api.default_heap, heap, __ATOMIC_RELEASE);
        }
    }
    jf_os_mutex_unlock(&jf_api.mutex);
    if (heap == NULL)
        jf_os_set_errno(JF_OS_ENOMEM);
    return heap;
}

int rminit(void *buffer, size_t size) {
    jf_api_start();
    jf_os_mutex_lock(&jf_api.mutex);
    struct jf_heap *heap = NULL;
    if (jf_api.default_heap != NULL) {
        jf_os_set_errno(JF_OS_EBUSY);
    } else {
        struct jf_options options = default_options(true);
        heap = create_fixed(buffer, size, &options);
    }
    if (heap != NULL) {
        heap->is_default = true;
        take_fast_path(JF_FAST_FIXED, heap->space);
        __atomic_store_n(&jf_api.default_heap, heap, __ATOMIC_RELEASE);
    }
    jf_os_mutex_unlock(&jf_api.mutex);
    return heap != NULL ? 0 : -1;
}

void rmdestroy(void) {
    jf_api_start();
    jf_os_mutex_lock(&jf_api.mutex);
    struct jf_heap *heap = jf_api.default_heap;
    __atomic_store_n(&jf_api.default_heap, NULL, __ATOMIC_RELEASE);
    if (heap != NULL)
        destroy(heap);
    jf_os_mutex_unlock(&jf_api.mutex);
}

rmheap_t rmheap_create(const struct rm_options *options) {
    struct jf_options imported;
    if (!import_options(options, false, &imported)) {
        jf_os_set_errno(JF_OS_EINVAL);
        return NULL;
    }
    jf_api_start();
    jf_os_mutex_lock(&jf_api.mutex);
    struct jf_heap *heap = create_growing(&imported);
    jf_os_mutex_unlock(&jf_api.mutex);
    if (heap == NULL)
        jf_os_set_errno(JF_OS_ENOMEM);
    return (rmheap_t)heap;
}

rmheap_t rmheap_create_in(void *buffer, size_t size, const struct rm_options *options) {
    struct jf_options imported;
    if (!import_options(options, true, &imported)) {
        jf_os_set_errno(JF_OS_EINVAL);
        return NULL;
    }
    jf_api_start();
    jf_os_mutex_lock(&jf_api.mutex);
    struct jf_heap *heap = create_fixed(buffer, size, &imported);
    jf_os_mutex_unlock(&jf_api.mutex);
    return (rmheap_t)heap;
}

void rmheap_destroy(rmheap_t opaque) {
    struct jf_heap *heap = (struct jf_heap *)opaque;
    if (heap == NULL)
        return;
    if (heap->is_default) {
        rmdestroy();
        return;
    }
    jf_os_mutex_lock(&jf_api.mutex);
    destroy(heap);
    jf_os_mutex_unlock(&jf_api.mutex);
}

rmheap_t rmheap_default(void) {
    return (rmheap_t)jf_api_heap(NULL);
}

/* ------------------------------------------------------------------------------------- compaction */

rm_compact_status rmheap_compact_us(rmheap_t opaque, uint32_t max_us,
                                    struct rm_compact_result *ret_result) {
    struct jf_heap *heap = jf_api_heap_if_any(opaque);
    struct rm_compact_result result;
    memset(&result, 0, sizeof result);
    if (heap != NULL)
        result.status = jf_compact(heap, &jf_api.readers, jf_api_reader(), max_us, &result);
    if (heap != NULL && heap->fixed) {
        jf_os_mutex_lock(&heap->mutex);
        jf_api_follow_table(heap);
        jf_os_mutex_unlock(&heap->mutex);
    }
    if (ret_result != NULL)
        *ret_result = result;
    jf_api_check_after(heap, "rmcompact");
    return result.status;
}

rm_compact_status rmheap_compact(rmheap_t heap, uint32_t max_ms) {
    uint32_t max_us = max_ms < UINT32_MAX / 1000 ? max_ms * 1000 : UINT32_MAX;
    return rmheap_compact_us(heap, max_us, NULL);
}

rm_compact_status rmcompact(uint32_t max_ms) {
    return rmheap_compact(NULL, max_ms);
}

rm_compact_status rmcompact_us(uint32_t max_us, struct rm_compact_result *ret_result) {
    return rmheap_compact_us(NULL, max_us, ret_result);
}

/* ------------------------------------------------------------------------------------- figures */

static void fill_stats(rmheap_t opaque, bool brief, struct rm_stats *ret_stats) {
    struct jf_heap *heap = jf_api_heap_if_any(opaque);
    memset(ret_stats, 0, sizeof *ret_stats);
    ret_stats->struct_size = offsetof(struct rm_stats, later);
    if (heap != NULL)
        jf_stats(heap, brief, ret_stats);
}

void rmheap_stats(rmheap_t heap, struct rm_stats *ret_stats) {
    fill_stats(heap, false, ret_stats);
}

void rmstats(struct rm_stats *ret_stats) {
    fill_stats(NULL, false, ret_stats);
}

void rmheap_stats_brief(rmheap_t heap, struct rm_stats *ret_stats) {
    fill_stats(heap, true, ret_stats);
}

void rmstats_brief(struct rm_stats *ret_stats) {
    fill_stats(NULL, true, ret_stats);
}

int rmheap_check(rmheap_t opaque, struct rm_fault *ret_fault) {
    struct jf_heap *heap = jf_api_heap_if_any(opaque);
    struct rm_fault fault;
    memset(&fault, 0, sizeof fault);
    int rule = heap != NULL ? jf_check(heap, &fault) : 0;
    if (ret_fault != NULL)
        *ret_fault = fault;
    return rule;
}

int rmcheck(struct rm_fault *ret_fault) {
    return rmheap_check(NULL, ret_fault);
}

int rmheap_visit(rmheap_t opaque, rm_visit_fn *visit, void *context) {
    struct jf_heap *heap = jf_api_heap_if_any(opaque);
    return heap != NULL ? jf_visit(heap, visit, context) : 0;
}

int rmvisit(rm_visit_fn *visit, void *context) {
    return rmheap_visit(NULL, visit, context);
}
