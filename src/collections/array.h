/* Inside of an array: one block of the handle heap, elements first, so that the block's address and alignment
 * are the elements'. What the allocator has to know of the array is one word, in one of two places.
 *
 *   head   beside the handle table, in growing heaps; of blocks smaller than JF_LARGE_MIN:
 *          63..52 generation | 51..35 length | 34..22 stride / 16 | 21..7 element size | 6..0 flags
 *          [elements ...... | (zero byte of a string) | unused capacity]
 *
 *   tail   the block's last word, everywhere else; the head is 0 then:
 *          63..24 length | 23..8 element size, 0 = in the word before | 7 set | 6..0 flags
 *          [elements ...... | (zero byte of a string) | unused capacity | (element size) | tail]
 *
 * The head's address follows from the handle, as the entry's does: both are fetched side by side, and neither the
 * block's header nor its end is looked at. The generation tells it from what an earlier array at the entry has left.
 * Capacity is not kept in the tail: it is what the block's size leaves. When a block gets another size the word is
 * written anew.
 */
#ifndef JEFF_COLLECTIONS_ARRAY_H
#define JEFF_COLLECTIONS_ARRAY_H

#include "collections/blocks.h"
#include "heap/fast.h"
#include <jeff/array.h>

#include <string.h>

enum {
    JF_ARRAY_GROWTH_MASK = 3, /* enum rm_array_growth less 1 */
    JF_ARRAY_STRING = 4,
    JF_ARRAY_HINT_SHIFT = 3, /* the four hints */
    JF_ARRAY_MARK = 128,     /* set in every tail */
};

enum {
    JF_ARRAY_SOON = 4 << 10, /* bytes that may be copied in a read section */
    JF_ARRAY_FEW = 256,      /* smaller blocks that grow by half are doubled */
};

/* Of a head. */
enum {
    JF_ARRAY_HEAD_FLAGS = 127,
    JF_ARRAY_HEAD_ELEMENT = 7,
    JF_ARRAY_HEAD_GRAINS = 22,
    JF_ARRAY_HEAD_LENGTH = 35,
    JF_ARRAY_HEAD_GENERATION = 52,
    JF_ARRAY_HEAD_ELEMENT_MAX = (1 << (JF_ARRAY_HEAD_GRAINS - JF_ARRAY_HEAD_ELEMENT)) - 1,
    JF_ARRAY_HEAD_GRAINS_MAX = (1 << (JF_ARRAY_HEAD_LENGTH - JF_ARRAY_HEAD_GRAINS)) - 1,
    JF_ARRAY_HEAD_LENGTH_MAX = (1 << (JF_ARRAY_HEAD_GENERATION - JF_ARRAY_HEAD_LENGTH)) - 1,
};
_Static_assert(JF_LARGE_MIN / JF_GRAIN - 1 <= JF_ARRAY_HEAD_GRAINS_MAX &&
                   JF_LARGE_MIN - 1 <= JF_ARRAY_HEAD_LENGTH_MAX,
               "a head has room for the stride and the length of every block that has one");

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
    bool headed;  /* its entry has a head: it is of a growing heap */
};

/* Head of an array of a growing heap; NULL: it is of another. */
static inline jf_word *jf_array_head(rmarray_t array) {
#if JF_HAS_GROWING
    uintptr_t index = jf_fast_index((uintptr_t)array);
    return RM_LIKELY(index < JF_FAST(reach)) ? (jf_word *)JF_FAST(heads) + index : NULL;
#else
    (void)array;
    return NULL;
#endif
}

static inline size_t jf_array_head_element(jf_word head) {
    return (size_t)(head >> JF_ARRAY_HEAD_ELEMENT) & JF_ARRAY_HEAD_ELEMENT_MAX;
}

/* Bytes of the block. */
static inline size_t jf_array_head_size(jf_word head) {
    return ((size_t)(head >> JF_ARRAY_HEAD_GRAINS) & JF_ARRAY_HEAD_GRAINS_MAX) * JF_GRAIN -
           JF_HEADER_SIZE;
}

static inline size_t jf_array_head_length(jf_word head) {
    return (size_t)(head >> JF_ARRAY_HEAD_LENGTH) & JF_ARRAY_HEAD_LENGTH_MAX;
}

/* Whether what was read is the array's head. */
static inline bool jf_array_head_is_of(jf_word head, rmarray_t array) {
    return (head ^ (uintptr_t)array) >> JF_ARRAY_HEAD_GENERATION == 0 &&
           jf_array_head_element(head) != 0;
}

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

/* Bytes at the end of a block of this size in which the array is kept; 0: it has a head. */
static inline size_t jf_array_tail_size(const struct jf_array *open, size_t size) {
    if (open->headed && size < JF_LARGE_MIN - JF_HEADER_SIZE &&
        open->element_size <= JF_ARRAY_HEAD_ELEMENT_MAX)
        return 0;
    return open->element_size > JF_ARRAY_NARROW_MAX ? 2 * sizeof(jf_word) : sizeof(jf_word);
}

static inline bool jf_array_is_string(const struct jf_array *open) {
    return (open->flags & JF_ARRAY_STRING) != 0;
}

/* Bytes of a block for so many elements; false when that overflows or no array has so many. */
static inline bool jf_array_bytes(const struct jf_array *open, size_t length, size_t *ret_bytes) {
    size_t stride;
    return length <= JF_ARRAY_LENGTH_MAX &&
           jf_bits_multiply(length, open->element_size, ret_bytes) &&
           jf_bits_add(*ret_bytes, jf_array_is_string(open), ret_bytes) &&
           jf_block_stride(*ret_bytes, &stride) &&
           jf_bits_add(*ret_bytes, jf_array_tail_size(open, stride - JF_HEADER_SIZE), ret_bytes);
}

static inline size_t jf_array_capacity(const struct jf_array *open) {
    size_t most = (open->size - jf_array_tail_size(open, open->size) - jf_array_is_string(open)) /
                  open->element_size;
    return most < JF_ARRAY_LENGTH_MAX ? most : JF_ARRAY_LENGTH_MAX;
}

static inline unsigned char *jf_array_at(const struct jf_array *open, size_t index) {
    return open->elements + index * open->element_size;
}

static inline void jf_array_write_head(const struct jf_array *open) {
    jf_word head = ((jf_word)(uintptr_t)open->array &
                    ((jf_word)JF_GENERATION_MAX << JF_ARRAY_HEAD_GENERATION)) |
                   (jf_word)open->length << JF_ARRAY_HEAD_LENGTH |
                   (jf_word)((open->size + JF_HEADER_SIZE) / JF_GRAIN) << JF_ARRAY_HEAD_GRAINS |
                   (jf_word)open->element_size << JF_ARRAY_HEAD_ELEMENT |
                   (open->flags & JF_ARRAY_HEAD_FLAGS);
    jf_word_store(jf_array_head(open->array), head);
}

/* Writes a new length, and a string's end; the capacity suffices. */
static inline void jf_array_set_length(struct jf_array *open, size_t length) {
    open->length = length;
    if (jf_array_is_string(open))
        open->elements[length] = 0;
    if (RM_LIKELY(jf_array_tail_size(open, open->size) == 0)) {
        jf_array_write_head(open);
        return;
    }
    jf_word *tail = (jf_word *)(void *)(open->elements + open->size) - 1;
    size_t narrow = open->element_size > JF_ARRAY_NARROW_MAX ? 0 : open->element_size;
    *tail = (jf_word)length << 24 | (jf_word)narrow << 8 | JF_ARRAY_MARK | open->flags;
    if (narrow == 0)
        tail[-1] = open->element_size;
}

/* Reads what the tail of the block says, whose address and size are known. */
bool jf_array_read_tail(struct jf_array *open);

/* The size that its growth makes of a block's size. */
static inline size_t jf_array_grown(unsigned flags, size_t size) {
    switch ((flags & JF_ARRAY_GROWTH_MASK) + 1) {
    case RM_GROWTH_HALF:
        return size + (size < JF_ARRAY_FEW ? size : size / 2);
    case RM_GROWTH_DOUBLE:
        return size <= SIZE_MAX / 2 ? 2 * size : size;
    case RM_GROWTH_EIGHTH:
        return size + size / 8;
    default:
        return size;
    }
}

/* Of an area. */
enum { JF_ARRAY_AREA_FLAGS = RM_GROWTH_HALF - 1 };

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
