/* What the files of the public interface share: the one global state of the library, where a handle's
 * home is found, how misuse is reported. Top of the layers.
 */
#ifndef JEFF_API_H
#define JEFF_API_H

#include "check/check.h"
#include "collections/pool.h"
#include "compact/compact.h"
#include "handle/readers.h"
#include "heap/heap.h"
#include "heap/misuse.h"

enum { JF_FIXED_MAX = sizeof(uintptr_t) == 8 ? 256 : 16 }; /* fixed heaps at a time */

/* A fixed heap's place in the registry. Read without a lock by whoever looks for a handle's home, so
 * `heap` is set last and cleared first; `table` follows the heap's own, whose mutex guards it. */
struct jf_fixed_slot {
    struct jf_heap *heap;
    uintptr_t base;
    uintptr_t table;
    uintptr_t table_end;
};

/* Who has the inlined fast path. It never changes hands while the owner lives: a locker that found its
 * entry in the one table must not add the other's base to the address. */
enum jf_fast_owner { JF_FAST_NOBODY, JF_FAST_WINDOW, JF_FAST_FIXED };

struct jf_api {
    jf_word started;
    jf_mutex mutex;           /* creation and end of heaps; everything here that changes */
    struct jf_window *window; /* NULL until the first growing heap */
    uintptr_t entries;        /* of the window's table: all below are accessible */
    struct jf_heap *default_heap;
    struct jf_options options; /* of the default heap, when `configured` */
    bool configured;
    uint32_t checking; /* some heap has check level 2 or 3 */
    uint32_t slow;     /* some heap has a check level, or memory is marked: no fast path */
    enum jf_fast_owner fast_owner;
    uint32_t fixed_count; /* slots ever used */
    struct jf_fixed_slot fixed[JF_FIXED_MAX];
    struct jf_readers readers;
};
extern struct jf_api jf_api;

/* Where a handle's entry lies. */
struct jf_home {
    struct jf_space *space;
    struct jf_heap *fixed; /* NULL in a growing space */
    uint32_t index;
};

/* Prepares the global state; harmless when done before. */
void jf_api_start(void);

/* The window, created if need be; NULL when there is no address space. */
struct jf_window *jf_api_start_window(void);

/* The default heap, started if need be, in place of NULL; NULL when there is no memory. */
struct jf_heap *jf_api_start_default(void);
static inline struct jf_heap *jf_api_heap(rmheap_t heap) {
    if (heap != NULL)
        return (struct jf_heap *)heap;
    struct jf_heap *started = __atomic_load_n(&jf_api.default_heap, __ATOMIC_ACQUIRE);
    return RM_LIKELY(started != NULL) ? started : jf_api_start_default();
}

/* The same without starting it. */
static inline struct jf_heap *jf_api_heap_if_any(rmheap_t heap) {
    return heap != NULL ? (struct jf_heap *)heap
                        : __atomic_load_n(&jf_api.default_heap, __ATOMIC_ACQUIRE);
}

static inline struct jf_window *jf_api_window(void) {
    return JF_HAS_GROWING ? __atomic_load_n(&jf_api.window, __ATOMIC_ACQUIRE) : NULL;
}

/* False when the handle names no entry of a living table. Safe in signal handlers. */
bool jf_api_find(rmhandle_t handle, struct jf_home *ret_home);

/* The fixed heap whose table has the handle's entry, or had it when it was longest; NULL: none. Safe in signal
 * handlers. */
struct jf_heap *jf_api_find_fixed(rmhandle_t handle, bool longest, uint32_t *ret_index);

/* An entry of the window with this index is in use: its page is accessible. */
void jf_api_reach(uint32_t index);

/* To be called with a fixed heap's mutex held, after anything that may have moved its table's end. */
void jf_api_follow_table(struct jf_heap *heap);

/* The heap that the block of a word in this home belongs to; NULL when that cannot be told. */
struct jf_heap *jf_api_heap_of_word(const struct jf_home *home, jf_word word);

/* The calling thread's read section. */
struct rm_reader *jf_api_reader(void);

/* Takes the calling thread's section into the list of all, or out of it. */
void jf_api_reader_register(void);
void jf_api_reader_fork_child(void);

/* Reports a handle that names no entry: NULL or foreign. */
void jf_api_misuse_handle(const char *call, rmhandle_t handle);
/* Reports what an access to a handle's entry came to, other than OK, PURGED and WOULD_WAIT. */
void jf_api_misuse_access(const char *call, rmhandle_t handle, const struct jf_home *home,
                          enum jf_access access);
/* Reports misuse without a handle. */
void jf_api_misuse_call(const char *call, enum rm_misuse_kind kind, const char *detail);

/* At check levels 2 and 3: checks the whole heap after a call that has changed it. */
void jf_api_check_after(struct jf_heap *heap, const char *call);

/* What rmheap_aligned_alloc does, for the public call of that name. */
rmhandle_t jf_api_allocate(struct jf_heap *heap, size_t size, unsigned align_log2, bool zero,
                           const char *call);

/* As jf_blocks_insist. */
bool jf_api_insist(struct jf_heap *heap, size_t size, bool (*attempt)(void *context),
                   void *context);

/* What rmrealloc does, and how it comes out. */
struct jf_api_resizing {
    size_t size;
    size_t room;        /* as for jf_grow_resize */
    bool unlocked_only; /* not even where it lies when somebody has it locked */
    bool keep_only;     /* not when there is nothing to be kept: it was purged */
    bool in_need;       /* compact, purge and ask the program when there is no memory */
    const char *call;
};
/* ELEMENT: a pool's, which have one size; errno EINVAL. */
enum jf_api_resized {
    JF_API_RESIZED,
    JF_API_NO_ROOM,
    JF_API_LOCKED,
    JF_API_STALE,
    JF_API_PURGED,
    JF_API_ELEMENT,
};
enum jf_api_resized jf_api_resize(rmhandle_t handle, const struct jf_api_resizing *resizing);

/* What rmfree does, for the public call of that name. `handle` is not NULL. */
void jf_api_free(rmhandle_t handle, const char *call);

/* The pool's block that holds a payload address; NULL when none does. And whether the entry is of a pool's
 * element. */
struct jf_region *jf_api_pool_at(const struct jf_home *home, uintptr_t payload);
bool jf_api_is_element(const struct jf_home *home);

/* Bytes asked for in the block with this payload, which cannot move now. */
size_t jf_api_size_at(const struct jf_home *home, uintptr_t payload);

/* jf_access_lock and jf_access_unlock, with what a memory debugger is to be told. */
enum jf_access jf_api_count(const struct jf_home *home, rmhandle_t handle, bool may_wait,
                            void **ret_pointer);
enum jf_access jf_api_uncount(const struct jf_home *home, rmhandle_t handle);

/* As rmlock, rmlock_long and rmtrylock, whose name is `call`. */
void *jf_api_lock(const char *call, rmhandle_t handle, bool may_wait);

/* Tells a memory debugger the new size of a locked block that was resized where it lies. */
void jf_api_remark(const struct jf_home *home, size_t old_size);

#endif
