/* Arrays: elements in and out, and the append cursor. */
#include "collections/array_quick.h"

enum {
    PIECE = 256 << 10,       /* bytes that a cursor makes ready at a time */
    PIECE_WORTH = 512 << 10, /* in arrays from this size up */
    HUGE_WORTH = 32 << 20,   /* from here up the pieces are huge pages */
};

static int bad_index(struct jf_array *open) {
    jf_os_set_errno(JF_OS_EINVAL);
    return jf_array_fail(open);
}

/* For a call that copies one element. */
static inline bool enter(struct jf_array *ret_open, rmarray_t array, const char *call) {
    return jf_array_enter(ret_open, array, call) &&
           (RM_LIKELY(ret_open->element_size <= JF_ARRAY_SOON) || jf_array_settle(ret_open));
}

int rmarray_push(rmarray_t array, const void *element) {
    struct jf_array open;
    if (RM_LIKELY(jf_array_quick_append(array, element, 1)))
        return 0;
    if (!enter(&open, array, "rmarray_push"))
        return -1;
    if (!jf_array_make_room(&open, 1))
        return jf_array_fail(&open);
    jf_array_copy_one(jf_array_at(&open, open.length), element, open.element_size);
    jf_array_set_length(&open, open.length + 1);
    jf_array_close(&open);
    return 0;
}

int rmarray_pop(rmarray_t array, void *ret_element) {
    struct jf_array open;
    if (!enter(&open, array, "rmarray_pop"))
        return -1;
    if (open.length == 0)
        return bad_index(&open);
    if (ret_element != NULL)
        jf_array_copy_one(ret_element, jf_array_at(&open, open.length - 1), open.element_size);
    jf_array_set_length(&open, open.length - 1);
    jf_array_close(&open);
    return 0;
}

int rmarray_get(rmarray_t array, size_t index, void *ret_element) {
    struct jf_array open;
    if (!enter(&open, array, "rmarray_get"))
        return -1;
    if (index >= open.length)
        return bad_index(&open);
    jf_array_copy_one(ret_element, jf_array_at(&open, index), open.element_size);
    jf_array_close(&open);
    return 0;
}

int rmarray_set(rmarray_t array, size_t index, const void *element) {
    struct jf_array open;
    if (!enter(&open, array, "rmarray_set"))
        return -1;
    if (index >= open.length)
        return bad_index(&open);
    jf_array_copy_one(jf_array_at(&open, index), element, open.element_size);
    jf_array_close(&open);
    return 0;
}

void jf_array_put_in(struct jf_array *open, size_t index, const void *elements, size_t count) {
    size_t bytes = count * open->element_size;
    size_t behind = (open->length - index) * open->element_size;
    unsigned char *to = jf_array_at(open, index);
    if (behind != 0)
        memmove(to + bytes, to, behind);
    if (bytes != 0)
        memcpy(to, elements, bytes);
    jf_array_set_length(open, open->length + count);
}

void jf_array_take_out(struct jf_array *open, size_t index, size_t count) {
    size_t behind = (open->length - index - count) * open->element_size;
    memmove(jf_array_at(open, index), jf_array_at(open, index + count), behind);
    jf_array_set_length(open, open->length - count);
}

/* Puts elements in before `index`, which is at most the length. */
static int insert(struct jf_array *open, size_t index, const void *elements, size_t count) {
    if (!jf_array_make_room(open, count))
        return jf_array_fail(open);
    if (count * open->element_size > JF_ARRAY_SOON && !jf_array_settle(open))
        return -1;
    jf_array_put_in(open, index, elements, count);
    jf_array_close(open);
    return 0;
}

int rmarray_insert(rmarray_t array, size_t index, const void *elements, size_t count) {
    struct jf_array open;
    if (!jf_array_open(&open, array, "rmarray_insert"))
        return -1;
    return index <= open.length ? insert(&open, index, elements, count) : bad_index(&open);
}

int rmarray_append(rmarray_t array, const void *elements, size_t count) {
    struct jf_array open;
    if (RM_LIKELY(jf_array_quick_append(array, elements, count)))
        return 0;
    if (!jf_array_enter(&open, array, "rmarray_append"))
        return -1;
    return insert(&open, open.length, elements, count);
}

int rmarray_remove(rmarray_t array, size_t index, size_t count) {
    struct jf_array open;
    if (!jf_array_open(&open, array, "rmarray_remove"))
        return -1;
    if (index > open.length || count > open.length - index)
        return bad_index(&open);
    jf_array_take_out(&open, index, count);
    jf_array_close(&open);
    return 0;
}

int rmarray_remove_swap(rmarray_t array, size_t index) {
    struct jf_array open;
    if (!enter(&open, array, "rmarray_remove_swap"))
        return -1;
    if (index >= open.length)
        return bad_index(&open);
    size_t last = open.length - 1;
    if (index != last)
        memcpy(jf_array_at(&open, index), jf_array_at(&open, last), open.element_size);
    jf_array_set_length(&open, last);
    jf_array_close(&open);
    return 0;
}

/* Room is made before the second array is locked, for it may be the first. */
int rmarray_concat(rmarray_t array, rmarray_t from) {
    struct jf_array open, source;
    if (!jf_array_open(&source, from, "rmarray_concat"))
        return -1;
    size_t count = source.length;
    size_t element_size = source.element_size;
    jf_array_close(&source);
    if (!jf_array_open(&open, array, "rmarray_concat"))
        return -1;
    if (element_size != open.element_size)
        return bad_index(&open);
    if (!jf_array_make_room(&open, count) || !jf_array_open(&source, from, "rmarray_concat"))
        return jf_array_fail(&open);
    memcpy(jf_array_at(&open, open.length), source.elements, count * element_size);
    jf_array_set_length(&open, open.length + count);
    jf_array_close(&source);
    jf_array_close(&open);
    return 0;
}

/* ------------------------------------------------------------------------------------- cursor */

/* Where the piece ends that begins at `next` and has room for an element at least. */
static uintptr_t piece_end(const struct jf_array *open, uintptr_t next) {
    size_t piece = open->size >= HUGE_WORTH ? JF_OS_HUGE : PIECE;
    uintptr_t end = jf_bits_round_up(next + open->element_size, piece);
    uintptr_t last = (uintptr_t)jf_array_at(open, jf_array_capacity(open));
    return end < last ? end : last;
}

/* A large array is made ready piece by piece: a page at a time would cost a fault for each, and all of the
 * capacity at once would hold memory that may not be needed. */
static void start(struct rm_array_cursor *cursor, const struct jf_array *open) {
    size_t room = jf_array_capacity(open) - open->length;
    uintptr_t next = (uintptr_t)jf_array_at(open, open->length);
    if (open->size >= PIECE_WORTH && room != 0) {
        uintptr_t end = piece_end(open, next);
        room = (end - next) / open->element_size;
        jf_blocks_expect(rmarray_handle(open->array), open->elements,
                         next - (uintptr_t)open->elements, end - next);
    }
    cursor->next = (unsigned char *)next;
    cursor->end = cursor->next + room * open->element_size;
}

/* Locks once more, for a moment, to read what the block says; and has the length count what was added. */
static bool take_up(struct rm_array_cursor *cursor, struct jf_array *ret_open, const char *call) {
    if (!jf_array_open(ret_open, cursor->array, call))
        return false;
    jf_array_set_length(ret_open,
                        (size_t)(cursor->next - ret_open->elements) / ret_open->element_size);
    rmunlock(rmarray_handle(cursor->array));
    return true;
}

int rmarray_append_begin(struct rm_array_cursor *ret_cursor, rmarray_t array, size_t element_size) {
    struct jf_array open;
    memset(ret_cursor, 0, sizeof *ret_cursor);
    if (!jf_array_open(&open, array, "rmarray_append_begin"))
        return -1;
    if (element_size != 0 && element_size != open.element_size)
        return bad_index(&open);
    ret_cursor->array = array;
    ret_cursor->element_size = open.element_size;
    start(ret_cursor, &open);
    return 0;
}

int rmarray_append_more(struct rm_array_cursor *cursor) {
    struct jf_array open;
    if (cursor->array == NULL || !take_up(cursor, &open, "rmarray_append_next"))
        return -1;
    bool done = jf_array_make_room(&open, 1);
    if (open.elements == NULL)
        *cursor = (struct rm_array_cursor){0}; /* the array is gone, and the lock with it */
    else
        start(cursor, &open);
    return done ? 0 : -1;
}

void rmarray_append_end(struct rm_array_cursor *cursor) {
    struct jf_array open;
    if (cursor->array != NULL && take_up(cursor, &open, "rmarray_append_end"))
        jf_array_close(&open);
    memset(cursor, 0, sizeof *cursor);
}
