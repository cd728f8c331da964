/* Regions of a growing heap: lists, accounts, pages, and the holes that threads bump into. */
#include "heap/region.h"

#include "base/debug.h"

enum {
    SWEEP_MISFITS_MAX = 8,  /* holes passed by for one block; */
    SWEEP_UNNOTED_MAX = 64, /* where they are noted, those that are not */
    SWEEP_AHEAD =
        1536, /* bytes that are fetched ahead by address: headers lie too irregularly for the
                         * processor to foresee, and each would be waited for in turn */
    SWEEP_NEAR = 512,
    SWEEP_LINE = 64,
    HOLE_NOTED_MIN = 1024, /* bytes */
};

/* ------------------------------------------------------------------------------------- lists */

/* Written under the mutex; threads that drain their rings look without it whether it is a pool's. */
static void set_state(struct jf_region *region, enum jf_region_state state) {
    __atomic_store_n(&region->state, state, __ATOMIC_RELAXED);
}

static struct jf_region **list_of(struct jf_region *region) {
    struct jf_grow *grow = &region->heap->u.grow;
    switch (region->state) {
    case JF_REGION_LISTED:
        return &grow->bins[region->bin];
    case JF_REGION_SETTLED:
        return &grow->settled;
    case JF_REGION_STUCK:
        return &grow->stuck[region->bin];
    default:
        return &grow->owned;
    }
}

static void unlist(struct jf_region *region) {
    struct jf_grow *grow = &region->heap->u.grow;
    struct jf_region **list = list_of(region);
    if (region->previous != NULL)
        region->previous->next = region->next;
    else
        *list = region->next;
    if (region->next != NULL)
        region->next->previous = region->previous;
    else if (region->state == JF_REGION_LISTED)
        grow->bin_ends[region->bin] = region->previous;
    if (region->state == JF_REGION_LISTED && *list == NULL)
        grow->bin_mask &= ~((uint64_t)1 << region->bin);
    region->next = region->previous = NULL;
}

static void enlist(struct jf_region *region) {
    struct jf_grow *grow = &region->heap->u.grow;
    region->bin = region->state == JF_REGION_STUCK ? grow->stuck_turn ^ 1
                                                   : jf_region_bin(jf_region_live_bytes(region));
    struct jf_region **list = list_of(region);
    region->previous = NULL;
    region->next = *list;
    if (region->state == JF_REGION_LISTED) {
        struct jf_region **end = &grow->bin_ends[region->bin];
        grow->bin_mask |= (uint64_t)1 << region->bin;
        if ((region->swept & JF_SWEPT) != 0 && *end != NULL) {
            /* those that may have holes to offer come first */
            region->next = NULL;
            region->previous = *end;
            (*end)->next = region;
            *end = region;
            return;
        }
        if (*end == NULL)
            *end = region;
    }
    if (*list != NULL)
        (*list)->previous = region;
    *list = region;
}

static struct jf_region *new_descriptor(struct jf_window *window) {
    struct jf_region *region = window->free_regions;
    if (region == NULL)
        return jf_arena_meta_alloc(window->arena, sizeof *region);
    window->free_regions = region->next;
    return region;
}

static void free_descriptor(struct jf_window *window, struct jf_region *region) {
    set_state(region, JF_REGION_FREE);
    region->next = window->free_regions;
    window->free_regions = region;
}

struct jf_region *jf_region_create(struct jf_heap *heap) {
    struct jf_window *window = heap->u.grow.window;
    struct jf_region *region = new_descriptor(window);
    if (region == NULL)
        return NULL;
    uintptr_t start = jf_arena_alloc(window->arena, JF_REGION_ORDER, JF_CHUNK_REGION, region, NULL);
    if (start == 0) {
        free_descriptor(window, region);
        return NULL;
    }
    region->heap = heap;
    region->start = start;
    region->end = start + JF_REGION_SIZE;
    jf_word_store(&region->live, 0);
    region->settled_live = region->walked_call = 0;
    region->witness = region->pinned_dead = 0;
    region->starved = region->in_place = false;
    region->large = false;
    region->swept = 0;
    region->swept_live = 0;
    for (unsigned i = 0; i < JF_REGION_PAGES / 64; i++)
        region->pages[i] = 0;
    set_state(region, JF_REGION_OWNED);
    if (!jf_region_commit(region, region->start, region->start + JF_PAGE_SIZE, 0)) {
        jf_arena_free(window->arena, start, 0);
        free_descriptor(window, region);
        return NULL;
    }
    jf_mark_close(start, JF_REGION_SIZE);
    jf_header_store(jf_region_first(region), jf_header_hole(JF_REGION_SIZE - JF_GRAIN));
    enlist(region);
    heap->u.grow.region_count++;
    return region;
}

/* Bytes from the region's start up to the last page that holds memory. */
static size_t dirty_extent(const struct jf_region *region) {
    for (unsigned i = JF_REGION_PAGES / 64; i > 0; i--)
        if (region->pages[i - 1] != 0)
            return (((size_t)i - 1) * 64 + jf_bits_log2(region->pages[i - 1]) + 1) << JF_PAGE_SHIFT;
    return 0;
}

void jf_region_release(struct jf_region *region) {
    struct jf_heap *heap = region->heap;
    struct jf_window *window = heap->u.grow.window;
    unlist(region);
    if (--heap->u.grow.region_count < heap->u.grow.regions_low)
        heap->u.grow.regions_low = heap->u.grow.region_count;
    JF_ASSERT(jf_region_live_bytes(region) == 0);
    jf_heap_uncommit(heap, jf_region_committed(region));
    jf_arena_free(window->arena, region->start, dirty_extent(region));
    free_descriptor(window, region);
}

void jf_region_set_state(struct jf_region *region, enum jf_region_state state) {
    unlist(region);
    set_state(region, state);
    enlist(region);
    if (state != JF_REGION_OWNED && state != JF_REGION_HELD &&
        !region->heap->u.grow.window->keep_empty && jf_region_live_bytes(region) == 0)
        jf_region_release(region);
}

/* ------------------------------------------------------------------------------------- accounts */

void jf_region_cross(struct jf_window *window, struct jf_region *region) {
    if (__atomic_exchange_n(&region->crossed, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    struct jf_region *head = __atomic_load_n(&window->crossed, __ATOMIC_RELAXED);
    do
        region->crossed_next = head;
    while (!__atomic_compare_exchange_n(&window->crossed, &head, region, false, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
}

bool jf_heap_commit(struct jf_heap *heap, size_t bytes, size_t over) {
    struct jf_grow *grow = &heap->u.grow;
    jf_word now = jf_word_fetch_add(&grow->committed, bytes) + bytes;
    if (heap->options.limit != 0 && now > heap->options.limit + over) {
        jf_word_fetch_add(&grow->committed, (jf_word)0 - bytes);
        return false;
    }
    jf_word peak = jf_word_load(&grow->peak_committed);
    while (now > peak && !jf_word_compare_swap(&grow->peak_committed, &peak, now)) {
    }
    return true;
}

void jf_heap_uncommit(struct jf_heap *heap, size_t bytes) {
    jf_word_fetch_add(&heap->u.grow.committed, (jf_word)0 - bytes);
}

/* ------------------------------------------------------------------------------------- pages */

static bool page_marked(const struct jf_region *region, unsigned page) {
    return (region->pages[page / 64] >> (page % 64) & 1) != 0;
}

bool jf_region_has_page(const struct jf_region *region, uintptr_t address) {
    return page_marked(region, (unsigned)((address - region->start) >> JF_PAGE_SHIFT));
}

size_t jf_region_committed(const struct jf_region *region) {
    size_t pages = 0;
    for (unsigned i = 0; i < JF_REGION_PAGES / 64; i++)
        pages += (size_t)__builtin_popcountll(region->pages[i]);
    return pages << JF_PAGE_SHIFT;
}

bool jf_region_commit(struct jf_region *region, uintptr_t from, uintptr_t to, size_t over) {
    unsigned first = (unsigned)((from - region->start) >> JF_PAGE_SHIFT);
    unsigned last = (unsigned)((to - 1 - region->start) >> JF_PAGE_SHIFT);
    size_t fresh = 0;
    for (unsigned page = first; page <= last; page++)
        fresh += !page_marked(region, page);
    if (fresh == 0)
        return true;
    if (!jf_heap_commit(region->heap, fresh << JF_PAGE_SHIFT, over))
        return false;
    for (unsigned page = first; page <= last; page++)
        region->pages[page / 64] |= (uint64_t)1 << (page % 64);
    return true;
}

size_t jf_region_give_back(struct jf_region *region, uintptr_t from, uintptr_t to) {
    unsigned page = (unsigned)((from - region->start + JF_PAGE_SIZE - 1) >> JF_PAGE_SHIFT);
    /* behind the last header there is nothing */
    unsigned end = to == jf_region_last(region) ? (unsigned)JF_REGION_PAGES
                                                : (unsigned)((to - region->start) >> JF_PAGE_SHIFT);
    size_t given = 0;
    while (page < end) {
        if (!page_marked(region, page)) {
            page++;
            continue;
        }
        unsigned first = page;
        while (page < end && page_marked(region, page)) {
            region->pages[page / 64] &= ~((uint64_t)1 << (page % 64));
            page++;
        }
        size_t size = (size_t)(page - first) << JF_PAGE_SHIFT;
        jf_os_give_back(region->start + ((size_t)first << JF_PAGE_SHIFT), size);
        given += size;
    }
    if (given != 0)
        jf_heap_uncommit(region->heap, given);
    return given;
}

size_t jf_region_was_given_back(struct jf_region *region) {
    size_t bytes = jf_region_committed(region);
    for (unsigned i = 0; i < JF_REGION_PAGES / 64; i++)
        region->pages[i] = 0;
    jf_heap_uncommit(region->heap, bytes);
    return bytes;
}

/* ------------------------------------------------------------------------------------- holes */

void jf_local_open(struct jf_local *local, struct jf_region *region, uintptr_t from, uintptr_t to) {
    JF_ASSERT(from >= jf_region_first(region) && to <= jf_region_last(region) && from <= to);
    local->region = region;
    local->bump = local->limit = local->hole = from;
    local->hole_end = to;
}

bool jf_local_claim(struct jf_local *local, uintptr_t need, size_t over) {
    if (local->region == NULL || need > local->hole_end)
        return false;
    uintptr_t limit = local->limit + JF_CLAIM_SIZE;
    if (limit < need)
        limit = need;
    if (limit > local->hole_end)
        limit = local->hole_end;
    /* the header of what follows may have to be written at the limit */
    uintptr_t touched = limit + JF_HEADER_SIZE;
    if (touched > local->region->end)
        touched = local->region->end;
    if (!jf_region_commit(local->region, local->limit, touched, over))
        return false;
    jf_region_add(local->region, (uint32_t)(limit - local->limit), 0);
    local->limit = limit;
    return true;
}

void jf_local_make_walkable(struct jf_local *local) {
    if (local->region != NULL && local->bump < local->hole_end)
        jf_header_store(local->bump, jf_header_hole(local->hole_end - local->bump));
}

void jf_local_close(struct jf_local *local) {
    jf_local_make_walkable(local);
    if (local->region == NULL)
        return;
    JF_ASSERT(local->bump <= local->limit && local->limit <= local->hole_end);
    jf_word change = ((jf_word)local->blocks << 32) - (local->limit - local->bump);
    local->blocks = 0;
    if (local->bump > local->hole) /* less: the block before it was freed */
        local->filled += (uint32_t)(local->bump - local->hole);
    local->bump = local->limit = local->hole_end = local->hole = 0;
    if (change != 0)
        jf_word_fetch_add_light(&local->region->live, change);
}

/* Asks for the lines of the next headers, if the last were not so far apart that nothing is to be read in between. */
static inline void fetch_ahead(struct jf_local *local, uintptr_t at, size_t stride) {
    uintptr_t fetched = local->fetched > at ? local->fetched : at;
    if (stride < SWEEP_NEAR)
        for (; fetched < at + SWEEP_AHEAD; fetched += SWEEP_LINE)
            __builtin_prefetch((const void *)fetched, 1);
    local->fetched = fetched;
}

/* --- Holes left behind */

/* When there is no room the smallest one is forgotten until the next sweep. False: it is that one, or too small. */
static bool note_hole(struct jf_holes *holes, uintptr_t from, uintptr_t to) {
    if (holes == NULL || to < from + HOLE_NOTED_MIN)
        return false;
    struct jf_hole *place = &holes->of[holes->count];
    if (holes->count == JF_HOLES_MAX) {
        place = holes->of;
        for (struct jf_hole *each = place + 1; each < holes->of + JF_HOLES_MAX; each++)
            if (each->to - each->from < place->to - place->from)
                place = each;
        if (to - from <= place->to - place->from)
            return false;
    } else {
        holes->count++;
    }
    *place = (struct jf_hole){from, to};
    return true;
}

/* The smallest that takes the block; false when none does. */
static bool take_noted_hole(struct jf_local *local, size_t stride, unsigned align_log2) {
    struct jf_holes *holes = local->holes;
    struct jf_hole *best = NULL;
    if (holes == NULL)
        return false;
    for (struct jf_hole *each = holes->of; each < holes->of + holes->count; each++)
        if (jf_block_align(each->from, align_log2) + stride <= each->to &&
            (best == NULL || each->to - each->from < best->to - best->from))
            best = each;
    if (best == NULL)
        return false;
    jf_local_open(local, local->region, best->from, best->to);
    *best = holes->of[--holes->count];
    return true;
}

bool jf_local_next_hole(struct jf_local *local, size_t stride, unsigned align_log2) {
    struct jf_region *region = local->region;
    uintptr_t last = jf_region_last(region);
    uintptr_t at = local->sweep;
    unsigned misfits = 0, most = local->holes != NULL ? SWEEP_UNNOTED_MAX : SWEEP_MISFITS_MAX;
    struct jf_step step = {.stride = stride};
    uintptr_t rest = local->bump, rest_end = local->hole_end;
    jf_local_close(local);
    note_hole(local->holes, rest, rest_end);
    if (take_noted_hole(local, stride, align_log2))
        return true;
    while (at != 0 && at < last) {
        uintptr_t hole = at;
        fetch_ahead(local, at, step.stride);
        while (at < last && jf_region_step(at, &step) && step.hole)
            at += step.stride;
        if (at == hole) {
            JF_ASSERT(step.stride != 0);
            at += step.stride;
            continue;
        }
        local->sweep = at;
        if (jf_block_align(hole, align_log2) + stride <= at) {
            jf_local_open(local, region, hole, at);
            return true;
        }
        if (!note_hole(local->holes, hole, at) && ++misfits > most)
            return false;
    }
    local->sweep = 0;
    return false;
}
