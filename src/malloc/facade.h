/* THE MAP of the malloc facade: what it is made of, and the rules it lives by.
 *
 *   arena chunk of 1 MiB = segment = 16 units of 64 KiB
 *   span: cells of one size class; a unit (small classes) or a whole segment (medium classes)
 *   huge block: a chunk of its own
 *
 *   malloc:  size -> class -> bin of the thread's cache -> cell
 *   free:    address -> unit -> its map entry -> bin of the thread's cache, or where it gathers cells of others
 *
 * A cell is  live (the program's), in a bin, among others' cells that are to be sent, in a parcel, in its span's
 * free list, in an inbox, or never carved. A byte for each cell, apart from it, says whether it is live: free looks
 * there, so a cell freed twice is found as long as it is free, wherever it lies, and without waiting for the cell's
 * own line. Nor do bins need the cells. Those in a free list or an inbox carry two words: `link`, the next one's address under a
 * secret key, and `check`, the link under another one. Who follows a link compares the two, so a write to a
 * freed cell cannot lead anywhere.
 *
 * Every span is owned by one cache. The owner alone touches its free list, and hands out its cells. What others
 * free gathers apart from their bins and is sent to the owner's mailbox by parcels (transfer.h), from which it
 * fills its bins. (A sleeping owner is sent so much, and no more: what is above that goes into bins of others.) A
 * bin that is full sends the older half of its cells home: into the spans that the cache owns, and chains of the
 * others with one compare-and-swap into their owner's inbox, which the owner empties when it looks for cells. The
 * cache of a thread that has ended waits as it is, idle, for the next thread. A few may wait; the others, and any of
 * them when a living thread is about to take a fresh span, give their spans to one cache, the orphanage, where any
 * thread takes them.
 *
 *   span.carved - span.free_count = cells that are live, in bins, to be sent, in parcels or in inboxes
 *
 * Locks: the central mutex guards segments, the orphanage and the list of caches; the arena's comes after
 * it. A cache is its thread's alone; `busy` is set while its lists are being changed, so that the child of
 * a fork knows which caches of other threads it can still read.
 */
#ifndef JEFF_MALLOC_FACADE_H
#define JEFF_MALLOC_FACADE_H

#include "arena/arena.h"
#include "malloc/classes.h"

enum {
    JF_SEGMENT_ORDER =
        4, /* as a region of the handle heap: each takes up the other's memory as it is */
    JF_SEGMENT_UNITS = 1 << JF_SEGMENT_ORDER,
    JF_TAG_SHIFT = 16, /* the owner's tag in a map entry, above the offset of the bin */
    JF_PARCEL_SLOTS = 125,
    JF_MAP_STEP_SHIFT = 12, /* log2 of the units whose part of the map is made writable at once */
    JF_MAP_STEPS = 4096,
};
#define JF_SEGMENT_SIZE (JF_UNIT_SIZE << JF_SEGMENT_ORDER)

/* What free has to know of a unit: all zero unless it is in a span. */
struct jf_map_entry {
    /* Of the cell size, in 2^-32ths, rounded up; 0 for medium classes; atomic. */
    uint32_t reciprocal;
    uint32_t bin;    /* its offset in a cache, and the tag of the span's owner; atomic */
    uint8_t *states; /* a byte for each cell of the span: JF_CELL_LIVE, JF_CELL_AREA or 0 */
};

/* An area is a live cell whose last word belongs to the arrays (collections/area.c). The fast paths know live
 * cells only and hand areas on. */
enum { JF_CELL_LIVE = 1, JF_CELL_AREA = 3 };

/* What a cell in a list begins with. */
struct jf_cell {
    uintptr_t link;
    uintptr_t check;
};

/* A free cell at hand, and its byte. */
struct jf_slot {
    void *cell;
    uint8_t *state;
};

/* Free cells of one class at hand, a stack. Before its first slot there is one without a cell. */
struct jf_bin {
    struct jf_slot *top; /* filled last */
    struct jf_slot *end; /* where it is full */
};

enum jf_span_place { JF_SPAN_NOWHERE, JF_SPAN_PARTIAL, JF_SPAN_FULL };

struct jf_span {
    struct jf_cache *owner; /* read by anybody; changed by the owner or under the central mutex */
    struct jf_cell *free;
    uint8_t *states; /* a byte for each cell */
    uintptr_t start;
    uint32_t free_count;
    uint32_t carved; /* cells that were ever given out, of the owner's; read by anybody */
    uint32_t cells;
    uint32_t size;                   /* of a cell */
    uint16_t number;                 /* its class */
    uint8_t place;                   /* enum jf_span_place */
    bool zero;                       /* what has not been carved reads as zero */
    bool steady;                     /* pages are fetched before they are needed, */
    uint32_t fetched;                /* so many bytes from the start as yet */
    struct jf_span *next, *previous; /* ring of its class and place */
};

static inline size_t jf_span_carved(const struct jf_span *span) {
    return __atomic_load_n(&span->carved, __ATOMIC_RELAXED);
}

/* Rings of spans by class. */
struct jf_spans {
    struct jf_span *partial[JF_CLASSES]; /* with free or uncarved cells */
    struct jf_span *full[JF_CLASSES];
};

struct jf_parcel; /* transfer.c */

/* Parcels of small cells that others have sent to a cache; atomic. */
struct jf_mailbox {
    struct jf_parcel *parcels[JF_CLASS_SMALL_LAST + 1]; /* by class */
    size_t cells, bytes;
};

struct jf_quarantine; /* hardened.h */
struct jf_profile;    /* profile.h */

struct jf_cache {
    /* As in map entries. More than 65535 caches share tags, which takes cells to another's bins but does no other
     * harm. */
    uint32_t tag;
    struct jf_bin bins[JF_CLASSES];
    struct jf_bin others[JF_CLASS_SMALL_LAST + 1]; /* cells of other caches' spans, on their way */
    /* Cells sent home without a parcel; atomic. */
    struct jf_cell *inbox __attribute__((aligned(64)));
    struct jf_mailbox mailbox;
    uint32_t busy __attribute__((aligned(64)));
    bool in_use;           /* a living thread has it; central mutex */
    bool idle;             /* an ended thread has left it as it was; central mutex */
    struct jf_cache *next; /* all caches; central mutex */
    struct jf_spans spans;
    struct jf_quarantine *quarantine;
    int64_t until_sample; /* bytes to allocate until the next one is sampled */
    uint64_t sample_state;
};

/* Descriptor of a segment, the owner of its chunk. Central mutex. */
struct jf_segment {
    uintptr_t address;
    uint32_t used;  /* a bit for each unit */
    uint32_t dirty; /* units that may hold memory, of those not used */
    bool listed;
    struct jf_segment *next, *previous; /* those with free units */
    struct jf_segment *all_next, *all_previous;
};

/* Descriptor of a huge block, the owner of its chunk. The block's owner changes it. */
struct jf_huge {
    uintptr_t address;
    size_t size;  /* usable, whole pages */
    size_t dirty; /* from the start, pages that may hold memory */
    unsigned order;
    unsigned order_least; /* what its alignment needs */
    bool area;            /* as JF_CELL_AREA */
    /* The part of its memory, from the start of the chunk, that is allowed to come in huge pages; a
     * mapping of its own as long as it is. */
    size_t allowed_from, allowed_to;
};

/* Ways of working that leave the fast paths. */
enum jf_malloc_mode { JF_MODE_HARDENED = 1, JF_MODE_PROFILE = 2 };

/* Everything the facade shares. What the fast paths read comes first, and never changes once `units` is
 * not 0. */
struct jf_malloc {
    uintptr_t base;
    size_t units;             /* of the window; 0 until the start */
    struct jf_map_entry *map; /* by unit */
    size_t window;            /* its bytes; 0 until the start */
    uintptr_t map_bias;       /* where the entry of a unit at address 0 would be */
    uintptr_t key;
    uintptr_t seal;

    struct jf_arena *arena;
    struct jf_span **spans; /* by unit */
    size_t page_size;
    unsigned mode;
    struct jf_profile *profile;
    int profile_wanted; /* by a signal; atomic */
    bool shrunk; /* a cell was kept for a smaller size because there was no memory for another */
    uint64_t map_open[JF_MAP_STEPS / 64];
    size_t huge_bytes, huge_count; /* atomic */
    size_t huge_allowed;           /* blocks with such a part; atomic */
    bool huge_pages;               /* as the environment wants it */

    jf_mutex mutex __attribute__((aligned(64))); /* the central mutex */
    struct jf_segment *all_segments;
    struct jf_segment *segments;      /* with free units */
    struct jf_segment *free_segments; /* descriptors to reuse */
    struct jf_span *free_spans;
    struct jf_cache *caches;
    struct jf_cache *unfinished; /* got, but for its bins */
    struct jf_cache *orphanage;
    size_t caches_made;
    size_t idle_caches; /* read by anybody */
    size_t segment_count, span_count, empty_segments;
    size_t used_units, dirty_units; /* of all segments */
    uint64_t dirty_since;           /* when the latter became too many; 0: they are not */
    uint64_t
        orphans[(JF_CLASSES + 63) / 64]; /* classes with partial spans there; read by anybody */

    /* Set by the public layer: opens the facade on the process's arena. False: no address space. */
    bool (*start)(void);
    /* For misuse: the text for an address that is none of ours, NULL when nothing is known of it. */
    const char *(*explain)(uintptr_t address);
};
extern struct jf_malloc jf_malloc __attribute__((visibility("hidden")));

/* Units of the window; while it is 0 nothing else may be read. */
static inline size_t jf_malloc_units(void) {
    return __atomic_load_n(&jf_malloc.units, __ATOMIC_ACQUIRE);
}

/* Offset of the bin in a cache, by size / 16, rounded up. */
extern const uint16_t jf_bin_of[JF_SMALL_MAX / 16 + 1] __attribute__((visibility("hidden")));

/* Cells in a bin, and those of other caches that are to be sent. */
size_t jf_bin_count(const struct jf_cache *cache, unsigned number);
size_t jf_bin_count_of_others(const struct jf_cache *cache, unsigned number);

/* What stands for a cache where there is none: every bin is empty and takes nothing. */
extern const struct jf_cache jf_cache_none __attribute__((visibility("hidden")));

/* Fills in the facade's state, on an arena; `window` is its base. Called once, by jf_malloc.start. */
bool jf_malloc_open(struct jf_arena *arena, unsigned mode);

/* --- central.c: segments and units. The central mutex is held; giving back memory drops it. */

/* A span of the class, owned by nobody yet; NULL when there is no memory. */
struct jf_span *jf_central_take(unsigned number);
/* Makes a cache the owner of a span. The old owner, or with the central mutex held. */
void jf_span_own(struct jf_span *span, struct jf_cache *owner);
/* Gives back a span with no cell in use. */
void jf_central_give(struct jf_span *span);
/* Fetches the pages of a steady span up to `end` bytes from its start, and a few more. Its owner; no mutex. */
void jf_span_fetch(struct jf_span *span, size_t end);
/* The span that holds an address of the window; NULL when none does. */
struct jf_span *jf_central_span_at(uintptr_t address);
/* Gives back all memory of units not in use. Bytes. */
size_t jf_central_trim(void);

/* --- cache.c: a thread's cells */

/* The calling thread's cache, made if need be; NULL without memory, or when the thread has ended. */
struct jf_cache *jf_cache_get(void);
/* A cell of the class from a bin that may be empty; NULL when there is no memory. *ret_zero: it reads as
 * zero. */
void *jf_cache_take(struct jf_cache *cache, unsigned number, bool *ret_zero);
/* Puts a cell, whose class is `number`, into its bin, or where cells of others go. */
void jf_cache_put(struct jf_cache *cache, unsigned number, void *cell);
/* The same without a cache, for threads that have ended and when there is no memory for a cache. */
void *jf_orphan_take(unsigned number, bool *ret_zero);
void jf_orphan_put(unsigned number, void *cell);
/* Empties the calling thread's bins and inbox, and gives back spans that are empty then. */
void jf_cache_trim(struct jf_cache *cache);
/* The same with what ended threads have left. */
void jf_orphan_trim(void);

void jf_malloc_fork_prepare(void);
void jf_malloc_fork_parent(void);
void jf_malloc_fork_child(void);

/* --- huge.c: blocks with a chunk of their own */

/* With address space for `room` bytes, if there is so much. */
void *jf_huge_alloc(size_t size, size_t room, size_t alignment, bool *ret_zero);
void jf_huge_free(struct jf_huge *huge);
/* Changes the size where it lies; false when that cannot be. */
bool jf_huge_resize(struct jf_huge *huge, size_t size);
/* Moves the block to a chunk that is large enough; NULL when there is no memory, and nothing has changed. */
void *jf_huge_move(struct jf_huge *huge, size_t size);
/* The huge block that holds an address; NULL when none does. */
struct jf_huge *jf_huge_at(uintptr_t address);

/* --- blocks.c: what the fast paths hand on. `call` is the public name, for reports. errno is set. */

void *jf_malloc_slow(size_t size);
void jf_free_slow(void *pointer, const char *call);
void *jf_malloc_zeroed(size_t count, size_t size);
/* `alignment` is a power of two. */
void *jf_malloc_aligned(size_t alignment, size_t size);
/* As realloc of the C library: NULL allocates, a size of 0 frees and returns NULL. */
void *jf_malloc_resize(void *pointer, size_t size);
size_t jf_malloc_usable(const void *pointer);
/* Whether the block is an area; *ret_size: all of its bytes that are the program's or the arrays'. And makes it
 * one, or a plain block again. Resizing makes it plain. */
bool jf_malloc_is_area(const void *pointer, size_t *ret_size, const char *call);
void jf_malloc_set_area(void *pointer, bool area, const char *call);
/* `alignment` is 1 for a block allocated without one. */
void jf_malloc_free_sized(void *pointer, size_t alignment, size_t size, const char *call);

/* --- report.c: prints one line and ends the process */

__attribute__((noreturn)) void jf_malloc_report(const char *call, const void *pointer,
                                                const char *what);
/* A pointer that is not the start of a block: says why as far as that can be told. */
__attribute__((noreturn)) void jf_malloc_report_pointer(const char *call, const void *pointer);

#endif
