/* Huge blocks: each has a chunk of the arena of its own. The chunk's address space is a power of two, the
 * memory is what was asked for in whole pages; so a block often grows where it lies.
 */
#include "malloc/facade.h"

#include <string.h>

enum {
    GIVE_BACK_MIN = 64 << 10, /* a smaller rest is kept when a block shrinks */
    ALLOWED_MAX =
        8192, /* blocks with huge pages: a process may have 65530 mappings, each may make two */
};
#define HUGE_MIN ((size_t)4 << 20) /* smaller blocks get no huge pages */
#define AHEAD_MIN                                                                                  \
    ((size_t)16 << 20) /* a growing block so large may end in one that is not yet full */

static bool chunk_order(size_t bytes, unsigned *ret_order) {
    if (bytes > (size_t)1 << (JF_UNIT_SHIFT + JF_ARENA_ORDERS - 1))
        return false;
    unsigned log2 = jf_bits_log2_up(bytes);
    *ret_order = log2 <= JF_UNIT_SHIFT ? 0 : log2 - JF_UNIT_SHIFT;
    return true;
}

static bool whole_pages(size_t size, size_t *ret_size) {
    size_t page = jf_malloc.page_size;
    size_t sum;
    if (!jf_bits_add(size == 0 ? 1 : size, page - 1, &sum))
        return false;
    *ret_size = sum & ~(page - 1);
    return true;
}

static void count_bytes(size_t change) {
    __atomic_fetch_add(&jf_malloc.huge_bytes, change, __ATOMIC_RELAXED);
}

static uintptr_t take_chunk(struct jf_huge *huge, size_t room, bool *ret_zero) {
    unsigned order;
    if (room > huge->size && chunk_order(room, &order) && order > huge->order) {
        uintptr_t address = jf_arena_alloc(jf_malloc.arena, order, JF_CHUNK_HUGE, huge, ret_zero);
        if (address != 0) {
            huge->order = order;
            return address;
        }
    }
    return jf_arena_alloc(jf_malloc.arena, huge->order, JF_CHUNK_HUGE, huge, ret_zero);
}

/* ------------------------------------------------------------------------------------- huge pages */

/* Allows huge pages for what lies between `held`, the bytes that may have memory already, and the block's end.
 * A block that grows may get the huge page in which it ends at once. */
static void allow_huge(struct jf_huge *huge, size_t held, bool grows) {
    size_t chunk = JF_UNIT_SIZE << huge->order;
    size_t to = jf_bits_round_down(huge->size, JF_OS_HUGE);
    size_t from = jf_bits_round_up(held, JF_OS_HUGE);
    if (!jf_malloc.huge_pages || huge->size < HUGE_MIN)
        return;
    if (grows && huge->size >= AHEAD_MIN && jf_bits_round_up(huge->size, JF_OS_HUGE) <= chunk)
        to = jf_bits_round_up(huge->size, JF_OS_HUGE);
    if (huge->allowed_to != 0)
        from = huge->allowed_to;
    if (from >= to)
        return;
    if (huge->allowed_to == 0) {
        size_t count = __atomic_fetch_add(&jf_malloc.huge_allowed, 1, __ATOMIC_RELAXED);
        if (count >= ALLOWED_MAX) {
            __atomic_fetch_sub(&jf_malloc.huge_allowed, 1, __ATOMIC_RELAXED);
            return;
        }
        huge->allowed_from = from;
    }
    jf_os_allow_huge(huge->address + from, to - from, true);
    huge->allowed_to = to;
    huge->dirty = huge->dirty > to ? huge->dirty : to;
}

/* The chunk becomes part of its surroundings again: one mapping. What is there in huge pages stays so. */
static void end_allowed(struct jf_huge *huge) {
    if (huge->allowed_to == 0)
        return;
    jf_os_allow_huge(huge->address + huge->allowed_from, huge->allowed_to - huge->allowed_from,
                     false);
    huge->allowed_from = huge->allowed_to = 0;
    __atomic_fetch_sub(&jf_malloc.huge_allowed, 1, __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------------------------- blocks */

static struct jf_huge *new_huge(size_t size, size_t room, size_t alignment, bool *ret_zero) {
    unsigned order;
    unsigned least;
    size_t pages;
    if (jf_malloc_units() == 0 || !whole_pages(size, &pages) || !chunk_order(pages, &order) ||
        !chunk_order(alignment, &least))
        return NULL;
    struct jf_huge *huge = jf_arena_meta_alloc(jf_malloc.arena, sizeof *huge);
    if (huge == NULL)
        return NULL;
    huge->size = huge->dirty = pages;
    huge->order_least = least;
    huge->order = order > least ? order : least;
    uintptr_t address = take_chunk(huge, room, ret_zero);
    if (address == 0) {
        jf_arena_meta_free(jf_malloc.arena, huge, sizeof *huge);
        return NULL;
    }
    __atomic_store_n(&huge->address, address, __ATOMIC_RELEASE);
    count_bytes(pages);
    __atomic_fetch_add(&jf_malloc.huge_count, 1, __ATOMIC_RELAXED);
    return huge;
}

void *jf_huge_alloc(size_t size, size_t room, size_t alignment, bool *ret_zero) {
    struct jf_huge *huge = new_huge(size, room, alignment, ret_zero);
    if (huge == NULL)
        return NULL;
    allow_huge(huge, *ret_zero ? 0 : jf_arena_stale(jf_malloc.arena, huge->address), false);
    return (void *)huge->address;
}

static void end_huge(struct jf_huge *huge, size_t dirty) {
    end_allowed(huge);
    count_bytes(0 - huge->size);
    __atomic_fetch_sub(&jf_malloc.huge_count, 1, __ATOMIC_RELAXED);
    jf_arena_free(jf_malloc.arena, huge->address, dirty);
    jf_arena_meta_free(jf_malloc.arena, huge, sizeof *huge);
}

void jf_huge_free(struct jf_huge *huge) {
    end_huge(huge, huge->dirty);
}

static void shrink(struct jf_huge *huge, size_t pages) {
    unsigned order;
    chunk_order(pages, &order);
    if (order < huge->order_least)
        order = huge->order_least;
    if (huge->dirty - pages < GIVE_BACK_MIN)
        return;
    end_allowed(huge);
    size_t dirty = huge->dirty;
    if (order < huge->order) {
        size_t chunk = JF_UNIT_SIZE << order;
        jf_arena_shrink(jf_malloc.arena, huge->address, order, dirty);
        huge->order = order;
        dirty = dirty < chunk ? dirty : chunk;
    }
    jf_os_give_back(huge->address + pages, dirty - pages);
    huge->dirty = pages;
}

bool jf_huge_resize(struct jf_huge *huge, size_t size) {
    size_t pages;
    unsigned order;
    if (!whole_pages(size, &pages) || !chunk_order(pages, &order))
        return false;
    if (order > huge->order) {
        if (!jf_arena_extend(jf_malloc.arena, huge->address, order))
            return false;
        huge->order = order;
    }
    bool grows = pages > huge->size;
    size_t held = huge->dirty;
    count_bytes(pages - huge->size);
    huge->size = pages;
    if (grows) {
        huge->dirty = pages > held ? pages : held;
        allow_huge(huge, held, true);
    } else if (pages < held) {
        shrink(huge, pages);
    }
    return true;
}

void *jf_huge_move(struct jf_huge *huge, size_t size) {
    bool zero;
    size_t room;
    /* who has grown once grows again: address space for that costs nothing */
    if (!jf_bits_add(size, size, &room))
        room = 0;
    struct jf_huge *moved = new_huge(size, room, JF_UNIT_SIZE, &zero);
    if (moved == NULL)
        return NULL;
    end_allowed(huge); /* pages move within one mapping */
    size_t dirty = huge->dirty;
    size_t held = zero ? 0 : jf_arena_stale(jf_malloc.arena, moved->address);
    if (jf_arena_move(jf_malloc.arena, huge->address, moved->address, huge->size)) {
        dirty = dirty > huge->size ? dirty : 0;
        allow_huge(moved, held > huge->size ? held : huge->size, true);
    } else {
        allow_huge(moved, held, true);
        memcpy((void *)moved->address, (const void *)huge->address, huge->size);
    }
    end_huge(huge, dirty);
    return (void *)moved->address;
}

struct jf_huge *jf_huge_at(uintptr_t address) {
    if (jf_malloc_units() == 0)
        return NULL;
    struct jf_chunk chunk = jf_arena_find(jf_malloc.arena, address);
    return chunk.kind == JF_CHUNK_HUGE ? chunk.owner : NULL;
}
