/* The growing profile: what gives one block another place or size outside compaction: resizing, long
 * locks, purging. The caller has made the entry RESIZING, or it is done here.
 */
#include "handle/readers.h"
#include "heap/region.h"

/* Where a block lies and how large it is. */
struct place {
    struct jf_heap *heap;
    struct jf_large *large; /* NULL: in a region */
    uintptr_t payload;      /* 0: purged, no memory */
    jf_word header;         /* in a region */
    size_t size;
    unsigned align_log2;
    unsigned priority; /* to be purged */
};

static struct place find_place(struct jf_window *window, uint32_t index) {
    jf_word word = jf_word_load(jf_space_entry(&window->space, index));
    struct place place = {.payload = jf_space_address(&window->space, word),
                          .align_log2 = JF_ALIGN_LOG2_MIN};
    place.heap = jf_grow_heap_at(window, place.payload);
    if (jf_entry_offset(word) < jf_arena_table_size(window->arena)) {
        place.payload = 0;
        place.align_log2 += (unsigned)(jf_entry_offset(word) / JF_GRAIN >> JF_PURGED_ID_BITS);
        return place;
    }
    place.large = jf_grow_large_at(window, place.payload);
    if (place.large != NULL) {
        place.size = place.large->size;
        place.align_log2 = place.large->align_log2;
        place.priority = jf_large_priority(place.large);
        return place;
    }
    place.header = jf_header_load(place.payload - JF_HEADER_SIZE);
    place.size = jf_header_stride(place.header) - JF_HEADER_SIZE - jf_header_slack(place.header);
    place.align_log2 = jf_header_align_log2(place.header);
    place.priority = jf_header_priority(place.header);
    return place;
}

static void set_live(struct jf_window *window, uint32_t index, uintptr_t payload) {
    jf_word_publish_low(jf_space_entry(&window->space, index),
                        jf_entry_low(payload - window->space.base, JF_ENTRY_LIVE));
}

/* Accounts for memory that no entry names any more. */
static void release(struct jf_window *window, struct jf_thread *thread, const struct place *old) {
    /* whoever reads without a lock and then asks whether the block has moved must not have read what comes next */
    jf_fence_release();
    if (old->large != NULL) {
        jf_large_destroy(window, old->large);
    } else if (old->payload != 0) {
        jf_thread_enter(thread);
        jf_grow_account_block(thread, old->payload);
        jf_thread_leave(thread);
    }
}

/* The header of a block with a new size, and the dead tail if there is one. The tail's header first: a
 * walker finds a valid chain at any moment. A head that says more is void, should the block be resized by whoever did
 * not write it. */
static void shrink_in_region(struct jf_window *window, const struct place *old, size_t stride,
                             size_t size) {
    uintptr_t at = old->payload - JF_HEADER_SIZE;
    size_t tail = jf_header_stride(old->header) - stride;
    if (tail != 0)
        jf_header_store(at + stride, jf_header_hole(tail));
    if (size < old->size)
        jf_space_forget_head(&window->space, jf_header_index(old->header));
    jf_header_store(at, jf_header_make(jf_header_index(old->header), stride,
                                       (unsigned)(stride - JF_HEADER_SIZE - size), old->align_log2,
                                       jf_header_kind(old->header)));
    if (tail != 0)
        jf_region_account(window, jf_arena_owner(window->arena, at), (uint32_t)tail, 0);
}

/* A block that ends where the calling thread bumps grows into the thread's hole. */
static bool grow_at_bump(struct jf_thread *thread, const struct place *old, size_t stride,
                         size_t size) {
    uintptr_t at = old->payload - JF_HEADER_SIZE;
    bool done = false;
    jf_thread_enter(thread);
    for (unsigned i = 0; i < JF_LOCALS && !done; i++) {
        struct jf_local *local = jf_thread_local(thread, old->heap, i);
        if (local == NULL || local->region == NULL ||
            local->bump != at + jf_header_stride(old->header))
            continue;
        if (at + stride > local->limit && !jf_local_claim(local, at + stride, 0))
            continue;
        local->bump = at + stride;
        jf_header_store(at, jf_header_make(jf_header_index(old->header), stride,
                                           (unsigned)(stride - JF_HEADER_SIZE - size),
                                           old->align_log2, jf_header_kind(old->header)));
        done = true;
    }
    jf_thread_leave(thread);
    return done;
}

/* End of the holes and dead blocks that begin at `at`. */
static uintptr_t dead_end(const struct jf_region *region, uintptr_t at, uintptr_t enough) {
    struct jf_step step;
    while (at < enough && at < jf_region_last(region) && jf_block_step(at, &step) && step.hole)
        at += step.stride;
    return at;
}

/* A block grows into what is dead behind it, in a region that nobody has. */
static bool grow_into_dead(struct jf_window *window, const struct place *old, size_t stride,
                           size_t size) {
    uintptr_t at = old->payload - JF_HEADER_SIZE;
    uintptr_t end = at + jf_header_stride(old->header);
    uintptr_t new_end = at + stride;
    struct jf_region *region = jf_arena_owner(window->arena, at);
    /* a first look without the mutex, which most blocks have no use for */
    if (__atomic_load_n(&region->state, __ATOMIC_RELAXED) != JF_REGION_LISTED ||
        new_end > jf_region_last(region) || jf_header_is_block(jf_header_load(end)))
        return false;
    jf_os_mutex_lock(&window->mutex);
    bool done = region->state == JF_REGION_LISTED;
    uintptr_t hole_end = done ? dead_end(region, end, new_end) : 0;
    uintptr_t touched = new_end + JF_HEADER_SIZE < region->end ? new_end + JF_HEADER_SIZE : new_end;
    done = done && hole_end >= new_end && jf_region_commit(region, end, touched, 0);
    if (done) {
        if (hole_end > new_end)
            jf_header_store(new_end, jf_header_hole(hole_end - new_end));
        jf_header_store(at, jf_header_make(jf_header_index(old->header), stride,
                                           (unsigned)(stride - JF_HEADER_SIZE - size),
                                           old->align_log2, jf_header_kind(old->header)));
        jf_region_add(region, (uint32_t)(new_end - end), 0);
        jf_region_set_state(region, JF_REGION_LISTED);
    }
    jf_os_mutex_unlock(&window->mutex);
    return done;
}

/* Bytes of contents that the new size keeps. */
static size_t kept(const struct place *old, size_t size) {
    if (old->payload == 0)
        return 0;
    return old->size < size ? old->size : size;
}

/* A chunk for the block, with its contents; NULL when there is no memory. Where the limit forbids to have both it
 * may still be that the pages can move over. */
static struct jf_large *replace_by_large(struct jf_window *window, const struct place *old,
                                         size_t size, size_t room) {
    size_t keep = kept(old, size);
    struct jf_large *large = jf_large_create(old->heap, size, room, old->align_log2, 0, NULL);
    bool must_move = large == NULL && old->large != NULL;
    if (must_move)
        large =
            jf_large_create(old->heap, size, room, old->align_log2, old->large->committed, NULL);
    if (large == NULL)
        return NULL;
    if (old->large != NULL && jf_large_move(old->large, large))
        return large;
    if (must_move) {
        jf_large_destroy(window, large);
        return NULL;
    }
    if (keep != 0)
        jf_mark_copy((void *)large->address, (const void *)old->payload, keep);
    return large;
}

/* New memory for the block, contents copied, entry LIVE there. */
static bool replace(struct jf_window *window, struct jf_thread *thread, uint32_t index,
                    const struct place *old, size_t size, size_t stride, size_t room) {
    size_t keep = kept(old, size);
    if (stride >= JF_LARGE_MIN || room >= JF_LARGE_MIN || old->align_log2 > JF_PAGE_SHIFT) {
        struct jf_large *large = replace_by_large(window, old, size, room);
        if (large == NULL)
            return false;
        jf_large_name(large, index, old->priority);
        set_live(window, index, large->address);
        return true;
    }
    uintptr_t at = jf_grow_place(thread, old->heap, stride, old->align_log2);
    if (at == 0)
        return false;
    jf_header_store(at, jf_header_make(index, stride, (unsigned)(stride - JF_HEADER_SIZE - size),
                                       old->align_log2, JF_KIND_BLOCK | old->priority));
    if (keep != 0)
        jf_mark_copy((void *)(at + JF_HEADER_SIZE), (const void *)old->payload, keep);
    set_live(window, index, at + JF_HEADER_SIZE);
    jf_thread_leave(thread);
    return true;
}

/* A chunk that was given room to grow in is kept while the block does so, however small it still is. */
static bool stays_large(const struct place *old, size_t size, size_t stride) {
    return stride >= JF_LARGE_MIN || (old->large->order_least != 0 && size >= old->size);
}

bool jf_grow_resize(struct jf_window *window, uint32_t index, size_t size, size_t room,
                    bool in_place) {
    struct jf_thread *thread = jf_thread_get(window);
    struct place old = find_place(window, index);
    size_t stride;
    if (thread == NULL || !jf_block_stride(size, &stride))
        return false;
    if (old.large != NULL && stays_large(&old, size, stride) &&
        jf_large_resize(window, old.large, size)) {
        set_live(window, index, old.payload);
        return true;
    }
    if (old.large == NULL && old.payload != 0 && stride < JF_LARGE_MIN && room < JF_LARGE_MIN) {
        size_t now = jf_header_stride(old.header);
        if (stride <= now)
            shrink_in_region(window, &old, stride, size);
        if (stride <= now || grow_at_bump(thread, &old, stride, size) ||
            grow_into_dead(window, &old, stride, size)) {
            set_live(window, index, old.payload);
            return true;
        }
    }
    if (in_place || !replace(window, thread, index, &old, size, stride, room))
        return false;
    if (size < old.size)
        jf_space_forget_head(&window->space, index);
    release(window, thread, &old);
    if (jf_window_must_relist(window))
        jf_window_relist(window);
    return true;
}

/* ------------------------------------------------------------------------------------- claiming */

/* The read sections that a block must not be taken away from. */
struct reading {
    struct jf_readers *readers;
    const struct rm_reader *own;
};

/* Makes an unlocked LIVE entry that points to `payload` RESIZING, unless the block may be in use in a read
 * section; false when it is not so. */
static bool claim_unused(struct jf_window *window, uint32_t index, uintptr_t payload,
                         const struct reading *reading) {
    jf_word *entry = jf_space_entry(&window->space, index);
    jf_word word = jf_word_load(entry);
    while (jf_entry_state(word) == JF_ENTRY_LIVE && jf_entry_count(word) == 0 &&
           jf_space_address(&window->space, word) == payload) {
        if (!jf_word_compare_swap(entry, &word, (word & ~JF_ENTRY_STATE_MASK) | JF_ENTRY_RESIZING))
            continue;
        if (jf_readers_quiet(reading->readers, reading->own, window->fence_all))
            return true;
        jf_word_publish_low(entry, jf_entry_low(payload - window->space.base, JF_ENTRY_LIVE));
        return false;
    }
    return false;
}

/* ------------------------------------------------------------------------------------- long locks */

/* Room in the heap's region for long locks. The window's mutex is held. */
static uintptr_t place_long(struct jf_heap *heap, size_t stride, unsigned align_log2) {
    struct jf_local *local = &heap->u.grow.long_local;
    uintptr_t at = jf_block_align(local->bump, align_log2);
    if (local->region == NULL || at + stride > local->hole_end) {
        struct jf_region *old = local->region;
        jf_local_close(local);
        local->region = NULL;
        if (old != NULL)
            jf_region_set_state(old, JF_REGION_LISTED);
        struct jf_region *region = jf_region_create(heap);
        if (region == NULL)
            return 0;
        jf_local_open(local, region, jf_region_first(region), jf_region_last(region));
        at = jf_block_align(local->bump, align_log2);
    }
    if (at + stride > local->limit && !jf_local_claim(local, at + stride, 0))
        return 0;
    if (at != local->bump) {
        jf_header_store(local->bump, jf_header_hole(at - local->bump));
        jf_word_fetch_add(&local->region->live, (jf_word)0 - (uint32_t)(at - local->bump));
    }
    local->bump = at + stride;
    local->blocks++;
    jf_local_make_walkable(local);
    return at;
}

bool jf_grow_settle_long(struct jf_window *window, uint32_t index, struct jf_readers *readers,
                         const struct rm_reader *own) {
    struct jf_thread *thread = jf_thread_get(window);
    struct reading reading = {readers, own};
    jf_word word = jf_word_load(jf_space_entry(&window->space, index));
    if (thread == NULL || jf_entry_state(word) != JF_ENTRY_LIVE ||
        !claim_unused(window, index, jf_space_address(&window->space, word), &reading))
        return false;
    struct place old = find_place(window, index);
    uintptr_t at = 0;
    jf_os_mutex_lock(&window->mutex);
    if (old.large == NULL && old.payload != 0 &&
        jf_arena_owner(window->arena, old.payload) != old.heap->u.grow.long_local.region)
        at = place_long(old.heap, jf_header_stride(old.header), old.align_log2);
    if (at != 0) {
        jf_mark_copy((void *)(at + JF_HEADER_SIZE), (const void *)old.payload, old.size);
        jf_header_store(at, old.header);
    }
    jf_os_mutex_unlock(&window->mutex);
    set_live(window, index, at != 0 ? at + JF_HEADER_SIZE : old.payload);
    if (at != 0)
        release(window, thread, &old);
    return at != 0;
}

/* ------------------------------------------------------------------------------------- purging */

static void set_purged(struct jf_window *window, struct jf_heap *heap, uint32_t index,
                       unsigned align_log2) {
    jf_space_forget_head(&window->space, index);
    uint64_t grains = heap->u.grow.id | (uint64_t)(align_log2 - JF_ALIGN_LOG2_MIN)
                                            << JF_PURGED_ID_BITS;
    jf_word_publish_low(jf_space_entry(&window->space, index),
                        jf_entry_low(grains * JF_GRAIN, JF_ENTRY_PURGED));
}

static bool is_marked(const struct jf_step *step, unsigned priority) {
    return !step->hole && jf_header_kind(step->header) == (JF_KIND_BLOCK | priority);
}

/* Empties the region's blocks of this priority. Nobody has the region; the window's mutex is held. */
static bool purge_region(struct jf_window *window, struct jf_region *region, unsigned priority,
                         const struct reading *reading) {
    struct jf_step step;
    bool purged = false;
    uintptr_t at = jf_region_first(region);
    for (; at < jf_region_last(region) && jf_block_step(at, &step); at += step.stride) {
        uint32_t index = jf_header_index(step.header);
        if (!is_marked(&step, priority) || !claim_unused(window, index, step.payload, reading))
            continue;
        /* until the claim the program could take the mark away, or resize the block */
        jf_block_step(at, &step);
        if (!is_marked(&step, priority)) {
            set_live(window, index, step.payload);
            continue;
        }
        set_purged(window, region->heap, index, jf_header_align_log2(step.header));
        jf_header_store(at, jf_header_with_kind(step.header, JF_KIND_DEAD));
        jf_region_account(window, region, (uint32_t)step.stride, 1);
        purged = true;
    }
    return purged;
}

static bool purge_list(struct jf_window *window, struct jf_region *list, unsigned priority,
                       const struct reading *reading) {
    bool purged = false;
    for (; list != NULL && !purged; list = list->next)
        purged = purge_region(window, list, priority, reading);
    return purged;
}

static struct jf_large *purge_large(struct jf_window *window, struct jf_heap *heap,
                                    unsigned priority, const struct reading *reading) {
    for (struct jf_large *large = heap->u.grow.large; large != NULL; large = large->next) {
        if (jf_large_priority(large) != priority ||
            !claim_unused(window, jf_large_index(large), large->address, reading))
            continue;
        if (jf_large_priority(large) == priority)
            return large;
        set_live(window, jf_large_index(large), large->address);
    }
    return NULL;
}

bool jf_grow_purge_one(struct jf_heap *heap, unsigned priority, struct jf_readers *readers,
                       const struct rm_reader *own) {
    struct jf_grow *grow = &heap->u.grow;
    struct jf_window *window = grow->window;
    struct reading reading = {readers, own};
    bool purged = false;
    jf_os_mutex_lock(&window->mutex);
    if (jf_thread_self() != NULL)
        jf_thread_retire(jf_thread_self(), heap);
    for (unsigned bin = 0; bin <= JF_REGION_BINS && !purged; bin++)
        purged = purge_list(window, grow->bins[bin], priority, &reading);
    struct jf_region *const settled[] = {grow->settled, grow->stuck[0], grow->stuck[1]};
    for (unsigned i = 0; i < 3 && !purged; i++)
        purged = purge_list(window, settled[i], priority, &reading);
    struct jf_large *large = purged ? NULL : purge_large(window, heap, priority, &reading);
    jf_window_relist_locked(window);
    jf_os_mutex_unlock(&window->mutex);
    if (large != NULL) {
        uint32_t index = jf_large_index(large);
        unsigned align_log2 = large->align_log2;
        jf_large_destroy(window, large);
        set_purged(window, heap, index, align_log2);
        purged = true;
    }
    return purged;
}
