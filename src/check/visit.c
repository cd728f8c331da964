/* Calls a function for every live block. */
#include "check/check.h"

#include "check/walk.h"

struct visiting {
    rm_visit_fn *visit;
    void *context;
    int result;
};

static bool visit_block(struct visiting *visiting, const struct jf_heap *heap, jf_word word,
                        uint32_t index, struct rm_block_info *info) {
    info->handle = jf_handle_make(heap->space, index, jf_entry_generation(word));
    info->address = (const void *)jf_space_address(heap->space, word);
    info->locks = jf_entry_count(word);
    visiting->result = visiting->visit(visiting->context, info);
    return visiting->result == 0;
}

static bool visit_part(void *context, const struct jf_part *part) {
    struct visiting *visiting = context;
    struct jf_step step;
    for (uintptr_t at = part->first; at < part->last; at += step.stride) {
        if (jf_walk_step(part, at, &step) != JF_WALK_STEP)
            return true;
        uint32_t index = jf_header_index(step.header);
        const jf_word *entry = step.hole ? NULL : jf_walk_entry(part->heap, index);
        jf_word word = entry != NULL ? jf_word_load(entry) : 0;
        if (!jf_walk_is_live(part->heap, &step, word))
            continue;
        struct rm_block_info info = {
            .size = jf_step_size(&step),
            .alignment = 1u << jf_header_align_log2(step.header),
            .priority = jf_header_priority(step.header),
        };
        if (!visit_block(visiting, part->heap, word, index, &info))
            return false;
    }
    return true;
}

static bool visit_large(struct visiting *visiting, const struct jf_heap *heap) {
    for (const struct jf_large *large = heap->u.grow.large; large != NULL; large = large->next) {
        const jf_word *entry = jf_walk_entry(heap, jf_large_index(large));
        jf_word word = entry != NULL ? jf_word_load(entry) : 0;
        if (!jf_walk_has_memory(word) || jf_entry_state(word) == JF_ENTRY_PENDING)
            continue;
        struct rm_block_info info = {
            .size = large->size,
            .alignment = 1u << large->align_log2,
            .priority = jf_large_priority(large),
            .large = 1,
        };
        if (!visit_block(visiting, heap, word, jf_large_index(large), &info))
            return false;
    }
    return true;
}

int jf_visit(struct jf_heap *heap, rm_visit_fn *visit, void *context) {
    struct visiting visiting = {.visit = visit, .context = context};
    struct jf_hold hold;
    jf_hold_begin(&hold, heap);
    if (jf_walk_parts(&hold, visit_part, &visiting) && !heap->fixed)
        visit_large(&visiting, heap);
    jf_hold_end(&hold);
    return visiting.result;
}
