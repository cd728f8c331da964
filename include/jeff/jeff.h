/* Jeff: a compacting allocator. Memory is named by handles and may move while it is not locked.
 *
 * Conventions of this header
 *   - Sizes, alignments and limits are bytes; times are milliseconds (`_ms`) or microseconds (`_us`).
 *   - Every call may be made from any thread unless its comment says otherwise. None is safe in a
 *     signal handler except rmlock, rmtrylock, rmunlock, rmweaklock, rmweak_valid and the read section;
 *     of these only rmtrylock where the handler may have interrupted rmrealloc of the same block, a growing
 *     call on the same array or, in a fixed heap, a compaction: the others would wait for what they
 *     interrupted.
 *   - "Moves blocks" in a comment means that unlocked blocks of that heap may change their address
 *     during the call. A call that does not say so moves nothing.
 *   - Misuse (a stale or foreign handle, a double free, an unlock without lock, ...) is always
 *     detected where the comments say so: the heap's misuse callback is asked, and without one the
 *     process prints one line that names the call and the handle, and aborts. When the callback
 *     lets the program go on, the call has had no effect and returns its error value.
 *   - errno is set where the comment says so in hosted builds; freestanding builds have no errno.
 */
#ifndef JEFF_JEFF_H
#define JEFF_JEFF_H

#include <stddef.h>
#include <stdint.h>

#include <jeff/version.h>

#if defined(__GNUC__) || defined(__clang__)
#define RM_API __attribute__((visibility("default")))
#define RM_LIKELY(condition) __builtin_expect(!!(condition), 1)
#else
#define RM_API
#define RM_LIKELY(condition) (condition)
#endif

/* The calls that <jeff/inline.h> defines. */
#if defined(RM_NO_INLINE)
#define RM_INLINE
#else
#define RM_INLINE inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------
 * Types
 * ------------------------------------------------------------------------------------------- */

/* Names one block. Never a pointer to memory: only rmlock and its kin give that. NULL is no block. */
typedef struct rm_block *rmhandle_t;

/* A heap. NULL where a heap is asked for means the default heap. */
typedef struct rm_heap *rmheap_t;

/* Why a compaction stopped. */
typedef enum rm_compact_status {
    RM_COMPACT_DONE = 0,      /* nothing left to gain: the next call returns at once */
    RM_COMPACT_BUDGET = 1,    /* the time was used up; call again to go on */
    RM_COMPACT_LOCKED = 2,    /* the rest is held by locked blocks or open read sections */
    RM_COMPACT_NOT_WORTH = 3, /* what is left would cost more than it gives back */
} rm_compact_status;

/* What a compaction did. All byte counts include block headers. */
struct rm_compact_result {
    rm_compact_status status;
    uint32_t elapsed_us;     /* wall time of the call, microseconds */
    uint64_t blocks_moved;   /* blocks */
    uint64_t bytes_moved;    /* bytes */
    uint64_t bytes_released; /* given back to the system, or (fixed) joined to the free end */
    uint64_t moves_aborted;  /* given up because somebody locked or freed the block meanwhile */
    uint64_t blocks_locked;  /* locked blocks met that kept their place */
    uint64_t bytes_locked;   /* dead bytes that could not be given back because of them */
};

/* The kinds of misuse that are detected. */
enum rm_misuse_kind {
    RM_MISUSE_NULL_HANDLE = 1,
    RM_MISUSE_FOREIGN_HANDLE,  /* no heap ever gave out this value */
    RM_MISUSE_STALE_HANDLE,    /* the block was freed; also a double free */
    RM_MISUSE_FREE_LOCKED,     /* freed while locked */
    RM_MISUSE_UNLOCK_UNLOCKED, /* unlock without lock */
    RM_MISUSE_LOCK_OVERFLOW,   /* more than RM_LOCKS_MAX locks at a time on one block */
    RM_MISUSE_READ_SECTION,    /* rmread_end or rmderef outside a read section */
    RM_MISUSE_BAD_ARGUMENT,    /* e.g. an alignment that is no power of two */
    RM_MISUSE_HEAP_FAULT,      /* a check found the heap broken (check levels 2 and 3) */
    RM_MISUSE_DOUBLE_FREE,     /* of a pool's element by its pointer */
    RM_MISUSE_FOREIGN_POINTER, /* no element of a pool lies there */
    RM_MISUSE_WRONG_POOL,      /* an element of another pool */
};

struct rm_misuse {
    enum rm_misuse_kind kind;
    const char *call;    /* the public function, e.g. "rmfree" */
    rmhandle_t handle;   /* as given by the program */
    rmheap_t heap;       /* NULL when no heap could be told */
    const char *message; /* the whole line, without newline */
};

enum { RM_LOCKS_MAX = 2048 };       /* locks at a time on one block */
enum { RM_PURGE_PRIORITY_MAX = 7 }; /* the last to be emptied */

/* A block has moved, by a compaction, by scrambling or by rmlock_long: it was at `address` after the move.
 * Called on the thread that made the call, with no lock of the library held: where other threads lock, free
 * and compact meanwhile, the block may have moved on or have been freed by then. Not called for rmrealloc.
 * Inside, only lock, unlock, weaklock and deref are allowed. */
typedef void rm_moved_fn(void *context, rmhandle_t handle, void *address, size_t size);

/* Memory ran out for a request of `size` bytes, after compacting and purging. Return nonzero when
 * something was freed and the request is worth another try, 0 to let it fail. Called with no lock of
 * the library held; inside, lock, unlock, deref, rmfree and rmpurgeable are allowed. */
typedef int rm_memory_low_fn(void *context, size_t size);

/* Misuse was detected. Return nonzero to go on (the call then has no effect), 0 to print and abort. Where the
 * heap cannot be told the default heap's callback is asked: for a NULL or foreign handle. Growing heaps share
 * their entries: a stale handle of one counts as the heap's that uses its entry now, and as nobody's when
 * none does. */
typedef int rm_misuse_fn(void *context, const struct rm_misuse *misuse);

/* Options of a heap. Fill with rmoptions_init first, so that a program built today goes on working
 * with a library that knows more options. The environment names (JEFF_LIMIT=256M, JEFF_CHECK=2,
 * JEFF_SCRAMBLE=100,42, JEFF_RETIRE=1) set the same fields of the default heap when the program has
 * not configured it; they are ignored in programs that run setuid or setgid. */
struct rm_options {
    size_t struct_size; /* set by rmoptions_init */
    /* JEFF_LIMIT: most bytes of memory the heap may hold; 0 = no limit. Growing heaps only. */
    size_t limit;
    /* JEFF_CHECK: 0 none, 1 cheap assertions, 2 full check after every call, 3 also scramble. */
    unsigned check;
    /* JEFF_SCRAMBLE=period[,seed]: move every unlocked block at every period-th allocation; 0 = never.
     * The seed chooses the order in which they are moved; printed when a check fails. */
    unsigned scramble_period;
    uint64_t scramble_seed;
    /* JEFF_RETIRE: 1 = never reuse an entry whose generations are used up (4095 reuses). */
    int retire;
    void *context; /* handed to the callbacks */
    rm_moved_fn *moved;
    rm_memory_low_fn *memory_low;
    rm_misuse_fn *misuse;
};

/* Figures of a heap, in bytes unless another unit is named. */
struct rm_stats {
    size_t struct_size;      /* bytes of this struct that the library has figures for */
    uint64_t blocks;         /* live blocks */
    uint64_t live;           /* bytes of live blocks with headers, rounded as they lie */
    uint64_t requested;      /* bytes the program asked for in the live blocks */
    uint64_t locked_blocks;  /* blocks locked now */
    uint64_t locked;         /* their bytes */
    uint64_t purgeable;      /* bytes in blocks marked purgeable */
    uint64_t reserved;       /* address space reserved; growing heaps share one window */
    uint64_t committed;      /* memory held for blocks, whole pages */
    uint64_t peak_committed; /* the most that ever was */
    uint64_t table;          /* bytes of handle table in use, at its peak: entries cannot move */
    uint64_t overhead;       /* all other bookkeeping */
    uint64_t holes;          /* dead spaces between blocks */
    uint64_t hole_bytes;     /* bytes in them */
    uint64_t largest_free;   /* largest block to be had now without compacting */
    uint64_t largest_after;  /* largest to be had after a full compaction, locks as now */
    uint64_t regions;        /* regions */
    uint64_t large_blocks;   /* blocks with a chunk of their own */
    uint64_t compactions;    /* calls of rmcompact and rmcompact_us */
    uint64_t blocks_moved;   /* by all compactions */
    uint64_t bytes_moved;
    uint64_t bytes_released;
    uint64_t moves_aborted;
    uint64_t later[8]; /* 0; figures of later versions, which struct_size then includes */
};

/* What rmcheck found first. */
struct rm_fault {
    int rule;            /* number of the rule, see docs: design/rules; 0 = none */
    const char *name;    /* its short name */
    rmhandle_t handle;   /* the block concerned, if any */
    const void *address; /* where, if anywhere */
    const char *text;    /* what was expected */
};

/* ---------------------------------------------------------------------------------------------
 * Heaps
 * ------------------------------------------------------------------------------------------- */

/* Makes the default heap live inside `buffer` of `size` bytes (4 KiB or more), everything included;
 * no system call is made for memory from then on. Optional: without it the default heap grows from
 * the operating system at the first allocation. To be called before any other call on the default
 * heap. Returns 0, or -1 with errno EINVAL (buffer NULL or too small) or EBUSY (default heap in use). */
RM_API int rminit(void *buffer, size_t size);

/* Ends the default heap: every block is freed, every handle of it stale. No other thread may be in a
 * call on it. A later call starts a new default heap. No-op when there is none. */
RM_API void rmdestroy(void);

/* Fills `ret_options` with the defaults. */
RM_API void rmoptions_init(struct rm_options *ret_options);

/* Sets the options of the default heap, now or for the time it starts. No other thread may be in a call on
 * it. Returns 0, or -1 with errno EINVAL (options from no rmoptions_init; limit on a fixed heap) and
 * nothing changed. */
RM_API int rmconfigure(const struct rm_options *options);

/* Creates a heap that grows from the operating system. `options` may be NULL. All growing heaps share
 * one address range and one handle table. Returns NULL with errno ENOMEM, or EINVAL for bad options. */
RM_API rmheap_t rmheap_create(const struct rm_options *options);

/* Creates a heap inside `buffer` of `size` bytes (4 KiB or more), as rminit does. Returns NULL with
 * errno EINVAL (buffer NULL or too small, bad options) or ENOMEM (too many fixed heaps: 256). */
RM_API rmheap_t rmheap_create_in(void *buffer, size_t size, const struct rm_options *options);

/* Frees every block of the heap and the heap. Handles of it become stale. No other thread may be in a
 * call on it. NULL is a no-op (the default heap is ended by rmdestroy). */
RM_API void rmheap_destroy(rmheap_t heap);

/* As rmconfigure, for `heap`. */
RM_API int rmheap_configure(rmheap_t heap, const struct rm_options *options);

/* The default heap, started if need be; NULL with errno ENOMEM when it cannot be. */
RM_API rmheap_t rmheap_default(void);

/* The heap of a handle's block; NULL for a stale or foreign handle (a question, not misuse). O(1). */
RM_API rmheap_t rmheap_of(rmhandle_t handle);

/* ---------------------------------------------------------------------------------------------
 * Blocks
 * ------------------------------------------------------------------------------------------- */

/* Allocates a block of `size` bytes, 16-byte aligned, contents undefined, not locked. A size of 0
 * gives a handle of its own to a block of 0 usable bytes. When memory runs out: compacts (moves
 * blocks), empties purgeable blocks, asks the memory_low callback, tries again; then returns NULL with
 * errno ENOMEM and the heap as it was. Constant time while memory is at hand. */
RM_API rmhandle_t rmmalloc(size_t size);
RM_API rmhandle_t rmheap_malloc(rmheap_t heap, size_t size);

/* As rmmalloc for count * size bytes, all zero. Overflow of the product: NULL, errno ENOMEM. */
RM_API rmhandle_t rmcalloc(size_t count, size_t size);
RM_API rmhandle_t rmheap_calloc(rmheap_t heap, size_t count, size_t size);

/* As rmmalloc with the payload aligned to `alignment`, a power of two (at least 16 is used), wherever
 * the block moves. `size` need not be a multiple. Any other alignment: NULL, errno EINVAL. The largest
 * alignment is 512 KiB; more: NULL, errno EINVAL. */
RM_API rmhandle_t rmaligned_alloc(size_t alignment, size_t size);
RM_API rmhandle_t rmheap_aligned_alloc(rmheap_t heap, size_t alignment, size_t size);

/* Changes the size of a block; the handle stays, contents stay up to the smaller size, alignment too.
 * The block may move, others only if memory runs out (as in rmmalloc). A locked block is resized only
 * if that needs no move. A purged block is given new memory, contents undefined, and is no longer
 * purgeable. Returns 0, or -1 with errno ENOMEM, or EBUSY (locked and would have to move) and the block
 * untouched. Misuse detected: NULL, stale, foreign. While it runs, rmtrylock on the block gives NULL
 * and rmlock waits. O(size) when it must move. */
RM_API int rmrealloc(rmhandle_t handle, size_t size);

/* Frees a block. NULL is a no-op. Misuse detected: stale (double free), foreign, locked. errno is
 * preserved. Constant time, amortised. */
RM_API void rmfree(rmhandle_t handle);

/* The bytes usable in the block: exactly what was asked for. 0 for a purged block. O(1).
 * Misuse detected (0 returned): NULL, stale, foreign. */
RM_API size_t rmsize(rmhandle_t handle);

/* The handle of a locked block, given the pointer that rmlock returned. NULL when that is no payload
 * address of a locked block of a living heap; never misuse. O(1). */
RM_API rmhandle_t rmhandle_of(const void *locked_pointer);

/* Marks a block as one that may be emptied when memory runs out, lowest priority first: 1 to
 * RM_PURGE_PRIORITY_MAX; 0 takes the mark away. Larger or negative values are clamped. A locked block
 * is not emptied while it is locked. After it has been emptied rmlock gives NULL, rmsize 0;
 * rmrealloc gives it memory again, rmfree frees it. Returns 0, or 1 when the block is empty already
 * (and stays marked so), -1 for misuse detected: NULL, stale, foreign. O(1). */
RM_API int rmpurgeable(rmhandle_t handle, int priority);

/* ---------------------------------------------------------------------------------------------
 * Locks
 * ------------------------------------------------------------------------------------------- */

/* Locks the block and gives its address, which holds until the matching rmunlock. Counted: locks
 * nest, and every one needs its own unlock; any thread may unlock. In a growing heap it never waits,
 * not even for a compaction that is moving this very block; it waits only while another thread is in
 * rmrealloc on the block and, in a fixed heap, while at most 64 KiB, or one larger block, are
 * being slid. NULL only for a
 * purged block, and for misuse detected: NULL, stale, foreign, overflow (RM_LOCKS_MAX). O(1). */
RM_API RM_INLINE void *rmlock(rmhandle_t handle);

/* As rmlock, but gives NULL instead of waiting. O(1), never blocks. */
RM_API void *rmtrylock(rmhandle_t handle);

/* As rmlock, for locks that will be held long: moves the block (only this one, and only if it is not
 * locked) to where a long lock hinders compaction least. If there is no room for that, it is a plain
 * rmlock. O(size). */
RM_API void *rmlock_long(rmhandle_t handle);

/* Takes back one lock. Misuse detected: not locked, NULL, stale, foreign. An unlock too many while
 * another holder has the block locked cannot be told apart from that holder's own. O(1). */
RM_API RM_INLINE void rmunlock(rmhandle_t handle);

/* The block's address without a promise: good until the block moves or is freed. The memory stays
 * readable after a move, but holds something else: read first, then ask rmweak_valid, and throw away
 * what was read when it says 0. Never write through it. NULL for a purged block, and for misuse
 * detected: NULL, stale, foreign. O(1). */
RM_API void *rmweaklock(rmhandle_t handle);

/* 1 when the block is where rmweaklock said, 0 when it has moved or was freed. Never misuse. A block
 * that went away and came back to the same address in between, which takes two compactions, is not
 * noticed. O(1). */
RM_API int rmweak_valid(rmhandle_t handle, const void *pointer);

/* ---------------------------------------------------------------------------------------------
 * Read sections: many blocks read at the price of one load each
 * ------------------------------------------------------------------------------------------- */

/* Opens a read section of the calling thread. Sections nest. While one is open, no block this thread
 * has dereferenced in it moves; nobody waits for anybody. Keep sections short: the compactor leaves
 * blocks alone rather than wait. */
RM_API RM_INLINE void rmread_begin(void);

/* The block's address, good until the section ends. The block must not be freed or resized meanwhile.
 * NULL for a purged block, and for misuse detected: NULL, stale, foreign; outside a section at check
 * levels 1 and above. Waits only where rmlock would. O(1). */
RM_API RM_INLINE void *rmderef(rmhandle_t handle);

/* Closes it. Misuse detected: no section open. */
RM_API RM_INLINE void rmread_end(void);

/* ---------------------------------------------------------------------------------------------
 * Compaction, figures, check
 * ------------------------------------------------------------------------------------------- */

/* Compacts the heap for at most `max_ms` milliseconds; 0 = until there is nothing left to gain. Moves
 * unlocked blocks to lower or denser places and gives the memory this frees back. Goes on where the
 * last call stopped. Says why it stopped. Other threads may go on with everything; a second compaction
 * of the same heap at the same time returns RM_COMPACT_BUDGET at once. */
RM_API rm_compact_status rmcompact(uint32_t max_ms);
RM_API rm_compact_status rmheap_compact(rmheap_t heap, uint32_t max_ms);

/* The same in microseconds, with what was done in `ret_result` (may be NULL). */
RM_API rm_compact_status rmcompact_us(uint32_t max_us, struct rm_compact_result *ret_result);
RM_API rm_compact_status rmheap_compact_us(rmheap_t heap, uint32_t max_us,
                                           struct rm_compact_result *ret_result);

/* Fills `ret_stats`. Walks the heap: O(blocks). Figures are exact when no other thread is in a call,
 * approximate else. All zero when the heap has not started. */
RM_API void rmstats(struct rm_stats *ret_stats);
RM_API void rmheap_stats(rmheap_t heap, struct rm_stats *ret_stats);

/* The same without the walk: locked_*, purgeable, requested, holes, hole_bytes, largest_after stay 0.
 * O(regions). */
RM_API void rmstats_brief(struct rm_stats *ret_stats);
RM_API void rmheap_stats_brief(rmheap_t heap, struct rm_stats *ret_stats);

/* Walks everything and checks every rule the heap lives by. Returns 0 when all hold, else the number
 * of the first broken rule, with details in `ret_fault` (may be NULL). Reports only; never aborts.
 * Other threads should not be in calls on this heap; what they have in hand is left out. O(blocks). */
RM_API int rmcheck(struct rm_fault *ret_fault);
RM_API int rmheap_check(rmheap_t heap, struct rm_fault *ret_fault);

/* Calls `visit` for every live block, in address order within each region, until it returns nonzero;
 * gives that value, or 0. `visit` may not call the library. O(blocks). */
struct rm_block_info {
    rmhandle_t handle;
    const void *address;
    size_t size;        /* bytes asked for */
    unsigned locks;     /* held now */
    unsigned alignment; /* bytes */
    unsigned priority;  /* purge priority, 0 = not purgeable */
    int large;          /* has a chunk of its own */
};
typedef int rm_visit_fn(void *context, const struct rm_block_info *info);
RM_API int rmvisit(rm_visit_fn *visit, void *context);
RM_API int rmheap_visit(rmheap_t heap, rm_visit_fn *visit, void *context);

#include <jeff/inline.h>

#ifdef __cplusplus
}
#endif

#endif
