/* Threads of the growing profile: their private state, how others get at it, fork and exit. The only
 * thread-local root of the library's heap part is here.
 */
#include "base/debug.h"
#include "heap/fast.h"
#include "heap/region.h"

JF_THREAD_LOCAL struct jf_thread *jf_thread_root;

struct jf_thread *jf_thread_self(void) {
    return jf_thread_root;
}

void jf_thread_init(struct jf_thread *thread, struct jf_window *window) {
    thread->window = window;
    thread->table = &window->table;
    thread->fence_all = window->fence_all;
    jf_thread_forget_last(thread);
}

/* An idle thread's state if there is one: with its entries and what was freed to it since. */
static struct jf_thread *take_idle(struct jf_window *window) {
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        if (!thread->in_use && thread != window->fallback)
            return thread;
    return NULL;
}

struct jf_thread *jf_thread_get(struct jf_window *window) {
    if (jf_thread_root != NULL)
        return jf_thread_root;
    jf_os_mutex_lock(&window->mutex);
    struct jf_thread *thread = take_idle(window);
    if (thread == NULL) {
        thread = jf_arena_meta_alloc(window->arena, sizeof *thread);
        if (thread != NULL) {
            jf_thread_init(thread, window);
            thread->depot_part = window->thread_count++ % JF_DEPOT_PARTS;
            thread->next = window->threads;
            window->threads = thread;
        }
    }
    if (thread != NULL)
        thread->in_use = true;
    jf_os_mutex_unlock(&window->mutex);
    jf_thread_root = thread;
    if (thread != NULL)
        jf_os_at_thread_exit(jf_thread_exit);
    return thread;
}

/* Room for the ids up to this one. The window's mutex is held. */
static bool reserve_shares(struct jf_thread *thread, uint32_t id) {
    struct jf_arena *arena = thread->window->arena;
    uint32_t count = 1;
    while (count <= id)
        count *= 2;
    if (count <= thread->share_count)
        return true;
    struct jf_share **shares = jf_arena_meta_alloc(arena, count * sizeof *shares);
    if (shares == NULL)
        return false;
    for (uint32_t i = 0; i < thread->share_count; i++)
        shares[i] = thread->shares[i];
    if (thread->shares != NULL)
        jf_arena_meta_free(arena, thread->shares, thread->share_count * sizeof *shares);
    thread->shares = shares;
    thread->share_count = count;
    return true;
}

static struct jf_share *create_share(const struct jf_thread *thread) {
    struct jf_share *share = jf_arena_meta_alloc(thread->window->arena, sizeof *share);
    if (share == NULL)
        return NULL;
    share->bins.depot_part = thread->depot_part;
    for (unsigned i = 0; i < JF_LOCALS; i++) {
        share->local[i].kind = i;
        share->local[i].holes = i != JF_LOCAL_SMALL ? &share->holes[i - 1] : NULL;
    }
    return share;
}

bool jf_thread_add_share(struct jf_thread *thread, const struct jf_heap *heap) {
    struct jf_window *window = thread->window;
    uint32_t id = heap->u.grow.id;
    jf_os_mutex_lock(&window->mutex);
    bool done = reserve_shares(thread, id);
    if (done && thread->shares[id] == NULL)
        thread->shares[id] = create_share(thread);
    done = done && thread->shares[id] != NULL;
    jf_os_mutex_unlock(&window->mutex);
    return done;
}

void jf_thread_enter_slow(struct jf_thread *thread) {
    do {
        jf_thread_leave(thread);
        jf_os_mutex_lock(&thread->window->mutex);
        jf_os_mutex_unlock(&thread->window->mutex);
        __atomic_store_n(&thread->inside, 1, __ATOMIC_SEQ_CST);
        jf_fence();
    } while (__atomic_load_n(&thread->closed, __ATOMIC_ACQUIRE) != 0);
}

struct jf_thread *jf_thread_begin_change(struct jf_window *window) {
    struct jf_thread *thread = jf_thread_get(window);
    while (thread != NULL) {
        __atomic_store_n(&thread->changing, 1, __ATOMIC_RELAXED);
        if (!window->fence_all)
            jf_fence();
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        if (__atomic_load_n(&window->forking, __ATOMIC_ACQUIRE) == 0)
            break;
        jf_thread_end_change(thread);
        jf_os_mutex_lock(&window->mutex);
        jf_os_mutex_unlock(&window->mutex);
    }
    return thread;
}

void jf_thread_end_change(struct jf_thread *thread) {
    if (thread != NULL)
        __atomic_store_n(&thread->changing, 0, __ATOMIC_RELEASE);
}

void jf_thread_allow_fast(struct jf_thread *thread, const struct jf_heap *heap) {
    struct jf_share *share = jf_thread_share(thread, heap);
    if (share != NULL)
        share->heap = heap;
    __atomic_store_n(&thread->fast_share, share, __ATOMIC_RELAXED);
}

static void leave_sole(struct jf_thread *thread) {
    __atomic_store_n(&thread->keep, 0, __ATOMIC_RELAXED);
}

void jf_thread_forbid_fast(struct jf_thread *thread) {
    __atomic_store_n(&thread->fast_share, NULL, __ATOMIC_RELAXED);
    leave_sole(thread);
}

void jf_window_forbid_fast(struct jf_window *window) {
    jf_os_mutex_lock(&window->mutex);
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        jf_thread_forbid_fast(thread);
    jf_os_mutex_unlock(&window->mutex);
}

void jf_window_leave_sole(struct jf_window *window) {
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        leave_sole(thread);
}

size_t jf_thread_retire_local(struct jf_local *local) {
    struct jf_region *region = local->region;
    size_t given = 0;
    if (region == NULL)
        return 0;
    uintptr_t claimed_from = local->bump + JF_HEADER_SIZE;
    uintptr_t claimed_to = local->limit;
    jf_local_close(local);
    if (claimed_from < claimed_to)
        given = jf_region_give_back(region, claimed_from, claimed_to);
    jf_local_leave_region(local);
    jf_region_set_state(region, JF_REGION_LISTED);
    return given;
}

void jf_thread_retire(struct jf_thread *thread, struct jf_heap *heap) {
    for (uint32_t id = 0; id < thread->share_count; id++) {
        struct jf_share *share = thread->shares[id];
        if (share == NULL || (heap != NULL && id != heap->u.grow.id))
            continue;
        for (unsigned i = 0; i < JF_LOCALS; i++)
            jf_thread_retire_local(&share->local[i]);
    }
}

void jf_thread_close_others(struct jf_window *window) {
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        if (thread != jf_thread_root)
            __atomic_store_n(&thread->closed, 1, __ATOMIC_RELAXED);
    jf_fence();
    if (window->fence_all)
        jf_os_fence_all();
}

void jf_thread_open_others(struct jf_window *window) {
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        __atomic_store_n(&thread->closed, 0, __ATOMIC_RELEASE);
}

void jf_thread_exit(void) {
    struct jf_thread *thread = jf_thread_root;
    if (thread == NULL)
        return;
    jf_thread_enter(thread);
    jf_thread_drain(thread);
    jf_thread_leave(thread);
    struct jf_window *window = thread->window;
    jf_os_mutex_lock(&window->mutex);
    jf_thread_retire(thread, NULL);
    jf_window_relist_locked(window);
    for (uint32_t i = 0; i < window->heap_count; i++)
        if (window->heaps[i] != NULL)
            jf_depot_open_part(window->heaps[i], thread->depot_part);
    thread->in_use = false;
    jf_os_mutex_unlock(&window->mutex);
    jf_thread_root = NULL;
}

static bool any_changing(const struct jf_window *window) {
    for (const struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        if (__atomic_load_n(&thread->changing, __ATOMIC_ACQUIRE) != 0)
            return true;
    return false;
}

void jf_thread_fork_prepare(struct jf_window *window) {
    __atomic_store_n(&window->forking, 1, __ATOMIC_RELAXED);
    jf_fence();
    if (window->fence_all)
        jf_os_fence_all();
    jf_os_mutex_lock(&window->mutex);
    while (any_changing(window)) {
        /* they may need the mutex to come to an end */
        jf_os_mutex_unlock(&window->mutex);
        jf_os_yield();
        jf_os_mutex_lock(&window->mutex);
    }
    jf_thread_close_others(window);
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        while (thread != jf_thread_root && !jf_thread_outside(thread))
            jf_os_yield();
}

void jf_thread_fork_parent(struct jf_window *window) {
    __atomic_store_n(&window->forking, 0, __ATOMIC_RELEASE);
    jf_thread_open_others(window);
    jf_os_mutex_unlock(&window->mutex);
}

void jf_thread_fork_child(struct jf_window *window) {
    jf_os_mutex_init(&window->mutex);
    window->forking = 0;
    jf_thread_open_others(window);
    /* the other threads are gone; what they had is there for the threads that the child begins */
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next) {
        if (thread == jf_thread_root || !thread->in_use)
            continue;
        thread->in_use = false;
        /* it may have stood just before the look that would have sent it back */
        thread->inside = thread->changing = 0;
        jf_thread_drain(thread);
        jf_thread_retire(thread, NULL);
    }
    jf_window_relist_locked(window);
}
