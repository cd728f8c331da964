/* Moving in a growing heap: walks a chosen region in address order, a batch of blocks at a time, and
 * slides the survivors into pockets and gaps at lower or denser places; what is left empty is given
 * back page by page. Every move can be given up until the compare-swap that ends it (docs: design/protocol).
 */
#include "base/debug.h"
#include "compact/compact.h"
#include "compact/compactor.h"

#include <string.h>

enum {
    PREFETCH_AHEAD = 4096, /* bytes */
    PREFETCH_LINE = 64,
    BATCH_NS_MIN = 4000,    /* with less time left nothing is begun */
    GIVE_NS = 160000,       /* most that giving back a region's memory takes */
    STEPS_PER_BLOCK = 4,    /* dead blocks and holes passed over cost less than blocks moved */
    BLOCK_NS = 130,         /* most that looking at and moving one block takes, without its bytes */
    BYTE_NS_KIB = 900,      /* most that moving 1 KiB takes, destination's page faults included */
    REGIONS_AT_A_TIME = 64, /* looked at between two looks at the clock */
    PURGE_STEP = 256 << 10, /* bytes of the arena's dirty chunks given back between two looks */
};

/* ------------------------------------------------------------------------------------- a batch */

static struct jf_space *space_of(const struct jf_heap *heap) {
    return heap->space;
}

/* First pass: the blocks of the batch. Their entries are asked for, and all lines some way ahead by
 * address: following the headers ahead would wait for each in turn. */
static void gather(struct jf_heap *heap, struct jf_compactor *compactor, unsigned most_blocks,
                   size_t most_bytes) {
    uintptr_t last = jf_region_last(compactor->source);
    uintptr_t at = compactor->cursor;
    uintptr_t fetched = at;
    size_t bytes = 0;
    struct jf_step step;
    compactor->count = 0;
    unsigned steps = STEPS_PER_BLOCK * most_blocks;
    while (at < last && steps-- > 0 && compactor->count < most_blocks && bytes < most_bytes) {
        uintptr_t ahead = at + PREFETCH_AHEAD < last ? at + PREFETCH_AHEAD : last;
        for (; fetched < ahead; fetched += PREFETCH_LINE)
            __builtin_prefetch((const void *)fetched);
        if (!jf_region_step(at, &step))
            break;
        if (!step.hole) {
            __builtin_prefetch(jf_space_entry(space_of(heap), jf_header_index(step.header)), 1);
            compactor->at[compactor->count++] = at;
            bytes += step.stride;
        } else if (at + step.stride > fetched) {
            fetched = at + step.stride; /* nothing to be read there */
        }
        at += step.stride;
    }
    compactor->cursor = at;
}

static unsigned page_of(const struct jf_compactor *compactor, uintptr_t address) {
    return (unsigned)((address - compactor->source->start) >> JF_PAGE_SHIFT);
}

static void pin_pages(struct jf_compactor *compactor, uintptr_t from, uintptr_t to) {
    for (unsigned page = page_of(compactor, from); page <= page_of(compactor, to - 1); page++)
        compactor->pinned[page / 64] |= (uint64_t)1 << (page % 64);
}

static bool all_pages_pinned(const struct jf_compactor *compactor, uintptr_t from, uintptr_t to) {
    for (unsigned page = page_of(compactor, from); page <= page_of(compactor, to - 1); page++)
        if ((compactor->pinned[page / 64] >> (page % 64) & 1) == 0)
            return false;
    return true;
}

/* Second pass: which blocks cannot move, and the pages that stay for them. */
static void classify(struct jf_compaction *compaction, struct jf_compactor *compactor) {
    struct jf_heap *heap = compaction->heap;
    for (unsigned i = 0; i < compactor->count; i++) {
        uintptr_t at = compactor->at[i];
        jf_word header = jf_header_load(at);
        uint32_t index = jf_header_index(header);
        jf_word word = jf_word_load(jf_space_entry(space_of(heap), index));
        compactor->word[i] = word;
        compactor->fate[i] = JF_FATE_MOVES;
        if (jf_entry_state(word) == JF_ENTRY_LIVE && jf_entry_count(word) == 0 &&
            jf_space_address(space_of(heap), word) == at + JF_HEADER_SIZE)
            continue;
        compactor->fate[i] = JF_FATE_LOCKED;
        if (jf_entry_count(word) != 0) {
            compactor->witness = index;
            compaction->result.blocks_locked++;
        }
        pin_pages(compactor, at, at + jf_header_stride(header));
    }
}

/* Blocks that lie wholly in pages that stay anyway need not move. */
static void keep_in_pinned_pages(struct jf_compactor *compactor) {
    for (unsigned i = 0; i < compactor->count; i++) {
        uintptr_t at = compactor->at[i];
        if (compactor->fate[i] == JF_FATE_MOVES &&
            all_pages_pinned(compactor, at, at + jf_header_stride(jf_header_load(at))))
            compactor->fate[i] = JF_FATE_STAYS;
    }
}

static jf_word *entry_at(const struct jf_heap *heap, uintptr_t at) {
    return jf_space_entry(space_of(heap), jf_header_index(jf_header_load(at)));
}

static bool mark(struct jf_compaction *compaction, struct jf_compactor *compactor, unsigned i) {
    jf_word word = compactor->word[i];
    jf_word marked = (word & ~JF_ENTRY_STATE_MASK) | JF_ENTRY_MOVING;
    if (jf_word_compare_swap_light(entry_at(compaction->heap, compactor->at[i]), &word, marked)) {
        compactor->word[i] = marked;
        compactor->fate[i] = JF_FATE_MARKED;
        return true;
    }
    compactor->fate[i] = JF_FATE_LOCKED;
    compaction->result.moves_aborted++;
    return false;
}

/* Takes the mark away, whoever counts on the word meanwhile. */
static void unmark(jf_word *entry) {
    jf_word word = jf_word_load(entry);
    while (jf_entry_state(word) == JF_ENTRY_MOVING)
        if (jf_word_compare_swap(entry, &word, word & ~JF_ENTRY_MOVING_BIT))
            return;
}

/* Third pass: marks the whole batch, and only then asks whether every read section has been left since; a
 * section opened later sees the marks. */
static void mark_all(struct jf_compaction *compaction, struct jf_compactor *compactor) {
    bool any = false;
    for (unsigned i = 0; i < compactor->count; i++)
        if (compactor->fate[i] == JF_FATE_MOVES)
            any |= mark(compaction, compactor, i);
    if (!any || jf_readers_quiet(compaction->readers, compaction->own_reader,
                                 compaction->heap->u.grow.window->fence_all))
        return;
    for (unsigned i = 0; i < compactor->count; i++) {
        if (compactor->fate[i] != JF_FATE_MARKED)
            continue;
        unmark(entry_at(compaction->heap, compactor->at[i]));
        compactor->fate[i] = JF_FATE_LOCKED;
        compactor->witness = jf_header_index(jf_header_load(compactor->at[i]));
        compaction->result.moves_aborted++;
    }
}

/* Copies a marked block to its new place and swaps the entry over. */
static bool move_marked(struct jf_compaction *compaction, struct jf_compactor *compactor,
                        unsigned i, size_t *ret_stride) {
    struct jf_heap *heap = compaction->heap;
    uintptr_t at = compactor->at[i];
    jf_word header = jf_header_load(at);
    jf_word *entry = jf_space_entry(space_of(heap), jf_header_index(header));
    size_t stride = jf_header_stride(header);
    /* freed meanwhile it is dead, and the swap below fails */
    JF_ASSERT((jf_header_is_block(header) || jf_header_kind(header) == JF_KIND_DEAD) &&
              stride != 0);
    uintptr_t to = jf_gaps_place(heap, compactor, stride, jf_header_align_log2(header));
    if (to == 0) {
        compactor->starved = compactor->source->starved = true;
        unmark(entry);
        return false;
    }
    jf_mark_copy((void *)to, (const void *)at, stride);
    /* counted before the entry names the new place: from then on somebody may free the block */
    struct jf_region *region = jf_arena_owner(heap->u.grow.window->arena, to);
    jf_region_add(region, (uint32_t)stride, 1);
    jf_word expected = compactor->word[i];
    jf_word moved = (expected & ~(JF_ENTRY_ADDRESS_MASK | JF_ENTRY_STATE_MASK)) |
                    jf_entry_low(to + JF_HEADER_SIZE - heap->space->base, JF_ENTRY_LIVE);
    if (!jf_word_compare_swap_light(entry, &expected, moved)) {
        unmark(entry);
        jf_word_fetch_add(&region->live, (jf_word)0 - (((jf_word)1 << 32) + stride));
        jf_gaps_return(compactor, to, stride);
        compaction->result.moves_aborted++;
        return false;
    }
    if (heap->options.moved != NULL) {
        jf_moved_add(
            &compaction->moved,
            jf_handle_make(heap->space, jf_header_index(header), jf_entry_generation(moved)),
            to + JF_HEADER_SIZE, stride - JF_HEADER_SIZE - jf_header_slack(header));
    }
    *ret_stride = stride;
    return true;
}

/* Asks for the lines that the next batch will read, a share of them with each block of this one: they come in
 * while this one is copied. */
struct fetching {
    uintptr_t at, last;
    size_t share, owed;
};

static void begin_fetching(const struct jf_compactor *compactor, struct fetching *ret_fetching) {
    size_t span = compactor->count != 0 ? compactor->cursor - compactor->at[0] : 0;
    *ret_fetching = (struct fetching){
        .at = compactor->cursor,
        .last = jf_region_last(compactor->source),
        .share = compactor->count != 0 ? span / compactor->count + 1 : 0,
    };
}

static void fetch_share(struct fetching *fetching) {
    for (fetching->owed += fetching->share; fetching->owed >= PREFETCH_LINE;
         fetching->owed -= PREFETCH_LINE) {
        if (fetching->at < fetching->last)
            __builtin_prefetch((const void *)fetching->at, 0, 2);
        fetching->at += PREFETCH_LINE;
    }
}

/* Fourth pass: the moves. */
static void move_all(struct jf_compaction *compaction, struct jf_compactor *compactor) {
    size_t bytes = 0;
    uint32_t blocks = 0;
    struct fetching fetching;
    begin_fetching(compactor, &fetching);
    for (unsigned i = 0; i < compactor->count; i++) {
        size_t stride;
        fetch_share(&fetching);
        if (compactor->fate[i] != JF_FATE_MARKED)
            continue;
        if (!move_marked(compaction, compactor, i, &stride)) {
            compactor->fate[i] = JF_FATE_LOCKED;
            if (!compactor->source->starved)
                compactor->witness = jf_header_index(jf_header_load(compactor->at[i]));
            continue;
        }
        compactor->fate[i] = JF_FATE_MOVED;
        bytes += stride;
        blocks++;
    }
    jf_word_fetch_add(&compactor->source->live, (jf_word)0 - (((jf_word)blocks << 32) + bytes));
    if (compactor->source == compactor->gap.region)
        compactor->filled -= bytes;
    compaction->result.bytes_moved += bytes;
    compaction->result.blocks_moved += blocks;
}

/* Last pass: what lies between the blocks that stayed is free now. */
static void sweep(struct jf_compaction *compaction, struct jf_compactor *compactor) {
    struct jf_region *region = compactor->source;
    for (unsigned i = 0; i < compactor->count; i++) {
        if (compactor->fate[i] == JF_FATE_MOVED)
            continue;
        uintptr_t at = compactor->at[i];
        compaction->result.bytes_released += jf_gaps_add_run(compactor, region, compactor->run, at);
        compactor->run = at + jf_header_stride(jf_header_load(at));
    }
    if (compactor->run < compactor->cursor)
        jf_header_store(compactor->run, jf_header_hole(compactor->cursor - compactor->run));
}

static void end_source(struct jf_compaction *compaction, struct jf_compactor *compactor) {
    struct jf_region *region = compactor->source;
    size_t released;
    region->witness = compactor->witness;
    if (compactor->run == jf_region_first(region) && jf_region_live_bytes(region) == 0)
        released = jf_gaps_add_region(compaction->heap, compactor, region);
    else
        released = jf_gaps_add_run(compactor, region, compactor->run, compactor->cursor);
    compaction->result.bytes_released += released;
    compactor->source = NULL;
}

static void begin_source(struct jf_heap *heap, struct jf_compactor *compactor,
                         struct jf_region *region) {
    region->walked_call = heap->calls;
    region->starved = false;
    region->settled_live = 0;
    compactor->source = region;
    compactor->cursor = compactor->run = jf_region_first(region);
    compactor->witness = 0;
    memset(compactor->pinned, 0, sizeof compactor->pinned);
    if (jf_region_live_bytes(region) == 0)
        compactor->cursor = jf_region_last(region); /* all dead: nothing to look at */
}

/* One batch of the source, no longer than `left_ns`. */
static void do_batch(struct jf_compaction *compaction, struct jf_compactor *compactor,
                     uint64_t left_ns) {
    struct jf_heap *heap = compaction->heap;
    uint64_t blocks = left_ns / 2 / BLOCK_NS;
    uint64_t bytes = left_ns / 2 * 1024 / BYTE_NS_KIB;
    uint64_t most =
        heap->options.moved != NULL ? (uint64_t)JF_MOVED_MAX : (uint64_t)JF_BATCH_BLOCKS;
    gather(heap, compactor, (unsigned)(blocks < most ? blocks + 1 : most),
           bytes < JF_BATCH_BYTES ? (size_t)bytes : JF_BATCH_BYTES);
    classify(compaction, compactor);
    keep_in_pinned_pages(compactor);
    mark_all(compaction, compactor);
    move_all(compaction, compactor);
    /* whoever reads bytes that are overwritten from here on sees that the block has moved */
    jf_fence();
    sweep(compaction, compactor);
    jf_gaps_make_walkable(compactor);
    jf_budget_worked(&compaction->budget, 0, compactor->count);
}

/* ------------------------------------------------------------------------------------- a call */

static struct jf_compactor *compactor_of(struct jf_heap *heap) {
    struct jf_grow *grow = &heap->u.grow;
    if (grow->compactor == NULL) {
        grow->compactor = jf_arena_meta_alloc(grow->window->arena, sizeof *grow->compactor);
        grow->compactor_size = sizeof *grow->compactor;
    }
    return grow->compactor;
}

/* Lists a thread's region of this heap if it would be chosen; else the thread goes on with it. */
static void retire_sparse(struct jf_thread *thread, struct jf_heap *heap) {
    for (unsigned i = 0; i < 2; i++) {
        struct jf_local *local = jf_thread_local(thread, heap, i != 0);
        if (local == NULL || local->region == NULL)
            continue;
        size_t claimed = local->limit - local->bump;
        size_t committed = jf_region_committed(local->region);
        size_t live = jf_region_live_bytes(local->region) - claimed;
        size_t used = committed > claimed ? committed - claimed : 0;
        if (used > live + 2 * JF_PAGE_SIZE && (used - live) * 32 >= used)
            jf_thread_retire_local(local);
    }
}

/* Accounts for what threads have freed. Of other threads only those that are outside, and in a budgeted
 * call only those that have been idle since the last one. */
static void collect_threads(struct jf_heap *heap, bool full) {
    struct jf_window *window = heap->u.grow.window;
    struct jf_thread *self = jf_thread_get(window);
    bool others = false;
    if (self != NULL) {
        jf_thread_enter(self);
        jf_thread_drain(self);
        jf_thread_leave(self);
    }
    jf_os_mutex_lock(&window->mutex);
    window->keep_empty = true;
    if (self != NULL)
        retire_sparse(self, heap);
    for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        others |= thread != self && thread->local_count != 0 &&
                  (full || thread->activity == thread->activity_seen);
    if (others) {
        jf_thread_close_others(window);
        for (struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next) {
            bool idle = full || thread->activity == thread->activity_seen;
            thread->activity_seen = thread->activity;
            if (thread == self || !idle || !jf_thread_outside(thread))
                continue;
            jf_thread_drain(thread);
            retire_sparse(thread, heap);
        }
        jf_thread_open_others(window);
    }
    if (self != NULL)
        jf_table_trim(&window->table, &self->entries, full ? SIZE_MAX : 1);
    jf_window_relist_locked(window);
    window->keep_empty = false;
    jf_os_mutex_unlock(&window->mutex);
}

/* The region that a cycle has filled is held, and the next one goes on with it. It is let go of when much in
 * it was freed since. */
static void let_go_of_sparse_filling(struct jf_heap *heap, struct jf_compactor *compactor) {
    struct jf_window *window = heap->u.grow.window;
    struct jf_region *filling = compactor->gap.region;
    if (filling == NULL || !jf_choose_filling_is_sparse(filling, compactor->filled))
        return;
    jf_gaps_leave(compactor);
    jf_os_mutex_lock(&window->mutex);
    jf_region_set_state(filling, JF_REGION_LISTED);
    jf_os_mutex_unlock(&window->mutex);
}

static void begin_cycle(struct jf_heap *heap, struct jf_compactor *compactor) {
    compactor->in_cycle = true;
    compactor->starved = false;
    compactor->committed_before = jf_word_load(&heap->u.grow.committed);
    let_go_of_sparse_filling(heap, compactor);
}

/* Ends a cycle: lets go of everything but the region being filled; of that too when locked blocks keep memory
 * in it. */
static void finish_cycle(struct jf_compaction *compaction, struct jf_compactor *compactor) {
    struct jf_heap *heap = compaction->heap;
    compaction->result.bytes_released += jf_gaps_finish(compactor);
    bool roomier =
        compactor->starved && jf_word_load(&heap->u.grow.committed) < compactor->committed_before;
    if (compactor->gap.region != NULL && compactor->gap.region->witness != 0)
        jf_gaps_leave(compactor);
    jf_choose_settle(heap, compactor->gap.region, roomier);
    let_go_of_sparse_filling(heap, compactor);
    compactor->in_cycle = false;
}

/* Gives freed chunks' memory back; false when the budget ends first. */
static bool purge_arena(struct jf_compaction *compaction) {
    struct jf_arena *arena = compaction->heap->u.grow.window->arena;
    uint64_t cost = (uint64_t)PURGE_STEP / 1024 * JF_BUDGET_GIVE_NS_KIB;
    while (jf_arena_dirty(arena) != 0) {
        if (!jf_budget_affords(&compaction->budget, cost))
            return false;
        if (jf_arena_purge(arena, 0, PURGE_STEP) == 0)
            break;
    }
    return true;
}

enum step { STEP_MORE, STEP_UNAFFORDABLE, STEP_DONE };

/* Whether there is time to give a region's memory back. Half of a small budget has to do. */
static bool affords_giving(const struct jf_budget *budget, uint64_t left_ns) {
    return left_ns >= GIVE_NS || (budget->total_ns != 0 && left_ns >= budget->total_ns / 2);
}

static enum step do_source_step(struct jf_compaction *compaction, struct jf_compactor *compactor,
                                uint64_t left_ns) {
    if (compactor->cursor < jf_region_last(compactor->source)) {
        do_batch(compaction, compactor, left_ns);
        return STEP_MORE;
    }
    if (!affords_giving(&compaction->budget, left_ns))
        return STEP_UNAFFORDABLE;
    end_source(compaction, compactor);
    return STEP_MORE;
}

/* One step with the heap's `compacting` mutex held. */
static enum step do_step(struct jf_compaction *compaction, struct jf_compactor *compactor,
                         uint64_t left_ns) {
    struct jf_heap *heap = compaction->heap;
    if (compactor->source != NULL)
        return do_source_step(compaction, compactor, left_ns);
    if (!compactor->in_cycle)
        begin_cycle(heap, compactor);
    bool more;
    struct jf_region *region = jf_choose_source(heap, REGIONS_AT_A_TIME, &more);
    if (region != NULL)
        begin_source(heap, compactor, region);
    if (region != NULL || more)
        return STEP_MORE;
    if (compactor->gap_count != 0) {
        if (!affords_giving(&compaction->budget, left_ns))
            return STEP_UNAFFORDABLE;
        compaction->result.bytes_released += jf_gaps_give_one(compactor);
        return STEP_MORE;
    }
    finish_cycle(compaction, compactor);
    /* the end of the cycle may have listed some again */
    return jf_choose_has_listed(heap) ? STEP_MORE : STEP_DONE;
}

rm_compact_status jf_evacuate(struct jf_compaction *compaction) {
    struct jf_heap *heap = compaction->heap;
    struct jf_budget *budget = &compaction->budget;
    struct jf_compactor *compactor = compactor_of(heap);
    if (compactor == NULL)
        return RM_COMPACT_NOT_WORTH;
    collect_threads(heap, budget->total_ns == 0);
    jf_choose_begin_retry(heap);
    while (!jf_choose_retry_stuck(heap, REGIONS_AT_A_TIME))
        if (jf_budget_left(budget) < BATCH_NS_MIN)
            return RM_COMPACT_BUDGET;
    for (enum step step = STEP_MORE; step != STEP_DONE;) {
        uint64_t left = jf_budget_left(budget);
        if (left < BATCH_NS_MIN || step == STEP_UNAFFORDABLE)
            return RM_COMPACT_BUDGET;
        jf_os_mutex_lock(&heap->compacting);
        step = do_step(compaction, compactor, left);
        jf_os_mutex_unlock(&heap->compacting);
        jf_moved_report(&compaction->moved, heap);
    }
    if (!purge_arena(compaction))
        return RM_COMPACT_BUDGET;
    if (!jf_choose_has_stuck(heap))
        return RM_COMPACT_DONE;
    compaction->result.bytes_locked = jf_choose_pinned(heap);
    return RM_COMPACT_LOCKED;
}
