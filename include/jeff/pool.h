/* Jeff's pools: block heaps, which serve elements of one size out of blocks of many. A full pool adds a block, an
 * empty block goes back to the system, and rmpool_destroy gives everything back at once.
 *
 * Two kinds
 *   - stable (the default): elements are named by pointers and never move.
 *   - handles (RM_POOL_HANDLES): elements are named by handles of the handle table. rmlock, rmunlock, rmderef,
 *     weak locks, rmtrylock, rmsize, rmheap_of and rmfree work on them as on any block; rmrealloc and
 *     rmpurgeable do not (-1, EINVAL), and rmlock_long is a plain rmlock. rmpool_compact moves them.
 *
 * Conventions of this header, beside those of <jeff/jeff.h>
 *   - Pools live in growing heaps. Their memory counts in the heap's `committed` and limit; their elements are
 *     not among its `blocks`, and rmheap_destroy ends its pools too.
 *   - Misuse is always detected, and reported as <jeff/jeff.h> says: a double free, a pointer that is no element
 *     of a pool, an element of another pool. A double free by two threads at the very same time may be noticed
 *     only when the element is about to be given out twice, which is then reported and does not happen.
 *   - Threads: every call may be made from any thread; each thread keeps a few free elements of each pool at
 *     hand (at most 32 KiB, at least 2). An element may be freed by another thread than the one that got it.
 */
#ifndef JEFF_POOL_H
#define JEFF_POOL_H

#include <jeff/jeff.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------
 * Types
 * ------------------------------------------------------------------------------------------- */

/* A pool. NULL is none. */
typedef struct rm_pool *rmpool_t;

/* Options, to be added up. */
enum rm_pool_flag {
    RM_POOL_HANDLES = 1, /* elements behind handles, which rmpool_compact moves */
    RM_POOL_ZEROED = 2,  /* elements are given out zeroed; else their contents are undefined */
};

/* Options of a pool. Fill with rmpool_options_init first. */
struct rm_pool_options {
    size_t struct_size; /* set by rmpool_options_init */
    /* Of every element, bytes, a power of two up to 64 KiB. 0: the largest up to 16 that divides the element
     * size, at least 8. Handle pools: at least 16. */
    size_t alignment;
    unsigned flags; /* of enum rm_pool_flag */
};

/* Figures of one pool. */
struct rm_pool_stats {
    size_t element_size; /* bytes asked for */
    size_t stride;       /* bytes from element to element */
    size_t elements;     /* live */
    size_t capacity;     /* elements all blocks can hold */
    size_t blocks;
    size_t partial_blocks; /* neither full nor empty; what threads keep at hand is in use here */
    size_t empty_blocks;   /* kept for the next element */
    size_t block_elements; /* elements in a block */
    size_t committed;      /* bytes that may hold memory */
};

/* ---------------------------------------------------------------------------------------------
 * Life
 * ------------------------------------------------------------------------------------------- */

RM_API void rmpool_options_init(struct rm_pool_options *ret_options);

/* Creates a pool for elements of `element_size` bytes (1 or more) in `heap` (NULL: the default heap),
 * `elements_per_block` in each block (0: blocks of 1 MiB, or 64 elements if that is more; blocks are at most
 * 1 GiB). `options` may be NULL. No block is made before the first element. NULL with errno ENOMEM, or EINVAL
 * (bad option, a fixed heap). */
RM_API rmpool_t rmpool_create(rmheap_t heap, size_t element_size, size_t elements_per_block,
                              const struct rm_pool_options *options);

/* Frees every element and gives all memory back to the system at once. No other thread may be in a call on
 * the pool. NULL is a no-op. */
RM_API void rmpool_destroy(rmpool_t pool);

/* ---------------------------------------------------------------------------------------------
 * Elements
 * ------------------------------------------------------------------------------------------- */

/* An element of a stable pool; NULL with errno ENOMEM, as rmmalloc when memory runs out, or EINVAL in a pool of
 * handles. O(1). */
RM_API void *rmpool_alloc(rmpool_t pool);

/* Gives an element back. NULL is a no-op. errno is preserved. O(1), amortised. */
RM_API void rmpool_free(rmpool_t pool, void *element);

/* The same for a pool of handles. rmpool_free_handle is rmfree that also knows which pool is meant. A new
 * element is not locked. */
RM_API rmhandle_t rmpool_alloc_handle(rmpool_t pool);
RM_API void rmpool_free_handle(rmpool_t pool, rmhandle_t element);

/* ---------------------------------------------------------------------------------------------
 * Compaction
 * ------------------------------------------------------------------------------------------- */

/* Compacts a pool of handles for at most `max_us` microseconds (0: until there is nothing left to gain): moves
 * elements that are not locked out of the emptiest blocks into the fullest that have room, until at most one
 * block is neither full nor empty, and gives empty blocks back at once. One step, up to 64 elements and a block
 * given back, is done however few microseconds there are. Locks and read sections are respected as by rmcompact;
 * so are the heap's moved callback and the status. `ret_result` may be NULL. In a stable pool only gives empty
 * blocks back. Source of the algorithm: Edwards's two fingers (Knuth, TAOCP 1, 2.5,
 * exercise 33), with blocks in the order of their density instead of their address. */
RM_API rm_compact_status rmpool_compact(rmpool_t pool, uint32_t max_us,
                                        struct rm_compact_result *ret_result);

/* ---------------------------------------------------------------------------------------------
 * Questions
 * ------------------------------------------------------------------------------------------- */

/* Calls `visit` for every live element, in no order, until it returns nonzero; gives that value, or 0. `element`
 * is NULL in a pool of handles, `handle` in a stable one. `visit` may free the element that it is called for;
 * other elements must not be made or freed meanwhile by anybody. O(capacity). */
typedef int rm_pool_visit_fn(void *context, void *element, rmhandle_t handle);
RM_API int rmpool_visit(rmpool_t pool, rm_pool_visit_fn *visit, void *context);

/* The pool that an address is a live element's of; NULL when of none. Never misuse. For handles: of a locked
 * element. O(1). */
RM_API rmpool_t rmpool_of(const void *element);

/* Fills `ret_stats`. Exact when no other thread is in a call on the pool. O(capacity). */
RM_API void rmpool_stats(rmpool_t pool, struct rm_pool_stats *ret_stats);

#ifdef __cplusplus
}
#endif

#endif
