/* One process recorded with its accesses: takes the records of our Valgrind tool and writes them as a
 * trace. Not thread-safe. */
#ifndef STEVE_RECORD_PROCESS_H
#define STEVE_RECORD_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "../steve-valgrind/protocol.h"
#include "trace_format.h"
#include "trace_live.h"
#include "trace_write.h"

struct record_process {
    uint32_t pid;
    struct trace_writer *writer;
    struct trace_live live;
    struct trace_error error; /* why the last call failed */
    /* The tool's clock when this program began, and the trace's. */
    uint64_t start_ms, start_us;
    uint64_t time_us;
    uint64_t unknown_frees;
    bool began, ended; /* the program that the process runs now */
    uint64_t frames[TRACE_STACK_MAX + 2];
    uint32_t frame_count, frames_seen;
    uint64_t module[3]; /* the file of code that is being told of */
    char module_name[TRACE_NAME_MAX + 1];
    size_t module_name_size;
    uint16_t threads[65536]; /* the tool's number to the trace's + 1, by order of appearance */
    uint16_t thread_count;
};

/* Begins a trace in `descriptor`, which is owned from now on. NULL with `error` filled. */
struct record_process *record_process_create(int descriptor, const char *name,
                                             const struct trace_header *header, bool compress,
                                             struct trace_error *error);

/* A program begins in the process, `now_us` after the recording: its first, or one that takes the
 * place of another, whose blocks are gone. 0, or -1 with the error filled, as of the two below. */
int record_process_start(struct record_process *process, const struct steve_pipe_record *record,
                         uint64_t now_us);

/* Takes any other record. */
int record_process_take(struct record_process *process, const struct steve_pipe_record *record);
int record_process_take_run(struct record_process *process, const struct steve_pipe_run *run);

/* Writes the end of the trace and frees the process. 0, or -1 with `error` filled. */
int record_process_finish(struct record_process *process, int wait_status,
                          struct trace_totals *ret_totals, struct trace_error *error);

/* Frees the process; what was written of its trace stays. NULL is a no-op. */
void record_process_abandon(struct record_process *process);

#endif
