/* Holding a heap still for a walk. */
#ifndef JEFF_CHECK_HOLD_H
#define JEFF_CHECK_HOLD_H

#include "heap/heap.h"

struct jf_hold {
    struct jf_heap *heap;
    struct jf_window *window; /* growing heaps */
    struct jf_thread *own;    /* the calling thread's; NULL: it has none */
    bool whole; /* nobody is inside or half way through a change: everything may be counted */
};

/* Takes the heap's mutexes and keeps other threads of a growing heap outside. Waits a moment for those
 * that are inside; one that stays there (it may wait for this very mutex) is left alone. */
void jf_hold_begin(struct jf_hold *ret_hold, struct jf_heap *heap);
void jf_hold_end(struct jf_hold *hold);

/* Whether what the thread has in hand may be looked at. */
bool jf_hold_has_thread(const struct jf_hold *hold, const struct jf_thread *thread);

#endif
