/* What the files of the arena share: the structure itself and the steps between them. Nothing outside
 * src/arena includes this, save tests that break the arena on purpose.
 */
#ifndef JEFF_ARENA_INTERNAL_H
#define JEFF_ARENA_INTERNAL_H

#include "arena/pieces.h"

#include <assert.h>
#include <stdatomic.h>

enum {
    JF_META_STEP_SHIFT = 6, /* bookkeeping objects come in multiples of 64 bytes */
    JF_META_MAX_SHIFT = 16, /* and are at most 64 KiB */
    JF_META_CLASSES = 1 << (JF_META_MAX_SHIFT - JF_META_STEP_SHIFT),
    JF_BOOK_STEP_SHIFT = 16, /* bookkeeping is made accessible in multiples of 64 KiB */
};

/* Byte of the unit map: the order in the low 5 bits, the kind above. 0 is a free unit. Two more kinds
 * than the caller knows mark the first unit of a freed chunk that is not in the buddy system yet. */
enum {
    JF_MAP_KIND_SHIFT = 5,
    JF_MAP_ORDER_MASK = (1 << JF_MAP_KIND_SHIFT) - 1,
    JF_MAP_DIRTY = 6,  /* in the dirty list, memory kept */
    JF_MAP_GIVING = 7, /* being given back by some thread, in no list */
};
static_assert((int)JF_ARENA_ORDERS <= (int)JF_MAP_ORDER_MASK, "an order fits the map");
static_assert((int)JF_CHUNK_POOL < (int)JF_MAP_DIRTY, "kinds do not collide");

struct jf_unit {
    _Atomic(void *) owner; /* valid for the first unit of a living chunk */
    /* First unit of a chunk: bytes from its start, whole pages, that held memory when it was allocated;
     * of a freed chunk: that hold memory now; 0 elsewhere. Guarded by the mutex. */
    size_t stale;
};

struct jf_dirty_chunk {
    uint32_t unit;
    uint32_t order;
    uint64_t freed_ns; /* when; 0 unless there is a limit for young ones */
};

struct jf_meta_object {
    struct jf_meta_object *next;
};

/* Which call is to be refused. */
struct jf_refusal {
    atomic_uint nth; /* calls until then, 0 = none */
    atomic_bool persistent;
};

/* Lives at the start of its bookkeeping reservation:
 *   fixed part: this struct | accessible bits | blocks of `pieces` | map     (accessible from the start)
 *   units (accessible as far as the granules they describe) | bookkeeping objects (up to meta_open)
 */
struct jf_arena {
    /* Set by jf_arena_create, then constant: read without the mutex. */
    uintptr_t base;
    size_t size;
    size_t table_size;
    size_t first_unit; /* after the table */
    size_t unit_count; /* of the window, the table's included */
    unsigned window_order;
    unsigned granule_shift; /* log2 of the bytes made accessible at once */
    unsigned table_granule_shift;
    atomic_uchar *map;
    struct jf_unit *units;
    _Atomic(uint64_t) *open; /* a bit per granule of the window: accessible, and so are its units */
    _Atomic(uint64_t) *table_open; /* a bit per granule of the table */
    uintptr_t book;
    size_t book_size;
    size_t fixed_size;
    uintptr_t meta_start;
    uintptr_t meta_end;

    struct jf_refusal refuse_requests; /* for tests */
    struct jf_refusal refuse_calls;
    atomic_size_t dirty_bytes; /* written under the mutex */
    atomic_uint moves;         /* times that pages changed places */

    /* Guarded by the mutex. */
    _Alignas(64) jf_mutex mutex;
    size_t dirty_limit;
    size_t young_limit; /* the same while all of them are young */
    size_t dirty_count;
    size_t giving;                                   /* chunks marked JF_MAP_GIVING */
    struct jf_dirty_chunk dirty[JF_ARENA_DIRTY_MAX]; /* oldest first */
    uintptr_t meta_next;
    uintptr_t meta_open;
    struct jf_pieces pieces;
    struct jf_meta_object *meta_free[JF_META_CLASSES + 1];
};

static inline unsigned char jf_map_byte(unsigned kind, unsigned order) {
    return (unsigned char)(kind << JF_MAP_KIND_SHIFT | order);
}

static inline unsigned jf_map_kind(unsigned char byte) {
    return (unsigned)byte >> JF_MAP_KIND_SHIFT;
}

static inline unsigned jf_map_order(unsigned char byte) {
    return byte & JF_MAP_ORDER_MASK;
}

static inline uintptr_t jf_unit_address(const struct jf_arena *arena, size_t unit) {
    return arena->base + (unit << JF_UNIT_SHIFT);
}

static inline size_t jf_unit_of(const struct jf_arena *arena, uintptr_t address) {
    return (size_t)(address - arena->base) >> JF_UNIT_SHIFT;
}

static inline bool jf_granule_is_open(const _Atomic(uint64_t) *bits, size_t granule) {
    uint64_t word = atomic_load_explicit(&bits[granule / 64], memory_order_acquire);
    return (word >> (granule % 64) & 1u) != 0;
}

/* Whether this call is the one to be refused. Any thread. */
bool jf_arena_is_refused(struct jf_refusal *refusal);

/* One request to the system; false when it or jf_arena_refuse refuses. Any thread. */
bool jf_arena_request(struct jf_arena *arena, uintptr_t address, size_t size);

/* The steps of dirty.c; the mutex is held, and dropped in between where "drops" is said. */

/* Puts a clean piece into the buddy system and merges it as far as it goes. */
void jf_dirty_merge(struct jf_arena *arena, size_t unit, unsigned order);

/* Disposes of a piece whose map bytes are cleared: into the buddy system when nothing of it holds
 * memory, else into the dirty list, and what is over the limit is given back. Drops the mutex. */
void jf_dirty_put(struct jf_arena *arena, size_t unit, unsigned order, size_t dirty_size);

/* Takes the lowest dirty chunk of exactly that order; when more is dirty than may stay so, else the lower part of
 * one that is a little larger. */
bool jf_dirty_take(struct jf_arena *arena, unsigned order, size_t *ret_unit);

/* Gives back what is over the limits by now. Drops the mutex. */
void jf_dirty_settle(struct jf_arena *arena);

/* Gives back the oldest dirty chunk, or waits for another thread that gives one back; false when there
 * is neither. Drops the mutex. */
bool jf_dirty_make_room(struct jf_arena *arena);

/* Gives back a dirty chunk that lies in a range of units; false when there is none. Drops the mutex. */
bool jf_dirty_flush_range(struct jf_arena *arena, size_t first, size_t end);

#endif
