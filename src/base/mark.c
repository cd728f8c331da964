/* Annotations for AddressSanitizer and Valgrind; empty in builds that ask for neither. The only state
 * below the API: the debugger's picture of memory is one for the whole process, and so is its guard.
 */
#include "base/mark.h"

#if defined(JF_ANNOTATE_ASAN) || defined(JF_ANNOTATE_VALGRIND)

#include "base/bits.h"
#include "base/os.h"

enum { WEAK_PAGE_SHIFT = 12, WEAK_PAGES_LOG2 = 24 };

static const char *guard; /* `self` of the thread that has it */
static JF_THREAD_LOCAL char self;

/* One bit per page that a weak pointer was given out to; pages a multiple of 64 GiB apart share it. */
static uint64_t weak_pages[((size_t)1 << WEAK_PAGES_LOG2) / 64];

bool jf_mark_enter(void) {
    const char *owner = NULL;
    while (!__atomic_compare_exchange_n(&guard, &owner, &self, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
        if (owner == &self)
            return false;
        owner = NULL;
        jf_os_yield();
    }
    return true;
}

void jf_mark_leave(bool taken) {
    if (taken)
        __atomic_store_n(&guard, NULL, __ATOMIC_RELEASE);
}

static uint64_t *weak_word(uintptr_t page) {
    return &weak_pages[(page & (((uintptr_t)1 << WEAK_PAGES_LOG2) - 1)) / 64];
}

static bool is_weak(uintptr_t page) {
    return (__atomic_load_n(weak_word(page), __ATOMIC_RELAXED) >> (page % 64) & 1) != 0;
}

static void close_range(uintptr_t address, size_t size);
static void open_range(uintptr_t address, size_t size);

/* Closes what does not lie in a weak page. */
void jf_mark_close(uintptr_t address, size_t size) {
    uintptr_t end = address + size;
    while (address < end) {
        uintptr_t page_end = ((address >> WEAK_PAGE_SHIFT) + 1) << WEAK_PAGE_SHIFT;
        uintptr_t stop = page_end < end ? page_end : end;
        if (!is_weak(address >> WEAK_PAGE_SHIFT))
            close_range(address, stop - address);
        address = stop;
    }
}

void jf_mark_open(uintptr_t address, size_t size) {
    if (size != 0)
        open_range(address, size);
}

void jf_mark_weak(uintptr_t address, size_t size) {
    if (size == 0)
        return;
    for (uintptr_t page = address >> WEAK_PAGE_SHIFT;
         page <= (address + size - 1) >> WEAK_PAGE_SHIFT; page++)
        __atomic_fetch_or(weak_word(page), (uint64_t)1 << (page % 64), __ATOMIC_RELAXED);
    jf_mark_open(address, size);
}

#if defined(JF_ANNOTATE_ASAN)

#include <sanitizer/asan_interface.h>

#define UNWATCHED __attribute__((no_sanitize("address"), noinline))

static void close_range(uintptr_t address, size_t size) {
    ASAN_POISON_MEMORY_REGION((void *)address, size);
}

static void open_range(uintptr_t address, size_t size) {
    ASAN_UNPOISON_MEMORY_REGION((void *)address, size);
}

void jf_mark_pool_create(const void *pool) {
    (void)pool;
}

void jf_mark_pool_destroy(const void *pool) {
    (void)pool;
}

void jf_mark_locked(const void *pool, uintptr_t address, size_t size) {
    (void)pool;
    jf_mark_open(address, size);
}

void jf_mark_unlocked(const void *pool, uintptr_t address, size_t size) {
    (void)pool;
    jf_mark_close(address, size);
}

UNWATCHED jf_word jf_mark_load(const jf_word *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

UNWATCHED void jf_mark_store(jf_word *word, jf_word value) {
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Volatile, so that the loops do not become calls of memmove, which is watched. */
UNWATCHED static void move_up(volatile unsigned char *to, const volatile unsigned char *from,
                              size_t size) {
    while (size-- > 0)
        to[size] = from[size];
}

UNWATCHED static void move_down(volatile unsigned char *to, const volatile unsigned char *from,
                                size_t size) {
    for (size_t i = 0; i < size; i++)
        to[i] = from[i];
}

UNWATCHED static void move_words(volatile uint64_t *to, const volatile uint64_t *from,
                                 size_t count) {
    for (size_t i = 0; i < count; i++)
        to[i] = from[i];
}

UNWATCHED void jf_mark_move(void *to, const void *from, size_t size) {
    if ((uintptr_t)to > (uintptr_t)from) {
        move_up(to, from, size);
    } else if ((((uintptr_t)to | (uintptr_t)from | size) & 7) == 0) {
        move_words(to, from, size / 8);
    } else {
        move_down(to, from, size);
    }
}

UNWATCHED void jf_mark_copy(void *to, const void *from, size_t size) {
    size_t words = ((uintptr_t)to | (uintptr_t)from) % 8 == 0 ? size / 8 : 0;
    move_words(to, from, words);
    move_down((unsigned char *)to + words * 8, (const unsigned char *)from + words * 8,
              size - words * 8);
}

UNWATCHED void jf_mark_fill(void *to, int byte, size_t size) {
    volatile unsigned char *bytes = to;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)byte;
}

#else

#include <valgrind/memcheck.h>

static void close_range(uintptr_t address, size_t size) {
    VALGRIND_MAKE_MEM_NOACCESS(address, size);
}

static void open_range(uintptr_t address, size_t size) {
    VALGRIND_MAKE_MEM_DEFINED(address, size);
}

void jf_mark_pool_create(const void *pool) {
    VALGRIND_CREATE_MEMPOOL(pool, 0, 0);
}

void jf_mark_pool_destroy(const void *pool) {
    VALGRIND_DESTROY_MEMPOOL(pool);
}

/* As a piece of the pool the payload is known to Valgrind by where it was locked, and when it is not a
 * piece any more, by where it was unlocked: both are named in its reports. What it holds is taken for
 * defined; which bits of an unlocked block are, Valgrind does not remember. */
void jf_mark_locked(const void *pool, uintptr_t address, size_t size) {
    VALGRIND_MEMPOOL_ALLOC(pool, address, size);
    VALGRIND_MAKE_MEM_DEFINED(address, size);
}

void jf_mark_unlocked(const void *pool, uintptr_t address, size_t size) {
    VALGRIND_MEMPOOL_FREE(pool, address);
    jf_mark_open(address, size);
    jf_mark_close(address, size);
}

jf_word jf_mark_load(const jf_word *word) {
    VALGRIND_DISABLE_ERROR_REPORTING;
    jf_word value = jf_word_load(word);
    VALGRIND_ENABLE_ERROR_REPORTING;
    return value;
}

void jf_mark_store(jf_word *word, jf_word value) {
    VALGRIND_DISABLE_ERROR_REPORTING;
    jf_word_store(word, value);
    VALGRIND_ENABLE_ERROR_REPORTING;
}

void jf_mark_copy(void *to, const void *from, size_t size) {
    VALGRIND_DISABLE_ERROR_REPORTING;
    memcpy(to, from, size);
    VALGRIND_ENABLE_ERROR_REPORTING;
}

void jf_mark_move(void *to, const void *from, size_t size) {
    VALGRIND_DISABLE_ERROR_REPORTING;
    memmove(to, from, size);
    VALGRIND_ENABLE_ERROR_REPORTING;
}

void jf_mark_fill(void *to, int byte, size_t size) {
    VALGRIND_DISABLE_ERROR_REPORTING;
    memset(to, byte, size);
    VALGRIND_ENABLE_ERROR_REPORTING;
}

#endif
#endif
