/* Threads of the growing profile: their private state, how others get at it, fork and exit. The only
 * thread-local root of the library's heap part is here.
 */
#include "heap/region.h"

static JF_THREAD_LOCAL struct jf_thread *root;

struct jf_thread *jf_thread_self(void) {
    return root;
}

/* An idle thread's state if there is one: with its entries and what was freed to it since. */
static struct jf_thread *take_idle(struct jf_window *window) {
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        if (!thread->in_use && thread != window->fallback)
            return thread;
    return NULL;
}

struct jf_thread *jf_thread_get(struct jf_window *window) {
    if (root != NULL)
        return root;
    jf_os_mutex_lock(&window->mutex);
    struct jf_thread *thread = take_idle(window);
    if (thread == NULL) {
        thread = jf_arena_meta_alloc(window->arena, sizeof *thread);
        if (thread != NULL) {
            thread->window = window;
            thread->next = window->threads;
            window->threads = thread;
        }
    }
    if (thread != NULL)
        thread->in_use = true;
    jf_os_mutex_unlock(&window->mutex);
    root = thread;
    if (thread != NULL)
        jf_os_at_thread_exit(jf_thread_exit);
    return thread;
}

bool jf_thread_add_local(struct jf_thread *thread, const struct jf_heap *heap) {
    struct jf_window *window = thread->window;
    uint32_t id = heap->u.grow.id;
    uint32_t count = 1;
    while (count <= id)
        count *= 2;
    jf_os_mutex_lock(&window->mutex);
    struct jf_local *locals = thread->locals;
    size_t old_size = 2 * (size_t)thread->local_count * sizeof *locals;
    if (count > thread->local_count) {
        locals = jf_arena_meta_alloc(window->arena, 2 * (size_t)count * sizeof *locals);
        if (locals != NULL) {
            for (uint32_t i = 0; i < 2 * thread->local_count; i++)
                locals[i] = thread->locals[i];
            if (thread->locals != NULL)
                jf_arena_meta_free(window->arena, thread->locals, old_size);
            thread->locals = locals;
            thread->local_count = count;
        }
    }
    jf_os_mutex_unlock(&window->mutex);
    return locals != NULL;
}

void jf_thread_enter_slow(struct jf_thread *thread) {
    do {
        jf_thread_leave(thread);
        jf_os_mutex_lock(&thread->window->mutex);
        jf_os_mutex_unlock(&thread->window->mutex);
        __atomic_store_n(&thread->inside, 1, __ATOMIC_SEQ_CST);
        jf_fence();
    } while (__atomic_load_n(&thread->closed, __ATOMIC_RELAXED) != 0);
}

static void prefetch_ring(const struct jf_thread *thread) {
    const struct jf_space *space = &thread->window->space;
    for (uint32_t i = 0; i < thread->ring_count; i++) {
        jf_word word = jf_word_load(jf_space_entry(space, thread->ring[i]));
        __builtin_prefetch((const void *)(jf_space_address(space, word) - JF_HEADER_SIZE), 1);
    }
}

static void drain_one(struct jf_thread *thread, uint32_t index) {
    struct jf_window *window = thread->window;
    jf_word word = jf_word_load(jf_space_entry(&window->space, index));
    uintptr_t payload = jf_space_address(&window->space, word);
    struct jf_region *region = jf_arena_owner(window->arena, payload);
    bool retire = region->heap->options.retire;
    jf_grow_account_block(thread, payload);
    jf_table_push(&window->table, &thread->entries, index, retire);
}

void jf_thread_drain(struct jf_thread *thread) {
    const struct jf_space *space = &thread->window->space;
    uint32_t count = thread->ring_count;
    if (count == 0)
        return;
    prefetch_ring(thread);
    /* highest address first: blocks that end where the thread bumps go back to its hole one by one */
    jf_word first = jf_word_load(jf_space_entry(space, thread->ring[0]));
    jf_word last = jf_word_load(jf_space_entry(space, thread->ring[count - 1]));
    if (jf_entry_offset(last) >= jf_entry_offset(first)) {
        for (uint32_t i = count; i > 0; i--)
            drain_one(thread, thread->ring[i - 1]);
    } else {
        for (uint32_t i = 0; i < count; i++)
            drain_one(thread, thread->ring[i]);
    }
    thread->ring_count = 0;
}

void jf_thread_retire_local(struct jf_local *local) {
    struct jf_region *region = local->region;
    if (region == NULL)
        return;
    uintptr_t claimed_from = local->bump + JF_HEADER_SIZE;
    uintptr_t claimed_to = local->limit;
    jf_local_close(local);
    if (claimed_from < claimed_to)
        jf_region_give_back(region, claimed_from, claimed_to);
    local->region = NULL;
    local->sweep = 0;
    jf_region_set_state(region, JF_REGION_LISTED);
}

void jf_thread_retire(struct jf_thread *thread, struct jf_heap *heap) {
    for (uint32_t i = 0; i < 2 * thread->local_count; i++)
        if (heap == NULL || i / 2 == heap->u.grow.id)
            jf_thread_retire_local(&thread->locals[i]);
}

void jf_thread_close_others(struct jf_window *window) {
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        if (thread != root)
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
    struct jf_thread *thread = root;
    if (thread == NULL)
        return;
    jf_thread_enter(thread);
    jf_thread_drain(thread);
    jf_thread_leave(thread);
    struct jf_window *window = thread->window;
    jf_os_mutex_lock(&window->mutex);
    jf_thread_retire(thread, NULL);
    jf_window_relist_locked(window);
    thread->in_use = false;
    jf_os_mutex_unlock(&window->mutex);
    root = NULL;
}

void jf_thread_fork_prepare(struct jf_window *window) {
    jf_os_mutex_lock(&window->mutex);
    jf_thread_close_others(window);
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        while (thread != root && !jf_thread_outside(thread))
            jf_os_yield();
}

void jf_thread_fork_parent(struct jf_window *window) {
    jf_thread_open_others(window);
    jf_os_mutex_unlock(&window->mutex);
}

void jf_thread_fork_child(struct jf_window *window) {
    jf_os_mutex_init(&window->mutex);
    jf_thread_open_others(window);
    /* the other threads are gone; what they had is there for the threads that the child begins */
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next) {
        if (thread == root || !thread->in_use)
            continue;
        thread->in_use = false;
        jf_thread_drain(thread);
        jf_thread_retire(thread, NULL);
    }
    jf_window_relist_locked(window);
}
