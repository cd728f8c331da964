/* What the ported programs use of Jeff. Built as they are meant to be, this is Jeff itself; with
 * STEVE_MARKS, handles are plain blocks of malloc, and each lock and unlock is a mark that Steve's
 * recorder sees: so a trace has the accesses and the locks that a hand placed. */
#ifndef STEVE_SUBJECT_HANDLES_H
#define STEVE_SUBJECT_HANDLES_H

#include <stdlib.h>

#if defined(STEVE_MARKS)

#include "../../steve-valgrind/hand_locks.h"

typedef void *rmhandle_t;

static inline rmhandle_t rmmalloc(size_t size) {
    return malloc(size);
}

static inline rmhandle_t rmcalloc(size_t count, size_t size) {
    return calloc(count, size);
}

static inline void rmfree(rmhandle_t handle) {
    free(handle);
}

static inline void *rmlock(rmhandle_t handle) {
    STEVE_HAND_LOCK(handle);
    return handle;
}

static inline void rmunlock(rmhandle_t handle) {
    STEVE_HAND_UNLOCK(handle);
}

#else

#include <jeff/jeff.h>

#endif

#endif
