/* Reports of misuse: one line that names the call, the handle and the heap, then the program's callback
 * or the end of the process.
 */
#ifndef JEFF_HEAP_MISUSE_H
#define JEFF_HEAP_MISUSE_H

#include "heap/heap.h"

struct jf_misuse {
    enum rm_misuse_kind kind;
    const char *call;     /* public function */
    rmhandle_t handle;    /* as given; NULL where none was */
    struct jf_heap *heap; /* NULL when it cannot be told */
    bool has_word;        /* the handle names an entry, and `word` is what was found there */
    jf_word word;
    int rule; /* HEAP_FAULT: the broken rule and its name */
    const char *rule_name;
    const char *detail; /* NULL, or what is known beyond the kind */
    uint64_t seed;      /* scramble seed; HEAP_FAULT with scrambling on */
    bool has_seed;
};

/* The line, without newline. */
struct jf_line;
void jf_misuse_line(const struct jf_misuse *misuse, struct jf_line *ret_line);

/* Asks the callback of `options` (NULL: no callback) whether to go on; returns when it says so. Else
 * prints the line and aborts. No lock held. */
void jf_misuse_report(const struct jf_misuse *misuse, const struct jf_options *options);

#endif
