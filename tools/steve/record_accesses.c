/* steve record --accesses: runs a program under our Valgrind tool, a program of its own, and writes
 * what comes out of its pipe as traces. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "record_accesses.h"
#include "record_process.h"
#include "steve.h"

enum { BUFFER_BYTES = 1 << 20, PIPE_BYTES = 1 << 20, IDLE_NS = 300000 };

struct access_recorder {
    const struct access_options *options;
    int output; /* of the command's trace; -1 once it is begun */
    pid_t pid;
    struct timespec start;
    uint64_t start_unix_us;
    struct record_process **processes; /* the command's is kept to the end */
    size_t process_count;
    struct record_process *current; /* whose records come; NULL = to be left out */
    uint32_t current_pid;
    bool failed;
    struct trace_error error;
    uint8_t buffer[BUFFER_BYTES];
};

static int fail(struct access_recorder *recorder, const char *what) {
    snprintf(recorder->error.text, sizeof recorder->error.text, "%s", what);
    return -1;
}

static uint64_t elapsed_us(const struct access_recorder *recorder) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)(now.tv_sec - recorder->start.tv_sec) * 1000000u +
           (uint64_t)(now.tv_nsec - recorder->start.tv_nsec + 1000000000) / 1000u - 1000000u;
}

/* --- Processes. */

static void name_of(const struct access_recorder *recorder, uint32_t pid, char *ret_name,
                    size_t size) {
    snprintf(ret_name, size, pid == (uint32_t)recorder->pid ? "%s" : "%s.%u",
             recorder->options->output, pid);
}

static void fill_command(const struct access_options *options, struct trace_header *header,
                         char *command, size_t size) {
    header->command = command;
    for (char **word = options->command; *word != NULL; word++) {
        size_t length = strlen(*word) + 1;
        if (header->command_bytes + length > size)
            break;
        memcpy(command + header->command_bytes, *word, length);
        header->command_bytes += (uint32_t)length;
    }
}

/* The command line of a process under Valgrind as the kernel tells it: Valgrind's name and options,
 * which all begin with a dash, stand before it. A process that is gone already has our command's. */
static void read_command(const struct access_options *options, struct trace_header *header,
                         char *command, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/cmdline", header->pid);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = descriptor >= 0 ? read(descriptor, command, size) : 0;
    if (descriptor >= 0)
        close(descriptor);
    size_t bytes = got > 0 ? (size_t)got : 0;
    size_t at = strnlen(command, bytes) + 1;
    while (at < bytes && command[at] == '-')
        at += strnlen(command + at, bytes - at) + 1;
    if (at < bytes) {
        header->command = command + at;
        header->command_bytes = (uint32_t)(bytes - at);
    } else {
        fill_command(options, header, command, size);
    }
}

static int add_process(struct access_recorder *recorder, uint32_t pid) {
    static char command[TRACE_COMMAND_MAX];
    char name[4096];
    bool main = pid == (uint32_t)recorder->pid;
    struct trace_header header = {.pid = pid,
                                  .start_unix_us = recorder->start_unix_us,
                                  .page_size = (uint32_t)sysconf(_SC_PAGESIZE)};
    struct record_process **processes = realloc(
        recorder->processes, (recorder->process_count + 1) * sizeof(struct record_process *));
    if (processes == NULL)
        return fail(recorder, "out of memory");
    recorder->processes = processes;
    int output = recorder->output;
    name_of(recorder, pid, name, sizeof name);
    if (main) {
        fill_command(recorder->options, &header, command, sizeof command);
        recorder->output = -1;
    } else {
        read_command(recorder->options, &header, command, sizeof command);
        output = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (output < 0) {
            snprintf(recorder->error.text, sizeof recorder->error.text, "cannot write %.400s: %s",
                     name, strerror(errno));
            return -1;
        }
    }
    struct record_process *process =
        record_process_create(output, name, &header, recorder->options->compress, &recorder->error);
    if (process == NULL)
        return -1;
    recorder->processes[recorder->process_count++] = process;
    return 0;
}

/* Takes the process out of the list and ends its trace. */
static void finish_process(struct access_recorder *recorder, size_t index, int wait_status) {
    struct record_process *process = recorder->processes[index];
    uint32_t pid = process->pid;
    bool ended = process->ended;
    struct trace_totals totals;
    struct trace_error error;
    char name[4096];
    name_of(recorder, pid, name, sizeof name);
    recorder->processes[index] = recorder->processes[--recorder->process_count];
    if (recorder->current_pid == pid)
        recorder->current = NULL;
    if (record_process_finish(process, wait_status, &totals, &error) != 0) {
        steve_complain("%s: the recording failed: %s", name, error.text);
        recorder->failed = true;
        return;
    }
    if (!ended && pid == (uint32_t)recorder->pid)
        steve_complain("the program was killed, or became one that cannot be recorded: the end of "
                       "the trace may be missing");
    if (totals.allocations == 0)
        steve_complain("%s: no allocation was seen; of a statically linked program none is", name);
    if (recorder->options->tell != NULL)
        recorder->options->tell(name, &totals);
}

static bool find_process(const struct access_recorder *recorder, uint32_t pid, size_t *ret_index) {
    for (size_t i = 0; i < recorder->process_count; i++) {
        if (recorder->processes[i]->pid == pid) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

/* --- Records. */

static int switch_process(struct access_recorder *recorder, uint32_t pid) {
    size_t index;
    recorder->current_pid = pid;
    recorder->current = find_process(recorder, pid, &index) ? recorder->processes[index] : NULL;
    return 0;
}

static int start_process(struct access_recorder *recorder, const struct steve_pipe_record *record) {
    uint32_t pid = recorder->current_pid;
    if (recorder->current == NULL && add_process(recorder, pid) != 0)
        return -1;
    switch_process(recorder, pid);
    return record_process_start(recorder->current, record, elapsed_us(recorder));
}

static int take_record(struct access_recorder *recorder, const struct steve_pipe_record *record) {
    size_t index;
    if (record->op == STEVE_PIPE_FROM)
        return switch_process(recorder, record->reads);
    if (record->op == STEVE_PIPE_START)
        return start_process(recorder, record);
    if (recorder->current == NULL)
        return 0;
    int result = record_process_take(recorder->current, record);
    /* The status of the command is yet to come. */
    if (result == 0 && recorder->current->ended &&
        recorder->current_pid != (uint32_t)recorder->pid &&
        find_process(recorder, recorder->current_pid, &index))
        finish_process(recorder, index, 0);
    return result;
}

static int take_run(struct access_recorder *recorder, const struct steve_pipe_run *run) {
    return recorder->current != NULL ? record_process_take_run(recorder->current, run) : 0;
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
        if (result != 0) {
            if (recorder->current != NULL && recorder->current->error.text[0] != '\0')
                recorder->error = recorder->current->error;
            return -1;
        }
        at += length;
    }
    return (ssize_t)at;
}

/* Takes what is in the pipe, but after `limit` bytes no more; `held` are the bytes of a record that
 * has not come completely. */
static int drain_pipe(struct access_recorder *recorder, int descriptor, size_t *held,
                      size_t limit) {
    for (size_t drained = 0; drained < limit;) {
        ssize_t got = read(descriptor, recorder->buffer + *held, BUFFER_BYTES - *held);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 && (got == 0 || errno == EAGAIN))
            return 0;
        if (got < 0)
            return fail(recorder, strerror(errno));
        drained += (size_t)got;
        *held += (size_t)got;
        ssize_t taken = take_records(recorder, *held);
        if (taken < 0)
            return -1;
        *held -= (size_t)taken;
        memmove(recorder->buffer, recorder->buffer + taken, *held);
    }
    return 0;
}

/* Records until the command ends. All it wrote is in the pipe then, which holds no more than
 * PIPE_BYTES; what other processes write from then on is left out. */
static int follow(struct access_recorder *recorder, int descriptor, bool *ret_waited,
                  int *ret_status) {
    size_t held = 0;
    int result;
    do {
        /* Not poll: being woken for every few KiB would cost both sides more than the records do. */
        nanosleep(&(struct timespec){0, IDLE_NS}, NULL);
        *ret_waited = waitpid(recorder->pid, ret_status, WNOHANG) == recorder->pid;
        result = drain_pipe(recorder, descriptor, &held, PIPE_BYTES);
    } while (result == 0 && !*ret_waited);
    return result;
}

/* --- The program. */

/* Valgrind opens the pipe by the name that it has in our process: each process anew, and each
 * program that one begins with exec. */
static _Noreturn void run_valgrind(const struct access_options *options, const char *folder,
                                   int pipe_end) {
    size_t count = 0;
    while (options->command[count] != NULL)
        count++;
    enum { OWN = 7 };
    char **arguments = calloc(count + OWN + 1, sizeof *arguments);
    char pipe_option[64], stacks_option[32], children_option[32];
    if (arguments == NULL)
        _exit(STEVE_RECORDER);
    snprintf(pipe_option, sizeof pipe_option, "--pipe=/proc/%d/fd/%d", (int)getppid(), pipe_end);
    snprintf(stacks_option, sizeof stacks_option, "--stacks=%u", options->stacks);
    snprintf(children_option, sizeof children_option, "--children=%s",
             options->children ? "yes" : "no");
    char program[] = "valgrind", tool[] = "--tool=steve", quiet[] = "-q";
    char follow_exec[] = "--trace-children=yes";
    char *own[OWN] = {program,     tool,          quiet,          follow_exec,
                      pipe_option, stacks_option, children_option};
    memcpy(arguments, own, sizeof own);
    memcpy(arguments + OWN, options->command, count * sizeof *arguments);
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

/* Runs the command and takes all records. `ret_status` is that of waitpid. */
static int record(struct access_recorder *recorder, const char *folder, int *ret_status) {
    int ends[2];
    bool waited = false;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail(recorder, strerror(errno));
    /* The larger the pipe, the less the two wait for each other; a refusal does no harm. */
    fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    recorder->pid = fork();
    if (recorder->pid == 0)
        run_valgrind(recorder->options, folder, ends[1]);
    /* The terminal's signals are for the program. */
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    int result = recorder->pid < 0 ? fail(recorder, strerror(errno))
                                   : follow(recorder, ends[0], &waited, ret_status);
    /* Our own writing end stays open until now, so that the pipe does not end between programs. */
    close(ends[0]);
    close(ends[1]);
    while (recorder->pid > 0 && !waited && waitpid(recorder->pid, ret_status, 0) < 0 &&
           errno == EINTR)
        ;
    return result;
}

/* Ends or gives up all traces. Returns whether the command's was begun. */
static bool finish_all(struct access_recorder *recorder, bool complete, int status) {
    size_t index;
    bool began = find_process(recorder, (uint32_t)recorder->pid, &index);
    for (size_t i = recorder->process_count; i-- > 0;) {
        bool main = recorder->processes[i]->pid == (uint32_t)recorder->pid;
        if (complete)
            finish_process(recorder, i, main ? status : 0);
        else
            record_process_abandon(recorder->processes[i]);
    }
    free(recorder->processes);
    if (recorder->output >= 0)
        close(recorder->output);
    return began;
}

int record_accesses(const struct access_options *options, int output) {
    static struct access_recorder recorder;
    struct timespec now;
    char folder[4096];
    int status = 0;
    recorder.options = options;
    recorder.output = output;
    if (!find_tool(folder, sizeof folder)) {
        close(output);
        return STEVE_RECORDER;
    }
    clock_gettime(CLOCK_MONOTONIC, &recorder.start);
    clock_gettime(CLOCK_REALTIME, &now);
    recorder.start_unix_us = (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
    int result = record(&recorder, folder, &status);
    bool began = finish_all(&recorder, result == 0, status);
    /* Valgrind's own statuses for a program that cannot be run are ours, too. */
    if (result == 0 && !began && WIFEXITED(status) &&
        (WEXITSTATUS(status) == STEVE_CANNOT_RUN || WEXITSTATUS(status) == STEVE_NOT_FOUND))
        return WEXITSTATUS(status);
    if (result == 0 && !began)
        result = fail(&recorder, "valgrind did not start the program");
    if (result != 0)
        steve_complain("%s: the recording failed: %s", options->output, recorder.error.text);
    if (result != 0 || recorder.failed)
        return STEVE_RECORDER;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
