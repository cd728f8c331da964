/* Freed blocks of a heap that its threads' bins have no room for, in batches, until a thread wants them: no
 * more than a small share of what the heap has committed. They are as in a bin: PENDING, and accounted for as
 * before (heap/bins.h). Compaction empties it first.
 */
#ifndef JEFF_HEAP_DEPOT_H
#define JEFF_HEAP_DEPOT_H

#include "base/os.h"
#include "heap/bins.h"

struct jf_arena;
struct jf_heap;

enum {
    JF_DEPOT_SHARE_SHIFT = 5, /* the depot keeps at most a 32nd of the heap */
    JF_BATCH_ROOM = 29,       /* that makes a batch of two cache lines */
};

struct jf_batch {
    struct jf_batch *next;
    uint32_t count;
    uint32_t index[JF_BATCH_ROOM];
};

/* Under the heap's mutex, which a thread that is inside may only try to take. */
struct jf_depot {
    struct jf_batch *first[JF_BINS]; /* by bin */
    size_t bytes;                    /* strides of all blocks */
    uint32_t blocks;
    uint32_t changes;      /* batches that came and went */
    uint32_t changes_seen; /* when jf_depot_is_left_to_threads was asked last */
};

/* Takes over the oldest blocks of a bin; how many: 0 when there is no room, or the depot is in use. The thread
 * whose bins they are is inside. */
unsigned jf_depot_give(struct jf_heap *heap, const struct jf_bins *bins, size_t bin);

/* Puts blocks into an empty bin; false when there are none, or the depot is in use. As above. */
bool jf_depot_take(struct jf_heap *heap, struct jf_bins *bins, size_t bin);

/* Whether threads may go on with what is in the depot while others compact: less than the heap's bytes shifted
 * down by `shift`, and it has changed since this was asked last; or it is in use. False when it is empty. */
bool jf_depot_is_left_to_threads(struct jf_heap *heap, unsigned shift);

/* Takes out one batch, of whatever bin: indexes, and their number, which is 0 when the depot is empty or in
 * use. The blocks are the caller's to account for. */
unsigned jf_depot_clear(struct jf_heap *heap, uint32_t index[JF_BATCH_ROOM]);

#endif
