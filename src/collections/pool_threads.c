/* Pools: what threads have at hand of them. */
#include "collections/pool.h"

#include "heap/fast.h"

#include <string.h>

/* Room for the pool's cache in the thread's table. The window's mutex is held. */
static bool make_table_room(struct jf_thread *thread, uint32_t id) {
    struct jf_arena *arena = thread->window->arena;
    uint32_t count = thread->pool_cache_count != 0 ? thread->pool_cache_count : 8;
    while (count <= id)
        count *= 2;
    if (count == thread->pool_cache_count)
        return true;
    struct jf_pool_cache **table = jf_arena_meta_alloc(arena, count * sizeof *table);
    if (table == NULL)
        return false;
    if (thread->pool_caches != NULL) {
        size_t size = thread->pool_cache_count * sizeof *table;
        memcpy(table, thread->pool_caches, size);
        jf_arena_meta_free(arena, thread->pool_caches, size);
    }
    thread->pool_caches = table;
    thread->pool_cache_count = count;
    return true;
}

/* A block that no address lies in. */
static struct jf_pool_block no_block = {.region = {.start = UINTPTR_MAX}};

void jf_pool_cache_init(const struct jf_pool *pool, struct jf_pool_cache *cache) {
    cache->top = cache->slots;
    cache->most = cache->slots + pool->cache_most;
    for (unsigned i = 0; i < JF_POOL_RECENT; i++)
        cache->recent[i] = &no_block;
}

struct jf_pool_cache *jf_pool_cache_get(struct jf_pool *pool, struct jf_thread **ret_thread) {
    struct jf_window *window = pool->window;
    struct jf_thread *thread = jf_thread_get(window);
    struct jf_pool_cache *cache = NULL;
    *ret_thread = thread;
    if (thread == NULL)
        return NULL;
    jf_os_mutex_lock(&window->mutex);
    if (make_table_room(thread, pool->id)) {
        cache = thread->pool_caches[pool->id];
        if (cache == NULL) {
            cache = jf_arena_meta_alloc(window->arena, sizeof *cache);
            if (cache != NULL)
                jf_pool_cache_init(pool, cache);
        }
        thread->pool_caches[pool->id] = cache;
    }
    jf_os_mutex_unlock(&window->mutex);
    return cache;
}

static struct jf_pool_cache *cache_of(const struct jf_thread *thread, const struct jf_pool *pool) {
    return pool->id < thread->pool_cache_count ? thread->pool_caches[pool->id] : NULL;
}

void jf_pool_recall(struct jf_pool *pool, bool all) {
    struct jf_window *window = pool->window;
    struct jf_thread *self = jf_thread_self();
    jf_thread_close_others(window);
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next) {
        while (all && thread != self && !jf_thread_outside(thread))
            jf_os_yield();
        if (thread != self && !jf_thread_outside(thread))
            continue;
        if (pool->handles)
            jf_thread_drain(thread);
        struct jf_pool_cache *cache = cache_of(thread, pool);
        /* in a stable pool others may be using theirs */
        if (cache != NULL && (pool->handles || all || thread == self))
            jf_pool_flush(pool, cache, jf_pool_at_hand(cache));
    }
    jf_thread_open_others(window);
    jf_pool_collect(pool);
}

void jf_pool_drop_caches(struct jf_pool *pool) {
    struct jf_window *window = pool->window;
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next) {
        struct jf_pool_cache *cache = cache_of(thread, pool);
        if (cache == NULL)
            continue;
        thread->pool_caches[pool->id] = NULL;
        jf_arena_meta_free(window->arena, cache, sizeof *cache);
    }
}
