/* Areas of malloc as arrays of bytes: the arrays' own code on blocks named by pointers. The tail lies in the
 * block's last word, as in every array, once a call has changed the area; the facade keeps in mind which blocks have
 * one. A block without is a byte array that is full: its length is all of it.
 */
#include "collections/array.h"

#include <jeff/malloc.h>

/* An area opened by a call, and whether it has a tail yet. */
struct area {
    struct jf_array open;
    bool has_tail;
};

static struct area look(const void *pointer, const char *call) {
    struct area area = {.open = {.elements = (unsigned char *)(uintptr_t)pointer,
                                 .call = call,
                                 .element_size = 1,
                                 .flags = JF_ARRAY_AREA_FLAGS}};
    size_t size;
    area.has_tail = jf_blocks_area(pointer, &size, call);
    area.open.size = jf_bits_round_down(size, sizeof(jf_word));
    area.open.length = size;
    return area;
}

/* For a call that changes it. False with errno EINVAL when the tail is none: something was written over it. */
static bool open_area(struct area *ret_area, void *pointer, const char *call) {
    *ret_area = look(pointer, call);
    if (!ret_area->has_tail || jf_array_read_tail(&ret_area->open))
        return true;
    jf_os_set_errno(JF_OS_EINVAL);
    return false;
}

/* Ends a call that has written a tail. */
static void *finish(const struct area *area) {
    if (!area->has_tail)
        jf_blocks_make_area(area->open.elements, area->open.call);
    return area->open.elements;
}

static void *bad_index(void) {
    jf_os_set_errno(JF_OS_EINVAL);
    return NULL;
}

size_t jeff_area_length(const void *area) {
    struct area found = look(area, "area_length");
    return !found.has_tail || jf_array_read_tail(&found.open) ? found.open.length : 0;
}

size_t jeff_area_capacity(const void *area) {
    struct area found = look(area, "area_capacity");
    return found.has_tail ? jf_array_capacity(&found.open) : found.open.length;
}

void *jeff_area_reserve(void *area, size_t capacity) {
    struct area found;
    if (!open_area(&found, area, "area_reserve"))
        return NULL;
    struct jf_array *open = &found.open;
    size_t bytes;
    if (!jf_array_bytes(open, capacity > open->length ? capacity : open->length, &bytes)) {
        jf_os_set_errno(JF_OS_ENOMEM);
        return NULL;
    }
    if (bytes > open->size && !jf_array_resize_to(open, bytes, 0))
        return NULL;
    jf_array_set_length(open, open->length);
    return finish(&found);
}

void *jeff_area_resize(void *area, size_t length) {
    struct area found;
    if (!open_area(&found, area, "area_resize"))
        return NULL;
    struct jf_array *open = &found.open;
    size_t kept = open->length < length ? open->length : length;
    size_t more = length - kept;
    open->length = kept;
    if (!jf_array_make_room(open, more))
        return NULL;
    jf_array_set_length(open, length);
    return finish(&found);
}

void *jeff_area_shrink(void *area) {
    struct area found;
    if (!open_area(&found, area, "area_shrink"))
        return NULL;
    size_t bytes;
    if (!found.has_tail)
        return found.open.elements;
    return jf_array_bytes(&found.open, found.open.length, &bytes) &&
                   jf_array_resize_to(&found.open, bytes, 0)
               ? found.open.elements
               : NULL;
}

static void *insert(struct area *area, size_t index, const void *bytes, size_t count) {
    struct jf_array *open = &area->open;
    if (index > open->length)
        return bad_index();
    if (!jf_array_make_room(open, count))
        return NULL;
    jf_array_put_in(open, index, bytes, count);
    return finish(area);
}

void *jeff_area_append(void *area, const void *bytes, size_t count) {
    struct area found;
    return open_area(&found, area, "area_append") ? insert(&found, found.open.length, bytes, count)
                                                  : NULL;
}

void *jeff_area_insert(void *area, size_t index, const void *bytes, size_t count) {
    struct area found;
    return open_area(&found, area, "area_insert") ? insert(&found, index, bytes, count) : NULL;
}

void *jeff_area_remove(void *area, size_t index, size_t count) {
    struct area found;
    if (!open_area(&found, area, "area_remove"))
        return NULL;
    struct jf_array *open = &found.open;
    if (index > open->length || count > open->length - index)
        return bad_index();
    if (!jf_array_make_room(open, 0))
        return NULL;
    jf_array_take_out(open, index, count);
    return finish(&found);
}
