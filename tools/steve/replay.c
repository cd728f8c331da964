/* steve replay: runs every pass on every allocator in a process of its own and reports. */
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report.h"
#include "steve.h"
#include "trace_read.h"

#define HELP                                                                                       \
    "Usage: steve replay [OPTION]... FILE\n"                                                       \
    "\n"                                                                                           \
    "Replays a trace on Jeff, with blocks behind handles, and on the system's malloc, each in a\n" \
    "process of its own, and prints what each needed in memory and time.\n"                        \
    "\n"                                                                                           \
    "  -a, --allocators=LIST  which, separated by commas (default jeff,malloc)\n"                  \
    "      --idle-every=N     an idle point after every N operations (default 5000)\n"             \
    "      --budget-us=N      microseconds for a compaction at each idle point (default 1000);\n"  \
    "                         0 = none there, only the full one at the end\n"                      \
    "      --samples=N        points of the memory curve, about (default 1000)\n"                  \
    "      --repeat=N         passes for speed; the median one is shown (default 3)\n"             \
    "      --plot=FILE        draw memory over time; writes a PNG and an SVG, named like FILE\n"   \
    "      --json=FILE        write all results and samples as JSON\n"                             \
    "      --csv=FILE         write the samples as CSV\n"                                          \
    "      --partial          replay a trace that is cut off or damaged up to that place\n"        \
    "  -q, --quiet            no progress on standard error\n"                                     \
    "  -h, --help             this text\n"                                                         \
    "\n"                                                                                           \
    "Exit status: 0; 1 the trace is damaged, an allocator failed or changed a block's contents,\n" \
    "or a file cannot be written; 2 wrong command line.\n"

enum { ALLOCATORS_MAX = 8, REPEAT_MAX = 100, SAMPLES_MAX = REPLAY_SAMPLES_MAX / 2 - 16 };

struct replayer {
    struct replay_options options;
    const struct replay_backend *backends[ALLOCATORS_MAX];
    size_t backend_count;
    unsigned repeat;
    const char *trace;
    const char *plot;
    const char *json;
    const char *csv;
    bool quiet;
    bool failed;
};

const struct replay_backend *replay_backend_at(size_t index) {
    static const struct replay_backend *const backends[] = {&replay_jeff, &replay_malloc, NULL};
    return backends[index];
}

const struct replay_backend *replay_backend_find(const char *name) {
    for (size_t i = 0; replay_backend_at(i) != NULL; i++) {
        if (strcmp(replay_backend_at(i)->name, name) == 0)
            return replay_backend_at(i);
    }
    return NULL;
}

/* --- Workers. They are this program again, started anew: a fork would carry the memory of the
 * parent into what is measured. */

static struct replay_result *map_result(int descriptor) {
    void *result = mmap(NULL, REPLAY_RESULT_BYTES, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_POPULATE, descriptor, 0);
    return result == MAP_FAILED ? NULL : result;
}

int steve_replay_worker(int argc, char **argv) {
    enum { BACKEND = 1, PASS, IDLE_EVERY, BUDGET, SAMPLES, PARTIAL, RESULT, TRACE, COUNT };
    uint64_t numbers[COUNT] = {0};
    if (argc != COUNT)
        return STEVE_USAGE;
    for (int i = PASS; i < TRACE; i++) {
        if (steve_parse_number(argv[0], argv[i], 0, UINT64_MAX, &numbers[i]) != 0)
            return STEVE_USAGE;
    }
    const struct replay_backend *backend = replay_backend_find(argv[BACKEND]);
    struct replay_result *result = map_result((int)numbers[RESULT]);
    if (backend == NULL || result == NULL) {
        steve_complain("the replay worker cannot start");
        return STEVE_FAILED;
    }
    struct replay_options options = {
        .idle_every = numbers[IDLE_EVERY],
        .budget_us = (uint32_t)numbers[BUDGET],
        .samples = numbers[SAMPLES],
        .partial = numbers[PARTIAL] != 0,
    };
    enum replay_pass pass = numbers[PASS] != 0 ? REPLAY_SPEED : REPLAY_MEMORY;
    return replay_run(argv[TRACE], backend, pass, &options, result) == 0 ? STEVE_OK : STEVE_FAILED;
}

static _Noreturn void exec_worker(const struct replayer *replayer,
                                  const struct replay_backend *backend, enum replay_pass pass,
                                  int descriptor) {
    char numbers[6][24];
    const struct replay_options *options = &replayer->options;
    snprintf(numbers[0], sizeof numbers[0], "%d", pass == REPLAY_SPEED);
    snprintf(numbers[1], sizeof numbers[1], "%" PRIu64, options->idle_every);
    snprintf(numbers[2], sizeof numbers[2], "%u", options->budget_us);
    snprintf(numbers[3], sizeof numbers[3], "%" PRIu64, options->samples);
    snprintf(numbers[4], sizeof numbers[4], "%d", options->partial);
    snprintf(numbers[5], sizeof numbers[5], "%d", descriptor);
    execl("/proc/self/exe", "steve", STEVE_WORKER_COMMAND, backend->name, numbers[0], numbers[1],
          numbers[2], numbers[3], numbers[4], numbers[5], replayer->trace, (char *)NULL);
    steve_complain("cannot start the replay worker: %s", strerror(errno));
    _exit(STEVE_FAILED);
}

/* Runs one pass. NULL after a complaint. */
static const struct replay_result *
run_pass(struct replayer *replayer, const struct replay_backend *backend, enum replay_pass pass) {
    static const char *const names[] = {"memory", "speed"};
    struct replay_result *result = NULL;
    int descriptor = memfd_create("steve-replay", 0);
    if (descriptor >= 0 && ftruncate(descriptor, (off_t)REPLAY_RESULT_BYTES) == 0)
        result = map_result(descriptor);
    if (result == NULL) {
        steve_complain("cannot share memory with a replay worker: %s", strerror(errno));
        if (descriptor >= 0)
            close(descriptor);
        return NULL;
    }
    if (!replayer->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, "\rsteve: %s, pass for %s ...\033[K", backend->name, names[pass]);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        exec_worker(replayer, backend, pass, descriptor);
    close(descriptor);
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!replayer->quiet && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    if (pid < 0)
        steve_complain("cannot fork: %s", strerror(errno));
    else if (WIFSIGNALED(status))
        steve_complain("%s: the pass for %s ended by signal %d (%s)", backend->name, names[pass],
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) == 0 && result->done)
        return result;
    else
        steve_complain("%s: the pass for %s failed", backend->name, names[pass]);
    munmap(result, REPLAY_RESULT_BYTES);
    return NULL;
}

static int compare_seconds(const void *left, const void *right) {
    double a = (*(const struct replay_result *const *)left)->seconds;
    double b = (*(const struct replay_result *const *)right)->seconds;
    return (a > b) - (a < b);
}

static double per_second(const struct replay_result *result) {
    return result->seconds > 0 ? (double)result->operations / result->seconds : 0;
}

/* All passes on one allocator. */
static struct replay_report run_backend(struct replayer *replayer,
                                        const struct replay_backend *backend) {
    struct replay_report report = {.backend = backend};
    const struct replay_result *speeds[REPEAT_MAX];
    report.memory = run_pass(replayer, backend, REPLAY_MEMORY);
    while (report.memory != NULL && report.repeats < replayer->repeat) {
        speeds[report.repeats] = run_pass(replayer, backend, REPLAY_SPEED);
        if (speeds[report.repeats] == NULL)
            break;
        report.repeats++;
    }
    if (report.memory == NULL || report.repeats < replayer->repeat) {
        replayer->failed = true;
        return report;
    }
    qsort(speeds, report.repeats, sizeof speeds[0], compare_seconds);
    report.speed = speeds[(report.repeats - 1) / 2];
    report.speed_highest = per_second(speeds[0]);
    report.speed_lowest = per_second(speeds[report.repeats - 1]);
    return report;
}

/* --- The picture. */

/* Runs the plotting program on the JSON. 0, or -1 after a complaint. */
static int draw(const char *json, const char *plot) {
    char script[4096];
    if (steve_find_file("steve-plot", script, sizeof script) != 0)
        return -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        const char *python = getenv("STEVE_PYTHON");
        if (python == NULL)
            python = STEVE_PYTHON;
        execlp(python, python, script, json, plot, (char *)NULL);
        steve_complain("cannot run %s: %s", python, strerror(errno));
        _exit(127);
    }
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        steve_complain("the picture was not drawn");
        return -1;
    }
    return 0;
}

static int write_reports(const struct replayer *replayer, const struct report_subject *subject,
                         const struct replay_report *reports) {
    int result = 0;
    char temporary[] = "/tmp/steve-XXXXXX";
    const char *json = replayer->json;
    if (replayer->csv != NULL)
        result |= report_csv(replayer->csv, reports, replayer->backend_count);
    if (replayer->plot != NULL && json == NULL) {
        int descriptor = mkostemp(temporary, O_CLOEXEC);
        if (descriptor < 0) {
            steve_complain("cannot make a file in /tmp: %s", strerror(errno));
            return -1;
        }
        close(descriptor);
        json = temporary;
    }
    if (json != NULL && report_json(json, subject, reports, replayer->backend_count) != 0)
        result = -1;
    else if (replayer->plot != NULL)
        result |= draw(json, replayer->plot);
    if (json == temporary)
        unlink(temporary);
    return result;
}

/* --- The command. */

static int parse_allocators(struct replayer *replayer, char *list) {
    replayer->backend_count = 0;
    for (char *rest = list, *name; (name = strsep(&rest, ",")) != NULL;) {
        const struct replay_backend *backend = replay_backend_find(name);
        if (backend == NULL || replayer->backend_count == ALLOCATORS_MAX) {
            steve_complain(backend == NULL ? "there is no allocator '%s'"
                                           : "too many allocators at '%s'",
                           name);
            return -1;
        }
        replayer->backends[replayer->backend_count++] = backend;
    }
    return 0;
}

enum { IDLE_EVERY = 256, BUDGET_US, SAMPLES, REPEAT, PLOT, JSON, CSV, PARTIAL };

static int parse_option(struct replayer *replayer, int option, char *value) {
    uint64_t number = 0;
    int result = 0;
    switch (option) {
    case 'a':
        return parse_allocators(replayer, value);
    case IDLE_EVERY:
        return steve_parse_number("--idle-every", value, 1, (uint64_t)1 << 40,
                                  &replayer->options.idle_every);
    case BUDGET_US:
        result = steve_parse_number("--budget-us", value, 0, UINT32_MAX, &number);
        replayer->options.budget_us = (uint32_t)number;
        return result;
    case SAMPLES:
        return steve_parse_number("--samples", value, 1, SAMPLES_MAX, &replayer->options.samples);
    case REPEAT:
        result = steve_parse_number("--repeat", value, 1, REPEAT_MAX, &number);
        replayer->repeat = (unsigned)number;
        return result;
    case PLOT:
        replayer->plot = value;
        return 0;
    case JSON:
        replayer->json = value;
        return 0;
    case CSV:
        replayer->csv = value;
        return 0;
    case PARTIAL:
        replayer->options.partial = true;
        return 0;
    case 'q':
        replayer->quiet = true;
        return 0;
    default:
        return -1;
    }
}

/* -1 to go on, else the exit status. */
static int parse_arguments(struct replayer *replayer, int argc, char **argv) {
    static const struct option options[] = {
        {"allocators", required_argument, NULL, 'a'},
        {"idle-every", required_argument, NULL, IDLE_EVERY},
        {"budget-us", required_argument, NULL, BUDGET_US},
        {"samples", required_argument, NULL, SAMPLES},
        {"repeat", required_argument, NULL, REPEAT},
        {"plot", required_argument, NULL, PLOT},
        {"json", required_argument, NULL, JSON},
        {"csv", required_argument, NULL, CSV},
        {"partial", no_argument, NULL, PARTIAL},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "a:qh", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(HELP, stdout);
            return STEVE_OK;
        }
        if (parse_option(replayer, option, optarg) != 0)
            return STEVE_USAGE;
    }
    if (argc - optind != 1) {
        steve_complain("replay needs one trace; see 'steve replay --help'");
        return STEVE_USAGE;
    }
    replayer->trace = argv[optind];
    return -1;
}

/* Opens the trace before any worker does, so that what is wrong with it is said once. */
static struct trace_reader *open_trace(const struct replayer *replayer) {
    struct trace_error error;
    struct trace_totals totals;
    struct trace_reader *reader = trace_reader_open(replayer->trace, &error);
    if (reader == NULL) {
        steve_complain("%s", error.text);
        return NULL;
    }
    bool complete = trace_reader_totals(reader, &totals, &error) == 0;
    if (!complete)
        steve_complain("%s%s", error.text,
                       replayer->options.partial ? "; replaying what is there"
                                                 : "; --partial replays what is there");
    if ((complete || replayer->options.partial) && !(complete && totals.events == 0))
        return reader;
    if (complete)
        steve_complain("%s: there is no event in this trace", replayer->trace);
    trace_reader_close(reader);
    return NULL;
}

int steve_replay(int argc, char **argv) {
    struct replayer replayer = {
        .options = {.idle_every = 5000, .budget_us = 1000, .samples = 1000},
        .repeat = 3,
    };
    for (size_t i = 0; i < ALLOCATORS_MAX && replay_backend_at(i) != NULL; i++)
        replayer.backends[replayer.backend_count++] = replay_backend_at(i);
    int status = parse_arguments(&replayer, argc, argv);
    if (status >= 0)
        return status;
    struct trace_reader *reader = open_trace(&replayer);
    if (reader == NULL)
        return STEVE_FAILED;
    struct replay_report reports[ALLOCATORS_MAX];
    for (size_t i = 0; i < replayer.backend_count; i++)
        reports[i] = run_backend(&replayer, replayer.backends[i]);
    struct report_subject subject = {
        .path = replayer.trace,
        .header = trace_reader_header(reader),
        .options = &replayer.options,
    };
    report_table(&subject, reports, replayer.backend_count);
    if (write_reports(&replayer, &subject, reports) != 0)
        replayer.failed = true;
    trace_reader_close(reader);
    return replayer.failed ? STEVE_FAILED : STEVE_OK;
}
