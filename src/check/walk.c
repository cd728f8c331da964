/* Walks a heap that is held still. Every step is measured against the part's bounds before it is taken, so
 * that a broken chain ends the walk and not the process.
 */
#include "check/walk.h"

#include "heap/region.h"

static struct jf_local *local_in(struct jf_local *local, const struct jf_region *region) {
    return local != NULL && local->region == region ? local : NULL;
}

/* What bumps into an OWNED region; NULL: nothing, or something that must not be looked at. */
static struct jf_local *find_local(const struct jf_hold *hold, const struct jf_region *region) {
    struct jf_heap *heap = hold->heap;
    for (struct jf_thread *thread = hold->window->threads; thread != NULL; thread = thread->next) {
        if (!jf_hold_has_thread(hold, thread))
            continue;
        for (unsigned i = 0; i < JF_LOCALS; i++)
            if (local_in(jf_thread_local(thread, heap, i), region) != NULL)
                return jf_thread_local(thread, heap, i);
    }
    return local_in(&heap->u.grow.long_local, region);
}

static bool walk_region(const struct jf_hold *hold, struct jf_region *region, jf_part_fn *visit,
                        void *context) {
    struct jf_part part = {
        .heap = hold->heap,
        .region = region,
        .first = jf_region_first(region),
        .last = jf_region_last(region),
    };
    if (region->state == JF_REGION_OWNED) {
        struct jf_local *local = find_local(hold, region);
        if (local == NULL && !hold->whole)
            return true;
        /* what is left of the hole has no header until somebody wants to walk over it */
        if (local != NULL)
            jf_local_make_walkable(local);
        part.local = local;
    }
    return visit(context, &part);
}

static bool walk_list(const struct jf_hold *hold, struct jf_region *region, jf_part_fn *visit,
                      void *context) {
    for (; region != NULL; region = region->next)
        if (!walk_region(hold, region, visit, context))
            return false;
    return true;
}

bool jf_walk_parts(const struct jf_hold *hold, jf_part_fn *visit, void *context) {
    struct jf_heap *heap = hold->heap;
    if (!JF_HAS_GROWING || heap->fixed) {
        struct jf_part part = {
            .heap = heap,
            .first = heap->u.fixed_part.start,
            .last = jf_fixed_last(heap),
        };
        return visit(context, &part);
    }
    const struct jf_grow *grow = &heap->u.grow;
    for (unsigned bin = 0; bin <= JF_REGION_BINS; bin++)
        if (!walk_list(hold, grow->bins[bin], visit, context))
            return false;
    return walk_list(hold, grow->settled, visit, context) &&
           walk_list(hold, grow->stuck[0], visit, context) &&
           walk_list(hold, grow->stuck[1], visit, context) &&
           walk_list(hold, grow->owned, visit, context);
}

static bool is_kind(unsigned kind) {
    return kind == JF_KIND_HOLE || kind == JF_KIND_DEAD || kind == JF_KIND_EXTENDED ||
           (kind & JF_KIND_BLOCK) != 0;
}

enum jf_walk jf_walk_step(const struct jf_part *part, uintptr_t at, struct jf_step *ret_step) {
    if (!is_kind(jf_header_kind(jf_header_load(at))))
        return JF_WALK_NO_HEADER;
    if (!jf_block_step(at, ret_step) || ret_step->stride > part->last - at)
        return JF_WALK_BROKEN;
    size_t before_payload = ret_step->payload - at;
    bool fits =
        ret_step->hole || ret_step->stride >= before_payload + jf_header_slack(ret_step->header);
    return fits ? JF_WALK_STEP : JF_WALK_BROKEN;
}

uint32_t jf_walk_entries(const struct jf_heap *heap) {
    if (!JF_HAS_GROWING || heap->fixed)
        return (uint32_t)jf_space_entries(heap->space);
    return (uint32_t)(heap->u.grow.window->table.pages_used << JF_TABLE_PAGE_SHIFT);
}

const jf_word *jf_walk_entry(const struct jf_heap *heap, uint32_t index) {
    return index != 0 && index < jf_walk_entries(heap) ? jf_space_entry(heap->space, index) : NULL;
}
