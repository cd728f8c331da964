/* The rules of growing heaps: regions and their lists, large blocks, table pages, the arena. */
#include "check/rules.h"
#include "heap/region.h"

static struct jf_window *window_of(const struct jf_inspection *inspection) {
    return inspection->heap->u.grow.window;
}

/* ------------------------------------------------------------------------------------- 6 */

bool jf_rule_region_live(struct jf_inspection *inspection, const struct jf_part *part) {
    jf_word live = jf_word_load(&part->region->live);
    size_t bytes = inspection->part_live;
    uint32_t blocks = inspection->part_blocks;
    if (part->local != NULL) {
        bytes += part->local->limit - part->local->bump;
        blocks -= part->local->blocks;
    }
    return ((uint32_t)live == bytes && (uint32_t)(live >> 32) == blocks) ||
           jf_rule_broken(inspection, JF_RULE_LIVE_SUM, 0, part->region->start);
}

/* ------------------------------------------------------------------------------------- 7 */

static bool page_marked(const struct jf_region *region, uintptr_t address) {
    unsigned page = (unsigned)((address - region->start) >> JF_PAGE_SHIFT);
    return (region->pages[page / 64] >> (page % 64) & 1) != 0;
}

bool jf_rule_page_map(struct jf_inspection *inspection, const struct jf_part *part,
                      const struct jf_step *step) {
    if (!page_marked(part->region, step->at))
        return jf_rule_broken(inspection, JF_RULE_PAGE_MAP, 0, step->at);
    if (step->hole)
        return true;
    uintptr_t page = jf_bits_round_down(step->at, JF_PAGE_SIZE) + JF_PAGE_SIZE;
    for (; page < step->at + step->stride; page += JF_PAGE_SIZE)
        if (!page_marked(part->region, page))
            return jf_rule_broken(inspection, JF_RULE_PAGE_MAP, jf_header_index(step->header),
                                  page);
    return true;
}

/* ------------------------------------------------------------------------------------- 8 */

bool jf_rule_committed_sum(struct jf_inspection *inspection) {
    const struct jf_grow *grow = &inspection->heap->u.grow;
    size_t sum = inspection->committed + (size_t)jf_word_load(&grow->pool_bytes);
    for (const struct jf_large *large = grow->large; large != NULL; large = large->next)
        sum += large->committed;
    return jf_word_load(&grow->committed) == sum ||
           jf_rule_broken(inspection, JF_RULE_COMMITTED_SUM, 0, 0);
}

/* ------------------------------------------------------------------------------------- 9 */

/* Whether the pointer leads to a descriptor: it lies where they do, and its chunk is its own. */
static bool is_region(const struct jf_inspection *inspection, const struct jf_region *region) {
    if ((uintptr_t)region % _Alignof(struct jf_region) != 0)
        return false;
    struct jf_chunk chunk = jf_arena_find(window_of(inspection)->arena, region->start);
    return chunk.kind == JF_CHUNK_REGION && chunk.owner == region &&
           chunk.address == region->start && region->heap == inspection->heap &&
           region->end == region->start + JF_REGION_SIZE;
}

/* `bin`: of LISTED ones by density, of STUCK ones which of the two lists. */
static bool in_right_list(const struct jf_region *region, enum jf_region_state state,
                          unsigned bin) {
    if (state == JF_REGION_OWNED)
        return region->state == JF_REGION_OWNED || region->state == JF_REGION_HELD;
    if (region->state != state || (state != JF_REGION_SETTLED && region->bin != bin))
        return false;
    bool crossed = __atomic_load_n(&region->crossed, __ATOMIC_ACQUIRE) != 0;
    return state != JF_REGION_LISTED || crossed ||
           bin == jf_region_bin(jf_region_live_bytes(region));
}

/* Adds the list's length to *count. A circle would fail at its start, whose `previous` is another. */
static bool check_list(struct jf_inspection *inspection, const struct jf_region *first,
                       enum jf_region_state state, unsigned bin, size_t *count) {
    const struct jf_grow *grow = &inspection->heap->u.grow;
    const struct jf_region *previous = NULL;
    for (const struct jf_region *region = first; region != NULL; region = region->next) {
        if (!is_region(inspection, region))
            return jf_rule_broken(inspection, JF_RULE_LIST_PLACE, 0, (uintptr_t)region);
        if (region->previous != previous || !in_right_list(region, state, bin))
            return jf_rule_broken(inspection, JF_RULE_LIST_PLACE, 0, region->start);
        previous = region;
        (*count)++;
    }
    return state != JF_REGION_LISTED || grow->bin_ends[bin] == previous ||
           jf_rule_broken(inspection, JF_RULE_LIST_PLACE, 0, 0);
}

bool jf_rule_list_place(struct jf_inspection *inspection) {
    const struct jf_grow *grow = &inspection->heap->u.grow;
    size_t count = 0;
    for (unsigned bin = 0; bin <= JF_REGION_BINS; bin++) {
        if (!check_list(inspection, grow->bins[bin], JF_REGION_LISTED, bin, &count))
            return false;
        if ((grow->bin_mask >> bin & 1) != (grow->bins[bin] != NULL))
            return jf_rule_broken(inspection, JF_RULE_LIST_PLACE, 0, 0);
    }
    return check_list(inspection, grow->settled, JF_REGION_SETTLED, 0, &count) &&
           check_list(inspection, grow->stuck[0], JF_REGION_STUCK, 0, &count) &&
           check_list(inspection, grow->stuck[1], JF_REGION_STUCK, 1, &count) &&
           check_list(inspection, grow->owned, JF_REGION_OWNED, 0, &count) &&
           (count == grow->region_count || jf_rule_broken(inspection, JF_RULE_LIST_PLACE, 0, 0));
}

/* ------------------------------------------------------------------------------------- 11 */

/* An entry that was retired is FREE and in no list. Which ones were, no word says; it can only be one
 * whose generation has come round, in a page that has retired some. */
static bool may_be_retired(const struct jf_inspection *inspection, uint32_t index, jf_word word) {
    const struct jf_table *table = &window_of(inspection)->table;
    return jf_entry_generation(word) == 0 && jf_table_page_of(table, index)->retired != 0;
}

static void count_free(const struct jf_inspection *inspection, uint32_t index, jf_word word,
                       struct jf_free_sum *sum) {
    jf_free_sum_add(sum, index, may_be_retired(inspection, index, word));
}

/* Follows a list of at most `most` entries. */
static bool follow_links(struct jf_inspection *inspection, uint32_t index, size_t most,
                         struct jf_free_sum *linked) {
    for (; index != 0; most--) {
        const jf_word *entry = jf_walk_entry(inspection->heap, index);
        if (entry == NULL || most == 0 || jf_entry_state(jf_word_load(entry)) != JF_ENTRY_FREE)
            return jf_rule_broken(inspection, JF_RULE_ENTRY_FREE, index, 0);
        count_free(inspection, index, jf_word_load(entry), linked);
        index = jf_entry_link(jf_word_load(entry));
    }
    return true;
}

/* The page's entries that say FREE. */
static bool count_page(struct jf_inspection *inspection, const struct jf_table_page *page,
                       struct jf_free_sum *met) {
    uint32_t first = jf_table_page_first(&window_of(inspection)->table, page);
    if (page->carved > JF_TABLE_PAGE_ENTRIES)
        return jf_rule_broken(inspection, JF_RULE_TABLE_PAGE, 0, (uintptr_t)page);
    for (uint32_t index = first + (first == 0); index < first + page->carved; index++) {
        jf_word word = jf_word_load(jf_space_entry(inspection->heap->space, index));
        if (jf_entry_state(word) != JF_ENTRY_FREE)
            continue;
        if (jf_entry_count(word) != 0)
            return jf_rule_broken(inspection, JF_RULE_ENTRY_FREE, index, 0);
        count_free(inspection, index, word, met);
    }
    return true;
}

bool jf_rule_table_free(struct jf_inspection *inspection) {
    const struct jf_window *window = window_of(inspection);
    struct jf_free_sum met = {0}, linked = {0};
    size_t retired = 0;
    for (size_t i = 0; i < window->table.pages_used; i++) {
        const struct jf_table_page *page = &window->table.pages[i];
        if (!count_page(inspection, page, &met) ||
            !follow_links(inspection, page->free, page->carved, &linked))
            return false;
        retired += page->retired;
    }
    for (const struct jf_thread *thread = window->threads; thread != NULL; thread = thread->next)
        if (!follow_links(inspection, (uint32_t)jf_word_load(&thread->entries.remote),
                          jf_walk_entries(inspection->heap), &linked))
            return false;
    return (met.hash == linked.hash && met.optional == linked.optional + retired) ||
           jf_rule_broken(inspection, JF_RULE_ENTRY_FREE, 0, 0);
}

/* ------------------------------------------------------------------------------------- 12 */

static bool is_large(const struct jf_inspection *inspection, const struct jf_large *large) {
    if ((uintptr_t)large % _Alignof(struct jf_large) != 0)
        return false;
    struct jf_chunk chunk = jf_arena_find(window_of(inspection)->arena, large->address);
    return chunk.kind == JF_CHUNK_LARGE && chunk.owner == large &&
           chunk.address == large->address && chunk.order == large->order &&
           large->heap == inspection->heap && large->size <= large->committed &&
           large->committed <= JF_UNIT_SIZE << large->order;
}

/* One that is just being made has no entry yet, of one that is just being freed it is PENDING. */
static bool entry_names(const struct jf_inspection *inspection, const struct jf_large *large) {
    if (jf_large_index(large) == 0)
        return true;
    const jf_word *entry = jf_walk_entry(inspection->heap, jf_large_index(large));
    if (entry == NULL)
        return false;
    jf_word word = jf_word_load(entry);
    return jf_walk_has_memory(word) &&
           jf_space_address(inspection->heap->space, word) == large->address;
}

bool jf_rule_large_entry(struct jf_inspection *inspection) {
    const struct jf_grow *grow = &inspection->heap->u.grow;
    const struct jf_large *previous = NULL;
    size_t count = 0;
    for (const struct jf_large *large = grow->large; large != NULL; large = large->next) {
        if (!is_large(inspection, large) || large->previous != previous)
            return jf_rule_broken(inspection, JF_RULE_LARGE_ENTRY, 0, (uintptr_t)large);
        if (!entry_names(inspection, large))
            return jf_rule_broken(inspection, JF_RULE_LARGE_ENTRY, jf_large_index(large),
                                  large->address);
        if ((large->address & (((uintptr_t)1 << large->align_log2) - 1)) != 0)
            return jf_rule_broken(inspection, JF_RULE_ALIGNMENT, jf_large_index(large),
                                  large->address);
        previous = large;
        count++;
    }
    return count == grow->large_count || jf_rule_broken(inspection, JF_RULE_LARGE_ENTRY, 0, 0);
}

/* ------------------------------------------------------------------------------------- 13 */

bool jf_rule_arena(struct jf_inspection *inspection) {
    const char *text = jf_arena_check(window_of(inspection)->arena);
    if (text == NULL)
        return true;
    jf_rule_broken(inspection, JF_RULE_ARENA, 0, 0);
    inspection->fault.text = text;
    return false;
}

/* ------------------------------------------------------------------------------------- 14 */

bool jf_rule_table_page(struct jf_inspection *inspection) {
    const struct jf_table *table = &window_of(inspection)->table;
    for (size_t i = 0; i < table->pages_used; i++) {
        const struct jf_table_page *page = &table->pages[i];
        size_t linked = 0;
        for (uint32_t index = page->free; index != 0; linked++) {
            if (jf_table_page_of(table, index) != page)
                return jf_rule_broken(inspection, JF_RULE_TABLE_PAGE, index, (uintptr_t)page);
            index = jf_entry_link(jf_word_load(jf_space_entry(table->space, index)));
        }
        if (page->used != page->carved - linked)
            return jf_rule_broken(inspection, JF_RULE_TABLE_PAGE, 0, (uintptr_t)page);
    }
    return true;
}

/* ------------------------------------------------------------------------------------- 15 */

bool jf_rule_pool(struct jf_inspection *inspection) {
    const struct jf_pool_ops *ops = jf_window_pool_ops(window_of(inspection));
    const char *text = ops != NULL ? ops->check(inspection->heap) : NULL;
    if (text == NULL)
        return true;
    jf_rule_broken(inspection, JF_RULE_POOL, 0, 0);
    inspection->fault.text = text;
    return false;
}

/* ------------------------------------------------------------------------------------- 16 */

void jf_rule_note_waiting(struct jf_inspection *inspection, const struct jf_step *step) {
    uint32_t index = jf_header_index(step->header);
    const jf_word *entry = step->hole ? NULL : jf_walk_entry(inspection->heap, index);
    if (entry != NULL && jf_entry_state(jf_word_load(entry)) == JF_ENTRY_PENDING)
        inspection->waiting_hash += jf_walk_hash(index);
}

/* The header of the block that the entry names, if it is one of this heap that was freed; else 0. */
static jf_word waiting_header(const struct jf_inspection *inspection, uint32_t index) {
    const struct jf_heap *heap = inspection->heap;
    const jf_word *entry = jf_walk_entry(heap, index);
    jf_word word = entry != NULL ? jf_word_load(entry) : 0;
    uintptr_t payload = jf_space_address(heap->space, word);
    struct jf_chunk chunk = jf_arena_find(window_of(inspection)->arena, payload);
    if (jf_entry_state(word) != JF_ENTRY_PENDING || chunk.kind != JF_CHUNK_REGION ||
        payload - chunk.address < JF_GRAIN || ((struct jf_region *)chunk.owner)->heap != heap)
        return 0;
    return jf_header_load(payload - JF_HEADER_SIZE);
}

/* Blocks that are said to wait and to have this bin's stride; adds them to *hash. */
static bool check_waiting(struct jf_inspection *inspection, const uint32_t *indexes, unsigned count,
                          unsigned bin, uint64_t *hash) {
    for (unsigned i = 0; i < count; i++) {
        jf_word header = waiting_header(inspection, indexes[i]);
        if (jf_header_index(header) != indexes[i] ||
            jf_header_stride(header) != (size_t)bin * JF_GRAIN)
            return jf_rule_broken(inspection, JF_RULE_BINS, indexes[i], (uintptr_t)&indexes[i]);
        *hash += jf_walk_hash(indexes[i]);
    }
    return true;
}

static bool check_bins(struct jf_inspection *inspection, struct jf_bins *bins, uint64_t *hash) {
    for (unsigned bin = 0; bin < JF_BINS; bin++) {
        const uint32_t *each = jf_bins_at(bins, bin);
        bool noted = (bins->filled[bin / 64] >> bin % 64 & 1) != 0;
        if (*each > jf_bins_room[bin] || (*each != 0 && !noted))
            return jf_rule_broken(inspection, JF_RULE_BINS, 0, (uintptr_t)each);
        if (!check_waiting(inspection, each + 1, *each, bin, hash))
            return false;
    }
    return true;
}

/* The block at the thread's hand, if it is one of this heap. */
static bool check_kept(struct jf_inspection *inspection, const struct jf_thread *thread,
                       uint64_t *hash) {
    if (thread->kept_bin == JF_KEPT_NONE)
        return true;
    uint32_t index = jf_space_index(inspection->heap->space, thread->last_entry);
    jf_word header = waiting_header(inspection, index);
    if (header == 0 && !inspection->heap->is_default)
        return true;
    return check_waiting(inspection, &index, 1, (unsigned)thread->kept_bin, hash);
}

static bool check_depot_part(struct jf_inspection *inspection, const struct jf_depot_part *part,
                             uint64_t *hash) {
    size_t bytes = 0, blocks = 0;
    for (unsigned bin = 0; bin < JF_BINS_SMALL; bin++)
        for (const struct jf_batch *batch = part->first[bin]; batch != NULL; batch = batch->next) {
            if (batch->count > JF_BATCH_ROOM)
                return jf_rule_broken(inspection, JF_RULE_BINS, 0, (uintptr_t)batch);
            if (!check_waiting(inspection, batch->index, batch->count, bin, hash))
                return false;
            blocks += batch->count;
            bytes += (size_t)batch->count * bin * JF_GRAIN;
        }
    return (part->bytes == bytes && part->blocks == blocks) ||
           jf_rule_broken(inspection, JF_RULE_BINS, 0, (uintptr_t)part);
}

static bool check_depot(struct jf_inspection *inspection, uint64_t *hash) {
    for (unsigned i = 0; i < JF_DEPOT_PARTS; i++)
        if (!check_depot_part(inspection, &inspection->heap->u.grow.depot->part[i], hash))
            return false;
    return true;
}

bool jf_rule_bins(struct jf_inspection *inspection) {
    uint64_t hash = 0;
    const struct jf_thread *thread = window_of(inspection)->threads;
    for (; thread != NULL; thread = thread->next) {
        for (uint32_t i = 0; i < thread->ring_count; i++)
            if (jf_header_index(waiting_header(inspection, thread->ring[i])) == thread->ring[i])
                hash += jf_walk_hash(thread->ring[i]);
        if (!check_kept(inspection, thread, &hash))
            return false;
        struct jf_share *share = jf_thread_share(thread, inspection->heap);
        if (share != NULL && !check_bins(inspection, &share->bins, &hash))
            return false;
    }
    if (!check_depot(inspection, &hash))
        return false;
    return hash == inspection->waiting_hash || jf_rule_broken(inspection, JF_RULE_BINS, 0, 0);
}
