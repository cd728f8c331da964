/* Choosing what to move in a growing heap: sparsest regions first, by lists that freeing keeps in order,
 * so that nothing is searched; and letting go of regions when a compaction is through. Nothing is moved.
 */
#include "compact/compactor.h"

enum {
    WASTE_MIN = 2 << JF_PAGE_SHIFT, /* bytes of dead memory below which a region is left alone */
    WASTE_SHARE = 32,               /* and below this part of its memory */
    TO_FILL = 3, /* regions' worth of blocks to be moved, for one to be filled with them as it is */
    NEIGHBOUR_BINS = 4, /* a neighbour may be denser by this much */
};

static size_t waste(const struct jf_region *region) {
    size_t committed = jf_region_committed(region);
    size_t live = jf_region_live_bytes(region);
    return committed > live ? committed - live : 0;
}

bool jf_choose_is_sparse(const struct jf_region *region) {
    if (jf_region_live_bytes(region) == 0)
        return true; /* to be given back */
    size_t dead = waste(region);
    return dead >= WASTE_MIN && dead * WASTE_SHARE >= jf_region_committed(region);
}

/* The region that begins there, if it is about as sparse as the sparsest. */
static struct jf_region *sparse_at(const struct jf_heap *heap, uintptr_t start) {
    const struct jf_grow *grow = &heap->u.grow;
    struct jf_chunk chunk = jf_arena_find(grow->window->arena, start);
    struct jf_region *region = chunk.owner;
    if (chunk.kind != JF_CHUNK_REGION || region->heap != heap || region->state != JF_REGION_LISTED)
        return NULL;
    bool sparse = region->bin <= jf_bits_lowest(grow->bin_mask) + NEIGHBOUR_BINS;
    return sparse && jf_choose_is_sparse(region) ? region : NULL;
}

/* A neighbour of the region that begins at `last`: its buddy, else the one behind the two. */
static struct jf_region *sparse_neighbour(const struct jf_heap *heap, uintptr_t last) {
    if (last == 0)
        return NULL;
    struct jf_region *buddy = sparse_at(heap, last ^ JF_REGION_SIZE);
    return buddy != NULL ? buddy : sparse_at(heap, (last | JF_REGION_SIZE) + JF_REGION_SIZE);
}

struct jf_region *jf_choose_source(struct jf_heap *heap, uintptr_t last, unsigned most,
                                   bool *ret_more) {
    struct jf_grow *grow = &heap->u.grow;
    *ret_more = false;
    jf_os_mutex_lock(&grow->window->mutex);
    grow->window->keep_empty = true;
    jf_window_relist_locked(grow->window);
    struct jf_region *chosen = sparse_neighbour(heap, last);
    while (chosen == NULL && grow->bin_mask != 0) {
        struct jf_region *region = grow->bins[jf_bits_lowest(grow->bin_mask)];
        if (jf_choose_is_sparse(region)) {
            chosen = region;
        } else if (most-- == 0) {
            *ret_more = true;
            break;
        } else {
            region->settled_live = (uint32_t)jf_region_live_bytes(region);
            jf_region_set_state(region, JF_REGION_SETTLED);
        }
    }
    if (chosen != NULL)
        jf_region_set_state(chosen, JF_REGION_HELD);
    grow->window->keep_empty = false;
    jf_os_mutex_unlock(&grow->window->mutex);
    return chosen;
}

static bool witness_is_locked(const struct jf_heap *heap, const struct jf_region *region) {
    jf_word word = jf_word_load(jf_space_entry(heap->space, region->witness));
    uintptr_t payload = jf_space_address(heap->space, word);
    return jf_entry_state(word) == JF_ENTRY_LIVE && jf_entry_count(word) != 0 &&
           payload > region->start && payload < region->end;
}

void jf_choose_begin_retry(struct jf_heap *heap) {
    struct jf_grow *grow = &heap->u.grow;
    jf_os_mutex_lock(&grow->window->mutex);
    if (grow->stuck[grow->stuck_turn] == NULL)
        grow->stuck_turn ^= 1;
    jf_os_mutex_unlock(&grow->window->mutex);
}

bool jf_choose_retry_stuck(struct jf_heap *heap, unsigned most) {
    struct jf_grow *grow = &heap->u.grow;
    jf_os_mutex_lock(&grow->window->mutex);
    struct jf_region *region;
    while ((region = grow->stuck[grow->stuck_turn]) != NULL && most > 0) {
        most--;
        bool retry = !witness_is_locked(heap, region);
        jf_region_set_state(region, retry ? JF_REGION_LISTED : JF_REGION_STUCK);
    }
    bool done = region == NULL;
    jf_os_mutex_unlock(&grow->window->mutex);
    return done;
}

static enum jf_region_state outcome(const struct jf_heap *heap, const struct jf_region *region,
                                    bool roomier) {
    if (!jf_choose_is_sparse(region))
        return JF_REGION_SETTLED;
    /* it was filled in this cycle, and much in it was freed since */
    if (jf_region_live_bytes(region) + JF_REGION_SIZE / JF_REGION_BINS <= region->settled_live)
        return JF_REGION_LISTED;
    /* what came was not enough to fill its holes: in the next cycle it is emptied */
    if (region->in_place)
        return JF_REGION_LISTED;
    /* walked as well as can be: nothing is in the way, its blocks just do not lie closer */
    if (region->starved && roomier)
        return JF_REGION_LISTED;
    if (region->witness == 0)
        return JF_REGION_SETTLED;
    bool again = region->walked_call != heap->calls && !witness_is_locked(heap, region);
    return again ? JF_REGION_LISTED : JF_REGION_STUCK;
}

void jf_choose_settle(struct jf_heap *heap, const struct jf_region *filling, bool roomier) {
    struct jf_grow *grow = &heap->u.grow;
    jf_os_mutex_lock(&grow->window->mutex);
    struct jf_region *next;
    for (struct jf_region *region = grow->owned; region != NULL; region = next) {
        next = region->next;
        if (region->state != JF_REGION_HELD)
            continue;
        if (region == filling)
            continue;
        enum jf_region_state state = outcome(heap, region, roomier);
        region->settled_live = (uint32_t)jf_region_live_bytes(region);
        region->pinned_dead = state == JF_REGION_STUCK ? (uint32_t)waste(region) : 0;
        jf_region_set_state(region, state);
    }
    jf_os_mutex_unlock(&grow->window->mutex);
}

bool jf_choose_filling_is_sparse(const struct jf_region *filling, size_t filled) {
    size_t live = jf_region_live_bytes(filling);
    return live + JF_REGION_SIZE / JF_REGION_BINS <= filled && jf_choose_is_sparse(filling);
}

struct jf_region *jf_choose_to_fill(struct jf_heap *heap, unsigned most) {
    struct jf_grow *grow = &heap->u.grow;
    struct jf_region *chosen = NULL;
    size_t live = 0;
    jf_os_mutex_lock(&grow->window->mutex);
    jf_window_relist_locked(grow->window);
    for (uint64_t bins = grow->bin_mask; bins != 0 && most != 0; bins &= bins - 1)
        for (struct jf_region *region = grow->bins[jf_bits_lowest(bins)];
             region != NULL && most != 0; region = region->next, most--) {
            if (!jf_choose_is_sparse(region))
                continue;
            live += jf_region_live_bytes(region);
            if (jf_region_committed(region) == JF_REGION_SIZE)
                chosen = region;
        }
    if (live < TO_FILL * JF_REGION_SIZE)
        chosen = NULL;
    if (chosen != NULL)
        jf_region_set_state(chosen, JF_REGION_HELD);
    jf_os_mutex_unlock(&grow->window->mutex);
    return chosen;
}

size_t jf_choose_count(struct jf_heap *heap) {
    struct jf_grow *grow = &heap->u.grow;
    jf_os_mutex_lock(&grow->window->mutex);
    size_t count = grow->region_count;
    jf_os_mutex_unlock(&grow->window->mutex);
    return count;
}

bool jf_choose_has_listed(struct jf_heap *heap) {
    struct jf_grow *grow = &heap->u.grow;
    jf_os_mutex_lock(&grow->window->mutex);
    bool listed = grow->bin_mask != 0;
    jf_os_mutex_unlock(&grow->window->mutex);
    return listed;
}

bool jf_choose_has_stuck(struct jf_heap *heap) {
    struct jf_grow *grow = &heap->u.grow;
    jf_os_mutex_lock(&grow->window->mutex);
    bool stuck = grow->stuck[0] != NULL || grow->stuck[1] != NULL;
    jf_os_mutex_unlock(&grow->window->mutex);
    return stuck;
}

uint64_t jf_choose_pinned(struct jf_heap *heap) {
    struct jf_grow *grow = &heap->u.grow;
    uint64_t bytes = 0;
    jf_os_mutex_lock(&grow->window->mutex);
    for (unsigned turn = 0; turn < 2; turn++)
        for (const struct jf_region *region = grow->stuck[turn]; region != NULL;
             region = region->next)
            bytes += region->pinned_dead;
    jf_os_mutex_unlock(&grow->window->mutex);
    return bytes;
}
