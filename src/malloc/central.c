/* Segments: chunks of the arena of 1 MiB, handed out in units of 64 KiB for small spans or as a whole for
 * medium ones. Units whose memory is still there are handed out first; segments that are empty go back to
 * the arena but for a few, and what free units hold is limited.
 */
#include "malloc/facade.h"

enum {
    EMPTY_SEGMENTS_MAX = 2,     /* kept whole */
    DIRTY_UNITS_MIN = 64,       /* free units that may keep their memory, */
    DIRTY_UNITS_SHARE_LOG2 = 4, /* or a sixteenth of the units in use; */
    YOUNG_UNITS = 128,          /* and so many more for a while */
    FETCH_BYTES =
        32 << 10 /* of a span that is about to be used, whose pages are fetched at a time */
};
#define YOUNG_NS ((uint64_t)JF_ARENA_YOUNG_MS * 1000000)
#define ALL_UNITS (((uint32_t)1 << JF_SEGMENT_UNITS) - 1)

static void list_segment(struct jf_segment *segment) {
    segment->listed = true;
    segment->previous = NULL;
    segment->next = jf_malloc.segments;
    if (segment->next != NULL)
        segment->next->previous = segment;
    jf_malloc.segments = segment;
}

static void unlist_segment(struct jf_segment *segment) {
    if (segment->previous != NULL)
        segment->previous->next = segment->next;
    else
        jf_malloc.segments = segment->next;
    if (segment->next != NULL)
        segment->next->previous = segment->previous;
    segment->listed = false;
}

/* Accounts for a change of a segment's words, which a pair of these surrounds. */
static void begin_change(const struct jf_segment *segment) {
    jf_malloc.used_units -= (size_t)__builtin_popcount(segment->used);
    jf_malloc.dirty_units -= (size_t)__builtin_popcount(segment->dirty);
    jf_malloc.empty_segments -= segment->used == 0;
}

static void end_change(struct jf_segment *segment) {
    jf_malloc.used_units += (size_t)__builtin_popcount(segment->used);
    jf_malloc.dirty_units += (size_t)__builtin_popcount(segment->dirty);
    jf_malloc.empty_segments += segment->used == 0;
    bool full = segment->used == ALL_UNITS;
    if (full == segment->listed) {
        if (full)
            unlist_segment(segment);
        else
            list_segment(segment);
    }
}

static struct jf_segment *new_segment(void) {
    struct jf_segment *segment = jf_malloc.free_segments;
    bool zero;
    if (segment != NULL)
        jf_malloc.free_segments = segment->next;
    else
        segment = jf_arena_meta_alloc(jf_malloc.arena, sizeof *segment);
    if (segment == NULL)
        return NULL;
    segment->address =
        jf_arena_alloc(jf_malloc.arena, JF_SEGMENT_ORDER, JF_CHUNK_SPAN, segment, &zero);
    if (segment->address == 0) {
        segment->next = jf_malloc.free_segments;
        jf_malloc.free_segments = segment;
        return NULL;
    }
    segment->used = 0;
    segment->dirty = zero ? 0 : ALL_UNITS;
    jf_malloc.segment_count++;
    segment->all_previous = NULL;
    segment->all_next = jf_malloc.all_segments;
    if (segment->all_next != NULL)
        segment->all_next->all_previous = segment;
    jf_malloc.all_segments = segment;
    list_segment(segment);
    jf_malloc.dirty_units += (size_t)__builtin_popcount(segment->dirty);
    jf_malloc.empty_segments++;
    return segment;
}

/* Gives an empty segment's chunk back to the arena. */
static void end_segment(struct jf_segment *segment) {
    size_t dirty = 0;
    if (segment->dirty != 0)
        dirty = (size_t)(jf_bits_log2(segment->dirty) + 1) << JF_UNIT_SHIFT;
    if (segment->all_previous != NULL)
        segment->all_previous->all_next = segment->all_next;
    else
        jf_malloc.all_segments = segment->all_next;
    if (segment->all_next != NULL)
        segment->all_next->all_previous = segment->all_previous;
    unlist_segment(segment);
    jf_malloc.dirty_units -= (size_t)__builtin_popcount(segment->dirty);
    jf_malloc.empty_segments--;
    jf_malloc.segment_count--;
    jf_arena_free(jf_malloc.arena, segment->address, dirty);
    segment->next = jf_malloc.free_segments;
    jf_malloc.free_segments = segment;
}

/* A segment in which units of `mask` can be had: for one unit, best one that still holds memory. */
static struct jf_segment *find_segment(bool whole, uint32_t *ret_mask) {
    struct jf_segment *clean = NULL;
    for (struct jf_segment *segment = jf_malloc.segments; segment != NULL;
         segment = segment->next) {
        if (whole && segment->used == 0) {
            *ret_mask = ALL_UNITS;
            return segment;
        }
        if (!whole && segment->dirty != 0) {
            *ret_mask = segment->dirty & (~segment->dirty + 1);
            return segment;
        }
        if (!whole && (clean == NULL || segment->used != 0))
            clean = segment;
        if (!whole && jf_malloc.dirty_units == 0)
            break;
    }
    if (clean == NULL)
        clean = new_segment();
    if (clean == NULL)
        return NULL;
    uint32_t units = ~clean->used & ALL_UNITS;
    if (!whole && (units & clean->dirty) != 0)
        units &= clean->dirty;
    *ret_mask = whole ? ALL_UNITS : units & (~units + 1);
    return clean;
}

/* Makes the map writable for the units of a segment. */
static bool open_map(uintptr_t address) {
    size_t unit = (address - jf_malloc.base) >> JF_UNIT_SHIFT;
    size_t step = unit >> JF_MAP_STEP_SHIFT;
    uint64_t bit = (uint64_t)1 << (step % 64);
    if ((jf_malloc.map_open[step / 64] & bit) != 0)
        return true;
    size_t first = step << JF_MAP_STEP_SHIFT;
    size_t count = (size_t)1 << JF_MAP_STEP_SHIFT;
    if (!jf_os_make_accessible((uintptr_t)&jf_malloc.map[first], count * sizeof *jf_malloc.map) ||
        !jf_os_make_accessible((uintptr_t)&jf_malloc.spans[first],
                               count * sizeof(struct jf_span *)))
        return false;
    jf_malloc.map_open[step / 64] |= bit;
    return true;
}

static struct jf_map_entry *map_entry(uintptr_t address) {
    return &jf_malloc.map[(address - jf_malloc.base) >> JF_UNIT_SHIFT];
}

static uint32_t bin_offset(unsigned number) {
    return (uint32_t)(offsetof(struct jf_cache, bins) + number * sizeof(struct jf_bin));
}

void jf_span_own(struct jf_span *span, struct jf_cache *owner) {
    __atomic_store_n(&span->owner, owner, __ATOMIC_RELEASE);
    __atomic_store_n(&map_entry(span->start)->bin, owner->tag | bin_offset(span->number),
                     __ATOMIC_RELAXED);
}

static void clear_map(uintptr_t address, size_t units) {
    size_t first = (address - jf_malloc.base) >> JF_UNIT_SHIFT;
    for (size_t unit = first; unit < first + units; unit++) {
        __atomic_store_n(&jf_malloc.spans[unit], NULL, __ATOMIC_RELEASE);
        __atomic_store_n(&jf_malloc.map[unit].reciprocal, 0, __ATOMIC_RELEASE);
    }
}

static void write_map(struct jf_span *span, size_t units) {
    size_t first = (span->start - jf_malloc.base) >> JF_UNIT_SHIFT;
    uint32_t reciprocal = span->number <= JF_CLASS_SMALL_LAST ? UINT32_MAX / span->size + 1 : 0;
    for (size_t unit = first; unit < first + units; unit++) {
        struct jf_map_entry *entry = &jf_malloc.map[unit];
        __atomic_store_n(&jf_malloc.spans[unit], span, __ATOMIC_RELEASE);
        entry->states = span->states;
        __atomic_store_n(&entry->bin, bin_offset(span->number), __ATOMIC_RELAXED);
        __atomic_store_n(&entry->reciprocal, reciprocal, __ATOMIC_RELEASE);
    }
}

/* With a byte for each of `cells` cells. */
static struct jf_span *new_descriptor(uint32_t cells) {
    struct jf_span *span = jf_malloc.free_spans;
    if (span != NULL)
        jf_malloc.free_spans = span->next;
    else
        span = jf_arena_meta_alloc(jf_malloc.arena, sizeof *span);
    if (span == NULL)
        return NULL;
    *span = (struct jf_span){.states = jf_arena_meta_alloc(jf_malloc.arena, cells), .cells = cells};
    if (span->states != NULL)
        return span;
    span->next = jf_malloc.free_spans;
    jf_malloc.free_spans = span;
    return NULL;
}

static void keep_descriptor(struct jf_span *span) {
    jf_arena_meta_free(jf_malloc.arena, span->states, span->cells);
    span->next = jf_malloc.free_spans;
    jf_malloc.free_spans = span;
}

struct jf_span *jf_central_take(unsigned number) {
    bool whole = number > JF_CLASS_SMALL_LAST;
    size_t units = whole ? JF_SEGMENT_UNITS : 1;
    uint32_t size = (uint32_t)jf_class_size(number);
    struct jf_span *span = new_descriptor((uint32_t)((units << JF_UNIT_SHIFT) / size));
    uint32_t mask = 0;
    if (span == NULL)
        return NULL;
    struct jf_segment *segment = find_segment(whole, &mask);
    if (segment == NULL || !open_map(segment->address)) {
        keep_descriptor(span);
        return NULL;
    }
    span->start = segment->address + ((size_t)jf_bits_lowest(mask) << JF_UNIT_SHIFT);
    span->size = size;
    span->number = (uint16_t)number;
    span->zero = (segment->dirty & mask) == 0;
    begin_change(segment);
    segment->used |= mask;
    segment->dirty &= ~mask;
    end_change(segment);
    write_map(span, units);
    jf_malloc.span_count++;
    return span;
}

static void give_back_units(const struct jf_segment *segment, uint32_t units) {
    while (units != 0) {
        unsigned first = jf_bits_lowest(units);
        unsigned count = jf_bits_lowest(~(units >> first)); /* a call for all that are neighbours */
        jf_os_give_back(segment->address + ((size_t)first << JF_UNIT_SHIFT),
                        (size_t)count << JF_UNIT_SHIFT);
        units &= ~((((uint32_t)1 << count) - 1) << first);
    }
}

/* Gives back the memory of free units. The units are out of everybody's reach meanwhile, so that the mutex
 * need not be held. */
static void clean_units(struct jf_segment *segment, uint32_t units) {
    begin_change(segment);
    segment->used |= units;
    segment->dirty &= ~units;
    end_change(segment);
    jf_os_mutex_unlock(&jf_malloc.mutex);
    give_back_units(segment, units);
    jf_os_mutex_lock(&jf_malloc.mutex);
    begin_change(segment);
    segment->used &= ~units;
    end_change(segment);
}

/* Whether free units hold too much memory. A little more than that may stay for a while: a program that ends
 * frees all it has, and another soon needs it again. */
static bool is_too_dirty(void) {
    size_t most = jf_malloc.used_units >> DIRTY_UNITS_SHARE_LOG2;
    most = most > DIRTY_UNITS_MIN ? most : DIRTY_UNITS_MIN;
    if (jf_malloc.dirty_units <= most) {
        jf_malloc.dirty_since = 0;
        return false;
    }
    uint64_t now = jf_os_clock_coarse_ns();
    if (jf_malloc.dirty_since == 0)
        jf_malloc.dirty_since = now;
    return jf_malloc.dirty_units > most + YOUNG_UNITS || now - jf_malloc.dirty_since > YOUNG_NS;
}

void jf_central_give(struct jf_span *span) {
    size_t size = span->number > JF_CLASS_SMALL_LAST ? JF_SEGMENT_SIZE : JF_UNIT_SIZE;
    struct jf_segment *segment = jf_arena_owner(jf_malloc.arena, span->start);
    unsigned first = (unsigned)((span->start - segment->address) >> JF_UNIT_SHIFT);
    uint32_t units = (uint32_t)(((uint64_t)1 << (size >> JF_UNIT_SHIFT)) - 1) << first;
    size_t touched = ((size_t)span->carved * span->size + JF_UNIT_SIZE - 1) >> JF_UNIT_SHIFT;
    uint32_t dirty = (uint32_t)(((uint64_t)1 << touched) - 1) << first;
    clear_map(span->start, size >> JF_UNIT_SHIFT);
    begin_change(segment);
    segment->used &= ~units;
    segment->dirty |= span->zero ? dirty : units;
    end_change(segment);
    keep_descriptor(span);
    jf_malloc.span_count--;
    if (segment->used == 0) {
        if (jf_malloc.empty_segments > EMPTY_SEGMENTS_MAX)
            end_segment(segment);
        return;
    }
    if (is_too_dirty())
        clean_units(segment, segment->dirty);
}

void jf_span_fetch(struct jf_span *span, size_t end) {
    size_t last = jf_bits_round_up((size_t)span->cells * span->size, jf_malloc.page_size);
    while (span->fetched < end) {
        size_t left = last - span->fetched;
        size_t size = left < FETCH_BYTES ? left : FETCH_BYTES;
        jf_os_populate(span->start + span->fetched, size);
        span->fetched += (uint32_t)size;
    }
}

struct jf_span *jf_central_span_at(uintptr_t address) {
    size_t units = jf_malloc_units();
    size_t unit = (address - jf_malloc.base) >> JF_UNIT_SHIFT;
    return unit < units ? __atomic_load_n(&jf_malloc.spans[unit], __ATOMIC_ACQUIRE) : NULL;
}

/* One segment with something to give back; false when there is none. */
static bool trim_one(size_t *given) {
    for (struct jf_segment *segment = jf_malloc.segments; segment != NULL;
         segment = segment->next) {
        size_t size = (size_t)__builtin_popcount(segment->dirty) << JF_UNIT_SHIFT;
        if (segment->used == 0) {
            end_segment(segment);
            *given += size;
            return true;
        }
        if (size != 0) {
            clean_units(segment, segment->dirty);
            *given += size;
            return true;
        }
    }
    return false;
}

size_t jf_central_trim(void) {
    size_t given = 0;
    while (trim_one(&given)) {
    }
    return given;
}
