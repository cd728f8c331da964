/* The arena: owner of all address space. A binary buddy system over units of 64 KiB in one reserved,
 * naturally aligned window; hands out chunks (a power of two of units, aligned to their size) to the
 * handle heap, to large blocks and to the malloc facade, makes them accessible and gives their memory
 * back. Source of the algorithm: Knuth, TAOCP 1, 2.5, "the buddy system".
 *
 * Thread-safety: every call may be made from any thread; the arena's own mutex guards the bitmaps and
 * is never held across a system call that gives memory back.
 */
#ifndef JEFF_ARENA_ARENA_H
#define JEFF_ARENA_ARENA_H

#include "base/bits.h"
#include "base/os.h"

enum {
    JF_UNIT_SHIFT = 16,       /* log2 of a unit's bytes */
    JF_ARENA_ORDERS = 25,     /* chunks of 2^0 .. 2^24 units: 64 KiB .. 1 TiB */
    JF_ARENA_DIRTY_MAX = 128, /* freed chunks that may keep their memory for a while */
    JF_ARENA_YOUNG_MS = 200,  /* how long a freed chunk is young */
};
#define JF_UNIT_SIZE ((size_t)1 << JF_UNIT_SHIFT)

/* What a chunk serves. Kept per unit, so that any interior address finds its chunk. */
enum jf_chunk_kind {
    JF_CHUNK_NONE = 0,   /* free, or not ours */
    JF_CHUNK_REGION = 1, /* of the handle heap */
    JF_CHUNK_LARGE = 2,  /* one large block of the handle heap */
    JF_CHUNK_SPAN = 3,   /* of the malloc facade */
    JF_CHUNK_HUGE = 4,   /* one huge allocation of the malloc facade */
    JF_CHUNK_POOL = 5,   /* of a pool */
};

struct jf_chunk {
    uintptr_t address;
    unsigned order; /* 2^order units */
    enum jf_chunk_kind kind;
    void *owner; /* as given to jf_arena_alloc */
};

struct jf_arena; /* arena/internal.h says what is in it */

/* Reserves a window of 2^window_shift bytes, or by halves less, down to 2^minimum_shift; the first
 * `table_share`-th of it (1/2^table_share_shift, at most `table_max` bytes) is kept out of the buddy
 * system for the caller's own use. The arena's bookkeeping lives in a reservation of its own. NULL when
 * refused. */
struct jf_arena *jf_arena_create(unsigned window_shift, unsigned minimum_shift,
                                 unsigned table_share_shift, size_t table_max);

/* Gives everything back. No other thread may be in a call. */
void jf_arena_destroy(struct jf_arena *arena);

uintptr_t jf_arena_base(const struct jf_arena *arena);    /* first address of the window */
size_t jf_arena_size(const struct jf_arena *arena);       /* bytes of the window */
size_t jf_arena_table_size(const struct jf_arena *arena); /* bytes kept out at its start */

/* Allocates a chunk of 2^order units: the lowest dirty chunk of that very order, else the lower part of a
 * larger one, else the lowest free piece of the smallest order that suffices. It is accessible. *ret_zero (may
 * be NULL) says that it is known to read as zero: fresh or given back. When neither is to be had, dirty chunks are given back
 * first, oldest first, and merged. Returns 0 when the window is full or the system refuses; no chunk
 * has changed then. O(orders + JF_ARENA_DIRTY_MAX), and a byte per unit. */
uintptr_t jf_arena_alloc(struct jf_arena *arena, unsigned order, enum jf_chunk_kind kind,
                         void *owner, bool *ret_zero);

/* Frees a chunk, named by its first address. `dirty_size`: bytes from its start that may hold memory.
 * The memory is kept for a while (hysteresis: up to JF_ARENA_DIRTY_MAX chunks and the limit set by
 * jf_arena_set_dirty_limit, oldest given back first, in units as large as they come; a chunk that is
 * over the limit by itself is given back at once). A chunk that was allocated dirty is known to hold
 * what its earlier owner left, also above `dirty_size`. Leaves errno alone. O(orders), and a byte per
 * unit. */
void jf_arena_free(struct jf_arena *arena, uintptr_t address, size_t dirty_size);

/* Makes a chunk larger where it lies, when its right neighbours are free (dirty ones are given back
 * first) and it is the lower buddy all the way; the part that is added reads as zero. False, and no
 * chunk has changed, otherwise, or when the system refuses. */
bool jf_arena_extend(struct jf_arena *arena, uintptr_t address, unsigned new_order);

/* Frees the upper part of a chunk, so that it keeps 2^new_order units; as jf_arena_free for the rest:
 * `dirty_size` counts from the chunk's start. */
void jf_arena_shrink(struct jf_arena *arena, uintptr_t address, unsigned new_order,
                     size_t dirty_size);

/* Gives a chunk the first `size` bytes of another by moving the pages, so that they are never held twice; what it
 * held there is lost, and the other reads as zero. False, and nothing has changed, for sizes that are copied more
 * quickly, where the system cannot, where a memory debugger keeps book of addresses, and after a few thousand
 * times, for each may split one of the process's mappings. */
bool jf_arena_move(struct jf_arena *arena, uintptr_t from, uintptr_t to, size_t size);

/* The chunk that holds `address`, any number; kind JF_CHUNK_NONE when there is none. Lock-free, O(1): safe
 * while other threads allocate and free other chunks. (While that very chunk is freed and allocated again,
 * kind and owner may be of different owners: no wild access, but no answer either.) */
struct jf_chunk jf_arena_find(const struct jf_arena *arena, uintptr_t address);

/* As jf_arena_find, only the owner, for an address known to lie in a living chunk. */
void *jf_arena_owner(const struct jf_arena *arena, uintptr_t address);

/* Gives back memory of freed chunks, oldest first, until at most `keep` dirty bytes are left or
 * `most_bytes` are given back in this call (0 = no such limit); a chunk may be given back in parts. Returns
 * bytes given back. */
size_t jf_arena_purge(struct jf_arena *arena, size_t keep, size_t most_bytes);

/* Bytes of freed chunks that may still hold memory, and how many may be left so (8 MiB at first; a lower
 * limit gives back at once). */
size_t jf_arena_dirty(const struct jf_arena *arena);
void jf_arena_set_dirty_limit(struct jf_arena *arena, size_t limit);

/* How many bytes may be left so for JF_ARENA_YOUNG_MS: those of chunks freed less long ago, for a program that
 * frees much and takes it again at once. 0 at first: no more than the other limit. What has grown old is given
 * back by the next jf_arena_alloc or jf_arena_free. */
void jf_arena_set_young_limit(struct jf_arena *arena, size_t limit);

/* Bytes from the start of a chunk that may hold what an earlier owner left there. */
size_t jf_arena_stale(const struct jf_arena *arena, uintptr_t address);

/* Order of the largest chunk that could be allocated once dirty chunks are given back; -1 when there is
 * none. */
int jf_arena_largest_order(struct jf_arena *arena);

/* Bytes of the arena's own bookkeeping that hold memory. */
size_t jf_arena_overhead(const struct jf_arena *arena);

/* Small bookkeeping objects that live as long as the arena (descriptors of chunks, threads, heaps):
 * zeroed, aligned to 64 bytes; freed ones are reused for the same size (rounded up to 64). At most
 * 64 KiB each. NULL when memory is refused. */
void *jf_arena_meta_alloc(struct jf_arena *arena, size_t size);
void jf_arena_meta_free(struct jf_arena *arena, void *object, size_t size);

/* Around fork: hold the arena's mutex while the process is copied. */
void jf_arena_fork_prepare(struct jf_arena *arena);
void jf_arena_fork_done(struct jf_arena *arena, bool in_child);

/* Walks the bitmaps and the map; returns NULL when every rule holds, else a text that names the broken
 * one. The rules: every unit is in exactly one chunk or in exactly one free piece; no two free buddies;
 * chunks are aligned to their size; the map agrees with the bitmaps; the dirty list holds free pieces
 * only and its sum is right. */
const char *jf_arena_check(struct jf_arena *arena);

/* For tests: the n-th request to the system from now on is refused (1 = the next), once, or with
 * `persistent` all that follow too; 0 = none. */
void jf_arena_refuse(struct jf_arena *arena, unsigned nth, bool persistent);

/* The same for calls, whether or not they would ask the system: of jf_arena_alloc, jf_arena_extend,
 * jf_arena_meta_alloc and jf_arena_make_accessible. */
void jf_arena_refuse_calls(struct jf_arena *arena, unsigned nth, bool persistent);

/* Every request of the arena and of the table to the system goes through this: false when refused, by
 * jf_arena_refuse or by the system. */
bool jf_arena_make_accessible(struct jf_arena *arena, uintptr_t address, size_t size);

#endif
