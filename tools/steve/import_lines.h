/* A text file line by line, unpacked on the way when it is compressed with zstd. */
#ifndef STEVE_IMPORT_LINES_H
#define STEVE_IMPORT_LINES_H

#include <stddef.h>
#include <stdint.h>

#include "trace_format.h"

struct import_lines;

/* NULL with `error` filled when the file cannot be opened, or is compressed with something else. */
struct import_lines *import_lines_open(const char *path, struct trace_error *error);

/* The next line, without its end, valid until the next call and free to be changed. NULL at the
 * end; also when the file cannot be read on, and then `error` is filled, else it is empty. Longer
 * lines than 64 KiB are errors. */
char *import_lines_next(struct import_lines *lines, struct trace_error *error);

/* How much of the file was read, from 0 to 1; 0 of one that has no size. */
double import_lines_share(const struct import_lines *lines);

/* Number of the line given last, from 1. */
uint64_t import_lines_number(const struct import_lines *lines);

/* NULL is a no-op. */
void import_lines_close(struct import_lines *lines);

#endif
