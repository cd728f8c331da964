/* Writes a trace file. Not thread-safe. All calls return 0, or -1 with `error` filled; after an
 * error the writer can only be abandoned, and the file holds every frame finished before. */
#ifndef STEVE_TRACE_WRITE_H
#define STEVE_TRACE_WRITE_H

#include "trace_format.h"

#ifdef __cplusplus
extern "C" {
#endif

struct trace_writer;

/* Writes the header to `descriptor`, a file at offset 0 and empty, which the writer owns from now
 * on. `name` is for messages. `compress`: 0 stores frames as they are. NULL on failure, and then
 * the descriptor is closed. */
struct trace_writer *trace_writer_create(int descriptor, const char *name,
                                         const struct trace_header *header, int compress,
                                         struct trace_error *error);

/* Adds one event. What trace_live_apply fills is not used. Times must not
 * fall. */
int trace_writer_add(struct trace_writer *writer, const struct trace_event *event,
                     struct trace_error *error);

/* Writes out what is buffered as a frame, so that a reader can see it. */
int trace_writer_flush(struct trace_writer *writer, struct trace_error *error);

/* Writes the end frame and the trailer, closes the file and frees the writer, also on failure.
 * `totals->events` is set to the number of events added. */
int trace_writer_finish(struct trace_writer *writer, struct trace_totals *totals,
                        struct trace_error *error);

/* Closes the file and frees the writer without an end frame. NULL is a no-op. */
void trace_writer_abandon(struct trace_writer *writer);

#ifdef __cplusplus
}
#endif

#endif
