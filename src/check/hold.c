/* Holding a heap still for a walk: its mutexes, and the other threads kept outside. */
#include "check/hold.h"

#include "heap/region.h"

enum { PATIENCE = 64 }; /* times that threads inside are let go on before they are left out */

bool jf_hold_has_thread(const struct jf_hold *hold, const struct jf_thread *thread) {
    return thread == hold->own || jf_thread_outside(thread);
}

static bool all_outside(const struct jf_hold *hold) {
    for (const struct jf_thread *thread = hold->window->threads; thread != NULL;
         thread = thread->next)
        if (!jf_hold_has_thread(hold, thread))
            return false;
    return true;
}

/* What is left of the hole a thread bumps into has no header until somebody wants to walk over it. */
static void close_chains(const struct jf_hold *hold) {
    struct jf_grow *grow = &hold->heap->u.grow;
    for (struct jf_thread *thread = hold->window->threads; thread != NULL; thread = thread->next) {
        if (!jf_hold_has_thread(hold, thread))
            continue;
        for (uint32_t i = 2 * grow->id; i < 2 * grow->id + 2 && i < 2 * thread->local_count; i++)
            jf_local_make_walkable(&thread->locals[i]);
    }
    jf_local_make_walkable(&grow->long_local);
}

static void hold_window(struct jf_hold *hold) {
    struct jf_window *window = hold->window;
    for (unsigned tries = 0;; tries++) {
        jf_os_mutex_lock(&window->mutex);
        jf_thread_close_others(window);
        hold->whole = all_outside(hold);
        if (hold->whole || tries == PATIENCE)
            return;
        jf_thread_open_others(window);
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
    close_chains(ret_hold);
}

void jf_hold_end(struct jf_hold *hold) {
    if (!JF_HAS_GROWING || hold->heap->fixed) {
        jf_os_mutex_unlock(&hold->heap->mutex);
        return;
    }
    jf_thread_open_others(hold->window);
    jf_os_mutex_unlock(&hold->window->mutex);
    jf_os_mutex_unlock(&hold->heap->compacting);
}
