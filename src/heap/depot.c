/* The depot of a growing heap: batches of freed blocks between its threads' bins. */
#include "heap/depot.h"

#include "heap/heap.h"

#include <string.h>

_Static_assert(sizeof(struct jf_batch) == 128, "a batch fills two cache lines");

static struct jf_depot *depot_of(struct jf_heap *heap) {
    return heap->u.grow.depot;
}

static bool has_room(struct jf_heap *heap, size_t bytes) {
    size_t most = (size_t)jf_word_load(&heap->u.grow.committed) >> JF_DEPOT_SHARE_SHIFT;
    return depot_of(heap)->bytes + bytes <= most;
}

unsigned jf_depot_give(struct jf_heap *heap, const struct jf_bins *bins, size_t bin) {
    struct jf_depot *depot = depot_of(heap);
    unsigned count = bins->of[bin].count / 2;
    if (count > JF_BATCH_ROOM)
        count = JF_BATCH_ROOM;
    size_t bytes = count * bin * JF_GRAIN;
    if (!jf_os_mutex_trylock(&heap->mutex))
        return 0;
    struct jf_batch *batch = has_room(heap, bytes)
                                 ? jf_arena_meta_alloc(heap->u.grow.window->arena, sizeof *batch)
                                 : NULL;
    if (batch != NULL) {
        batch->count = count;
        memcpy(batch->index, bins->of[bin].slot, count * sizeof batch->index[0]);
        batch->next = depot->first[bin];
        __atomic_store_n(&depot->first[bin], batch, __ATOMIC_RELAXED);
        depot->bytes += bytes;
        depot->changes++;
        depot->blocks += count;
    }
    jf_os_mutex_unlock(&heap->mutex);
    return batch != NULL ? count : 0;
}

/* The first batch of a bin that has one. The mutex is held. */
static struct jf_batch *take_batch(struct jf_depot *depot, size_t bin) {
    struct jf_batch *batch = depot->first[bin];
    __atomic_store_n(&depot->first[bin], batch->next, __ATOMIC_RELAXED);
    depot->bytes -= batch->count * bin * JF_GRAIN;
    depot->changes++;
    depot->blocks -= batch->count;
    return batch;
}

bool jf_depot_take(struct jf_heap *heap, struct jf_bins *bins, size_t bin) {
    struct jf_depot *depot = depot_of(heap);
    /* a first look without the mutex */
    if (__atomic_load_n(&depot->first[bin], __ATOMIC_RELAXED) == NULL ||
        !jf_os_mutex_trylock(&heap->mutex))
        return false;
    struct jf_batch *batch = depot->first[bin] != NULL ? take_batch(depot, bin) : NULL;
    jf_os_mutex_unlock(&heap->mutex);
    if (batch == NULL)
        return false;
    memcpy(bins->of[bin].slot, batch->index, batch->count * sizeof batch->index[0]);
    bins->of[bin].count = batch->count;
    jf_arena_meta_free(heap->u.grow.window->arena, batch, sizeof *batch);
    return true;
}

bool jf_depot_is_left_to_threads(struct jf_heap *heap, unsigned shift) {
    struct jf_depot *depot = depot_of(heap);
    if (!jf_os_mutex_trylock(&heap->mutex))
        return true;
    bool little = depot->bytes < jf_word_load(&heap->u.grow.committed) >> shift;
    bool left = depot->bytes != 0 && little && depot->changes != depot->changes_seen;
    depot->changes_seen = depot->changes;
    jf_os_mutex_unlock(&heap->mutex);
    return left;
}

unsigned jf_depot_clear(struct jf_heap *heap, uint32_t index[JF_BATCH_ROOM]) {
    struct jf_depot *depot = depot_of(heap);
    unsigned count = 0;
    if (!jf_os_mutex_trylock(&heap->mutex))
        return 0;
    for (size_t bin = 0; bin < JF_BINS && depot->blocks != 0 && count == 0; bin++) {
        if (depot->first[bin] == NULL)
            continue;
        struct jf_batch *batch = take_batch(depot, bin);
        count = batch->count;
        memcpy(index, batch->index, count * sizeof index[0]);
        jf_arena_meta_free(heap->u.grow.window->arena, batch, sizeof *batch);
    }
    jf_os_mutex_unlock(&heap->mutex);
    return count;
}
