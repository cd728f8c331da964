/* Where the compactor of a growing heap moves blocks to: pockets, gaps, fresh regions. */
#include "base/debug.h"
#include "compact/compactor.h"

enum { POCKET_MAX = JF_GRAIN << JF_POCKET_BINS };

/* ------------------------------------------------------------------------------------- pockets */

static jf_word *pocket_link(uintptr_t at) {
    return (jf_word *)(at + JF_HEADER_SIZE);
}

static void add_pocket(struct jf_compactor *compactor, uintptr_t at, size_t size) {
    jf_header_store(at, jf_header_hole(size));
    if (size < JF_POCKET_MIN)
        return;
    unsigned bin = jf_bits_log2(size / JF_GRAIN);
    if (bin >= JF_POCKET_BINS)
        bin = JF_POCKET_BINS - 1;
    jf_mark_store(pocket_link(at), compactor->pockets[bin]);
    compactor->pockets[bin] = at;
    compactor->pocket_mask |= 1u << bin;
}

static uintptr_t take_pocket(struct jf_compactor *compactor, unsigned bin) {
    uintptr_t at = compactor->pockets[bin];
    compactor->pockets[bin] = (uintptr_t)jf_mark_load(pocket_link(at));
    if (compactor->pockets[bin] == 0)
        compactor->pocket_mask &= ~(1u << bin);
    return at;
}

/* First the head of the bin whose pockets may or may not be large enough, then a bin whose pockets are. */
static uintptr_t place_in_pocket(struct jf_compactor *compactor, size_t stride) {
    if (compactor->pocket_mask == 0 || stride > POCKET_MAX)
        return 0;
    unsigned floor = jf_bits_log2(stride / JF_GRAIN);
    unsigned sure = jf_bits_log2_up(stride / JF_GRAIN);
    uintptr_t at = 0;
    if (floor < JF_POCKET_BINS && compactor->pockets[floor] != 0 &&
        jf_header_stride(jf_header_load(compactor->pockets[floor])) >= stride)
        at = take_pocket(compactor, floor);
    else if (sure < JF_POCKET_BINS && compactor->pocket_mask >> sure != 0)
        at = take_pocket(compactor, sure + jf_bits_lowest(compactor->pocket_mask >> sure));
    if (at == 0)
        return 0;
    size_t size = jf_header_stride(jf_header_load(at));
    JF_ASSERT(jf_header_kind(jf_header_load(at)) == JF_KIND_HOLE);
    if (size < stride) { /* the last bin has no upper end */
        add_pocket(compactor, at, size);
        return 0;
    }
    if (size > stride)
        add_pocket(compactor, at + stride, size - stride);
    return at;
}

/* ------------------------------------------------------------------------------------- gaps */

void jf_gaps_make_walkable(struct jf_compactor *compactor) {
    struct jf_gap *gap = &compactor->gap;
    if (gap->region != NULL && gap->from < gap->to)
        jf_header_store(gap->from, jf_header_hole(gap->to - gap->from));
}

void jf_gaps_leave(struct jf_compactor *compactor) {
    struct jf_gap *gap = &compactor->gap;
    jf_gaps_make_walkable(compactor);
    if (gap->region != NULL && gap->from + JF_HEADER_SIZE < gap->to)
        jf_region_give_back(gap->region, gap->from + JF_HEADER_SIZE, gap->to);
    if (gap->region != NULL)
        gap->region->settled_live = (uint32_t)compactor->filled;
    gap->region = NULL;
}

static void begin_gap(struct jf_compactor *compactor, struct jf_gap gap) {
    compactor->gap = gap;
    compactor->filled = jf_region_live_bytes(gap.region);
}

static bool fresh_gap(struct jf_heap *heap, struct jf_compactor *compactor) {
    struct jf_window *window = heap->u.grow.window;
    jf_os_mutex_lock(&window->mutex);
    struct jf_region *region = jf_region_create(heap);
    if (region != NULL)
        jf_region_set_state(region, JF_REGION_HELD);
    jf_os_mutex_unlock(&window->mutex);
    if (region == NULL)
        return false;
    begin_gap(compactor, (struct jf_gap){region, jf_region_first(region), jf_region_last(region)});
    return true;
}

static bool next_gap(struct jf_heap *heap, struct jf_compactor *compactor) {
    jf_gaps_leave(compactor);
    if (compactor->gap_count == 0)
        return fresh_gap(heap, compactor);
    begin_gap(compactor, compactor->gaps[compactor->gap_first]);
    compactor->gap_first = (compactor->gap_first + 1) % JF_GAPS_MAX;
    compactor->gap_count--;
    compactor->gap_bytes -= compactor->gap.to - compactor->gap.from;
    return true;
}

/* Counts what comes (or, negated, does not come after all) into the region being filled. */
static void count_filled(struct jf_compactor *compactor, uintptr_t at, size_t stride) {
    const struct jf_region *region = compactor->gap.region;
    if (region != NULL && at - region->start < JF_REGION_SIZE)
        compactor->filled += stride;
}

uintptr_t jf_gaps_place(struct jf_heap *heap, struct jf_compactor *compactor, size_t stride,
                        unsigned align_log2) {
    struct jf_gap *gap = &compactor->gap;
    if (align_log2 == JF_ALIGN_LOG2_MIN) {
        uintptr_t at = place_in_pocket(compactor, stride);
        if (at != 0) {
            count_filled(compactor, at, stride);
            return at;
        }
    }
    for (unsigned tries = 0; tries < JF_GAPS_MAX; tries++) {
        uintptr_t at = jf_block_align(gap->from, align_log2);
        if (gap->region != NULL && at + stride <= gap->to) {
            /* the header of what follows has to be written too */
            uintptr_t touched = at + stride + JF_HEADER_SIZE;
            if (touched > gap->region->end)
                touched = gap->region->end;
            if (!jf_region_commit(gap->region, gap->from, touched, JF_COMPACT_OVER))
                return 0;
            if (at != gap->from)
                jf_header_store(gap->from, jf_header_hole(at - gap->from));
            gap->from = at + stride;
            compactor->filled += stride;
            return at;
        }
        if (!next_gap(heap, compactor))
            return 0;
    }
    return 0;
}

void jf_gaps_return(struct jf_compactor *compactor, uintptr_t at, size_t stride) {
    count_filled(compactor, at, (size_t)0 - stride);
    if (compactor->gap.region != NULL && compactor->gap.from == at + stride)
        compactor->gap.from = at;
    else
        add_pocket(compactor, at, stride);
}

static bool keep_gap(struct jf_compactor *compactor, struct jf_region *region, uintptr_t from,
                     uintptr_t to) {
    if (compactor->gap_count == JF_GAPS_MAX || compactor->gap_bytes + (to - from) > JF_GAPS_KEEP)
        return false;
    unsigned slot = (compactor->gap_first + compactor->gap_count) % JF_GAPS_MAX;
    compactor->gaps[slot] = (struct jf_gap){region, from, to};
    compactor->gap_count++;
    compactor->gap_bytes += to - from;
    return true;
}

size_t jf_gaps_add_run(struct jf_compactor *compactor, struct jf_region *region, uintptr_t from,
                       uintptr_t to) {
    if (from == to)
        return 0;
    uintptr_t first = jf_bits_round_up(from + JF_HEADER_SIZE, JF_PAGE_SIZE);
    bool to_end = to == jf_region_last(region); /* no header follows in the region's last page */
    uintptr_t last = to_end ? region->end : jf_bits_round_down(to, JF_PAGE_SIZE);
    if (first >= last) {
        add_pocket(compactor, from, to - from);
        return 0;
    }
    /* headers lie at 8 modulo 16: the gap's own one in the last word before its first page, the one of
     * what follows in the first word behind its last page that can hold one */
    uintptr_t gap_from = first - JF_HEADER_SIZE;
    uintptr_t gap_to = to_end ? to : last + JF_HEADER_SIZE;
    if (gap_from > from)
        add_pocket(compactor, from, gap_from - from);
    if (gap_to < to)
        add_pocket(compactor, gap_to, to - gap_to);
    jf_header_store(gap_from, jf_header_hole(gap_to - gap_from));
    if (keep_gap(compactor, region, gap_from, gap_to))
        return 0;
    return jf_region_give_back(region, first, last);
}

size_t jf_gaps_add_region(struct jf_heap *heap, struct jf_compactor *compactor,
                          struct jf_region *region) {
    jf_header_store(jf_region_first(region), jf_header_hole(JF_REGION_SIZE - JF_GRAIN));
    if (keep_gap(compactor, region, jf_region_first(region), jf_region_last(region)))
        return 0;
    /* its memory first: the arena would keep it and give back an older chunk in its place, of any size and
     * while others wait for the mutex */
    struct jf_window *window = heap->u.grow.window;
    size_t bytes = jf_region_give_back(region, region->start, jf_region_last(region));
    jf_os_mutex_lock(&window->mutex);
    jf_region_release(region);
    jf_os_mutex_unlock(&window->mutex);
    return bytes;
}

size_t jf_gaps_give_one(struct jf_compactor *compactor) {
    const struct jf_gap *gap = &compactor->gaps[compactor->gap_first];
    compactor->gap_first = (compactor->gap_first + 1) % JF_GAPS_MAX;
    compactor->gap_count--;
    compactor->gap_bytes -= gap->to - gap->from;
    return jf_region_give_back(gap->region, gap->from + JF_HEADER_SIZE, gap->to);
}

size_t jf_gaps_finish(struct jf_compactor *compactor) {
    size_t bytes = 0;
    jf_gaps_make_walkable(compactor);
    while (compactor->gap_count > 0)
        bytes += jf_gaps_give_one(compactor);
    for (unsigned bin = 0; bin < JF_POCKET_BINS; bin++)
        compactor->pockets[bin] = 0;
    compactor->pocket_mask = 0;
    struct jf_gap *gap = &compactor->gap;
    if (gap->region != NULL && gap->from + JF_HEADER_SIZE < gap->to)
        bytes += jf_region_give_back(gap->region, gap->from + JF_HEADER_SIZE, gap->to);
    return bytes;
}
