/* What memory debuggers are told. In a build with -DJF_ANNOTATE_ASAN or -DJF_ANNOTATE_VALGRIND all
 * memory of a heap is out of bounds but the payloads of locked blocks, so that a pointer kept after
 * unlock is reported where it is used. In all other builds everything here is a plain access or nothing.
 *
 *   closed   regions, large blocks, holes, headers, unlocked blocks, and chunks that were freed: nobody
 *            may touch them; the library itself reads and writes them through jf_mark_load .. jf_mark_fill
 *            below, which the debugger does not watch and which change no mark
 *   open     chunks of other owners, and exactly the asked-for bytes of a locked block
 *   weak     what rmweaklock gave out may be read after the block has moved, so its pages stay open
 *            from then on: fewer mistakes are found there, none is invented
 *
 * An annotated library counts every lock itself: it shows programs a table without entries, so that
 * their inlined calls take the slow path. The first lock and the last unlock of a block happen between
 * jf_mark_enter and jf_mark_leave together with their marks; else a late mark of one thread's unlock
 * would close what another has locked since. Nothing may be waited for in between.
 */
#ifndef JEFF_BASE_MARK_H
#define JEFF_BASE_MARK_H

#include "base/atomic.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(JF_ANNOTATE_ASAN) || defined(JF_ANNOTATE_VALGRIND)

enum { JF_MARK_ACTIVE = 1 };

/* A pool is what a block belongs to in the debugger's eyes, named by any address of its own. */
void jf_mark_pool_create(const void *pool);
void jf_mark_pool_destroy(const void *pool);

void jf_mark_close(uintptr_t address, size_t size);
void jf_mark_open(uintptr_t address, size_t size);

/* Payload of `size` bytes asked for: got its first lock, lost its last. Between enter and leave. */
void jf_mark_locked(const void *pool, uintptr_t address, size_t size);
void jf_mark_unlocked(const void *pool, uintptr_t address, size_t size);

/* A weak pointer to it was given out. */
void jf_mark_weak(uintptr_t address, size_t size);

/* A mutex of the whole process, since the debugger's picture of memory is one. Held over fork. A signal handler may
 * enter whatever it interrupts: false when the thread is inside already, which leaving is told. */
bool jf_mark_enter(void);
void jf_mark_leave(bool taken);

/* Accesses to heap memory whatever its marks. */
jf_word jf_mark_load(const jf_word *word);
void jf_mark_store(jf_word *word, jf_word value);
void jf_mark_copy(void *to, const void *from, size_t size); /* no overlap */
void jf_mark_move(void *to, const void *from, size_t size); /* any overlap */
void jf_mark_fill(void *to, int byte, size_t size);

#else

enum { JF_MARK_ACTIVE = 0 };

static inline void jf_mark_pool_create(const void *pool) {
    (void)pool;
}

static inline void jf_mark_pool_destroy(const void *pool) {
    (void)pool;
}

static inline void jf_mark_close(uintptr_t address, size_t size) {
    (void)address, (void)size;
}

static inline void jf_mark_open(uintptr_t address, size_t size) {
    (void)address, (void)size;
}

static inline void jf_mark_locked(const void *pool, uintptr_t address, size_t size) {
    (void)pool, (void)address, (void)size;
}

static inline void jf_mark_unlocked(const void *pool, uintptr_t address, size_t size) {
    (void)pool, (void)address, (void)size;
}

static inline void jf_mark_weak(uintptr_t address, size_t size) {
    (void)address, (void)size;
}

static inline bool jf_mark_enter(void) {
    return false;
}

static inline void jf_mark_leave(bool taken) {
    (void)taken;
}

static inline jf_word jf_mark_load(const jf_word *word) {
    return jf_word_load(word);
}

static inline void jf_mark_store(jf_word *word, jf_word value) {
    jf_word_store(word, value);
}

static inline void jf_mark_copy(void *to, const void *from, size_t size) {
    memcpy(to, from, size);
}

static inline void jf_mark_move(void *to, const void *from, size_t size) {
    memmove(to, from, size);
}

static inline void jf_mark_fill(void *to, int byte, size_t size) {
    memset(to, byte, size);
}

#endif

#endif
