/* The compactor of a fixed heap: LISP-2 in one pass and in place. At the cursor there is one gap; the
 * blocks behind it slide down into it one after the other, or into a hole that a locked block has kept
 * further down. Works in steps under the heap's mutex; between steps the heap is an ordinary one.
 */
#include "compact/compact.h"
#include "heap/fixed.h"

enum {
    STEP_BLOCKS = JF_MOVED_MAX, /* blocks looked at in a step */
    STEP_HEADERS = 2 * STEP_BLOCKS,
    STEP_BYTES = 64 << 10, /* bytes of blocks in a step, unless it is one block */
    STEP_ENTRIES = 256,    /* entries of the table looked at in a step */
    POCKET_FACTOR = 8,     /* cost of looking for a hole below, in blocks looked at */
    CYCLES_MAX = 3,        /* slides in one call: more than one when others free meanwhile */
    YIELDS_MAX = 256,      /* to a thread that waits for the mutex */
    RETRY_CALLS = 16,      /* one of so many slides again for locked blocks that are not watched */
};

/* What a step works on: [cursor, end). */
struct batch {
    uintptr_t end;
    size_t bytes;
    uint32_t blocks;
    bool lone;     /* one block of more bytes than fit a step */
    bool skip;     /* its move would take too long */
    bool quiet;    /* no read section holds what is marked */
    uint32_t next; /* mark that is due next */
    uint32_t marked;
    jf_word *marks[STEP_BLOCKS];
};

/* --- Gathering. */

static bool worth_marking(struct jf_heap *heap, bool gap, size_t stride) {
    return gap || jf_fixed_may_place_below(heap, stride);
}

/* Walks ahead over as many blocks as the step may take, so that their entries are on their way into the
 * cache, and lists those that may get to move. */
static void gather(struct jf_compaction *compaction, size_t max_bytes, uint32_t max_blocks,
                   struct batch *ret_batch) {
    struct jf_heap *heap = compaction->heap;
    uintptr_t at = jf_fixed_part(heap)->cursor;
    struct jf_step step;
    bool gap = false;
    memset(ret_batch, 0, offsetof(struct batch, marks)); /* the marks have a count */
    for (int i = 0; i < STEP_HEADERS && at < jf_fixed_last(heap); i++, at += step.stride) {
        if (!jf_block_step(at, &step))
            break;
        if (step.hole) {
            jf_fixed_hole_prefetch(heap, at);
            gap = true;
            continue;
        }
        if (step.stride > max_bytes - ret_batch->bytes) {
            ret_batch->lone = ret_batch->blocks == 0;
            if (!ret_batch->lone)
                break;
        }
        jf_word *entry = jf_space_entry(heap->space, jf_header_index(step.header));
        if (worth_marking(heap, gap, step.stride)) {
            gap = true;
            __builtin_prefetch(entry, 1);
            ret_batch->marks[ret_batch->marked++] = entry;
        }
        ret_batch->bytes += step.stride;
        if (++ret_batch->blocks == max_blocks || ret_batch->lone) {
            at += step.stride;
            break;
        }
    }
    ret_batch->end = at;
}

/* --- Moving. */

static void note_moved(struct jf_compaction *compaction, const struct jf_step *step, uintptr_t at) {
    struct jf_heap *heap = compaction->heap;
    uint32_t index = jf_header_index(step->header);
    uintptr_t payload = step->payload - step->at + at;
    jf_fixed_publish(heap, index, payload);
    compaction->result.blocks_moved++;
    compaction->result.bytes_moved += step->stride;
    if (heap->options.moved != NULL) {
        jf_word word = jf_word_load(jf_space_entry(heap->space, index));
        jf_moved_add(&compaction->moved,
                     jf_handle_make(heap->space, index, jf_entry_generation(word)), payload,
                     jf_step_size(step));
    }
}

/* Into a hole that was left behind. What the block leaves joins the gap. */
static void move_to_pocket(struct jf_compaction *compaction, size_t gap, const struct jf_step *step,
                           uintptr_t at) {
    struct jf_heap *heap = compaction->heap;
    uintptr_t cursor = step->at - gap;
    jf_mark_copy((void *)at, (const void *)step->at, step->stride);
    if (gap != 0)
        jf_fixed_hole_remove(heap, cursor, gap);
    jf_fixed_hole_insert(heap, cursor, gap + step->stride);
    note_moved(compaction, step, at);
}

/* Down into the gap, from which alignment may leave a piece below. */
static void move_down(struct jf_compaction *compaction, size_t gap, const struct jf_step *step,
                      uintptr_t at) {
    struct jf_heap *heap = compaction->heap;
    uintptr_t start = step->at - gap;
    jf_fixed_hole_remove(heap, start, gap);
    jf_mark_move((void *)at, (const void *)step->at, step->stride);
    jf_fixed_part(heap)->cursor = at + step->stride;
    if (at != start)
        jf_fixed_hole_insert(heap, start, at - start);
    jf_fixed_hole_insert(heap, at + step->stride, step->at - at);
    note_moved(compaction, step, at);
}

/* The block keeps its place, the gap before it stays behind as a hole. */
static void pass(struct jf_heap *heap, size_t gap, const struct jf_step *step) {
    if (gap != 0)
        jf_fixed_hole_remove(heap, step->at - gap, gap);
    jf_fixed_part(heap)->cursor = step->at + step->stride;
    if (gap != 0)
        jf_fixed_hole_insert(heap, step->at - gap, gap);
}

/* --- Obstacles. */

/* Keeps the locked blocks with most to gain: if none of them is unlocked, another slide is not due. */
static void keep_witness(struct jf_fixed *fixed, uint32_t index, size_t gain) {
    uint32_t place = fixed->witness_count;
    if (place < JF_WITNESSES) {
        fixed->witness_count++;
    } else {
        fixed->unwitnessed++;
        place = 0;
        for (uint32_t i = 1; i < JF_WITNESSES; i++) {
            if (fixed->witness_gain[i] < fixed->witness_gain[place])
                place = i;
        }
        if (fixed->witness_gain[place] >= gain)
            return;
    }
    fixed->witness[place] = index;
    fixed->witness_gain[place] = gain;
}

/* A block that could have moved and did not: it is locked, or somebody has it in hand. */
static void note_obstacle(struct jf_compaction *compaction, size_t gap,
                          const struct jf_step *step) {
    struct jf_fixed *fixed = jf_fixed_part(compaction->heap);
    uint32_t index = jf_header_index(step->header);
    jf_word word = jf_word_load(jf_space_entry(compaction->heap->space, index));
    if (jf_entry_count(word) == 0) {
        fixed->retry = true;
        return;
    }
    keep_witness(fixed, index, gap > step->stride ? gap : step->stride);
    fixed->pocketed = true;
    fixed->pinned = fixed->hole_bytes[fixed->low_set];
    compaction->result.blocks_locked++;
}

static bool is_locked(struct jf_heap *heap, uint32_t index) {
    jf_word word = jf_word_load(jf_space_entry(heap->space, index));
    return jf_entry_count(word) != 0;
}

/* --- One block. */

/* Where the block would slide to; its own address when there is no gap or alignment is in the way. */
static uintptr_t slide_target(size_t gap, const struct jf_request *request, uintptr_t at) {
    uintptr_t target = jf_fixed_align(at - gap, request->align_log2, request->extended);
    return target < at ? target : at;
}

/* Whether there is anything below that the block might be moved to. */
static bool wants_move(struct jf_heap *heap, size_t gap, const struct jf_step *step) {
    struct jf_request request;
    jf_fixed_request_of(step, &request);
    return slide_target(gap, &request, step->at) != step->at ||
           jf_fixed_may_place_below(heap, step->stride);
}

/* The block is ours (RESIZING): moves it, or gives it back where it is. */
static void move(struct jf_compaction *compaction, size_t gap, const struct jf_step *step) {
    struct jf_heap *heap = compaction->heap;
    struct jf_request request;
    jf_fixed_request_of(step, &request);
    uintptr_t pocket =
        jf_fixed_may_place_below(heap, step->stride) ? jf_fixed_place_below(heap, &request) : 0;
    uintptr_t target = slide_target(gap, &request, step->at);
    if (pocket != 0) {
        move_to_pocket(compaction, gap, step, pocket);
    } else if (target != step->at) {
        move_down(compaction, gap, step, target);
    } else {
        pass(heap, gap, step);
        jf_fixed_publish(heap, jf_header_index(step->header), step->payload);
    }
}

static void handle_block(struct jf_compaction *compaction, struct batch *batch, size_t gap,
                         const struct jf_step *step) {
    struct jf_heap *heap = compaction->heap;
    jf_word *entry = jf_space_entry(heap->space, jf_header_index(step->header));
    /* Marks are in the order of the blocks. */
    bool marked = batch->next < batch->marked && batch->marks[batch->next] == entry;
    batch->next += marked;
    if (batch->skip || !wants_move(heap, gap, step)) {
        pass(heap, gap, step);
    } else if (marked && batch->quiet && jf_fixed_claim_marked(entry)) {
        move(compaction, gap, step);
    } else {
        compaction->result.moves_aborted += marked && batch->quiet;
        pass(heap, gap, step);
        note_obstacle(compaction, gap, step);
    }
}

/* --- Steps. */

/* The hole at the cursor, joined with those behind it that the batch covers; 0 when there is none. */
static size_t join_gap(struct jf_heap *heap, uintptr_t end) {
    uintptr_t at = jf_fixed_part(heap)->cursor;
    if (!jf_fixed_is_hole(heap, at))
        return 0;
    size_t own = jf_fixed_hole_stride(at);
    size_t gap = jf_fixed_absorb(heap, at, own, end);
    if (gap != own) {
        jf_fixed_hole_remove(heap, at, own);
        jf_fixed_headers_gone(heap, at, at + gap, at);
        jf_fixed_hole_insert(heap, at, gap);
    }
    return gap;
}

static void handle_batch(struct jf_compaction *compaction, struct batch *batch) {
    struct jf_heap *heap = compaction->heap;
    struct jf_fixed *fixed = jf_fixed_part(heap);
    while (fixed->cursor < batch->end) {
        struct jf_step step;
        size_t gap = join_gap(heap, batch->end);
        if (fixed->cursor + gap >= batch->end || !jf_block_step(fixed->cursor + gap, &step))
            return;
        handle_block(compaction, batch, gap, &step);
    }
}

/* The one block of a batch whose move takes long: may it be moved now? False when it has to wait for
 * another call. */
static bool decide_lone(struct jf_compaction *compaction, struct batch *batch, bool first_step) {
    struct jf_heap *heap = compaction->heap;
    struct jf_fixed *fixed = jf_fixed_part(heap);
    struct jf_step step;
    size_t gap = join_gap(heap, batch->end);
    uint64_t cost = jf_budget_move_ns(batch->bytes, 1);
    if (jf_budget_affords(&compaction->budget, cost) ||
        !jf_block_step(fixed->cursor + gap, &step) || !wants_move(heap, gap, &step) ||
        is_locked(heap, jf_header_index(step.header)))
        return true;
    if (!first_step && jf_budget_could_ever_afford(&compaction->budget, cost))
        return false;
    batch->skip = true;
    if (fixed->too_large == 0 || step.stride < fixed->too_large)
        fixed->too_large = step.stride;
    return true;
}

/* Marks the blocks that were gathered, and keeps those marks that took. */
static void mark_batch(struct jf_compaction *compaction, struct batch *batch) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < batch->marked; i++) {
        if (jf_fixed_mark(batch->marks[i]))
            batch->marks[count++] = batch->marks[i];
    }
    batch->marked = count;
    batch->quiet =
        count != 0 && jf_fixed_readers_quiet(compaction->readers, compaction->own_reader);
}

/* The slide has come to the free end of the heap. */
static void complete(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    uintptr_t last = jf_fixed_last(heap);
    uintptr_t tail = fixed->tail;
    size_t tail_stride = jf_fixed_tail_stride(heap);
    if (tail != 0)
        jf_fixed_hole_remove(heap, tail, tail_stride);
    fixed->cursor = last;
    if (tail != 0)
        jf_fixed_hole_insert(heap, tail, tail_stride);
    fixed->lowest = fixed->lowest_next < last ? fixed->lowest_next : last;
    size_t kept = fixed->hole_bytes[fixed->low_set] - tail_stride;
    if (!fixed->pocketed || fixed->pinned > kept)
        fixed->pinned = fixed->pocketed ? kept : 0;
    /* All holes lie below the cursor now, and above it once it is back at the start. */
    fixed->low_set ^= 1;
    fixed->cursor = fixed->start;
    fixed->sliding = false;
    jf_fixed_trim_start(heap);
}

/* One step of the slide. False when the budget has no room for it. */
static bool slide_step(struct jf_compaction *compaction, bool first_step) {
    struct jf_heap *heap = compaction->heap;
    struct jf_fixed *fixed = jf_fixed_part(heap);
    struct jf_budget *budget = &compaction->budget;
    struct batch batch;
    /* By the estimates a step takes a quarter of what is left, half of that for the blocks and half for
     * their bytes: so a machine four times slower still keeps within the limit. */
    uint64_t share = jf_budget_left(budget) / 8;
    bool pockets = fixed->mask[fixed->low_set] != 0;
    uint64_t block_ns = pockets ? JF_BUDGET_BLOCK_NS * POCKET_FACTOR : JF_BUDGET_BLOCK_NS;
    uint64_t max_blocks = share / block_ns;
    uint64_t max_kib = share / JF_BUDGET_COPY_NS_KIB;
    if (max_blocks == 0)
        return false;
    gather(compaction, max_kib < STEP_BYTES / 1024 ? (size_t)max_kib * 1024 : STEP_BYTES,
           max_blocks < STEP_BLOCKS ? (uint32_t)max_blocks : STEP_BLOCKS, &batch);
    /* What is no header was written over by the program: the checker tells about it, not this. */
    if (batch.end == fixed->cursor && fixed->cursor < jf_fixed_last(heap))
        return false;
    if (batch.lone && !decide_lone(compaction, &batch, first_step))
        return false;
    uint64_t moved_before = compaction->result.bytes_moved;
    mark_batch(compaction, &batch);
    handle_batch(compaction, &batch);
    for (uint32_t i = 0; i < batch.marked; i++)
        jf_fixed_unmark(batch.marks[i]);
    jf_budget_worked(budget, (size_t)(compaction->result.bytes_moved - moved_before),
                     batch.blocks + 1);
    if (fixed->cursor >= jf_fixed_last(heap) || fixed->cursor == fixed->tail)
        complete(heap);
    return true;
}

static bool trim_step(struct jf_compaction *compaction) {
    if (!jf_budget_affords(&compaction->budget, jf_budget_move_ns(0, STEP_ENTRIES)))
        return false;
    jf_fixed_trim(compaction->heap, STEP_ENTRIES);
    jf_budget_worked(&compaction->budget, 0, STEP_ENTRIES);
    return true;
}

/* --- The call. */

static void begin(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    fixed->sliding = true;
    fixed->changed = fixed->retry = fixed->pocketed = false;
    fixed->pinned = fixed->too_large = 0;
    fixed->witness_count = fixed->unwitnessed = 0;
    fixed->cursor = fixed->lowest;
    fixed->lowest_next = jf_fixed_last(heap);
}

/* Whether another slide may gain something. */
static bool worth_sliding(struct jf_compaction *compaction, bool first_cycle) {
    struct jf_fixed *fixed = jf_fixed_part(compaction->heap);
    bool worth = fixed->changed || (first_cycle && fixed->retry);
    for (uint32_t i = 0; i < fixed->witness_count && first_cycle; i++)
        worth |= !is_locked(compaction->heap, fixed->witness[i]);
    /* of the others nobody knows: at times it is found out */
    if (fixed->unwitnessed != 0 && first_cycle && compaction->budget.total_ns != 0)
        worth |= compaction->heap->calls % RETRY_CALLS == 0;
    if (fixed->too_large != 0 && first_cycle)
        worth |= jf_budget_could_ever_afford(&compaction->budget,
                                             jf_budget_move_ns(fixed->too_large, 1));
    return worth;
}

static rm_compact_status verdict(struct jf_compaction *compaction) {
    struct jf_heap *heap = compaction->heap;
    struct jf_fixed *fixed = jf_fixed_part(heap);
    size_t dead = fixed->hole_bytes[0] + fixed->hole_bytes[1] - jf_fixed_tail_stride(heap);
    size_t pinned = fixed->pinned < dead ? fixed->pinned : dead;
    if (fixed->changed)
        return RM_COMPACT_BUDGET;
    if (fixed->witness_count != 0 && pinned != 0) {
        compaction->result.bytes_locked = pinned;
        if (compaction->result.blocks_locked < fixed->witness_count)
            compaction->result.blocks_locked = fixed->witness_count;
        return RM_COMPACT_LOCKED;
    }
    if (fixed->retry && dead != 0) {
        compaction->result.bytes_locked = dead;
        return RM_COMPACT_LOCKED;
    }
    return fixed->too_large != 0 && dead != 0 ? RM_COMPACT_NOT_WORTH : RM_COMPACT_DONE;
}

/* Who waits for the mutex has to be woken first: by then this thread would have taken it again. */
static void let_others_go_first(struct jf_heap *heap) {
    uint32_t waiting = __atomic_load_n(&heap->waiting, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < YIELDS_MAX && waiting != 0; i++) {
        jf_os_yield();
        uint32_t now = __atomic_load_n(&heap->waiting, __ATOMIC_RELAXED);
        if (now < waiting)
            return;
        waiting = now;
    }
}

/* One step under the mutex, which is let go before the program's callback is called. */
static bool step(struct jf_compaction *compaction, bool first_step) {
    struct jf_heap *heap = compaction->heap;
    size_t tail = jf_fixed_tail_stride(heap);
    bool done =
        jf_fixed_part(heap)->sliding ? slide_step(compaction, first_step) : trim_step(compaction);
    size_t grown = jf_fixed_tail_stride(heap);
    if (grown > tail)
        compaction->result.bytes_released += grown - tail;
    jf_os_mutex_unlock(&heap->mutex);
    jf_moved_report(&compaction->moved, heap);
    let_others_go_first(heap);
    jf_os_mutex_lock(&heap->mutex);
    return done;
}

void jf_slide_again(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    jf_heap_lock(heap);
    if (fixed->unwitnessed != 0)
        fixed->retry = true;
    jf_heap_unlock(heap);
}

rm_compact_status jf_slide(struct jf_compaction *compaction) {
    struct jf_heap *heap = compaction->heap;
    struct jf_fixed *fixed = jf_fixed_part(heap);
    bool in_budget = true;
    bool first_step = true;
    unsigned cycles = 0;
    jf_os_mutex_lock(&heap->mutex);
    while (in_budget) {
        if (!fixed->sliding && fixed->trim == JF_TRIM_NONE) {
            if (cycles == CYCLES_MAX || !worth_sliding(compaction, cycles == 0))
                break;
            begin(heap);
            cycles++;
        }
        in_budget = step(compaction, first_step);
        first_step = false;
    }
    rm_compact_status status = in_budget ? verdict(compaction) : RM_COMPACT_BUDGET;
    jf_os_mutex_unlock(&heap->mutex);
    return status;
}
