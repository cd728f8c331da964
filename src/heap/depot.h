/* Freed blocks of a heap that its threads' bins have no room for, in batches, until a thread wants them: no
 * more than a small share of what the heap has committed. They are as in a bin: PENDING, and accounted for as
 * before (heap/bins.h). Compaction empties it first.
 *
 * A thread gets back what it gave itself: blocks and entries of one thread then stay on cache lines of their own. What
 * others gave it gets when they have no use for it, as where one thread allocates what another frees.
 */
#ifndef JEFF_HEAP_DEPOT_H
#define JEFF_HEAP_DEPOT_H

#include "base/os.h"
#include "heap/bins.h"

struct jf_arena;
struct jf_heap;

enum {
    JF_DEPOT_SHARE_SHIFT = 5, /* the parts that have something share a 32nd of the heap */
    JF_BATCH_ROOM = 29,       /* that makes a batch of two cache lines */
    JF_DEPOT_PARTS = 8,       /* threads beyond that share them */
    JF_DEPOT_UNUSED_GIVES =
        16, /* a part that so many batches were given to, none of them taken back, is open to all threads */
};

struct jf_batch {
    struct jf_batch *next;
    uint32_t count;
    uint32_t index[JF_BATCH_ROOM];
};

/* What some threads have given. Only to be changed by who has set `taken`, which is tried and not waited for: that is
 * done by threads that are inside. */
struct jf_depot_part {
    uint32_t taken;
    uint32_t gives; /* since one of those threads took a batch, in vain too; counted up to
                       JF_DEPOT_UNUSED_GIVES */
    uint32_t blocks;
    uint32_t changes;      /* batches that came and went */
    uint32_t changes_seen; /* when jf_depot_is_left_to_threads was asked last */
    uint32_t spares;
    size_t bytes;                          /* strides of all blocks */
    struct jf_batch *spare;                /* batches with nothing in them, a few */
    struct jf_batch *first[JF_BINS_SMALL]; /* by bin */
} __attribute__((aligned(64)));

struct jf_depot {
    struct jf_depot_part part[JF_DEPOT_PARTS];
    uint32_t open; /* bit i: part i is open to all threads */
    uint32_t used; /* bit i: part i has something */
};

/* Takes over the oldest blocks of a bin; how many: 0 when there is no room, or the part is in use. The thread
 * whose bins they are is inside. */
unsigned jf_depot_give(struct jf_heap *heap, const struct jf_bins *bins, size_t bin);

/* Puts blocks into an empty bin; false when there are none, or they are in use. As above. */
bool jf_depot_take(struct jf_heap *heap, struct jf_bins *bins, size_t bin);

/* Whether it is likely that jf_depot_take would find something. */
bool jf_depot_has(const struct jf_heap *heap, const struct jf_bins *bins, size_t bin);

/* Whether threads may go on with what is in the depot while others compact: less than the heap's bytes shifted
 * down by `shift`, and it has changed since this was asked last; or it is in use. False when it is empty. */
bool jf_depot_is_left_to_threads(struct jf_heap *heap, unsigned shift);

/* Takes out one batch, of whatever bin: indexes, and their number, which is 0 when the depot is empty or in
 * use. The blocks are the caller's to account for. */
unsigned jf_depot_clear(struct jf_heap *heap, uint32_t index[JF_BATCH_ROOM]);

/* What is in it, as far as nobody changes it meanwhile. */
size_t jf_depot_bytes(const struct jf_heap *heap);
size_t jf_depot_blocks(const struct jf_heap *heap);

/* Lets all threads take from a part: its thread has ended. */
void jf_depot_open_part(struct jf_heap *heap, uint32_t number);

/* Gives back the batches with nothing in them; nobody is inside. */
void jf_depot_free_spares(struct jf_heap *heap);

/* In the child of a fork: nobody has it any more. */
void jf_depot_renew(struct jf_heap *heap);

#endif
