/* Recording a program with its accesses, under our Valgrind tool. */
#ifndef STEVE_RECORD_ACCESSES_H
#define STEVE_RECORD_ACCESSES_H

#include <stdbool.h>

#include "trace_format.h"

struct access_options {
    char **command;
    unsigned stacks; /* frames of the call stack with every allocation; 0 = none */
    bool compress;
};

/* Runs the command and writes its trace to `output`, which is closed. Returns the exit status of
 * `steve record`, after a complaint when it is its own. `ret_totals` is filled when the trace is
 * complete. */
int record_accesses(const struct access_options *options, int output, const char *name,
                    struct trace_totals *ret_totals);

#endif
