/* Moving in a growing heap: walks a chosen region in address order, a batch of blocks at a time, and
 * slides the survivors into pockets and gaps at lower or denser places; what is left empty is given
 * back page by page. Every move can be given up until the compare-swap that ends it (docs: design/protocol).
 */
#include "base/debug.h"
#include "compact/compact.h"
#include "compact/compactor.h"

#include <string.h>

enum {
    LINES_AHEAD = 4096, /* bytes */
    PLACE_AHEAD = 512,
    LINE = 64,
    GIVE_NS = 160000,     /* what giving back a region's memory is first thought to take at most, */
    PURGE_NS = 20000,     /* and PURGE_STEP bytes of the arena's; */
    GIVE_NS_MAX = 640000, /* and what it is not thought to take, however long it once took */
    STEPS_PER_BLOCK = 4,  /* dead blocks and holes passed over cost less than blocks moved */
    LOOKS_PER_MOVE = 3,   /* headers looked at ahead with every block moved: more than there are */
    TO_FILL_LOOKS = 16,   /* regions looked at for one to be filled */
    GROUP_BLOCKS = 64,    /* blocks that move together where no reader has to be asked for */
    BLOCK_NS = 130,       /* most that looking at and moving one block takes, without its bytes */
    BYTE_NS_KIB = 900,    /* most that moving 1 KiB takes, destination's page faults included */
    REGIONS_AT_A_TIME = 64, /* looked at between two looks at the clock */
    PURGE_STEP = 256 << 10, /* bytes of the arena's dirty chunks given back between two looks */
    COPY_INLINE = 256,      /* strides up to this are copied without a call */
};

/* ------------------------------------------------------------------------------------- a batch */

static struct jf_space *space_of(const struct jf_heap *heap) {
    return heap->space;
}

/* How far the headers have been looked at, and how many more may be in this step. */
struct look {
    uintptr_t at, last, fetched;
    unsigned blocks, headers;
    size_t bytes;
    unsigned group; /* most blocks of a group */
};

/* First pass, made for one group while the one before is moved, so that what is asked for comes in while that
 * one is copied. Asks for the blocks' entries, and for all lines some way ahead by address: following the
 * headers ahead would wait for each in turn. */
static inline void look_on(const struct jf_space *space, struct look *look, struct jf_group *group,
                           unsigned headers) {
    uintptr_t at = look->at;
    while (headers-- > 0 && at < look->last && group->count < look->group && look->blocks != 0 &&
           look->headers != 0) {
        for (; look->fetched < at + LINES_AHEAD; look->fetched += LINE)
            __builtin_prefetch((const void *)look->fetched);
        struct jf_step step;
        if (!jf_region_step(at, &step)) {
            look->headers = 0;
            break;
        }
        look->headers--;
        if (!step.hole) {
            __builtin_prefetch(jf_space_entry(space, jf_header_index(step.header)), 1);
            group->at[group->count++] = at;
            look->blocks--;
            if (step.stride >= look->bytes)
                look->blocks = 0;
            look->bytes -= step.stride;
        } else if (at + step.stride > look->fetched) {
            look->fetched = at + step.stride; /* nothing to be read there */
        }
        at += step.stride;
    }
    look->at = at;
}

static unsigned page_of(const struct jf_compactor *compactor, uintptr_t address) {
    return (unsigned)((address - compactor->source->start) >> JF_PAGE_SHIFT);
}

static void pin_pages(struct jf_compactor *compactor, uintptr_t from, uintptr_t to) {
    compactor->any_pinned = true;
    for (unsigned page = page_of(compactor, from); page <= page_of(compactor, to - 1); page++)
        compactor->pinned[page / 64] |= (uint64_t)1 << (page % 64);
}

static bool all_pages_pinned(const struct jf_compactor *compactor, uintptr_t from, uintptr_t to) {
    for (unsigned page = page_of(compactor, from); page <= page_of(compactor, to - 1); page++)
        if ((compactor->pinned[page / 64] >> (page % 64) & 1) == 0)
            return false;
    return true;
}

/* Whether the entry says that the block at this header is there and nobody's. */
static bool is_movable(const struct jf_space *space, jf_word word, uintptr_t at) {
    return (word & ~JF_ENTRY_GENERATION_MASK) ==
           jf_entry_low(at + JF_HEADER_SIZE - space->base, JF_ENTRY_LIVE);
}

/* Second pass: which blocks cannot move, and the pages that stay for them. */
static void classify(struct jf_compaction *compaction, struct jf_compactor *compactor,
                     struct jf_group *group) {
    const struct jf_space *space = space_of(compaction->heap);
    for (unsigned i = 0; i < group->count; i++) {
        uintptr_t at = group->at[i];
        jf_word header = jf_header_load(at);
        uint32_t index = jf_header_index(header);
        jf_word word = jf_word_load(jf_space_entry(space, index));
        group->word[i] = word;
        group->fate[i] = JF_FATE_MOVES;
        if (is_movable(space, word, at))
            continue;
        if (!jf_header_is_block(header)) { /* freed since it was looked at */
            group->fate[i] = JF_FATE_GONE;
            continue;
        }
        group->fate[i] = JF_FATE_LOCKED;
        if (jf_entry_count(word) != 0) {
            compactor->witness = index;
            compaction->result.blocks_locked++;
        }
        pin_pages(compactor, at, at + jf_header_stride(header));
    }
}

/* Blocks that lie wholly in pages that stay anyway need not move. */
static void keep_in_pinned_pages(struct jf_compactor *compactor, struct jf_group *group) {
    for (unsigned i = 0; i < group->count; i++) {
        uintptr_t at = group->at[i];
        if (group->fate[i] == JF_FATE_MOVES &&
            all_pages_pinned(compactor, at, at + jf_header_stride(jf_header_load(at))))
            group->fate[i] = JF_FATE_STAYS;
    }
}

static jf_word *entry_at(const struct jf_heap *heap, uintptr_t at) {
    return jf_space_entry(space_of(heap), jf_header_index(jf_header_load(at)));
}

static bool mark(struct jf_compaction *compaction, struct jf_group *group, unsigned i) {
    jf_word word = group->word[i];
    jf_word marked = word | JF_ENTRY_MOVING;
    if (jf_word_compare_swap_light(entry_at(compaction->heap, group->at[i]), &word, marked)) {
        group->word[i] = marked;
        group->fate[i] = JF_FATE_MARKED;
        return true;
    }
    group->fate[i] = JF_FATE_LOCKED;
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

/* Third pass: marks the whole group, and only then asks whether every read section has been left since; a
 * section opened later sees the marks. */
static void mark_all(struct jf_compaction *compaction, struct jf_compactor *compactor,
                     struct jf_group *group) {
    bool any = false;
    for (unsigned i = 0; i < group->count; i++)
        if (group->fate[i] == JF_FATE_MOVES)
            any |= mark(compaction, group, i);
    if (!any || jf_readers_quiet(compaction->readers, compaction->own_reader,
                                 compaction->heap->u.grow.window->fence_all))
        return;
    for (unsigned i = 0; i < group->count; i++) {
        if (group->fate[i] != JF_FATE_MARKED)
            continue;
        unmark(entry_at(compaction->heap, group->at[i]));
        group->fate[i] = JF_FATE_LOCKED;
        compactor->witness = jf_header_index(jf_header_load(group->at[i]));
        compaction->result.moves_aborted++;
    }
}

/* 16 bytes that may lie at any multiple of 8, and hold anything. */
typedef long copy_word __attribute__((vector_size(16), aligned(8), may_alias));

/* Small blocks in a loop of its own: the call would cost as much as they do. */
static inline void copy_block(uintptr_t to, uintptr_t from, size_t stride) {
    if (JF_MARK_ACTIVE || stride > COPY_INLINE) {
        jf_mark_copy((void *)to, (const void *)from, stride);
        return;
    }
    for (size_t i = 0; i < stride; i += JF_GRAIN) {
        *(copy_word *)(to + i) = *(const copy_word *)(from + i);
        __asm__ volatile("" ::: "memory"); /* or the compiler makes it a call again */
    }
}

/* Copies a marked block to its new place and swaps the entry over; its stride, 0 when it was not moved. */
static inline size_t move_marked(struct jf_compaction *compaction, struct jf_compactor *compactor,
                                 uintptr_t at, jf_word marked) {
    struct jf_heap *heap = compaction->heap;
    jf_word header = jf_header_load(at);
    jf_word *entry = jf_space_entry(space_of(heap), jf_header_index(header));
    size_t stride = jf_header_stride(header);
    /* freed meanwhile it is dead, and the swap below fails */
    JF_ASSERT((jf_header_is_block(header) || jf_header_kind(header) == JF_KIND_DEAD) &&
              stride != 0);
    uintptr_t to = jf_gaps_place_fast(heap, compactor, stride, jf_header_align_log2(header));
    if (to == 0) {
        compactor->starved = compactor->source->starved = true;
        unmark(entry);
        return 0;
    }
    __builtin_prefetch((const void *)(to + PLACE_AHEAD), 1);
    copy_block(to, at, stride);
    jf_word moved = (marked & ~(JF_ENTRY_ADDRESS_MASK | JF_ENTRY_STATE_MASK)) |
                    jf_entry_low(to + JF_HEADER_SIZE - heap->space->base, JF_ENTRY_LIVE);
    if (!jf_word_compare_swap_light(entry, &marked, moved)) {
        unmark(entry);
        jf_gaps_return(heap, compactor, to, stride);
        compaction->result.moves_aborted++;
        return 0;
    }
    if (heap->options.moved != NULL) {
        jf_moved_add(
            &compaction->moved,
            jf_handle_make(heap->space, jf_header_index(header), jf_entry_generation(moved)),
            to + JF_HEADER_SIZE, stride - JF_HEADER_SIZE - jf_header_slack(header));
    }
    return stride;
}

/* Fourth pass: the moves, while the next group is looked at. */
static void move_all(struct jf_compaction *compaction, struct jf_compactor *compactor,
                     struct jf_group *group, struct look *look, struct jf_group *next) {
    const struct jf_space *space = space_of(compaction->heap);
    size_t bytes = 0;
    uint32_t blocks = 0;
    for (unsigned i = 0; i < group->count; i++) {
        look_on(space, look, next, LOOKS_PER_MOVE);
        if (group->fate[i] != JF_FATE_MARKED)
            continue;
        size_t stride = move_marked(compaction, compactor, group->at[i], group->word[i]);
        if (stride == 0) {
            group->fate[i] = JF_FATE_LOCKED;
            if (!compactor->source->starved)
                compactor->witness = jf_header_index(jf_header_load(group->at[i]));
            continue;
        }
        group->fate[i] = JF_FATE_GONE;
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
static void sweep(struct jf_compaction *compaction, struct jf_compactor *compactor,
                  const struct jf_group *group) {
    struct jf_region *region = compactor->source;
    for (unsigned i = 0; i < group->count; i++) {
        if (group->fate[i] == JF_FATE_GONE)
            continue;
        uintptr_t at = group->at[i];
        compaction->result.bytes_released += jf_gaps_add_run(compactor, region, compactor->run, at);
        compactor->run = at + jf_header_stride(jf_header_load(at));
    }
}

static void do_group(struct jf_compaction *compaction, struct jf_compactor *compactor,
                     struct jf_group *group, struct look *look, struct jf_group *next) {
    classify(compaction, compactor, group);
    if (compactor->any_pinned)
        keep_in_pinned_pages(compactor, group);
    mark_all(compaction, compactor, group);
    move_all(compaction, compactor, group, look, next);
    /* whoever reads bytes that are overwritten from here on sees that the block has moved */
    jf_fence_release();
    sweep(compaction, compactor, group);
}

static void end_source(struct jf_compaction *compaction, struct jf_compactor *compactor) {
    struct jf_region *region = compactor->source;
    region->witness = compactor->witness;
    if (compactor->run == jf_region_first(region) && jf_region_live_bytes(region) == 0)
        jf_gaps_add_region(compactor, region);
    else
        compaction->result.bytes_released +=
            jf_gaps_add_run(compactor, region, compactor->run, compactor->cursor);
    compactor->source = NULL;
    compactor->in_place = false;
}

static void begin_source(struct jf_heap *heap, struct jf_compactor *compactor,
                         struct jf_region *region, bool in_place) {
    region->walked_call = heap->calls;
    region->starved = false;
    region->in_place = in_place;
    region->settled_live = 0;
    compactor->source = region;
    compactor->cursor = compactor->run = jf_region_first(region);
    compactor->witness = 0;
    compactor->last_source = region->start;
    /* as if each page had a locked block */
    compactor->in_place = compactor->any_pinned = in_place;
    memset(compactor->pinned, in_place ? 0xff : 0, sizeof compactor->pinned);
    if (jf_region_live_bytes(region) == 0)
        compactor->cursor = jf_region_last(region); /* all dead: nothing to look at */
}

/* One batch of the source, no longer than `left_ns`. */
static void do_batch(struct jf_compaction *compaction, struct jf_compactor *compactor,
                     uint64_t left_ns) {
    struct jf_heap *heap = compaction->heap;
    uint64_t blocks = left_ns / 2 / BLOCK_NS + 1;
    uint64_t bytes = left_ns / 2 * 1024 / BYTE_NS_KIB;
    uint64_t most =
        heap->options.moved != NULL ? (uint64_t)JF_MOVED_MAX : (uint64_t)JF_BATCH_BLOCKS;
    struct look look = {
        .at = compactor->cursor,
        .last = jf_region_last(compactor->source),
        .fetched = compactor->cursor,
        .blocks = (unsigned)(blocks < most ? blocks : most),
        .bytes = bytes < JF_BATCH_BYTES ? (size_t)bytes : JF_BATCH_BYTES,
        /* asking readers costs more than a group of few blocks */
        .group = jf_readers_none(compaction->readers) ? GROUP_BLOCKS : JF_GROUP_BLOCKS,
    };
    look.headers = STEPS_PER_BLOCK * look.blocks;
    compactor->claim = look.bytes;
    unsigned looked = look.blocks;
    struct jf_group *group = &compactor->groups[0], *next = &compactor->groups[1];
    group->count = 0;
    for (;;) {
        look_on(space_of(heap), &look, group, UINT32_MAX);
        if (group->count == 0)
            break;
        next->count = 0;
        do_group(compaction, compactor, group, &look, next);
        struct jf_group *done = group;
        group = next;
        next = done;
    }
    looked -= look.blocks;
    compactor->cursor = look.at;
    if (compactor->run < compactor->cursor)
        jf_header_store(compactor->run, jf_header_hole(compactor->cursor - compactor->run));
    jf_gaps_settle(compactor);
    jf_gaps_make_walkable(compactor);
    jf_budget_worked(&compaction->budget, 0, looked);
}

/* ------------------------------------------------------------------------------------- a call */

static struct jf_compactor *compactor_of(struct jf_heap *heap) {
    struct jf_grow *grow = &heap->u.grow;
    if (grow->compactor == NULL) {
        grow->compactor = jf_arena_meta_alloc(grow->window->arena, sizeof *grow->compactor);
        grow->compactor_size = sizeof *grow->compactor;
        if (grow->compactor != NULL) {
            grow->compactor->give_ns = GIVE_NS;
            grow->compactor->purge_ns = PURGE_NS;
        }
    }
    return grow->compactor;
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
    compactor->begun = false;
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

/* What a step took is remembered: as the most that it takes, until it has taken less for a while. */
static void learn(uint64_t *most_ns, uint64_t start_ns) {
    uint64_t took = jf_os_clock_ns() - start_ns;
    if (took > GIVE_NS_MAX)
        took = GIVE_NS_MAX;
    *most_ns = took > *most_ns ? took : *most_ns - (*most_ns - took) / 16;
}

/* Gives freed chunks' memory back; false when the budget ends first. */
static bool purge_arena(struct jf_compaction *compaction, struct jf_compactor *compactor) {
    struct jf_arena *arena = compaction->heap->u.grow.window->arena;
    /* without a limit as much at a time as the system takes quickly */
    size_t most = compaction->budget.total_ns == 0 ? 2 * JF_REGION_SIZE : PURGE_STEP;
    while (jf_arena_dirty(arena) != 0) {
        if (!jf_budget_affords(&compaction->budget, compactor->purge_ns))
            return false;
        uint64_t start = jf_os_clock_ns();
        if (jf_arena_purge(arena, 0, most) == 0)
            break;
        if (most == PURGE_STEP)
            learn(&compactor->purge_ns, start);
    }
    return true;
}

enum step { STEP_MORE, STEP_UNAFFORDABLE, STEP_DONE };

/* Whether there is time to give memory back. Half of a small budget has to do. */
static bool affords_giving(const struct jf_budget *budget, const struct jf_compactor *compactor,
                           uint64_t left_ns) {
    return left_ns >= compactor->give_ns ||
           (budget->total_ns != 0 && left_ns >= budget->total_ns / 2);
}

/* Two at a time where time is short: the system takes such a pair as quickly as one of them. */
static void give_regions(struct jf_compaction *compaction, struct jf_compactor *compactor) {
    bool limited = compaction->budget.total_ns != 0;
    uint64_t start = jf_os_clock_ns();
    compaction->result.bytes_released +=
        jf_gaps_give_regions(compaction->heap, compactor, limited ? 2 : JF_EMPTY_MAX);
    if (limited)
        learn(&compactor->give_ns, start);
}

/* Chooses what to empty next; before the first in a cycle, what is filled as it is. */
static enum step begin_next_source(struct jf_heap *heap, struct jf_compactor *compactor) {
    bool more = false;
    struct jf_region *region = NULL;
    if (!compactor->begun)
        region = jf_choose_to_fill(heap, TO_FILL_LOOKS);
    compactor->begun = true;
    bool in_place = region != NULL;
    if (region == NULL)
        region = jf_choose_source(heap, compactor->last_source, REGIONS_AT_A_TIME, &more);
    if (region != NULL)
        begin_source(heap, compactor, region, in_place);
    return region != NULL || more ? STEP_MORE : STEP_DONE;
}

/* Goes on with the source; or chooses one. STEP_DONE: there is none. */
static enum step do_source_step(struct jf_compaction *compaction, struct jf_compactor *compactor,
                                uint64_t left_ns) {
    if (compactor->source == NULL)
        return begin_next_source(compaction->heap, compactor);
    if (compactor->cursor < jf_region_last(compactor->source)) {
        do_batch(compaction, compactor, left_ns);
        return STEP_MORE;
    }
    if (compactor->empty_count == JF_EMPTY_MAX)
        return STEP_UNAFFORDABLE;
    end_source(compaction, compactor);
    return STEP_MORE;
}

/* One step with the heap's `compacting` mutex held. */
static enum step do_step(struct jf_compaction *compaction, struct jf_compactor *compactor,
                         uint64_t left_ns) {
    struct jf_heap *heap = compaction->heap;
    bool affords = affords_giving(&compaction->budget, compactor, left_ns);
    unsigned keep = compaction->budget.total_ns == 0 ? JF_EMPTY_KEEP_LONG : JF_EMPTY_KEEP;
    if (compactor->empty_count > keep && affords) {
        give_regions(compaction, compactor);
        return STEP_MORE;
    }
    if (!compactor->in_cycle)
        begin_cycle(heap, compactor);
    enum step step = do_source_step(compaction, compactor, left_ns);
    if (step != STEP_DONE)
        return step;
    if (!affords)
        return STEP_UNAFFORDABLE;
    if (compactor->empty_count != 0) {
        give_regions(compaction, compactor);
        return STEP_MORE;
    }
    if (compactor->gap_count != 0) {
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
    bool kept;
    if (!jf_collect(compaction, &kept))
        return RM_COMPACT_BUDGET;
    jf_choose_begin_retry(heap);
    while (!jf_choose_retry_stuck(heap, REGIONS_AT_A_TIME))
        if (jf_budget_left(budget) < JF_BATCH_NS_MIN)
            return RM_COMPACT_BUDGET;
    for (enum step step = STEP_MORE; step != STEP_DONE;) {
        uint64_t left = jf_budget_left(budget);
        if (left < JF_BATCH_NS_MIN || step == STEP_UNAFFORDABLE)
            return RM_COMPACT_BUDGET;
        jf_os_mutex_lock(&heap->compacting);
        step = do_step(compaction, compactor, left);
        compaction->result.bytes_released += compactor->left_behind;
        compactor->left_behind = 0;
        jf_os_mutex_unlock(&heap->compacting);
        jf_moved_report(&compaction->moved, heap);
    }
    if (!purge_arena(compaction, compactor))
        return RM_COMPACT_BUDGET;
    if (kept)
        return RM_COMPACT_BUDGET;
    if (!jf_choose_has_stuck(heap))
        return RM_COMPACT_DONE;
    compaction->result.bytes_locked = jf_choose_pinned(heap);
    return RM_COMPACT_LOCKED;
}
