/* steve record --accesses: runs a program under our Valgrind tool, a program of its own, and writes
 * what comes out of its pipe as a trace. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../steve-valgrind/protocol.h"
#include "record_accesses.h"
#include "steve.h"
#include "trace_live.h"
#include "trace_write.h"

enum { BUFFER_BYTES = 1 << 20, PIPE_BYTES = 1 << 20 };

struct access_recorder {
    struct trace_writer *writer;
    struct trace_live live;
    struct trace_error error;
    uint64_t start_ms, time_us;
    uint64_t unknown_frees;
    bool began, ended;
    uint64_t frames[TRACE_STACK_MAX + 2];
    uint32_t frame_count, frames_seen;
    uint64_t module[3]; /* the file of code that is being told of */
    char module_name[TRACE_NAME_MAX + 1];
    size_t module_name_size;
    uint16_t threads[65536]; /* the tool's number to the trace's + 1, by order of appearance */
    uint16_t thread_count;
    uint8_t buffer[BUFFER_BYTES];
};

static int fail(struct access_recorder *recorder, const char *what) {
    snprintf(recorder->error.text, sizeof recorder->error.text, "%s", what);
    return -1;
}

static uint16_t thread_of(struct access_recorder *recorder, unsigned tool_thread) {
    uint16_t *number = &recorder->threads[tool_thread & 0xffff];
    if (*number == 0)
        *number = ++recorder->thread_count;
    return (uint16_t)(*number - 1);
}

static int add(struct access_recorder *recorder, struct trace_event *event) {
    event->time_us = recorder->time_us;
    if (trace_live_apply(&recorder->live, event, &recorder->error) != 0)
        return -1;
    return trace_writer_add(recorder->writer, event, &recorder->error);
}

/* Marks of a program's own locks may be wrong: an unlock too many is left out, and a block that is
 * freed is unlocked before. */
static int add_lock(struct access_recorder *recorder, struct trace_event *event, bool lock) {
    event->op = lock ? TRACE_LOCK : TRACE_UNLOCK;
    if (!lock && recorder->live.blocks[event->block].locks == 0)
        return 0;
    return add(recorder, event);
}

static int add_free(struct access_recorder *recorder, struct trace_event *event) {
    while (recorder->live.blocks[event->block].locks != 0) {
        struct trace_event unlock = *event;
        if (add_lock(recorder, &unlock, false) != 0)
            return -1;
    }
    return add(recorder, event);
}

static int add_frames(struct access_recorder *recorder, const struct steve_pipe_record *record) {
    if (record->op == STEVE_PIPE_STACK) {
        recorder->frame_count = record->reads;
        recorder->frames_seen = 0;
    }
    if (recorder->frame_count > TRACE_STACK_MAX || recorder->frames_seen >= TRACE_STACK_MAX)
        return fail(recorder, "the Valgrind tool told of too long a call stack");
    recorder->frames[recorder->frames_seen++] = record->low;
    recorder->frames[recorder->frames_seen++] = record->high;
    if (recorder->frames_seen < recorder->frame_count)
        return 0;
    struct trace_event event = {.op = TRACE_STACK,
                                .thread = thread_of(recorder, record->thread),
                                .frames = recorder->frames,
                                .frame_count = recorder->frame_count};
    return add(recorder, &event);
}

static int take_module_part(struct access_recorder *recorder,
                            const struct steve_pipe_record *record) {
    size_t *size = &recorder->module_name_size;
    struct trace_event event = {.op = TRACE_MODULE,
                                .frames = recorder->module,
                                .frame_count = 3,
                                .name = recorder->module_name};
    if (record->op == STEVE_PIPE_MODULE) {
        recorder->module[0] = record->low;
        recorder->module[1] = record->high;
        memset(recorder->module_name, 0, sizeof recorder->module_name);
        *size = 0;
        return 0;
    }
    if (record->op == STEVE_PIPE_MODULE_END) {
        recorder->module[2] = record->low;
        return recorder->module[0] < recorder->module[1] ? add(recorder, &event) : 0;
    }
    if (*size + 2 * sizeof record->low < sizeof recorder->module_name) {
        memcpy(recorder->module_name + *size, &record->low, sizeof record->low);
        memcpy(recorder->module_name + *size + sizeof record->low, &record->high,
               sizeof record->high);
        *size += 2 * sizeof record->low;
    }
    return 0;
}

static void set_time(struct access_recorder *recorder, uint64_t ms) {
    if (recorder->start_ms == 0)
        recorder->start_ms = ms;
    uint64_t us = (ms - recorder->start_ms) * 1000;
    if (us > recorder->time_us)
        recorder->time_us = us;
}

static int take_record(struct access_recorder *recorder, const struct steve_pipe_record *record) {
    /* The tool's own records have no thread. */
    bool is_threaded = record->op <= STEVE_PIPE_UNLOCK;
    struct trace_event event = {.op = (enum trace_op)record->op,
                                .thread = is_threaded ? thread_of(recorder, record->thread) : 0,
                                .block = record->block,
                                .size = record->low,
                                .alignment_log2 = record->alignment_log2};
    switch (record->op) {
    case STEVE_PIPE_MALLOC:
    case STEVE_PIPE_CALLOC:
    case STEVE_PIPE_ALIGNED:
    case STEVE_PIPE_REALLOC:
        return add(recorder, &event);
    case STEVE_PIPE_FREE:
        event.size = 0;
        recorder->unknown_frees += record->high;
        return record->high != 0 ? 0 : add_free(recorder, &event);
    case STEVE_PIPE_ACCESS:
        event.op = TRACE_ACCESS;
        event.offset = record->low;
        event.size = record->high - record->low;
        event.reads = record->reads;
        event.writes = record->writes;
        return add(recorder, &event);
    case STEVE_PIPE_LOCK:
    case STEVE_PIPE_UNLOCK:
        return add_lock(recorder, &event, record->op == STEVE_PIPE_LOCK);
    case STEVE_PIPE_STACK:
    case STEVE_PIPE_FRAMES_MORE:
        return add_frames(recorder, record);
    case STEVE_PIPE_MODULE:
    case STEVE_PIPE_MODULE_NAME:
    case STEVE_PIPE_MODULE_END:
        return take_module_part(recorder, record);
    case STEVE_PIPE_TIME:
        set_time(recorder, record->low);
        return 0;
    case STEVE_PIPE_START:
        recorder->began = record->low == STEVE_PROTOCOL;
        return recorder->began ? 0 : fail(recorder, "the Valgrind tool is of another version");
    case STEVE_PIPE_END:
        recorder->ended = true;
        return 0;
    default:
        return fail(recorder, "the Valgrind tool wrote something unknown");
    }
}

static int take_run(struct access_recorder *recorder, const struct steve_pipe_run *run) {
    struct trace_event event;
    event.op = TRACE_ACCESS;
    event.thread = thread_of(recorder, run->thread);
    event.block = run->block;
    event.offset = run->low;
    event.size = run->high - run->low;
    event.reads = run->reads;
    event.writes = run->writes;
    return add(recorder, &event);
}

/* Takes whole records from [0, size) of the buffer. Returns the bytes taken, or -1. */
static ssize_t take_records(struct access_recorder *recorder, size_t size) {
    size_t at = 0;
    while (at < size) {
        const uint8_t *place = recorder->buffer + at;
        bool brief = *place == STEVE_PIPE_RUN;
        size_t length = brief ? sizeof(struct steve_pipe_run) : sizeof(struct steve_pipe_record);
        if (size - at < length)
            break;
        int result;
        if (brief) {
            struct steve_pipe_run run;
            memcpy(&run, place, sizeof run);
            result = take_run(recorder, &run);
        } else {
            struct steve_pipe_record record;
            memcpy(&record, place, sizeof record);
            result = take_record(recorder, &record);
        }
        if (result != 0)
            return -1;
        at += length;
    }
    return (ssize_t)at;
}

/* Reads the pipe to its end. */
static int read_pipe(struct access_recorder *recorder, int descriptor) {
    size_t held = 0;
    for (;;) {
        ssize_t got = read(descriptor, recorder->buffer + held, BUFFER_BYTES - held);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail(recorder, strerror(errno));
        if (got == 0)
            return 0;
        held += (size_t)got;
        ssize_t taken = take_records(recorder, held);
        if (taken < 0)
            return -1;
        held -= (size_t)taken;
        memmove(recorder->buffer, recorder->buffer + taken, held);
    }
}

/* --- The program. */

static _Noreturn void run_valgrind(const struct access_options *options, const char *folder,
                                   int pipe_end) {
    size_t count = 0;
    while (options->command[count] != NULL)
        count++;
    enum { OWN = 6 };
    char **arguments = calloc(count + OWN, sizeof *arguments);
    char pipe_option[32], stacks_option[32];
    if (arguments == NULL)
        _exit(STEVE_RECORDER);
    snprintf(pipe_option, sizeof pipe_option, "--pipe=%d", pipe_end);
    snprintf(stacks_option, sizeof stacks_option, "--stacks=%u", options->stacks);
    char program[] = "valgrind", tool[] = "--tool=steve", quiet[] = "-q";
    char *own[] = {program, tool, quiet, pipe_option, stacks_option};
    memcpy(arguments, own, sizeof own);
    memcpy(arguments + sizeof own / sizeof own[0], options->command, count * sizeof *arguments);
    setenv("VALGRIND_LIB", folder, 1);
    execvp("valgrind", arguments);
    steve_complain("cannot run valgrind: %s", strerror(errno));
    _exit(STEVE_RECORDER);
}

static bool find_tool(char *ret_folder, size_t size) {
    static const char *const places[] = {"../steve-valgrind", "valgrind"};
    static const char tool[] = "steve-amd64-linux";
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/%s", places[i], tool);
        if (steve_has_file(name, ret_folder, size)) {
            *strrchr(ret_folder, '/') = '\0';
            return true;
        }
    }
    steve_complain(
        "accesses cannot be recorded: steve was built without its Valgrind tool (install "
        "the package valgrind and build it again)");
    return false;
}

static void fill_header(const struct access_options *options, struct trace_header *header,
                        char *command, size_t size) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    header->start_unix_us = (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
    header->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
    header->command = command;
    for (char **word = options->command; *word != NULL; word++) {
        size_t length = strlen(*word) + 1;
        if (header->command_bytes + length > size)
            break;
        memcpy(command + header->command_bytes, *word, length);
        header->command_bytes += (uint32_t)length;
    }
}

static int finish(struct access_recorder *recorder, int wait_status, struct trace_totals *totals) {
    *totals = recorder->live.totals;
    totals->wait_status = (uint64_t)(unsigned)wait_status;
    totals->unknown_frees = recorder->unknown_frees;
    int result = trace_writer_finish(recorder->writer, totals, &recorder->error);
    recorder->writer = NULL;
    return result;
}

static int record(const struct access_options *options, struct access_recorder *recorder,
                  const char *folder, int *ret_status, struct trace_totals *ret_totals) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail(recorder, strerror(errno));
    /* The larger the pipe, the less the two wait for each other; a refusal does no harm. */
    fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES);
    pid_t pid = fork();
    if (pid == 0) {
        fcntl(ends[1], F_SETFD, 0);
        run_valgrind(options, folder, ends[1]);
    }
    close(ends[1]);
    /* The terminal's signals are for the program. */
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    int result = pid < 0 ? fail(recorder, strerror(errno)) : read_pipe(recorder, ends[0]);
    close(ends[0]);
    while (pid > 0 && waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
        ;
    if (result == 0 && !recorder->began)
        return fail(recorder, "valgrind did not start the program");
    if (result == 0 && !recorder->ended)
        steve_complain("the program was killed, or became another one: the end of the trace may "
                       "be missing");
    return result == 0 ? finish(recorder, *ret_status, ret_totals) : result;
}

int record_accesses(const struct access_options *options, int output, const char *name,
                    struct trace_totals *ret_totals) {
    static struct access_recorder recorder;
    static char command[TRACE_COMMAND_MAX];
    char folder[4096];
    int status = 0;
    struct trace_header header = {0};
    if (!find_tool(folder, sizeof folder)) {
        close(output);
        return STEVE_RECORDER;
    }
    fill_header(options, &header, command, sizeof command);
    recorder.writer =
        trace_writer_create(output, name, &header, options->compress, &recorder.error);
    int result = recorder.writer != NULL && trace_live_init(&recorder.live, 0) == 0
                     ? record(options, &recorder, folder, &status, ret_totals)
                     : -1;
    if (result != 0) {
        steve_complain("%s: the recording failed: %s", name, recorder.error.text);
        trace_writer_abandon(recorder.writer);
    }
    trace_live_finish(&recorder.live);
    /* Valgrind's own statuses for a program that cannot be run are ours, too. */
    bool not_run =
        !recorder.began && WIFEXITED(status) &&
        (WEXITSTATUS(status) == STEVE_CANNOT_RUN || WEXITSTATUS(status) == STEVE_NOT_FOUND);
    if (result != 0 && !not_run)
        return STEVE_RECORDER;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
