/* Pools of handles: compaction with two fingers, and scrambling. A move goes as in the compactor: the entry is
 * marked MOVING, the element copied, the entry swapped over; whoever locks or frees the element meanwhile
 * makes the swap fail, and the copy is thrown away.
 */
#include "collections/pool.h"

#include "base/mark.h"

#include <string.h>

enum {
    BATCH = 64, /* elements that are moved under one hold of the window's mutex */
    BATCH_BYTES = 64 << 10,
    BATCH_NS = 20000, /* to move a batch, */
    GIVE_NS_KIB = 65, /* and to give a KiB back: what a step is expected to cost */
    SCRAMBLE_BYTE = 0xdb,
};

struct move {
    uint32_t from;
    uint32_t index;
    jf_word word; /* MOVING */
};

struct moved {
    rmhandle_t handle;
    uintptr_t address;
};

struct compaction {
    struct jf_pool *pool;
    struct rm_compact_result result;
    struct jf_pool_block *source;
    uint32_t cursor; /* next slot of the source */
    bool locked;     /* something was in the way */
    unsigned count;
    struct move moves[BATCH];
    unsigned moved_count;
    struct moved moved[BATCH];
    struct jf_pool_block *emptied; /* in no list: to be given back without the mutex */
};

/* ------------------------------------------------------------------------------------- one move */

static jf_word *entry_of(const struct jf_pool *pool, uint32_t index) {
    return jf_space_entry(&pool->window->space, index);
}

static void unmark(jf_word *entry) {
    jf_word word = jf_word_load(entry);
    while (jf_entry_state(word) == JF_ENTRY_MOVING &&
           !jf_word_compare_swap(entry, &word, word & ~JF_ENTRY_MOVING_BIT))
        continue;
}

/* Marks the slot's element if nobody has it locked. False when nothing can be moved there; *ret_live says
 * whether something is. */
static bool mark(const struct jf_pool_block *block, uint32_t slot, struct move *ret_move,
                 bool *ret_live) {
    const struct jf_pool *pool = block->pool;
    uintptr_t address = jf_pool_element(block, slot);
    uint32_t index = jf_pool_index_at(&block->region, address);
    *ret_live = false;
    if (!jf_pool_is_entry(pool->window, index))
        return false;
    jf_word word = jf_word_load(entry_of(pool, index));
    if (jf_entry_state(word) == JF_ENTRY_FREE ||
        jf_space_address(&pool->window->space, word) != address)
        return false;
    *ret_live = true;
    jf_word marked = (word & ~JF_ENTRY_STATE_MASK) | JF_ENTRY_MOVING;
    if (jf_entry_state(word) != JF_ENTRY_LIVE || jf_entry_count(word) != 0 ||
        !jf_word_compare_swap(entry_of(pool, index), &word, marked))
        return false;
    *ret_move = (struct move){slot, index, marked};
    return true;
}

/* Copies a marked element into a slot that was taken for it, and swaps its entry over. */
static bool move_marked(const struct move *move, struct jf_pool_block *source,
                        struct jf_pool_block *target, uint32_t to) {
    struct jf_pool *pool = source->pool;
    const struct jf_space *space = &pool->window->space;
    jf_word *entry = entry_of(pool, move->index);
    uintptr_t address = jf_pool_element(target, to);
    jf_mark_copy((void *)address, (const void *)jf_pool_element(source, move->from),
                 pool->element_size);
    /* named before the entry points there: from then on somebody may free it */
    __atomic_store_n(jf_pool_index(target, to), move->index, __ATOMIC_RELAXED);
    jf_word expected = move->word;
    jf_word next = (expected & ~(JF_ENTRY_ADDRESS_MASK | JF_ENTRY_STATE_MASK)) |
                   jf_entry_low(address - space->base, JF_ENTRY_LIVE);
    if (!jf_word_compare_swap(entry, &expected, next)) {
        unmark(entry);
        __atomic_store_n(jf_pool_index(target, to), 0, __ATOMIC_RELAXED);
        jf_pool_give(target, to);
        return false;
    }
    __atomic_store_n(jf_pool_index(source, move->from), 0, __ATOMIC_RELAXED);
    return true;
}

/* Whether marked elements may be moved: nobody can have dereferenced them before they were marked. */
static bool readers_allow(const struct jf_pool *pool) {
    struct jf_readers *readers = jf_blocks_readers();
    return jf_readers_none(readers) ||
           jf_readers_quiet(readers, jf_blocks_reader(), pool->window->fence_all);
}

/* ------------------------------------------------------------------------------------- choosing */

/* The emptiest block that something may be got out of. */
static struct jf_pool_block *choose_source(const struct jf_pool *pool) {
    for (unsigned bin = 1; bin < JF_POOL_BINS; bin++)
        for (struct jf_pool_block *block = pool->bins[bin]; block != NULL; block = block->next)
            if (!block->stuck)
                return block;
    return NULL;
}

/* The fullest block with room, other than the source. */
static struct jf_pool_block *choose_target(const struct jf_pool *pool,
                                           const struct jf_pool_block *source) {
    for (unsigned bin = JF_POOL_BINS - 1; bin >= 1; bin--)
        for (struct jf_pool_block *block = pool->bins[bin]; block != NULL; block = block->next)
            if (block != source)
                return block;
    return NULL;
}

/* ------------------------------------------------------------------------------------- batches */

static void gather(struct compaction *compaction) {
    struct jf_pool *pool = compaction->pool;
    struct jf_pool_block *source = compaction->source;
    size_t most = BATCH_BYTES / pool->stride;
    unsigned limit = most < 1 ? 1 : most > BATCH ? BATCH : (unsigned)most;
    uint32_t scan_end = compaction->cursor + 64 * BATCH;
    compaction->count = 0;
    while (compaction->cursor < source->carved && compaction->cursor < scan_end &&
           compaction->count < limit) {
        bool live;
        if (mark(source, compaction->cursor, &compaction->moves[compaction->count], &live)) {
            compaction->count++;
        } else if (live) {
            compaction->locked = true;
            compaction->result.blocks_locked++;
        }
        compaction->cursor++;
    }
}

static void give_up(struct compaction *compaction, unsigned from) {
    for (unsigned i = from; i < compaction->count; i++)
        unmark(entry_of(compaction->pool, compaction->moves[i].index));
}

static void note_moved(struct compaction *compaction, const struct move *move, uintptr_t address) {
    const struct jf_pool *pool = compaction->pool;
    compaction->result.blocks_moved++;
    compaction->result.bytes_moved += pool->stride;
    if (pool->heap->options.moved != NULL)
        compaction->moved[compaction->moved_count++] = (struct moved){
            jf_handle_make(&pool->window->space, move->index, jf_entry_generation(move->word)),
            address};
}

/* Moves what was gathered; false when there is no room left for it elsewhere. */
static bool move_all(struct compaction *compaction) {
    struct jf_pool_block *source = compaction->source;
    for (unsigned i = 0; i < compaction->count; i++) {
        struct jf_pool_block *target = choose_target(compaction->pool, source);
        uint32_t to;
        if (target == NULL || !jf_pool_take(target, &to)) {
            give_up(compaction, i);
            return false;
        }
        const struct move *move = &compaction->moves[i];
        if (move_marked(move, source, target, to)) {
            note_moved(compaction, move, jf_pool_element(target, to));
            jf_pool_give(source, move->from);
        } else {
            compaction->result.moves_aborted++;
            compaction->locked = true;
        }
        jf_pool_rebin(target);
    }
    return true;
}

/* Blocks without an element leave the pool; they are given back later, without the mutex. */
static void take_emptied(struct compaction *compaction) {
    struct jf_pool *pool = compaction->pool;
    while (pool->empty != 0 && pool->visiting == 0) {
        struct jf_pool_block *block = pool->bins[0];
        compaction->result.bytes_released += jf_pool_remove(block);
        block->next = compaction->emptied;
        compaction->emptied = block;
    }
}

/* One batch with the window's mutex held. False: nothing more is to be gained. */
static bool do_batch(struct compaction *compaction) {
    struct jf_pool *pool = compaction->pool;
    if (compaction->source == NULL) {
        compaction->source = choose_source(pool);
        compaction->cursor = 0;
        if (compaction->source == NULL || choose_target(pool, compaction->source) == NULL)
            return false;
    }
    struct jf_pool_block *source = compaction->source;
    bool more = true;
    gather(compaction);
    if (compaction->count != 0 && !readers_allow(pool)) {
        give_up(compaction, 0);
        compaction->locked = true;
        compaction->result.moves_aborted += compaction->count;
    } else {
        more = move_all(compaction);
    }
    if (source->used == 0 || compaction->cursor >= source->carved) {
        source->stuck = source->used != 0;
        compaction->source = NULL;
    }
    jf_pool_rebin(source);
    take_emptied(compaction);
    return more;
}

/* Gives back what do_batch has taken out, and tells the program what has moved. No mutex is held. */
static void settle(struct compaction *compaction) {
    struct jf_pool *pool = compaction->pool;
    const struct jf_options *options = &pool->heap->options;
    while (compaction->emptied != NULL) {
        struct jf_pool_block *block = compaction->emptied;
        compaction->emptied = block->next;
        jf_pool_release(block, true);
        jf_os_mutex_lock(&pool->window->mutex);
        jf_pool_forget(pool->window, block);
        jf_os_mutex_unlock(&pool->window->mutex);
    }
    for (unsigned i = 0; i < compaction->moved_count; i++)
        options->moved(options->context, compaction->moved[i].handle,
                       (void *)compaction->moved[i].address, pool->element_size);
    compaction->moved_count = 0;
}

static void begin(struct jf_pool *pool) {
    jf_os_mutex_lock(&pool->window->mutex);
    jf_pool_recall(pool, false);
    for (unsigned bin = 0; bin < JF_POOL_BINS; bin++)
        for (struct jf_pool_block *block = pool->bins[bin]; block != NULL; block = block->next)
            block->stuck = false;
    jf_os_mutex_unlock(&pool->window->mutex);
}

/* `end_ns`: when it shall be over, 0 = no limit. */
static rm_compact_status run(struct compaction *compaction, uint64_t end_ns) {
    struct jf_pool *pool = compaction->pool;
    uint64_t step_ns = BATCH_NS + ((uint64_t)1 << pool->shift) / 1024 * GIVE_NS_KIB;
    bool more = true;
    /* one step whatever the budget: calls with too small a one come to an end too */
    while (more) {
        jf_os_mutex_lock(&pool->window->mutex);
        more = pool->handles && do_batch(compaction);
        take_emptied(compaction);
        jf_os_mutex_unlock(&pool->window->mutex);
        settle(compaction);
        if (more && end_ns != 0 && jf_os_clock_ns() + step_ns > end_ns)
            return RM_COMPACT_BUDGET;
    }
    return compaction->locked ? RM_COMPACT_LOCKED : RM_COMPACT_DONE;
}

rm_compact_status rmpool_compact(rmpool_t opaque, uint32_t max_us,
                                 struct rm_compact_result *ret_result) {
    struct jf_pool *pool = (struct jf_pool *)opaque;
    if (ret_result != NULL)
        memset(ret_result, 0, sizeof *ret_result);
    if (pool == NULL)
        return RM_COMPACT_DONE;
    uint64_t start = jf_os_clock_ns();
    struct compaction compaction = {.pool = pool};
    begin(pool);
    compaction.result.status = run(&compaction, max_us != 0 ? start + (uint64_t)max_us * 1000 : 0);
    compaction.result.elapsed_us = (uint32_t)((jf_os_clock_ns() - start) / 1000);
    if (ret_result != NULL)
        *ret_result = compaction.result;
    jf_blocks_check(pool->heap, "rmpool_compact");
    return compaction.result.status;
}

/* ------------------------------------------------------------------------------------- scrambling */

/* Moves the element of one slot to any other that is free, and fills what it leaves. */
static void scramble_slot(struct compaction *compaction, struct jf_pool_block *block,
                          uint32_t slot) {
    struct jf_pool *pool = block->pool;
    struct jf_pool_block *target = choose_target(pool, NULL);
    struct move move;
    uint32_t to;
    bool live;
    if (target == NULL)
        target = pool->bins[0];
    if (target == NULL || !mark(block, slot, &move, &live))
        return;
    if (!readers_allow(pool) || !jf_pool_take(target, &to)) {
        unmark(entry_of(pool, move.index));
        return;
    }
    if (move_marked(&move, block, target, to)) {
        jf_mark_fill((void *)jf_pool_element(block, slot), SCRAMBLE_BYTE, pool->element_size);
        jf_pool_give(block, slot);
        if (compaction->moved_count < BATCH)
            note_moved(compaction, &move, jf_pool_element(target, to));
    }
    jf_pool_rebin(target);
    jf_pool_rebin(block);
}

void jf_pool_scramble(struct jf_pool *pool) {
    struct compaction compaction = {.pool = pool};
    struct jf_pool_block *first = NULL;
    jf_os_mutex_lock(&pool->window->mutex);
    pool->visiting++;
    for (unsigned bin = 0; bin <= JF_POOL_BINS; bin++) {
        struct jf_pool_block *block = bin < JF_POOL_BINS ? pool->bins[bin] : pool->full;
        for (; block != NULL; block = block->next) {
            block->visit_next = first;
            first = block;
        }
    }
    for (struct jf_pool_block *block = first; block != NULL; block = block->visit_next)
        for (uint32_t slot = 0, end = block->carved; slot < end; slot++)
            if (!jf_pool_is_taken(block, slot))
                scramble_slot(&compaction, block, slot);
    pool->visiting--;
    jf_os_mutex_unlock(&pool->window->mutex);
    settle(&compaction);
}
