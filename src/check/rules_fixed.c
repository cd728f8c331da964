/* The rules of fixed heaps: accounts, bins of holes, the list of free entries. */
#include "check/rules.h"
#include "heap/fixed.h"

/* ------------------------------------------------------------------------------------- 6 */

bool jf_rule_fixed_live(struct jf_inspection *inspection) {
    const struct jf_fixed *fixed = &inspection->heap->u.fixed_part;
    return (fixed->live == inspection->live && fixed->blocks == inspection->blocks) ||
           jf_rule_broken(inspection, JF_RULE_LIVE_SUM, 0, fixed->start);
}

/* ------------------------------------------------------------------------------------- 10 */

static void add_hole(struct jf_hole_sum *sum, uintptr_t at, size_t stride) {
    sum->bytes += stride;
    sum->hash += jf_walk_hash(at);
}

void jf_rule_note_hole(struct jf_inspection *inspection, const struct jf_step *step) {
    const struct jf_heap *heap = inspection->heap;
    uintptr_t end = step->at + step->stride;
    if (inspection->first_hole == 0)
        inspection->first_hole = step->at;
    if (end == jf_fixed_last(heap))
        inspection->last_hole = step->at;
    add_hole(&inspection->holes[step->at >= heap->u.fixed_part.cursor], step->at, step->stride);
}

/* Whether a hole whose links may be read can be at this address: not where it is. */
static bool may_be_hole(const struct jf_heap *heap, uintptr_t at) {
    return at >= heap->u.fixed_part.start && at < jf_fixed_last(heap) &&
           at % JF_GRAIN == JF_HEADER_SIZE && jf_header_kind(jf_header_load(at)) == JF_KIND_HOLE;
}

static bool check_bin(struct jf_inspection *inspection, unsigned set, unsigned bin,
                      struct jf_hole_sum *sum) {
    const struct jf_heap *heap = inspection->heap;
    const struct jf_fixed *fixed = &heap->u.fixed_part;
    size_t most = (jf_fixed_last(heap) - fixed->start) / JF_GRAIN;
    uint32_t previous = 0;
    uint32_t position = fixed->bins[set][bin];
    if ((position != 0) != ((fixed->mask[set] >> bin & 1) != 0))
        return jf_rule_broken(inspection, JF_RULE_HOLE_BINS, 0, 0);
    for (; position != 0; most--) {
        uintptr_t at = heap->space->base + (uintptr_t)position * JF_GRAIN + JF_HEADER_SIZE;
        if (most == 0 || !may_be_hole(heap, at))
            return jf_rule_broken(inspection, JF_RULE_HOLE_BINS, 0, at);
        jf_word links = jf_mark_load((const jf_word *)at + 1);
        size_t stride = jf_fixed_hole_stride(at);
        bool low = at < fixed->cursor;
        if (stride == 0 || jf_fixed_bin(stride) != bin || (set == fixed->low_set) != low ||
            (uint32_t)(links >> 32) != previous)
            return jf_rule_broken(inspection, JF_RULE_HOLE_BINS, 0, at);
        add_hole(sum, at, stride);
        previous = position;
        position = (uint32_t)links;
    }
    return true;
}

bool jf_rule_hole_bins(struct jf_inspection *inspection) {
    const struct jf_fixed *fixed = &inspection->heap->u.fixed_part;
    for (unsigned set = 0; set < 2; set++) {
        const struct jf_hole_sum *met = &inspection->holes[set != fixed->low_set];
        struct jf_hole_sum linked = {0};
        for (unsigned bin = 0; bin < JF_HOLE_BINS; bin++)
            if (!check_bin(inspection, set, bin, &linked))
                return false;
        if (linked.bytes != met->bytes || linked.hash != met->hash ||
            linked.bytes != fixed->hole_bytes[set])
            return jf_rule_broken(inspection, JF_RULE_HOLE_BINS, 0, 0);
    }
    if (inspection->first_hole != 0 && fixed->lowest > inspection->first_hole)
        return jf_rule_broken(inspection, JF_RULE_HOLE_BINS, 0, fixed->lowest);
    if (!inspection->cursor_met && fixed->cursor != jf_fixed_last(inspection->heap))
        return jf_rule_broken(inspection, JF_RULE_HOLE_BINS, 0, fixed->cursor);
    return fixed->tail == inspection->last_hole ||
           jf_rule_broken(inspection, JF_RULE_HOLE_BINS, 0, fixed->tail);
}

/* ------------------------------------------------------------------------------------- 11 */

/* Free entries that are in no list: retired ones, and those about to be dropped from the table. */
static bool may_be_unlinked(const struct jf_fixed *fixed, uint32_t index, jf_word word) {
    bool retired = index <= fixed->wrapped && (jf_entry_generation(word) & 0xff) == 0;
    return retired || (fixed->trim == JF_TRIM_SIFT && index >= fixed->trim_keep);
}

static bool follow_links(struct jf_inspection *inspection, uint32_t index,
                         struct jf_free_sum *linked) {
    const struct jf_heap *heap = inspection->heap;
    for (uint32_t most = jf_walk_entries(heap); index != 0; most--) {
        const jf_word *entry = jf_walk_entry(heap, index);
        if (entry == NULL || most == 0 || jf_entry_state(jf_word_load(entry)) != JF_ENTRY_FREE)
            return jf_rule_broken(inspection, JF_RULE_ENTRY_FREE, index, 0);
        jf_word word = jf_word_load(entry);
        jf_free_sum_add(linked, index, may_be_unlinked(&heap->u.fixed_part, index, word));
        index = jf_entry_link(word);
    }
    return true;
}

bool jf_rule_fixed_free(struct jf_inspection *inspection) {
    const struct jf_heap *heap = inspection->heap;
    const struct jf_fixed *fixed = &heap->u.fixed_part;
    struct jf_free_sum met = {0}, linked = {0};
    uint32_t end = jf_walk_entries(heap);
    for (uint32_t index = 1; index < end; index++) {
        jf_word word = jf_word_load(jf_space_entry(heap->space, index));
        if (jf_entry_state(word) != JF_ENTRY_FREE)
            continue;
        if (jf_entry_count(word) != 0)
            return jf_rule_broken(inspection, JF_RULE_ENTRY_FREE, index, 0);
        jf_free_sum_add(&met, index, may_be_unlinked(fixed, index, word));
    }
    if (!follow_links(inspection, fixed->free_entries, &linked) ||
        (fixed->trim == JF_TRIM_SIFT && !follow_links(inspection, fixed->trim_list, &linked)))
        return false;
    return (met.hash == linked.hash && met.optional >= linked.optional) ||
           jf_rule_broken(inspection, JF_RULE_ENTRY_FREE, 0, 0);
}

/* ------------------------------------------------------------------------------------- 14 */

bool jf_rule_fixed_used(struct jf_inspection *inspection) {
    const struct jf_heap *heap = inspection->heap;
    uint32_t end = jf_walk_entries(heap);
    uint32_t used = 0;
    for (uint32_t index = 1; index < end; index++)
        used += jf_entry_state(jf_word_load(jf_space_entry(heap->space, index))) != JF_ENTRY_FREE;
    return used == heap->u.fixed_part.used_entries ||
           jf_rule_broken(inspection, JF_RULE_TABLE_PAGE, 0, 0);
}
