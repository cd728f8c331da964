/* The arena's address space: the window and the bookkeeping reservation, made accessible step by step.
 * Requests are large, so that the process has few mappings, and are never taken back.
 */
#include "arena/internal.h"

#define GRANULE_MAX_SHIFT 25       /* 32 MiB: few mappings, and few system calls */
#define TABLE_GRANULE_MAX_SHIFT 20 /* 1 MiB: the table grows by small steps */
#define GRANULES_PER_WINDOW_SHIFT 6
#define DIRTY_LIMIT ((size_t)8 << 20)
#define META_SHARE_SHIFT 6
#define META_MIN ((size_t)1 << 20)
#define META_MAX ((uint64_t)4 << 30)
#define BOOK_STEP ((size_t)1 << JF_BOOK_STEP_SHIFT)
#define BITS_PER_WORD 64

bool jf_arena_request(struct jf_arena *arena, uintptr_t address, size_t size) {
    return !jf_arena_is_refused(&arena->refuse_requests) && jf_os_make_accessible(address, size);
}

bool jf_arena_is_refused(struct jf_refusal *refusal) {
    /* Not exact when two threads ask at once; only tests set it. */
    unsigned nth = atomic_load_explicit(&refusal->nth, memory_order_relaxed);
    if (nth > 1) {
        atomic_store_explicit(&refusal->nth, nth - 1, memory_order_relaxed);
    } else if (nth == 1 && !atomic_load_explicit(&refusal->persistent, memory_order_relaxed)) {
        atomic_store_explicit(&refusal->nth, 0, memory_order_relaxed);
    }
    return nth == 1;
}

static void refuse(struct jf_refusal *refusal, unsigned nth, bool persistent) {
    atomic_store_explicit(&refusal->persistent, persistent, memory_order_relaxed);
    atomic_store_explicit(&refusal->nth, nth, memory_order_relaxed);
}

void jf_arena_refuse(struct jf_arena *arena, unsigned nth, bool persistent) {
    refuse(&arena->refuse_requests, nth, persistent);
}

void jf_arena_refuse_calls(struct jf_arena *arena, unsigned nth, bool persistent) {
    refuse(&arena->refuse_calls, nth, persistent);
}

/* --- Making accessible. No mutex: asking the system twice for the same range is harmless, and a bit is
 * set only after the system agreed. */

/* The units that describe granules [first, end) of the window. */
static bool open_units(struct jf_arena *arena, size_t first, size_t end) {
    size_t per_granule = sizeof(struct jf_unit) << (arena->granule_shift - JF_UNIT_SHIFT);
    uintptr_t units = (uintptr_t)arena->units;
    uintptr_t start = jf_bits_round_down(units + first * per_granule, BOOK_STEP);
    uintptr_t stop = jf_bits_round_up(units + end * per_granule, BOOK_STEP);
    return jf_arena_request(arena, start, stop - start);
}

/* Opens the granules that hold offsets [offset, end) of the window. */
static bool open_granules(struct jf_arena *arena, _Atomic(uint64_t) *bits, unsigned shift,
                          size_t offset, size_t end) {
    size_t last = (end - 1) >> shift;
    for (size_t first = offset >> shift; first <= last;) {
        if (jf_granule_is_open(bits, first)) {
            first++;
            continue;
        }
        size_t stop = first + 1;
        while (stop <= last && !jf_granule_is_open(bits, stop)) {
            stop++;
        }
        if ((bits == arena->open && !open_units(arena, first, stop)) ||
            !jf_arena_request(arena, arena->base + (first << shift), (stop - first) << shift)) {
            return false;
        }
        for (; first < stop; first++) {
            uint64_t bit = (uint64_t)1 << (first % BITS_PER_WORD);
            atomic_fetch_or_explicit(&bits[first / BITS_PER_WORD], bit, memory_order_release);
        }
    }
    return true;
}

bool jf_arena_make_accessible(struct jf_arena *arena, uintptr_t address, size_t size) {
    size_t offset = address - arena->base;
    if (size == 0) {
        return true;
    }
    if (jf_arena_is_refused(&arena->refuse_calls)) {
        return false;
    }
    if (offset >= arena->size || size > arena->size - offset) {
        return false;
    }
    size_t end = offset + size;
    size_t table = arena->table_size;
    if (offset < table && !open_granules(arena, arena->table_open, arena->table_granule_shift,
                                         offset, end < table ? end : table)) {
        return false;
    }
    return end <= table || open_granules(arena, arena->open, arena->granule_shift,
                                         offset < table ? table : offset, end);
}

/* --- Creation. */

/* Sizes and offsets within the bookkeeping reservation. */
struct plan {
    size_t window_size;
    size_t table_size;
    size_t open;
    size_t table_open;
    size_t blocks;
    size_t map;
    size_t units;
    size_t meta;
    size_t total;
};

static unsigned granule_shift(unsigned window_shift, unsigned most) {
    unsigned shift = window_shift - GRANULES_PER_WINDOW_SHIFT;
    shift = shift < most ? shift : most;
    return shift > JF_UNIT_SHIFT ? shift : JF_UNIT_SHIFT;
}

/* Bytes of a bitmap with a bit for each granule of a range. */
static size_t bits_size(size_t size, unsigned shift) {
    size_t granules = (size + ((size_t)1 << shift) - 1) >> shift;
    return (granules + BITS_PER_WORD - 1) / BITS_PER_WORD * sizeof(uint64_t);
}

static struct plan make_plan(unsigned shift, unsigned table_share_shift, size_t table_max) {
    struct plan plan = {.window_size = (size_t)1 << shift};
    size_t units = plan.window_size >> JF_UNIT_SHIFT;
    size_t share = jf_bits_round_up(plan.window_size >> table_share_shift, JF_UNIT_SIZE);
    size_t most = jf_bits_round_down(table_max, JF_UNIT_SIZE);
    plan.table_size = share < most ? share : most;

    plan.open = jf_bits_round_up(sizeof(struct jf_arena), 64);
    plan.table_open =
        plan.open + bits_size(plan.window_size, granule_shift(shift, GRANULE_MAX_SHIFT));
    plan.blocks =
        plan.table_open + bits_size(plan.table_size, granule_shift(shift, TABLE_GRANULE_MAX_SHIFT));
    plan.map = plan.blocks + jf_pieces_blocks_size(units);
    plan.units = jf_bits_round_up(plan.map + units, BOOK_STEP);
    plan.meta = jf_bits_round_up(plan.units + units * sizeof(struct jf_unit), BOOK_STEP);
    uint64_t meta = plan.window_size >> META_SHARE_SHIFT;
    meta = meta < META_MAX ? meta : META_MAX;
    plan.total = plan.meta + (meta > META_MIN ? (size_t)meta : META_MIN);
    return plan;
}

/* Puts all of the window after the table into the buddy system, in the largest pieces it takes. */
static void add_free_window(struct jf_arena *arena) {
    size_t unit = arena->first_unit;
    while (unit < arena->unit_count) {
        unsigned order = jf_bits_log2(arena->unit_count - unit);
        if (unit != 0 && jf_bits_lowest(unit) < order) {
            order = jf_bits_lowest(unit);
        }
        jf_pieces_add(&arena->pieces, unit, order);
        unit += (size_t)1 << order;
    }
}

static struct jf_arena *create_at(uintptr_t window, uintptr_t book, const struct plan *plan) {
    struct jf_arena *arena = (struct jf_arena *)book;
    unsigned shift = jf_bits_log2(plan->window_size);
    arena->base = window;
    arena->size = plan->window_size;
    arena->table_size = plan->table_size;
    arena->first_unit = plan->table_size >> JF_UNIT_SHIFT;
    arena->unit_count = plan->window_size >> JF_UNIT_SHIFT;
    arena->window_order = shift - JF_UNIT_SHIFT;
    arena->granule_shift = granule_shift(shift, GRANULE_MAX_SHIFT);
    arena->table_granule_shift = granule_shift(shift, TABLE_GRANULE_MAX_SHIFT);
    arena->map = (atomic_uchar *)(book + plan->map);
    arena->units = (struct jf_unit *)(book + plan->units);
    arena->open = (_Atomic(uint64_t) *)(book + plan->open);
    arena->table_open = (_Atomic(uint64_t) *)(book + plan->table_open);
    arena->pieces.blocks = (uint64_t(*)[JF_PIECES_BLOCK_WORDS])(book + plan->blocks);
    arena->book = book;
    arena->book_size = plan->total;
    arena->fixed_size = plan->units;
    arena->meta_start = book + plan->meta;
    arena->meta_next = arena->meta_start;
    arena->meta_open = arena->meta_start;
    arena->meta_end = book + plan->total;
    arena->dirty_limit = DIRTY_LIMIT;
    jf_os_mutex_init(&arena->mutex);
    add_free_window(arena);
    return arena;
}

static struct jf_arena *try_create(unsigned shift, unsigned table_share_shift, size_t table_max) {
    struct plan plan = make_plan(shift, table_share_shift, table_max);
    uintptr_t window = jf_os_reserve(plan.window_size, plan.window_size);
    if (window == 0) {
        return NULL;
    }
    uintptr_t book = jf_os_reserve(plan.total, BOOK_STEP);
    if (book == 0) {
        goto release_window;
    }
    if (!jf_os_make_accessible(book, plan.units)) {
        goto release_book;
    }
    return create_at(window, book, &plan);

release_book:
    jf_os_release(book, plan.total);
release_window:
    jf_os_release(window, plan.window_size);
    return NULL;
}

struct jf_arena *jf_arena_create(unsigned window_shift, unsigned minimum_shift,
                                 unsigned table_share_shift, size_t table_max) {
    unsigned most = JF_UNIT_SHIFT + JF_ARENA_ORDERS - 1;
    unsigned address_bits = (unsigned)sizeof(size_t) * 8;
    most = most < address_bits - 1 ? most : address_bits - 1;
    unsigned shift = window_shift < most ? window_shift : most;
    unsigned least = minimum_shift > JF_UNIT_SHIFT ? minimum_shift : JF_UNIT_SHIFT;
    for (; shift >= least; shift--) {
        struct jf_arena *arena = try_create(shift, table_share_shift, table_max);
        if (arena != NULL) {
            return arena;
        }
    }
    return NULL;
}

void jf_arena_destroy(struct jf_arena *arena) {
    uintptr_t window = arena->base;
    size_t window_size = arena->size;
    jf_os_mutex_finish(&arena->mutex);
    jf_os_release(window, window_size);
    jf_os_release(arena->book, arena->book_size);
}

uintptr_t jf_arena_base(const struct jf_arena *arena) {
    return arena->base;
}

size_t jf_arena_size(const struct jf_arena *arena) {
    return arena->size;
}

size_t jf_arena_table_size(const struct jf_arena *arena) {
    return arena->table_size;
}

size_t jf_arena_overhead(const struct jf_arena *arena) {
    size_t granules = arena->size >> arena->granule_shift;
    while (granules != 0 && !jf_granule_is_open(arena->open, granules - 1)) {
        granules--;
    }
    size_t units = (granules << (arena->granule_shift - JF_UNIT_SHIFT)) * sizeof(struct jf_unit);
    units = jf_bits_round_up(units, jf_os_page_size());
    struct jf_arena *writable = (struct jf_arena *)(uintptr_t)arena;
    jf_os_mutex_lock(&writable->mutex);
    size_t meta_open = arena->meta_open;
    jf_os_mutex_unlock(&writable->mutex);
    return jf_os_resident(arena->book, arena->fixed_size) +
           jf_os_resident((uintptr_t)arena->units, units) +
           jf_os_resident(arena->meta_start, meta_open - arena->meta_start);
}
