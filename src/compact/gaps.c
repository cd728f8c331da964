/* Where the compactor of a growing heap moves blocks to: pockets, gaps, fresh regions. */
#include "base/debug.h"
#include "compact/compactor.h"

enum {
    POCKET_MAX = JF_GRAIN << JF_POCKET_BINS,
    POPULATE_MIN = 4 << JF_PAGE_SHIFT, /* bytes of fresh pages that are asked for in one go */
};

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
    struct jf_filling *gap = &compactor->gap;
    if (gap->region != NULL && gap->from < gap->to)
        jf_header_store(gap->from, jf_header_hole(gap->to - gap->from));
}

void jf_gaps_settle(struct jf_compactor *compactor) {
    struct jf_filling *gap = &compactor->gap;
    if (gap->region == NULL || (gap->limit == gap->from && gap->counted == gap->from))
        return;
    compactor->filled += gap->from - gap->counted;
    jf_word_fetch_add(&gap->region->live, ((jf_word)gap->blocks << 32) - (gap->limit - gap->from));
    gap->blocks = 0;
    gap->limit = gap->counted = gap->from;
}

/* What is left of a gap is shorter than the block that did not fit, so no more is given back than is moved, and what a
 * step reckons for a byte that is moved covers it. */
static size_t give_rest(const struct jf_filling *gap) {
    if (gap->region == NULL || gap->from + JF_HEADER_SIZE >= gap->to)
        return 0;
    return jf_region_give_back(gap->region, gap->from + JF_HEADER_SIZE, gap->to);
}

void jf_gaps_leave(struct jf_compactor *compactor) {
    struct jf_filling *gap = &compactor->gap;
    jf_gaps_settle(compactor);
    jf_gaps_make_walkable(compactor);
    compactor->left_behind += give_rest(gap);
    if (gap->region != NULL)
        gap->region->settled_live = (uint32_t)compactor->filled;
    gap->region = NULL;
    gap->from = gap->limit = 0;
}

static void begin_gap(struct jf_compactor *compactor, struct jf_region *region, uintptr_t from,
                      uintptr_t to) {
    compactor->gap = (struct jf_filling){
        .region = region, .from = from, .limit = from, .to = to, .counted = from};
    compactor->filled = jf_region_live_bytes(region);
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
    begin_gap(compactor, region, jf_region_first(region), jf_region_last(region));
    return true;
}

static struct jf_region *take_empty(struct jf_compactor *compactor, unsigned index) {
    struct jf_region *region = compactor->empty[index];
    compactor->empty_count--;
    for (unsigned i = index; i < compactor->empty_count; i++)
        compactor->empty[i] = compactor->empty[i + 1];
    return region;
}

/* The empty region that was vacated last is filled, if it has all its memory: it is still in the processor's caches,
 * and those vacated before it are left for giving back. */
static void empty_gap(struct jf_compactor *compactor) {
    unsigned index = compactor->empty_count;
    while (index > 0 && jf_region_committed(compactor->empty[index - 1]) != JF_REGION_SIZE)
        index--;
    struct jf_region *region = take_empty(compactor, index > 0 ? index - 1 : 0);
    begin_gap(compactor, region, jf_region_first(region), jf_region_last(region));
}

static bool next_gap(struct jf_heap *heap, struct jf_compactor *compactor) {
    jf_gaps_leave(compactor);
    if (compactor->gap_count != 0) {
        const struct jf_gap *gap = &compactor->gaps[compactor->gap_first];
        compactor->gap_first = (compactor->gap_first + 1) % JF_GAPS_MAX;
        compactor->gap_count--;
        compactor->gap_bytes -= gap->to - gap->from;
        begin_gap(compactor, gap->region, gap->from, gap->to);
        return true;
    }
    if (compactor->empty_count != 0) {
        empty_gap(compactor);
        return true;
    }
    return fresh_gap(heap, compactor);
}

/* Counts what comes (or, negated, does not come after all) into the region being filled. */
static void count_filled(struct jf_compactor *compactor, uintptr_t at, size_t stride) {
    const struct jf_region *region = compactor->gap.region;
    if (region != NULL && at - region->start < JF_REGION_SIZE)
        compactor->filled += stride;
}

static struct jf_region *owner_of(const struct jf_heap *heap, uintptr_t at) {
    return jf_arena_owner(heap->u.grow.window->arena, at);
}

/* Memory for the gap up to `limit`, asked for in one go where much of it is missing: a page fault costs many
 * times what the page does. False when the heap's limit forbids it. */
static bool commit_to(const struct jf_filling *gap, uintptr_t limit) {
    struct jf_region *region = gap->region;
    /* the header of what follows has to be written too */
    uintptr_t touched = limit + JF_HEADER_SIZE;
    if (touched > region->end)
        touched = region->end;
    size_t before = jf_region_committed(region);
    if (!jf_region_commit(region, gap->from, touched, JF_COMPACT_OVER))
        return false;
    if (jf_region_committed(region) - before >= POPULATE_MIN) {
        uintptr_t start = jf_bits_round_down(gap->from, JF_PAGE_SIZE);
        jf_os_populate(start, jf_bits_round_up(touched, JF_PAGE_SIZE) - start);
    }
    return true;
}

/* Whether the block at the gap's start would go to pages without memory. */
static bool is_missing(const struct jf_filling *gap, uintptr_t end) {
    return end > gap->limit && !jf_region_has_page(gap->region, end - 1);
}

/* Up to where, from `end` to `limit`, the gap has its memory. */
static uintptr_t end_of_memory(const struct jf_filling *gap, uintptr_t end, uintptr_t limit) {
    uintptr_t page = jf_bits_round_up(end + JF_HEADER_SIZE, JF_PAGE_SIZE);
    while (page < limit && jf_region_has_page(gap->region, page))
        page += JF_PAGE_SIZE;
    return page - JF_HEADER_SIZE < limit ? page - JF_HEADER_SIZE : limit;
}

/* Makes the gap ready up to `end` at least. */
static bool claim(struct jf_compactor *compactor, uintptr_t end) {
    struct jf_filling *gap = &compactor->gap;
    uintptr_t limit = gap->limit + compactor->claim;
    if (limit < end)
        limit = end;
    if (limit > gap->to)
        limit = gap->to;
    if (compactor->empty_count != 0)
        limit = end_of_memory(gap, end, limit);
    if (!commit_to(gap, limit)) {
        limit = end;
        if (!commit_to(gap, limit))
            return false;
    }
    jf_region_add(gap->region, (uint32_t)(limit - gap->limit), 0);
    gap->limit = limit;
    return true;
}

/* The bytes up to `at` are lost to alignment. */
static void skip_to(struct jf_filling *gap, uintptr_t at) {
    size_t lost = at - gap->from;
    jf_header_store(gap->from, jf_header_hole(lost));
    jf_word_fetch_add(&gap->region->live, (jf_word)0 - lost);
    gap->counted += lost;
}

uintptr_t jf_gaps_place(struct jf_heap *heap, struct jf_compactor *compactor, size_t stride,
                        unsigned align_log2) {
    struct jf_filling *gap = &compactor->gap;
    if (align_log2 == JF_ALIGN_LOG2_MIN) {
        uintptr_t at = place_in_pocket(compactor, stride);
        if (at != 0) {
            count_filled(compactor, at, stride);
            jf_region_add(owner_of(heap, at), (uint32_t)stride, 1);
            return at;
        }
    }
    for (unsigned tries = 0; tries < JF_GAPS_KEEP; tries++) {
        uintptr_t at = jf_block_align(gap->from, align_log2);
        if (gap->region != NULL && at + stride <= gap->to &&
            (compactor->empty_count == 0 || !is_missing(gap, at + stride))) {
            if (at + stride > gap->limit && !claim(compactor, at + stride))
                return 0;
            if (at != gap->from)
                skip_to(gap, at);
            gap->from = at + stride;
            gap->blocks++;
            return at;
        }
        if (!next_gap(heap, compactor))
            return 0;
    }
    return 0;
}

void jf_gaps_return(struct jf_heap *heap, struct jf_compactor *compactor, uintptr_t at,
                    size_t stride) {
    struct jf_filling *gap = &compactor->gap;
    /* a pocket that ends where the gap begins lies before anything that was counted */
    if (gap->region != NULL && gap->from == at + stride && at >= gap->counted) {
        gap->from = at;
        gap->blocks--;
        return;
    }
    count_filled(compactor, at, (size_t)0 - stride);
    jf_word_fetch_add(&owner_of(heap, at)->live, (jf_word)0 - (((jf_word)1 << 32) + stride));
    add_pocket(compactor, at, stride);
}

static bool keep_gap(struct jf_compactor *compactor, struct jf_region *region, uintptr_t from,
                     uintptr_t to) {
    if (compactor->gap_count == JF_GAPS_MAX)
        return false;
    unsigned slot = (compactor->gap_first + compactor->gap_count) % JF_GAPS_MAX;
    compactor->gaps[slot] = (struct jf_gap){region, from, to};
    compactor->gap_count++;
    compactor->gap_bytes += to - from;
    return true;
}

bool jf_gaps_are_many(const struct jf_compactor *compactor) {
    return compactor->gap_count > JF_GAPS_KEEP || compactor->gap_bytes > JF_GAPS_BYTES;
}

bool jf_gaps_are_too_many(const struct jf_compactor *compactor) {
    /* between two gaps lies a page that stays */
    return compactor->gap_count > JF_GAPS_MAX - JF_REGION_PAGES / 2;
}

size_t jf_gaps_add_run(struct jf_compactor *compactor, struct jf_region *region, uintptr_t from,
                       uintptr_t to) {
    if (from == to)
        return 0;
    if (compactor->in_place) {
        add_pocket(compactor, from, to - from);
        return 0;
    }
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

void jf_gaps_add_region(struct jf_compactor *compactor, struct jf_region *region) {
    JF_ASSERT(compactor->empty_count < JF_EMPTY_MAX);
    jf_header_store(jf_region_first(region), jf_header_hole(JF_REGION_SIZE - JF_GRAIN));
    compactor->empty[compactor->empty_count++] = region;
}

/* Index of the empty region that begins there; the count when there is none. */
static unsigned find_empty(const struct jf_compactor *compactor, uintptr_t start) {
    unsigned i = 0;
    while (i < compactor->empty_count && compactor->empty[i]->start != start)
        i++;
    return i;
}

/* How many neighbours there are from this region on, at most `most`. Two that are not buddies are none if there
 * may be no more. */
static unsigned count_run(const struct jf_compactor *compactor, uintptr_t start, unsigned most) {
    unsigned count = 1;
    if (most == 2 && (start & JF_REGION_SIZE) != 0)
        return count;
    while (count < most &&
           find_empty(compactor, start + count * JF_REGION_SIZE) != compactor->empty_count)
        count++;
    return count;
}

size_t jf_gaps_give_regions(struct jf_heap *heap, struct jf_compactor *compactor, unsigned most) {
    uintptr_t start = 0;
    unsigned count = 0;
    for (unsigned i = 0; i < compactor->empty_count; i++) {
        unsigned run = count_run(compactor, compactor->empty[i]->start, most);
        if (run > count) {
            start = compactor->empty[i]->start;
            count = run;
        }
    }
    /* their memory first: the arena would keep it and give back an older chunk in its place, of any size and
     * while others wait for the mutex */
    jf_os_give_back(start, count * JF_REGION_SIZE);
    size_t bytes = 0;
    struct jf_window *window = heap->u.grow.window;
    jf_os_mutex_lock(&window->mutex);
    for (unsigned i = 0; i < count; i++) {
        unsigned index = find_empty(compactor, start + i * JF_REGION_SIZE);
        struct jf_region *region = take_empty(compactor, index);
        bytes += jf_region_was_given_back(region);
        jf_region_release(region);
    }
    jf_os_mutex_unlock(&window->mutex);
    return bytes;
}

size_t jf_gaps_give_one(struct jf_compactor *compactor) {
    compactor->gap_count--;
    const struct jf_gap *gap =
        &compactor->gaps[(compactor->gap_first + compactor->gap_count) % JF_GAPS_MAX];
    compactor->gap_bytes -= gap->to - gap->from;
    return jf_region_give_back(gap->region, gap->from + JF_HEADER_SIZE, gap->to);
}

size_t jf_gaps_finish(struct jf_compactor *compactor) {
    jf_gaps_make_walkable(compactor);
    for (unsigned bin = 0; bin < JF_POCKET_BINS; bin++)
        compactor->pockets[bin] = 0;
    compactor->pocket_mask = 0;
    return give_rest(&compactor->gap);
}
