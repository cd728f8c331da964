/* Call stacks in the recorded program, for the preloaded recorder: taken with the unwinder that is
 * linked into it, which reads the tables of the program's files and allocates nothing. */
#ifndef STEVE_RECORD_STACK_H
#define STEVE_RECORD_STACK_H

#include <stdint.h>

enum { RECORD_STACK_MAX = 64, RECORD_PATH_MAX = 512 };

/* A file of code in memory. */
struct record_module {
    uint64_t start, end;        /* the first address, and the one after the last */
    uint64_t base;              /* where address 0 of the file would be */
    char path[RECORD_PATH_MAX]; /* filled up with zeros */
};

typedef void record_module_fn(void *context, const struct record_module *module);

/* Stacks of at most `depth` frames from here on; every file is told of anew. Before the first stack
 * is taken, and in a forked child. */
void record_stack_begin(uint32_t depth);

/* The return addresses from `caller`, that of the program's own call, outwards, in `ret_frames` of
 * RECORD_STACK_MAX places. Returns how many; 0 when there is no unwinding through what lies between,
 * and when unwinding itself came here. `tell` is called for each file of code that is met for the
 * first time. Any thread; may be interrupted by a signal whose handler comes here. */
unsigned record_stack_take(const void *caller, uint64_t *ret_frames, record_module_fn *tell,
                           void *context);

#endif
