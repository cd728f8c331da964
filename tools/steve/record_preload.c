/* libsteve-record.so: stands before the program's allocator, passes every call on and notes it in
 * the ring (record_ring.h). It never allocates and never prints; when anything about recording
 * fails, the program runs on unrecorded.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "record_ring.h"
#include "record_stack.h"

#define EXPORT __attribute__((visibility("default")))
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))

enum gate_state {
    GATE_FORKED = 0, /* what a fork leaves in the child: the kernel wipes the page */
    GATE_RECORDING,
    GATE_OFF,
};

/* Whether this process records, on a page of its own that fork wipes. */
struct gate {
    _Atomic(struct record_ring *) ring; /* NULL unless GATE_RECORDING */
    _Atomic int state;
};

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    void *(*memalign)(size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*valloc)(size_t);
    void *(*pvalloc)(size_t);
} real;

static _Atomic int started; /* 0 no, 1 under way, 2 done */
static struct gate *gate;
static struct record_control *control;
static char control_path[512];
static THREAD_LOCAL uint32_t thread_number; /* + 1; 0 = none yet */

/* dlsym may allocate while the real functions are still being looked up; it gets memory from here.
 */
enum { NURSERY_BYTES = 64 << 10, NURSERY_ALIGNMENT = 16 };
static _Alignas(NURSERY_ALIGNMENT) char nursery[NURSERY_BYTES];
static _Atomic size_t nursery_used;

static bool in_nursery(const void *pointer) {
    return (uintptr_t)pointer - (uintptr_t)nursery < NURSERY_BYTES;
}

static void *nursery_malloc(size_t size) {
    if (size > NURSERY_BYTES)
        return NULL;
    size_t rounded = (size + 2 * NURSERY_ALIGNMENT - 1) & ~(size_t)(NURSERY_ALIGNMENT - 1);
    size_t at = atomic_fetch_add(&nursery_used, rounded);
    if (at + rounded > NURSERY_BYTES)
        return NULL;
    *(size_t *)(void *)(nursery + at) = size;
    return nursery + at + NURSERY_ALIGNMENT;
}

static size_t nursery_size(const void *pointer) {
    return *(const size_t *)(const void *)((const char *)pointer - NURSERY_ALIGNMENT);
}

static long raw_open(const char *path, int flags, int mode) {
    return syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode);
}

static void *map_file(int descriptor, size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* The path of ring `number`, in `ret_path` of control_path's size plus 16. */
static void ring_path(char *ret_path, uint32_t number) {
    char digits[16];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    size_t length = strlen(control_path);
    memcpy(ret_path, control_path, length);
    ret_path[length++] = '.';
    while (count > 0)
        ret_path[length++] = digits[--count];
    ret_path[length] = '\0';
}

/* Makes a ring file and maps it; NULL when that cannot be. */
static struct record_ring *create_ring(uint32_t number) {
    char path[sizeof control_path + 16];
    ring_path(path, number);
    int descriptor = (int)raw_open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (descriptor < 0)
        return NULL;
    struct record_ring *ring = NULL;
    /* Allocated now: a full file system must show here and not as a SIGBUS in the program. */
    if (syscall(SYS_fallocate, descriptor, 0, 0L, (long)sizeof *ring) == 0)
        ring = map_file(descriptor, sizeof *ring);
    syscall(SYS_close, descriptor);
    if (ring != NULL)
        ring->pid = (uint32_t)getpid();
    return ring;
}

/* Asks steve for a place and starts recording, if this process is one to be recorded. */
static void join(void) {
    atomic_store(&gate->state, GATE_OFF);
    if (control == NULL)
        return;
    uint32_t main_pid = atomic_load(&control->main_pid);
    if ((uint32_t)getpid() != main_pid && !control->children)
        return;
    uint32_t number = atomic_fetch_add(&control->rings, 1);
    if (number >= RECORD_RINGS_MAX)
        return;
    struct record_ring *ring = create_ring(number);
    atomic_store(&control->ready[number], ring != NULL ? 1u : 2u);
    if (ring == NULL)
        return;
    record_stack_begin(control->stacks);
    atomic_store(&gate->ring, ring);
    atomic_store(&gate->state, GATE_RECORDING);
}

static void map_control(void) {
    const char *path = secure_getenv(RECORD_CONTROL_VARIABLE);
    if (path == NULL || strlen(path) >= sizeof control_path)
        return;
    strcpy(control_path, path);
    int descriptor = (int)raw_open(path, O_RDWR, 0);
    if (descriptor < 0)
        return;
    control = map_file(descriptor, sizeof *control);
    syscall(SYS_close, descriptor);
    if (control != NULL && control->layout != RECORD_LAYOUT)
        control = NULL;
}

/* A page that a forked child finds empty. Without such pages the child must not be able to record
 * into its parent's ring, so then there is no recording at all. */
static struct gate *map_gate(void) {
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, size, MADV_WIPEONFORK) != 0) {
        munmap(page, size);
        return NULL;
    }
    return page;
}

static void find(void *ret_function, const char *name) {
    void *function = dlsym(RTLD_NEXT, name);
    memcpy(ret_function, &function, sizeof function);
}

/* Looks up the real functions and joins. Runs at the first call of any, before constructors if need
 * be. Calls that come meanwhile, from dlsym or another thread, are served from the nursery. */
static void start(void) {
    int not_started = 0;
    if (!atomic_compare_exchange_strong(&started, &not_started, 1))
        return;
    int saved = errno;
    find(&real.malloc, "malloc");
    find(&real.calloc, "calloc");
    find(&real.realloc, "realloc");
    find(&real.free, "free");
    find(&real.memalign, "memalign");
    find(&real.aligned_alloc, "aligned_alloc");
    find(&real.posix_memalign, "posix_memalign");
    find(&real.valloc, "valloc");
    find(&real.pvalloc, "pvalloc");
    gate = map_gate();
    if (gate != NULL) {
        map_control();
        join();
    }
    errno = saved;
    atomic_store(&started, 2);
}

static bool is_started(void) {
    if (UNLIKELY(atomic_load_explicit(&started, memory_order_acquire) != 2)) {
        start();
        return atomic_load(&started) == 2;
    }
    return true;
}

__attribute__((constructor)) static void start_early(void) {
    is_started();
}

/* The ring to write to; NULL when this process does not record. */
static struct record_ring *open_ring(void) {
    if (UNLIKELY(gate == NULL))
        return NULL;
    struct record_ring *ring = atomic_load_explicit(&gate->ring, memory_order_relaxed);
    if (UNLIKELY(ring == NULL) && atomic_load(&gate->state) == GATE_FORKED) {
        int saved = errno;
        thread_number = 0;
        join();
        errno = saved;
        ring = atomic_load(&gate->ring);
    }
    return ring;
}

/* Waits until steve has read what was in the slot. False when steve is gone. Plain system calls:
 * the functions of libc are cancellation points, and malloc must not be one. */
__attribute__((noinline)) static bool wait_for_room(struct record_ring *ring, uint64_t number) {
    int saved = errno;
    bool room = false;
    for (unsigned tries = 1; !room; tries++) {
        struct timespec pause = {0, 50000};
        syscall(SYS_nanosleep, &pause, NULL);
        if (atomic_load(&ring->closed))
            break;
        if (tries % 2048 == 0 && syscall(SYS_kill, control->steve_pid, 0) != 0 && errno == ESRCH)
            break;
        room = number - atomic_load_explicit(&ring->tail, memory_order_acquire) < RECORD_SLOTS;
    }
    if (!room) {
        atomic_store(&gate->ring, NULL);
        atomic_store(&gate->state, GATE_OFF);
    }
    errno = saved;
    return room;
}

__attribute__((noinline)) static void take_thread_number(struct record_ring *ring) {
    thread_number = atomic_fetch_add(&ring->threads, 1) + 1;
}

/* Takes `count` slots in a row. False when recording is over. */
static inline bool take_slots(struct record_ring *ring, uint64_t count, uint64_t *ret_first) {
    uint64_t first = *ret_first = atomic_fetch_add(&ring->head, count);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    return first + count - 1 - tail < RECORD_SLOTS || wait_for_room(ring, first + count - 1);
}

static inline void fill_slot(struct record_ring *ring, uint64_t number, enum record_op op,
                             uint64_t address, uint64_t size, unsigned alignment_log2) {
    struct record_slot *slot = &ring->slots[number % RECORD_SLOTS];
    slot->address = address;
    slot->size = size;
    slot->time = atomic_load_explicit(&ring->time, memory_order_relaxed);
    slot->thread = (uint16_t)(thread_number - 1);
    slot->op = (uint8_t)op;
    slot->alignment_log2 = (uint8_t)alignment_log2;
    atomic_store_explicit(&slot->published, number + 1, memory_order_release);
}

/* Tells steve of a file of code that a stack has met for the first time. */
static void note_module(void *context, const struct record_module *module) {
    enum { IN_SLOT = 2 * sizeof(uint64_t) };
    struct record_ring *ring = context;
    size_t pieces = (strlen(module->path) + IN_SLOT - 1) / IN_SLOT;
    uint64_t at;
    if (!take_slots(ring, pieces + 3, &at))
        return;
    fill_slot(ring, at++, RECORD_MODULE, module->start, module->end, 0);
    fill_slot(ring, at++, RECORD_MODULE_BASE, module->base, 0, 0);
    for (size_t i = 0; i < pieces; i++) {
        uint64_t words[2];
        memcpy(words, module->path + i * IN_SLOT, IN_SLOT); /* padded with zeros */
        fill_slot(ring, at++, RECORD_MODULE_NAME, words[0], words[1], 0);
    }
    fill_slot(ring, at, RECORD_MODULE_END, 0, 0, 0);
}

/* With the call stack from `caller` on. */
__attribute__((noinline)) static void note_with_stack(struct record_ring *ring, enum record_op op,
                                                      const void *address, size_t size,
                                                      unsigned alignment_log2, const void *caller) {
    uint64_t frames[RECORD_STACK_MAX + 1];
    unsigned count = record_stack_take(caller, frames, note_module, ring);
    uint64_t at;
    if (!take_slots(ring, (count + 1) / 2 + 1, &at))
        return;
    for (unsigned i = 0; i < count; i += 2)
        fill_slot(ring, at++, i + 1 < count ? RECORD_FRAMES : RECORD_FRAMES_LAST, frames[i],
                  i + 1 < count ? frames[i + 1] : 0, 0);
    fill_slot(ring, at, op, (uintptr_t)address, size, alignment_log2);
}

/* `caller`: the program's call, where its stack may be wanted; else NULL. */
static inline void note(enum record_op op, const void *address, size_t size,
                        unsigned alignment_log2, const void *caller) {
    struct record_ring *ring = open_ring();
    if (ring == NULL)
        return;
    if (UNLIKELY(thread_number == 0))
        take_thread_number(ring);
    if (caller != NULL && UNLIKELY(control->stacks != 0)) {
        note_with_stack(ring, op, address, size, alignment_log2, caller);
        return;
    }
    uint64_t number;
    if (take_slots(ring, 1, &number))
        fill_slot(ring, number, op, (uintptr_t)address, size, alignment_log2);
}

#define CALLER __builtin_return_address(0)

static unsigned log2_of(size_t alignment) {
    return alignment != 0 ? 63u - (unsigned)__builtin_clzll(alignment) : 0;
}

static void *note_aligned(void *block, size_t alignment, size_t size, const void *caller) {
    if (block != NULL)
        note(RECORD_ALIGNED, block, size, log2_of(alignment), caller);
    return block;
}

EXPORT void *malloc(size_t size) {
    if (UNLIKELY(!is_started()))
        return nursery_malloc(size);
    void *block = real.malloc(size);
    if (block != NULL)
        note(RECORD_MALLOC, block, size, 0, CALLER);
    return block;
}

EXPORT void *calloc(size_t count, size_t size) {
    if (UNLIKELY(!is_started())) {
        size_t bytes;
        return __builtin_mul_overflow(count, size, &bytes) ? NULL : nursery_malloc(bytes);
    }
    void *block = real.calloc(count, size);
    if (block != NULL)
        note(RECORD_CALLOC, block, count * size, 0, CALLER);
    return block;
}

EXPORT void free(void *block) {
    if (block == NULL || UNLIKELY(in_nursery(block)))
        return;
    if (is_started()) {
        note(RECORD_FREE, block, 0, 0, NULL);
        real.free(block);
    }
}

/* A block from the nursery that outgrows it. */
static void *leave_nursery(void *block, size_t size) {
    void *copy = malloc(size);
    size_t old_size = nursery_size(block);
    if (copy != NULL)
        memcpy(copy, block, old_size < size ? old_size : size);
    return copy;
}

EXPORT void *realloc(void *block, size_t size) {
    if (UNLIKELY(in_nursery(block)))
        return leave_nursery(block, size);
    if (UNLIKELY(!is_started()))
        return nursery_malloc(size);
    if (block == NULL) {
        void *first = real.realloc(NULL, size);
        if (first != NULL)
            note(RECORD_MALLOC, first, size, 0, CALLER);
        return first;
    }
    note(RECORD_REALLOC_BEGIN, block, 0, 0, NULL);
    void *moved = real.realloc(block, size);
    note(RECORD_REALLOC_END, moved, size, 0, CALLER);
    return moved;
}

EXPORT void *memalign(size_t alignment, size_t size) {
    return is_started() ? note_aligned(real.memalign(alignment, size), alignment, size, CALLER)
                        : NULL;
}

EXPORT void *aligned_alloc(size_t alignment, size_t size) {
    return is_started() ? note_aligned(real.aligned_alloc(alignment, size), alignment, size, CALLER)
                        : NULL;
}

EXPORT int posix_memalign(void **ret_block, size_t alignment, size_t size) {
    if (!is_started())
        return ENOMEM;
    int result = real.posix_memalign(ret_block, alignment, size);
    if (result == 0)
        note_aligned(*ret_block, alignment, size, CALLER);
    return result;
}

EXPORT void *valloc(size_t size) {
    return is_started()
               ? note_aligned(real.valloc(size), (size_t)sysconf(_SC_PAGESIZE), size, CALLER)
               : NULL;
}

EXPORT void *pvalloc(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!is_started())
        return NULL;
    return note_aligned(real.pvalloc(size), page, (size + page - 1) / page * page, CALLER);
}
