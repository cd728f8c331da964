/* The rules that both profiles live by: headers, and entries and blocks that name each other. */
#include "check/rules.h"

static const struct {
    const char *name;
    const char *text;
} rules[JF_RULES] = {
    [JF_RULE_HEADER_CHAIN] = {"header-chain",
                              "strides lead from header to header and exactly to the end"},
    [JF_RULE_HEADER_KIND] = {"header-kind", "a header is a hole, a dead block or a block"},
    [JF_RULE_ENTRY_BACK] = {"entry-back", "a block's entry is in use and points back to the block"},
    [JF_RULE_ENTRY_ONCE] = {"entry-once",
                            "an entry in use points to a block that no other points to"},
    [JF_RULE_ALIGNMENT] = {"alignment", "a payload is aligned as its header says"},
    [JF_RULE_LIVE_SUM] = {"live-sum", "the account of live blocks equals what lies there"},
    [JF_RULE_PAGE_MAP] = {"page-map",
                          "a page with a header or a block is marked as holding memory"},
    [JF_RULE_COMMITTED_SUM] = {"committed-sum",
                               "the heap's committed bytes are those of its parts"},
    [JF_RULE_LIST_PLACE] = {"list-place", "a region is once in the list of its state and density"},
    [JF_RULE_HOLE_BINS] = {"hole-bins", "every hole is once in the bin of its size and place"},
    [JF_RULE_ENTRY_FREE] = {"entry-free", "a free entry is linked once and has no locks"},
    [JF_RULE_LARGE_ENTRY] = {"large-entry", "a large block and its entry name each other"},
    [JF_RULE_ARENA] = {"arena", "the arena's own rules hold"},
    [JF_RULE_POOL] = {"pool", "a pool's blocks count their elements rightly"},
    [JF_RULE_BINS] = {"bins",
                      "a freed block waits once: in a bin or a batch of its stride, or in a ring"},
    [JF_RULE_TABLE_PAGE] = {"table-page", "a table page counts its used entries rightly"},
};

bool jf_rule_broken(struct jf_inspection *inspection, enum jf_rule rule, uint32_t index,
                    uintptr_t address) {
    const struct jf_heap *heap = inspection->heap;
    const jf_word *entry = jf_walk_entry(heap, index);
    inspection->fault = (struct rm_fault){
        .rule = (int)rule,
        .name = rules[rule].name,
        .text = rules[rule].text,
        .address = (const void *)address,
    };
    if (entry != NULL)
        inspection->fault.handle =
            jf_handle_make(heap->space, index, jf_entry_generation(jf_word_load(entry)));
    return false;
}

/* ------------------------------------------------------------------------------------- 1, 2 */

bool jf_rule_header(struct jf_inspection *inspection, const struct jf_part *part, uintptr_t at,
                    struct jf_step *ret_step) {
    switch (jf_walk_step(part, at, ret_step)) {
    case JF_WALK_STEP:
        return true;
    case JF_WALK_NO_HEADER:
        return jf_rule_broken(inspection, JF_RULE_HEADER_KIND, 0, at);
    default:
        return jf_rule_broken(inspection, JF_RULE_HEADER_CHAIN, 0, at);
    }
}

/* ------------------------------------------------------------------------------------- 3 */

bool jf_rule_entry_back(struct jf_inspection *inspection, const struct jf_step *step) {
    if (step->hole)
        return true;
    uint32_t index = jf_header_index(step->header);
    const jf_word *entry = jf_walk_entry(inspection->heap, index);
    if (entry == NULL)
        return jf_rule_broken(inspection, JF_RULE_ENTRY_BACK, 0, step->payload);
    jf_word word = jf_word_load(entry);
    if (!jf_walk_has_memory(word) ||
        jf_space_address(inspection->heap->space, word) != step->payload)
        return jf_rule_broken(inspection, JF_RULE_ENTRY_BACK, index, step->payload);
    inspection->blocks_hash += jf_walk_hash(step->payload);
    return true;
}

/* ------------------------------------------------------------------------------------- 4 */

enum naming {
    NAMED,     /* the block at the address names the entry */
    NOT_NAMED, /* it does not, or there is none */
    ELSEWHERE, /* not of this heap, or with no header */
};

static bool header_names(uintptr_t payload, uint32_t index) {
    struct jf_step step;
    return jf_block_step_of(payload, &step) && jf_header_index(step.header) == index;
}

static enum naming look_in_fixed(const struct jf_heap *heap, uintptr_t payload, uint32_t index) {
    const struct jf_fixed *fixed = &heap->u.fixed_part;
    if (payload % JF_GRAIN != 0 || payload < fixed->start + JF_HEADER_SIZE ||
        payload > jf_fixed_last(heap))
        return NOT_NAMED;
    bool extended = jf_header_stride(jf_header_load(payload - JF_HEADER_SIZE)) == 0;
    if (extended && payload < fixed->start + JF_EXTENDED_SIZE)
        return NOT_NAMED;
    return header_names(payload, index) ? NAMED : NOT_NAMED;
}

static enum naming look_in_window(const struct jf_heap *heap, uintptr_t payload, uint32_t index) {
    struct jf_chunk chunk = jf_arena_find(heap->u.grow.window->arena, payload);
    if (chunk.kind == JF_CHUNK_LARGE) {
        const struct jf_large *large = chunk.owner;
        bool named =
            large->heap != heap || (large->address == payload && jf_large_index(large) == index);
        return named ? ELSEWHERE : NOT_NAMED;
    }
    if (chunk.kind == JF_CHUNK_POOL) {
        const struct jf_pool_ops *ops = jf_window_pool_ops(heap->u.grow.window);
        return ops->names(chunk.owner, payload, index) ? ELSEWHERE : NOT_NAMED;
    }
    if (chunk.kind != JF_CHUNK_REGION)
        return NOT_NAMED;
    const struct jf_region *region = chunk.owner;
    if (region->heap != heap)
        return ELSEWHERE;
    if (payload < jf_region_first(region) + JF_HEADER_SIZE || payload > jf_region_last(region))
        return NOT_NAMED;
    bool ordinary = jf_header_stride(jf_header_load(payload - JF_HEADER_SIZE)) != 0;
    return ordinary && header_names(payload, index) ? NAMED : NOT_NAMED;
}

/* Beside the look at each entry: the blocks that entries point to are, all together, the blocks that
 * the walk has met, so no entry points to something in between that only looks like its block. */
bool jf_rule_entry_once(struct jf_inspection *inspection) {
    const struct jf_heap *heap = inspection->heap;
    uint32_t end = jf_walk_entries(heap);
    uint64_t hash = 0;
    for (uint32_t index = 1; index < end; index++) {
        jf_word word = jf_word_load(jf_space_entry(heap->space, index));
        if (!jf_walk_has_memory(word))
            continue;
        uintptr_t payload = jf_space_address(heap->space, word);
        enum naming naming = JF_HAS_GROWING && !heap->fixed ? look_in_window(heap, payload, index)
                                                            : look_in_fixed(heap, payload, index);
        /* a large block that was just freed has given its chunk back before its entry */
        bool passing = !heap->fixed && jf_entry_state(word) == JF_ENTRY_PENDING;
        if (naming == NAMED)
            hash += jf_walk_hash(payload);
        else if (naming == NOT_NAMED && !passing)
            return jf_rule_broken(inspection, JF_RULE_ENTRY_ONCE, index, payload);
    }
    return hash == inspection->blocks_hash || jf_rule_broken(inspection, JF_RULE_ENTRY_ONCE, 0, 0);
}

/* ------------------------------------------------------------------------------------- 5 */

bool jf_rule_alignment(struct jf_inspection *inspection, const struct jf_step *step) {
    if (step->hole)
        return true;
    uintptr_t alignment = (uintptr_t)1 << jf_header_align_log2(step->header);
    if ((step->payload & (alignment - 1)) == 0)
        return true;
    return jf_rule_broken(inspection, JF_RULE_ALIGNMENT, jf_header_index(step->header),
                          step->payload);
}
