/* Inside of an array: one block of the handle heap, elements first, so that the block's address and alignment
 * are the elements'; in the last word of the block what the allocator has to know of the array.
 *
 *   [elements ...... | (zero byte of a string) | unused capacity | (element size) | tail]
 *
 *   tail  63..24 length | 23..8 element size, 0 = in the word before | 7..0 flags
 *
 * Capacity is not kept: it is what the block's size leaves. When a block gets another size its last words are
 * written anew at its new end.
 */
#ifndef JEFF_COLLECTIONS_ARRAY_H
#define JEFF_COLLECTIONS_ARRAY_H

#include "collections/blocks.h"
#include <jeff/array.h>

#include <string.h>

enum {
    JF_ARRAY_GROWTH_MASK = 3, /* enum rm_array_growth less 1 */
    JF_ARRAY_STRING = 4,
    JF_ARRAY_HINT_SHIFT = 3, /* the four hints */
    JF_ARRAY_MARK = 128,     /* set in every array */
};
#define JF_ARRAY_LENGTH_MAX ((size_t)((UINT64_MAX >> 24) & SIZE_MAX))
#define JF_ARRAY_NARROW_MAX ((size_t)0xffff)

/* An array that is locked by this call, or held by a read section; or an area of malloc (area.c), which nobody
 * moves and which is not closed. */
struct jf_array {
    rmarray_t array; /* NULL: an area */
    const char *call;
    unsigned char *elements;
    size_t size; /* of the block */
    size_t length;
    size_t element_size;
    unsigned flags;
    bool section; /* held by a read section */
};

/* Locks it. False, with errno EINVAL, when that cannot be: misuse, purged. */
bool jf_array_open(struct jf_array *ret_open, rmarray_t array, const char *call);

/* The same for a call that is done soon: in a read section of its own if that can be. It costs half as much as a
 * lock, whose atomic operations also keep the processor from fetching the next array before it is done with this
 * one. jf_array_make_room goes on under a lock when it gets more. */
bool jf_array_enter(struct jf_array *ret_open, rmarray_t array, const char *call);

/* Has what was entered go on under a lock, for a call that is not done soon after all. False as jf_array_open. */
bool jf_array_settle(struct jf_array *open);

/* Takes the lock back, or ends the section. */
static inline void jf_array_close(struct jf_array *open) {
    if (open->section)
        rmread_end();
    else
        rmunlock(rmarray_handle(open->array));
}

static inline size_t jf_array_tail_size(const struct jf_array *open) {
    return open->element_size > JF_ARRAY_NARROW_MAX ? 2 * sizeof(jf_word) : sizeof(jf_word);
}

static inline bool jf_array_is_string(const struct jf_array *open) {
    return (open->flags & JF_ARRAY_STRING) != 0;
}

/* Bytes of a block for so many elements; false when that overflows or no array has so many. */
static inline bool jf_array_bytes(const struct jf_array *open, size_t length, size_t *ret_bytes) {
    return length <= JF_ARRAY_LENGTH_MAX &&
           jf_bits_multiply(length, open->element_size, ret_bytes) &&
           jf_bits_add(*ret_bytes, jf_array_tail_size(open) + jf_array_is_string(open), ret_bytes);
}

static inline size_t jf_array_capacity(const struct jf_array *open) {
    size_t most =
        (open->size - jf_array_tail_size(open) - jf_array_is_string(open)) / open->element_size;
    return most < JF_ARRAY_LENGTH_MAX ? most : JF_ARRAY_LENGTH_MAX;
}

static inline unsigned char *jf_array_at(const struct jf_array *open, size_t index) {
    return open->elements + index * open->element_size;
}

/* Writes a new length, and a string's end; the capacity suffices. */
static inline void jf_array_set_length(struct jf_array *open, size_t length) {
    jf_word *tail = (jf_word *)(void *)(open->elements + open->size) - 1;
    size_t narrow = open->element_size > JF_ARRAY_NARROW_MAX ? 0 : open->element_size;
    open->length = length;
    *tail = (jf_word)length << 24 | (jf_word)narrow << 8 | open->flags;
    if (narrow == 0)
        tail[-1] = open->element_size;
    if (jf_array_is_string(open))
        open->elements[length] = 0;
}

/* Reads what the tail of the block says, whose address and size are known. */
bool jf_array_read_tail(struct jf_array *open);

/* Of an area. */
enum { JF_ARRAY_AREA_FLAGS = JF_ARRAY_MARK | (RM_GROWTH_HALF - 1) };

/* Gives the block so many bytes, or if `more` is more and memory at hand, that. As jf_array_make_room. */
bool jf_array_resize_to(struct jf_array *open, size_t bytes, size_t more);

/* Puts elements in before `index`, for which there is room; takes some out. */
void jf_array_put_in(struct jf_array *open, size_t index, const void *elements, size_t count);
void jf_array_take_out(struct jf_array *open, size_t index, size_t count);

/* Makes room for `more` elements behind the last; may unlock and lock again. False with errno set, the array
 * unchanged and locked; only when it is gone (misuse, purged meanwhile) it is not: `elements` is NULL then. */
bool jf_array_make_room(struct jf_array *open, size_t more);

/* Ends a call that has failed: takes the lock back if there is still one. Gives -1. */
int jf_array_fail(struct jf_array *open);

/* Copies one element; the common sizes without a call. */
static inline void jf_array_copy_one(void *to, const void *from, size_t size) {
    switch (size) {
    case 1:
        memcpy(to, from, 1);
        break;
    case 4:
        memcpy(to, from, 4);
        break;
    case 8:
        memcpy(to, from, 8);
        break;
    default:
        memcpy(to, from, size);
    }
}

#endif
