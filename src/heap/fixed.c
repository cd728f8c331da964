/* A heap inside the caller's buffer: creation, allocation and release, the claim of a block that is to
 * be moved, purging. Resizing is in fixed_resize.c, the table in fixed_table.c, holes in fixed_holes.c. */
#include "heap/fixed.h"

enum { BUFFER_MIN = 4096 };

/* Positions of holes have 32 bits. */
static const uint64_t buffer_max = (uint64_t)UINT32_MAX * JF_GRAIN;

_Static_assert(sizeof(struct jf_heap) <= 1536, "a buffer of 4 KiB holds some 2.5 KiB of blocks");

struct jf_heap *jf_fixed_create(void *buffer, size_t size, const struct jf_options *options,
                                unsigned space_id) {
    uintptr_t begin = jf_bits_round_up((uintptr_t)buffer, JF_GRAIN);
    if (size < BUFFER_MIN)
        return NULL;
    size -= begin - (uintptr_t)buffer;
    if (size > buffer_max)
        size = (size_t)buffer_max;
    uintptr_t end = jf_bits_round_down(begin + size, JF_GRAIN);
    struct jf_heap *heap = (struct jf_heap *)begin;
    memset(heap, 0, sizeof *heap);
    heap->fixed = true;
    if (options != NULL)
        heap->options = *options;
    heap->scramble_state = heap->options.scramble_seed;
    heap->space = &heap->own_space;
    heap->own_space.base = begin;
    heap->own_space.limit = end;
    heap->own_space.id = space_id;
    heap->own_space.descending = true;
    jf_os_mutex_init(&heap->mutex);
    jf_os_mutex_init(&heap->compacting);
    jf_fixed_part(heap)->start =
        jf_bits_round_up(begin + sizeof *heap + JF_HEADER_SIZE, JF_GRAIN) - JF_HEADER_SIZE;
    jf_fixed_table_init(heap, end);
    jf_fixed_one_hole(heap);
    jf_mark_pool_create(heap);
    jf_mark_close(jf_fixed_part(heap)->start, jf_fixed_last(heap) - jf_fixed_part(heap)->start);
    return heap;
}

void jf_fixed_destroy(struct jf_heap *heap) {
    jf_mark_pool_destroy(heap); /* closes what is left in it */
    jf_mark_open((uintptr_t)heap, heap->own_space.limit - (uintptr_t)heap);
    jf_os_mutex_finish(&heap->mutex);
    jf_os_mutex_finish(&heap->compacting);
}

/* --- Writing blocks and entries. */

void jf_fixed_write_block(uintptr_t at, const struct jf_request *request, uint32_t index,
                          unsigned kind) {
    uintptr_t header = at;
    if (request->extended) {
        jf_header_store(at, (jf_word)request->stride | JF_KIND_EXTENDED);
        header = at + JF_EXTENDED_SIZE - JF_HEADER_SIZE;
    }
    jf_header_store(header, jf_header_make(index, request->extended ? 0 : request->stride,
                                           request->slack, request->align_log2, kind));
}

void jf_fixed_publish(struct jf_heap *heap, uint32_t index, uintptr_t payload) {
    jf_word_publish_low(jf_space_entry(heap->space, index),
                        jf_entry_low(payload - heap->space->base, JF_ENTRY_LIVE));
}

void jf_fixed_request_of(const struct jf_step *step, struct jf_request *ret_request) {
    ret_request->stride = step->stride;
    ret_request->slack = jf_header_slack(step->header);
    ret_request->align_log2 = jf_header_align_log2(step->header);
    ret_request->extended = step->payload - step->at != JF_HEADER_SIZE;
}

uintptr_t jf_fixed_place(struct jf_heap *heap, const struct jf_request *request) {
    struct jf_place place;
    if (!jf_fixed_find(heap, request, &place))
        return 0;
    /* What alignment leaves before the block may be of use to a smaller one. */
    if (place.at != place.hole)
        jf_fixed_part(heap)->changed = true;
    return jf_fixed_take(heap, &place, request->stride);
}

bool jf_fixed_new_block(struct jf_heap *heap, uint32_t index, size_t size, unsigned align_log2) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    struct jf_request request;
    if (!jf_fixed_request(size, align_log2, &request))
        return false;
    uintptr_t at = jf_fixed_place(heap, &request);
    if (at == 0)
        return false;
    jf_fixed_write_block(at, &request, index, JF_KIND_BLOCK);
    fixed->blocks++;
    fixed->live += request.stride;
    jf_fixed_publish(heap, index, jf_fixed_payload(at, request.extended));
    return true;
}

uint32_t jf_fixed_allocate(struct jf_heap *heap, size_t size, unsigned align_log2) {
    /* The entry first: the table may grow into the hole that would be chosen. */
    uint32_t index = jf_fixed_entry_pop(heap);
    if (index != 0 && !jf_fixed_new_block(heap, index, size, align_log2)) {
        jf_fixed_entry_push(heap, index);
        return 0;
    }
    return index;
}

void jf_fixed_release_block(struct jf_heap *heap, uintptr_t payload) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    struct jf_step step;
    if (!jf_block_step_of(payload, &step))
        return;
    fixed->blocks--;
    fixed->live -= step.stride;
    if (fixed->blocks == 0)
        jf_fixed_one_hole(heap);
    else
        jf_fixed_free_space(heap, step.at, step.stride);
}

/* --- Claims. */

bool jf_fixed_mark(jf_word *entry) {
    jf_word word = jf_word_load(entry);
    return jf_entry_state(word) == JF_ENTRY_LIVE && jf_entry_count(word) == 0 &&
           jf_word_compare_swap(entry, &word, word | JF_ENTRY_MOVING_BIT);
}

bool jf_fixed_claim_marked(jf_word *entry) {
    jf_word word = jf_word_load(entry);
    return jf_entry_state(word) == JF_ENTRY_MOVING && jf_entry_count(word) == 0 &&
           jf_word_compare_swap(entry, &word, (word & ~JF_ENTRY_STATE_MASK) | JF_ENTRY_RESIZING);
}

void jf_fixed_unmark(jf_word *entry) {
    jf_word word = jf_word_load(entry);
    while (jf_entry_state(word) == JF_ENTRY_MOVING &&
           !jf_word_compare_swap(entry, &word, word & ~JF_ENTRY_MOVING_BIT))
        continue;
}

bool jf_fixed_readers_quiet(struct jf_readers *readers, const struct rm_reader *own) {
    return readers == NULL || jf_readers_quiet(readers, own, false);
}

bool jf_fixed_claim(struct jf_heap *heap, uint32_t index, struct jf_readers *readers,
                    const struct rm_reader *own) {
    jf_word *entry = jf_space_entry(heap->space, index);
    if (!jf_fixed_mark(entry))
        return false;
    if (jf_fixed_readers_quiet(readers, own) && jf_fixed_claim_marked(entry))
        return true;
    jf_fixed_unmark(entry);
    return false;
}

bool jf_fixed_lower(struct jf_heap *heap, uint32_t index, struct jf_readers *readers,
                    const struct rm_reader *own) {
    struct jf_step step;
    struct jf_request request;
    struct jf_place place;
    jf_word *entry = jf_space_entry(heap->space, index);
    if (!jf_fixed_claim(heap, index, readers, own))
        return false;
    uintptr_t before = jf_space_address(heap->space, jf_word_load(entry));
    uintptr_t payload = before;
    if (jf_block_step_of(payload, &step)) {
        jf_fixed_request_of(&step, &request);
        if (jf_fixed_find_lowest(heap, &request, step.at, &place)) {
            uintptr_t at = jf_fixed_take(heap, &place, step.stride);
            jf_mark_copy((void *)at, (const void *)step.at, step.stride);
            payload = jf_fixed_payload(at, request.extended);
            jf_fixed_free_space(heap, step.at, step.stride);
        }
    }
    jf_fixed_publish(heap, index, payload);
    return payload != before;
}

static bool purge(struct jf_heap *heap, const struct jf_step *step, struct jf_readers *readers,
                  const struct rm_reader *own) {
    uint32_t index = jf_header_index(step->header);
    unsigned align_log2 = jf_header_align_log2(step->header);
    if (!jf_fixed_claim(heap, index, readers, own))
        return false;
    struct jf_step now;
    if (!jf_block_step(step->at, &now) ||
        jf_header_kind(now.header) != jf_header_kind(step->header)) {
        /* until the claim the program could take the mark away */
        jf_fixed_publish(heap, index, step->payload);
        return false;
    }
    jf_fixed_release_block(heap, step->payload);
    jf_word_publish_low(
        jf_space_entry(heap->space, index),
        jf_entry_low((uint64_t)(align_log2 - JF_ALIGN_LOG2_MIN) * JF_GRAIN, JF_ENTRY_PURGED));
    return true;
}

bool jf_fixed_purge_one(struct jf_heap *heap, unsigned priority, struct jf_readers *readers,
                        const struct rm_reader *own) {
    struct jf_step step;
    for (uintptr_t at = jf_fixed_part(heap)->start; at < jf_fixed_last(heap); at += step.stride) {
        if (!jf_block_step(at, &step))
            return false;
        if (jf_header_kind(step.header) == JF_KIND_BLOCK + priority &&
            purge(heap, &step, readers, own))
            return true;
    }
    return false;
}
