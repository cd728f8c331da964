/* Walks the arena unit by unit and compares the map, the free pieces and the dirty list. */
#include "arena/internal.h"

struct walk {
    const struct jf_arena *arena;
    size_t pieces[JF_ARENA_ORDERS]; /* free pieces met, per order */
    size_t dirty;                   /* dirty chunks met */
    size_t giving;
};

static unsigned char map_at(const struct jf_arena *arena, size_t unit) {
    return atomic_load_explicit(&arena->map[unit], memory_order_relaxed);
}

static bool unit_is_open(const struct jf_arena *arena, size_t unit) {
    return jf_granule_is_open(arena->open, unit >> (arena->granule_shift - JF_UNIT_SHIFT));
}

/* The largest order a piece at `unit` can have. */
static unsigned most_order(const struct jf_arena *arena, size_t unit) {
    return unit == 0 ? arena->window_order : jf_bits_lowest(unit);
}

/* The next granule that may be open: 64 at a time are passed over where none is. */
static size_t next_granule(const struct jf_arena *arena, size_t granule) {
    uint64_t open = atomic_load_explicit(&arena->open[granule / 64], memory_order_relaxed);
    return open != 0 ? granule + 1 : (granule | 63) + 1;
}

/* Do the units after the first all have this byte? Units of granules never opened have none to look at:
 * for those the map was never written. */
static bool rest_is(const struct jf_arena *arena, size_t unit, unsigned order, unsigned char byte) {
    size_t end = unit + ((size_t)1 << order);
    size_t per_granule = (size_t)1 << (arena->granule_shift - JF_UNIT_SHIFT);
    for (size_t i = unit + 1; i < end; i++) {
        if (byte == 0 && !unit_is_open(arena, i)) {
            i = next_granule(arena, i / per_granule) * per_granule - 1;
        } else if (map_at(arena, i) != byte) {
            return false;
        }
    }
    return true;
}

static const char *check_free_piece(struct walk *walk, size_t unit, unsigned *ret_order) {
    const struct jf_arena *arena = walk->arena;
    unsigned found = JF_ARENA_ORDERS;
    for (unsigned order = 0; order <= most_order(arena, unit); order++) {
        if (jf_pieces_has(&arena->pieces, unit, order)) {
            if (found != JF_ARENA_ORDERS) {
                return "arena: a unit is in two free pieces";
            }
            found = order;
        }
    }
    if (found == JF_ARENA_ORDERS) {
        return "arena: a unit is in no chunk and in no free piece";
    }
    if (found < arena->window_order &&
        jf_pieces_has(&arena->pieces, unit ^ ((size_t)1 << found), found)) {
        return "arena: two free buddies are not merged";
    }
    if (!rest_is(arena, unit, found, 0)) {
        return "arena: a chunk lies in a free piece";
    }
    walk->pieces[found]++;
    *ret_order = found;
    return NULL;
}

static const char *check_chunk(struct walk *walk, size_t unit, unsigned char byte) {
    unsigned kind = jf_map_kind(byte);
    unsigned order = jf_map_order(byte);
    if (order > most_order(walk->arena, unit)) {
        return "arena: a chunk is not aligned to its size";
    }
    if (!unit_is_open(walk->arena, unit)) {
        return "arena: a chunk is not accessible";
    }
    if (!rest_is(walk->arena, unit, order, kind < JF_MAP_DIRTY ? byte : 0)) {
        return "arena: the map of a chunk is not uniform";
    }
    walk->dirty += kind == JF_MAP_DIRTY;
    walk->giving += kind == JF_MAP_GIVING;
    return NULL;
}

static const char *check_units(struct walk *walk) {
    const struct jf_arena *arena = walk->arena;
    for (size_t unit = arena->first_unit; unit < arena->unit_count;) {
        unsigned char byte = map_at(arena, unit);
        unsigned order = jf_map_order(byte);
        const char *fault =
            byte == 0 ? check_free_piece(walk, unit, &order) : check_chunk(walk, unit, byte);
        if (fault != NULL) {
            return fault;
        }
        unit += (size_t)1 << order;
    }
    return NULL;
}

/* A free piece that the walk did not meet lies in a chunk or in another piece. */
static const char *check_pieces(const struct walk *walk) {
    const struct jf_pieces *pieces = &walk->arena->pieces;
    for (unsigned order = 0; order < JF_ARENA_ORDERS; order++) {
        if (pieces->count[order] != walk->pieces[order]) {
            return "arena: the count of free pieces is wrong";
        }
        if (jf_pieces_reachable(pieces, order) != walk->pieces[order]) {
            return "arena: the levels of the free pieces disagree";
        }
    }
    return NULL;
}

static const char *check_dirty(const struct walk *walk) {
    const struct jf_arena *arena = walk->arena;
    size_t sum = 0;
    if (walk->dirty != arena->dirty_count || walk->giving != arena->giving) {
        return "arena: the count of dirty chunks is wrong";
    }
    for (size_t i = 0; i < arena->dirty_count; i++) {
        const struct jf_dirty_chunk *chunk = &arena->dirty[i];
        if (map_at(arena, chunk->unit) != jf_map_byte(JF_MAP_DIRTY, chunk->order)) {
            return "arena: the dirty list names a chunk that is not dirty";
        }
        size_t stale = arena->units[chunk->unit].stale;
        if (stale == 0 || stale > JF_UNIT_SIZE << chunk->order) {
            return "arena: a dirty chunk has more dirty bytes than bytes, or none";
        }
        sum += stale;
    }
    if (sum != jf_arena_dirty(arena)) {
        return "arena: the sum of the dirty bytes is wrong";
    }
    return NULL;
}

const char *jf_arena_check(struct jf_arena *arena) {
    struct walk walk = {.arena = arena};
    jf_os_mutex_lock(&arena->mutex);
    const char *fault = check_units(&walk);
    if (fault == NULL) {
        fault = check_pieces(&walk);
    }
    if (fault == NULL) {
        fault = check_dirty(&walk);
    }
    jf_os_mutex_unlock(&arena->mutex);
    return fault;
}
