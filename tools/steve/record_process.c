/* From the records of the Valgrind tool to events, for one process. */
#include "record_process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(struct record_process *process, const char *what) {
    snprintf(process->error.text, sizeof process->error.text, "%s", what);
    return -1;
}

static uint16_t thread_of(struct record_process *process, unsigned tool_thread) {
    uint16_t *number = &process->threads[tool_thread & 0xffff];
    if (*number == 0)
        *number = ++process->thread_count;
    return (uint16_t)(*number - 1);
}

static int add(struct record_process *process, struct trace_event *event) {
    event->time_us = process->time_us;
    if (trace_live_apply(&process->live, event, &process->error) != 0)
        return -1;
    return trace_writer_add(process->writer, event, &process->error);
}

/* Marks of a program's own locks may be wrong: an unlock too many is left out, and a block that is
 * freed is unlocked before. */
static int add_lock(struct record_process *process, struct trace_event *event, bool lock) {
    event->op = lock ? TRACE_LOCK : TRACE_UNLOCK;
    if (!lock && process->live.blocks[event->block].locks == 0)
        return 0;
    return add(process, event);
}

static int add_free(struct record_process *process, struct trace_event *event) {
    while (process->live.blocks[event->block].locks != 0) {
        struct trace_event unlock = *event;
        if (add_lock(process, &unlock, false) != 0)
            return -1;
    }
    return add(process, event);
}

static int add_frames(struct record_process *process, const struct steve_pipe_record *record) {
    if (record->op == STEVE_PIPE_STACK) {
        process->frame_count = record->reads;
        process->frames_seen = 0;
    }
    if (process->frame_count > TRACE_STACK_MAX || process->frames_seen >= TRACE_STACK_MAX)
        return fail(process, "the Valgrind tool told of too long a call stack");
    process->frames[process->frames_seen++] = record->low;
    process->frames[process->frames_seen++] = record->high;
    if (process->frames_seen < process->frame_count)
        return 0;
    struct trace_event event = {.op = TRACE_STACK,
                                .thread = thread_of(process, record->thread),
                                .frames = process->frames,
                                .frame_count = process->frame_count};
    return add(process, &event);
}

static int take_module_part(struct record_process *process,
                            const struct steve_pipe_record *record) {
    size_t *size = &process->module_name_size;
    struct trace_event event = {.op = TRACE_MODULE,
                                .frames = process->module,
                                .frame_count = 3,
                                .name = process->module_name};
    if (record->op == STEVE_PIPE_MODULE) {
        process->module[0] = record->low;
        process->module[1] = record->high;
        memset(process->module_name, 0, sizeof process->module_name);
        *size = 0;
        return 0;
    }
    if (record->op == STEVE_PIPE_MODULE_END) {
        process->module[2] = record->low;
        return process->module[0] < process->module[1] ? add(process, &event) : 0;
    }
    if (*size + 2 * sizeof record->low < sizeof process->module_name) {
        memcpy(process->module_name + *size, &record->low, sizeof record->low);
        memcpy(process->module_name + *size + sizeof record->low, &record->high,
               sizeof record->high);
        *size += 2 * sizeof record->low;
    }
    return 0;
}

static void set_time(struct record_process *process, uint64_t ms) {
    uint64_t us = process->start_us + (ms - process->start_ms) * 1000;
    if (us > process->time_us)
        process->time_us = us;
}

int record_process_take(struct record_process *process, const struct steve_pipe_record *record) {
    /* The tool's own records have no thread. */
    bool is_threaded = record->op <= STEVE_PIPE_UNLOCK;
    struct trace_event event = {.op = (enum trace_op)record->op,
                                .thread = is_threaded ? thread_of(process, record->thread) : 0,
                                .block = record->block,
                                .size = record->low,
                                .alignment_log2 = record->alignment_log2};
    switch (record->op) {
    case STEVE_PIPE_MALLOC:
    case STEVE_PIPE_CALLOC:
    case STEVE_PIPE_ALIGNED:
    case STEVE_PIPE_REALLOC:
        return add(process, &event);
    case STEVE_PIPE_FREE:
        event.size = 0;
        process->unknown_frees += record->high;
        return record->high != 0 ? 0 : add_free(process, &event);
    case STEVE_PIPE_ACCESS:
        event.op = TRACE_ACCESS;
        event.offset = record->low;
        event.size = record->high - record->low;
        event.reads = record->reads;
        event.writes = record->writes;
        return add(process, &event);
    case STEVE_PIPE_LOCK:
    case STEVE_PIPE_UNLOCK:
        return add_lock(process, &event, record->op == STEVE_PIPE_LOCK);
    case STEVE_PIPE_STACK:
    case STEVE_PIPE_FRAMES_MORE:
        return add_frames(process, record);
    case STEVE_PIPE_MODULE:
    case STEVE_PIPE_MODULE_NAME:
    case STEVE_PIPE_MODULE_END:
        return take_module_part(process, record);
    case STEVE_PIPE_TIME:
        set_time(process, record->low);
        return 0;
    case STEVE_PIPE_END:
        process->ended = true;
        return 0;
    default:
        return fail(process, "the Valgrind tool wrote something unknown");
    }
}

int record_process_take_run(struct record_process *process, const struct steve_pipe_run *run) {
    struct trace_event event;
    event.op = TRACE_ACCESS;
    event.thread = thread_of(process, run->thread);
    event.block = run->block;
    event.offset = run->low;
    event.size = run->high - run->low;
    event.reads = run->reads;
    event.writes = run->writes;
    event.time_us = process->time_us;
    if (trace_live_access(&process->live, &event, &process->error) != 0)
        return -1;
    return trace_writer_add(process->writer, &event, &process->error);
}

/* All blocks of the program that was there before are gone. */
static int end_program(struct record_process *process) {
    for (uint32_t block = 0; block < process->live.totals.block_numbers; block++) {
        struct trace_event event = {.op = TRACE_FREE, .block = block};
        int live;
        trace_live_size(&process->live, block, &live);
        if (live && add_free(process, &event) != 0)
            return -1;
    }
    struct trace_event event = {.op = TRACE_EXEC};
    return add(process, &event);
}

int record_process_start(struct record_process *process, const struct steve_pipe_record *record,
                         uint64_t now_us) {
    if (record->low != STEVE_PROTOCOL)
        return fail(process, "the Valgrind tool is of another version");
    process->start_ms = record->high;
    process->start_us = now_us;
    set_time(process, record->high);
    if (process->began && end_program(process) != 0)
        return -1;
    process->began = true;
    process->ended = false;
    process->frame_count = process->frames_seen = 0;
    return 0;
}

struct record_process *record_process_create(int descriptor, const char *name,
                                             const struct trace_header *header, bool compress,
                                             struct trace_error *error) {
    struct trace_writer *writer = trace_writer_create(descriptor, name, header, compress, error);
    struct record_process *process = writer != NULL ? calloc(1, sizeof *process) : NULL;
    if (process != NULL && trace_live_init(&process->live, 0) == 0) {
        process->pid = header->pid;
        process->writer = writer;
        return process;
    }
    if (writer != NULL)
        snprintf(error->text, sizeof error->text, "out of memory");
    trace_writer_abandon(writer);
    free(process);
    return NULL;
}

int record_process_finish(struct record_process *process, int wait_status,
                          struct trace_totals *ret_totals, struct trace_error *error) {
    *ret_totals = process->live.totals;
    ret_totals->wait_status = (uint64_t)(unsigned)wait_status;
    ret_totals->unknown_frees = process->unknown_frees;
    int result = trace_writer_finish(process->writer, ret_totals, error);
    process->writer = NULL;
    record_process_abandon(process);
    return result;
}

void record_process_abandon(struct record_process *process) {
    if (process == NULL)
        return;
    trace_writer_abandon(process->writer);
    trace_live_finish(&process->live);
    free(process);
}
