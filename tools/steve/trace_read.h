/* Reads a trace file as a stream, frame by frame, in constant memory. Whatever the bytes are, a
 * call ends with an event, with the end, or with an error that names file and offset. Not
 * thread-safe. */
#ifndef STEVE_TRACE_READ_H
#define STEVE_TRACE_READ_H

#include <stdbool.h>

#include "trace_format.h"

#ifdef __cplusplus
extern "C" {
#endif

struct trace_reader;

/* Opens `path` and reads the header. NULL on failure with `error` filled. */
struct trace_reader *trace_reader_open(const char *path, struct trace_error *error);

/* Touches the memory that frames of the usual size need, so that a later measurement of this
 * process does not see it come. Before the first event only. */
void trace_reader_touch(struct trace_reader *reader);

/* Valid until the reader is closed. */
const struct trace_header *trace_reader_header(const struct trace_reader *reader);

/* Fills `ret_totals` from the end frame without disturbing the stream. -1 with `error` filled when
 * the file has none (cut off, or the recorder was killed) or it is broken. */
int trace_reader_totals(struct trace_reader *reader, struct trace_totals *ret_totals,
                        struct trace_error *error);

/* The next event: 1; 0 after the last one of a complete file; -1 with `error` filled, and then for
 * good. Checks the form only; whether the events make sense, trace_live_apply knows. */
int trace_reader_next(struct trace_reader *reader, struct trace_event *ret_event,
                      struct trace_error *error);

/* Goes back to the first event. Takes and gives back no memory. 0, or -1 with `error` filled (a pipe
 * cannot be read twice). */
int trace_reader_rewind(struct trace_reader *reader, struct trace_error *error);

/* Goes to the event of that number, which trace_reader_next then returns: walks over the headers of
 * the frames before it and unpacks one frame. Before the first event only. An event behind the last
 * is the end of the trace. 0, or -1 with `error` filled (a pipe cannot be read in any order). */
int trace_reader_seek(struct trace_reader *reader, uint64_t event, struct trace_error *error);

/* Number and place of the event returned last, for messages: "FILE: event 17 (frame at offset 64)".
 */
void trace_reader_where(const struct trace_reader *reader, char *ret_text, size_t size);

/* Frames begun, and the file's bytes read for them. */
void trace_reader_progress(const struct trace_reader *reader, uint64_t *ret_frames,
                           uint64_t *ret_bytes);

/* The share of the file that was read so far, 0 to 1; 0 when it is no file of a known size. */
double trace_reader_share(const struct trace_reader *reader);

/* NULL is a no-op. */
void trace_reader_close(struct trace_reader *reader);

#ifdef __cplusplus
}
#endif

#endif
