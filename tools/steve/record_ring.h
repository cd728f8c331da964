/* The memory that a recorded process shares with `steve record`. The process writes raw operations
 * with addresses into a ring; steve takes them out, gives blocks their numbers and writes the file.
 * What is in the ring survives however the process ends, so nothing needs to be flushed.
 *
 * A thread takes a slot by adding one to `head`: that number is the operation's place in the order
 * of all operations of the process. It is taken after an allocation returned and before a free is
 * begun, so that a block's free always stands before the next allocation at its address, whichever
 * threads did them. A reallocation, which does both, takes two slots. A call stack is in slots taken
 * together with that of its operation, right before it.
 */
#ifndef STEVE_RECORD_RING_H
#define STEVE_RECORD_RING_H

#include <stdatomic.h>
#include <stdint.h>

/* Environment of a recorded program: path of the control file. Ring n is that path with ".n". */
#define RECORD_CONTROL_VARIABLE "STEVE_RECORD_CONTROL"

enum {
    RECORD_LAYOUT = 2, /* of this header; recorder and steve must agree */
    RECORD_RINGS_MAX = 65536,
    RECORD_SLOTS = 1 << 16, /* per ring; a power of two */
    RECORD_TICK_US = 100,   /* unit of the clock */
    RECORD_CACHE_LINE = 64,
};

enum record_op {
    RECORD_MALLOC = 1,
    RECORD_CALLOC,
    RECORD_ALIGNED,
    RECORD_REALLOC_BEGIN, /* address: the block until now */
    RECORD_REALLOC_END,   /* address: the block from now on; 0 = it failed and all is as before */
    RECORD_FREE,
    RECORD_FRAMES,      /* address, size: two return addresses of the next operation's stack */
    RECORD_FRAMES_LAST, /* the same with one address */
    RECORD_MODULE,      /* address, size: first byte and the one after the last; then, together: */
    RECORD_MODULE_BASE, /* address: where address 0 of the file would be */
    RECORD_MODULE_NAME, /* address, size: 16 bytes of its path, as many slots as it needs */
    RECORD_MODULE_END,
};

struct record_slot {
    _Atomic uint64_t published; /* the slot's number + 1 once the rest is valid */
    uint64_t address;
    uint64_t size; /* RECORD_REALLOC_END with address 0: nonzero = failed, 0 = freed */
    uint32_t time; /* ticks */
    uint16_t thread;
    uint8_t op;
    uint8_t alignment_log2;
};

_Static_assert(sizeof(struct record_slot) == 32, "two slots in a cache line");

struct record_ring {
    _Alignas(RECORD_CACHE_LINE) _Atomic uint64_t head; /* next slot to be taken */
    _Alignas(RECORD_CACHE_LINE) _Atomic uint64_t tail; /* next slot steve will read */
    _Alignas(RECORD_CACHE_LINE) _Atomic uint32_t time; /* now, in ticks, as steve tells it */
    _Atomic uint32_t closed;                           /* steve takes nothing more */
    _Atomic uint32_t threads;                          /* thread numbers given out */
    uint32_t pid;
    _Alignas(RECORD_CACHE_LINE) struct record_slot slots[RECORD_SLOTS];
};

struct record_control {
    uint32_t layout;
    uint32_t steve_pid;
    _Atomic uint32_t main_pid; /* the process to record; 0 = not known yet */
    uint32_t children;         /* record its children too */
    uint32_t stacks;           /* frames of the call stack with each allocation */
    _Atomic uint32_t rings;    /* rings asked for; ring files are numbered in that order */
    _Atomic uint32_t ready[RECORD_RINGS_MAX]; /* 1 = the file is there, 2 = it could not be made */
};

#endif
