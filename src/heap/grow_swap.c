/* The growing profile: more room for a small block in few steps. The block changes places with one that waits in a bin
 * of the thread, whose entry gets the old place in exchange; or it goes where the thread bumps. Neither table nor mutex
 * is touched. Whatever is out of the ordinary is left to jf_grow_resize.
 */
#include "base/debug.h"
#include "heap/fast.h"
#include "heap/region.h"

#include <string.h>

enum {
    LINE = 64,
    FETCH_MAX = 512, /* bytes of contents that are asked for ahead */
    WORTH_A_LOOK =
        1024, /* strides from here up may grow into what is dead behind them: jf_grow_resize looks */
};

/* Where the block goes. */
struct place {
    uintptr_t at;           /* its header */
    uint32_t index;         /* entry of the block that waits there; 0: none, it was bumped */
    struct jf_local *local; /* into this */
};

/* One block's change of places. */
struct change {
    struct jf_thread *thread;
    struct jf_share *share;
    struct jf_region *region; /* of the old place */
    const struct jf_space *space;
    const struct jf_swap *swap;
    uintptr_t payload; /* old */
    size_t stride;     /* new */
};

static void fetch(uintptr_t payload, size_t size) {
    uintptr_t end = payload + (size < FETCH_MAX ? size : FETCH_MAX);
    __builtin_prefetch((const void *)(payload - JF_HEADER_SIZE), 1);
    for (uintptr_t at = payload + LINE - JF_HEADER_SIZE; at < end; at += LINE)
        __builtin_prefetch((const void *)at);
}

static bool take_place(const struct change *change, struct place *ret_place) {
    struct jf_bins *bins = &change->share->bins;
    struct jf_local *local = &change->share->local[JF_LOCAL_SMALL];
    struct jf_heap *heap = change->region->heap;
    size_t bin = change->stride / JF_GRAIN;
    ret_place->index = 0;
    if (bin < JF_BINS &&
        (*jf_bins_at(bins, bin) != 0 || (bin < JF_BINS_SMALL && jf_depot_take(heap, bins, bin)))) {
        ret_place->index = jf_bin_pop(jf_bins_at(bins, bin));
        jf_word word = jf_word_load(jf_space_entry(change->space, ret_place->index));
        ret_place->at = jf_space_address(change->space, word) - JF_HEADER_SIZE;
        return true;
    }
    if (local->bump == change->payload + change->swap->size) /* it can grow there */
        return false;
    if (!RM_LIKELY(local->bump + change->stride <= local->limit)) {
        ret_place->local = jf_grow_bump(change->thread, heap, change->stride, &ret_place->at);
        return ret_place->local != NULL;
    }
    ret_place->local = local;
    ret_place->at = local->bump;
    local->bump += change->stride;
    local->blocks++;
    return true;
}

/* Lets the claimed entry name a place. */
static void set_live(const struct change *change, uintptr_t payload) {
    jf_word claimed = change->swap->word ^ (JF_ENTRY_LIVE ^ JF_ENTRY_RESIZING);
    jf_word_publish_low_light(jf_space_entry(change->space, change->swap->index), claimed,
                              jf_entry_low(payload - change->space->base, JF_ENTRY_LIVE));
}

/* The old place, which no entry names any more: it waits in exchange for the new one, or is dead. */
static void leave_place(const struct change *change, jf_word header, uint32_t index) {
    struct jf_thread *thread = change->thread;
    struct jf_bins *bins = &change->share->bins;
    uintptr_t at = change->payload - JF_HEADER_SIZE;
    size_t stride = jf_header_stride(header);
    if (index == 0) {
        jf_header_store(at, jf_header_with_kind(header, JF_KIND_DEAD));
        jf_region_account(thread->window, change->region, (uint32_t)stride, 1);
        return;
    }
    jf_header_store(at, jf_header_make(index, stride, 0, JF_ALIGN_LOG2_MIN, JF_KIND_BLOCK));
    jf_word *entry = jf_space_entry(change->space, index);
    jf_word_publish_low_light(
        entry, jf_word_load(entry),
        jf_entry_low(change->payload - change->space->base, JF_ENTRY_PENDING));
    size_t bin = stride / JF_GRAIN;
    if (bin < JF_BINS && jf_bins_push(bins, bin, index))
        return;
    thread->ring[thread->ring_count++] = index;
    if (thread->ring_count == JF_RING_SIZE)
        jf_thread_empty_ring(thread);
}

/* Copies the block, which is claimed, and lets its entry name the new place. */
static void move_to(const struct change *change, jf_word header, const struct place *place) {
    const struct jf_swap *swap = change->swap;
    uintptr_t payload = place->at + JF_HEADER_SIZE;
    jf_header_store(place->at,
                    jf_header_make(swap->index, change->stride,
                                   (unsigned)(change->stride - JF_HEADER_SIZE - swap->new_size),
                                   JF_ALIGN_LOG2_MIN, jf_header_kind(header)));
    size_t size = swap->size - jf_header_slack(header);
    memcpy((void *)payload, (const void *)change->payload, size < swap->kept ? size : swap->kept);
    set_live(change, payload);
    /* whoever reads without a lock and then asks whether the block has moved must not have read what comes next */
    jf_fence_release();
    leave_place(change, header, place->index);
}

/* The block is claimed and the thread inside: where it has gone; 0, and it is as it was. */
static uintptr_t change_places(struct change *change) {
    struct jf_thread *thread = change->thread;
    const struct jf_swap *swap = change->swap;
    struct place place;
    change->region = jf_arena_owner(thread->window->arena, change->payload);
    struct jf_heap *heap = change->region->heap;
    if (__atomic_load_n(&change->region->state, __ATOMIC_RELAXED) != JF_REGION_POOL) {
        jf_word header = jf_header_load(change->payload - JF_HEADER_SIZE);
        change->share = jf_thread_share(thread, heap);
        if (change->share != NULL && jf_heap_has_bins(heap) &&
            jf_header_align_log2(header) == JF_ALIGN_LOG2_MIN &&
            jf_header_stride(header) == swap->size + JF_HEADER_SIZE && take_place(change, &place)) {
            move_to(change, header, &place);
            return place.at + JF_HEADER_SIZE;
        }
    }
    set_live(change, change->payload);
    return 0;
}

uintptr_t jf_grow_swap(const struct jf_swap *swap) {
    struct jf_thread *thread = jf_thread_root;
    struct change change = {.thread = thread, .swap = swap};
    if (JF_MARK_ACTIVE || thread == NULL || !thread->fence_all || swap->size >= WORTH_A_LOOK ||
        jf_entry_count(swap->word) != 0 || !jf_block_stride(swap->new_size, &change.stride) ||
        change.stride >= JF_STRIDE_LARGE)
        return 0;
    change.space = &thread->window->space;
    change.payload = jf_space_address(change.space, swap->word);
    if (change.payload % JF_UNIT_SIZE == 0) /* it may have a chunk of its own */
        return 0;
    fetch(change.payload, swap->kept);
    if (!jf_fast_enter(thread))
        return 0;
    /* what is known of the block but its word may be old until it is claimed */
    jf_word word = swap->word;
    bool claimed = jf_word_compare_swap_light(jf_space_entry(change.space, swap->index), &word,
                                              word ^ (JF_ENTRY_LIVE ^ JF_ENTRY_RESIZING));
    uintptr_t payload = RM_LIKELY(claimed) ? change_places(&change) : 0;
    jf_thread_leave(thread);
    return payload;
}

bool jf_grow_swap_handle(rmhandle_t handle, size_t size) {
    uintptr_t bits = (uintptr_t)handle;
    uintptr_t index = jf_fast_index(bits);
    if (!RM_LIKELY(index < JF_FAST(entries)))
        return false;
    jf_word word = jf_word_load((jf_word *)(bits & RM_HANDLE_ENTRY));
    uintptr_t payload = JF_FAST(base) + (uintptr_t)jf_entry_offset(word);
    if (!RM_LIKELY(word >> 40 == bits >> 52 && jf_entry_state(word) == JF_ENTRY_LIVE &&
                   payload % JF_UNIT_SIZE != 0))
        return false;
    /* should it be a pool's element, or have moved since, then that is found out before anything is done */
    jf_word header = jf_header_load(payload - JF_HEADER_SIZE);
    size_t room = jf_header_stride(header) - JF_HEADER_SIZE;
    if (!jf_header_is_block(header) || jf_header_index(header) != index || size <= room)
        return false;
    struct jf_swap swap = {
        .word = word, .index = (uint32_t)index, .size = room, .new_size = size, .kept = room};
    return jf_grow_swap(&swap) != 0;
}
