/* The hosted half of the boundary to the system: POSIX, with what Linux adds (membarrier, getrandom,
 * secure_getenv). Memory calls leave errno alone: free and unlock must not change it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/os.h"

#include "base/bits.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/membarrier.h>
#include <sys/random.h>
#endif

#if !defined(MAP_NORESERVE)
#define MAP_NORESERVE 0
#endif

/* ThreadSanitizer maps the program into a narrow part of the address space and ends it when a
 * mapping comes to lie outside, so that an attempt at a large reservation is not to be made at all. */
#if defined(__SANITIZE_THREAD__)
#define JF_OS_RESERVE_MAX ((size_t)1 << 36)
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define JF_OS_RESERVE_MAX ((size_t)1 << 36)
#endif
#endif
#if !defined(JF_OS_RESERVE_MAX)
#define JF_OS_RESERVE_MAX SIZE_MAX
#endif

enum {
    RESIDENT_PAGES = 1024, /* pages asked for in one call of mincore */
    PRINT_WAIT_MS = 1000,  /* for a reader of standard error */
};

size_t jf_os_page_size(void) {
    long size = sysconf(_SC_PAGESIZE);
    return size < 4096 ? 4096 : (size_t)size;
}

static uintptr_t map_nothing(uintptr_t hint, size_t size) {
    void *address =
        mmap((void *)hint, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? 0 : (uintptr_t)address;
}

static void unmap(uintptr_t address, size_t size) {
    if (size != 0) {
        munmap((void *)address, size);
    }
}

/* Reserves more than is wanted and cuts off both ends. */
static uintptr_t map_and_trim(size_t size, size_t alignment) {
    size_t total;
    if (!jf_bits_add(size, alignment, &total)) {
        return 0;
    }
    uintptr_t start = map_nothing(0, total);
    if (start == 0) {
        return 0;
    }
    uintptr_t aligned = jf_bits_round_up(start, alignment);
    unmap(start, aligned - start);
    unmap(aligned + size, start + total - (aligned + size));
    return aligned;
}

static uintptr_t map_aligned(size_t size, size_t alignment) {
    uintptr_t start = map_nothing(0, size);
    if (start == 0 || (start & (alignment - 1)) == 0) {
        return start;
    }
    unmap(start, size);
    /* Mappings grow downwards, so the next aligned address below is mostly free; that way the
     * reservation never counts twice against a limit on address space. */
    start = map_nothing(jf_bits_round_down(start, alignment), size);
    if (start == 0 || (start & (alignment - 1)) == 0) {
        return start;
    }
    unmap(start, size);
    return map_and_trim(size, alignment);
}

uintptr_t jf_os_reserve(size_t size, size_t alignment) {
    if (size > JF_OS_RESERVE_MAX) {
        return 0;
    }
    int saved = errno;
    uintptr_t address = map_aligned(size, alignment);
#if defined(MADV_NOHUGEPAGE)
    if (address != 0) {
        /* A huge page would hold memory for 2 MiB where one page is used, and could not be given back
         * in parts. Kernels without huge pages refuse the advice: nothing is lost. */
        madvise((void *)address, size, MADV_NOHUGEPAGE);
    }
#endif
    errno = saved;
    return address;
}

bool jf_os_make_accessible(uintptr_t address, size_t size) {
    int saved = errno;
    bool done = mprotect((void *)address, size, PROT_READ | PROT_WRITE) == 0;
    errno = saved;
    return done;
}

bool jf_os_make_readable(uintptr_t address, size_t size) {
    int saved = errno;
    bool done = mprotect((void *)address, size, PROT_READ) == 0;
    errno = saved;
    return done;
}

void jf_os_give_back(uintptr_t address, size_t size) {
    int saved = errno;
    if (size != 0 && madvise((void *)address, size, MADV_DONTNEED) != 0) {
        /* Refused for memory that the program has locked (mlockall): keep at least the promise that
         * it reads as zero. */
        memset((void *)address, 0, size);
    }
    errno = saved;
}

#if defined(MREMAP_DONTUNMAP)
/* A move that was refused late has taken the mapping at `to` away already. */
static void map_again(uintptr_t address, size_t size) {
    if (mmap((void *)address, size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
        jf_os_print_line("jeff: the system has taken a mapping away and does not give it back");
        jf_os_abort();
    }
    madvise((void *)address, size, MADV_NOHUGEPAGE);
}

bool jf_os_move(uintptr_t from, uintptr_t to, size_t size) {
    int saved = errno;
    bool done = mremap((void *)from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
                       (void *)to) == (void *)to;
    if (!done) {
        map_again(to, size);
    }
    errno = saved;
    return done;
}
#else
bool jf_os_move(uintptr_t from, uintptr_t to, size_t size) {
    (void)from;
    (void)to;
    (void)size;
    return false;
}
#endif

#if !defined(MADV_POPULATE_WRITE) && defined(__linux__)
#define MADV_POPULATE_WRITE 23
#endif

#if defined(MADV_POPULATE_WRITE) && defined(MADV_HUGEPAGE)
/* Kernels that do not know the advice refuse it: pages come one by one then. */
static void populate(uintptr_t address, size_t size) {
    if (size != 0) {
        madvise((void *)address, size, MADV_POPULATE_WRITE);
    }
}

/* Huge pages are allowed only while these are fetched: whoever has the addresses next shall get small ones. */
void jf_os_populate(uintptr_t address, size_t size) {
    uintptr_t end = address + size;
    uintptr_t first = jf_bits_round_up(address, JF_OS_HUGE);
    uintptr_t last = jf_bits_round_down(end, JF_OS_HUGE);
    int saved = errno;
    if (first >= last) {
        populate(address, size);
    } else {
        populate(address, first - address);
        madvise((void *)first, last - first, MADV_HUGEPAGE);
        populate(first, last - first);
        madvise((void *)first, last - first, MADV_NOHUGEPAGE);
        populate(last, end - last);
    }
    errno = saved;
}
#else
void jf_os_populate(uintptr_t address, size_t size) {
    (void)address;
    (void)size;
}
#endif

void jf_os_allow_huge(uintptr_t address, size_t size, bool allow) {
#if defined(MADV_HUGEPAGE)
    int saved = errno;
    madvise((void *)address, size, allow ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    errno = saved;
#else
    (void)address;
    (void)size;
    (void)allow;
#endif
}

void jf_os_release(uintptr_t address, size_t size) {
    int saved = errno;
    unmap(address, size);
    errno = saved;
}

size_t jf_os_resident(uintptr_t address, size_t size) {
    unsigned char pages[RESIDENT_PAGES];
    size_t page_size = jf_os_page_size();
    size_t step = page_size * RESIDENT_PAGES;
    size_t resident = 0;
    int saved = errno;
    for (size_t done = 0; done < size; done += step) {
        size_t part = size - done < step ? size - done : step;
        if (mincore((void *)(address + done), part, pages) != 0) {
            resident = size;
            break;
        }
        for (size_t i = 0; i < (part + page_size - 1) / page_size; i++) {
            resident += (pages[i] & 1u) != 0 ? page_size : 0;
        }
    }
    errno = saved;
    return resident < size ? resident : size;
}

uint64_t jf_os_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t jf_os_clock_coarse_ns(void) {
#if defined(CLOCK_MONOTONIC_COARSE)
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#else
    return jf_os_clock_ns();
#endif
}

void jf_os_mutex_init(jf_mutex *mutex) {
    pthread_mutex_init(mutex, NULL);
}

void jf_os_mutex_finish(jf_mutex *mutex) {
    pthread_mutex_destroy(mutex);
}

void jf_os_mutex_lock(jf_mutex *mutex) {
    pthread_mutex_lock(mutex);
}

bool jf_os_mutex_trylock(jf_mutex *mutex) {
    return pthread_mutex_trylock(mutex) == 0;
}

void jf_os_mutex_unlock(jf_mutex *mutex) {
    pthread_mutex_unlock(mutex);
}

void jf_os_yield(void) {
    sched_yield();
}

bool jf_os_fence_prepare(void) {
#if defined(__linux__)
    int saved = errno;
    long answer = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    errno = saved;
    return answer == 0;
#else
    return false;
#endif
}

void jf_os_fence_all(void) {
#if defined(__linux__)
    int saved = errno;
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    errno = saved;
#endif
}

/* Finalizer of splitmix64: spreads every input bit over the word. */
static uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

uint64_t jf_os_random(void) {
    uint64_t value = 0;
#if defined(__linux__)
    int saved = errno;
    long got = syscall(SYS_getrandom, &value, sizeof value, GRND_NONBLOCK);
    errno = saved;
    if (got == (long)sizeof value) {
        return value;
    }
#endif
    /* Early at boot the system's pool may be empty; the caller must not wait for it. */
    return mix(jf_os_clock_ns() ^ mix((uintptr_t)&value) ^ (uint64_t)getpid());
}

const char *jf_os_environment(const char *name) {
    return secure_getenv(name);
}

/* Standard error may be set to non-blocking by whoever shares it; false when nobody reads for a second. */
static bool wait_for_room(void) {
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
    return poll(&room, 1, PRINT_WAIT_MS) > 0 && (room.revents & POLLOUT) != 0;
}

void jf_os_print_line(const char *line) {
    char newline = '\n';
    struct iovec parts[2] = {{(void *)(uintptr_t)line, strlen(line)}, {&newline, 1}};
    struct iovec *next = parts;
    int count = 2;
    int saved = errno;
    while (count > 0) {
        ssize_t written = writev(STDERR_FILENO, next, count);
        if (written < 0 && (errno == EINTR || (errno == EAGAIN && wait_for_room()))) {
            continue;
        }
        if (written <= 0) {
            break;
        }
        size_t left = (size_t)written;
        while (count > 0 && left >= next->iov_len) {
            left -= next->iov_len;
            next++;
            count--;
        }
        if (count > 0) {
            next->iov_base = (char *)next->iov_base + left;
            next->iov_len -= left;
        }
    }
    errno = saved;
}

void jf_os_abort(void) {
    abort();
}

void jf_os_set_errno(enum jf_os_error error) {
    static const int numbers[] = {
        [JF_OS_ENOMEM] = ENOMEM,
        [JF_OS_EINVAL] = EINVAL,
        [JF_OS_EBUSY] = EBUSY,
    };
    errno = numbers[error];
}

int jf_os_save_errno(void) {
    return errno;
}

void jf_os_restore_errno(int saved) {
    errno = saved;
}

/* ------------------------------------------------------------------------- threads and processes end */

enum { EXIT_CALLBACKS_MAX = 4 };

static struct {
    pthread_once_t once;
    pthread_key_t key;
    void (*callbacks[EXIT_CALLBACKS_MAX])(void);
} thread_exit = {.once = PTHREAD_ONCE_INIT};

static void run_exit_callbacks(void *unused) {
    (void)unused;
    for (unsigned i = 0; i < EXIT_CALLBACKS_MAX; i++) {
        void (*callback)(void) = __atomic_load_n(&thread_exit.callbacks[i], __ATOMIC_ACQUIRE);
        if (callback != NULL)
            callback();
    }
}

static void make_exit_key(void) {
    pthread_key_create(&thread_exit.key, run_exit_callbacks);
}

void jf_os_at_thread_exit(void (*callback)(void)) {
    pthread_once(&thread_exit.once, make_exit_key);
    /* Without a mutex: a child process must not find it held by a thread that it does not have. */
    for (unsigned i = 0; i < EXIT_CALLBACKS_MAX; i++) {
        void (*found)(void) = NULL;
        if (__atomic_compare_exchange_n(&thread_exit.callbacks[i], &found, callback, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) ||
            found == callback)
            break;
    }
    /* any value but NULL has the destructor called */
    pthread_setspecific(thread_exit.key, &thread_exit);
}

void jf_os_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
    pthread_atfork(prepare, parent, child);
}

void jf_os_signals_block(jf_signals *ret_before) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, ret_before);
}

void jf_os_signals_restore(const jf_signals *before) {
    pthread_sigmask(SIG_SETMASK, before, NULL);
}
