/* Reading block headers: one step of a walk along a chain, and the way back from a payload. */
#include "base/mark.h"
#include "heap/heap.h"

/* A hole too large for the field keeps its stride in its third word. */
static size_t hole_stride(uintptr_t at, jf_word header) {
    size_t stride = jf_header_stride(header);
    return stride != 0 ? stride : (size_t)jf_mark_load((const jf_word *)at + 2);
}

bool jf_block_step(uintptr_t at, struct jf_step *ret_step) {
    jf_word header = jf_header_load(at);
    unsigned kind = jf_header_kind(header);
    ret_step->at = at;
    ret_step->header = header;
    ret_step->payload = at + JF_HEADER_SIZE;
    ret_step->hole = kind == JF_KIND_HOLE || kind == JF_KIND_DEAD;
    if (kind == JF_KIND_HOLE) {
        ret_step->stride = hole_stride(at, header);
    } else if (kind == JF_KIND_EXTENDED) {
        ret_step->stride = (size_t)(header & ~(jf_word)(JF_GRAIN - 1));
        ret_step->payload = at + JF_EXTENDED_SIZE;
        ret_step->header = jf_header_load(ret_step->payload - JF_HEADER_SIZE);
        if (!jf_header_is_block(ret_step->header) || jf_header_stride(ret_step->header) != 0)
            return false;
    } else if (kind == JF_KIND_DEAD || jf_header_is_block(header)) {
        ret_step->stride = jf_header_stride(header);
    } else {
        return false;
    }
    return ret_step->stride != 0 && ret_step->stride % JF_GRAIN == 0;
}

bool jf_block_step_of(uintptr_t payload, struct jf_step *ret_step) {
    jf_word header = jf_header_load(payload - JF_HEADER_SIZE);
    if (!jf_header_is_block(header))
        return false;
    bool extended = jf_header_stride(header) == 0;
    return jf_block_step(payload - (extended ? JF_EXTENDED_SIZE : JF_HEADER_SIZE), ret_step) &&
           ret_step->payload == payload;
}
