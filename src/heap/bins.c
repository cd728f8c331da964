/* What becomes of freed blocks: from the thread's ring into its bins, from there, or when no bin takes them,
 * into the heap's depot or dead: out of their region's account, their entries back to the table.
 */
#include "heap/bins.h"

#include "base/debug.h"
#include "heap/region.h"

#include <string.h>

enum {
    MUCH_SHIFT = 9
}; /* bins that keep more than this share of their heap are in a compaction's way */

const uint8_t jf_bins_room[JF_BINS] = {
#define ROOM(bin)                                                                                  \
    (uint8_t)(JF_BIN_BYTES / JF_GRAIN / (bin) < JF_BIN_BLOCKS ? JF_BIN_BYTES / JF_GRAIN / (bin)    \
                                                              : JF_BIN_BLOCKS)
#define ROOM_4(bin) ROOM(bin), ROOM((bin) + 1), ROOM((bin) + 2), ROOM((bin) + 3)
#define ROOM_16(bin) ROOM_4(bin), ROOM_4((bin) + 4), ROOM_4((bin) + 8), ROOM_4((bin) + 12)
    0, ROOM_16(1), ROOM_16(17), ROOM_16(33), ROOM_16(49),
#undef ROOM
#undef ROOM_4
#undef ROOM_16
};

static jf_word entry_word(const struct jf_thread *thread, uint32_t index) {
    const jf_word *entry = (const jf_word *)thread->table->space->table + index;
    return __atomic_load_n(entry, __ATOMIC_RELAXED);
}

static uintptr_t header_of(const struct jf_thread *thread, jf_word word) {
    return jf_space_address(thread->table->space, word) - JF_HEADER_SIZE;
}

/* ------------------------------------------------------------------------------------- dead */

/* Frees of one region are taken out of its account together. */
struct tally {
    struct jf_region *region;
    uint32_t bytes, blocks;
};

static void settle_tally(struct jf_thread *thread, struct tally *tally) {
    if (tally->blocks != 0)
        jf_region_account(thread->window, tally->region, tally->bytes, tally->blocks);
    tally->bytes = tally->blocks = 0;
}

static bool in_tally(const struct tally *tally, uintptr_t at) {
    return tally->region != NULL && at - tally->region->start < JF_REGION_SIZE;
}

/* Makes the tally that of the block's region; false: it is a pool's element, which is done with. */
static bool find_region(struct jf_thread *thread, struct tally *tally, uint32_t index,
                        uintptr_t at) {
    if (in_tally(tally, at))
        return true;
    settle_tally(thread, tally);
    tally->region = jf_arena_owner(thread->window->arena, at);
    if (__atomic_load_n(&tally->region->state, __ATOMIC_RELAXED) != JF_REGION_POOL)
        return true;
    /* it has no header */
    bool retire = tally->region->heap->options.retire;
    jf_window_pool_ops(thread->window)->freed(tally->region, at + JF_HEADER_SIZE);
    jf_table_push(thread->table, &thread->entries, index, retire);
    tally->region = NULL;
    return false;
}

/* The block is dead from here on; the tally is that of its region. */
static void bury(struct jf_thread *thread, struct tally *tally, uint32_t index, uintptr_t at) {
    jf_word header = jf_header_load(at);
    size_t stride = jf_header_stride(header);
    JF_ASSERT(jf_header_is_block(header) && stride != 0);
    struct jf_heap *heap = tally->region->heap;
    struct jf_local *local = jf_thread_local(thread, heap, false);
    if (local != NULL && local->bump == at + stride && local->region == tally->region) {
        local->bump = at;
        local->blocks--;
    } else {
        jf_header_store(at, jf_header_with_kind(header, JF_KIND_DEAD));
        tally->bytes += (uint32_t)stride;
        tally->blocks++;
    }
    jf_table_push(thread->table, &thread->entries, index, heap->options.retire);
}

static void bury_any(struct jf_thread *thread, struct tally *tally, uint32_t index) {
    uintptr_t at = header_of(thread, entry_word(thread, index));
    if (find_region(thread, tally, index, at))
        bury(thread, tally, index, at);
}

/* Highest address first: blocks that end where the thread bumps go back to its hole one by one. */
static void bury_all(struct jf_thread *thread, const uint32_t *indexes, unsigned count) {
    struct tally tally = {0};
    if (count == 0)
        return;
    for (unsigned i = 0; i < count; i++)
        __builtin_prefetch((void *)header_of(thread, entry_word(thread, indexes[i])), 1);
    bool rising = jf_entry_offset(entry_word(thread, indexes[count - 1])) >=
                  jf_entry_offset(entry_word(thread, indexes[0]));
    for (unsigned i = 0; i < count; i++)
        bury_any(thread, &tally, indexes[rising ? count - 1 - i : i]);
    settle_tally(thread, &tally);
}

static void empty_bins(struct jf_thread *thread, struct jf_bins *bins) {
    for (unsigned bin = 0; bin < JF_BINS; bin++) {
        bury_all(thread, bins->slot[bin], bins->count[bin]);
        bins->count[bin] = 0;
    }
}

void jf_thread_drain(struct jf_thread *thread) {
    bury_all(thread, thread->ring, thread->ring_count);
    thread->ring_count = 0;
    for (uint32_t id = 0; id < thread->share_count; id++)
        if (thread->shares[id] != NULL)
            empty_bins(thread, &thread->shares[id]->bins);
}

static size_t bytes_in(const struct jf_bins *bins) {
    size_t grains = 0;
    for (unsigned bin = 0; bin < JF_BINS; bin++)
        grains += (size_t)bins->count[bin] * bin;
    return grains * JF_GRAIN;
}

bool jf_thread_drain_much(struct jf_thread *thread) {
    const struct jf_window *window = thread->window;
    bool left = thread->ring_count != 0;
    for (uint32_t id = 0; id < thread->share_count; id++) {
        const struct jf_share *share = thread->shares[id];
        size_t bytes = share != NULL ? bytes_in(&share->bins) : 0;
        if (bytes > 0 && bytes > jf_word_load(&window->heaps[id]->u.grow.committed) >> MUCH_SHIFT) {
            jf_thread_drain(thread);
            return true;
        }
        left |= bytes != 0;
    }
    return !left;
}

bool jf_thread_drain_depot(struct jf_thread *thread, struct jf_heap *heap) {
    uint32_t indexes[JF_BATCH_ROOM];
    unsigned count = jf_depot_clear(heap, indexes);
    bury_all(thread, indexes, count);
    return count != 0;
}

/* ------------------------------------------------------------------------------------- kept */

/* The thread's bins of the heap if it may use them: a heap that is checked has none, so that freed memory
 * is found dead at once, nor has one whose blocks a debugger watches. */
static struct jf_bins *bins_of(const struct jf_thread *thread, const struct jf_heap *heap) {
    struct jf_share *share = jf_thread_share(thread, heap);
    bool unused = JF_MARK_ACTIVE || share == NULL || heap->options.check != 0 ||
                  heap->options.scramble_period != 0;
    return unused ? NULL : &share->bins;
}

/* The heap of all blocks there are; NULL when it has to be looked up: whoever frees a block of a second heap,
 * or a pool's element, has learned of it after it was made. */
static struct jf_heap *sole_heap(const struct jf_window *window) {
    return jf_window_pool_ops(window) == NULL ? __atomic_load_n(&window->sole, __ATOMIC_RELAXED)
                                              : NULL;
}

static bool is_near(const struct jf_heap *heap) {
    return jf_word_load(&heap->u.grow.committed) <= JF_NEAR_BYTES;
}

void jf_thread_judge_near(struct jf_thread *thread, const struct jf_heap *heap) {
    struct jf_share *share = jf_thread_share(thread, heap);
    bool near = share != NULL && sole_heap(thread->window) == heap &&
                bins_of(thread, heap) != NULL && is_near(heap);
    if (near)
        share->heap = heap;
    __atomic_store_n(&thread->near_share, near ? share : NULL, __ATOMIC_RELAXED);
}

/* Makes room in a full bin: its older half, which is least likely to be in the cache, goes to the depot, or
 * dies. */
static void thin_out(struct jf_thread *thread, struct jf_heap *heap, struct jf_bins *bins,
                     size_t bin) {
    unsigned count = bins->count[bin];
    unsigned half = jf_depot_give(heap, bins, bin);
    if (half == 0) {
        half = count / 2;
        bury_all(thread, bins->slot[bin], half);
    }
    memmove(bins->slot[bin], bins->slot[bin] + half, (count - half) * sizeof bins->slot[bin][0]);
    bins->count[bin] = (uint8_t)(count - half);
}

/* False when it is no block for a bin. An entry whose generation has come round may have to be retired. */
static inline bool keep(struct jf_thread *thread, struct jf_heap *heap, struct jf_bins *bins,
                        uint32_t index, jf_word word, uintptr_t at) {
    size_t bin = jf_header_stride(jf_header_load(at)) / JF_GRAIN;
    if (!RM_LIKELY(bin < JF_BINS && jf_entry_generation(word) != 0))
        return false;
    if (!RM_LIKELY(bins->count[bin] < jf_bins_room[bin]))
        thin_out(thread, heap, bins, bin);
    bins->slot[bin][bins->count[bin]++] = index;
    return true;
}

/* Whatever heaps the blocks are of. */
static void sort_ring(struct jf_thread *thread) {
    struct tally tally = {0};
    for (uint32_t i = 0; i < thread->ring_count; i++) {
        uint32_t index = thread->ring[i];
        jf_word word = entry_word(thread, index);
        uintptr_t at = header_of(thread, word);
        if (!find_region(thread, &tally, index, at))
            continue;
        struct jf_heap *heap = tally.region->heap;
        struct jf_bins *bins = bins_of(thread, heap);
        if (bins == NULL || !keep(thread, heap, bins, index, word, at))
            bury(thread, &tally, index, at);
    }
    settle_tally(thread, &tally);
}

/* All of them are of one heap, whose bins these are. */
static void sort_ring_of(struct jf_thread *thread, struct jf_heap *heap, struct jf_bins *bins) {
    const struct jf_space *space = heap->space;
    const jf_word *table = (const jf_word *)space->table;
    uintptr_t base = space->base - JF_HEADER_SIZE;
    for (uint32_t i = 0; i < thread->ring_count; i++) {
        uint32_t index = thread->ring[i];
        jf_word word = __atomic_load_n(&table[index], __ATOMIC_RELAXED);
        if (!RM_LIKELY(keep(thread, heap, bins, index, word, base + jf_entry_offset(word))))
            bury_all(thread, &index, 1);
    }
}

void jf_thread_empty_ring(struct jf_thread *thread) {
    struct jf_heap *sole = sole_heap(thread->window);
    struct jf_bins *bins = sole != NULL ? bins_of(thread, sole) : NULL;
    if (RM_LIKELY(bins != NULL))
        sort_ring_of(thread, sole, bins);
    else
        sort_ring(thread);
    thread->ring_count = 0;
    jf_thread_note_activity(thread);
    if (!RM_LIKELY(__atomic_load_n(&thread->drain_wanted, __ATOMIC_RELAXED) == 0)) {
        __atomic_store_n(&thread->drain_wanted, 0, __ATOMIC_RELAXED);
        jf_thread_drain_much(thread);
    }
}

JF_NOINLINE void jf_thread_leave_with_full_ring(struct jf_thread *thread) {
    jf_thread_empty_ring(thread);
    jf_thread_leave(thread);
}

JF_NOINLINE void jf_thread_leave_with_full_bin(struct jf_thread *thread, uint32_t index) {
    /* what it costs to be told that the heap has grown */
    const struct jf_share *share = thread->near_share;
    if (share != NULL && !is_near(share->heap))
        __atomic_store_n(&thread->near_share, NULL, __ATOMIC_RELAXED);
    thread->ring[thread->ring_count++] = index;
    jf_thread_empty_ring(thread);
    jf_thread_leave(thread);
}
