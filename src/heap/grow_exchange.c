/* The growing profile: a block that nobody has locked gets a new place without being taken away from anybody in
 * between. It is what growing arrays mostly do; everything else that resizes goes through grow_resize.c.
 */
#include "heap/region.h"

/* Whether the block may be extended where it lies: that is left to jf_grow_resize. */
static bool may_grow_in_place(struct jf_thread *thread, const struct jf_region *region,
                              uintptr_t end) {
    for (unsigned i = 0; i < 2; i++) {
        const struct jf_local *local = jf_thread_local(thread, region->heap, i != 0);
        if (local != NULL && local->bump == end)
            return true;
    }
    return __atomic_load_n(&region->state, __ATOMIC_RELAXED) == JF_REGION_LISTED &&
           end < jf_region_last(region) && !jf_header_is_block(jf_header_load(end));
}

bool jf_grow_begin_exchange(struct jf_window *window, uint32_t index, uintptr_t payload,
                            size_t size, struct jf_exchange *ret_exchange) {
    struct jf_thread *thread = jf_thread_self();
    jf_word *entry = jf_space_entry(&window->space, index);
    jf_word word = jf_word_load(entry);
    uintptr_t at = payload - JF_HEADER_SIZE;
    jf_word header = jf_header_load(at);
    size_t stride;
    if (thread == NULL || jf_entry_state(word) != JF_ENTRY_LIVE || jf_entry_count(word) != 0 ||
        jf_space_address(&window->space, word) != payload || jf_header_index(header) != index ||
        !jf_block_stride(size, &stride) || stride >= JF_LARGE_MIN)
        return false;
    struct jf_region *region = jf_arena_owner(window->arena, at);
    unsigned align_log2 = jf_header_align_log2(header);
    if (may_grow_in_place(thread, region, at + jf_header_stride(header)))
        return false;
    uintptr_t to = jf_grow_place(thread, region->heap, stride, align_log2);
    if (to == 0)
        return false;
    jf_header_store(to, jf_header_make(index, stride, (unsigned)(stride - JF_HEADER_SIZE - size),
                                       align_log2, jf_header_kind(header)));
    *ret_exchange = (struct jf_exchange){thread, entry, word, payload, to + JF_HEADER_SIZE};
    return true;
}

bool jf_grow_end_exchange(struct jf_exchange *exchange) {
    struct jf_thread *thread = exchange->thread;
    struct jf_window *window = thread->window;
    jf_word word = exchange->word;
    jf_word moved = (word & ~(JF_ENTRY_ADDRESS_MASK | JF_ENTRY_STATE_MASK)) |
                    jf_entry_low(exchange->to - window->space.base, JF_ENTRY_LIVE);
    bool done = jf_word_compare_swap_light(exchange->entry, &word, moved);
    jf_grow_account_block(thread, done ? exchange->from : exchange->to);
    jf_thread_leave(thread);
    if (jf_window_must_relist(window))
        jf_window_relist(window);
    return done;
}
