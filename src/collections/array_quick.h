/* The way most single calls take: the array has a head, its entry is plainly live, and what is to be added fits. Such
 * a call is one function without calls: entry and head are fetched side by side, and nothing waits for what is
 * written to the block. Whatever is out of the ordinary goes the way of jf_array_enter.
 */
#ifndef JEFF_COLLECTIONS_ARRAY_QUICK_H
#define JEFF_COLLECTIONS_ARRAY_QUICK_H

#include "collections/array.h"

struct jf_array_quick {
    jf_word *place; /* of the head */
    jf_word head;
    jf_word word; /* the entry's */
    unsigned char *elements;
};

/* Copies up to 64 bytes without a call, in two or four pieces that may overlap each other. */
static inline void jf_array_copy_few(unsigned char *to, const unsigned char *from, size_t size) {
    struct quarter {
        unsigned char byte[16];
    };
    if (size > 64) {
        memcpy(to, from, size);
    } else if (size > 32) {
        struct quarter a, b, c, d;
        memcpy(&a, from, 16);
        memcpy(&b, from + 16, 16);
        memcpy(&c, from + size - 32, 16);
        memcpy(&d, from + size - 16, 16);
        memcpy(to, &a, 16);
        memcpy(to + 16, &b, 16);
        memcpy(to + size - 32, &c, 16);
        memcpy(to + size - 16, &d, 16);
    } else if (size >= 16) {
        struct quarter a, b;
        memcpy(&a, from, 16);
        memcpy(&b, from + size - 16, 16);
        memcpy(to, &a, 16);
        memcpy(to + size - 16, &b, 16);
    } else if (size >= 8) {
        uint64_t a, b;
        memcpy(&a, from, 8);
        memcpy(&b, from + size - 8, 8);
        memcpy(to, &a, 8);
        memcpy(to + size - 8, &b, 8);
    } else if (size >= 4) {
        uint32_t a, b;
        memcpy(&a, from, 4);
        memcpy(&b, from + size - 4, 4);
        memcpy(to, &a, 4);
        memcpy(to + size - 4, &b, 4);
    } else if (size != 0) {
        to[0] = from[0];
        to[size / 2] = from[size / 2];
        to[size - 1] = from[size - 1];
    }
}

/* Holds the array by a read section; false when it is not held. */
static inline bool jf_array_quick_enter(struct jf_array_quick *ret_quick, rmarray_t array) {
#if JF_HAS_GROWING
    uintptr_t bits = (uintptr_t)array;
    jf_word *place = JF_MARK_ACTIVE ? NULL : jf_array_head(array);
    if (!RM_LIKELY(place != NULL))
        return false;
    jf_word head = __atomic_load_n(place, __ATOMIC_RELAXED);
    rmread_begin();
    jf_word word = __atomic_load_n((jf_word *)(bits & RM_HANDLE_ENTRY), __ATOMIC_ACQUIRE);
    if (RM_LIKELY(jf_array_head_is_of(head, array) &&
                  RM_WORD_DIFFERS_(word, bits, 0) == RM_ENTRY_LIVE)) {
        ret_quick->place = place;
        ret_quick->head = head;
        ret_quick->word = word;
        ret_quick->elements = (unsigned char *)JF_FAST(base) + jf_entry_offset(word);
        return true;
    }
    rmread_end();
#else
    (void)ret_quick;
    (void)array;
#endif
    return false;
}

static inline void jf_array_quick_set_length(const struct jf_array_quick *quick, size_t length) {
    jf_word mask = (jf_word)JF_ARRAY_HEAD_LENGTH_MAX << JF_ARRAY_HEAD_LENGTH;
    __atomic_store_n(quick->place, (quick->head & ~mask) | (jf_word)length << JF_ARRAY_HEAD_LENGTH,
                     __ATOMIC_RELAXED);
}

/* Gives what was entered room for so many bytes, and more by its growth; false, and it is still held as before, when
 * that is not so simple. */
#if JF_HAS_GROWING
bool jf_array_quick_grow(struct jf_array_quick *quick, size_t kept, size_t bytes);
#else
static inline bool jf_array_quick_grow(struct jf_array_quick *quick, size_t kept, size_t bytes) {
    (void)quick, (void)kept, (void)bytes;
    return false;
}
#endif

/* Adds elements behind the last; false, and nothing done, when that is not so simple. */
static inline bool jf_array_quick_append(rmarray_t array, const void *elements, size_t count) {
    struct jf_array_quick quick;
    if (!RM_LIKELY(count <= JF_ARRAY_HEAD_LENGTH_MAX && jf_array_quick_enter(&quick, array)))
        return false;
    size_t element_size = jf_array_head_element(quick.head);
    size_t length = jf_array_head_length(quick.head);
    bool string = (quick.head & JF_ARRAY_STRING) != 0;
    size_t offset = length * element_size;
    size_t bytes = count * element_size;
    bool done =
        bytes <= JF_ARRAY_SOON && (offset + bytes + string <= jf_array_head_size(quick.head) ||
                                   jf_array_quick_grow(&quick, offset, offset + bytes + string));
    if (RM_LIKELY(done)) {
        unsigned char *end = quick.elements + offset;
        jf_array_quick_set_length(&quick, length + count);
        jf_array_copy_few(end, elements, bytes);
        if (string)
            end[bytes] = 0;
    }
    rmread_end();
    return done;
}

#endif
