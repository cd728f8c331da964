/* Pools: blocks and their free slots. */
#include "collections/pool.h"

#include "base/mark.h"

#include <string.h>

enum { COMMIT_STEP = 64 << 10 }; /* bytes of a block that are accounted for at a time */

/* ------------------------------------------------------------------------------------- lists */

static uint32_t usable(const struct jf_pool_block *block) {
    return block->pool->slots - (block->taken_end - block->taken_first);
}

static struct jf_pool_block **list_of(struct jf_pool_block *block) {
    return block->full ? &block->pool->full : &block->pool->bins[block->bin];
}

/* Least used slots of a block in this bin; of a full one for the bin behind the last. */
static uint32_t bin_start(uint32_t most, unsigned bin) {
    uint32_t start =
        (uint32_t)(((uint64_t)most * (bin - 1) + JF_POOL_BINS - 2) / (JF_POOL_BINS - 1));
    return start > 0 ? start : 1;
}

static void choose_bin(struct jf_pool_block *block) {
    uint32_t most = usable(block);
    block->full = block->used == most;
    block->bin = 0;
    block->bin_low = block->full ? most : 0;
    block->bin_high = block->full ? most + 1 : 1;
    if (block->full || block->used == 0)
        return;
    block->bin = 1 + (unsigned)((uint64_t)block->used * (JF_POOL_BINS - 1) / most);
    block->bin_low = bin_start(most, block->bin);
    block->bin_high = bin_start(most, block->bin + 1);
}

static void enlist(struct jf_pool_block *block) {
    struct jf_pool *pool = block->pool;
    choose_bin(block);
    struct jf_pool_block **list = list_of(block);
    block->previous = NULL;
    block->next = *list;
    if (*list != NULL)
        (*list)->previous = block;
    *list = block;
    if (!block->full)
        pool->bin_mask |= 1u << block->bin;
    pool->empty += block->used == 0;
}

static void unlist(struct jf_pool_block *block) {
    struct jf_pool *pool = block->pool;
    struct jf_pool_block **list = list_of(block);
    if (block->previous != NULL)
        block->previous->next = block->next;
    else
        *list = block->next;
    if (block->next != NULL)
        block->next->previous = block->previous;
    block->next = block->previous = NULL;
    if (!block->full && *list == NULL)
        pool->bin_mask &= ~(1u << block->bin);
    pool->empty -= !block->full && block->bin == 0;
}

void jf_pool_rebin(struct jf_pool_block *block) {
    if (block->used - block->bin_low < block->bin_high - block->bin_low)
        return;
    unlist(block);
    enlist(block);
}

/* ------------------------------------------------------------------------------------- memory */

static bool commit(struct jf_pool_block *block, size_t bytes) {
    struct jf_heap *heap = block->pool->heap;
    if (!jf_heap_commit(heap, bytes, 0))
        return false;
    jf_word_fetch_add(&heap->u.grow.pool_bytes, bytes);
    block->committed += bytes;
    return true;
}

static size_t mark_size(const struct jf_pool *pool) {
    return pool->handles ? sizeof(uint32_t) : 1;
}

/* Lays the marks and bits into their slots and marks those as taken. A handle pool's first slot is never an
 * element's: a block's header would lie before it. */
static void lay_marks(struct jf_pool_block *block, bool zero) {
    struct jf_pool *pool = block->pool;
    uint32_t first = pool->sequence++ % pool->colours * pool->taken;
    uintptr_t at = jf_bits_round_up(block->region.start + first * pool->stride, 64);
    size_t marks = jf_bits_round_up(pool->marks * mark_size(pool), 64);
    size_t bits = (size_t)(pool->slots + 63) / 64 * sizeof(uint64_t);
    block->marks = (void *)at;
    block->free = (uint64_t *)(at + marks);
    block->taken_first = first;
    block->taken_end = first + pool->taken;
    if (!zero)
        memset(block->marks, 0, marks + bits);
    for (uint32_t slot = first; slot < block->taken_end; slot++) {
        if (pool->handles)
            *jf_pool_index(block, slot) = JF_POOL_MARK_TAKEN;
        else
            *jf_pool_state(block, slot) = JF_POOL_TAKEN;
    }
    uintptr_t taken = jf_pool_element(block, first);
    uintptr_t end = jf_pool_element(block, block->taken_end);
    jf_mark_close(block->region.start, taken - block->region.start);
    jf_mark_close(end, block->region.end - end);
}

static struct jf_pool_block *new_descriptor(struct jf_window *window) {
    struct jf_pool_block *block = window->pool_blocks;
    if (block == NULL)
        return jf_arena_meta_alloc(window->arena, sizeof *block);
    window->pool_blocks = block->next;
    block->carved = block->used = block->hint = 0;
    block->committed = 0;
    block->stuck = false;
    return block;
}

static struct jf_pool_block *add_block(struct jf_pool *pool) {
    struct jf_window *window = pool->window;
    struct jf_pool_block *block = new_descriptor(window);
    bool zero;
    if (block == NULL)
        return NULL;
    block->region.heap = pool->heap;
    block->region.state = JF_REGION_POOL;
    uintptr_t start =
        jf_arena_alloc(window->arena, pool->order, JF_CHUNK_POOL, &block->region, &zero);
    if (start == 0)
        goto fail;
    __atomic_store_n(&block->region.start, start, __ATOMIC_RELAXED);
    block->region.end = start + ((size_t)1 << pool->shift);
    __atomic_store_n(&block->pool, pool, __ATOMIC_RELEASE);
    if (!commit(block, jf_bits_round_up(pool->taken * pool->stride, JF_PAGE_SIZE))) {
        jf_arena_free(window->arena, block->region.start, 0);
        goto fail;
    }
    lay_marks(block, zero);
    pool->blocks++;
    enlist(block);
    return block;
fail:
    jf_pool_forget(window, block);
    return NULL;
}

/* Bytes from the chunk's start that may hold memory. */
static size_t extent(const struct jf_pool_block *block) {
    uint32_t slots = block->carved > block->taken_end ? block->carved : block->taken_end;
    return slots * block->pool->stride;
}

size_t jf_pool_remove(struct jf_pool_block *block) {
    struct jf_pool *pool = block->pool;
    unlist(block);
    pool->blocks--;
    jf_heap_uncommit(pool->heap, block->committed);
    jf_word_fetch_add(&pool->heap->u.grow.pool_bytes, (jf_word)0 - block->committed);
    return block->committed;
}

void jf_pool_release(struct jf_pool_block *block, bool at_once) {
    struct jf_window *window = block->pool->window;
    uintptr_t start = block->region.start;
    size_t size = block->region.end - start;
    size_t dirty = jf_bits_round_up(extent(block), JF_PAGE_SIZE);
    dirty = dirty < size ? dirty : size;
    jf_mark_open(start, size);
    if (at_once)
        jf_os_give_back(start, dirty);
    jf_arena_free(window->arena, start, at_once ? 0 : dirty);
}

void jf_pool_forget(struct jf_window *window, struct jf_pool_block *block) {
    __atomic_store_n(&block->pool, NULL, __ATOMIC_RELEASE);
    block->region.state = JF_REGION_FREE;
    block->next = window->pool_blocks;
    window->pool_blocks = block;
}

void jf_pool_trim(struct jf_pool *pool) {
    while (pool->empty > 1 && pool->visiting == 0) {
        struct jf_pool_block *block = pool->bins[0];
        jf_pool_remove(block);
        jf_pool_release(block, false);
        jf_pool_forget(pool->window, block);
    }
}

/* ------------------------------------------------------------------------------------- slots */

static bool carve(struct jf_pool_block *block, uint32_t *ret_slot) {
    struct jf_pool *pool = block->pool;
    uint32_t slot = block->carved;
    if (jf_pool_is_taken(block, slot))
        slot = block->taken_end;
    if (slot >= pool->slots)
        return false;
    /* the slots' own bytes so far; those of the marks have been counted */
    size_t had = block->committed - jf_bits_round_up(pool->taken * pool->stride, JF_PAGE_SIZE);
    size_t need = (slot + 1) * pool->stride;
    if (need > had && !commit(block, jf_bits_round_up(need - had, COMMIT_STEP)))
        return false;
    block->carved = slot + 1;
    *ret_slot = slot;
    return true;
}

static bool take_freed(struct jf_pool_block *block, uint32_t *ret_slot) {
    uint32_t words = (block->carved + 63) / 64;
    for (uint32_t word = block->hint; word < words; word++) {
        if (block->free[word] == 0)
            continue;
        block->hint = word;
        *ret_slot = word * 64 + jf_bits_lowest(block->free[word]);
        block->free[word] &= block->free[word] - 1;
        return true;
    }
    block->hint = words;
    return false;
}

bool jf_pool_take(struct jf_pool_block *block, uint32_t *ret_slot) {
    if (!take_freed(block, ret_slot) && !carve(block, ret_slot))
        return false;
    block->used++;
    return true;
}

void jf_pool_give(struct jf_pool_block *block, uint32_t slot) {
    uint32_t word = slot / 64;
    block->free[word] |= (uint64_t)1 << (slot % 64);
    if (word < block->hint)
        block->hint = word;
    block->used--;
}

static void *mark_of(const struct jf_pool_block *block, uint32_t slot) {
    return block->pool->handles ? (void *)jf_pool_index(block, slot)
                                : (void *)jf_pool_state(block, slot);
}

/* The lowest address is to be given out first: the last of the cache. */
static void reverse(struct jf_pool_cache *cache) {
    for (uint32_t i = 0, j = jf_pool_at_hand(cache); i + 1 < j; i++) {
        struct jf_pool_slot slot = cache->slots[i];
        cache->slots[i] = cache->slots[--j];
        cache->slots[j] = slot;
    }
}

bool jf_pool_fill(struct jf_pool *pool, struct jf_pool_cache *cache) {
    uint32_t most = pool->cache_most / 2;
    bool exhausted = false;
    jf_pool_collect(pool);
    while (jf_pool_at_hand(cache) < most && !exhausted) {
        struct jf_pool_block *block =
            pool->bin_mask != 0 ? pool->bins[jf_bits_log2(pool->bin_mask)] : add_block(pool);
        if (block == NULL)
            break;
        uint32_t slot;
        while (jf_pool_at_hand(cache) < most && jf_pool_take(block, &slot))
            *cache->top++ =
                (struct jf_pool_slot){jf_pool_element(block, slot), mark_of(block, slot)};
        /* not full and nothing to be had: the heap's limit */
        exhausted = jf_pool_at_hand(cache) < most && block->used != usable(block);
        jf_pool_rebin(block);
    }
    reverse(cache);
    return jf_pool_at_hand(cache) != 0;
}

void jf_pool_flush(struct jf_pool *pool, struct jf_pool_cache *cache, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uintptr_t element = cache->slots[i].element;
        struct jf_pool_block *block = jf_pool_block_at(pool->window, element);
        jf_pool_give(block, jf_pool_slot_at(pool, block, element));
        jf_pool_rebin(block);
    }
    cache->top -= count;
    memmove(cache->slots, cache->slots + count, jf_pool_at_hand(cache) * sizeof cache->slots[0]);
    jf_pool_trim(pool);
}

/* ------------------------------------------------------------------------------------- by handle */

void jf_pool_collect(struct jf_pool *pool) {
    struct jf_pool_block *block =
        (struct jf_pool_block *)(uintptr_t)jf_word_fetch_and(&pool->freed_blocks, 0);
    while (block != NULL) {
        struct jf_pool_block *next = block->freed_next;
        uint32_t link = (uint32_t)jf_word_fetch_and(&block->freed, 0);
        while (link != 0) {
            uint32_t slot = link - 1;
            link = *jf_pool_index(block, slot);
            __atomic_store_n(jf_pool_index(block, slot), 0, __ATOMIC_RELAXED);
            jf_pool_give(block, slot);
        }
        jf_pool_rebin(block);
        block = next;
    }
    jf_pool_trim(pool);
}

/* The block comes into the pool's list with the first element of its own list, and only with that. */
static void push_freed(struct jf_region *region, uintptr_t payload) {
    struct jf_pool_block *block = (struct jf_pool_block *)(void *)region;
    struct jf_pool *pool = block->pool;
    uint32_t slot = jf_pool_slot_at(pool, block, payload);
    jf_word head = jf_word_load(&block->freed);
    do
        __atomic_store_n(jf_pool_index(block, slot), (uint32_t)head, __ATOMIC_RELAXED);
    while (!jf_word_compare_swap(&block->freed, &head, (jf_word)slot + 1));
    if (head != 0)
        return;
    jf_word first = jf_word_load(&pool->freed_blocks);
    do
        block->freed_next = (struct jf_pool_block *)(uintptr_t)first;
    while (!jf_word_compare_swap(&pool->freed_blocks, &first, (jf_word)(uintptr_t)block));
}

static bool names(const struct jf_region *region, uintptr_t payload, uint32_t index) {
    return jf_pool_index_at(region, payload) == index;
}

size_t jf_pool_size_at(const struct jf_region *region) {
    const struct jf_pool_block *block = (const struct jf_pool_block *)(const void *)region;
    return block->pool != NULL ? block->pool->element_size : 0;
}

uint32_t jf_pool_index_at(const struct jf_region *region, uintptr_t payload) {
    const struct jf_pool_block *block = (const struct jf_pool_block *)(const void *)region;
    const struct jf_pool *pool = __atomic_load_n(&block->pool, __ATOMIC_ACQUIRE);
    if (pool == NULL || !pool->handles)
        return 0;
    uint32_t slot = jf_pool_slot_at(pool, block, payload);
    if (slot >= block->carved || jf_pool_is_taken(block, slot) ||
        jf_pool_element(block, slot) != payload)
        return 0;
    return __atomic_load_n(jf_pool_index(block, slot), __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------------------------- rule 15 */

static const char *check_block(const struct jf_pool_block *block, size_t *committed) {
    const struct jf_pool *pool = block->pool;
    uint32_t free = 0;
    uint32_t carved = block->carved;
    for (uint32_t slot = 0; slot < carved; slot++) {
        bool is_free = (block->free[slot / 64] >> (slot % 64) & 1) != 0;
        bool taken = jf_pool_is_taken(block, slot);
        bool marked = pool->handles ? *jf_pool_index(block, slot) != 0
                                    : *jf_pool_state(block, slot) != JF_POOL_FREE;
        if (is_free && (taken || marked))
            return "a slot that is free in its block is not in use";
        free += is_free;
    }
    uint32_t taken = carved > block->taken_first ? block->taken_end - block->taken_first : 0;
    if (carved > block->taken_first && carved < block->taken_end)
        return "slots that hold the marks are carved together";
    if (carved - taken - free != block->used)
        return "a pool's block counts its used slots rightly";
    *committed += block->committed;
    return NULL;
}

static const char *check_list(const struct jf_pool_block *block, const struct jf_pool *pool,
                              size_t *blocks, size_t *committed) {
    const char *text = NULL;
    for (; block != NULL && text == NULL; block = block->next) {
        ++*blocks;
        if (block->pool != pool || *blocks > pool->blocks)
            return "a pool's block is in one of its lists, once";
        text = check_block(block, committed);
    }
    return text;
}

static const char *check(const struct jf_heap *heap) {
    size_t committed = 0;
    for (const struct jf_pool *pool = heap->u.grow.window->pools; pool != NULL; pool = pool->next) {
        size_t blocks = 0;
        if (pool->heap != heap)
            continue;
        const char *text = check_list(pool->full, pool, &blocks, &committed);
        for (unsigned bin = 0; bin < JF_POOL_BINS && text == NULL; bin++)
            text = check_list(pool->bins[bin], pool, &blocks, &committed);
        if (text == NULL && blocks != pool->blocks)
            text = "a pool counts its blocks rightly";
        if (text != NULL)
            return text;
    }
    return committed == jf_word_load(&heap->u.grow.pool_bytes)
               ? NULL
               : "the heap counts its pools' memory rightly";
}

const struct jf_pool_ops jf_pool_ops = {.freed = push_freed, .names = names, .check = check};
