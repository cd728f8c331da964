/* Moving in a growing heap: walks a chosen region in address order, a batch of blocks at a time, and
 * slides the survivors into pockets and gaps at lower or denser places; what is left empty is given
 * back page by page. Every move can be given up until the compare-swap that ends it (docs: design/protocol).
 */
#include "base/debug.h"
#include "compact/compact.h"
#include "compact/compactor.h"

#include <string.h>

enum {
    LINES_AHEAD = 8192, /* bytes */
    PLACE_AHEAD = 512,
    LINE = 64,
    GIVE_NS = 160000,     /* what giving back a region's memory is first thought to take at most, */
    PURGE_NS = 20000,     /* and PURGE_STEP bytes of the arena's; */
    GIVE_NS_MAX = 640000, /* and what it is not thought to take, however long it once took */
    STEPS_PER_BLOCK = 4,  /* dead blocks and holes passed over cost less than blocks moved */
    LOOKS_PER_MOVE = 3,   /* headers looked at ahead with every block moved: more than there are; */
    LOOK_EVERY = 4,       /* so many moves at a time */
    CYCLES_MAX = 8,       /* in a call: more are needed only to follow busy threads */
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
    jf_word *entries;
    unsigned blocks, headers;
    size_t bytes;
    unsigned group; /* most blocks of a group */
};

static unsigned least(unsigned one, unsigned other) {
    return one < other ? one : other;
}

/* First pass, made for one group while the one before is moved, so that what is asked for comes in while that
 * one is copied. Asks for the blocks' entries, and for all lines some way ahead by address: following the
 * headers ahead would wait for each in turn. */
static inline void look_on(struct look *look, struct jf_group *group, unsigned most) {
    uintptr_t at = look->at, fetched = look->fetched;
    const uintptr_t last = look->last;
    struct jf_member *member = &group->members[group->count];
    const struct jf_member *end = member + least(look->blocks, look->group - group->count);
    unsigned headers = least(most, look->headers);
    look->headers -= headers;
    for (; headers != 0 && at < last && member != end; headers--) {
        for (; fetched < at + LINES_AHEAD; fetched += LINE)
            __builtin_prefetch((const void *)fetched);
        struct jf_step step;
        if (!jf_region_step(at, &step)) {
            look->headers = headers = 0;
            break;
        }
        if (!step.hole) {
            jf_word *entry = look->entries + jf_header_index(step.header);
            __builtin_prefetch(entry, 1);
            member->at = at;
            member->entry = entry;
            member++;
            if (step.stride >= look->bytes)
                look->headers = 0, headers = 1; /* the last one */
            look->bytes -= step.stride;
        } else if (at + step.stride > fetched) {
            fetched = at + step.stride; /* nothing to be read there */
        }
        at += step.stride;
    }
    look->headers += headers;
    look->at = at;
    look->fetched = fetched;
    unsigned count = (unsigned)(member - group->members);
    look->blocks -= count - group->count;
    group->count = count;
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
static inline bool is_movable(uintptr_t base, jf_word word, uintptr_t at) {
    return (word & ~JF_ENTRY_GENERATION_MASK) ==
           jf_entry_low(at + JF_HEADER_SIZE - base, JF_ENTRY_LIVE);
}

/* What cannot move stays, and so do the pages it touches. */
static void stay(struct jf_compaction *compaction, struct jf_compactor *compactor,
                 struct jf_group *group, struct jf_member *member) {
    jf_word header = jf_header_load(member->at);
    if (!jf_header_is_block(header)) { /* freed since it was looked at */
        member->fate = JF_FATE_GONE;
        return;
    }
    member->fate = JF_FATE_LOCKED;
    group->staying = true;
    if (jf_entry_count(member->word) != 0) {
        compactor->witness = jf_header_index(header);
        compaction->result.blocks_locked++;
    }
    pin_pages(compactor, member->at, member->at + jf_header_stride(header));
}

static inline void mark(struct jf_compaction *compaction, struct jf_group *group,
                        struct jf_member *member) {
    jf_word word = member->word;
    member->word |= JF_ENTRY_MOVING;
    member->fate = JF_FATE_MARKED;
    if (jf_word_compare_swap_light(member->entry, &word, member->word)) {
        group->marked = true;
        return;
    }
    member->fate = JF_FATE_LOCKED;
    group->staying = true;
    compaction->result.moves_aborted++;
}

/* Takes the mark away, whoever counts on the word meanwhile. */
static void unmark(jf_word *entry) {
    jf_word word = jf_word_load(entry);
    while (jf_entry_state(word) == JF_ENTRY_MOVING)
        if (jf_word_compare_swap(entry, &word, word & ~JF_ENTRY_MOVING_BIT))
            return;
}

/* Second pass: which blocks cannot move, and the pages that stay for them. The others are marked, unless some of
 * them may yet have to stay in such pages. */
static void classify(struct jf_compaction *compaction, struct jf_compactor *compactor,
                     struct jf_group *group) {
    const uintptr_t base = space_of(compaction->heap)->base;
    const bool any_pinned = compactor->any_pinned;
    group->staying = group->marked = false;
    for (unsigned i = 0; i < group->count; i++) {
        struct jf_member *member = &group->members[i];
        member->word = jf_word_load(member->entry);
        if (!is_movable(base, member->word, member->at))
            stay(compaction, compactor, group, member);
        else if (any_pinned)
            member->fate = JF_FATE_MOVES;
        else
            mark(compaction, group, member);
    }
}

/* Blocks that lie wholly in pages that stay anyway need not move; the others are marked now. */
static void keep_in_pinned_pages(struct jf_compaction *compaction, struct jf_compactor *compactor,
                                 struct jf_group *group) {
    for (unsigned i = 0; i < group->count; i++) {
        struct jf_member *member = &group->members[i];
        if (member->fate != JF_FATE_MOVES && member->fate != JF_FATE_MARKED)
            continue;
        uintptr_t end = member->at + jf_header_stride(jf_header_load(member->at));
        if (all_pages_pinned(compactor, member->at, end)) {
            if (member->fate == JF_FATE_MARKED)
                unmark(member->entry);
            member->fate = JF_FATE_STAYS;
            group->staying = true;
        } else if (member->fate == JF_FATE_MOVES) {
            mark(compaction, group, member);
        }
    }
}

/* Third pass: the whole group is marked, and only now it is asked whether every read section has been left since; a
 * section opened later sees the marks. */
static void ask_readers(struct jf_compaction *compaction, struct jf_compactor *compactor,
                        struct jf_group *group) {
    if (!group->marked || jf_readers_quiet(compaction->readers, compaction->own_reader,
                                           compaction->heap->u.grow.window->fence_all))
        return;
    for (unsigned i = 0; i < group->count; i++) {
        struct jf_member *member = &group->members[i];
        if (member->fate != JF_FATE_MARKED)
            continue;
        unmark(member->entry);
        member->fate = JF_FATE_LOCKED;
        group->staying = true;
        compactor->witness = jf_header_index(jf_header_load(member->at));
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
                                 const struct jf_member *member) {
    struct jf_heap *heap = compaction->heap;
    uintptr_t at = member->at;
    jf_word marked = member->word;
    /* not before it was marked: until then it may have been resized where it lies */
    jf_word header = jf_header_load(at);
    size_t stride = jf_header_stride(header);
    /* freed meanwhile it is dead, and the swap below fails */
    JF_ASSERT((jf_header_is_block(header) || jf_header_kind(header) == JF_KIND_DEAD) &&
              stride != 0);
    uintptr_t to = jf_gaps_place_fast(heap, compactor, stride, jf_header_align_log2(header));
    if (to == 0) {
        compactor->starved = compactor->source->starved = true;
        unmark(member->entry);
        return 0;
    }
    __builtin_prefetch((const void *)(to + PLACE_AHEAD), 1);
    copy_block(to, at, stride);
    /* its address is as much higher or lower as the block is */
    jf_word moved = marked - (JF_ENTRY_MOVING - JF_ENTRY_LIVE) + (jf_word)to - (jf_word)at;
    if (!jf_word_compare_swap_light(member->entry, &marked, moved)) {
        unmark(member->entry);
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
    size_t bytes = 0;
    uint32_t blocks = 0;
    for (unsigned i = 0; i < group->count; i++) {
        struct jf_member *member = &group->members[i];
        if (i % LOOK_EVERY == 0)
            look_on(look, next, LOOKS_PER_MOVE * LOOK_EVERY);
        if (member->fate != JF_FATE_MARKED)
            continue;
        size_t stride = move_marked(compaction, compactor, member);
        if (stride == 0) {
            member->fate = JF_FATE_LOCKED;
            group->staying = true;
            if (!compactor->source->starved)
                compactor->witness = jf_header_index(jf_header_load(member->at));
            continue;
        }
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
        const struct jf_member *member = &group->members[i];
        if (member->fate == JF_FATE_GONE || member->fate == JF_FATE_MARKED)
            continue;
        uintptr_t at = member->at;
        compaction->result.bytes_released += jf_gaps_add_run(compactor, region, compactor->run, at);
        compactor->run = at + jf_header_stride(jf_header_load(at));
    }
}

static void do_group(struct jf_compaction *compaction, struct jf_compactor *compactor,
                     struct jf_group *group, struct look *look, struct jf_group *next) {
    classify(compaction, compactor, group);
    if (compactor->any_pinned)
        keep_in_pinned_pages(compaction, compactor, group);
    ask_readers(compaction, compactor, group);
    move_all(compaction, compactor, group, look, next);
    /* whoever reads bytes that are overwritten from here on sees that the block has moved */
    jf_fence_release();
    if (group->staying)
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

/* One batch of the source, no longer than `left_ns`; without a limit all of it, so that the misses of each group but
 * the first come in while another is moved. */
static void do_batch(struct jf_compaction *compaction, struct jf_compactor *compactor,
                     uint64_t left_ns) {
    struct jf_heap *heap = compaction->heap;
    bool limited = compaction->budget.total_ns != 0;
    uint64_t blocks = left_ns / 2 / BLOCK_NS + 1;
    uint64_t bytes = left_ns / 2 * 1024 / BYTE_NS_KIB;
    uint64_t most = limited ? JF_BATCH_BLOCKS : JF_REGION_SIZE / JF_GRAIN;
    size_t most_bytes = limited ? JF_BATCH_BYTES : JF_REGION_SIZE;
    if (heap->options.moved != NULL)
        most = JF_MOVED_MAX;
    struct look look = {
        .at = compactor->cursor,
        .last = jf_region_last(compactor->source),
        .fetched = compactor->cursor,
        .entries = jf_space_entry(space_of(heap), 0),
        .blocks = (unsigned)(blocks < most ? blocks : most),
        .bytes = bytes < most_bytes ? (size_t)bytes : most_bytes,
        /* asking readers costs more than a group of few blocks */
        .group = jf_readers_none(compaction->readers) ? GROUP_BLOCKS : JF_GROUP_BLOCKS,
    };
    look.headers = STEPS_PER_BLOCK * look.blocks;
    compactor->claim = look.bytes < JF_CLAIM_SIZE ? look.bytes : JF_CLAIM_SIZE;
    unsigned looked = look.blocks;
    struct jf_group *group = &compactor->groups[0], *next = &compactor->groups[1];
    group->count = 0;
    for (;;) {
        look_on(&look, group, UINT32_MAX);
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
    compactor->sources_left = jf_choose_count(heap);
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
    if (compactor->sources_left == 0)
        return STEP_DONE;
    compactor->sources_left--;
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
    if (jf_gaps_are_many(compactor) && affords) {
        compaction->result.bytes_released += jf_gaps_give_one(compactor);
        return STEP_MORE;
    }
    if (jf_gaps_are_too_many(compactor))
        return STEP_UNAFFORDABLE;
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
    /* the end of the cycle may have listed some again, as busy threads always do */
    return ++compaction->cycles < CYCLES_MAX && jf_choose_has_listed(heap) ? STEP_MORE : STEP_DONE;
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
