/* The growing profile: allocation by bumping, freeing through the thread's ring, resizing. */
#include "base/debug.h"
#include "heap/fast.h"
#include "heap/region.h"

enum {
    ADOPT_BIN_MAX = 23,    /* densest regions that are bumped into again: a quarter dead or more */
    ADOPTIONS_MAX = 2,     /* regions swept in vain for one block before it gets a fresh one */
    ADOPT_LOOKS_MAX = 4,   /* regions of a bin that are looked at for one to bump into, */
    ADOPT_PASSED_MAX = 32, /* besides so many that are for others */
    SPARSE_BIN = 3, /* regions up to this bin, an eighth live, are taken for blocks of any size */
    WORTH_A_SWEEP =
        JF_REGION_SIZE / 4, /* bytes filled, from which on a region may be swept again at once */
    CALM_REGIONS =
        8, /* and half as many as there were: regions that a heap gets before its bins are emptied */
    BURY_BATCHES = 64,      /* of the depot, at a time */
    ALIGN_LOG2_REGION = 12, /* more alignment than this gets a chunk of its own */
};

/* ------------------------------------------------------------------------------------- heaps */

/* Memory for a heap and its depot. */
static struct jf_heap *allocate_heap(struct jf_arena *arena) {
    struct jf_heap *heap = jf_arena_meta_alloc(arena, sizeof *heap);
    if (heap == NULL)
        return NULL;
    heap->u.grow.depot = jf_arena_meta_alloc(arena, sizeof *heap->u.grow.depot);
    if (heap->u.grow.depot != NULL)
        return heap;
    jf_arena_meta_free(arena, heap, sizeof *heap);
    return NULL;
}

static void free_heap(struct jf_arena *arena, struct jf_heap *heap) {
    jf_arena_meta_free(arena, heap->u.grow.depot, sizeof *heap->u.grow.depot);
    jf_arena_meta_free(arena, heap, sizeof *heap);
}

struct jf_heap *jf_grow_create(struct jf_window *window, const struct jf_options *options) {
    struct jf_heap *heap = allocate_heap(window->arena);
    if (heap == NULL)
        return NULL;
    heap->space = &window->space;
    heap->options = *options;
    heap->u.grow.window = window;
    jf_os_mutex_lock(&window->mutex);
    struct jf_heap *sole = window->heap_count == 0 ? heap : NULL;
    uint32_t id = 0;
    while (id < window->heap_count && window->heaps[id] != NULL)
        id++;
    bool room = id < window->heap_max;
    if (room) {
        window->heaps[id] = heap;
        heap->u.grow.id = id;
        __atomic_store_n(&window->sole, sole, __ATOMIC_RELAXED);
        jf_window_leave_sole(window);
        if (id == window->heap_count)
            window->heap_count++;
    }
    jf_os_mutex_unlock(&window->mutex);
    if (!room) {
        free_heap(window->arena, heap);
        return NULL;
    }
    jf_os_mutex_init(&heap->mutex);
    jf_os_mutex_init(&heap->compacting);
    return heap;
}

/* Makes the entry of a block that goes with its heap free, whatever state it is in. */
static void drop_entry(struct jf_thread *thread, const struct jf_heap *heap, uint32_t index) {
    struct jf_window *window = thread->window;
    jf_word *entry = jf_space_entry(&window->space, index);
    jf_word word = jf_word_load(entry);
    jf_word next;
    do
        next = (jf_entry_next_generation(word) & JF_ENTRY_GENERATION_MASK) | JF_ENTRY_PENDING;
    while (!jf_word_compare_swap(entry, &word, next));
    jf_table_push(&window->table, &thread->entries, index, heap->options.retire);
}

static void drop_region(struct jf_thread *thread, struct jf_region *region) {
    struct jf_space *space = &thread->window->space;
    struct jf_step step;
    uintptr_t at = jf_region_first(region);
    for (; at < jf_region_last(region) && jf_block_step(at, &step); at += step.stride) {
        if (step.hole)
            continue;
        uint32_t index = jf_header_index(step.header);
        jf_word word = jf_word_load(jf_space_entry(space, index));
        if (jf_entry_state(word) != JF_ENTRY_FREE && jf_space_address(space, word) == step.payload)
            drop_entry(thread, region->heap, index);
    }
    jf_word_store(&region->live, 0);
    jf_region_release(region);
}

static void drop_list(struct jf_thread *thread, struct jf_region *const *list) {
    while (*list != NULL)
        drop_region(thread, *list);
}

/* Entries of purged blocks are found in the table only: they have no memory. */
static void drop_purged(struct jf_thread *thread, const struct jf_heap *heap) {
    struct jf_window *window = thread->window;
    uint32_t end = (uint32_t)(window->table.pages_used << JF_TABLE_PAGE_SHIFT);
    for (uint32_t index = 1; index < end; index++) {
        jf_word word = jf_word_load(jf_space_entry(&window->space, index));
        if (jf_entry_state(word) == JF_ENTRY_PURGED &&
            jf_grow_purged_id(jf_entry_offset(word)) == heap->u.grow.id)
            drop_entry(thread, heap, index);
    }
}

void jf_grow_destroy(struct jf_heap *heap) {
    struct jf_grow *grow = &heap->u.grow;
    struct jf_window *window = grow->window;
    struct jf_thread *thread = jf_thread_get(window);
    jf_os_mutex_lock(&window->mutex);
    if (thread == NULL)
        thread = window->fallback;
    /* frees of this heap may wait in any thread's ring */
    jf_thread_close_others(window);
    for (struct jf_thread *each = window->threads; each != NULL; each = each->next) {
        while (each != thread && !jf_thread_outside(each))
            jf_os_yield();
        jf_thread_drain(each);
        jf_thread_retire(each, heap);
        jf_thread_forbid_fast(each);
    }
    while (jf_thread_drain_depot(thread, heap))
        continue;
    jf_local_close(&grow->long_local);
    jf_window_relist_locked(window);
    for (unsigned bin = 0; bin <= JF_REGION_BINS; bin++)
        drop_list(thread, &grow->bins[bin]);
    drop_list(thread, &grow->settled);
    drop_list(thread, &grow->stuck[0]);
    drop_list(thread, &grow->stuck[1]);
    drop_list(thread, &grow->owned);
    drop_purged(thread, heap);
    struct jf_large *large = grow->large;
    for (const struct jf_large *each = large; each != NULL; each = each->next)
        drop_entry(thread, heap, jf_large_index(each));
    jf_thread_open_others(window);
    window->heaps[grow->id] = NULL;
    __atomic_store_n(&window->sole, NULL, __ATOMIC_RELAXED);
    jf_os_mutex_unlock(&window->mutex);
    while (large != NULL) {
        struct jf_large *next = large->next;
        jf_large_destroy(window, large);
        large = next;
    }
    jf_os_mutex_finish(&heap->mutex);
    jf_os_mutex_finish(&heap->compacting);
    if (grow->compactor != NULL)
        jf_arena_meta_free(window->arena, grow->compactor, grow->compactor_size);
    jf_depot_free_spares(heap);
    free_heap(window->arena, heap);
}

struct jf_heap *jf_grow_heap_at(struct jf_window *window, uintptr_t payload) {
    if (payload - window->space.base < jf_arena_table_size(window->arena)) {
        /* a purged block: the heap's id stands for its address */
        uint32_t id = jf_grow_purged_id(payload - window->space.base);
        return id < window->heap_count ? window->heaps[id] : NULL;
    }
    struct jf_chunk chunk = jf_arena_find(window->arena, payload);
    if (chunk.kind == JF_CHUNK_REGION || chunk.kind == JF_CHUNK_POOL)
        return ((struct jf_region *)chunk.owner)->heap;
    if (chunk.kind == JF_CHUNK_LARGE)
        return ((struct jf_large *)chunk.owner)->heap;
    return NULL;
}

/* ------------------------------------------------------------------------------------- room */

/* Whether the region may be worth a sweep: it was not swept in vain before, or a quarter of what lived then has died. */
static bool may_have_holes(const struct jf_region *region, unsigned swept) {
    return (region->swept & swept) == 0 || jf_region_has_thinned(region);
}

/* How a region is noted that was swept for such blocks. */
static unsigned swept_for(unsigned kind) {
    static const unsigned notes[] = {JF_SWEPT, JF_SWEPT_MEDIUM, JF_SWEPT_LARGE};
    return notes[kind];
}

/* The sparsest region that may have holes for such blocks. Those that were swept for all blocks are at the lists'
 * ends. */
static struct jf_region *adoptable(const struct jf_grow *grow, unsigned kind) {
    uint64_t candidates = grow->bin_mask & (((uint64_t)1 << (ADOPT_BIN_MAX + 1)) - 1);
    unsigned unwanted = JF_SWEPT | swept_for(kind);
    while (candidates != 0) {
        unsigned bin = jf_bits_lowest(candidates);
        struct jf_region *region = grow->bins[bin];
        for (unsigned looks = 0, passed = 0;
             looks < ADOPT_LOOKS_MAX && passed < ADOPT_PASSED_MAX && region != NULL;
             region = region->next) {
            bool suits = bin <= SPARSE_BIN || region->large == (kind == JF_LOCAL_LARGE);
            if (suits && may_have_holes(region, unwanted))
                return region;
            looks += suits;
            passed += !suits;
        }
        candidates &= ~((uint64_t)1 << bin);
    }
    return NULL;
}

/* Blocks that wait in bins keep the regions they lie in from being given back, however few they are, and the more
 * regions there are the more may wait. So all that wait die when the heap has become half as large again; that is
 * paid for by what was bumped meanwhile. Some for each region that is taken then, so that no call takes long. False: it
 * has not become so large. The window's mutex is held, the thread outside. */
static bool bury_waiting(struct jf_thread *thread, struct jf_heap *heap) {
    struct jf_grow *grow = &heap->u.grow;
    if (grow->region_count < grow->regions_low + grow->regions_low / 2 + CALM_REGIONS)
        return false;
    jf_thread_drain(thread);
    unsigned batches = BURY_BATCHES;
    while (batches != 0 && jf_thread_drain_depot(thread, heap))
        batches--;
    for (struct jf_thread *each = thread->window->threads; each != NULL; each = each->next)
        if (each != thread)
            __atomic_store_n(&each->drain_wanted, 1, __ATOMIC_RELAXED);
    jf_window_relist_locked(thread->window);
    if (batches != 0)
        grow->regions_low = grow->region_count;
    return true;
}

/* Takes up a region that nobody has: one with holes, or a fresh one. The window's mutex is held. */
static bool take_region(struct jf_thread *thread, struct jf_heap *heap, struct jf_local *local,
                        bool fresh) {
    struct jf_region *region = fresh ? NULL : adoptable(&heap->u.grow, local->kind);
    if (region == NULL && bury_waiting(thread, heap))
        region = adoptable(&heap->u.grow, local->kind);
    uintptr_t first;
    local->adopted = region != NULL;
    local->filled = 0;
    if (region != NULL) {
        jf_region_set_state(region, JF_REGION_OWNED);
        region->large = local->kind == JF_LOCAL_LARGE;
        first = jf_region_first(region);
        jf_local_open(local, region, first, first);
        local->sweep = local->fetched = first;
        return true;
    }
    region = jf_region_create(heap);
    if (region == NULL)
        return false;
    region->large = local->kind == JF_LOCAL_LARGE;
    jf_local_open(local, region, jf_region_first(region), jf_region_last(region));
    local->sweep = 0;
    return true;
}

static bool hole_takes(const struct jf_local *local, size_t stride, unsigned align_log2) {
    return local->region != NULL &&
           jf_block_align(local->bump, align_log2) + stride <= local->hole_end;
}

/* Makes room in the local without the window's mutex: claims more of the hole, goes to the next. */
static bool extend(struct jf_local *local, size_t stride, unsigned align_log2) {
    if (!hole_takes(local, stride, align_log2)) {
        if (local->region == NULL || !jf_local_has_more(local))
            return false;
        if (!jf_local_next_hole(local, stride, align_log2))
            return false;
    }
    uintptr_t end = jf_block_align(local->bump, align_log2) + stride;
    return end <= local->limit || jf_local_claim(local, end, 0);
}

/* The local that lacks room: for small and medium blocks the usual one, but while that is being swept and its holes do
 * not fit the medium ones'. */
static struct jf_local *lacking(struct jf_thread *thread, struct jf_heap *heap, size_t stride,
                                unsigned align_log2) {
    struct jf_local *local = jf_thread_local(thread, heap, JF_LOCAL_SMALL);
    if (stride >= JF_STRIDE_LARGE)
        return jf_thread_local(thread, heap, JF_LOCAL_LARGE);
    bool apart = local->sweep != 0 && !hole_takes(local, stride, align_log2);
    return apart ? jf_thread_local(thread, heap, JF_LOCAL_MEDIUM) : local;
}

/* Lets go of the local's region and takes up another. The window's mutex is held. */
static bool change_region(struct jf_thread *thread, struct jf_heap *heap, struct jf_local *local,
                          bool fresh) {
    struct jf_region *old = local->region;
    if (old != NULL) {
        jf_local_close(local);
        jf_local_leave_region(local);
        if (local->adopted && local->filled < WORTH_A_SWEEP) {
            old->swept |= (uint8_t)swept_for(local->kind);
            old->swept_live = (uint32_t)jf_region_live_bytes(old);
        }
        jf_region_set_state(old, JF_REGION_LISTED);
    }
    return take_region(thread, heap, local, fresh);
}

/* An entry for the thread, from what idle threads left or a page nobody has. The mutex is held. */
static bool supply_entry(struct jf_thread *thread) {
    struct jf_window *window = thread->window;
    struct jf_table_owner *owner = &thread->entries;
    if (jf_table_ready(owner) || jf_table_refill(&window->table, owner))
        return true;
    for (struct jf_thread *idle = window->threads; idle != NULL; idle = idle->next)
        if (!idle->in_use)
            jf_table_take_over(&window->table, owner, &idle->entries);
    return jf_table_refill(&window->table, owner) ||
           (jf_window_add_page(window, owner) && jf_table_refill(&window->table, owner));
}

/* A region and an entry for the thread, which is outside. `fresh`: no region with holes, which were looked
 * through before. False when there is no memory. */
static bool supply(struct jf_thread *thread, struct jf_heap *heap, size_t stride,
                   unsigned align_log2, bool fresh) {
    struct jf_window *window = thread->window;
    if (jf_thread_local(thread, heap, JF_LOCAL_SMALL) == NULL && !jf_thread_add_share(thread, heap))
        return false;
    jf_os_mutex_lock(&window->mutex);
    jf_window_relist_locked(window);
    jf_thread_note_activity(thread);
    jf_thread_judge_sole(thread, heap);
    bool done = supply_entry(thread);
    struct jf_local *local = lacking(thread, heap, stride, align_log2);
    if (done && !hole_takes(local, stride, align_log2)) {
        done = change_region(thread, heap, local, fresh);
    } else if (done) {
        uintptr_t end = jf_block_align(local->bump, align_log2) + stride;
        done = end <= local->limit || jf_local_claim(local, end, 0); /* the heap's limit */
    }
    jf_os_mutex_unlock(&window->mutex);
    return done;
}

static uintptr_t bump(struct jf_local *local, size_t stride, unsigned align_log2) {
    uintptr_t at = jf_block_align(local->bump, align_log2);
    if (at != local->bump) {
        uint32_t pad = (uint32_t)(at - local->bump);
        jf_header_store(local->bump, jf_header_hole(pad));
        jf_word_fetch_add_light(&local->region->live, (jf_word)0 - pad);
    }
    JF_ASSERT(at + stride <= local->limit);
    local->bump = at + stride;
    local->blocks++;
    return at;
}

/* The local in which there is room, or can be made without the window's mutex. */
static struct jf_local *roomy(const struct jf_thread *thread, const struct jf_heap *heap,
                              size_t stride, unsigned align_log2) {
    struct jf_share *share = jf_thread_share(thread, heap);
    if (share == NULL)
        return NULL;
    struct jf_local *small = &share->local[JF_LOCAL_SMALL],
                    *medium = &share->local[JF_LOCAL_MEDIUM];
    struct jf_local *large = &share->local[JF_LOCAL_LARGE];
    if (stride >= JF_STRIDE_LARGE)
        return extend(large, stride, align_log2) ? large : NULL;
    /* medium blocks would skip many holes: they do not look further here */
    bool near = hole_takes(small, stride, align_log2) || stride < JF_STRIDE_MEDIUM;
    if (near && extend(small, stride, align_log2))
        return small;
    return small->sweep != 0 && extend(medium, stride, align_log2) ? medium : NULL;
}

/* The same when an entry is at hand as well. */
static struct jf_local *ready(struct jf_thread *thread, const struct jf_heap *heap, size_t stride,
                              unsigned align_log2) {
    if (!jf_table_ready(&thread->entries) &&
        !jf_table_refill(&thread->window->table, &thread->entries))
        return NULL;
    return roomy(thread, heap, stride, align_log2);
}

struct jf_local *jf_grow_bump(struct jf_thread *thread, const struct jf_heap *heap, size_t stride,
                              uintptr_t *ret_at) {
    struct jf_local *local = roomy(thread, heap, stride, JF_ALIGN_LOG2_MIN);
    if (local != NULL)
        *ret_at = bump(local, stride, JF_ALIGN_LOG2_MIN);
    return local;
}

uintptr_t jf_grow_place(struct jf_thread *thread, struct jf_heap *heap, size_t stride,
                        unsigned align_log2) {
    for (unsigned tries = 0;; tries++) {
        jf_thread_enter(thread);
        struct jf_local *local = ready(thread, heap, stride, align_log2);
        if (RM_LIKELY(local != NULL))
            return bump(local, stride, align_log2);
        jf_thread_leave(thread);
        if (!supply(thread, heap, stride, align_log2, tries >= ADOPTIONS_MAX))
            return 0;
    }
}

/* ------------------------------------------------------------------------------------- malloc */

static bool needs_chunk(size_t stride, unsigned align_log2) {
    return stride >= JF_LARGE_MIN || align_log2 > ALIGN_LOG2_REGION;
}

static rmhandle_t publish(struct jf_thread *thread, uint32_t index, uintptr_t payload) {
    const struct jf_space *space = &thread->window->space;
    jf_word *entry = jf_space_entry(space, index);
    jf_word word = __atomic_load_n(entry, __ATOMIC_RELAXED);
    jf_word_publish_low_light(entry, word, jf_entry_low(payload - space->base, JF_ENTRY_LIVE));
    return jf_handle_make(space, index, jf_entry_generation(word));
}

static rmhandle_t malloc_large(struct jf_thread *thread, struct jf_heap *heap, size_t size,
                               unsigned align_log2, bool zero) {
    struct jf_window *window = thread->window;
    bool is_zero;
    struct jf_large *large = jf_large_create(heap, size, 0, align_log2, 0, &is_zero);
    if (large == NULL)
        return NULL;
    if (zero && !is_zero)
        jf_mark_fill((void *)large->address, 0, size);
    for (;;) {
        jf_thread_enter(thread);
        if (jf_table_ready(&thread->entries) || jf_table_refill(&window->table, &thread->entries))
            break;
        jf_thread_leave(thread);
        jf_os_mutex_lock(&window->mutex);
        bool added = jf_window_add_page(window, &thread->entries);
        jf_os_mutex_unlock(&window->mutex);
        if (!added) {
            jf_large_destroy(window, large);
            return NULL;
        }
    }
    uint32_t index = jf_table_pop(&window->table, &thread->entries);
    jf_large_name(large, index, 0);
    rmhandle_t handle = publish(thread, index, large->address);
    jf_thread_leave(thread);
    return handle;
}

static uintptr_t waiting_payload(const struct jf_space *space, uint32_t index) {
    return jf_space_address(space, jf_word_load(jf_space_entry(space, index)));
}

/* Index of a block from the thread's bins, or the heap's depot; 0: there is none. The thread is inside. */
static uint32_t take_waiting(struct jf_heap *heap, struct jf_bins *bins, size_t number) {
    uint32_t *bin = jf_bins_at(bins, number);
    bool found = *bin != 0 || (number < JF_BINS_SMALL && jf_depot_take(heap, bins, number));
    return found ? jf_bin_pop(bin) : 0;
}

/* A block that has waited. */
static rmhandle_t reuse(struct jf_thread *thread, struct jf_heap *heap, size_t size, bool zero) {
    const struct jf_space *space = &thread->window->space;
    struct jf_share *share = jf_thread_share(thread, heap);
    rmhandle_t handle = NULL;
    if (share == NULL)
        return NULL;
    jf_thread_enter(thread);
    uint32_t index = take_waiting(heap, &share->bins, jf_bins_of_size(size));
    if (index != 0) {
        uintptr_t payload = waiting_payload(space, index);
        /* while nobody can move it */
        if (zero)
            jf_mark_fill((void *)payload, 0, size);
        jf_word *entry = jf_space_entry(space, index);
        jf_word word = __atomic_load_n(entry, __ATOMIC_RELAXED);
        jf_bins_give_out(entry, word ^ (JF_ENTRY_PENDING ^ JF_ENTRY_LIVE), payload - JF_HEADER_SIZE,
                         size, jf_is_single_threaded());
        handle = jf_bins_handle(entry, word);
    }
    jf_thread_leave(thread);
    return handle;
}

rmhandle_t jf_grow_malloc(struct jf_heap *heap, size_t size, unsigned align_log2, bool zero) {
    struct jf_thread *thread = jf_thread_get(heap->u.grow.window);
    size_t stride;
    if (thread == NULL || !jf_block_stride(size, &stride))
        return NULL;
    if (needs_chunk(stride, align_log2)) {
        jf_thread_begin_change(thread->window);
        rmhandle_t handle = malloc_large(thread, heap, size, align_log2, zero);
        jf_thread_end_change(thread);
        return handle;
    }
    if (align_log2 == JF_ALIGN_LOG2_MIN && stride <= JF_BIN_STRIDE_MAX) {
        rmhandle_t handle = reuse(thread, heap, size, zero);
        if (handle != NULL)
            return handle;
    }
    uintptr_t at = jf_grow_place(thread, heap, stride, align_log2);
    if (at == 0)
        return NULL;
    uint32_t index = jf_table_pop(&thread->window->table, &thread->entries);
    unsigned slack = (unsigned)(stride - JF_HEADER_SIZE - size);
    jf_header_store(at, jf_header_make(index, stride, slack, align_log2, JF_KIND_BLOCK));
    if (zero)
        jf_mark_fill((void *)(at + JF_HEADER_SIZE), 0, size);
    rmhandle_t handle = publish(thread, index, at + JF_HEADER_SIZE);
    jf_thread_leave(thread);
    return handle;
}

/* ------------------------------------------------------------------------------------- free */

void jf_grow_account_block(struct jf_thread *thread, uintptr_t payload) {
    uintptr_t at = payload - JF_HEADER_SIZE;
    jf_word header = jf_header_load(at);
    size_t stride = jf_header_stride(header);
    struct jf_region *region = jf_arena_owner(thread->window->arena, at);
    struct jf_local *local = jf_thread_local(thread, region->heap, JF_LOCAL_SMALL);
    if (local != NULL && local->region == region && local->bump == at + stride) {
        local->bump = at;
        local->blocks--;
        return;
    }
    jf_header_store(at, jf_header_with_kind(header, JF_KIND_DEAD));
    jf_region_account(thread->window, region, (uint32_t)stride, 1);
}

struct jf_large *jf_grow_large_at(struct jf_window *window, uintptr_t payload) {
    if ((payload & (JF_UNIT_SIZE - 1)) != 0)
        return NULL;
    struct jf_chunk chunk = jf_arena_find(window->arena, payload);
    return chunk.kind == JF_CHUNK_LARGE && chunk.address == payload ? chunk.owner : NULL;
}

/* The thread for a free: its own, or the shared one with the window's mutex held. */
static struct jf_thread *begin_free(struct jf_window *window) {
    struct jf_thread *thread = jf_thread_get(window);
    if (thread != NULL) {
        jf_thread_enter(thread);
        return thread;
    }
    jf_os_mutex_lock(&window->mutex);
    return window->fallback;
}

static void end_free(struct jf_thread *thread) {
    struct jf_window *window = thread->window;
    if (thread == window->fallback) {
        jf_thread_drain(thread);
        jf_os_mutex_unlock(&window->mutex);
    } else {
        jf_thread_leave(thread);
    }
    if (jf_window_must_relist(window))
        jf_window_relist(window);
}

static void free_apart(struct jf_window *window, uint32_t index, struct jf_large *large) {
    bool retire = large != NULL && large->heap->options.retire;
    if (large != NULL)
        jf_large_destroy(window, large);
    struct jf_thread *thread = begin_free(window);
    jf_table_push(&window->table, &thread->entries, index, retire);
    end_free(thread);
}

void jf_grow_freed(struct jf_window *window, uint32_t index, jf_word word) {
    uintptr_t payload = jf_space_address(&window->space, word);
    struct jf_large *large = jf_grow_large_at(window, payload);
    if (large != NULL || jf_entry_state(word) == JF_ENTRY_PURGED) {
        free_apart(window, index, large);
        return;
    }
    struct jf_thread *thread = begin_free(window);
    if (jf_entry_generation(jf_entry_next_generation(word)) == 0 || payload % JF_UNIT_SIZE == 0) {
        /* the entry may have to be retired; or a large block could have the same address some day, and nothing that
         * was known of this one may be true of that */
        jf_thread_bury(thread, index);
    } else {
        thread->ring[thread->ring_count++] = index;
        if (thread->ring_count == JF_RING_SIZE)
            jf_thread_empty_ring(thread);
    }
    end_free(thread);
}
