/* Unwinding, and which files the addresses lie in. */
#include "record_stack.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

#define THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))

enum { MODULES_LOG2 = 10, MODULES = 1 << MODULES_LOG2 };

struct walk {
    uint64_t *frames;
    uint64_t caller;
    unsigned count, limit;
    bool found; /* the frames of the recorder itself are behind us */
};

static _Atomic uintptr_t told[MODULES]; /* starts of files: open addressing; 0 = free */
static uint32_t stack_depth;
static THREAD_LOCAL bool unwinding;
/* The file that an address of this thread was in last. */
static THREAD_LOCAL uintptr_t last_start, last_end;
static THREAD_LOCAL uint32_t last_generation;
static _Atomic uint32_t generation;

void record_stack_begin(uint32_t depth) {
    for (unsigned i = 0; i < MODULES; i++)
        atomic_store_explicit(&told[i], 0, memory_order_relaxed);
    atomic_fetch_add(&generation, 1);
    stack_depth = depth < RECORD_STACK_MAX ? depth : RECORD_STACK_MAX;
}

static _Unwind_Reason_Code take_frame(struct _Unwind_Context *context, void *data) {
    struct walk *walk = data;
    uint64_t address = _Unwind_GetIP(context);
    walk->found |= address == walk->caller;
    if (address == 0 || walk->count == walk->limit)
        return _URC_END_OF_STACK;
    if (walk->found)
        walk->frames[walk->count++] = address;
    return walk->count == walk->limit ? _URC_END_OF_STACK : _URC_NO_REASON;
}

/* True the first time it is asked about a file. When there are more than fit, never again. */
static bool is_new(uintptr_t start) {
    size_t at = (size_t)(start * 0x9e3779b97f4a7c15u >> (64 - MODULES_LOG2));
    for (unsigned tries = 0; tries < MODULES; tries++, at = (at + 1) % MODULES) {
        uintptr_t there = atomic_load_explicit(&told[at], memory_order_relaxed);
        if (there == start)
            return false;
        if (there == 0 && atomic_compare_exchange_strong(&told[at], &there, start))
            return true;
        if (there == start)
            return false;
    }
    return false;
}

static void find_path(const struct link_map *map, char *ret_path) {
    memset(ret_path, 0, RECORD_PATH_MAX);
    if (map->l_name != NULL && map->l_name[0] != '\0')
        memcpy(ret_path, map->l_name, strnlen(map->l_name, RECORD_PATH_MAX - 1));
    else if (syscall(SYS_readlink, "/proc/self/exe", ret_path, RECORD_PATH_MAX - 1) < 0)
        ret_path[0] = '?';
}

static void look_at_file(uintptr_t address, record_module_fn *tell, void *context) {
    struct dl_find_object found;
    uint32_t now = atomic_load_explicit(&generation, memory_order_relaxed);
    if (last_generation == now && address - last_start < last_end - last_start)
        return;
    /* Waits for nobody and allocates nothing, as the unwinder relies on, too. */
    if (_dl_find_object((void *)address, &found) != 0) // NOLINT(performance-no-int-to-ptr)
        return;
    last_start = (uintptr_t)found.dlfo_map_start;
    last_end = (uintptr_t)found.dlfo_map_end;
    last_generation = now;
    if (!is_new(last_start))
        return;
    struct record_module module = {
        .start = last_start, .end = last_end, .base = found.dlfo_link_map->l_addr};
    find_path(found.dlfo_link_map, module.path);
    tell(context, &module);
}

unsigned record_stack_take(const void *caller, uint64_t *ret_frames, record_module_fn *tell,
                           void *context) {
    struct walk walk = {.frames = ret_frames, .caller = (uintptr_t)caller, .limit = stack_depth};
    if (unwinding)
        return 0;
    unwinding = true;
    _Unwind_Backtrace(take_frame, &walk);
    for (unsigned i = 0; i < walk.count; i++)
        look_at_file((uintptr_t)ret_frames[i], tell, context);
    unwinding = false;
    return walk.count;
}
