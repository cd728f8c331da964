/* The compactor: LISP-2 sliding in one pass, since blocks lie in address order and each names its one
 * reference, its entry (Knuth, TAOCP 1, 2.5, exercise 33; Jones, Hosking, Moss, "The Garbage Collection
 * Handbook", 3.2). Growing heaps: choose.c picks sparse regions, evacuate.c moves their survivors.
 * Fixed heaps: slide.c. docs: design/compactor.
 */
#ifndef JEFF_COMPACT_COMPACT_H
#define JEFF_COMPACT_COMPACT_H

#include "compact/budget.h"
#include "handle/readers.h"
#include "heap/heap.h"

enum { JF_MOVED_MAX = 64 };

/* Blocks moved in one step, told to the program's callback when no lock is held. */
struct jf_moved {
    unsigned count;
    struct {
        rmhandle_t handle;
        void *address;
        size_t size;
    } items[JF_MOVED_MAX];
};

void jf_moved_add(struct jf_moved *moved, rmhandle_t handle, uintptr_t address, size_t size);
/* Calls the heap's callback for each and empties the list. No lock held. */
void jf_moved_report(struct jf_moved *moved, struct jf_heap *heap);

/* What a compaction call works with. */
struct jf_compaction {
    struct jf_heap *heap;
    struct jf_readers *readers;
    const struct rm_reader *own_reader; /* the calling thread's read section */
    struct jf_budget budget;
    struct rm_compact_result result;
    struct jf_moved moved;
    unsigned cycles; /* ended in this call */
};

/* Compacts for at most max_us microseconds (0: until there is nothing left to gain). No lock held; at
 * most one thread per heap gets to work, others return RM_COMPACT_BUDGET at once. */
rm_compact_status jf_compact(struct jf_heap *heap, struct jf_readers *readers,
                             const struct rm_reader *own_reader, uint32_t max_us,
                             struct rm_compact_result *ret_result);

/* slide.c: a fixed heap. Sets result fields; returns the status. */
rm_compact_status jf_slide(struct jf_compaction *compaction);
/* Lets the next slide look at every block, also where no locked block that is watched was unlocked: memory has
 * run out. Takes the heap's mutex. */
void jf_slide_again(struct jf_heap *heap);

/* evacuate.c: a growing heap. */
rm_compact_status jf_evacuate(struct jf_compaction *compaction);

#endif
