/* steve record: runs a program with the recorder before its allocator, and turns what comes out of
 * the rings into trace files while it runs. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "record_accesses.h"
#include "record_session.h"
#include "steve.h"

#define HELP                                                                                       \
    "Usage: steve record -o FILE [OPTION]... [--] COMMAND [ARGUMENT]...\n"                         \
    "\n"                                                                                           \
    "Runs COMMAND and records every allocation, reallocation and free of it in FILE.\n"            \
    "\n"                                                                                           \
    "  -o, --output=FILE   the trace; an existing file is replaced\n"                              \
    "      --children      record the processes COMMAND starts as well, each in FILE.PID;\n"       \
    "                      without this, only the first process is recorded. A program that\n"     \
    "                      it replaces itself with (exec) belongs to the same trace.\n"            \
    "      --accesses      record the memory it reads and writes as well, under Valgrind: many\n"  \
    "                      times slower, and for x86-64 only\n"                                    \
    "      --stacks=N      N frames of the call stack of each allocation, at most 64; who owns\n"  \
    "                      the memory is then shown by 'steve info --sites'\n"                     \
    "      --no-compress   store the trace as it is\n"                                             \
    "  -q, --quiet         no summary on standard error\n"                                         \
    "  -h, --help          this text\n"                                                            \
    "\n"                                                                                           \
    "Exit status: that of COMMAND, or 128+N when signal N ended it; 2 wrong command line;\n"       \
    "125 the recording failed or is not complete; 126 COMMAND cannot be run; 127 there is no\n"    \
    "COMMAND. Statically linked and setuid programs cannot be recorded (125).\n"

enum { DRAIN_AT_ONCE = 4096, IDLE_NS = 300000, STUCK_SECONDS = 2 };

struct session_slot {
    struct record_session *session;
    int pidfd; /* -1 = the process is gone, or it is the main process */
    bool main;
    char name[4096];
};

struct recorder {
    const char *output;
    int output_descriptor;
    bool children;
    bool compress;
    bool quiet;
    bool accesses;
    uint64_t stacks;
    char control_path[128];
    struct record_control *control;
    uint32_t rings_seen;
    pid_t pid;
    char **command;
    struct session_slot *sessions;
    size_t session_count;
    struct timespec start;
    uint64_t start_unix_us;
    bool had_main;
    bool failed;
};

static volatile sig_atomic_t pending_signal;

static void on_signal(int number) {
    pending_signal = number;
}

static uint64_t elapsed_us(const struct recorder *recorder) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)(now.tv_sec - recorder->start.tv_sec) * 1000000u +
           (uint64_t)(now.tv_nsec - recorder->start.tv_nsec + 1000000000) / 1000u - 1000000u;
}

/* --- Preparation. */

static int create_control(struct recorder *recorder) {
    static const char *const directories[] = {"/dev/shm", "/tmp"};
    int descriptor = -1;
    int error = 0;
    for (size_t i = 0; i < 2 && descriptor < 0; i++) {
        snprintf(recorder->control_path, sizeof recorder->control_path, "%s/steve-XXXXXX",
                 directories[i]);
        descriptor = mkostemp(recorder->control_path, O_CLOEXEC);
        if (descriptor < 0)
            continue;
        error = posix_fallocate(descriptor, 0, sizeof *recorder->control);
        if (error != 0) {
            close(descriptor);
            unlink(recorder->control_path);
            descriptor = -1;
            errno = error;
        }
    }
    if (descriptor < 0) {
        steve_complain("cannot make a file in /dev/shm or /tmp: %s", strerror(errno));
        return -1;
    }
    recorder->control =
        mmap(NULL, sizeof *recorder->control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (recorder->control == MAP_FAILED) {
        steve_complain("cannot map %s: %s", recorder->control_path, strerror(errno));
        unlink(recorder->control_path);
        return -1;
    }
    recorder->control->layout = RECORD_LAYOUT;
    recorder->control->steve_pid = (uint32_t)getpid();
    recorder->control->children = recorder->children;
    recorder->control->stacks = (uint32_t)recorder->stacks;
    return 0;
}

/* LD_PRELOAD of the program: the recorder before what is there already. */
static int make_preload(char **ret_value) {
    char path[4096];
    if (steve_find_file("libsteve-record.so", path, sizeof path) != 0)
        return -1;
    if (strpbrk(path, " :") != NULL) {
        steve_complain("the dynamic linker cannot preload a path with spaces or colons: %s", path);
        return -1;
    }
    const char *old = getenv("LD_PRELOAD");
    bool has_old = old != NULL && *old != '\0';
    if (asprintf(ret_value, "%s%s%s", path, has_old ? ":" : "", has_old ? old : "") < 0) {
        steve_complain("out of memory");
        return -1;
    }
    return 0;
}

/* In the child: becomes the program. Tells why it could not over `report`. */
static _Noreturn void run_program(struct recorder *recorder, const char *preload, int report,
                                  const sigset_t *mask) {
    atomic_store(&recorder->control->main_pid, (uint32_t)getpid());
    setenv("LD_PRELOAD", preload, 1);
    setenv(RECORD_CONTROL_VARIABLE, recorder->control_path, 1);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(recorder->command[0], recorder->command);
    int error = errno;
    if (write(report, &error, sizeof error) != (ssize_t)sizeof error)
        _exit(STEVE_RECORDER);
    _exit(error == ENOENT ? STEVE_NOT_FOUND : STEVE_CANNOT_RUN);
}

/* The terminal's signals are for the program; a request to end is passed on to it. */
static void set_signals(void) {
    struct sigaction action = {.sa_handler = SIG_IGN};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGQUIT, &action, NULL);
    action.sa_handler = on_signal;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

/* Starts the program. 0, or the exit status after a complaint. */
static int start_program(struct recorder *recorder) {
    char *preload;
    int report[2];
    if (make_preload(&preload) != 0)
        return STEVE_RECORDER;
    if (pipe2(report, O_CLOEXEC) != 0) {
        steve_complain("cannot make a pipe: %s", strerror(errno));
        free(preload);
        return STEVE_RECORDER;
    }
    sigset_t all, mask;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &mask);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    recorder->start_unix_us = (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
    clock_gettime(CLOCK_MONOTONIC, &recorder->start);
    recorder->pid = fork();
    if (recorder->pid == 0)
        run_program(recorder, preload, report[1], &mask);
    int saved = errno;
    set_signals();
    sigprocmask(SIG_SETMASK, &mask, NULL);
    free(preload);
    close(report[1]);
    int error = 0;
    ssize_t got = read(report[0], &error, sizeof error);
    close(report[0]);
    if (recorder->pid < 0) {
        steve_complain("cannot fork: %s", strerror(saved));
        return STEVE_RECORDER;
    }
    if (got <= 0)
        return 0;
    waitpid(recorder->pid, NULL, 0);
    steve_complain("cannot run %s: %s", recorder->command[0], strerror(error));
    return error == ENOENT ? STEVE_NOT_FOUND : STEVE_CANNOT_RUN;
}

/* --- Rings and sessions. */

static struct record_ring *map_ring(struct recorder *recorder, uint32_t number) {
    char path[sizeof recorder->control_path + 16];
    snprintf(path, sizeof path, "%s.%u", recorder->control_path, number);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    unlink(path);
    if (descriptor < 0)
        return NULL;
    struct record_ring *ring =
        mmap(NULL, sizeof *ring, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    return ring == MAP_FAILED ? NULL : ring;
}

/* The command line of a process as the kernel tells it; else that of the recorded command. */
static void read_command(struct recorder *recorder, uint32_t pid, struct trace_header *header) {
    static char text[TRACE_COMMAND_MAX];
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    ssize_t size = 0;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0) {
        size = read(descriptor, text, sizeof text);
        close(descriptor);
    }
    if (size <= 0) {
        size = 0;
        for (char **word = recorder->command; *word != NULL; word++) {
            size_t length = strlen(*word) + 1;
            if ((size_t)size + length > sizeof text)
                break;
            memcpy(text + size, *word, length);
            size += (ssize_t)length;
        }
    }
    header->command = text;
    header->command_bytes = (uint32_t)size;
}

static int open_output(struct recorder *recorder, const char *name, bool main) {
    if (!main)
        return open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int descriptor = recorder->output_descriptor;
    recorder->output_descriptor = -1;
    /* Not a regular file, such as /dev/null: cannot be cut to length 0 and need not be. */
    if (ftruncate(descriptor, 0) != 0 && errno != EINVAL) {
        int saved = errno;
        close(descriptor);
        errno = saved;
        return -1;
    }
    return descriptor;
}

static void add_session(struct recorder *recorder, struct record_ring *ring) {
    struct session_slot *sessions =
        realloc(recorder->sessions, (recorder->session_count + 1) * sizeof *sessions);
    if (sessions == NULL) {
        steve_complain("out of memory");
        goto failed;
    }
    recorder->sessions = sessions;
    struct session_slot *slot = &sessions[recorder->session_count];
    slot->main = ring->pid == (uint32_t)recorder->pid;
    snprintf(slot->name, sizeof slot->name, slot->main ? "%s" : "%s.%u", recorder->output,
             ring->pid);
    /* Of all traces the same, as the times of their events are. */
    struct trace_header header = {
        .pid = ring->pid,
        .start_unix_us = recorder->start_unix_us,
        .page_size = (uint32_t)sysconf(_SC_PAGESIZE),
    };
    read_command(recorder, ring->pid, &header);
    struct trace_error error;
    int descriptor = open_output(recorder, slot->name, slot->main);
    if (descriptor < 0) {
        steve_complain("cannot write %s: %s", slot->name, strerror(errno));
        goto failed;
    }
    slot->session =
        session_create(ring, descriptor, slot->name, &header, recorder->compress, &error);
    if (slot->session == NULL) {
        steve_complain("%s", error.text);
        goto failed;
    }
    slot->pidfd = slot->main ? -1 : (int)syscall(SYS_pidfd_open, ring->pid, 0);
    recorder->had_main |= slot->main;
    recorder->session_count++;
    return;
failed:
    recorder->failed = true;
    atomic_store(&ring->closed, 1);
    munmap(ring, sizeof *ring);
}

/* A ring that appeared: a process joined, or one of ours became another program. */
static void take_ring(struct recorder *recorder, struct record_ring *ring) {
    atomic_store(&ring->time, (uint32_t)(elapsed_us(recorder) / RECORD_TICK_US));
    for (size_t i = 0; i < recorder->session_count; i++) {
        struct record_session *session = recorder->sessions[i].session;
        if (session->pid == ring->pid) {
            session_exec(session, ring);
            return;
        }
    }
    add_session(recorder, ring);
}

static void find_rings(struct recorder *recorder) {
    uint32_t rings = atomic_load(&recorder->control->rings);
    while (recorder->rings_seen < rings && recorder->rings_seen < RECORD_RINGS_MAX) {
        uint32_t ready = atomic_load(&recorder->control->ready[recorder->rings_seen]);
        if (ready == 0)
            return;
        struct record_ring *ring = ready == 1 ? map_ring(recorder, recorder->rings_seen) : NULL;
        recorder->rings_seen++;
        if (ring != NULL) {
            take_ring(recorder, ring);
        } else {
            steve_complain("a process could not share memory with the recorder");
            recorder->failed = true;
        }
    }
}

static void print_summary(const char *name, const struct trace_totals *totals) {
    struct stat status;
    char peak[STEVE_BYTES_TEXT], size[STEVE_BYTES_TEXT];
    if (stat(name, &status) != 0)
        status.st_size = 0;
    steve_complain("%s: %llu events (%llu allocations, %llu reallocations, %llu frees), %llu "
                   "threads, peak %s live, %s on disk",
                   name, (unsigned long long)totals->events,
                   (unsigned long long)totals->allocations,
                   (unsigned long long)totals->reallocations, (unsigned long long)totals->frees,
                   (unsigned long long)totals->threads,
                   steve_bytes_text((double)totals->peak_live_bytes, peak),
                   steve_bytes_text((double)status.st_size, size));
    if (totals->lost_events != 0)
        steve_complain("%s: %llu operations were begun and never finished", name,
                       (unsigned long long)totals->lost_events);
}

static void finish_session(struct recorder *recorder, size_t index, int wait_status, bool ended) {
    struct session_slot *slot = &recorder->sessions[index];
    struct trace_totals totals;
    struct trace_error error;
    if (ended)
        session_drain_rest(slot->session);
    else
        session_drain(slot->session, RECORD_SLOTS);
    if (session_finish(slot->session, wait_status, &totals, &error) != 0) {
        steve_complain("the recording is not complete: %s", error.text);
        recorder->failed = true;
    } else if (!recorder->quiet) {
        print_summary(slot->name, &totals);
    }
    if (slot->pidfd >= 0)
        close(slot->pidfd);
    *slot = recorder->sessions[--recorder->session_count];
}

static bool has_exited(const struct session_slot *slot) {
    struct pollfd wait_for = {.fd = slot->pidfd, .events = POLLIN};
    return !slot->main && (slot->pidfd < 0 || poll(&wait_for, 1, 0) > 0);
}

/* An operation that stays incomplete while everybody waits behind it (a thread left it with longjmp
 * from a signal handler) must not stop the program for ever. */
static void unblock(struct record_session *session, uint64_t now_us) {
    struct record_ring *ring = session->ring;
    uint64_t used = atomic_load(&ring->head) - atomic_load(&ring->tail);
    if (used < RECORD_SLOTS)
        session->stuck_since_us = 0;
    else if (session->stuck_since_us == 0)
        session->stuck_since_us = now_us;
    else if (now_us - session->stuck_since_us > STUCK_SECONDS * 1000000u) {
        session_skip_one(session);
        session->stuck_since_us = 0;
    }
}

/* One round over all sessions. Returns the operations taken. */
static uint64_t drain_all(struct recorder *recorder) {
    uint64_t taken = 0;
    for (size_t i = 0; i < recorder->session_count;) {
        struct session_slot *slot = &recorder->sessions[i];
        uint64_t now_us = elapsed_us(recorder);
        bool ended = has_exited(slot);
        atomic_store(&slot->session->ring->time, (uint32_t)(now_us / RECORD_TICK_US));
        uint64_t count = session_drain(slot->session, DRAIN_AT_ONCE);
        taken += count;
        if (count == 0)
            unblock(slot->session, now_us);
        else
            slot->session->stuck_since_us = 0;
        if (ended)
            finish_session(recorder, i, 0, true);
        else
            i++;
    }
    return taken;
}

static int follow_program(struct recorder *recorder) {
    int status = 0;
    for (;;) {
        if (pending_signal != 0) {
            kill(recorder->pid, pending_signal);
            pending_signal = 0;
        }
        bool ended = waitpid(recorder->pid, &status, WNOHANG) == recorder->pid;
        find_rings(recorder);
        uint64_t taken = drain_all(recorder);
        if (ended)
            break;
        if (taken == 0)
            nanosleep(&(struct timespec){0, IDLE_NS}, NULL);
    }
    while (recorder->session_count > 0) {
        struct session_slot *slot = &recorder->sessions[0];
        finish_session(recorder, 0, slot->main ? status : 0, slot->main || has_exited(slot));
    }
    return status;
}

/* --- The command. */

static int parse_arguments(struct recorder *recorder, int argc, char **argv) {
    enum { CHILDREN = 256, NO_COMPRESS, ACCESSES, STACKS };
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"children", no_argument, NULL, CHILDREN},
        {"no-compress", no_argument, NULL, NO_COMPRESS},
        {"accesses", no_argument, NULL, ACCESSES},
        {"stacks", required_argument, NULL, STACKS},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "+o:qh", options, NULL)) != -1) {
        if (option == 'o')
            recorder->output = optarg;
        else if (option == CHILDREN)
            recorder->children = true;
        else if (option == NO_COMPRESS)
            recorder->compress = false;
        else if (option == ACCESSES)
            recorder->accesses = true;
        else if (option == STACKS &&
                 steve_parse_number("--stacks", optarg, 0, TRACE_STACK_MAX, &recorder->stacks) == 0)
            continue;
        else if (option == 'q')
            recorder->quiet = true;
        else if (option == 'h') {
            fputs(HELP, stdout);
            return STEVE_OK;
        } else {
            return STEVE_USAGE;
        }
    }
    recorder->command = argv + optind;
    if (recorder->output == NULL || recorder->command[0] == NULL) {
        steve_complain("record needs %s; see 'steve record --help'",
                       recorder->output == NULL ? "an output file (-o FILE)" : "a command to run");
        return STEVE_USAGE;
    }
    return -1;
}

static int exit_status(const struct recorder *recorder, int wait_status) {
    if (!recorder->had_main && !recorder->failed)
        steve_complain("nothing was recorded: %s did not load the recorder (is it statically "
                       "linked, or setuid?)",
                       recorder->command[0]);
    if (!recorder->had_main || recorder->failed)
        return STEVE_RECORDER;
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

static void tell_of_accesses(const char *name, const struct trace_totals *totals) {
    print_summary(name, totals);
    steve_complain("%s: %llu reads and %llu writes in %llu runs", name,
                   (unsigned long long)totals->reads, (unsigned long long)totals->writes,
                   (unsigned long long)totals->access_runs);
}

/* Under Valgrind. */
static int record_with_accesses(struct recorder *recorder) {
    struct access_options options = {.command = recorder->command,
                                     .output = recorder->output,
                                     .stacks = (unsigned)recorder->stacks,
                                     .children = recorder->children,
                                     .compress = recorder->compress,
                                     .tell = recorder->quiet ? NULL : tell_of_accesses};
    if (ftruncate(recorder->output_descriptor, 0) != 0 && errno != EINVAL) {
        steve_complain("cannot write %s: %s", recorder->output, strerror(errno));
        return STEVE_RECORDER;
    }
    return record_accesses(&options, recorder->output_descriptor);
}

int steve_record(int argc, char **argv) {
    struct recorder recorder = {.compress = true, .output_descriptor = -1};
    int status = parse_arguments(&recorder, argc, argv);
    if (status >= 0)
        return status;
    /* Not emptied before there is something to write: a mistyped command must not cost a trace. */
    recorder.output_descriptor = open(recorder.output, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (recorder.output_descriptor < 0) {
        steve_complain("cannot write %s: %s", recorder.output, strerror(errno));
        return STEVE_RECORDER;
    }
    if (recorder.accesses)
        return record_with_accesses(&recorder);
    if (create_control(&recorder) != 0)
        return STEVE_RECORDER;
    status = start_program(&recorder);
    if (status == 0)
        status = exit_status(&recorder, follow_program(&recorder));
    unlink(recorder.control_path);
    munmap(recorder.control, sizeof *recorder.control);
    if (recorder.output_descriptor >= 0)
        close(recorder.output_descriptor);
    free(recorder.sessions);
    return status;
}
