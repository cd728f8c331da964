/* SPDX-License-Identifier: MIT
 * What the Valgrind tool writes into a pipe, and `steve record --accesses` reads from it: records,
 * in the order in which things happened. The tool is a separate program under another
 * licence; this header, which is under that of Jeff, is all they share. */
#ifndef STEVE_VALGRIND_PROTOCOL_H
#define STEVE_VALGRIND_PROTOCOL_H

enum { STEVE_PROTOCOL = 3 };

/* The values of the first six are those of the trace's operations. */
enum {
    STEVE_PIPE_MALLOC = 1,
    STEVE_PIPE_CALLOC = 2,
    STEVE_PIPE_ALIGNED = 3,
    STEVE_PIPE_REALLOC = 4,
    STEVE_PIPE_FREE = 5,
    STEVE_PIPE_ACCESS = 6, /* low, high: first byte touched and the one after the last */
    STEVE_PIPE_LOCK = 7,   /* as the program tells, in client requests */
    STEVE_PIPE_UNLOCK = 8,
    STEVE_PIPE_STACK = 9,        /* reads: frames; low, high: the first two; FRAMES go on */
    STEVE_PIPE_FRAMES_MORE = 10, /* low, high: two more */
    STEVE_PIPE_TIME = 11,        /* low: milliseconds since the start */
    STEVE_PIPE_START = 12,       /* a process or another program in it; low: STEVE_PROTOCOL;
                                    high: milliseconds, as those of TIME */
    STEVE_PIPE_END = 13,         /* the program ended, and everything was written */
    STEVE_PIPE_RUN = 14,         /* as ACCESS, in the short record below */
    STEVE_PIPE_MODULE = 15,      /* low, high: a file of code, its first address and its end */
    STEVE_PIPE_MODULE_NAME = 16, /* low, high: 16 bytes of its path, filled up with zeros */
    STEVE_PIPE_MODULE_END = 17,  /* low: the address that its byte 0 would have */
    STEVE_PIPE_FROM = 18,        /* reads: the process whose records follow, up to the next FROM */
};

struct steve_pipe_record {
    unsigned char op;
    unsigned char alignment_log2;
    unsigned short thread;
    unsigned block;
    unsigned long long low;  /* of an allocation: its size */
    unsigned long long high; /* of a free: 1 = it names no block that is known */
    unsigned reads, writes;
};

/* Nearly all records are this one. */
struct steve_pipe_run {
    unsigned char op;
    unsigned char reads, writes;
    unsigned char thread;
    unsigned block;
    unsigned low, high;
};

#endif
