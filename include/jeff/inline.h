/* The inlined fast paths of <jeff/jeff.h>. Not to be included by itself.
 *
 * They know the layout of a handle and of an entry word (docs: design/handle-table):
 *
 *   entry   63..52 lock count | 51..40 generation | 39..4 address | 3..0 state
 *   handle  63..52 generation | 51..47 zero       | 46..0 address of the entry
 *
 * That layout's version is part of the names below, so that a program built against another layout
 * does not link. Define RM_NO_INLINE before including <jeff/jeff.h> to call the library instead.
 */
#ifndef JEFF_INLINE_H
#define JEFF_INLINE_H

#if !defined(RM_NO_INLINE)

#if UINTPTR_MAX != UINT64_MAX || !(defined(__GNUC__) || defined(__clang__))
#error "define RM_NO_INLINE: the inlined fast paths need 64-bit pointers and the __atomic builtins"
#endif

/* While the process has a single thread, which the C library tells, a lock count is changed by one
 * instruction that does not lock the bus: a signal handler sees it done or not done. */
#if defined(__x86_64__) && defined(__has_include)
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define RM_SINGLE_THREADED_ (__libc_single_threaded != 0)
#endif
#endif
/* ... but not where a sanitizer watches the atomics. */
#if defined(__SANITIZE_THREAD__)
#undef RM_SINGLE_THREADED_
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef RM_SINGLE_THREADED_
#endif
#endif

#define RM_ENTRY_COUNT_ONE ((uint64_t)1 << 52)
#define RM_ENTRY_OVERFLOW ((uint64_t)1 << 63)
#define RM_ENTRY_GENERATION ((uint64_t)0xfff << 40)
#define RM_ENTRY_ADDRESS ((uint64_t)0xfffffffff << 4)
#define RM_ENTRY_STATE ((uint64_t)0xf)
#define RM_ENTRY_LIVE ((uint64_t)1)
#define RM_HANDLE_ENTRY (((uint64_t)1 << 52) - 1)

/* Where the handles of the fast path live: `base` is what entry addresses count from, `table` the
 * first entry, `entries` how many 8-byte entries follow. Everything else takes the slow path. */
struct rm_window {
    uintptr_t base;
    uintptr_t table;
    uintptr_t entries;
    uintptr_t reader_fence; /* nonzero: read sections need a fence of their own */
};
extern RM_API struct rm_window rm_window_v1;

/* The calling thread's read section. */
struct rm_reader {
    uint32_t depth;      /* sections open */
    uint32_t registered; /* the compactor knows of this thread */
    uint64_t sequence;   /* odd while a section is open */
};
extern RM_API __thread struct rm_reader rm_reader_v1 __attribute__((tls_model("initial-exec")));

RM_API void *rm_lock_slow_v1(rmhandle_t handle, uint64_t old_word, int counted);
RM_API void rm_unlock_slow_v1(rmhandle_t handle);
RM_API void *rm_deref_slow_v1(rmhandle_t handle);
RM_API void rm_read_begin_slow_v1(void);
RM_API void rm_read_end_slow_v1(void);

/* The window's fields may change while they are read; each is read once.
 * (Macros: a C11 inline function with external linkage may not call a static one.) */
#define RM_WINDOW_(field) __atomic_load_n(&rm_window_v1.field, __ATOMIC_RELAXED)

/* Whether the handle's entry is an aligned address inside the table. */
#define RM_WINDOW_OFFSET_(bits) (((bits)&RM_HANDLE_ENTRY) - RM_WINDOW_(table))
#define RM_OFFSET_IS_ENTRY_(offset) (((offset) >> 3 | (offset) << 61) < RM_WINDOW_(entries))

/* Equal to RM_ENTRY_LIVE exactly when the word has the handle's generation and is plainly live. What is to be
 * done with the handle alone comes first: it need not wait for the word. */
#define RM_WORD_DIFFERS_(word, bits, also)                                                         \
    (((word) ^ ((uint64_t)(bits) >> 12 & RM_ENTRY_GENERATION)) &                                   \
     (RM_ENTRY_GENERATION | RM_ENTRY_STATE | (also)))

inline void *rmlock(rmhandle_t handle) {
    uintptr_t bits = (uintptr_t)handle;
    uintptr_t offset = RM_WINDOW_OFFSET_(bits);
    if (!RM_LIKELY(RM_OFFSET_IS_ENTRY_(offset)))
        return rm_lock_slow_v1(handle, 0, 0);
    uint64_t *entry = (uint64_t *)(bits & RM_HANDLE_ENTRY);
    uint64_t old;
#if defined(RM_SINGLE_THREADED_)
    if (RM_SINGLE_THREADED_) {
        old = RM_ENTRY_COUNT_ONE;
        __asm__ volatile("xaddq %0, %1" : "+r"(old), "+m"(*entry) : : "memory", "cc");
    } else
#endif
        old = __atomic_fetch_add(entry, RM_ENTRY_COUNT_ONE, __ATOMIC_ACQUIRE);
    if (!RM_LIKELY(RM_WORD_DIFFERS_(old, bits, RM_ENTRY_OVERFLOW) == RM_ENTRY_LIVE))
        return rm_lock_slow_v1(handle, old, 1);
    return (void *)(RM_WINDOW_(base) + (old & RM_ENTRY_ADDRESS));
}

inline void rmunlock(rmhandle_t handle) {
    uintptr_t bits = (uintptr_t)handle;
    uintptr_t offset = RM_WINDOW_OFFSET_(bits);
    if (!RM_LIKELY(RM_OFFSET_IS_ENTRY_(offset))) {
        rm_unlock_slow_v1(handle);
        return;
    }
    /* Looked at first: a stale handle must not take away another holder's lock even for a moment. For a
     * rightful holder nothing that is compared here can change in between. */
    uint64_t *entry = (uint64_t *)(bits & RM_HANDLE_ENTRY);
    uint64_t word = __atomic_load_n(entry, __ATOMIC_RELAXED);
    if (!RM_LIKELY(RM_WORD_DIFFERS_(word, bits, RM_ENTRY_OVERFLOW) == RM_ENTRY_LIVE &&
                   word >= RM_ENTRY_COUNT_ONE)) {
        rm_unlock_slow_v1(handle);
        return;
    }
#if defined(RM_SINGLE_THREADED_)
    if (RM_SINGLE_THREADED_) {
        __asm__ volatile("subq %1, %0" : "+m"(*entry) : "r"(RM_ENTRY_COUNT_ONE) : "memory", "cc");
        return;
    }
#endif
    __atomic_fetch_sub(entry, RM_ENTRY_COUNT_ONE, __ATOMIC_RELEASE);
}

inline void rmread_begin(void) {
    if (!RM_LIKELY(rm_reader_v1.depth++ == 0 && rm_reader_v1.registered)) {
        rm_read_begin_slow_v1();
        return;
    }
    /* odd, also when a signal handler had a section of its own since the depth was raised; released, for whoever
     * sees that it has changed takes it that the section before is over */
    __atomic_store_n(&rm_reader_v1.sequence, rm_reader_v1.sequence | 1, __ATOMIC_RELEASE);
    if (!RM_LIKELY(RM_WINDOW_(reader_fence) == 0))
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

inline void *rmderef(rmhandle_t handle) {
    uintptr_t bits = (uintptr_t)handle;
    uintptr_t offset = RM_WINDOW_OFFSET_(bits);
    if (!RM_LIKELY(RM_OFFSET_IS_ENTRY_(offset)))
        return rm_deref_slow_v1(handle);
    uint64_t word = __atomic_load_n((uint64_t *)(bits & RM_HANDLE_ENTRY), __ATOMIC_ACQUIRE);
    if (!RM_LIKELY(RM_WORD_DIFFERS_(word, bits, 0) == RM_ENTRY_LIVE))
        return rm_deref_slow_v1(handle);
    return (void *)(RM_WINDOW_(base) + (word & RM_ENTRY_ADDRESS));
}

inline void rmread_end(void) {
    if (!RM_LIKELY(rm_reader_v1.depth == 1)) {
        rm_read_end_slow_v1();
        return;
    }
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    rm_reader_v1.depth = 0;
    __atomic_store_n(&rm_reader_v1.sequence, (rm_reader_v1.sequence | 1) + 1, __ATOMIC_RELEASE);
}

#endif
#endif
