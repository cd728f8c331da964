/* What arrays and pools need of the public layer above them, with the public call's own name for reports of
 * misuse. api_collections.c implements it. Thread-safe as the block calls are.
 */
#ifndef JEFF_COLLECTIONS_BLOCKS_H
#define JEFF_COLLECTIONS_BLOCKS_H

#include "handle/readers.h"
#include "heap/heap.h"

/* The heap that the program means, started if need be; NULL with errno ENOMEM. */
struct jf_heap *jf_blocks_heap(rmheap_t heap);

/* As rmheap_aligned_alloc. */
rmhandle_t jf_blocks_allocate(struct jf_heap *heap, size_t size, unsigned align_log2, bool zero,
                              const char *call);

/* As rmfree. */
void jf_blocks_free(rmhandle_t handle, const char *call);

/* As rmlock. */
void *jf_blocks_lock(rmhandle_t handle, const char *call);

enum jf_blocks_resize {
    JF_BLOCKS_DONE,
    JF_BLOCKS_NO_ROOM,
    JF_BLOCKS_LOCKED,
    JF_BLOCKS_GONE, /* purged; or misuse, which has been reported */
};

/* Resizes a block that nobody has locked. `room` as for jf_grow_resize. `in_need`: when there is no memory
 * does all that the heap can do about it. errno is not set. */
enum jf_blocks_resize jf_blocks_resize(rmhandle_t handle, size_t size, size_t room, bool in_need,
                                       const char *call);

/* Of a locked block, by its payload. */
size_t jf_blocks_size(rmhandle_t handle, const void *payload);

struct jf_blocks_info {
    struct jf_heap *heap;
    unsigned align_log2;
    unsigned locks;
    size_t room; /* bytes of its chunk; 0 = it has none of its own */
};
void jf_blocks_info(rmhandle_t handle, const void *payload, struct jf_blocks_info *ret_info);

/* Makes a part of a locked block zero, without touching memory where that can be avoided. */
void jf_blocks_zero(rmhandle_t handle, void *payload, size_t offset, size_t size);

/* A part of a locked block will be written to at once: has its memory fetched in one go where that pays. */
void jf_blocks_expect(rmhandle_t handle, void *payload, size_t offset, size_t size);

/* --- Blocks of malloc, named by pointers. A pointer that names none ends the process.
 *
 * Whether the arrays have the block's last word; *ret_size: bytes of all of it. NULL is an empty one that they do
 * not have. */
bool jf_blocks_area(const void *pointer, size_t *ret_size, const char *call);
/* Gives the arrays the last word. */
void jf_blocks_make_area(void *pointer, const char *call);
/* Resizes it; the result is an area. NULL with errno ENOMEM, and nothing has changed. */
void *jf_blocks_resize_area(void *pointer, size_t size, size_t *ret_size, const char *call);

/* Calls `attempt` until it succeeds or nothing more can be done to get `size` bytes of memory; false then,
 * with errno ENOMEM. */
bool jf_blocks_insist(struct jf_heap *heap, size_t size, bool (*attempt)(void *context),
                      void *context);

/* An entry with this index was given out. */
void jf_blocks_reach(uint32_t index);

struct jf_readers *jf_blocks_readers(void);
const struct rm_reader *jf_blocks_reader(void);

/* After a call that has changed the heap, at check levels 2 and 3. */
void jf_blocks_check(struct jf_heap *heap, const char *call);

#endif
