/* Figures of a heap. What needs no walk comes from the accounts; the rest from one walk over all blocks. */
#include "check/check.h"

#include "check/walk.h"
#include "heap/fixed.h"
#include "heap/region.h"

/* Gaps that a simulated slide remembers: enough to place what would fill them. */
enum { GAPS = 32 };

/* A full compaction of a fixed heap, only counted: unlocked blocks slide down past locked ones and into
 * the gaps before those. Of the gaps the largest are kept in mind. */
struct slide {
    uintptr_t to; /* where the next block would come to lie */
    unsigned count;
    struct {
        uintptr_t at;
        size_t size;
    } gaps[GAPS];
};

struct gathering {
    struct rm_stats *stats;
    struct slide slide;    /* fixed */
    uint64_t locked_pages; /* growing: pages that locked blocks keep */
    uintptr_t last_page;   /* the last of them */
    bool after_hole;       /* the step before was a hole too: both are one */
};

/* ------------------------------------------------------------------------------------- a slide */

static void note_gap(struct slide *slide, uintptr_t at, size_t size) {
    unsigned smallest = 0;
    if (slide->count < GAPS) {
        slide->gaps[slide->count].at = at;
        slide->gaps[slide->count++].size = size;
        return;
    }
    for (unsigned i = 1; i < GAPS; i++)
        if (slide->gaps[i].size < slide->gaps[smallest].size)
            smallest = i;
    if (slide->gaps[smallest].size < size) {
        slide->gaps[smallest].at = at;
        slide->gaps[smallest].size = size;
    }
}

static bool fill_gap(struct slide *slide, const struct jf_request *request) {
    for (unsigned i = 0; i < slide->count; i++) {
        uintptr_t end = slide->gaps[i].at + slide->gaps[i].size;
        uintptr_t at = jf_fixed_align(slide->gaps[i].at, request->align_log2, request->extended);
        if (at + request->stride > end)
            continue;
        slide->gaps[i].at = at + request->stride;
        slide->gaps[i].size = end - slide->gaps[i].at;
        return true;
    }
    return false;
}

static void slide_block(struct slide *slide, const struct jf_step *step, bool locked) {
    struct jf_request request;
    if (locked) {
        if (step->at > slide->to)
            note_gap(slide, slide->to, step->at - slide->to);
        slide->to = step->at + step->stride;
        return;
    }
    jf_fixed_request_of(step, &request);
    if (!fill_gap(slide, &request))
        slide->to =
            jf_fixed_align(slide->to, request.align_log2, request.extended) + request.stride;
}

/* The largest payload in a gap of this size. */
static size_t largest_payload(size_t gap) {
    size_t plain = gap < JF_STRIDE_FIELD_MAX ? gap : JF_STRIDE_FIELD_MAX;
    if (plain <= JF_HEADER_SIZE)
        return 0;
    plain -= JF_HEADER_SIZE;
    return gap > plain + JF_EXTENDED_SIZE ? gap - JF_EXTENDED_SIZE : plain;
}

/* When no entry is free, the table takes two from the end first. */
static size_t slide_largest(const struct slide *slide, struct jf_heap *heap) {
    uintptr_t last = jf_fixed_last(heap);
    const struct jf_fixed *fixed = jf_fixed_part(heap);
    if (fixed->free_entries == 0 && fixed->trim != JF_TRIM_SIFT) {
        if (slide->to == last)
            return 0;
        last -= JF_GRAIN;
    }
    size_t largest = last - slide->to;
    for (unsigned i = 0; i < slide->count; i++)
        if (slide->gaps[i].size > largest)
            largest = slide->gaps[i].size;
    return largest_payload(largest);
}

/* ------------------------------------------------------------------------------------- the walk */

static void count_block(struct rm_stats *stats, size_t stride, size_t size, unsigned locks,
                        unsigned priority) {
    stats->requested += size;
    if (locks != 0) {
        stats->locked_blocks++;
        stats->locked += stride;
    }
    if (priority != 0)
        stats->purgeable += stride;
}

static void count_hole(struct gathering *gathering, const struct jf_step *step) {
    gathering->stats->holes += !gathering->after_hole;
    gathering->stats->hole_bytes += step->stride;
    gathering->after_hole = true;
}

static void count_pages(struct gathering *gathering, const struct jf_step *step) {
    uintptr_t first = step->at >> JF_PAGE_SHIFT;
    uintptr_t last = (step->at + step->stride - 1) >> JF_PAGE_SHIFT;
    gathering->locked_pages += last - first + (first != gathering->last_page);
    gathering->last_page = last;
}

static void gather_step(struct gathering *gathering, const struct jf_part *part,
                        const struct jf_step *step) {
    const jf_word *entry =
        step->hole ? NULL : jf_walk_entry(part->heap, jf_header_index(step->header));
    jf_word word = entry != NULL ? jf_word_load(entry) : 0;
    if (!jf_walk_is_live(part->heap, step, word)) {
        count_hole(gathering, step);
        return;
    }
    gathering->after_hole = false;
    gathering->stats->blocks++;
    gathering->stats->live += step->stride;
    count_block(gathering->stats, step->stride, jf_step_size(step), jf_entry_count(word),
                jf_header_priority(step->header));
    if (part->region == NULL)
        slide_block(&gathering->slide, step, jf_entry_count(word) != 0);
    else if (jf_entry_count(word) != 0)
        count_pages(gathering, step);
}

static bool gather_part(void *context, const struct jf_part *part) {
    struct gathering *gathering = context;
    struct jf_step step;
    gathering->after_hole = false;
    for (uintptr_t at = part->first; at < part->last; at += step.stride) {
        if (jf_walk_step(part, at, &step) != JF_WALK_STEP)
            break;
        gather_step(gathering, part, &step);
    }
    return true;
}

/* ------------------------------------------------------------------------------------- fixed */

static void fixed_accounts(struct jf_heap *heap, struct rm_stats *stats) {
    const struct jf_fixed *fixed = jf_fixed_part(heap);
    size_t all = jf_fixed_last(heap) - fixed->start;
    size_t tail = fixed->tail != 0 ? jf_fixed_last(heap) - fixed->tail : 0;
    stats->blocks = fixed->blocks;
    stats->live = fixed->live;
    stats->reserved = heap->space->limit - heap->space->base;
    stats->committed = all - tail;
    stats->peak_committed = all;
    stats->table = (uint64_t)fixed->entries_peak * sizeof(jf_word);
    stats->overhead = fixed->start - heap->space->base;
    stats->largest_free = jf_fixed_largest_free(heap);
    stats->regions = 1;
}

static void fixed_stats(const struct jf_hold *hold, bool brief, struct rm_stats *stats) {
    struct jf_heap *heap = hold->heap;
    struct gathering gathering = {.stats = stats};
    fixed_accounts(heap, stats);
    if (brief)
        return;
    stats->blocks = stats->live = 0;
    gathering.slide.to = jf_fixed_part(heap)->start;
    jf_walk_parts(hold, gather_part, &gathering);
    stats->largest_after = slide_largest(&gathering.slide, heap);
}

/* ------------------------------------------------------------------------------------- growing */

/* What was freed and waits in rings is accounted for, so that the sums are exact. */
static void drain_rings(const struct jf_hold *hold) {
    for (struct jf_thread *thread = hold->window->threads; thread != NULL; thread = thread->next) {
        if (thread == hold->own) {
            jf_thread_enter(thread);
            jf_thread_drain(thread);
            jf_thread_leave(thread);
        } else if (jf_thread_outside(thread)) {
            jf_thread_drain(thread);
        }
    }
    jf_window_relist_locked(hold->window);
}

static bool add_region(void *context, const struct jf_part *part) {
    struct rm_stats *stats = context;
    jf_word live = jf_word_load(&part->region->live);
    uint32_t blocks = (uint32_t)(live >> 32);
    stats->live += (uint32_t)live;
    if (part->local != NULL) {
        /* may count down below what it began with: only the sum is a number of blocks */
        blocks += part->local->blocks;
        stats->live -= part->local->limit - part->local->bump;
    }
    stats->blocks += blocks;
    return true;
}

/* Pages given back were full once; of the others the entries ever used count. */
static uint64_t table_bytes(const struct jf_table *table) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < table->pages_used; i++) {
        uint16_t carved = __atomic_load_n(&table->pages[i].carved, __ATOMIC_RELAXED);
        bytes += carved != 0 ? carved * sizeof(jf_word) : JF_TABLE_PAGE_SIZE;
    }
    return bytes;
}

/* The largest chunk, as far as the heap's limit allows for it beside `committed` bytes. */
static uint64_t largest_chunk(const struct jf_heap *heap, uint64_t committed) {
    int order = jf_arena_largest_order(heap->u.grow.window->arena);
    uint64_t largest = order >= 0 ? (uint64_t)JF_UNIT_SIZE << order : 0;
    uint64_t limit = heap->options.limit;
    if (limit == 0)
        return largest;
    uint64_t room = limit > committed ? (limit - committed) & ~(uint64_t)(JF_PAGE_SIZE - 1) : 0;
    return room < largest ? room : largest;
}

static void grow_accounts(const struct jf_hold *hold, struct rm_stats *stats) {
    struct jf_heap *heap = hold->heap;
    const struct jf_grow *grow = &heap->u.grow;
    const struct jf_window *window = hold->window;
    jf_walk_parts(hold, add_region, stats);
    stats->blocks += grow->large_count;
    stats->live += grow->large_bytes;
    /* what lies in the depot is freed, and still in the accounts of its regions */
    stats->blocks -= jf_depot_blocks(heap);
    stats->live -= jf_depot_bytes(heap);
    stats->reserved = jf_arena_size(window->arena);
    stats->committed = jf_word_load(&grow->committed);
    stats->peak_committed = jf_word_load(&grow->peak_committed);
    stats->table = table_bytes(&window->table);
    stats->overhead =
        jf_arena_overhead(window->arena) + window->table.pages_used * sizeof(struct jf_table_page);
    stats->largest_free = largest_chunk(heap, stats->committed);
    stats->regions = grow->region_count;
    stats->large_blocks = grow->large_count;
}

static void gather_large(const struct jf_heap *heap, struct rm_stats *stats) {
    for (const struct jf_large *large = heap->u.grow.large; large != NULL; large = large->next) {
        const jf_word *entry = jf_walk_entry(heap, jf_large_index(large));
        if (entry == NULL)
            continue;
        stats->blocks++;
        stats->live += large->committed;
        count_block(stats, large->committed, large->size, jf_entry_count(jf_word_load(entry)),
                    jf_large_priority(large));
    }
}

static void grow_stats(const struct jf_hold *hold, bool brief, struct rm_stats *stats) {
    struct gathering gathering = {.stats = stats};
    drain_rings(hold);
    grow_accounts(hold, stats);
    if (brief)
        return;
    uint64_t large = hold->heap->u.grow.large_bytes;
    stats->blocks = stats->live = 0;
    jf_walk_parts(hold, gather_part, &gathering);
    gather_large(hold->heap, stats);
    /* at the best: pages that locked blocks keep, large blocks, and all others packed; what of the
     * others finds room in the pages kept is not subtracted, so the figure is on the safe side */
    uint64_t packed = stats->live - large;
    stats->largest_after =
        largest_chunk(hold->heap, large + packed + (gathering.locked_pages << JF_PAGE_SHIFT));
}

/* ------------------------------------------------------------------------------------- */

void jf_stats(struct jf_heap *heap, bool brief, struct rm_stats *ret_stats) {
    struct jf_hold hold;
    struct rm_stats stats = {.struct_size = ret_stats->struct_size};
    jf_hold_begin(&hold, heap);
    if (!JF_HAS_GROWING || heap->fixed)
        fixed_stats(&hold, brief, &stats);
    else
        grow_stats(&hold, brief, &stats);
    stats.compactions = jf_word_load(&heap->compactions);
    stats.blocks_moved = jf_word_load(&heap->blocks_moved);
    stats.bytes_moved = jf_word_load(&heap->bytes_moved);
    stats.bytes_released = jf_word_load(&heap->bytes_released);
    stats.moves_aborted = jf_word_load(&heap->moves_aborted);
    jf_hold_end(&hold);
    *ret_stats = stats;
}
