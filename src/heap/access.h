/* Slow paths on the entries of either profile: locking, unlocking, looking, claiming, freeing. No locks are
 * held.
 */
#ifndef JEFF_HEAP_ACCESS_H
#define JEFF_HEAP_ACCESS_H

#include "handle/entry.h"

struct jf_heap;

/* What a slow path came to. */
enum jf_access {
    JF_ACCESS_OK,
    JF_ACCESS_PURGED,     /* no memory: NULL, no misuse */
    JF_ACCESS_WOULD_WAIT, /* trylock only */
    JF_ACCESS_STALE,
    JF_ACCESS_OVERFLOW,
    JF_ACCESS_NOT_LOCKED,
    JF_ACCESS_LOCKED,
};

/* Locks; on OK *ret_pointer is the payload. `heap` is the fixed heap to wait for, NULL in a growing
 * space. `may_wait` false: WOULD_WAIT instead. */
enum jf_access jf_access_lock(struct jf_space *space, struct jf_heap *fixed_heap, uint32_t index,
                              rmhandle_t handle, bool may_wait, void **ret_pointer);
enum jf_access jf_access_unlock(struct jf_space *space, uint32_t index, rmhandle_t handle);
/* Address for a read section: aborts a move under way. */
enum jf_access jf_access_deref(struct jf_space *space, struct jf_heap *fixed_heap, uint32_t index,
                               rmhandle_t handle, void **ret_pointer);
/* Address without a promise. Waits while the block is being resized. */
enum jf_access jf_access_peek(struct jf_space *space, uint32_t index, rmhandle_t handle,
                              void **ret_pointer);
/* Makes the entry RESIZING (exclusive); *ret_word is the word before. A locked one too, it keeps its
 * count: LOCKED, and it must not move. */
enum jf_access jf_access_claim(struct jf_space *space, uint32_t index, rmhandle_t handle,
                               jf_word *ret_word);
/* Gives such an entry up as it was: LIVE or PURGED. */
void jf_access_unclaim(struct jf_space *space, uint32_t index, jf_word before);
/* Makes the entry PENDING with the next generation. */
enum jf_access jf_access_free(struct jf_space *space, uint32_t index, rmhandle_t handle,
                              jf_word *ret_word);

#endif
