/* Freed chunks that keep their memory for a while: giving memory back and taking the page faults again
 * costs several times what reusing it does. The chunk stays out of the buddy system until its memory is
 * gone, so whatever the buddy system holds reads as zero; and while a thread gives it back without the
 * mutex no other can reach it.
 */
#include "arena/internal.h"

#define YOUNG_NS ((uint64_t)JF_ARENA_YOUNG_MS * 1000000u)

static void mark(struct jf_arena *arena, size_t unit, unsigned char byte) {
    atomic_store_explicit(&arena->map[unit], byte, memory_order_release);
}

void jf_dirty_merge(struct jf_arena *arena, size_t unit, unsigned order) {
    mark(arena, unit, 0);
    arena->units[unit].stale = 0;
    while (order < arena->window_order) {
        size_t buddy = unit ^ ((size_t)1 << order);
        if (!jf_pieces_has(&arena->pieces, buddy, order)) {
            break;
        }
        jf_pieces_remove(&arena->pieces, buddy, order);
        unit &= ~((size_t)1 << order);
        order++;
    }
    jf_pieces_add(&arena->pieces, unit, order);
}

/* Gives back a chunk that is marked JF_MAP_GIVING. Drops the mutex. */
static void give(struct jf_arena *arena, size_t unit, unsigned order) {
    size_t size = arena->units[unit].stale;
    jf_os_mutex_unlock(&arena->mutex);
    jf_os_give_back(jf_unit_address(arena, unit), size);
    jf_os_mutex_lock(&arena->mutex);
    arena->giving--;
    jf_dirty_merge(arena, unit, order);
}

static void add_bytes(struct jf_arena *arena, size_t change) {
    size_t bytes = atomic_load_explicit(&arena->dirty_bytes, memory_order_relaxed) + change;
    atomic_store_explicit(&arena->dirty_bytes, bytes, memory_order_relaxed);
}

static struct jf_dirty_chunk take_at(struct jf_arena *arena, size_t index) {
    struct jf_dirty_chunk chunk = arena->dirty[index];
    arena->dirty_count--;
    for (size_t i = index; i < arena->dirty_count; i++) {
        arena->dirty[i] = arena->dirty[i + 1];
    }
    add_bytes(arena, (size_t)0 - arena->units[chunk.unit].stale);
    return chunk;
}

/* Gives back one chunk of the list; returns its dirty bytes. Drops the mutex. */
static size_t give_at(struct jf_arena *arena, size_t index) {
    struct jf_dirty_chunk chunk = take_at(arena, index);
    size_t size = arena->units[chunk.unit].stale;
    arena->giving++;
    mark(arena, chunk.unit, jf_map_byte(JF_MAP_GIVING, chunk.order));
    give(arena, chunk.unit, chunk.order);
    return size;
}

static size_t most_dirty(const struct jf_arena *arena) {
    return arena->young_limit > arena->dirty_limit ? arena->young_limit : arena->dirty_limit;
}

void jf_dirty_put(struct jf_arena *arena, size_t unit, unsigned order, size_t dirty_size) {
    if (dirty_size == 0) {
        jf_dirty_merge(arena, unit, order);
        return;
    }
    dirty_size = jf_bits_round_up(dirty_size, jf_os_page_size());
    /* Until it has a place in the list the chunk is out of everybody's reach. */
    arena->units[unit].stale = dirty_size;
    arena->giving++;
    mark(arena, unit, jf_map_byte(JF_MAP_GIVING, order));
    if (dirty_size > most_dirty(arena)) {
        /* Alone over the limit: it would only drive all others out. */
        give(arena, unit, order);
        return;
    }
    while (arena->dirty_count == JF_ARENA_DIRTY_MAX) {
        give_at(arena, 0);
    }
    arena->giving--;
    mark(arena, unit, jf_map_byte(JF_MAP_DIRTY, order));
    uint64_t now = arena->young_limit != 0 ? jf_os_clock_coarse_ns() : 0;
    arena->dirty[arena->dirty_count++] = (struct jf_dirty_chunk){(uint32_t)unit, order, now};
    add_bytes(arena, dirty_size);
    jf_dirty_settle(arena);
}

void jf_dirty_settle(struct jf_arena *arena) {
    if (jf_arena_dirty(arena) <= arena->dirty_limit) {
        return;
    }
    uint64_t now = arena->young_limit != 0 ? jf_os_clock_coarse_ns() : 0;
    while (
        arena->dirty_count != 0 && jf_arena_dirty(arena) > arena->dirty_limit &&
        (jf_arena_dirty(arena) > arena->young_limit || now - arena->dirty[0].freed_ns > YOUNG_NS)) {
        give_at(arena, 0);
    }
}

/* The lowest chunk of the smallest order from `order` to `most`; dirty_count when there is none. */
static size_t find(const struct jf_arena *arena, unsigned order, unsigned most) {
    size_t best = arena->dirty_count;
    for (size_t i = 0; i < arena->dirty_count; i++) {
        const struct jf_dirty_chunk *chunk = &arena->dirty[i];
        if (chunk->order < order || chunk->order > most) {
            continue;
        }
        if (best == arena->dirty_count || chunk->order < arena->dirty[best].order ||
            (chunk->order == arena->dirty[best].order && chunk->unit < arena->dirty[best].unit)) {
            best = i;
        }
    }
    return best;
}

/* Halves a chunk of the list until its lower part has the order; the upper parts that hold memory stay in the
 * list, as old as it. False when the list is full before that. */
static bool split(struct jf_arena *arena, size_t index, unsigned order) {
    struct jf_dirty_chunk *chunk = &arena->dirty[index];
    size_t unit = chunk->unit;
    while (chunk->order > order) {
        if (arena->dirty_count == JF_ARENA_DIRTY_MAX) {
            return false;
        }
        chunk->order--;
        size_t upper = unit + ((size_t)1 << chunk->order);
        size_t half = JF_UNIT_SIZE << chunk->order;
        size_t stale = arena->units[unit].stale;
        mark(arena, unit, jf_map_byte(JF_MAP_DIRTY, chunk->order));
        if (stale <= half) {
            jf_dirty_merge(arena, upper, chunk->order);
            continue;
        }
        arena->units[unit].stale = half;
        arena->units[upper].stale = stale - half;
        mark(arena, upper, jf_map_byte(JF_MAP_DIRTY, chunk->order));
        for (size_t i = arena->dirty_count++; i > index; i--) {
            arena->dirty[i] = arena->dirty[i - 1];
        }
        chunk[1].unit = (uint32_t)upper;
    }
    return true;
}

bool jf_dirty_take(struct jf_arena *arena, unsigned order, size_t *ret_unit) {
    size_t found = find(arena, order, order);
    if (found == arena->dirty_count) {
        found = find(arena, order, JF_ARENA_ORDERS);
    }
    if (found == arena->dirty_count || !split(arena, found, order)) {
        return false;
    }
    *ret_unit = take_at(arena, found).unit;
    return true;
}

bool jf_dirty_make_room(struct jf_arena *arena) {
    if (arena->dirty_count != 0) {
        give_at(arena, 0);
        return true;
    }
    if (arena->giving != 0) {
        jf_os_mutex_unlock(&arena->mutex);
        jf_os_yield();
        jf_os_mutex_lock(&arena->mutex);
        return true;
    }
    return false;
}

bool jf_dirty_flush_range(struct jf_arena *arena, size_t first, size_t end) {
    for (size_t i = 0; i < arena->dirty_count; i++) {
        if (arena->dirty[i].unit >= first && arena->dirty[i].unit < end) {
            give_at(arena, i);
            return true;
        }
    }
    return false;
}

/* Gives back the upper part of the oldest chunk's memory and keeps it in the list, as the oldest. Drops
 * the mutex. */
static size_t give_part(struct jf_arena *arena, size_t size) {
    struct jf_dirty_chunk chunk = take_at(arena, 0);
    size_t left = arena->units[chunk.unit].stale - size;
    arena->giving++;
    mark(arena, chunk.unit, jf_map_byte(JF_MAP_GIVING, chunk.order));
    jf_os_mutex_unlock(&arena->mutex);
    jf_os_give_back(jf_unit_address(arena, chunk.unit) + left, size);
    jf_os_mutex_lock(&arena->mutex);
    arena->giving--;
    arena->units[chunk.unit].stale = left;
    if (arena->dirty_count == JF_ARENA_DIRTY_MAX) {
        arena->giving++;
        give(arena, chunk.unit, chunk.order);
        return size + left;
    }
    for (size_t i = arena->dirty_count++; i > 0; i--) {
        arena->dirty[i] = arena->dirty[i - 1];
    }
    arena->dirty[0] = chunk;
    mark(arena, chunk.unit, jf_map_byte(JF_MAP_DIRTY, chunk.order));
    add_bytes(arena, left);
    return size;
}

size_t jf_arena_purge(struct jf_arena *arena, size_t keep, size_t most_bytes) {
    size_t given = 0;
    jf_os_mutex_lock(&arena->mutex);
    while (arena->dirty_count != 0 && jf_arena_dirty(arena) > keep) {
        size_t size = arena->units[arena->dirty[0].unit].stale;
        size_t room = given < most_bytes ? most_bytes - given : 0;
        if (most_bytes == 0 || size <= room) {
            given += give_at(arena, 0);
        } else if (room >= jf_os_page_size()) {
            given += give_part(arena, jf_bits_round_down(room, jf_os_page_size()));
        } else {
            break;
        }
    }
    jf_os_mutex_unlock(&arena->mutex);
    return given;
}

size_t jf_arena_dirty(const struct jf_arena *arena) {
    return atomic_load_explicit(&arena->dirty_bytes, memory_order_relaxed);
}

void jf_arena_set_young_limit(struct jf_arena *arena, size_t limit) {
    jf_os_mutex_lock(&arena->mutex);
    arena->young_limit = limit;
    jf_os_mutex_unlock(&arena->mutex);
}

void jf_arena_set_dirty_limit(struct jf_arena *arena, size_t limit) {
    jf_os_mutex_lock(&arena->mutex);
    arena->dirty_limit = limit;
    jf_os_mutex_unlock(&arena->mutex);
    jf_arena_purge(arena, limit, 0);
}

/* Raises the order of one piece of `list` by a merge that would be possible if all of the list were
 * free; the buddy is dropped from the list when it stands there. */
static bool raise_one(const struct jf_arena *arena, struct jf_dirty_chunk *list, size_t *count) {
    for (size_t i = 0; i < *count; i++) {
        struct jf_dirty_chunk *piece = &list[i];
        uint32_t bit = (uint32_t)1 << piece->order;
        bool found = piece->order < arena->window_order &&
                     jf_pieces_has(&arena->pieces, piece->unit ^ bit, piece->order);
        for (size_t j = 0; j < *count && !found; j++) {
            if (list[j].order == piece->order && list[j].unit == (piece->unit ^ bit)) {
                list[i > j ? j : i].unit &= ~bit;
                list[i > j ? j : i].order++;
                list[i > j ? i : j] = list[--*count];
                return true;
            }
        }
        if (found) {
            piece->unit &= ~bit;
            piece->order++;
            return true;
        }
    }
    return false;
}

int jf_arena_largest_order(struct jf_arena *arena) {
    struct jf_dirty_chunk list[JF_ARENA_DIRTY_MAX];
    int largest = -1;
    jf_os_mutex_lock(&arena->mutex);
    for (int order = 0; order < JF_ARENA_ORDERS; order++) {
        largest = arena->pieces.count[order] != 0 ? order : largest;
    }
    size_t count = arena->dirty_count;
    for (size_t i = 0; i < count; i++) {
        list[i] = arena->dirty[i];
    }
    while (raise_one(arena, list, &count)) {
    }
    jf_os_mutex_unlock(&arena->mutex);
    for (size_t i = 0; i < count; i++) {
        largest = (int)list[i].order > largest ? (int)list[i].order : largest;
    }
    return largest;
}

/* The threads that were giving chunks back do not exist in the child: it does it in their place. */
static void adopt_giving(struct jf_arena *arena) {
    size_t step = (size_t)1 << (arena->granule_shift - JF_UNIT_SHIFT);
    for (size_t start = 0; start < arena->unit_count && arena->giving != 0; start += step) {
        if (!jf_granule_is_open(arena->open, start >> (arena->granule_shift - JF_UNIT_SHIFT))) {
            continue;
        }
        for (size_t unit = start; unit < start + step; unit++) {
            unsigned char byte = atomic_load_explicit(&arena->map[unit], memory_order_relaxed);
            if (jf_map_kind(byte) == JF_MAP_GIVING) {
                give(arena, unit, jf_map_order(byte));
            }
        }
    }
}

void jf_arena_fork_prepare(struct jf_arena *arena) {
    jf_os_mutex_lock(&arena->mutex);
}

void jf_arena_fork_done(struct jf_arena *arena, bool in_child) {
    if (!in_child) {
        jf_os_mutex_unlock(&arena->mutex);
        return;
    }
    jf_os_mutex_init(&arena->mutex);
    jf_os_mutex_lock(&arena->mutex);
    adopt_giving(arena);
    jf_os_mutex_unlock(&arena->mutex);
}
