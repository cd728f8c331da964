/* The handle table of a fixed heap: entries carved from the hole at the end of the chain, a free list,
 * and the way back: unused entries at the table's end are dropped after a slide, their generations kept
 * as the floor for those carved later. */
#include "heap/fixed.h"

enum {
    TRIM_MIN = 16,     /* unused entries at the end that are worth dropping */
    TRIM_FRACTION = 8, /* they are at least this part of the free list */
    TRIM_SLICE = 64,   /* entries looked at when an allocation has to hurry it */
};

/* Entries the table may have: a header's index has 32 bits, a 32-bit handle's 20, less one. And the
 * bits of the generation that a handle has. */
#if UINTPTR_MAX == UINT64_MAX
#define ENTRIES_MAX ((size_t)UINT32_MAX - 2)
#define GENERATIONS JF_GENERATION_MAX
#else
#define ENTRIES_MAX ((size_t)0xffffe)
#define GENERATIONS 0xff
#endif

/* An entry this many generations ahead of the floor is not dropped: entries carved later start from the
 * highest generation dropped, so the generations between are lost to all of them. */
#define AHEAD_MAX (GENERATIONS / 16)

_Static_assert(JF_GRAIN == 2 * sizeof(jf_word), "entries are carved in pairs");

/* Other threads look at the bound while they check handles. */
static void set_table(struct jf_heap *heap, uintptr_t table) {
    __atomic_store_n(&heap->space->table, table, __ATOMIC_RELEASE);
}

static jf_word fresh_word(const struct jf_fixed *fixed, uint32_t next) {
    return (jf_word)fixed->floor << 40 | jf_entry_low_free(next);
}

void jf_fixed_table_init(struct jf_heap *heap, uintptr_t end) {
    heap->space->table_end = end;
    set_table(heap, end - sizeof(jf_word));
    jf_word_store(jf_space_entry(heap->space, 0), 0);
    jf_fixed_part(heap)->entries_peak = 1;
}

static bool carve(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    size_t entries = jf_space_entries(heap->space);
    uintptr_t tail = fixed->tail;
    size_t stride = jf_fixed_tail_stride(heap);
    /* Something of the hole stays: nobody could tell whether another one lies before it. */
    if (stride <= JF_GRAIN || entries + 2 > ENTRIES_MAX)
        return false;
    jf_fixed_hole_remove(heap, tail, stride);
    jf_mark_open(heap->space->table - JF_GRAIN, JF_GRAIN);
    uint32_t first = (uint32_t)entries;
    jf_word_store((jf_word *)heap->space->table - 1, fresh_word(fixed, first + 1));
    jf_word_store((jf_word *)heap->space->table - 2, fresh_word(fixed, fixed->free_entries));
    set_table(heap, heap->space->table - JF_GRAIN);
    if (fixed->cursor > heap->space->table)
        fixed->cursor = heap->space->table;
    fixed->free_entries = first;
    jf_fixed_hole_insert(heap, tail, stride - JF_GRAIN);
    if (first + 2 > fixed->entries_peak)
        __atomic_store_n(&fixed->entries_peak, first + 2, __ATOMIC_RELAXED);
    return true;
}

static uint32_t next_odd(uint32_t value) {
    return value | 1;
}

uint32_t jf_fixed_entry_pop(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    while (fixed->free_entries == 0 && fixed->trim == JF_TRIM_SIFT)
        jf_fixed_trim(heap, TRIM_SLICE);
    if (fixed->free_entries == 0 && !carve(heap))
        return 0;
    uint32_t index = fixed->free_entries;
    fixed->free_entries = jf_entry_link(jf_word_load(jf_space_entry(heap->space, index)));
    fixed->used_entries++;
    if (fixed->trim == JF_TRIM_SCAN && index >= fixed->trim_keep)
        fixed->trim_keep = next_odd(index + 1);
    return index;
}

static void link_free(struct jf_heap *heap, uint32_t index) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    jf_word_publish_low(jf_space_entry(heap->space, index), jf_entry_low_free(fixed->free_entries));
    fixed->free_entries = index;
}

void jf_fixed_entry_push(struct jf_heap *heap, uint32_t index) {
    jf_fixed_part(heap)->used_entries--;
    link_free(heap, index);
}

/* --- Dropping entries. */

/* How many generations the entry is ahead of those carved now. They count round. */
static unsigned ahead(const struct jf_fixed *fixed, jf_word word) {
    return (jf_entry_generation(word) - fixed->floor) & GENERATIONS;
}

static bool may_be_dropped(const struct jf_fixed *fixed, jf_word word) {
    return jf_entry_state(word) == JF_ENTRY_FREE && jf_entry_count(word) == 0 &&
           ahead(fixed, word) <= AHEAD_MAX;
}

/* The entries from trim_keep on become a hole. */
static void drop(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    uintptr_t at = heap->space->table;
    uintptr_t table = heap->space->table_end - fixed->trim_keep * sizeof(jf_word);
    fixed->trim = JF_TRIM_NONE;
    if (table <= at)
        return;
    size_t stride = table - at;
    jf_mark_close(at, stride);
    if (fixed->tail != 0) {
        uintptr_t tail = fixed->tail;
        size_t before = jf_fixed_hole_stride(tail);
        jf_fixed_hole_remove(heap, tail, before);
        at = tail;
        stride += before;
    }
    set_table(heap, table);
    /* The cursor may have been at the end of the chain. */
    jf_fixed_headers_gone(heap, at, table, at);
    jf_fixed_hole_insert(heap, at, stride);
}

/* Takes the next entry of the list that is gone through. */
static void sift_one(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    uint32_t index = fixed->trim_list;
    jf_word word = jf_word_load(jf_space_entry(heap->space, index));
    fixed->trim_list = jf_entry_link(word);
    if (index < fixed->trim_keep)
        link_free(heap, index);
    else if (ahead(fixed, word) <= AHEAD_MAX)
        fixed->floor = jf_entry_generation(word) & GENERATIONS;
}

static void scan_done(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    uint32_t entries = (uint32_t)jf_space_entries(heap->space);
    fixed->trim_keep = next_odd(fixed->trim_keep);
    uint32_t unused = entries - fixed->trim_keep;
    bool all = fixed->used_entries == 0 && unused != 0;
    if (!all && (unused < TRIM_MIN || unused < (entries - fixed->used_entries) / TRIM_FRACTION)) {
        fixed->trim = JF_TRIM_NONE;
        return;
    }
    fixed->trim = JF_TRIM_SIFT;
    fixed->trim_list = fixed->free_entries;
    fixed->free_entries = 0;
}

void jf_fixed_trim_start(struct jf_heap *heap) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    /* Who never wants to see a generation again cannot do with a common floor. */
    if (fixed->trim == JF_TRIM_SIFT || heap->options.retire)
        return;
    fixed->trim = JF_TRIM_SCAN;
    fixed->trim_keep = (uint32_t)jf_space_entries(heap->space);
}

bool jf_fixed_trim(struct jf_heap *heap, unsigned count) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    for (; count > 0 && fixed->trim == JF_TRIM_SCAN; count--) {
        uint32_t last = fixed->trim_keep - 1;
        if (last > 0 && may_be_dropped(fixed, jf_word_load(jf_space_entry(heap->space, last))))
            fixed->trim_keep = last;
        else
            scan_done(heap);
    }
    for (; count > 0 && fixed->trim == JF_TRIM_SIFT; count--) {
        if (fixed->trim_list != 0)
            sift_one(heap);
        else
            drop(heap);
    }
    return fixed->trim != JF_TRIM_NONE;
}

/* No entry is in use: drops all that may be. */
static void trim_all(struct jf_heap *heap) {
    while (jf_fixed_trim(heap, UINT32_MAX))
        continue;
    jf_fixed_trim_start(heap);
    while (jf_fixed_trim(heap, UINT32_MAX))
        continue;
}

void jf_fixed_release_entry(struct jf_heap *heap, uint32_t index) {
    struct jf_fixed *fixed = jf_fixed_part(heap);
    jf_word *entry = jf_space_entry(heap->space, index);
    fixed->used_entries--;
    if (heap->options.retire && (jf_entry_generation(jf_word_load(entry)) & GENERATIONS) == 0) {
        jf_word_publish_low(entry, jf_entry_low_free(0));
        fixed->wrapped = index > fixed->wrapped ? index : fixed->wrapped;
    } else {
        link_free(heap, index);
    }
    if (fixed->used_entries == 0)
        trim_all(heap);
}
