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
#define BYTES(bin) ((bin) < JF_BINS_SMALL ? JF_BIN_BYTES : JF_BIN_BYTES_LARGER)
#define BLOCKS(bin) ((bin) < JF_BINS_SMALL ? JF_BIN_BLOCKS : JF_BIN_BLOCKS_LARGER)
#define MOST(bin) (BYTES(bin) / JF_GRAIN / (bin))
#define ROOM(bin) (uint8_t)(MOST(bin) < BLOCKS(bin) ? MOST(bin) : BLOCKS(bin))
#define ROOM_4(bin) ROOM(bin), ROOM((bin) + 1), ROOM((bin) + 2), ROOM((bin) + 3)
#define ROOM_16(bin) ROOM_4(bin), ROOM_4((bin) + 4), ROOM_4((bin) + 8), ROOM_4((bin) + 12)
#define ROOM_64(bin) ROOM_16(bin), ROOM_16((bin) + 16), ROOM_16((bin) + 32), ROOM_16((bin) + 48)
    0, ROOM_64(1), ROOM_64(65), ROOM_64(129), ROOM_64(193),
#undef ROOM_64
#undef ROOM_16
#undef ROOM_4
#undef ROOM
#undef MOST
#undef BLOCKS
#undef BYTES
};

/* ------------------------------------------------------------------------------------- filled */

size_t jf_bins_next(struct jf_bins *bins, size_t number) {
    while (number < JF_BINS) {
        uint64_t bits = bins->filled[number / 64] >> number % 64;
        if (bits == 0) {
            number = (number / 64 + 1) * 64;
            continue;
        }
        number += jf_bits_lowest(bits);
        if (*jf_bins_at(bins, number) != 0)
            return number;
        bins->filled[number / 64] &= ~((uint64_t)1 << number % 64);
    }
    return JF_BINS;
}

static inline jf_word load_word(const jf_word *table, uint32_t index) {
    return __atomic_load_n(&table[index], __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------------------------- dead */

/* What is known of the heap whose block was buried last. */
struct grave {
    const struct jf_heap *heap;
    struct jf_local *local; /* the thread's, of that heap */
};

/* The element of a pool was freed: it has no header, and the pool is told. */
static JF_NOINLINE void bury_element(struct jf_thread *thread, struct jf_region *block,
                                     uint32_t index, uintptr_t at) {
    bool retire = block->heap->options.retire;
    jf_window_pool_ops(thread->window)->freed(block, at + JF_HEADER_SIZE);
    jf_table_push(thread->table, &thread->entries, index, retire);
}

/* The block is dead from here on; `word` is its entry's. Its bytes are taken out of its region's account one by one:
 * blocks that are freed at random seldom lie in one region. */
static inline void bury_block(struct jf_thread *thread, struct grave *grave,
                              struct jf_region *region, uint32_t index, jf_word word,
                              uintptr_t at) {
    jf_word header = jf_header_load(at);
    size_t stride = jf_header_stride(header);
    JF_ASSERT(jf_header_is_block(header) && stride != 0);
    if (!RM_LIKELY(grave->heap == region->heap)) {
        grave->heap = region->heap;
        grave->local = jf_thread_local(thread, region->heap, JF_LOCAL_SMALL);
    }
    struct jf_local *local = grave->local;
    bool ahead = local != NULL && local->bump == at + stride && local->region == region;
    if (!ahead)
        jf_header_store(at, jf_header_with_kind(header, JF_KIND_DEAD));
    if (!RM_LIKELY(jf_table_push_own(thread->table, &thread->entries, index, word)))
        jf_table_push(thread->table, &thread->entries, index, grave->heap->options.retire);
    if (ahead) {
        local->bump = at;
        local->blocks--;
    } else { /* last: the region may be given back as soon as nothing is left in its account */
        jf_region_account(thread->window, region, (uint32_t)stride, 1);
    }
}

static inline void bury(struct jf_thread *thread, struct grave *grave, uint32_t index, jf_word word,
                        uintptr_t at) {
    struct jf_region *region = jf_arena_owner(thread->window->arena, at);
    if (RM_LIKELY(__atomic_load_n(&region->state, __ATOMIC_RELAXED) != JF_REGION_POOL))
        bury_block(thread, grave, region, index, word, at);
    else
        bury_element(thread, region, index, at);
}

/* Highest address first: blocks that end where the thread bumps go back to its hole one by one. */
static void bury_all(struct jf_thread *thread, const uint32_t *indexes, unsigned count) {
    const struct jf_space *space = thread->table->space;
    const jf_word *table = (const jf_word *)space->table;
    uintptr_t base = space->base - JF_HEADER_SIZE;
    struct grave grave = {0};
    if (count == 0)
        return;
    for (unsigned i = 0; i < count; i++)
        __builtin_prefetch((void *)(base + jf_entry_offset(load_word(table, indexes[i]))), 1);
    bool rising = jf_entry_offset(load_word(table, indexes[count - 1])) >=
                  jf_entry_offset(load_word(table, indexes[0]));
    ptrdiff_t step = rising ? -1 : 1;
    for (const uint32_t *next = rising ? indexes + count - 1 : indexes; count != 0; count--) {
        jf_word word = load_word(table, *next);
        bury(thread, &grave, *next, word, base + jf_entry_offset(word));
        next += step;
    }
}

void jf_thread_bury(struct jf_thread *thread, uint32_t index) {
    bury_all(thread, &index, 1);
}

static void empty_bins(struct jf_thread *thread, struct jf_bins *bins) {
    for (size_t bin = jf_bins_next(bins, 0); bin < JF_BINS; bin = jf_bins_next(bins, bin + 1)) {
        uint32_t *blocks = jf_bins_at(bins, bin);
        bury_all(thread, blocks + 1, *blocks);
        *blocks = 0;
    }
}

void jf_thread_forget_last(struct jf_thread *thread) {
    thread->last = NULL;
    thread->last_entry = &thread->no_entry;
    thread->last_word = JF_ENTRY_LIVE;
    thread->kept_bin = JF_KEPT_NONE;
}

void jf_thread_drain(struct jf_thread *thread) {
    if (thread->kept_bin != JF_KEPT_NONE) {
        jf_thread_bury(thread, jf_space_index(thread->table->space, thread->last_entry));
        jf_thread_forget_last(thread);
    }
    bury_all(thread, thread->ring, thread->ring_count);
    thread->ring_count = 0;
    for (uint32_t id = 0; id < thread->share_count; id++)
        if (thread->shares[id] != NULL)
            empty_bins(thread, &thread->shares[id]->bins);
}

static size_t bytes_in(struct jf_bins *bins) {
    size_t grains = 0;
    for (size_t bin = jf_bins_next(bins, 0); bin < JF_BINS; bin = jf_bins_next(bins, bin + 1))
        grains += *jf_bins_at(bins, bin) * bin;
    return grains * JF_GRAIN;
}

bool jf_thread_drain_much(struct jf_thread *thread) {
    const struct jf_window *window = thread->window;
    bool left = thread->ring_count != 0 || thread->kept_bin != JF_KEPT_NONE;
    for (uint32_t id = 0; id < thread->share_count; id++) {
        struct jf_share *share = thread->shares[id];
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

/* The thread's bins of the heap if it may use them. */
static struct jf_bins *bins_of(const struct jf_thread *thread, const struct jf_heap *heap) {
    struct jf_share *share = jf_thread_share(thread, heap);
    return share != NULL && jf_heap_has_bins(heap) ? &share->bins : NULL;
}

/* The heap of all blocks there are; NULL when it has to be looked up: whoever frees a block of a second heap,
 * or a pool's element, has learned of it after it was made. */
static struct jf_heap *sole_heap(const struct jf_window *window) {
    return jf_window_pool_ops(window) == NULL ? __atomic_load_n(&window->sole, __ATOMIC_RELAXED)
                                              : NULL;
}

void jf_thread_judge_sole(struct jf_thread *thread, const struct jf_heap *heap) {
    bool sole = bins_of(thread, heap) != NULL && sole_heap(thread->window) == heap;
    __atomic_store_n(&thread->keep, sole ? JF_WORD_FREED : 0, __ATOMIC_RELAXED);
}

/* Makes room in a full bin: its older half, which is least likely to be in the cache, goes to the depot, or
 * dies. */
static void thin_out(struct jf_thread *thread, struct jf_heap *heap, struct jf_bins *bins,
                     size_t number) {
    uint32_t *bin = jf_bins_at(bins, number);
    unsigned half = number < JF_BINS_SMALL ? jf_depot_give(heap, bins, number) : 0;
    if (half == 0) {
        half = *bin / 2;
        bury_all(thread, bin + 1, half);
    }
    *bin -= half;
    memmove(bin + 1, bin + 1 + half, *bin * sizeof *bin);
}

/* Puts a block into its bin; false when there is no room. */
static inline bool keep(struct jf_bins *bins, uint32_t index, uintptr_t at) {
    size_t number = jf_header_load_low(at) >> 12;
    if (RM_LIKELY(number < JF_BINS_SMALL))
        return jf_bins_push_at(bins, bins->small[number], number, index);
    return number < JF_BINS && jf_bins_push(bins, number, index);
}

/* Puts a block into its bin, after room was made, or buries it if its stride has none. */
static JF_NOINLINE void keep_or_bury(struct jf_thread *thread, struct jf_heap *heap,
                                     struct jf_bins *bins, uint32_t index, uintptr_t at) {
    size_t bin = jf_header_load_low(at) >> 12;
    if (bin >= JF_BINS) {
        jf_thread_bury(thread, index);
        return;
    }
    thin_out(thread, heap, bins, bin);
    keep(bins, index, at);
}

/* Whatever heaps the blocks are of. */
static JF_NOINLINE void sort_ring(struct jf_thread *thread) {
    const struct jf_space *space = thread->table->space;
    struct grave grave = {0};
    for (uint32_t i = 0; i < thread->ring_count; i++) {
        uint32_t index = thread->ring[i];
        jf_word word = load_word((const jf_word *)space->table, index);
        uintptr_t at = jf_space_address(space, word) - JF_HEADER_SIZE;
        struct jf_region *region = jf_arena_owner(thread->window->arena, at);
        if (__atomic_load_n(&region->state, __ATOMIC_RELAXED) == JF_REGION_POOL) {
            bury_element(thread, region, index, at);
            continue;
        }
        struct jf_bins *bins = bins_of(thread, region->heap);
        if (bins == NULL)
            bury_block(thread, &grave, region, index, word, at);
        else if (!keep(bins, index, at))
            keep_or_bury(thread, region->heap, bins, index, at);
    }
}

/* All of them are of one heap, whose bins these are. */
static void sort_ring_of(struct jf_thread *thread, struct jf_heap *heap, struct jf_bins *bins) {
    const struct jf_space *space = heap->space;
    const jf_word *table = (const jf_word *)space->table;
    uintptr_t base = space->base - JF_HEADER_SIZE;
    const uint32_t *end = thread->ring + thread->ring_count;
    for (const uint32_t *next = thread->ring; next != end; next++) {
        uint32_t index = *next;
        uintptr_t at = base + jf_entry_offset(load_word(table, index));
        if (!RM_LIKELY(keep(bins, index, at)))
            keep_or_bury(thread, heap, bins, index, at);
    }
}

/* A compaction asks for what is in the bins. */
static JF_NOINLINE void heed_compaction(struct jf_thread *thread) {
    __atomic_store_n(&thread->drain_wanted, 0, __ATOMIC_RELAXED);
    jf_thread_drain_much(thread);
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
    if (!RM_LIKELY(__atomic_load_n(&thread->drain_wanted, __ATOMIC_RELAXED) == 0))
        heed_compaction(thread);
}

JF_NOINLINE rmhandle_t jf_thread_leave_with_other_kept(struct jf_thread *thread,
                                                       struct jf_share *share, rmhandle_t handle) {
    const struct jf_space *space = thread->table->space;
    uint32_t kept = jf_space_index(space, thread->last_entry);
    if (jf_bins_push(&share->bins, thread->kept_bin, kept)) {
        jf_word *entry = jf_space_entry(space, jf_handle_index(space, handle));
        thread->kept_bin = JF_KEPT_NONE;
        thread->last = handle;
        thread->last_entry = entry;
        thread->last_word = __atomic_load_n(entry, __ATOMIC_RELAXED) & ~JF_ENTRY_COUNT_MASK;
        thread->last_at = jf_space_address(space, thread->last_word) - JF_HEADER_SIZE;
    }
    jf_thread_leave(thread);
    return handle;
}

JF_NOINLINE void jf_thread_leave_with_full_ring(struct jf_thread *thread) {
    jf_thread_empty_ring(thread);
    jf_thread_leave(thread);
}
