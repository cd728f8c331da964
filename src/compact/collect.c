/* What a compaction of a growing heap begins with: accounting for what was freed and waits, in the depot and
 * with the threads, and taking sparse regions from them.
 */
#include "compact/compact.h"
#include "compact/compactor.h"

/* A depot with less than this share of the heap, as a shift, is left to busy threads. */
enum { DEPOT_SHIFT = 6 };

/* Lists a thread's region of this heap if it would be chosen; else the thread goes on with it. Returns bytes
 * given back. */
static size_t retire_sparse(struct jf_thread *thread, struct jf_heap *heap) {
    size_t given = 0;
    for (unsigned i = 0; i < JF_LOCALS; i++) {
        struct jf_local *local = jf_thread_local(thread, heap, i);
        if (local == NULL || local->region == NULL)
            continue;
        size_t claimed = local->limit - local->bump;
        size_t committed = jf_region_committed(local->region);
        size_t live = jf_region_live_bytes(local->region) - claimed;
        size_t used = committed > claimed ? committed - claimed : 0;
        if (used > live + 2 * JF_PAGE_SIZE && (used - live) * 32 >= used)
            given += jf_thread_retire_local(local);
    }
    return given;
}

/* Whether the thread has neither freed much nor wanted a region since the last compaction. */
static bool is_idle(const struct jf_thread *thread) {
    return jf_thread_activity(thread) == __atomic_load_n(&thread->activity_seen, __ATOMIC_RELAXED);
}

/* What the calling thread has freed. What a busy one has in its bins it uses again, so in a budgeted call that
 * is left to it if it is little. False when something is left. */
static bool collect_self(struct jf_thread *self, bool full) {
    bool all = true;
    if (self == NULL)
        return true;
    jf_thread_enter(self);
    if (full || is_idle(self))
        jf_thread_drain(self);
    else
        all = jf_thread_drain_much(self);
    jf_thread_leave(self);
    return all;
}

/* Accounts for what threads have freed. Of other threads only those that are outside, and in a budgeted
 * call only those that have been idle since the last one; the others are asked to see to it themselves. False
 * when something of the calling thread's is left. */
static bool collect_threads(struct jf_compaction *compaction, bool full) {
    struct jf_heap *heap = compaction->heap;
    struct jf_window *window = heap->u.grow.window;
    struct jf_thread *self = jf_thread_get(window);
    bool all = collect_self(self, full);
    bool others = false;
    jf_os_mutex_lock(&window->mutex);
    window->keep_empty = true;
    if (self != NULL)
        compaction->result.bytes_released += retire_sparse(self, heap);
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        others |= thread != self && thread->share_count != 0 && (full || is_idle(thread));
    if (others)
        jf_thread_close_others(window);
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next) {
        if (others && thread != self && (full || is_idle(thread)) && jf_thread_outside(thread)) {
            jf_thread_drain(thread);
            compaction->result.bytes_released += retire_sparse(thread, heap);
        } else {
            __atomic_store_n(&thread->drain_wanted, 1, __ATOMIC_RELAXED);
        }
        __atomic_store_n(&thread->activity_seen, jf_thread_activity(thread), __ATOMIC_RELAXED);
    }
    if (others)
        jf_thread_open_others(window);
    if (self != NULL)
        jf_table_trim(&window->table, &self->entries, full ? SIZE_MAX : 1);
    jf_window_relist_locked(window);
    window->keep_empty = false;
    jf_os_mutex_unlock(&window->mutex);
    return all;
}

/* Accounts for the freed blocks in the heap's depot; false when the budget ends first. */
static bool clear_depot(struct jf_compaction *compaction) {
    struct jf_heap *heap = compaction->heap;
    struct jf_thread *self = jf_thread_get(heap->u.grow.window);
    for (bool more = self != NULL; more;) {
        if (jf_budget_left(&compaction->budget) < JF_BATCH_NS_MIN)
            return false;
        jf_thread_enter(self);
        more = jf_thread_drain_depot(self, heap);
        jf_thread_leave(self);
    }
    return true;
}

bool jf_collect(struct jf_compaction *compaction, bool *ret_left) {
    struct jf_heap *heap = compaction->heap;
    const struct jf_thread *self = jf_thread_get(heap->u.grow.window);
    bool full = compaction->budget.total_ns == 0;
    bool busy = self != NULL && !is_idle(self);
    bool left = !full && jf_depot_is_left_to_threads(heap, DEPOT_SHIFT);
    if (!left && !clear_depot(compaction))
        return false;
    /* what others put into the depot meanwhile is as what they keep to themselves: a caller that tries again
     * until nothing is left must come to an end */
    *ret_left = !collect_threads(compaction, full) || (left && busy);
    return true;
}
