/* Recording a program with its accesses, under our Valgrind tool. */
#ifndef STEVE_RECORD_ACCESSES_H
#define STEVE_RECORD_ACCESSES_H

#include <stdbool.h>

#include "trace_format.h"

struct access_options {
    char **command;
    const char *output; /* the name of the trace; those of other processes are NAME.PID */
    unsigned stacks;    /* frames of the call stack with every allocation; 0 = none */
    bool children;      /* record the processes it starts as well */
    bool compress;
    /* Called when a trace is complete; may be NULL. */
    void (*tell)(const char *name, const struct trace_totals *totals);
};

/* Runs the command and writes its trace to `output`, which is closed. Returns the exit status of
 * `steve record`, after a complaint when it is its own. */
int record_accesses(const struct access_options *options, int output);

#endif
