/* Atomic access to 64-bit words. Hosted builds use the compiler's builtins; freestanding ones, whose
 * processors may have no 64-bit atomics, do plain accesses between the port's enter and leave.
 */
#ifndef JEFF_BASE_ATOMIC_H
#define JEFF_BASE_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t jf_word;

/* Parts of a word may be accessed by themselves, the low ones first. */
#if !defined(JF_FREESTANDING) && defined(__BYTE_ORDER__) &&                                        \
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define JF_LITTLE_ENDIAN 1
#else
#define JF_LITTLE_ENDIAN 0
#endif

#if defined(JF_FREESTANDING)

#include "base/os.h"

void jf_port_enter(void);
void jf_port_leave(void);

static inline jf_word jf_word_load(const jf_word *word) {
    jf_port_enter();
    jf_word value = *(const volatile jf_word *)word;
    jf_port_leave();
    return value;
}

static inline void jf_word_store(jf_word *word, jf_word value) {
    jf_port_enter();
    *(volatile jf_word *)word = value;
    jf_port_leave();
}

static inline jf_word jf_word_fetch_add(jf_word *word, jf_word value) {
    jf_port_enter();
    jf_word old = *word;
    *word = old + value;
    jf_port_leave();
    return old;
}

static inline jf_word jf_word_fetch_xor(jf_word *word, jf_word value) {
    jf_port_enter();
    jf_word old = *word;
    *word = old ^ value;
    jf_port_leave();
    return old;
}

static inline jf_word jf_word_fetch_and(jf_word *word, jf_word value) {
    jf_port_enter();
    jf_word old = *word;
    *word = old & value;
    jf_port_leave();
    return old;
}

/* On failure *expected becomes the word's value. */
static inline bool jf_word_compare_swap(jf_word *word, jf_word *expected, jf_word desired) {
    jf_port_enter();
    bool same = *word == *expected;
    if (same)
        *word = desired;
    else
        *expected = *word;
    jf_port_leave();
    return same;
}

static inline void jf_fence(void) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void jf_fence_acquire(void) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void jf_fence_release(void) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

#else

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32) && !defined(__SANITIZE_THREAD__)
#include <sys/single_threaded.h>
#define JF_SINGLE_THREADED (__libc_single_threaded != 0)
#endif

static inline jf_word jf_word_load(const jf_word *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void jf_word_store(jf_word *word, jf_word value) {
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline jf_word jf_word_fetch_add(jf_word *word, jf_word value) {
    return __atomic_fetch_add(word, value, __ATOMIC_ACQ_REL);
}

static inline jf_word jf_word_fetch_xor(jf_word *word, jf_word value) {
    return __atomic_fetch_xor(word, value, __ATOMIC_ACQ_REL);
}

static inline jf_word jf_word_fetch_and(jf_word *word, jf_word value) {
    return __atomic_fetch_and(word, value, __ATOMIC_ACQ_REL);
}

/* On failure *expected becomes the word's value. */
static inline bool jf_word_compare_swap(jf_word *word, jf_word *expected, jf_word desired) {
    return __atomic_compare_exchange_n(word, expected, desired, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

static inline void jf_fence(void) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline void jf_fence_acquire(void) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
}

static inline void jf_fence_release(void) {
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

#endif

/* Whether the process has no other thread, as far as the C library knows; false where it does not tell. */
static inline bool jf_is_single_threaded(void) {
#if defined(JF_SINGLE_THREADED)
    return JF_SINGLE_THREADED;
#else
    return false;
#endif
}

/* As jf_word_compare_swap. `single`, if the process has a single thread, is done at half the price: one
 * instruction, so a signal handler sees it done or not done, but without the lock on the bus. */
static inline bool jf_word_compare_swap_if(jf_word *word, jf_word *expected, jf_word desired,
                                           bool single) {
#if defined(JF_SINGLE_THREADED) && defined(__x86_64__)
    if (single) {
        bool same;
        jf_word value = *expected;
        __asm__ volatile("cmpxchgq %[desired], %[word]"
                         : "=@cce"(same), [word] "+m"(*word), "+a"(value)
                         : [desired] "r"(desired)
                         : "memory");
        *expected = value;
        return same;
    }
#endif
    (void)single;
    return jf_word_compare_swap(word, expected, desired);
}

static inline bool jf_word_compare_swap_light(jf_word *word, jf_word *expected, jf_word desired) {
    return jf_word_compare_swap_if(word, expected, desired, jf_is_single_threaded());
}

/* As jf_word_fetch_add, in the same way. */
static inline jf_word jf_word_fetch_add_light(jf_word *word, jf_word value) {
#if defined(JF_SINGLE_THREADED) && defined(__x86_64__)
    if (JF_SINGLE_THREADED) {
        __asm__ volatile("xaddq %[value], %[word]"
                         : [word] "+m"(*word), [value] "+r"(value)
                         :
                         : "memory", "cc");
        return value;
    }
#endif
    return jf_word_fetch_add(word, value);
}

/* Replaces the low 40 bits (address and state of an entry) and leaves the high 24 (lock count and
 * generation) to whoever changes them at the same time: a mistaken lock on a freed entry adds one and
 * takes it back, and neither may be lost. Only for a word whose low 40 bits nobody else writes now. Two
 * stores: the byte on top first, then the four with the state, released. */
static inline void jf_word_publish_low(jf_word *word, jf_word low) {
#if JF_LITTLE_ENDIAN
    __atomic_store_n((uint8_t *)word + 4, (uint8_t)(low >> 32), __ATOMIC_RELAXED);
    __atomic_store_n((uint32_t *)(void *)word, (uint32_t)low, __ATOMIC_RELEASE);
#else
    jf_word_fetch_xor(word, (jf_word_load(word) ^ low) & (((jf_word)1 << 40) - 1));
#endif
}

/* As jf_word_publish_low, given the word as it was read; one store while the process has a single thread,
 * so that a load soon after need not wait for two. */
static inline void jf_word_publish_low_light(jf_word *word, jf_word was, jf_word low) {
#if defined(JF_SINGLE_THREADED)
    if (JF_SINGLE_THREADED) {
        __atomic_store_n(word, (was & ~(((jf_word)1 << 40) - 1)) | low, __ATOMIC_RELEASE);
        return;
    }
#endif
    (void)was;
    jf_word_publish_low(word, low);
}

/* As jf_word_publish_low_light when only the lowest byte of the word is to change: `now` is the word with that
 * change, `single` whether the process has a single thread. */
static inline void jf_word_publish_byte_light(jf_word *word, jf_word now, bool single) {
#if !defined(JF_FREESTANDING)
    if (single) {
        __atomic_store_n(word, now, __ATOMIC_RELEASE);
        return;
    }
#endif
    (void)single;
#if JF_LITTLE_ENDIAN
    __atomic_store_n((uint8_t *)word, (uint8_t)now, __ATOMIC_RELEASE);
#else
    jf_word_fetch_xor(word, (jf_word_load(word) ^ now) & 0xff);
#endif
}

#endif
