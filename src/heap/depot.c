/* The depot of a growing heap: batches of freed blocks between its threads' bins. */
#include "heap/depot.h"

#include "heap/heap.h"

#include <string.h>

enum { SPARES_MAX = 16 };

_Static_assert(sizeof(struct jf_batch) == 128, "a batch fills two cache lines");
_Static_assert(JF_DEPOT_PARTS <= 32, "a bit each");

static struct jf_depot *depot_of(const struct jf_heap *heap) {
    return heap->u.grow.depot;
}

static struct jf_depot_part *part_of(const struct jf_heap *heap, const struct jf_bins *bins) {
    return &depot_of(heap)->part[bins->depot_part];
}

static bool try_part(struct jf_depot_part *part) {
    return __atomic_exchange_n(&part->taken, 1, __ATOMIC_ACQUIRE) == 0;
}

static void leave_part(struct jf_depot_part *part) {
    __atomic_store_n(&part->taken, 0, __ATOMIC_RELEASE);
}

/* ------------------------------------------------------------------------------------- bits of all parts */

static uint32_t load_bits(const uint32_t *bits) {
    return __atomic_load_n(bits, __ATOMIC_RELAXED);
}

static void set_bit(uint32_t *bits, uint32_t number) {
    if ((load_bits(bits) >> number & 1) == 0)
        __atomic_fetch_or(bits, (uint32_t)1 << number, __ATOMIC_RELAXED);
}

static void clear_bit(uint32_t *bits, uint32_t number) {
    if ((load_bits(bits) >> number & 1) != 0)
        __atomic_fetch_and(bits, ~((uint32_t)1 << number), __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------------------------- batches */

static bool part_has(const struct jf_depot_part *part, size_t bin) {
    return __atomic_load_n(&part->first[bin], __ATOMIC_RELAXED) != NULL;
}

/* The part is taken. */
static struct jf_batch *make_batch(const struct jf_heap *heap, struct jf_depot_part *part) {
    struct jf_batch *batch = part->spare;
    if (batch == NULL)
        return jf_arena_meta_alloc(heap->u.grow.window->arena, sizeof *batch);
    part->spare = batch->next;
    part->spares--;
    return batch;
}

static void drop_batch(const struct jf_heap *heap, struct jf_depot_part *part,
                       struct jf_batch *batch) {
    if (part->spares == SPARES_MAX) {
        jf_arena_meta_free(heap->u.grow.window->arena, batch, sizeof *batch);
        return;
    }
    batch->next = part->spare;
    part->spare = batch;
    part->spares++;
}

/* Statistics look at the sums at any time. */
static void account(struct jf_depot_part *part, size_t bin, uint32_t count, bool given) {
    size_t bytes = count * bin * JF_GRAIN;
    __atomic_store_n(&part->bytes, part->bytes + (given ? bytes : 0 - bytes), __ATOMIC_RELAXED);
    __atomic_store_n(&part->blocks, part->blocks + (given ? count : 0 - count), __ATOMIC_RELAXED);
    part->changes++;
}

/* Takes the first batch of a bin out of a part that is taken: its indexes, and their number; 0: there is none. */
static uint32_t take_batch(const struct jf_heap *heap, struct jf_depot_part *part, size_t bin,
                           uint32_t *indexes) {
    struct jf_batch *batch = part->first[bin];
    if (batch == NULL)
        return 0;
    uint32_t count = batch->count;
    __atomic_store_n(&part->first[bin], batch->next, __ATOMIC_RELAXED);
    account(part, bin, count, false);
    memcpy(indexes, batch->index, count * sizeof indexes[0]);
    drop_batch(heap, part, batch);
    if (part->blocks == 0)
        clear_bit(&depot_of(heap)->used, (uint32_t)(part - depot_of(heap)->part));
    return count;
}

/* ------------------------------------------------------------------------------------- give and take */

/* All parts that have something, and the one that is to get more, may have as much. */
static bool has_room(const struct jf_heap *heap, uint32_t number, size_t bytes) {
    const struct jf_depot *depot = depot_of(heap);
    size_t most = (size_t)jf_word_load(&heap->u.grow.committed) >> JF_DEPOT_SHARE_SHIFT;
    uint32_t used = load_bits(&depot->used) | (uint32_t)1 << number;
    return (depot->part[number].bytes + bytes) * (unsigned)__builtin_popcount(used) <= most;
}

unsigned jf_depot_give(struct jf_heap *heap, const struct jf_bins *bins, size_t bin) {
    struct jf_depot *depot = depot_of(heap);
    struct jf_depot_part *part = part_of(heap, bins);
    uint32_t count = *bins->small[bin] / 2;
    if (count > JF_BATCH_ROOM)
        count = JF_BATCH_ROOM;
    if (!try_part(part))
        return 0;
    part->gives += part->gives < JF_DEPOT_UNUSED_GIVES;
    if (part->gives == JF_DEPOT_UNUSED_GIVES)
        set_bit(&depot->open, bins->depot_part);
    bool room = has_room(heap, bins->depot_part, count * bin * JF_GRAIN);
    struct jf_batch *batch = room ? make_batch(heap, part) : NULL;
    if (batch != NULL) {
        batch->count = count;
        memcpy(batch->index, bins->small[bin] + 1, count * sizeof batch->index[0]);
        batch->next = part->first[bin];
        __atomic_store_n(&part->first[bin], batch, __ATOMIC_RELAXED);
        account(part, bin, count, true);
        set_bit(&depot->used, bins->depot_part);
    }
    leave_part(part);
    return batch != NULL ? count : 0;
}

/* A first look without taking the part. */
static bool take_from(const struct jf_heap *heap, struct jf_depot_part *part, struct jf_bins *bins,
                      size_t bin) {
    uint32_t *to = bins->small[bin];
    bool own = part == part_of(heap, bins);
    if (!part_has(part, bin) || !try_part(part))
        return false;
    *to = take_batch(heap, part, bin, to + 1);
    jf_bins_note(bins, bin);
    if (own && *to != 0) {
        part->gives = 0;
        clear_bit(&depot_of(heap)->open, bins->depot_part);
    }
    leave_part(part);
    return *to != 0;
}

bool jf_depot_take(struct jf_heap *heap, struct jf_bins *bins, size_t bin) {
    struct jf_depot *depot = depot_of(heap);
    uint32_t others = load_bits(&depot->open) & ~((uint32_t)1 << bins->depot_part);
    if (take_from(heap, part_of(heap, bins), bins, bin))
        return true;
    for (; others != 0; others &= others - 1)
        if (take_from(heap, &depot->part[jf_bits_lowest(others)], bins, bin))
            return true;
    return false;
}

bool jf_depot_has(const struct jf_heap *heap, const struct jf_bins *bins, size_t bin) {
    const struct jf_depot *depot = depot_of(heap);
    if (bin >= JF_BINS_SMALL)
        return false;
    for (uint32_t open = load_bits(&depot->open); open != 0; open &= open - 1)
        if (part_has(&depot->part[jf_bits_lowest(open)], bin))
            return true;
    return part_has(part_of(heap, bins), bin);
}

/* ------------------------------------------------------------------------------------- the whole */

size_t jf_depot_bytes(const struct jf_heap *heap) {
    size_t bytes = 0;
    for (unsigned i = 0; i < JF_DEPOT_PARTS; i++)
        bytes += __atomic_load_n(&depot_of(heap)->part[i].bytes, __ATOMIC_RELAXED);
    return bytes;
}

size_t jf_depot_blocks(const struct jf_heap *heap) {
    size_t blocks = 0;
    for (unsigned i = 0; i < JF_DEPOT_PARTS; i++)
        blocks += __atomic_load_n(&depot_of(heap)->part[i].blocks, __ATOMIC_RELAXED);
    return blocks;
}

bool jf_depot_is_left_to_threads(struct jf_heap *heap, unsigned shift) {
    bool changed = false;
    size_t bytes = 0;
    for (unsigned i = 0; i < JF_DEPOT_PARTS; i++) {
        struct jf_depot_part *part = &depot_of(heap)->part[i];
        if (!try_part(part))
            return true;
        changed |= part->changes != part->changes_seen;
        part->changes_seen = part->changes;
        bytes += part->bytes;
        leave_part(part);
    }
    return bytes != 0 && changed && bytes < jf_word_load(&heap->u.grow.committed) >> shift;
}

unsigned jf_depot_clear(struct jf_heap *heap, uint32_t index[JF_BATCH_ROOM]) {
    unsigned count = 0;
    for (unsigned i = 0; i < JF_DEPOT_PARTS && count == 0; i++) {
        struct jf_depot_part *part = &depot_of(heap)->part[i];
        if (!try_part(part))
            continue;
        for (size_t bin = 0; bin < JF_BINS_SMALL && part->blocks != 0 && count == 0; bin++)
            count = take_batch(heap, part, bin, index);
        leave_part(part);
    }
    return count;
}

void jf_depot_open_part(struct jf_heap *heap, uint32_t number) {
    set_bit(&depot_of(heap)->open, number);
}

void jf_depot_free_spares(struct jf_heap *heap) {
    struct jf_arena *arena = heap->u.grow.window->arena;
    for (unsigned i = 0; i < JF_DEPOT_PARTS; i++) {
        struct jf_depot_part *part = &depot_of(heap)->part[i];
        while (part->spare != NULL)
            jf_arena_meta_free(arena, make_batch(heap, part), sizeof(struct jf_batch));
    }
}

void jf_depot_renew(struct jf_heap *heap) {
    for (unsigned i = 0; i < JF_DEPOT_PARTS; i++)
        depot_of(heap)->part[i].taken = 0;
}
