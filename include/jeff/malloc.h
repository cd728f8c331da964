/* Jeff's malloc: blocks named by pointers, which never move, out of the same arena as the blocks behind
 * handles. What a compaction frees serves these calls at once, and the reverse.
 *
 * The prefixed calls are part of libjeff, for programs that choose per call. The library libjeff-malloc
 * defines the standard names (malloc, free, operator new, ...) with the same meanings, for programs that
 * link to it or have it preloaded; a block may be got by one name and freed by the other.
 *
 *   - Every call may be made from any thread; a block may be freed by another thread than the one that got
 *     it. None is safe in a signal handler. A forked child may use all of them.
 *   - Every block is aligned to 16 bytes at least. Failure is NULL with errno ENOMEM; nothing has changed.
 *   - Freeing leaves errno alone.
 *   - Blocks behind handles do not move during any of these calls but jeff_malloc_trim.
 *   - Misuse prints one line that names the call and the pointer, and aborts: a block freed twice, a pointer
 *     that no call has given out, one into the middle of a block, a size at free that belongs to another size
 *     class. A write to a freed block never leads the library astray: it is reported where the library keeps
 *     something there. A block that was freed and given out again is the new owner's: freeing it by its first
 *     owner's pointer cannot be told from a right free.
 */
#ifndef JEFF_MALLOC_H
#define JEFF_MALLOC_H

#include <jeff/jeff.h>

#ifdef __cplusplus
extern "C" {
#endif

/* At least `size` bytes, contents undefined. A size of 0 gives a block of its own. O(1) but for new memory. */
RM_API void *jeff_malloc(size_t size);

/* Frees a block. NULL is a no-op. O(1) but for giving memory back. */
RM_API void jeff_free(void *pointer);

/* `count` times `size` bytes, all zero. NULL, too, when the product overflows. */
RM_API void *jeff_calloc(size_t count, size_t size);

/* Changes a block's size, and its address if need be: returns the block, contents kept up to the smaller of
 * the two sizes, or NULL with the block untouched. NULL allocates. A size of 0 frees the block and returns
 * NULL. Large blocks grow where they lie if they can, else by moving pages. */
RM_API void *jeff_realloc(void *pointer, size_t size);

/* Aligned blocks; `alignment` is a power of two, else NULL with errno EINVAL. */
RM_API void *jeff_aligned_alloc(size_t alignment, size_t size);

/* As jeff_aligned_alloc, but any alignment: the next power of two is taken. */
RM_API void *jeff_memalign(size_t alignment, size_t size);

/* 0 and the block; or EINVAL (alignment no power of two, or no multiple of a pointer's size) or ENOMEM, with
 * *ret_pointer and errno untouched. */
RM_API int jeff_posix_memalign(void **ret_pointer, size_t alignment, size_t size);

/* Aligned to the system's page; the second also rounds the size up to whole pages. */
RM_API void *jeff_valloc(size_t size);
RM_API void *jeff_pvalloc(size_t size);

/* Frees a block whose size, and alignment, the program knows: those given when it was allocated, or the size
 * of the last realloc. Others are misuse. NULL is a no-op. */
RM_API void jeff_free_sized(void *pointer, size_t size);
RM_API void jeff_free_aligned_sized(void *pointer, size_t alignment, size_t size);

/* Bytes of a block that the program may use, at least what it asked for; 0 for NULL. */
RM_API size_t jeff_malloc_usable_size(const void *pointer);

/* ---------------------------------------------------------------------------------------------
 * Areas: a block is a byte array
 * ------------------------------------------------------------------------------------------- */

/* The calls of <jeff/array.h> for bytes, on blocks named by pointers: the same code beneath, so the same growth
 * (half of the size more), and sums that overflow are found. An area is any block that a call above has given
 * out. Its length is all of its bytes until one of the calls below changes it; from then on it knows its length, in
 * 8 bytes of its own, and what it has beyond is capacity. NULL is an area of length 0, so that one begins as
 *
 *     void *text = jeff_area_append(NULL, "one", 3);
 *
 * Calls that may move the area return it, wherever it lies then; or NULL, and it is as it was, with errno ENOMEM
 * (no memory, or a sum that overflows) or EINVAL (an index beyond the length). `bytes` must not point into the
 * area. jeff_free ends it; jeff_realloc makes it a plain block again, as long as it was told; jeff_free_sized is for
 * plain blocks. Misuse as for all blocks; threads too: one at a time changes an area. */

/* O(1). */
RM_API size_t jeff_area_length(const void *area);

/* Bytes it may have without being moved; as jeff_malloc_usable_size. O(1). */
RM_API size_t jeff_area_capacity(const void *area);

/* Makes the capacity at least `capacity`, never smaller. O(length) when the area must move. */
RM_API void *jeff_area_reserve(void *area, size_t capacity);

/* Makes the length `length`; what is added has undefined contents; the capacity does not
 * become smaller but for those 8 bytes. */
RM_API void *jeff_area_resize(void *area, size_t length);

/* Gives back capacity beyond the length, save rounding. */
RM_API void *jeff_area_shrink(void *area);

/* Adds `count` bytes behind the last. O(count), amortised. */
RM_API void *jeff_area_append(void *area, const void *bytes, size_t count);

/* Puts `count` bytes before the one at `index`; takes out `count` from there on. O(length). */
RM_API void *jeff_area_insert(void *area, size_t index, const void *bytes, size_t count);
RM_API void *jeff_area_remove(void *area, size_t index, size_t count);

/* ------------------------------------------------------------------------------------------- */

/* Compacts the default heap, then gives back to the system what blocks of the calling thread, and freed
 * memory of the arena, still hold. Returns 1 when something was given back, else 0. `pad` is ignored. Moves
 * blocks behind handles. */
RM_API int jeff_malloc_trim(size_t pad);

/* Figures of the facade, of the whole process; other threads may change them meanwhile. */
struct jeff_malloc_figures {
    size_t struct_size;
    size_t blocks;            /* in use */
    size_t used;              /* bytes in them */
    size_t cached;            /* bytes of free blocks that threads keep at hand */
    size_t free;              /* bytes of other free blocks */
    size_t huge_blocks, huge; /* of those in use: with memory of their own */
    size_t kept;              /* bytes that nobody uses and that were not given back yet */
    size_t threads;           /* that have blocks at hand */
};

/* Fills in as much of the struct as its `struct_size`, set by the caller, says. */
RM_API void jeff_malloc_take_figures(struct jeff_malloc_figures *ret_figures);

/* Prints them to standard error. */
RM_API void jeff_malloc_stats(void);

#ifdef __cplusplus
}
#endif

#endif
