/* What a replay prints and writes: the table, JSON, CSV. */
#ifndef STEVE_REPORT_H
#define STEVE_REPORT_H

#include "replay.h"
#include "trace_format.h"

/* The trace and the options, for the head of each report. */
struct report_subject {
    const char *path;
    const struct trace_header *header;
    const struct replay_options *options;
};

/* Prints the table on standard output, one column per allocator. */
void report_table(const struct report_subject *subject, const struct replay_report *reports,
                  size_t count);

/* Write everything, samples included, or the samples alone, one per line. 0, or -1 after a
 * complaint. */
int report_json(const char *path, const struct report_subject *subject,
                const struct replay_report *reports, size_t count);
int report_csv(const char *path, const struct replay_report *reports, size_t count);

#endif
