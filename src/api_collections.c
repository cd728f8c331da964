/* What arrays and pools need of the public layer: see collections/blocks.h. */
#include "collections/blocks.h"

#include "api.h"
#include "malloc/facade.h"

#include <string.h>

enum {
    GIVE_BACK_MIN = 256 << 10
}; /* parts from here up are made zero by giving their pages back */

struct jf_heap *jf_blocks_heap(rmheap_t heap) {
    return jf_api_heap(heap);
}

rmhandle_t jf_blocks_allocate(struct jf_heap *heap, size_t size, unsigned align_log2, bool zero,
                              const char *call) {
    return jf_api_allocate(heap, size, align_log2, zero, call);
}

void jf_blocks_free(rmhandle_t handle, const char *call) {
    jf_api_free(handle, call);
}

void *jf_blocks_lock(rmhandle_t handle, const char *call) {
    return jf_api_lock(call, handle, true);
}

enum jf_blocks_resize jf_blocks_resize(rmhandle_t handle, size_t size, size_t room, bool in_need,
                                       const char *call) {
    struct jf_api_resizing resizing = {.size = size,
                                       .room = room,
                                       .unlocked_only = true,
                                       .keep_only = true,
                                       .in_need = in_need,
                                       .call = call};
    switch (jf_api_resize(handle, &resizing)) {
    case JF_API_RESIZED:
        return JF_BLOCKS_DONE;
    case JF_API_NO_ROOM:
        return JF_BLOCKS_NO_ROOM;
    case JF_API_LOCKED:
        return JF_BLOCKS_LOCKED;
    default:
        return JF_BLOCKS_GONE;
    }
}

size_t jf_blocks_size(rmhandle_t handle, const void *payload) {
    struct jf_home home;
    struct jf_window *window = JF_HAS_GROWING ? jf_api_window() : NULL;
    if (window != NULL && (uintptr_t)payload % JF_UNIT_SIZE == 0) {
        const struct jf_large *large = jf_grow_large_at(window, (uintptr_t)payload);
        if (large != NULL && jf_large_index(large) == jf_handle_index(&window->space, handle))
            return large->size;
    }
    return jf_api_find(handle, &home) ? jf_api_size_at(&home, (uintptr_t)payload) : 0;
}

static struct jf_large *large_at(const struct jf_home *home, const void *payload) {
    if (!JF_HAS_GROWING || home->fixed != NULL)
        return NULL;
    return jf_grow_large_at(jf_api.window, (uintptr_t)payload);
}

void jf_blocks_info(rmhandle_t handle, const void *payload, struct jf_blocks_info *ret_info) {
    struct jf_home home;
    *ret_info = (struct jf_blocks_info){0};
    if (!jf_api_find(handle, &home))
        return;
    jf_word word = jf_word_load(jf_space_entry(home.space, home.index));
    const struct jf_large *large = large_at(&home, payload);
    ret_info->heap = jf_api_heap_of_word(&home, word);
    ret_info->locks = jf_entry_count(word);
    ret_info->align_log2 =
        large != NULL ? large->align_log2
                      : jf_header_align_log2(jf_header_load((uintptr_t)payload - JF_HEADER_SIZE));
    ret_info->room = large != NULL ? JF_UNIT_SIZE << large->order : 0;
}

void jf_blocks_zero(rmhandle_t handle, void *payload, size_t offset, size_t size) {
    struct jf_home home;
    unsigned char *from = (unsigned char *)payload + offset;
    if (size >= GIVE_BACK_MIN && jf_api_find(handle, &home) && large_at(&home, payload) != NULL) {
        uintptr_t page = jf_os_page_size();
        uintptr_t first = jf_bits_round_up((uintptr_t)from, page);
        uintptr_t last = jf_bits_round_down((uintptr_t)from + size, page);
        jf_os_give_back(first, last - first);
        memset(from, 0, first - (uintptr_t)from);
        memset((void *)last, 0, (uintptr_t)from + size - last);
        return;
    }
    memset(from, 0, size);
}

void jf_blocks_expect(rmhandle_t handle, void *payload, size_t offset, size_t size) {
    struct jf_home home;
    if (!jf_api_find(handle, &home) || large_at(&home, payload) == NULL)
        return;
    uintptr_t page = jf_os_page_size();
    uintptr_t first = jf_bits_round_down((uintptr_t)payload + offset, page);
    jf_os_populate(first, jf_bits_round_up((uintptr_t)payload + offset + size, page) - first);
}

bool jf_blocks_area(const void *pointer, size_t *ret_size, const char *call) {
    *ret_size = 0;
    return JF_HAS_GROWING && pointer != NULL && jf_malloc_is_area(pointer, ret_size, call);
}

void jf_blocks_make_area(void *pointer, const char *call) {
    if (JF_HAS_GROWING)
        jf_malloc_set_area(pointer, true, call);
}

void *jf_blocks_resize_area(void *pointer, size_t size, size_t *ret_size, const char *call) {
    void *resized = JF_HAS_GROWING ? jf_malloc_resize(pointer, size) : NULL;
    if (resized == NULL)
        return NULL;
    jf_blocks_make_area(resized, call);
    jf_blocks_area(resized, ret_size, call);
    return resized;
}

bool jf_blocks_insist(struct jf_heap *heap, size_t size, bool (*attempt)(void *context),
                      void *context) {
    return jf_api_insist(heap, size, attempt, context);
}

void jf_blocks_reach(uint32_t index) {
    if (index >= __atomic_load_n(&jf_api.entries, __ATOMIC_RELAXED))
        jf_api_reach(index);
}

struct jf_readers *jf_blocks_readers(void) {
    return &jf_api.readers;
}

const struct rm_reader *jf_blocks_reader(void) {
    return jf_api_reader();
}

void jf_blocks_check(struct jf_heap *heap, const char *call) {
    jf_api_check_after(heap, call);
}
