/* The original spelling of Jeff's calls, for programs that want it: handle_t, lock, unlock, weaklock,
 * compact. The library itself exports none of these names; they exist only where this is included.
 */
#ifndef JEFF_SHORT_NAMES_H
#define JEFF_SHORT_NAMES_H

#include <jeff/jeff.h>

typedef rmhandle_t handle_t;

/* rmlock */
static inline void *lock(handle_t handle) {
    return rmlock(handle);
}

/* rmunlock */
static inline void unlock(handle_t handle) {
    rmunlock(handle);
}

/* rmweaklock */
static inline void *weaklock(handle_t handle) {
    return rmweaklock(handle);
}

/* rmcompact: at most max_ms milliseconds, 0 = until there is nothing left to gain */
static inline rm_compact_status compact(uint32_t max_ms) {
    return rmcompact(max_ms);
}

#endif
