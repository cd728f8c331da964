/* Large blocks of the growing profile: each has a chunk of its own and is never moved by the compactor,
 * since its pages serve nobody else. The descriptor lies apart, so the pages are all payload.
 */
#include "heap/region.h"

enum {
    TRIM_KEEP = 2 * 1024 * 1024, /* shrinking by less than this keeps the chunk's order */
    MOVE_MIN = 512 * 1024,       /* from here up pages change places instead of being copied, */
    MOVES_MAX = 8192, /* so often: each may split a mapping, of which there may be 65530 */
};

static bool chunk_order(size_t size, unsigned align_log2, unsigned *ret_order) {
    size_t bytes;
    if (!jf_bits_add(size, JF_PAGE_SIZE - 1, &bytes) || bytes > (size_t)1 << 46)
        return false;
    unsigned log2 = jf_bits_log2_up(bytes);
    if (log2 < align_log2)
        log2 = align_log2;
    *ret_order = log2 <= JF_UNIT_SHIFT ? 0 : log2 - JF_UNIT_SHIFT;
    return *ret_order < JF_ARENA_ORDERS;
}

static size_t chunk_size(unsigned order) {
    return JF_UNIT_SIZE << order;
}

static size_t whole_pages(size_t size) {
    return size == 0 ? JF_PAGE_SIZE : jf_bits_round_up(size, JF_PAGE_SIZE);
}

static void link_large(struct jf_large *large) {
    struct jf_grow *grow = &large->heap->u.grow;
    jf_os_mutex_lock(&grow->window->mutex);
    large->next = grow->large;
    if (grow->large != NULL)
        grow->large->previous = large;
    grow->large = large;
    grow->large_count++;
    grow->large_bytes += large->committed;
    jf_os_mutex_unlock(&grow->window->mutex);
}

/* The chunk, with more room than it needs if that can be had. */
static bool take_chunk(struct jf_arena *arena, struct jf_large *large, size_t room,
                       bool *ret_zero) {
    unsigned order;
    if (room > large->size && chunk_order(room, large->align_log2, &order)) {
        large->address = jf_arena_alloc(arena, order, JF_CHUNK_LARGE, large, ret_zero);
        if (large->address != 0) {
            large->order = large->order_least = order;
            return true;
        }
    }
    large->address = jf_arena_alloc(arena, large->order, JF_CHUNK_LARGE, large, ret_zero);
    return large->address != 0;
}

struct jf_large *jf_large_create(struct jf_heap *heap, size_t size, size_t room,
                                 unsigned align_log2, size_t over, bool *ret_zero) {
    struct jf_window *window = heap->u.grow.window;
    unsigned order;
    if (!chunk_order(size, align_log2, &order))
        return NULL;
    size_t committed = whole_pages(size);
    if (!jf_heap_commit(heap, committed, over))
        return NULL;
    struct jf_large *large = jf_arena_meta_alloc(window->arena, sizeof *large);
    if (large == NULL)
        goto fail;
    large->heap = heap;
    large->size = size;
    large->committed = committed;
    large->align_log2 = align_log2;
    large->order = order;
    if (!take_chunk(window->arena, large, room, ret_zero))
        goto fail;
    jf_mark_close(large->address, chunk_size(large->order));
    link_large(large);
    return large;
fail:
    if (large != NULL)
        jf_arena_meta_free(window->arena, large, sizeof *large);
    jf_heap_uncommit(heap, committed);
    return NULL;
}

void jf_large_destroy(struct jf_window *window, struct jf_large *large) {
    struct jf_grow *grow = &large->heap->u.grow;
    jf_os_mutex_lock(&window->mutex);
    if (large->previous != NULL)
        large->previous->next = large->next;
    else
        grow->large = large->next;
    if (large->next != NULL)
        large->next->previous = large->previous;
    grow->large_count--;
    grow->large_bytes -= large->committed;
    jf_os_mutex_unlock(&window->mutex);
    jf_heap_uncommit(large->heap, large->committed);
    jf_arena_free(window->arena, large->address, large->committed);
    jf_arena_meta_free(window->arena, large, sizeof *large);
}

static void count_change(struct jf_large *large, size_t committed) {
    struct jf_grow *grow = &large->heap->u.grow;
    jf_os_mutex_lock(&grow->window->mutex);
    grow->large_bytes += committed - large->committed;
    large->committed = committed;
    jf_os_mutex_unlock(&grow->window->mutex);
}

bool jf_large_move(struct jf_large *from, struct jf_large *to) {
    struct jf_arena *arena = from->heap->u.grow.window->arena;
    if (from->size > to->size || !jf_arena_move(arena, from->address, to->address, from->size))
        return false;
    jf_heap_uncommit(from->heap, from->committed);
    count_change(from, 0);
    return true;
}

bool jf_large_resize(struct jf_window *window, struct jf_large *large, size_t size) {
    unsigned order;
    if (!chunk_order(size, large->align_log2, &order))
        return false;
    size_t committed = whole_pages(size);
    if (committed > large->committed) {
        if (!jf_heap_commit(large->heap, committed - large->committed, 0))
            return false;
        if (order > large->order && !jf_arena_extend(window->arena, large->address, order)) {
            jf_heap_uncommit(large->heap, committed - large->committed);
            return false;
        }
        if (order > large->order) {
            size_t old = chunk_size(large->order);
            jf_mark_close(large->address + old, chunk_size(order) - old);
            large->order = order;
        }
    } else if (committed < large->committed) {
        size_t saved = large->committed - committed;
        if (order < large->order_least)
            order = large->order_least;
        if (order < large->order && saved >= TRIM_KEEP) {
            size_t chunk = chunk_size(order);
            jf_arena_shrink(window->arena, large->address, order, large->committed);
            large->order = order;
            if (chunk > committed)
                jf_os_give_back(large->address + committed,
                                (chunk < large->committed ? chunk : large->committed) - committed);
        } else {
            jf_os_give_back(large->address + committed, saved);
        }
        jf_heap_uncommit(large->heap, saved);
    }
    large->size = size;
    if (committed != large->committed)
        count_change(large, committed);
    return true;
}
