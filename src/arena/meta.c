/* Small bookkeeping objects: taken one after the other from the end of the bookkeeping reservation, and
 * reused from a list per size. Their memory stays memory of that kind until the arena is destroyed, so a
 * thread that still looks at a freed object reads no foreign data.
 */
#include "arena/internal.h"

#include <string.h>

#define STEP ((size_t)1 << JF_META_STEP_SHIFT)

/* The size's class, counted in steps; 0 when no object can have that size. */
static size_t class_of(size_t size) {
    if (size > (size_t)1 << JF_META_MAX_SHIFT) {
        return 0;
    }
    return size <= STEP ? 1 : (size + STEP - 1) >> JF_META_STEP_SHIFT;
}

/* A piece never used before, which reads as zero; the mutex is held. */
static void *take_fresh(struct jf_arena *arena, size_t size) {
    if (size > arena->meta_end - arena->meta_next) {
        return NULL;
    }
    uintptr_t end = arena->meta_next + size;
    if (end > arena->meta_open) {
        uintptr_t open = jf_bits_round_up(end, (uintptr_t)1 << JF_BOOK_STEP_SHIFT);
        if (!jf_arena_request(arena, arena->meta_open, open - arena->meta_open)) {
            return NULL;
        }
        arena->meta_open = open;
    }
    void *object = (void *)arena->meta_next;
    arena->meta_next = end;
    return object;
}

void *jf_arena_meta_alloc(struct jf_arena *arena, size_t size) {
    size_t class = class_of(size);
    if (class == 0 || jf_arena_is_refused(&arena->refuse_calls)) {
        return NULL;
    }
    jf_os_mutex_lock(&arena->mutex);
    struct jf_meta_object *object = arena->meta_free[class];
    if (object == NULL) {
        void *fresh = take_fresh(arena, class << JF_META_STEP_SHIFT);
        jf_os_mutex_unlock(&arena->mutex);
        return fresh;
    }
    arena->meta_free[class] = object->next;
    jf_os_mutex_unlock(&arena->mutex);
    memset(object, 0, class << JF_META_STEP_SHIFT);
    return object;
}

void jf_arena_meta_free(struct jf_arena *arena, void *object, size_t size) {
    struct jf_meta_object *freed = object;
    if (freed == NULL) {
        return;
    }
    jf_os_mutex_lock(&arena->mutex);
    freed->next = arena->meta_free[class_of(size)];
    arena->meta_free[class_of(size)] = freed;
    jf_os_mutex_unlock(&arena->mutex);
}
