/* Holding a heap still for a walk: its mutexes, and the other threads kept outside. */
#include "check/hold.h"

enum { PATIENCE = 64 }; /* times that threads inside are let go on before they are left out */

bool jf_hold_has_thread(const struct jf_hold *hold, const struct jf_thread *thread) {
    return thread == hold->own || jf_thread_outside(thread);
}

static bool all_outside(const struct jf_hold *hold) {
    for (const struct jf_thread *thread = hold->window->threads; thread != NULL;
         thread = thread->next) {
        bool changing = __atomic_load_n(&thread->changing, __ATOMIC_ACQUIRE) != 0;
        if (!jf_hold_has_thread(hold, thread) || (changing && thread != hold->own))
            return false;
    }
    return true;
}

/* Nobody enters, and nobody begins a change outside, such as a resize. The heap's `compacting` keeps a
 * fork away, which does the same. */
static void close_window(struct jf_window *window) {
    __atomic_store_n(&window->forking, 1, __ATOMIC_RELAXED);
    jf_thread_close_others(window);
}

static void open_window(struct jf_window *window) {
    __atomic_store_n(&window->forking, 0, __ATOMIC_RELEASE);
    jf_thread_open_others(window);
}

static void hold_window(struct jf_hold *hold) {
    struct jf_window *window = hold->window;
    for (unsigned tries = 0;; tries++) {
        jf_os_mutex_lock(&window->mutex);
        close_window(window);
        hold->whole = all_outside(hold);
        if (hold->whole || tries == PATIENCE)
            return;
        open_window(window);
        jf_os_mutex_unlock(&window->mutex);
        jf_os_yield();
    }
}

void jf_hold_begin(struct jf_hold *ret_hold, struct jf_heap *heap) {
    *ret_hold = (struct jf_hold){.heap = heap, .whole = true};
    if (!JF_HAS_GROWING || heap->fixed) {
        jf_os_mutex_lock(&heap->mutex);
        return;
    }
    ret_hold->window = heap->u.grow.window;
    ret_hold->own = jf_thread_get(ret_hold->window);
    jf_os_mutex_lock(&heap->compacting);
    hold_window(ret_hold);
}

void jf_hold_end(struct jf_hold *hold) {
    if (!JF_HAS_GROWING || hold->heap->fixed) {
        jf_os_mutex_unlock(&hold->heap->mutex);
        return;
    }
    open_window(hold->window);
    jf_os_mutex_unlock(&hold->window->mutex);
    jf_os_mutex_unlock(&hold->heap->compacting);
}
