/* What the malloc facade holds at the moment, and how it is said: as text, as JSON, as the XML of malloc_info.
 */
#ifndef JEFF_MALLOC_FIGURES_H
#define JEFF_MALLOC_FIGURES_H

#include "malloc/facade.h"

/* Bytes but for the counts. Other threads go on allocating meanwhile, so the figures are of no one moment. */
struct jf_figures {
    size_t blocks;       /* in use, huge ones too */
    size_t used;         /* in blocks in use */
    size_t cached_cells; /* free, in bins of threads */
    size_t cached;
    size_t free_cells; /* free, in their spans */
    size_t free;
    size_t spans;
    size_t span_bytes; /* of spans, carved or not */
    size_t huge_blocks;
    size_t huge;
    size_t kept; /* free units and chunks that still hold memory */
    size_t threads;
};

void jf_figures_take(struct jf_figures *ret_figures);

enum jf_figures_form { JF_FIGURES_TEXT, JF_FIGURES_JSON, JF_FIGURES_XML };

/* Says the figures line by line; lines have no newline. */
void jf_figures_print(enum jf_figures_form form, void (*print)(void *context, const char *line),
                      void *context);

#endif
