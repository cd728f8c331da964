/* The checker: goes through the rules of heap.h until one is broken. */
#include "check/check.h"

#include "check/rules.h"
#include "heap/region.h"

/* Times that a broken rule is looked at again. Another thread between two steps of a resize or of a
 * large allocation leaves, for that moment, a picture that looks broken. */
enum { LOOKS = 16 };

static bool check_step(struct jf_inspection *inspection, const struct jf_part *part,
                       const struct jf_step *step) {
    if (inspection->hold.whole && !jf_rule_entry_back(inspection, step))
        return false;
    if (!jf_rule_alignment(inspection, step))
        return false;
    if (JF_HAS_GROWING && part->region != NULL && !jf_rule_page_map(inspection, part, step))
        return false;
    if (step->hole && part->region == NULL)
        jf_rule_note_hole(inspection, step);
    if (part->region == NULL && step->at == part->heap->u.fixed_part.cursor)
        inspection->cursor_met = true;
    if (JF_HAS_GROWING && part->region != NULL)
        jf_rule_note_waiting(inspection, step);
    if (!step->hole) {
        inspection->part_live += step->stride;
        inspection->part_blocks++;
    }
    return true;
}

static bool check_part(void *context, const struct jf_part *part) {
    struct jf_inspection *inspection = context;
    struct jf_step step;
    inspection->part_live = 0;
    inspection->part_blocks = 0;
    for (uintptr_t at = part->first; at < part->last; at += step.stride)
        if (!jf_rule_header(inspection, part, at, &step) || !check_step(inspection, part, &step))
            return false;
    inspection->live += inspection->part_live;
    inspection->blocks += inspection->part_blocks;
    if (!JF_HAS_GROWING || part->region == NULL)
        return true;
    inspection->committed += jf_region_committed(part->region);
    return !inspection->hold.whole || jf_rule_region_live(inspection, part);
}

static bool check_fixed(struct jf_inspection *inspection) {
    return jf_walk_parts(&inspection->hold, check_part, inspection) &&
           jf_rule_entry_once(inspection) && jf_rule_fixed_live(inspection) &&
           jf_rule_hole_bins(inspection) && jf_rule_fixed_free(inspection) &&
           jf_rule_fixed_used(inspection);
}

/* The lists first: the walk trusts them. Table pages before entries, for the same reason. */
static bool check_grow(struct jf_inspection *inspection) {
    bool whole = inspection->hold.whole;
    if (!jf_rule_list_place(inspection))
        return false;
    if (whole && (!jf_rule_large_entry(inspection) || !jf_rule_table_free(inspection) ||
                  !jf_rule_table_page(inspection)))
        return false;
    if (!jf_walk_parts(&inspection->hold, check_part, inspection))
        return false;
    if (whole && (!jf_rule_entry_once(inspection) || !jf_rule_committed_sum(inspection) ||
                  !jf_rule_pool(inspection) || !jf_rule_bins(inspection)))
        return false;
    return jf_rule_arena(inspection);
}

static bool look(struct jf_heap *heap, struct rm_fault *ret_fault) {
    struct jf_inspection inspection = {.heap = heap};
    jf_hold_begin(&inspection.hold, heap);
    bool sound =
        JF_HAS_GROWING && !heap->fixed ? check_grow(&inspection) : check_fixed(&inspection);
    jf_hold_end(&inspection.hold);
    *ret_fault = inspection.fault;
    return sound;
}

int jf_check(struct jf_heap *heap, struct rm_fault *ret_fault) {
    struct rm_fault fault = {0};
    for (unsigned i = 0; i < LOOKS && !look(heap, &fault); i++)
        jf_os_yield();
    if (ret_fault != NULL)
        *ret_fault = fault;
    return fault.rule;
}
