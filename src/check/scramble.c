/* Moves every block that may be moved, so that whoever kept a pointer after unlock finds JF_SCRAMBLE_BYTE.
 * Blocks are gone through by entry, in steps that are coprime to their number, so the order is another
 * for every seed and costs no memory.
 */
#include "check/check.h"

#include "check/walk.h"
#include "heap/fixed.h"

enum { BATCH = 64 }; /* blocks moved between two calls of the callback */

/* Blocks moved in a batch, for the callback. */
struct moved {
    unsigned count;
    struct {
        rmhandle_t handle;
        uintptr_t address;
        size_t size;
    } items[BATCH];
};

struct scrambling {
    struct jf_heap *heap;
    struct jf_readers *readers;
    const struct rm_reader *own_reader;
    uint32_t entries; /* gone through: as many as there were at the start */
    uint32_t next, stride;
    uint32_t left;
    struct moved moved;
};

static uint64_t draw(struct jf_heap *heap) {
    heap->scramble_state += 0x9e3779b97f4a7c15u;
    return jf_walk_hash(heap->scramble_state);
}

static uint32_t common_divisor(uint32_t a, uint32_t b) {
    while (b != 0) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static uint32_t count_entries(struct jf_heap *heap) {
    jf_mutex *mutex = &heap->mutex;
    if (JF_HAS_GROWING && !heap->fixed)
        mutex = &heap->u.grow.window->mutex;
    jf_os_mutex_lock(mutex);
    uint32_t entries = jf_walk_entries(heap);
    jf_os_mutex_unlock(mutex);
    return entries;
}

static void choose_order(struct scrambling *scrambling) {
    struct jf_heap *heap = scrambling->heap;
    uint32_t entries = count_entries(heap);
    scrambling->entries = scrambling->left = entries;
    if (entries == 0)
        return;
    scrambling->next = (uint32_t)(draw(heap) % entries);
    scrambling->stride = (uint32_t)(draw(heap) % entries) | 1;
    while (common_divisor(entries, scrambling->stride) != 1)
        scrambling->stride += 2;
}

static uint32_t next_index(struct scrambling *scrambling) {
    uint32_t index = scrambling->next;
    scrambling->next = (uint32_t)(((uint64_t)index + scrambling->stride) % scrambling->entries);
    scrambling->left--;
    return index;
}

static void add_moved(struct scrambling *scrambling, uint32_t index, uintptr_t address,
                      size_t size) {
    const struct jf_space *space = scrambling->heap->space;
    struct moved *moved = &scrambling->moved;
    jf_word word = jf_word_load(jf_space_entry(space, index));
    moved->items[moved->count].handle = jf_handle_make(space, index, jf_entry_generation(word));
    moved->items[moved->count].address = address;
    moved->items[moved->count].size = size;
    moved->count++;
}

/* No lock held. */
static void report_moved(struct scrambling *scrambling) {
    const struct jf_options *options = &scrambling->heap->options;
    struct moved *moved = &scrambling->moved;
    for (unsigned i = 0; options->moved != NULL && i < moved->count; i++)
        options->moved(options->context, moved->items[i].handle, (void *)moved->items[i].address,
                       moved->items[i].size);
    moved->count = 0;
}

/* ------------------------------------------------------------------------------------- fixed */

/* Up into the hole behind it, for a block that fits into no other: its own old bytes are overwritten. */
static uintptr_t shift_up(struct jf_heap *heap, const struct jf_step *step,
                          const struct jf_request *request) {
    uintptr_t behind = step->at + step->stride;
    if (!jf_fixed_is_hole(heap, behind))
        return 0;
    uintptr_t end = behind + jf_fixed_hole_stride(behind);
    uintptr_t payload = jf_bits_round_down(end - step->stride + (step->payload - step->at),
                                           (uintptr_t)1 << request->align_log2);
    uintptr_t at = payload - (step->payload - step->at);
    if (at <= step->at)
        return 0;
    jf_fixed_hole_remove(heap, behind, end - behind);
    jf_fixed_headers_gone(heap, step->at, end, step->at);
    jf_mark_move((void *)at, (const void *)step->at, step->stride);
    size_t vacated = at - step->at;
    jf_mark_fill((void *)step->at, JF_SCRAMBLE_BYTE,
                 vacated < step->stride ? vacated : step->stride);
    jf_fixed_free_space(heap, step->at, vacated);
    if (at + step->stride < end)
        jf_fixed_free_space(heap, at + step->stride, end - at - step->stride);
    return at;
}

static uintptr_t move_elsewhere(struct jf_heap *heap, const struct jf_step *step,
                                const struct jf_request *request) {
    struct jf_place place;
    if (!jf_fixed_find(heap, request, &place))
        return 0;
    uintptr_t at = jf_fixed_take(heap, &place, step->stride);
    jf_mark_copy((void *)at, (const void *)step->at, step->stride);
    jf_mark_fill((void *)step->at, JF_SCRAMBLE_BYTE, step->stride);
    jf_fixed_free_space(heap, step->at, step->stride);
    return at;
}

static void scramble_fixed_one(struct scrambling *scrambling, uint32_t index) {
    struct jf_heap *heap = scrambling->heap;
    struct jf_step step;
    struct jf_request request;
    if (jf_walk_entry(heap, index) == NULL ||
        !jf_fixed_claim(heap, index, scrambling->readers, scrambling->own_reader))
        return;
    uintptr_t payload =
        jf_space_address(heap->space, jf_word_load(jf_space_entry(heap->space, index)));
    uintptr_t at = 0;
    if (jf_block_step_of(payload, &step)) {
        jf_fixed_request_of(&step, &request);
        at = move_elsewhere(heap, &step, &request);
        if (at == 0)
            at = shift_up(heap, &step, &request);
    }
    if (at != 0)
        payload = jf_fixed_payload(at, request.extended);
    jf_fixed_publish(heap, index, payload);
    if (at != 0)
        add_moved(scrambling, index, payload, jf_step_size(&step));
}

static void scramble_fixed(struct scrambling *scrambling) {
    struct jf_heap *heap = scrambling->heap;
    while (scrambling->left > 0) {
        jf_os_mutex_lock(&heap->mutex);
        while (scrambling->left > 0 && scrambling->moved.count < BATCH)
            scramble_fixed_one(scrambling, next_index(scrambling));
        jf_os_mutex_unlock(&heap->mutex);
        report_moved(scrambling);
    }
}

/* ------------------------------------------------------------------------------------- growing */

/* A block is moved by trading places with one made for that and freed afterwards; so all accounts stay
 * right, and the move can be given up until its end as any other (docs: design/protocol). */
struct trade {
    uint32_t index; /* of the block that is moved */
    jf_word word;   /* its entry, marked MOVING */
    struct jf_large *large;
    size_t size;
    unsigned align_log2;
    unsigned priority;
    rmhandle_t partner;
    uint32_t partner_index;
};

/* Elements of pools have entries too, but places only among their own kind. */
static bool is_block_of(const struct jf_heap *heap, uintptr_t payload) {
    struct jf_chunk chunk = jf_arena_find(heap->u.grow.window->arena, payload);
    if (chunk.kind == JF_CHUNK_REGION)
        return ((const struct jf_region *)chunk.owner)->heap == heap;
    return chunk.kind == JF_CHUNK_LARGE && ((const struct jf_large *)chunk.owner)->heap == heap;
}

/* Whether the entry is that of an unlocked block of the heap; marks it. The region of a live block is
 * not freed, but that of a block that another thread frees or moves meanwhile may be; then the mark
 * fails, for the word has changed. */
static bool mark_one(struct scrambling *scrambling, uint32_t index, struct trade *ret_trade) {
    struct jf_heap *heap = scrambling->heap;
    jf_word *entry = jf_space_entry(heap->space, index);
    jf_word word = jf_word_load(entry);
    if (jf_entry_state(word) != JF_ENTRY_LIVE || jf_entry_count(word) != 0 ||
        !is_block_of(heap, jf_space_address(heap->space, word)))
        return false;
    ret_trade->index = index;
    ret_trade->word = word | JF_ENTRY_MOVING_BIT;
    return jf_word_compare_swap(entry, &word, ret_trade->word);
}

static void unmark(struct jf_heap *heap, uint32_t index) {
    jf_word *entry = jf_space_entry(heap->space, index);
    jf_word word = jf_word_load(entry);
    while (jf_entry_state(word) == JF_ENTRY_MOVING &&
           !jf_word_compare_swap(entry, &word, word & ~JF_ENTRY_MOVING_BIT))
        continue;
}

static jf_word *header_before(uintptr_t payload) {
    return (jf_word *)(payload - JF_HEADER_SIZE);
}

/* Has the header or the descriptor at the payload name another entry. */
static void rename_block(struct jf_heap *heap, struct jf_large *large, uintptr_t payload,
                         uint32_t index, unsigned priority) {
    if (large != NULL) {
        struct jf_window *window = heap->u.grow.window;
        jf_os_mutex_lock(&window->mutex);
        jf_large_name(large, index, priority);
        jf_os_mutex_unlock(&window->mutex);
        return;
    }
    jf_word header = jf_mark_load(header_before(payload));
    header = (header & UINT32_MAX) | (jf_word)index << 32;
    jf_mark_store(header_before(payload), jf_header_with_kind(header, JF_KIND_BLOCK | priority));
}

static void free_partner(struct jf_heap *heap, const struct trade *trade) {
    jf_word word;
    if (jf_access_free(heap->space, trade->partner_index, trade->partner, &word) == JF_ACCESS_OK)
        jf_grow_freed(heap->u.grow.window, trade->partner_index, word);
}

/* Moves the marked block to the partner's place; the partner gets its old one. */
static void trade_places(struct scrambling *scrambling, const struct trade *trade, uintptr_t from,
                         uintptr_t to, struct jf_large *to_large) {
    struct jf_heap *heap = scrambling->heap;
    const struct jf_space *space = heap->space;
    jf_mark_copy((void *)to, (const void *)from, trade->size);
    rename_block(heap, to_large, to, trade->index, trade->priority);
    jf_word expected = trade->word;
    jf_word moved = (expected & ~(JF_ENTRY_ADDRESS_MASK | JF_ENTRY_STATE_MASK)) |
                    jf_entry_low(to - space->base, JF_ENTRY_LIVE);
    if (!jf_word_compare_swap(jf_space_entry(space, trade->index), &expected, moved)) {
        rename_block(heap, to_large, to, trade->partner_index, 0);
        return;
    }
    rename_block(heap, trade->large, from, trade->partner_index, 0);
    jf_word_publish_low(jf_space_entry(space, trade->partner_index),
                        jf_entry_low(from - space->base, JF_ENTRY_LIVE));
    jf_mark_fill((void *)from, JF_SCRAMBLE_BYTE, trade->size);
    add_moved(scrambling, trade->index, to, trade->size);
}

/* What was a large block a moment ago has none, and the memory before it need not be accessible. */
static bool has_header(const struct jf_heap *heap, uintptr_t payload) {
    struct jf_chunk chunk = jf_arena_find(heap->u.grow.window->arena, payload);
    return chunk.kind == JF_CHUNK_REGION && payload != chunk.address;
}

/* What kind of block the marked one is. False when another thread has taken it meanwhile: what was read
 * is then perhaps no header any more. */
static bool describe(const struct jf_heap *heap, struct trade *trade, uintptr_t from) {
    trade->large = jf_grow_large_at(heap->u.grow.window, from);
    if (trade->large != NULL) {
        trade->size = trade->large->size;
        trade->align_log2 = trade->large->align_log2;
        trade->priority = jf_large_priority(trade->large);
    } else if (!has_header(heap, from)) {
        return false;
    } else {
        jf_word header = jf_mark_load(header_before(from));
        trade->size = jf_header_stride(header) - JF_HEADER_SIZE - jf_header_slack(header);
        trade->align_log2 = jf_header_align_log2(header);
        trade->priority = jf_header_priority(header);
    }
    jf_fence_acquire();
    return jf_word_load(jf_space_entry(heap->space, trade->index)) == trade->word;
}

static void scramble_one(struct scrambling *scrambling, struct trade *trade) {
    struct jf_heap *heap = scrambling->heap;
    uintptr_t from = jf_space_address(heap->space, trade->word);
    if (!describe(heap, trade, from))
        return;
    trade->partner = jf_grow_malloc(heap, trade->size, trade->align_log2, false);
    if (trade->partner == NULL)
        return;
    trade->partner_index = jf_handle_index(heap->space, trade->partner);
    uintptr_t to = jf_space_address(
        heap->space, jf_word_load(jf_space_entry(heap->space, trade->partner_index)));
    struct jf_large *to_large = jf_grow_large_at(heap->u.grow.window, to);
    if ((to_large != NULL) == (trade->large != NULL))
        trade_places(scrambling, trade, from, to, to_large);
    free_partner(heap, trade);
}

/* The next blocks that may be moved, marked; how many. */
static unsigned mark_batch(struct scrambling *scrambling, struct trade *trades) {
    unsigned count = 0;
    while (scrambling->left > 0 && count < BATCH) {
        uint32_t index = next_index(scrambling);
        if (index != 0 && mark_one(scrambling, index, &trades[count]))
            count++;
    }
    return count;
}

static void scramble_growing(struct scrambling *scrambling) {
    struct jf_heap *heap = scrambling->heap;
    while (scrambling->left > 0) {
        struct trade trades[BATCH];
        /* who has it moves blocks, for as long as it likes: no allocation waits for that */
        if (!jf_os_mutex_trylock(&heap->compacting))
            return;
        unsigned count = mark_batch(scrambling, trades);
        bool quiet = jf_readers_quiet(scrambling->readers, scrambling->own_reader,
                                      heap->u.grow.window->fence_all);
        for (unsigned i = 0; i < count; i++) {
            if (quiet)
                scramble_one(scrambling, &trades[i]);
            unmark(heap, trades[i].index);
        }
        jf_os_mutex_unlock(&heap->compacting);
        report_moved(scrambling);
    }
}

/* ------------------------------------------------------------------------------------- */

void jf_scramble(struct jf_heap *heap, struct jf_readers *readers,
                 const struct rm_reader *own_reader) {
    struct scrambling scrambling = {.heap = heap, .readers = readers, .own_reader = own_reader};
    choose_order(&scrambling);
    if (!JF_HAS_GROWING || heap->fixed)
        scramble_fixed(&scrambling);
    else
        scramble_growing(&scrambling);
}
