/* THE MAP: what a heap is made of, and the rules it lives by.
 *
 *   growing profile                                      fixed profile (all inside the buffer)
 *   window  [ page notes | entries | heads | arena . ]   [ jf_heap | region ........ | entries ]
 *                                    |                               blocks -> hole    <- grow
 *           regions of 1 MiB, large blocks in chunks
 *
 *   handle -> entry -> block -> (header) -> entry          region -> heap
 *
 * Growing: all heaps share one window (jf_window): its arena, its handle table, its threads. Every
 * thread bumps blocks into regions of its own (jf_local), takes entries from table pages of its own and
 * puts what it frees into a ring of its own; so malloc and free touch nothing shared. A region belongs
 * to exactly one of: a thread (it bumps into it), the compactor, or nobody (then it is in a list of its
 * heap, by density). Changes of hands happen under the window's mutex.
 * Fixed: one mutex per heap guards everything but the entries' lock counts.
 *
 * Bytes of a region, from its first header to its end:  live blocks + holes + dead blocks; a block is
 * live when its header says block and its entry says live and points back to it.
 *   region.live     = strides of blocks not yet accounted as freed + bytes claimed by the owner
 *   region.pages    = pages that may hold memory; every page with a live block, a header or bytes
 *                     claimed by the owner is in it
 *   heap.committed  = sum of pages of its regions + pages of its large blocks + pool_bytes
 *
 * Rules (numbers as reported by rmcheck; check/rules.c has one function for each):
 *    1 header-chain    strides lead from the first header of a region exactly to its end
 *    2 header-kind     every header is a hole, a dead block or a block
 *    3 entry-back      a block's entry exists, is in use, and points back to the block
 *    4 entry-once      no two live entries point to the same block, none to no block
 *    5 alignment       payloads are aligned as their headers say, at least to 16
 *    6 live-sum        region.live equals what a walk of the region counts
 *    7 page-map        every page with a live block is marked as holding memory
 *    8 committed-sum   heap.committed equals the sum over its regions and large blocks
 *    9 list-place      a region is in the list its state and density call for, once
 *   10 hole-bins       fixed: every hole is in the bin of its size, below or above the cursor; no other is
 *   11 entry-free      free entries are linked exactly once; counts of free entries are 0
 *   12 large-entry     a large block's descriptor and its entry name each other
 *   13 arena           the arena's own rules hold
 *   14 table-page      a table page's count of used entries is right
 *   15 pool            a pool's blocks count their elements rightly
 *   16 bins            a freed block not accounted for is once in a bin of its stride, in a ring, in
 *                      the depot, or at a thread's hand
 */
#ifndef JEFF_HEAP_HEAP_H
#define JEFF_HEAP_HEAP_H

#include "arena/arena.h"
#include "base/atomic.h"
#include "base/bits.h"
#include "base/os.h"
#include "handle/entry.h"
#include "handle/table.h"
#include "heap/access.h"
#include "heap/bins.h"
#include "heap/block.h"
#include "heap/depot.h"

enum {
    JF_REGION_SHIFT = 20, /* 1 MiB */
    JF_REGION_ORDER = JF_REGION_SHIFT - JF_UNIT_SHIFT,
    JF_PAGE_SHIFT = 12,
    JF_REGION_PAGES = 1 << (JF_REGION_SHIFT - JF_PAGE_SHIFT),
    JF_REGION_BINS = 32,      /* by live bytes in 32nds of a region */
    JF_CLAIM_SIZE = 64 << 10, /* bytes of a hole that are committed and claimed at a time */
    JF_LARGE_MIN = 128 << 10, /* strides from here up get a chunk of their own */
    JF_RING_SIZE = 32,        /* freed entries a thread gathers before it looks at their blocks */
};
#define JF_REGION_SIZE ((size_t)1 << JF_REGION_SHIFT)
#define JF_PAGE_SIZE ((size_t)1 << JF_PAGE_SHIFT)

struct jf_heap;
struct jf_thread;
struct jf_readers;
struct rm_reader;
struct jf_pool;
struct jf_pool_block;
struct jf_pool_cache;

/* ------------------------------------------------------------------------------------- options */

struct jf_options {
    size_t limit;
    unsigned check;
    unsigned scramble_period;
    uint64_t scramble_seed;
    bool retire;
    void *context;
    rm_moved_fn *moved;
    rm_memory_low_fn *memory_low;
    rm_misuse_fn *misuse;
};

/* ------------------------------------------------------------------------------------- regions */

enum jf_region_state {
    JF_REGION_FREE = 0,   /* descriptor not in use */
    JF_REGION_LISTED = 1, /* nobody's: in a bin of its heap */
    JF_REGION_OWNED = 2,  /* a thread bumps into it */
    JF_REGION_HELD = 3,   /* the compactor works on it */
    JF_REGION_SETTLED =
        4, /* nobody's: compacted, nothing to gain until it changes; in the settled list */
    JF_REGION_STUCK =
        5, /* as SETTLED, but locked blocks keep what could be gained; in a stuck list */
    JF_REGION_POOL =
        6, /* no region: a pool's block, whose descriptor begins with one; in no list */
};

/* Who has looked through a region's holes: for blocks of all sizes, or only for the medium or large ones. */
enum { JF_SWEPT = 1, JF_SWEPT_MEDIUM = 2, JF_SWEPT_LARGE = 4 };

/* Descriptor of a region. Never given back to the system, only reused as a descriptor, so that a late
 * reader finds a region, if perhaps another one. */
struct jf_region {
    jf_word live; /* blocks << 32 | bytes; changed by add, by anybody who accounts for a free */
    struct jf_region
        *crossed_next; /* window's list of regions whose density fell into another bin */
    uint32_t crossed;  /* it is in that list */
    uint32_t pad[11];
    struct jf_heap *heap;
    uintptr_t start; /* chunk address; first header at start + 8 */
    uintptr_t end;   /* behind the last byte; the chain of headers ends at end - 8 */
    enum jf_region_state state;
    unsigned bin;
    bool starved;  /* when it was walked last there was no room to move a block to */
    bool in_place; /* ... all its blocks stayed, for its holes to be filled */
    bool large;    /* it is for large blocks, as far as threads choose */
    uint8_t swept; /* JF_SWEPT..: bumped into all over, and not a quarter of it has died since */
    uint32_t swept_live;               /* bytes live then */
    struct jf_region *next, *previous; /* list of its state; under the window's mutex */
    uint32_t settled_live; /* bytes live when it was settled, or filled by a compaction */
    uint32_t witness;      /* index of an entry that was locked then; 0 = none */
    uint32_t walked_call;  /* compaction call that last looked at its blocks */
    uint32_t pinned_dead;  /* dead bytes that locked blocks kept then */
    uint64_t pages[JF_REGION_PAGES / 64];
};

static inline size_t jf_region_live_bytes(const struct jf_region *region) {
    return (uint32_t)jf_word_load(&region->live);
}

static inline uintptr_t jf_region_first(const struct jf_region *region) {
    return region->start + 8;
}

/* Where the chain of headers ends. */
static inline uintptr_t jf_region_last(const struct jf_region *region) {
    return region->end - 8;
}

/* A block with a chunk of its own: the payload is the chunk's start, there is no header. */
struct jf_large {
    struct jf_heap *heap;
    uintptr_t address;
    size_t size;      /* bytes asked for */
    size_t committed; /* bytes, whole pages from the chunk's start that may hold memory */
    uint32_t index;   /* entry */
    unsigned align_log2;
    unsigned priority;
    unsigned order;       /* of the chunk */
    unsigned order_least; /* what was asked for as room: the chunk does not become smaller */
    struct jf_large *next, *previous;
};

/* A large block's entry and purge priority: walks read them while it is given them. */
static inline uint32_t jf_large_index(const struct jf_large *large) {
    return __atomic_load_n(&large->index, __ATOMIC_RELAXED);
}

static inline unsigned jf_large_priority(const struct jf_large *large) {
    return __atomic_load_n(&large->priority, __ATOMIC_RELAXED);
}

static inline void jf_large_set_priority(struct jf_large *large, unsigned priority) {
    __atomic_store_n(&large->priority, priority, __ATOMIC_RELAXED);
}

static inline void jf_large_name(struct jf_large *large, uint32_t index, unsigned priority) {
    __atomic_store_n(&large->index, index, __ATOMIC_RELAXED);
    jf_large_set_priority(large, priority);
}

/* ------------------------------------------------------------------------------------- threads */

/* What a thread bumps blocks of a heap into, by their strides. Large ones have regions of their own: one small block that
 * lives for long takes away a hole for a large one, wherever it lies. */
enum {
    JF_LOCAL_SMALL,  /* those below the next, and medium ones that fit where it stands */
    JF_LOCAL_MEDIUM, /* they do not sweep among small ones */
    JF_LOCAL_LARGE,
    JF_LOCALS,
    JF_STRIDE_MEDIUM = 1024, /* from here up */
    JF_STRIDE_LARGE = 8 << 10,
};

/* Holes of the region that a local has, which it has left behind: no blocks of the sizes asked for went into them. */
enum { JF_HOLES_MAX = 64 };
struct jf_holes {
    unsigned count;
    struct jf_hole {
        uintptr_t from, to;
    } of[JF_HOLES_MAX];
};

/* A hole a thread bumps into: [bump, limit) is committed and claimed, [limit, hole_end) not yet. */
struct jf_local {
    uintptr_t bump;
    uintptr_t limit;
    uintptr_t hole_end;
    uintptr_t hole;           /* where it began */
    struct jf_region *region; /* NULL: none, and bump = limit = 0 */
    uint32_t blocks;          /* blocks bumped, not yet added to region.live */
    uintptr_t sweep;          /* next header to look at for a hole; 0: the region is swept */
    uintptr_t fetched;        /* lines before this address have been prefetched for the sweep */
    struct jf_holes *holes;   /* NULL: those that it leaves behind are not noted */
    unsigned kind;            /* JF_LOCAL_.. */
    bool adopted;             /* the region was not fresh */
    uint32_t filled;          /* bytes that were bumped into holes of the region before this one */
};

/* What a thread has of a heap. */
struct jf_share {
    struct jf_bins bins;
    struct jf_local local[JF_LOCALS];
    struct jf_holes holes[JF_LOCALS - 1]; /* of all but that for small ones */
    const struct jf_heap *heap;           /* of the fast share: its depot may have more */
};

/* No bin of any size. */
#define JF_KEPT_NONE SIZE_MAX

/* A thread's private state. Only the thread changes it, while `inside` is 1; others only after they
 * set `closed` under the window's mutex, fenced all threads, and found `inside` 0. */
struct jf_thread {
    uint32_t inside;
    uint32_t closed;
    uint32_t changing; /* 1 between jf_thread_begin_change and jf_thread_end_change */
    uint32_t ring_count;
    struct jf_share *fast_share; /* of the default heap, when nothing forbids the fast path */
    /* The block that was taken out of a bin last may well be the next to be freed: then it waits at hand. */
    rmhandle_t last;     /* its handle, also while it waits; NULL: none */
    jf_word *last_entry; /* of no block: `no_entry` */
    jf_word last_word;   /* of its entry when it was given out: LIVE */
    uintptr_t last_at;   /* its header, as that word says */
    size_t kept_bin;     /* it waits, and this would be its bin; JF_KEPT_NONE: it does not wait */
    jf_word keep; /* what changes that word when the block is freed to wait; 0: none is to wait */
    jf_word no_entry;         /* always 0 */
    uint32_t depot_part;      /* of all depots */
    uint32_t share_count;     /* how many there is room for: of heaps with a smaller id */
    struct jf_share **shares; /* by the heap's id; NULL: none yet */
    struct jf_table_owner entries;
    const struct jf_table *table;
    bool fence_all; /* as in the window */
    struct jf_window *window;
    struct jf_thread *next; /* all threads of the window */
    bool in_use;            /* a living thread has it */
    uint32_t activity;      /* raised at slow calls and with every full ring */
    uint32_t activity_seen; /* by the last compaction */
    uint32_t drain_wanted;  /* a compaction asks for what is in the bins, if that is much */
    uint32_t
        ring[JF_RING_SIZE];    /* indexes of PENDING entries, whose generation has not come round */
    uint32_t pool_cache_count; /* how many there is room for: of pools with a smaller id */
    struct jf_pool_cache *
        *pool_caches; /* free elements at hand, by the pool's id; NULL: none yet */
};

/* ------------------------------------------------------------------------------------- window */

/* What the heap has to know of pools, which lie above it. A pool's block is a chunk of kind JF_CHUNK_POOL whose
 * owner begins with a struct jf_region of state JF_REGION_POOL: heap, start and end are set. Elements behind
 * handles have entries like blocks, and no header. */
struct jf_pool_ops {
    /* The element was freed by its handle, and its entry is about to be; any thread, takes no mutex. */
    void (*freed)(struct jf_region *block, uintptr_t payload);
    /* Whether the element there says that it belongs to this entry. */
    bool (*names)(const struct jf_region *block, uintptr_t payload, uint32_t index);
    /* Rule 15 for the heap's pools; NULL when it holds, else what is wrong. The window's mutex is held. */
    const char *(*check)(const struct jf_heap *heap);
};

/* What all growing heaps share. */
struct jf_window {
    struct jf_space space;
    struct jf_arena *arena;
    struct jf_table table;
    jf_mutex mutex; /* lists, table pages, threads, changes of hands */
    struct jf_thread *threads;
    struct jf_thread
        *fallback; /* for frees when there is no memory for a thread's own; under the mutex */
    struct jf_region *crossed; /* pushed by anybody, emptied under the mutex */
    bool keep_empty; /* under the mutex: empty regions are listed, not given back, for now */
    struct jf_region *free_regions; /* descriptors to reuse */
    struct jf_heap **heaps;         /* by id */
    struct jf_heap *sole;           /* the only heap there has ever been; NULL: there were more */
    uint32_t heap_count;            /* ids ever used */
    uint32_t heap_max;              /* ids there is room for */
    const struct jf_pool_ops *pool_ops; /* NULL until the first pool is made */
    struct jf_pool *pools;              /* of all heaps */
    struct jf_pool_block *pool_blocks;  /* descriptors to reuse */
    uint32_t thread_count;
    uint32_t forking; /* nobody may begin a change */
    bool fence_all;   /* the system has a fence on all threads; else threads fence themselves */
};

/* NULL until the first pool is made; any thread may make it beside the caller. */
static inline const struct jf_pool_ops *jf_window_pool_ops(const struct jf_window *window) {
    return __atomic_load_n(&window->pool_ops, __ATOMIC_ACQUIRE);
}

/* ------------------------------------------------------------------------------------- heaps */

struct jf_compactor; /* compact/compact.h */

enum {
    JF_HOLE_BINS =
        28, /* fixed: holes of 16 << bin to (32 << bin) - 1 bytes; in the last all larger ones */
    JF_WITNESSES = 8,
};

/* What only growing heaps have. Lists are under the window's mutex. */
struct jf_grow {
    struct jf_window *window;
    uint32_t id;
    struct jf_region *bins[JF_REGION_BINS + 1];
    struct jf_region *bin_ends[JF_REGION_BINS + 1]; /* last of each list */
    uint64_t bin_mask;                              /* bins that are not empty */
    struct jf_region *settled;
    struct jf_region *owned; /* owned and held regions */
    struct jf_large *large;
    struct jf_region
        *stuck[2];       /* settled but for locked blocks: not yet and already looked at again */
    unsigned stuck_turn; /* which of the two is still to be looked at */
    struct jf_compactor *compactor;
    size_t compactor_size;
    struct jf_local long_local; /* where blocks locked for long go; under the window's mutex */
    size_t region_count;
    size_t regions_low; /* least since the bins were emptied for want of regions */
    size_t large_count;
    jf_word large_bytes;
    jf_word committed; /* bytes, atomic */
    jf_word peak_committed;
    jf_word pool_bytes; /* what of committed the pools have; atomic */
    struct jf_depot *depot;
};

/* How far the dropping of unused entries at the table's end has come (fixed heaps). */
enum jf_trim {
    JF_TRIM_NONE = 0,
    JF_TRIM_SCAN = 1, /* counting: entries from trim_keep on are free */
    JF_TRIM_SIFT = 2, /* the free list is gone through: entries from trim_keep on leave it */
};

/* What only fixed heaps have. Holes are kept by size in two sets of bins: those below the compaction
 * cursor and those at or above it (docs: design/compactor). Positions are in grains (16 bytes) from
 * the space's base; 0 = none. The chain of headers leads from `start` to space.table; the number of
 * entries is odd, so that this is 8 modulo 16. All addresses here are of headers in the chain. */
struct jf_fixed {
    uintptr_t start;       /* first header */
    uintptr_t cursor;      /* header at which the slide goes on; `start` when none is under way */
    uintptr_t lowest;      /* no hole begins below */
    uintptr_t lowest_next; /* no hole that the slide under way has left behind begins below */
    uintptr_t tail;        /* the hole that ends at the table; 0 = none */
    uintptr_t recent;      /* the hole that the last release made; 0 = it is none any more */
    uint32_t bins[2][JF_HOLE_BINS];
    uint32_t mask[2];
    size_t hole_bytes[2];  /* sums of the sets */
    uint32_t low_set;      /* which of the two sets is the one below the cursor */
    uint32_t free_entries; /* index of the first free entry; 0 = none */
    uint32_t used_entries; /* given out: of live and of purged blocks */
    uint32_t wrapped;      /* highest index that was retired, its generations used up; 0 = none */
    uint32_t floor;        /* generation of entries carved from now on */
    uint32_t entries_peak;
    enum jf_trim trim;
    uint32_t trim_keep; /* entries that stay */
    uint32_t trim_list; /* SIFT: the part of the free list not yet gone through */
    size_t blocks;
    size_t live;   /* strides of live blocks */
    bool changed;  /* a hole was made since the last slide came by its place */
    bool sliding;  /* between the slices of a slide */
    bool retry;    /* the slide met open read sections, or moves that were given up */
    bool pocketed; /* the slide under way has met a locked block that kept its place */
    uint32_t witness_count;
    uint32_t witness[JF_WITNESSES]; /* entries locked in the last slide, those with most to gain */
    size_t witness_gain[JF_WITNESSES]; /* bytes of the hole before each */
    uint32_t unwitnessed;              /* other locked blocks met in the last slide */
    size_t pinned; /* hole bytes that locked blocks kept in the last complete slide */
    size_t
        too_large; /* stride of the smallest block whose move was too long for the budget; 0 = none */
};

struct jf_heap {
    struct jf_space *space;
    struct jf_options options;
    jf_mutex mutex;          /* fixed: everything */
    jf_mutex compacting;     /* held for one step of a compaction; fork waits for it */
    uint32_t compactor_busy; /* a compaction is under way */
    bool fixed;
    bool is_default;
    uint32_t allocations; /* counts towards the scramble period */
    uint64_t scramble_state;
    uint32_t waiting;     /* fixed: threads that wait for the mutex */
    uint32_t purge_marks; /* bit p: a block was marked with purge priority p */
    jf_word compactions, blocks_moved, bytes_moved, bytes_released, moves_aborted;
    uint32_t calls; /* number of the compaction call, for regions settled in it */
    union {
        struct jf_grow grow;
        struct jf_fixed fixed_part;
    } u;
    struct jf_space own_space; /* fixed */
};

/* A fixed heap's mutex. A slide, which takes it step after step, lets those go first that wait. */
static inline void jf_heap_lock(struct jf_heap *heap) {
    if (jf_os_mutex_trylock(&heap->mutex))
        return;
    __atomic_fetch_add(&heap->waiting, 1, __ATOMIC_RELAXED);
    jf_os_mutex_lock(&heap->mutex);
    __atomic_fetch_sub(&heap->waiting, 1, __ATOMIC_RELAXED);
}

static inline void jf_heap_unlock(struct jf_heap *heap) {
    jf_os_mutex_unlock(&heap->mutex);
}

/* ------------------------------------------------------------------------------------- walking */

/* One step of a walk along a chain of headers. */
struct jf_step {
    uintptr_t at;      /* address of the (first) header word */
    jf_word header;    /* the header proper, of an extended block the one before the payload */
    uintptr_t payload; /* address, for blocks and dead blocks */
    size_t stride;     /* from `at` to the next */
    bool hole;         /* a hole or a dead block: free to be reused */
};

/* Reads the step at `at`. False when what lies there is no header at all (rule 2 or a stride of 0). */
bool jf_block_step(uintptr_t at, struct jf_step *ret_step);

/* Reads the step of a block by its payload's address. False when no block's header lies before it. */
bool jf_block_step_of(uintptr_t payload, struct jf_step *ret_step);

/* Usable bytes of a block step. */
static inline size_t jf_step_size(const struct jf_step *step) {
    return step->at + step->stride - step->payload - jf_header_slack(step->header);
}

/* ------------------------------------------------------------------------------------- fixed.c
 * All need the heap's mutex held unless they say otherwise. */

/* Builds a heap in `buffer`; NULL when the size is below 4 KiB. No mutex needed. */
struct jf_heap *jf_fixed_create(void *buffer, size_t size, const struct jf_options *options,
                                unsigned space_id);
/* Ends it: finishes its mutexes; the buffer is the caller's again. No mutex needed. */
void jf_fixed_destroy(struct jf_heap *heap);
/* Index of a new block's entry, LIVE, or 0 when no hole fits (or no entry can be had). Takes from the
 * lowest set first. O(bins). */
uint32_t jf_fixed_allocate(struct jf_heap *heap, size_t size, unsigned align_log2);
/* Makes the space of a block, whose entry is no longer LIVE, a hole, and joins it with the holes behind. */
void jf_fixed_release_block(struct jf_heap *heap, uintptr_t payload);
/* Frees an entry: the generation has been raised by the caller, the state is PENDING. */
void jf_fixed_release_entry(struct jf_heap *heap, uint32_t index);
/* Resizes a block whose entry is RESIZING: in place, into the hole behind, or to a new place; with no
 * block (the entry was PURGED), gives it one. On success the entry is LIVE at its new address. False and
 * nothing changed (entry still RESIZING) when there is no room. `in_place` forbids moving. */
bool jf_fixed_resize(struct jf_heap *heap, uint32_t index, size_t size, bool in_place);
/* Moves an unlocked block to a lower hole that fits, if any (for rmlock_long). Like the compactor it
 * leaves the block alone while a read section is open; `readers` and `own` as for jf_readers_quiet. Whether
 * it has moved. */
bool jf_fixed_lower(struct jf_heap *heap, uint32_t index, struct jf_readers *readers,
                    const struct rm_reader *own);
/* Empties a purgeable unlocked block of the given priority, the first from the start; false: none. The
 * entry is PURGED then, its address bits hold the block's log2(alignment) - 4, for jf_fixed_resize. */
bool jf_fixed_purge_one(struct jf_heap *heap, unsigned priority, struct jf_readers *readers,
                        const struct rm_reader *own);
/* Largest payload that a hole could take now. O(holes of the largest size). */
size_t jf_fixed_largest_free(struct jf_heap *heap);
/* Where the chain of headers ends. */
static inline uintptr_t jf_fixed_last(const struct jf_heap *heap) {
    return heap->space->table;
}

/* ------------------------------------------------------------------------------------- grow.c ...
 * The growing profile. Thread-safe unless they say otherwise. */

struct jf_window *jf_window_create(void);
void jf_window_destroy(struct jf_window *window);
struct jf_heap *jf_grow_create(struct jf_window *window, const struct jf_options *options);
/* Frees every block, then the heap. */
void jf_grow_destroy(struct jf_heap *heap);
/* A new block's handle or NULL when there is no memory; nothing tried twice, errno not set. */
rmhandle_t jf_grow_malloc(struct jf_heap *heap, size_t size, unsigned align_log2, bool zero);
/* Accounts for an entry that the caller just made PENDING at `word`'s address. */
void jf_grow_freed(struct jf_window *window, uint32_t index, jf_word word);
/* As jf_fixed_resize. */
/* `room`: address space that the block is to have for growing where it lies; 0 = no more than it needs. */
bool jf_grow_resize(struct jf_window *window, uint32_t index, size_t size, size_t room,
                    bool in_place);
/* A block of a growing heap that is to become larger. */
struct jf_swap {
    jf_word word;    /* its entry as it was read: LIVE; one that is locked stays where it is */
    uint32_t index;  /* of the entry */
    size_t size;     /* all that its stride has room for now */
    size_t new_size; /* more than that */
    size_t kept;     /* bytes of contents, or more */
};
/* Gives it another place without waiting for anybody: the payload's address; 0, and nothing has changed, when that is
 * not so simple. A read section of the calling thread does not matter. */
uintptr_t jf_grow_swap(const struct jf_swap *swap);
/* The same for whatever a handle names, while the fast paths are allowed (heap/fast.h). */
bool jf_grow_swap_handle(rmhandle_t handle, size_t size);
/* The heap that a payload address of the window belongs to; NULL when to none. */
struct jf_heap *jf_grow_heap_at(struct jf_window *window, uintptr_t payload);
/* What stands for a purged block's address, in grains: the heap's id and the block's alignment. */
enum { JF_PURGED_ID_BITS = 10 };
static inline uint32_t jf_grow_purged_id(uint64_t offset) {
    return (uint32_t)(offset / JF_GRAIN) & ((1u << JF_PURGED_ID_BITS) - 1);
}
/* The large block at `payload`; NULL when it is an ordinary one. */
struct jf_large *jf_grow_large_at(struct jf_window *window, uintptr_t payload);
/* Moves an unlocked block that is not in a read section into the heap's region for long locks, if there is
 * room; whether it has moved. */
bool jf_grow_settle_long(struct jf_window *window, uint32_t index, struct jf_readers *readers,
                         const struct rm_reader *own);
/* Empties unlocked blocks of that purge priority, those of at least one region or one large block; false
 * when there are none. */
bool jf_grow_purge_one(struct jf_heap *heap, unsigned priority, struct jf_readers *readers,
                       const struct rm_reader *own);

/* --- window.c and thread.c */

/* Handles regions whose density fell into another bin. Takes the window's mutex; the other form needs it
 * held. */
void jf_window_relist(struct jf_window *window);
void jf_window_relist_locked(struct jf_window *window);

/* Gives the owner one more table page. The window's mutex is held. False: no memory, or the table is full. */
bool jf_window_add_page(struct jf_window *window, struct jf_table_owner *owner);

static inline bool jf_window_must_relist(const struct jf_window *window) {
    return __atomic_load_n(&window->crossed, __ATOMIC_RELAXED) != NULL;
}

/* What is added to the word of an entry, LIVE and not locked, when its block is freed. The count is 0: only a generation
 * that comes round changes it. */
#define JF_WORD_FREED (JF_ENTRY_GENERATION_ONE + (JF_ENTRY_PENDING - JF_ENTRY_LIVE))

/* Brackets every change of a thread's private state, but for those of heap/fast.h while there is no other
 * thread. */
void jf_thread_enter_slow(struct jf_thread *thread);

static inline void jf_thread_enter(struct jf_thread *thread) {
    __atomic_store_n(&thread->inside, 1, __ATOMIC_RELAXED);
    if (!thread->fence_all)
        jf_fence();
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    /* acquire: what others did to the thread's state before they opened it again is to be seen */
    if (__atomic_load_n(&thread->closed, __ATOMIC_ACQUIRE) != 0)
        jf_thread_enter_slow(thread);
}

static inline void jf_thread_leave(struct jf_thread *thread) {
    __atomic_store_n(&thread->inside, 0, __ATOMIC_RELEASE);
}

/* Whether a closed thread is outside, so that its private state may be worked on. */
static inline bool jf_thread_outside(const struct jf_thread *thread) {
    return __atomic_load_n(&thread->inside, __ATOMIC_ACQUIRE) == 0;
}

/* Lets the calling thread take the fast path (heap/fast.h) for this heap; and forbids it to all threads. */
void jf_thread_allow_fast(struct jf_thread *thread, const struct jf_heap *heap);
void jf_window_forbid_fast(struct jf_window *window);
void jf_thread_forbid_fast(struct jf_thread *thread);

/* Lets the thread keep the block given out last at hand when it is freed, if there is no other heap or pool, so that it can
 * only be one of this heap; and ends that for all threads. The window's mutex is held. */
void jf_thread_judge_sole(struct jf_thread *thread, const struct jf_heap *heap);
void jf_window_leave_sole(struct jf_window *window);

/* Brackets what a fork must not cut in two, so that the child finds no entry RESIZING and no large block
 * without an entry. Waits while a fork is under way. Not to be nested; no mutex held. NULL when there is no
 * memory for the thread's state: then nothing keeps a fork away. */
struct jf_thread *jf_thread_begin_change(struct jf_window *window);
void jf_thread_end_change(struct jf_thread *thread);

/* Changes when the thread has freed a ring full of blocks or was in want of a region. Any thread. */
static inline uint32_t jf_thread_activity(const struct jf_thread *thread) {
    return __atomic_load_n(&thread->activity, __ATOMIC_RELAXED);
}

static inline void jf_thread_note_activity(struct jf_thread *thread) {
    __atomic_store_n(&thread->activity, thread->activity + 1, __ATOMIC_RELAXED);
}

/* The calling thread's state if it has one. */
struct jf_thread *jf_thread_self(void);

/* What the thread has of `heap`; NULL when there is no room for it yet. */
static inline struct jf_share *jf_thread_share(const struct jf_thread *thread,
                                               const struct jf_heap *heap) {
    uint32_t id = heap->u.grow.id;
    return id < thread->share_count ? thread->shares[id] : NULL;
}

/* Whether freed blocks of the heap may wait in bins: not in one that is checked, so that freed memory is found
 * dead at once, nor in one whose blocks a debugger watches. */
static inline bool jf_heap_has_bins(const struct jf_heap *heap) {
    return !JF_MARK_ACTIVE && heap->options.check == 0 && heap->options.scramble_period == 0;
}

/* One of the thread's holes for `heap`; NULL as above. */
static inline struct jf_local *jf_thread_local(const struct jf_thread *thread,
                                               const struct jf_heap *heap, unsigned kind) {
    struct jf_share *share = jf_thread_share(thread, heap);
    return share != NULL ? &share->local[kind] : NULL;
}

/* Makes that room. False: no memory. Takes the window's mutex. */
bool jf_thread_add_share(struct jf_thread *thread, const struct jf_heap *heap);

/* The calling thread ends: what it has is kept for the next thread that begins. */
void jf_thread_exit(void);

/* Accounts for a block that is dead: marks its header, takes its bytes out of its region; or, if it ends
 * where the thread bumps, makes it part of the thread's hole again. The thread is inside. */
void jf_grow_account_block(struct jf_thread *thread, uintptr_t payload);

/* Room for a block in the heap: address of its header, 0 when there is no memory. The thread is left
 * inside when there is room, outside when not; it has an entry ready. *ret_stride. */
uintptr_t jf_grow_place(struct jf_thread *thread, struct jf_heap *heap, size_t stride,
                        unsigned align_log2);

/* The same for a block that has its entry, without waiting for anybody: the local in which it lies last, or NULL. The
 * thread is inside and stays so. */
struct jf_local *jf_grow_bump(struct jf_thread *thread, const struct jf_heap *heap, size_t stride,
                              uintptr_t *ret_at);

/* large.c: a block with a chunk of its own and no entry yet; NULL when there is no memory. The chunk has
 * `room` bytes of address space if that is more than the size and can be had. `over` bytes above the heap's limit are
 * tolerated. */
struct jf_large *jf_large_create(struct jf_heap *heap, size_t size, size_t room,
                                 unsigned align_log2, size_t over, bool *ret_zero);
void jf_large_destroy(struct jf_window *window, struct jf_large *large);
/* Gives `to`, which is not smaller, the contents of `from` by moving its pages, so that they are never held
 * twice; `from` has no memory then. False, and nothing changed, when jf_arena_move will not. */
bool jf_large_move(struct jf_large *from, struct jf_large *to);
/* Changes the size where it lies; false when that cannot be. */
bool jf_large_resize(struct jf_window *window, struct jf_large *large, size_t size);

/* The calling thread's state in the window; NULL when there is no memory for it. */
struct jf_thread *jf_thread_get(struct jf_window *window);
/* Ties a new, zeroed state to the window. */
void jf_thread_init(struct jf_thread *thread, struct jf_window *window);
/* No block was given out last, and none waits at hand. */
void jf_thread_forget_last(struct jf_thread *thread);
/* Accounts for everything that the thread has freed: in its ring and in its bins. The thread is inside, or
 * closed and outside. */
void jf_thread_drain(struct jf_thread *thread);
/* The same when the bins of some heap keep more than a small share of it. False when something is left. */
bool jf_thread_drain_much(struct jf_thread *thread);
/* Accounts for one block that was freed. As above. */
void jf_thread_bury(struct jf_thread *thread, uint32_t index);
/* Empties the ring only: into the bins what they take. */
void jf_thread_empty_ring(struct jf_thread *thread);
void jf_thread_leave_with_full_ring(struct jf_thread *thread);
/* A block was given out while one of another stride waits at hand: that goes into its bin, and the one given out is noted
 * as the last; or, when that has no room, nothing changes. Gives its handle. */
rmhandle_t jf_thread_leave_with_other_kept(struct jf_thread *thread, struct jf_share *share,
                                           rmhandle_t handle);
/* Accounts for a batch of the heap's depot; false when there is none, or the depot is in use. The thread is
 * inside, or the heap comes to its end. */
bool jf_thread_drain_depot(struct jf_thread *thread, struct jf_heap *heap);
/* Gives the thread's regions of `heap` (NULL: of all) back to their heaps' lists. As above, and the
 * window's mutex held. */
void jf_thread_retire(struct jf_thread *thread, struct jf_heap *heap);
/* The same for one of its regions; returns bytes that it had claimed, not used, and that are given back. */
size_t jf_thread_retire_local(struct jf_local *local);
/* Closes all other threads (window's mutex held), so that each with `inside` 0 may be worked on. */
void jf_thread_close_others(struct jf_window *window);
void jf_thread_open_others(struct jf_window *window);
void jf_thread_fork_prepare(struct jf_window *window);
void jf_thread_fork_parent(struct jf_window *window);
void jf_thread_fork_child(struct jf_window *window);

#endif
