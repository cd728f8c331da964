/* Resizing a block of a fixed heap: shrink or grow in place, else copy to another place. */
#include "heap/fixed.h"

/* The block's new stride and slack, its shape (extended or not) kept; false when that cannot be. */
static bool request_in_place(const struct jf_request *old, size_t size,
                             struct jf_request *ret_request) {
    if (!jf_fixed_request(size, old->align_log2, ret_request))
        return false;
    if (ret_request->extended == old->extended)
        return true;
    if (ret_request->extended)
        return false;
    ret_request->extended = true;
    ret_request->stride = jf_bits_round_up(size + JF_EXTENDED_SIZE, JF_GRAIN);
    ret_request->slack = (unsigned)(ret_request->stride - JF_EXTENDED_SIZE - size);
    return true;
}

static bool resize_in_place(struct jf_heap *heap, const struct jf_step *step,
                            const struct jf_request *request) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    uintptr_t end = step->at + request->stride;
    size_t room = step->stride;
    if (request->stride > room) {
        for (uintptr_t behind = step->at + room; jf_fixed_is_hole(heap, behind) && behind < end;
             behind = step->at + room)
            room += jf_fixed_hole_stride(behind);
        if (room < request->stride)
            return false;
        jf_fixed_absorb(heap, step->at, step->stride, end);
        jf_fixed_headers_gone(heap, step->at, end, end);
    }
    jf_fixed_write_block(step->at, request, jf_header_index(step->header),
                         jf_header_kind(step->header));
    fixed->live += request->stride;
    fixed->live -= step->stride;
    if (room != request->stride)
        jf_fixed_free_space(heap, end, room - request->stride);
    return true;
}

static bool resize_elsewhere(struct jf_heap *heap, uint32_t index, const struct jf_step *step,
                             size_t size) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    struct jf_request request;
    if (!jf_fixed_request(size, jf_header_align_log2(step->header), &request))
        return false;
    uintptr_t at = jf_fixed_place(heap, &request);
    if (at == 0)
        return false;
    uintptr_t payload = jf_fixed_payload(at, request.extended);
    size_t old_size = jf_step_size(step);
    jf_fixed_write_block(at, &request, index, jf_header_kind(step->header));
    jf_mark_copy((void *)payload, (const void *)step->payload, old_size < size ? old_size : size);
    fixed->live += request.stride;
    fixed->live -= step->stride;
    jf_fixed_free_space(heap, step->at, step->stride);
    jf_fixed_publish(heap, index, payload);
    return true;
}

bool jf_fixed_resize(struct jf_heap *heap, uint32_t index, size_t size, bool in_place) {
    uint64_t offset = jf_entry_offset(jf_word_load(jf_space_entry(heap->space, index)));
    struct jf_step step;
    struct jf_request old, request;
    /* A purged block has nothing but its entry, whose address bits keep the alignment. No block lies
     * that low: the heap's own struct does. */
    if (offset < sizeof(struct jf_heap))
        return jf_fixed_new_block(heap, index, size,
                                  (unsigned)(offset / JF_GRAIN) + JF_ALIGN_LOG2_MIN);
    uintptr_t payload = heap->space->base + (uintptr_t)offset;
    if (!jf_block_step_of(payload, &step))
        return false;
    jf_fixed_request_of(&step, &old);
    if (request_in_place(&old, size, &request) && resize_in_place(heap, &step, &request)) {
        jf_fixed_publish(heap, index, payload);
        return true;
    }
    return !in_place && resize_elsewhere(heap, index, &step, size);
}
