/* Inside of a pool: blocks, each a chunk of the arena cut into slots of one stride.
 *
 *   chunk  [slot][slot] ... [marks | free bits] ... [slot][slot]   (handles: a page and more is left at the end)
 *
 * A mark for each slot and a bit for each slot lie together in the place of some slots, in another place in
 * each block, so that the marks of many blocks do not compete for the same lines of a cache.
 *   stable pool   a mark is a byte: JF_POOL_FREE, JF_POOL_LIVE, JF_POOL_TAKEN (no slot for elements)
 *   handle pool   a mark is the index of the element's entry; 0, or a link, while there is none
 *
 * A slot is live (the program has it), at hand (in a thread's cache), or free in its block: then its bit is
 * set, or it was never touched and lies at or above `carved`. block.used counts slots that are not free.
 * Elements freed by their handles come back through the block's list `freed`, linked through their marks.
 *
 * The window's mutex guards everything but the marks and the caches: a cache and the marks of its slots are
 * its thread's. In a handle pool that thread is inside while it uses them, so that others can take them back.
 */
#ifndef JEFF_COLLECTIONS_POOL_H
#define JEFF_COLLECTIONS_POOL_H

#include "collections/blocks.h"
#include "heap/region.h"
#include <jeff/pool.h>

enum {
    JF_POOL_FREE = 0,
    JF_POOL_LIVE = 1,
    JF_POOL_TAKEN = 2,
    JF_POOL_BINS =
        17, /* 0: empty blocks; the others by slots in use, in 16ths; full ones are in none */
    JF_POOL_CACHE_MAX = 128,
    JF_POOL_RECENT = 128, /* blocks a cache remembers */
};
#define JF_POOL_MARK_TAKEN UINT32_MAX

struct jf_pool_block {
    struct jf_region region; /* what the heap sees: heap, start, end, state */
    struct jf_pool *pool;    /* NULL: the descriptor is not in use */
    void *marks;
    uint64_t *free;
    uint32_t taken_first, taken_end; /* slots that hold marks and bits */
    uint32_t carved;
    uint32_t used;
    uint32_t hint; /* no free bit in words before */
    bool full;
    bool stuck; /* the compaction under way has got out of it what it can */
    unsigned bin;
    uint32_t bin_low, bin_high; /* used slots with which it stays in its list: low .. high - 1 */
    size_t committed;
    struct jf_pool_block *next, *previous; /* of its bin, or the full ones */
    struct jf_pool_block *visit_next;      /* of the visit under way */
    jf_word freed; /* handles: slot + 1 of the element freed last; 0 = none */
    struct jf_pool_block *freed_next;
};

struct jf_pool {
    /* constant */
    struct jf_heap *heap;
    struct jf_window *window;
    uint32_t id;
    uint32_t fast_id; /* the same, or none in pools that the fast paths are not for */
    bool handles;
    bool zeroed;
    size_t element_size;
    size_t stride;
    uint64_t reciprocal; /* of the stride, in 2^-64ths, rounded up */
    unsigned order;      /* of a block's chunk */
    unsigned shift;      /* log2 of its bytes */
    uint32_t slots;      /* in a block, those of the marks too */
    uint32_t marks;   /* all that there is room for in the chunk: every address in it has a mark */
    uint32_t taken;   /* slots that the marks and bits of a block take */
    uint32_t colours; /* places for them */
    uint32_t cache_most;
    /* under the window's mutex */
    struct jf_pool_block *bins[JF_POOL_BINS];
    struct jf_pool_block *full;
    uint32_t bin_mask;
    uint32_t sequence;
    size_t blocks;
    size_t empty;      /* blocks in bin 0 */
    unsigned visiting; /* visits under way: empty blocks stay */
    struct jf_pool *next, *previous;
    jf_word freed_blocks; /* blocks with a list `freed`: pushed by anybody */
    uint32_t allocations; /* towards the scramble period */
};

struct jf_pool_slot {
    uintptr_t element;
    void *mark;
};

struct jf_pool_cache {
    struct jf_pool_slot *top;                     /* behind the slot that is given out next */
    struct jf_pool_slot *most;                    /* where it is full */
    struct jf_pool_block *recent[JF_POOL_RECENT]; /* by the chunk's address; never NULL */
    struct jf_pool_slot slots[JF_POOL_CACHE_MAX];
};

static inline uint32_t jf_pool_at_hand(const struct jf_pool_cache *cache) {
    return (uint32_t)(cache->top - cache->slots);
}

/* Makes an empty cache of `cache`, for `pool`. */
void jf_pool_cache_init(const struct jf_pool *pool, struct jf_pool_cache *cache);

static inline bool jf_pool_is_taken(const struct jf_pool_block *block, uint32_t slot) {
    return slot - block->taken_first < block->taken_end - block->taken_first;
}

static inline uintptr_t jf_pool_element(const struct jf_pool_block *block, uint32_t slot) {
    return block->region.start + slot * block->pool->stride;
}

/* The slot that an offset into a chunk lies in; *ret_exact: it begins there. A division by multiplication
 * with the reciprocal, whose low half tells multiples (Lemire, Kaser, Kurz: "Faster remainder by direct
 * computation", 2019), for offsets and strides below 2^32. */
static inline uint32_t jf_pool_divide(const struct jf_pool *pool, uintptr_t offset,
                                      bool *ret_exact) {
    uint64_t low;
    uint64_t slot = jf_bits_multiply_wide((uint32_t)offset, pool->reciprocal, &low);
    *ret_exact = low < pool->reciprocal;
    return (uint32_t)slot;
}

static inline uint32_t jf_pool_slot_at(const struct jf_pool *pool,
                                       const struct jf_pool_block *block, uintptr_t address) {
    bool exact;
    return jf_pool_divide(pool, address - block->region.start, &exact);
}

static inline unsigned char *jf_pool_state(const struct jf_pool_block *block, uint32_t slot) {
    return (unsigned char *)block->marks + slot;
}

static inline uint32_t *jf_pool_index(const struct jf_pool_block *block, uint32_t slot) {
    return (uint32_t *)block->marks + slot;
}

/* The block that holds an address, any number; NULL when none does. Lock-free. */
static inline struct jf_pool_block *jf_pool_block_at(const struct jf_window *window,
                                                     uintptr_t address) {
    struct jf_chunk chunk = jf_arena_find(window->arena, address);
    return chunk.kind == JF_CHUNK_POOL ? (struct jf_pool_block *)chunk.owner : NULL;
}

/* Whether the number, whatever it is, is the index of an entry that is there. Lock-free. */
static inline bool jf_pool_is_entry(const struct jf_window *window, uint32_t index) {
    size_t pages = __atomic_load_n(&window->table.pages_used, __ATOMIC_ACQUIRE);
    return index != 0 && index < pages << JF_TABLE_PAGE_SHIFT;
}

/* For a block given as a region, and an element's address: bytes usable, index of the entry (0: none). */
size_t jf_pool_size_at(const struct jf_region *block);
uint32_t jf_pool_index_at(const struct jf_region *block, uintptr_t payload);

/* Ends all pools of a heap that ends itself. No lock held. */
void jf_pool_drop_all(struct jf_heap *heap);

/* Moves every element of a handle pool that nobody uses to another slot. No lock held. */
void jf_pool_scramble(struct jf_pool *pool);

extern const struct jf_pool_ops jf_pool_ops;

/* --- pool_blocks.c. The window's mutex is held. */

/* Fills the cache up to half with free slots; false when there is no memory for a single one. */
bool jf_pool_fill(struct jf_pool *pool, struct jf_pool_cache *cache);

/* Takes `count` slots out of the cache, those at hand for longest first, and frees them in their blocks. */
void jf_pool_flush(struct jf_pool *pool, struct jf_pool_cache *cache, uint32_t count);

/* Takes one free slot of the block. */
bool jf_pool_take(struct jf_pool_block *block, uint32_t *ret_slot);

/* Frees one slot in its block, whose mark says so already. */
void jf_pool_give(struct jf_pool_block *block, uint32_t slot);

/* Puts the block into the bin that its use calls for. */
void jf_pool_rebin(struct jf_pool_block *block);

/* Ends a block in three steps: takes it out of the pool and its accounts (returns its bytes); gives its chunk
 * back, `at_once` to the system (needs no mutex); and keeps its descriptor for another block. Descriptors are
 * never given back as memory: a late reader finds one of no pool, or of another. */
size_t jf_pool_remove(struct jf_pool_block *block);
void jf_pool_release(struct jf_pool_block *block, bool at_once);
void jf_pool_forget(struct jf_window *window, struct jf_pool_block *block);

/* Gives back empty blocks but one. */
void jf_pool_trim(struct jf_pool *pool);

/* Frees in their blocks the elements that were freed by their handles. */
void jf_pool_collect(struct jf_pool *pool);

/* --- pool_threads.c */

/* The calling thread's cache, made if need be; NULL when there is no memory. */
struct jf_pool_cache *jf_pool_cache_get(struct jf_pool *pool, struct jf_thread **ret_thread);

/* Closes the other threads, drains the rings of those that are outside and gives what is at hand in their
 * caches back to the blocks. The window's mutex is held. `all`: waits for those that are inside. */
void jf_pool_recall(struct jf_pool *pool, bool all);

/* Frees all caches of the pool. The window's mutex is held, no thread uses the pool. */
void jf_pool_drop_caches(struct jf_pool *pool);

#endif
