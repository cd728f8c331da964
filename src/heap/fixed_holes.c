/* Holes of a fixed heap: two sets of doubly linked bins by powers of two, one for the holes below the
 * compaction cursor and one for the others. Search, split and join. */
#include "heap/fixed.h"

enum {
    TRIES = 8,         /* holes looked at per bin before a larger bin is tried */
    TRIES_LOWEST = 64, /* holes looked at for a low place */
};

_Static_assert(JF_GRAIN == 2 * sizeof(jf_word), "the smallest hole has room for its links");

bool jf_fixed_request(size_t size, unsigned align_log2, struct jf_request *ret_request) {
    if (size > (SIZE_MAX >> 1) - JF_EXTENDED_SIZE - JF_GRAIN)
        return false;
    size_t stride;
    size_t prefix = JF_HEADER_SIZE;
    if (!jf_block_stride(size, &stride))
        return false;
    if (stride > JF_STRIDE_FIELD_MAX) {
        prefix = JF_EXTENDED_SIZE;
        stride = jf_bits_round_up(size + prefix, JF_GRAIN);
    }
    ret_request->extended = prefix == JF_EXTENDED_SIZE;
    ret_request->stride = stride;
    ret_request->slack = (unsigned)(stride - prefix - size);
    ret_request->align_log2 = align_log2;
    return true;
}

/* --- Links: the second word of a hole, next in the low half and previous in the high one. */

static uint32_t position_of(const struct jf_heap *heap, uintptr_t at) {
    return (uint32_t)((at - heap->space->base) / JF_GRAIN);
}

static uintptr_t address_of(const struct jf_heap *heap, uint32_t position) {
    return heap->space->base + (uintptr_t)position * JF_GRAIN + JF_HEADER_SIZE;
}

static uint32_t link_next(uintptr_t at) {
    return (uint32_t)jf_mark_load((const jf_word *)at + 1);
}

static uint32_t link_previous(uintptr_t at) {
    return (uint32_t)(jf_mark_load((const jf_word *)at + 1) >> 32);
}

static void link_set(uintptr_t at, uint32_t next, uint32_t previous) {
    jf_mark_store((jf_word *)at + 1, (jf_word)previous << 32 | next);
}

/* Which set a hole at this address belongs to. */
static unsigned set_of(const struct jf_fixed *fixed, uintptr_t at) {
    return at < fixed->cursor ? fixed->low_set : fixed->low_set ^ 1;
}

bool jf_fixed_is_hole(const struct jf_heap *heap, uintptr_t at) {
    return at < jf_fixed_last(heap) && jf_header_kind(jf_header_load(at)) == JF_KIND_HOLE;
}

size_t jf_fixed_hole_stride(uintptr_t at) {
    size_t stride = jf_header_stride(jf_header_load(at));
    return stride != 0 ? stride : (size_t)jf_mark_load((const jf_word *)at + 2);
}

void jf_fixed_hole_insert(struct jf_heap *heap, uintptr_t at, size_t stride) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    unsigned set = set_of(fixed, at);
    unsigned bin = jf_fixed_bin(stride);
    bool wide = stride > JF_STRIDE_FIELD_MAX;
    jf_header_store(at, jf_header_hole(wide ? 0 : stride));
    if (wide)
        jf_mark_store((jf_word *)at + 2, stride);
    uint32_t first = fixed->bins[set][bin];
    if (first != 0)
        link_set(address_of(heap, first), link_next(address_of(heap, first)),
                 position_of(heap, at));
    link_set(at, first, 0);
    fixed->bins[set][bin] = position_of(heap, at);
    fixed->mask[set] |= 1u << bin;
    fixed->hole_bytes[set] += stride;
    if (at < fixed->lowest)
        fixed->lowest = at;
    if (fixed->sliding && at < fixed->cursor && at < fixed->lowest_next)
        fixed->lowest_next = at;
    if (at + stride == jf_fixed_last(heap))
        fixed->tail = at;
}

void jf_fixed_hole_prefetch(const struct jf_heap *heap, uintptr_t at) {
    __builtin_prefetch((const void *)address_of(heap, link_next(at)), 1);
    __builtin_prefetch((const void *)address_of(heap, link_previous(at)), 1);
}

void jf_fixed_hole_remove(struct jf_heap *heap, uintptr_t at, size_t stride) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    unsigned set = set_of(fixed, at);
    unsigned bin = jf_fixed_bin(stride);
    uint32_t next = link_next(at);
    uint32_t previous = link_previous(at);
    if (next != 0)
        link_set(address_of(heap, next), link_next(address_of(heap, next)), previous);
    if (previous != 0)
        link_set(address_of(heap, previous), next, link_previous(address_of(heap, previous)));
    else
        fixed->bins[set][bin] = next;
    if (fixed->bins[set][bin] == 0)
        fixed->mask[set] &= ~(1u << bin);
    fixed->hole_bytes[set] -= stride;
    if (fixed->tail == at)
        fixed->tail = 0;
    if (fixed->recent == at)
        fixed->recent = 0;
}

size_t jf_fixed_absorb(struct jf_heap *heap, uintptr_t at, size_t stride, uintptr_t end) {
    while (at + stride < end && jf_fixed_is_hole(heap, at + stride)) {
        size_t more = jf_fixed_hole_stride(at + stride);
        jf_fixed_hole_remove(heap, at + stride, more);
        stride += more;
    }
    return stride;
}

void jf_fixed_headers_gone(struct jf_heap *heap, uintptr_t from, uintptr_t to, uintptr_t instead) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    if (fixed->cursor > from && fixed->cursor < to)
        fixed->cursor = instead;
    if (fixed->lowest > from && fixed->lowest < to)
        fixed->lowest = instead;
    if (fixed->lowest_next > from && fixed->lowest_next < to)
        fixed->lowest_next = instead;
}

void jf_fixed_free_space(struct jf_heap *heap, uintptr_t at, size_t stride) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    if (fixed->recent != 0) {
        uintptr_t recent = fixed->recent;
        size_t before = jf_fixed_hole_stride(recent);
        if (recent + before == at) {
            jf_fixed_hole_remove(heap, recent, before);
            at = recent;
            stride += before;
        }
    }
    stride = jf_fixed_absorb(heap, at, stride, jf_fixed_last(heap));
    jf_fixed_headers_gone(heap, at, at + stride, at);
    if (!fixed->sliding || at < fixed->cursor)
        fixed->changed = true;
    jf_fixed_hole_insert(heap, at, stride);
    fixed->recent = at;
}

/* --- Search. */

static bool fits(const struct jf_request *request, uintptr_t hole, size_t stride,
                 struct jf_place *ret_place) {
    uintptr_t at = jf_fixed_align(hole, request->align_log2, request->extended);
    size_t pad = at - hole;
    ret_place->hole = hole;
    ret_place->hole_stride = stride;
    ret_place->at = at;
    return pad <= stride && stride - pad >= request->stride;
}

/* Joins a hole with those behind it. *next is a position in a walk along the bin: kept valid. */
static size_t join_behind(struct jf_heap *heap, uintptr_t at, uint32_t *next) {
    size_t own = jf_fixed_hole_stride(at);
    size_t stride = own;
    while (jf_fixed_is_hole(heap, at + stride)) {
        uintptr_t behind = at + stride;
        size_t more = jf_fixed_hole_stride(behind);
        if (*next == position_of(heap, behind))
            *next = link_next(behind);
        jf_fixed_hole_remove(heap, behind, more);
        stride += more;
    }
    if (stride != own) {
        jf_fixed_hole_remove(heap, at, own);
        jf_fixed_headers_gone(heap, at, at + stride, at);
        jf_fixed_hole_insert(heap, at, stride);
    }
    return stride;
}

/* Looks at up to `tries` holes of each bin that may do, smallest first. A hole of a bin above the
 * request's own fits at once unless alignment gets in the way. */
static bool search_set(struct jf_heap *heap, unsigned set, const struct jf_request *request,
                       uint32_t tries, bool join, struct jf_place *ret_place) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    for (unsigned bin = jf_fixed_bin(request->stride); bin < JF_HOLE_BINS; bin++) {
        if (fixed->mask[set] >> bin == 0)
            return false;
        bin += jf_bits_lowest(fixed->mask[set] >> bin);
        uint32_t position = fixed->bins[set][bin];
        for (uint32_t i = 0; position != 0 && i < tries; i++) {
            uintptr_t at = address_of(heap, position);
            position = link_next(at);
            size_t stride = join ? join_behind(heap, at, &position) : jf_fixed_hole_stride(at);
            if (fits(request, at, stride, ret_place))
                return true;
        }
    }
    return false;
}

bool jf_fixed_find(struct jf_heap *heap, const struct jf_request *request,
                   struct jf_place *ret_place) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    for (int pass = 0; pass < 2; pass++) {
        uint32_t tries = pass == 0 ? TRIES : UINT32_MAX;
        if (search_set(heap, fixed->low_set, request, tries, true, ret_place) ||
            search_set(heap, fixed->low_set ^ 1, request, tries, true, ret_place))
            return true;
    }
    return false;
}

uintptr_t jf_fixed_take(struct jf_heap *heap, const struct jf_place *place, size_t stride) {
    size_t pad = place->at - place->hole;
    size_t rest = place->hole_stride - pad - stride;
    struct jf_fixed *fixed = jf_fixed_part(heap);
    jf_fixed_hole_remove(heap, place->hole, place->hole_stride);
    if (pad != 0)
        jf_fixed_hole_insert(heap, place->hole, pad);
    else if (place->hole == fixed->lowest)
        fixed->lowest = place->at + stride;
    if (rest != 0)
        jf_fixed_hole_insert(heap, place->at + stride, rest);
    return place->at;
}

uintptr_t jf_fixed_place_below(struct jf_heap *heap, const struct jf_request *request) {
    struct jf_place place;
    if (!search_set(heap, jf_fixed_part(heap)->low_set, request, TRIES, false, &place))
        return 0;
    return jf_fixed_take(heap, &place, request->stride);
}

bool jf_fixed_find_lowest(struct jf_heap *heap, const struct jf_request *request, uintptr_t below,
                          struct jf_place *ret_place) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    bool found = false;
    uint32_t tries = TRIES_LOWEST;
    for (unsigned i = 0; i < 2 * JF_HOLE_BINS && tries > 0; i++) {
        unsigned bin = i / 2;
        if (bin < jf_fixed_bin(request->stride))
            continue;
        uint32_t position = fixed->bins[fixed->low_set ^ (i & 1)][bin];
        for (; position != 0 && tries > 0; tries--) {
            uintptr_t at = address_of(heap, position);
            struct jf_place place;
            position = link_next(at);
            if (fits(request, at, jf_fixed_hole_stride(at), &place) &&
                place.at + request->stride <= below && (!found || place.at < ret_place->at)) {
                *ret_place = place;
                found = true;
            }
        }
    }
    return found;
}

void jf_fixed_one_hole(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    memset(fixed->bins, 0, sizeof fixed->bins);
    fixed->mask[0] = fixed->mask[1] = 0;
    fixed->hole_bytes[0] = fixed->hole_bytes[1] = 0;
    fixed->cursor = fixed->lowest = fixed->lowest_next = fixed->start;
    fixed->tail = fixed->recent = 0;
    fixed->changed = fixed->sliding = fixed->retry = false;
    fixed->witness_count = 0;
    fixed->pinned = fixed->too_large = 0;
    if (fixed->start < jf_fixed_last(heap))
        jf_fixed_hole_insert(heap, fixed->start, jf_fixed_last(heap) - fixed->start);
}

size_t jf_fixed_largest_free(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    bool carve = fixed->free_entries == 0 && fixed->trim != JF_TRIM_SIFT;
    size_t largest = 0;
    if (carve && jf_fixed_tail_stride(heap) <= JF_GRAIN)
        return 0;
    for (unsigned set = 0; set < 2; set++) {
        uint32_t position = fixed->mask[set] ? fixed->bins[set][jf_bits_log2(fixed->mask[set])] : 0;
        while (position != 0) {
            uintptr_t at = address_of(heap, position);
            size_t stride = jf_fixed_hole_stride(at);
            if (carve && at == fixed->tail)
                stride -= JF_GRAIN;
            if (stride > largest)
                largest = stride;
            position = link_next(at);
        }
    }
    if (largest <= JF_HEADER_SIZE)
        return 0;
    if (largest <= JF_STRIDE_FIELD_MAX)
        return largest - JF_HEADER_SIZE;
    size_t extended = largest - JF_EXTENDED_SIZE;
    size_t plain = JF_STRIDE_FIELD_MAX - JF_HEADER_SIZE;
    return extended > plain ? extended : plain;
}
