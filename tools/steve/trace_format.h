/* The trace: what a recorded program did with its memory, as events in file order. This header
 * holds the constants of the file format (docs/trace-format.rst) and the decoded form of what is in
 * it.
 */
#ifndef STEVE_TRACE_FORMAT_H
#define STEVE_TRACE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define TRACE_MAGIC "STEVETRC"        /* first 8 bytes of a file */
#define TRACE_END_MAGIC "STEVEEND"    /* last 8 bytes of a complete file */
#define TRACE_FRAME_MAGIC 0x4d415246u /* "FRAM", little-endian */

enum {
    TRACE_VERSION_MAJOR = 1, /* another one cannot be read */
    TRACE_VERSION_MINOR = 2, /* a later one can: what is new may be skipped */

    TRACE_HEADER_BYTES = 40, /* fixed part; the command and a checksum of 4 bytes follow */
    TRACE_FRAME_BYTES = 32,  /* frame header */
    TRACE_TRAILER_BYTES = 16,
    TRACE_COMMAND_MAX = 1 << 20,

    TRACE_FRAME_RAW_TARGET = 256 << 10, /* a writer ends a frame at about this many bytes */
    TRACE_FRAME_RAW_MAX = 16 << 20,     /* no frame may be larger, packed or not */

    TRACE_FLAG_ZSTD = 1, /* header flag: there may be compressed frames */
};

enum trace_frame_type {
    TRACE_FRAME_EVENTS = 1,
    TRACE_FRAME_END = 2,
    TRACE_FRAME_SKIPPABLE =
        0x80, /* this bit: a reader that does not know the type skips the frame */
};

enum trace_encoding {
    TRACE_STORED = 0,
    TRACE_ZSTD = 1,
};

/* Low six bits of an event's first byte. The values from TRACE_OP_SKIPPABLE on carry their length.
 */
enum trace_op {
    TRACE_MALLOC = 1,
    TRACE_CALLOC = 2,
    TRACE_ALIGNED = 3,
    TRACE_REALLOC = 4,
    TRACE_FREE = 5,
    TRACE_EXEC = 6, /* the process began another program; every block was freed before */
    TRACE_OP_SKIPPABLE = 0x20,
    /* Since version 1.1: */
    TRACE_ACCESS = 0x20, /* a run of accesses to one block, with none to another in between */
    TRACE_LOCK = 0x21,   /* the program holds the block's address from here on; counted */
    TRACE_UNLOCK = 0x22, /* takes one lock back */
    TRACE_STACK = 0x23,  /* the call stack of the allocation or reallocation that follows */
    /* Since version 1.2: */
    TRACE_STACK_AGAIN = 0x24, /* in a file only: the reader gives TRACE_STACK */
    TRACE_MODULE = 0x25,      /* a file of code that addresses of later stacks lie in */
    TRACE_OP_MASK = 0x3f,
    TRACE_HAS_THREAD = 0x40, /* another thread than the event before */
    TRACE_HAS_TIME = 0x80,   /* later than the event before */
};

#define TRACE_BLOCK_MAX UINT32_MAX         /* block numbers are below this */
#define TRACE_SIZE_MAX ((uint64_t)1 << 56) /* sizes are below this */
enum {
    TRACE_ALIGNMENT_LOG2_MAX = 47,
    TRACE_STACK_MAX = 64,
    TRACE_FRAME_STACKS = 4096, /* stacks of a frame that can be named again, the first ones */
    TRACE_NAME_MAX = 1023,     /* bytes of a module's path */
};
#define TRACE_COUNT_MAX ((uint64_t)1 << 48) /* reads and writes of a run are below this */

/* One event, decoded. */
struct trace_event {
    uint64_t number; /* of the event in its trace, from 0; set by the reader */
    enum trace_op op;
    uint32_t thread;         /* 0 is the first thread that allocated */
    uint64_t time_us;        /* since the recording began, never falling; coarse */
    uint32_t block;          /* number of the block; numbers of freed blocks are used again */
    uint32_t alignment_log2; /* of TRACE_ALIGNED */
    uint64_t size;           /* bytes asked for; of TRACE_FREE: 0; of TRACE_ACCESS: bytes from the
                                first touched to the last */
    uint64_t offset;         /* of TRACE_ACCESS: the first byte touched */
    uint64_t reads, writes;  /* of TRACE_ACCESS: how many of each are in the run */
    const uint64_t *frames;  /* of TRACE_STACK: return addresses, innermost first; of TRACE_MODULE:
                                its first address, the one after its last, and the one that its
                                address 0 has in memory. Valid until the next event is read */
    uint32_t frame_count;    /* of TRACE_STACK: at most TRACE_STACK_MAX; of TRACE_MODULE: 3 */
    const char *name;        /* of TRACE_MODULE: its path; valid as long as `frames` */
    /* Filled by trace_live_apply: */
    uint64_t old_size; /* of TRACE_REALLOC and TRACE_FREE: the size until now */
    uint64_t locks;    /* of TRACE_REALLOC: how many the block has */
    uint64_t serial;   /* the how-manieth allocation made this block, from 1; realloc keeps it */
};

/* What the file's header says. */
struct trace_header {
    unsigned version_major;
    unsigned version_minor;
    uint32_t flags;
    uint32_t pid;
    uint64_t start_unix_us;
    uint32_t page_size;
    uint32_t command_bytes;
    char *command; /* the arguments, each ended by NUL; NUL-terminated as a whole */
};

/* What the end frame says about the whole trace; the order gives the tags 1, 2, ... of the file. */
struct trace_totals {
    uint64_t events;
    uint64_t allocations;
    uint64_t reallocations;
    uint64_t frees;
    uint64_t block_numbers; /* block numbers are below this: the size of a replayer's table */
    uint64_t peak_live_bytes;
    uint64_t peak_live_blocks;
    uint64_t end_live_bytes;
    uint64_t end_live_blocks;
    uint64_t total_bytes; /* sum of the sizes of all allocations and growth by reallocation */
    uint64_t threads;
    uint64_t duration_us;
    uint64_t wait_status;    /* of the recorded process, as waitpid gives it */
    uint64_t unknown_frees;  /* frees of blocks the recorder never saw; left out */
    uint64_t implicit_frees; /* blocks that vanished without a free; written as frees */
    uint64_t lost_events;    /* events begun but never finished when the process died */
    uint64_t access_runs;    /* since version 1.1, as all that follow */
    uint64_t reads;
    uint64_t writes;
    uint64_t locks;
    uint64_t stray_accesses; /* of memory that is no block's; left out where they are counted */
};
enum { TRACE_TOTALS_COUNT = sizeof(struct trace_totals) / sizeof(uint64_t) };

/* Says what is wrong, in one line without newline. */
struct trace_error {
    char text[512];
};

#endif
