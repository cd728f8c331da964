/* The buddy system over one reserved window: chunks, and the map from address to chunk. reserve.c holds
 * the address space, dirty.c keeps and gives back the memory of freed chunks, pieces.c finds free pieces,
 * meta.c serves small bookkeeping objects, check.c walks it all.
 */
#include "arena/internal.h"

#include "base/mark.h"

enum {
    MOVE_MIN = 512 << 10, /* bytes from which on pages change places instead of being copied, */
    MOVES_MAX = 4096,     /* so often: a process may have 65530 mappings */
};

static void write_map(struct jf_arena *arena, size_t first, size_t end, unsigned char byte) {
    for (size_t unit = first; unit < end; unit++) {
        atomic_store_explicit(&arena->map[unit], byte, memory_order_release);
    }
}

/* Takes the lowest piece of the smallest order that suffices, and puts what is left over back. The
 * memory is asked for first: a refusal changes nothing. */
static bool take_clean(struct jf_arena *arena, unsigned order, size_t *ret_unit) {
    unsigned found = order;
    while (found <= arena->window_order && arena->pieces.count[found] == 0) {
        found++;
    }
    if (found > arena->window_order) {
        return false;
    }
    size_t unit = jf_pieces_first(&arena->pieces, found);
    if (!jf_arena_make_accessible(arena, jf_unit_address(arena, unit), JF_UNIT_SIZE << order)) {
        return false;
    }
    jf_pieces_remove(&arena->pieces, unit, found);
    while (found > order) {
        found--;
        jf_pieces_add(&arena->pieces, unit + ((size_t)1 << found), found);
    }
    *ret_unit = unit;
    return true;
}

/* Order of the largest chunk the empty window has. */
static unsigned largest_possible(const struct jf_arena *arena) {
    if (arena->first_unit == 0 || arena->window_order == 0) {
        return arena->window_order;
    }
    return arena->window_order - 1;
}

uintptr_t jf_arena_alloc(struct jf_arena *arena, unsigned order, enum jf_chunk_kind kind,
                         void *owner, bool *ret_zero) {
    size_t unit;
    if (order > largest_possible(arena) || jf_arena_is_refused(&arena->refuse_calls)) {
        return 0;
    }
    jf_os_mutex_lock(&arena->mutex);
    jf_dirty_settle(arena);
    while (!jf_dirty_take(arena, order, &unit) && !take_clean(arena, order, &unit)) {
        if (!jf_dirty_make_room(arena)) {
            jf_os_mutex_unlock(&arena->mutex);
            return 0;
        }
    }
    bool zero = arena->units[unit].stale == 0;
    /* The owner before the map: who finds the kind in the map finds the owner too. */
    atomic_store_explicit(&arena->units[unit].owner, owner, memory_order_release);
    write_map(arena, unit, unit + ((size_t)1 << order), jf_map_byte(kind, order));
    jf_os_mutex_unlock(&arena->mutex);
    if (ret_zero != NULL) {
        *ret_zero = zero;
    }
    /* who had it before may have left it closed */
    jf_mark_open(jf_unit_address(arena, unit), JF_UNIT_SIZE << order);
    return jf_unit_address(arena, unit);
}

/* Bytes from the start of a chunk that may hold memory: what the caller used, or what an earlier owner
 * left when the chunk was handed out dirty. */
static size_t dirty_part(const struct jf_arena *arena, size_t unit, unsigned order, size_t used) {
    size_t size = JF_UNIT_SIZE << order;
    size_t stale = arena->units[unit].stale;
    size_t dirty = used > stale ? used : stale;
    return dirty < size ? dirty : size;
}

size_t jf_arena_stale(const struct jf_arena *arena, uintptr_t address) {
    return arena->units[jf_unit_of(arena, address)].stale;
}

void jf_arena_free(struct jf_arena *arena, uintptr_t address, size_t dirty_size) {
    size_t unit = jf_unit_of(arena, address);
    jf_os_mutex_lock(&arena->mutex);
    unsigned order = jf_map_order(atomic_load_explicit(&arena->map[unit], memory_order_relaxed));
    write_map(arena, unit, unit + ((size_t)1 << order), 0);
    jf_dirty_put(arena, unit, order, dirty_part(arena, unit, order, dirty_size));
    jf_os_mutex_unlock(&arena->mutex);
}

void jf_arena_shrink(struct jf_arena *arena, uintptr_t address, unsigned new_order,
                     size_t dirty_size) {
    size_t unit = jf_unit_of(arena, address);
    jf_os_mutex_lock(&arena->mutex);
    unsigned char byte = atomic_load_explicit(&arena->map[unit], memory_order_relaxed);
    unsigned order = jf_map_order(byte);
    size_t dirty = dirty_part(arena, unit, order, dirty_size);
    /* Half by half: every time the mutex is dropped, what is left is a whole chunk. */
    while (order > new_order) {
        order--;
        size_t half = (size_t)1 << order;
        size_t kept = JF_UNIT_SIZE << order;
        write_map(arena, unit, unit + half, jf_map_byte(jf_map_kind(byte), order));
        write_map(arena, unit + half, unit + 2 * half, 0);
        if (arena->units[unit].stale > kept) {
            arena->units[unit].stale = kept;
        }
        jf_dirty_put(arena, unit + half, order, dirty > kept ? dirty - kept : 0);
        dirty = dirty < kept ? dirty : kept;
    }
    jf_os_mutex_unlock(&arena->mutex);
}

/* Is the right neighbour at every order from `order` up to `new_order` free and whole? */
static bool neighbours_are_free(const struct jf_arena *arena, size_t unit, unsigned order,
                                unsigned new_order) {
    for (; order < new_order; order++) {
        if (!jf_pieces_has(&arena->pieces, unit + ((size_t)1 << order), order)) {
            return false;
        }
    }
    return true;
}

static bool range_has_chunks(const struct jf_arena *arena, size_t first, size_t end) {
    for (size_t unit = first; unit < end; unit++) {
        unsigned char byte = atomic_load_explicit(&arena->map[unit], memory_order_relaxed);
        if (byte != 0 && jf_map_kind(byte) != JF_MAP_DIRTY) {
            return true;
        }
    }
    return false;
}

bool jf_arena_extend(struct jf_arena *arena, uintptr_t address, unsigned new_order) {
    size_t unit = jf_unit_of(arena, address);
    if (new_order > largest_possible(arena) || jf_arena_is_refused(&arena->refuse_calls)) {
        return false;
    }
    size_t end = unit + ((size_t)1 << new_order);
    bool extended = false;
    jf_os_mutex_lock(&arena->mutex);
    unsigned char byte = atomic_load_explicit(&arena->map[unit], memory_order_relaxed);
    unsigned order = jf_map_order(byte);
    size_t old_end = unit + ((size_t)1 << order);
    if (new_order <= order || (unit & (((size_t)1 << new_order) - 1)) != 0) {
        goto done;
    }
    while (!neighbours_are_free(arena, unit, order, new_order)) {
        if (range_has_chunks(arena, old_end, end) || !jf_dirty_flush_range(arena, old_end, end)) {
            goto done;
        }
    }
    if (!jf_arena_make_accessible(arena, jf_unit_address(arena, old_end),
                                  (end - old_end) << JF_UNIT_SHIFT)) {
        goto done;
    }
    for (unsigned i = order; i < new_order; i++) {
        jf_pieces_remove(&arena->pieces, unit + ((size_t)1 << i), i);
    }
    write_map(arena, unit, end, jf_map_byte(jf_map_kind(byte), new_order));
    jf_mark_open(jf_unit_address(arena, old_end), (end - old_end) << JF_UNIT_SHIFT);
    extended = true;
done:
    jf_os_mutex_unlock(&arena->mutex);
    return extended;
}

/* --- From an address to its chunk. */

static size_t head_of(size_t unit, unsigned order) {
    return unit & ~(((size_t)1 << order) - 1);
}

bool jf_arena_move(struct jf_arena *arena, uintptr_t from, uintptr_t to, size_t size) {
    if (JF_MARK_ACTIVE || size < MOVE_MIN ||
        atomic_load_explicit(&arena->moves, memory_order_relaxed) >= MOVES_MAX ||
        !jf_os_move(from, to, jf_bits_round_up(size, jf_os_page_size()))) {
        return false;
    }
    atomic_fetch_add_explicit(&arena->moves, 1, memory_order_relaxed);
    return true;
}

struct jf_chunk jf_arena_find(const struct jf_arena *arena, uintptr_t address) {
    struct jf_chunk chunk = {0, 0, JF_CHUNK_NONE, NULL};
    if (address - arena->base >= arena->size) {
        return chunk;
    }
    size_t unit = jf_unit_of(arena, address);
    unsigned char byte = atomic_load_explicit(&arena->map[unit], memory_order_acquire);
    unsigned kind = jf_map_kind(byte);
    if (kind == JF_CHUNK_NONE || kind >= JF_MAP_DIRTY) {
        return chunk;
    }
    size_t head = head_of(unit, jf_map_order(byte));
    chunk.address = jf_unit_address(arena, head);
    chunk.order = jf_map_order(byte);
    chunk.kind = (enum jf_chunk_kind)kind;
    chunk.owner = atomic_load_explicit(&arena->units[head].owner, memory_order_acquire);
    return chunk;
}

void *jf_arena_owner(const struct jf_arena *arena, uintptr_t address) {
    size_t unit = jf_unit_of(arena, address);
    unsigned char byte = atomic_load_explicit(&arena->map[unit], memory_order_acquire);
    return atomic_load_explicit(&arena->units[head_of(unit, jf_map_order(byte))].owner,
                                memory_order_acquire);
}
