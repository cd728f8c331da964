/* steve replay: runs every pass on every allocator in a process of its own and reports. */
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    "  -a, --allocators=LIST  which, separated by commas (default jeff,malloc): jeff "             \
    "(compaction\n"                                                                                \
    "                         at idle points), jeff-never, jeff-oom (when memory runs out),\n"     \
    "                         jeff-background, jeff-fixed, facade, malloc, jemalloc, mimalloc,\n"  \
    "                         tcmalloc, ideal, or the path of a library to preload; all = every\n" \
    "                         one that is installed\n"                                             \
    "      --idle-every=N     an idle point after every N operations (default 5000)\n"             \
    "      --budget-us=N      microseconds for a compaction at each idle point (default 1000);\n"  \
    "                         0 = none there, only the full one at the end\n"                      \
    "      --samples=N        points of the memory curve, about (default 1000)\n"                  \
    "      --repeat=N         passes for speed, and for latency (default 3)\n"                     \
    "      --timeout=S        seconds a pass may take; 0 = as many as it likes (default 0)\n"      \
    "      --heap=BYTES       size of the heap of jeff-fixed, and where that of jeff-oom begins\n" \
    "                         (default: a tenth more than the program's peak)\n"                   \
    "      --smallest         also look for the smallest heap that still runs the trace\n"         \
    "      --rounds=N         run the trace N times, and free a share of what is left after\n"     \
    "                         each round before the next (default 1)\n"                            \
    "      --free-share=P     that share in percent (default 50)\n"                                \
    "      --seed=N           which blocks those are (default 1)\n"                                \
    "      --stop-at-peak     a round ends where live bytes are most, not at the trace's end\n"    \
    "      --maps=FILE        write pictures of the heap to FILE.ALLOCATOR, for steve report\n"    \
    "      --map-count=N      how many (default 60)\n"                                             \
    "      --plot=FILE        draw memory over time; writes a PNG and an SVG, named like FILE\n"   \
    "      --json=FILE        write all results and samples as JSON\n"                             \
    "      --csv=FILE         write the samples as CSV\n"                                          \
    "      --partial          replay a trace that is cut off or damaged up to that place\n"        \
    "  -q, --quiet            no progress on standard error\n"                                     \
    "  -h, --help             this text\n"                                                         \
    "\n"                                                                                           \
    "Exit status: 0; 1 the trace is damaged, an allocator failed or changed a block's contents,\n" \
    "or a file cannot be written; 2 wrong command line.\n"

enum { ALLOCATORS_MAX = 16, SAMPLES_MAX = REPLAY_SAMPLES_MAX / 2 - 16 };

struct replayer {
    struct replay_options options;
    const struct replay_backend *backends[ALLOCATORS_MAX];
    size_t backend_count;
    unsigned repeat;
    uint32_t timeout_s;
    bool smallest;
    const char *maps;
    const char *trace;
    const char *plot;
    const char *json;
    const char *csv;
    bool quiet;
    bool failed;
};

/* --- All passes on one allocator. */

static struct replay_result *run_pass(struct replayer *replayer, struct replay_report *report,
                                      enum replay_pass pass) {
    struct replay_options options = replayer->options;
    if (replayer->maps != NULL && pass == REPLAY_MEMORY)
        snprintf(options.map_path, sizeof options.map_path, "%s.%s", replayer->maps,
                 report->backend->name);
    else
        options.maps = 0;
    return replay_spawn(replayer->trace, report->backend, pass, &options, replayer->timeout_s,
                        replayer->quiet, report->failure);
}

static double per_second(const struct replay_result *result) {
    return result->seconds > 0 ? (double)result->operations / result->seconds : 0;
}

static int compare_speeds(const void *left, const void *right) {
    double a = per_second(*(const struct replay_result *const *)left);
    double b = per_second(*(const struct replay_result *const *)right);
    return (a > b) - (a < b);
}

/* Half the width of a 95 % confidence interval is this many standard errors (Student's t). */
static double t_quantile(unsigned degrees) {
    static const double table[] = {0,     12.706, 4.303, 3.182, 2.776, 2.571, 2.447,
                                   2.365, 2.306,  2.262, 2.228, 2.201, 2.179, 2.160,
                                   2.145, 2.131,  2.120, 2.110, 2.101, 2.093, 2.086};
    enum { TABLE = sizeof table / sizeof table[0] };
    /* Beyond the table: Cornish and Fisher's expansion around the normal quantile. */
    return degrees < TABLE ? table[degrees] : 1.960 + 2.3724 / degrees + 2.8225 / degrees / degrees;
}

static struct replay_mean mean_of(const double *values, unsigned count) {
    struct replay_mean result = {0};
    for (unsigned i = 0; i < count; i++)
        result.mean += values[i] / count;
    if (count < 2)
        return result;
    double squares = 0;
    for (unsigned i = 0; i < count; i++)
        squares += (values[i] - result.mean) * (values[i] - result.mean);
    result.half_width = t_quantile(count - 1) * sqrt(squares / (count - 1) / count);
    return result;
}

/* `count` passes of a kind; false when one failed. */
static bool run_repeats(struct replayer *replayer, struct replay_report *report,
                        enum replay_pass pass, struct replay_result **ret_results) {
    for (unsigned i = 0; i < replayer->repeat; i++) {
        ret_results[i] = run_pass(replayer, report, pass);
        if (ret_results[i] == NULL)
            return false;
    }
    return true;
}

static void add_speeds(struct replay_report *report, struct replay_result **results) {
    unsigned count = report->repeats;
    qsort(results, count, sizeof results[0], compare_speeds);
    for (unsigned i = 0; i < count; i++)
        report->speeds[i] = per_second(results[i]);
    report->speed_mean = mean_of(report->speeds, count);
    report->speed = results[count / 2];
}

static void add_latencies(struct replay_report *report, struct replay_result **results) {
    double values[4][REPLAY_REPEAT_MAX];
    unsigned count = report->repeats;
    for (unsigned i = 0; i < count; i++) {
        const struct replay_latency *all = &results[i]->latency[KIND_ALL];
        values[0][i] = all->p50_ns;
        values[1][i] = all->p99_ns;
        values[2][i] = all->p999_ns;
        values[3][i] = all->max_ns;
    }
    report->p50 = mean_of(values[0], count);
    report->p99 = mean_of(values[1], count);
    report->p999 = mean_of(values[2], count);
    report->max = mean_of(values[3], count);
    report->latency = results[0];
}

/* The smallest heap in which the trace runs, to 1/256 of it. -1 when none up to 64 times the live
 * bytes is enough, or the allocator cannot be limited. */
static int64_t find_smallest(struct replayer *replayer, struct replay_report *report) {
    enum { EXACT_SHARE = 256, LARGEST = 64, FLOOR = 64 << 10 };
    struct replay_options options = replayer->options;
    char ignored[REPLAY_FAILURE_TEXT];
    size_t live = (size_t)report->memory->peak_live;
    size_t low = 0, high = 0;
    options.maps = 0;
    options.heap_bytes = live + FLOOR;
    while (high == 0 || high - low > high / EXACT_SHARE + 4096) {
        struct replay_result *result =
            replay_spawn(replayer->trace, report->backend, REPLAY_FIT, &options,
                         replayer->timeout_s, replayer->quiet, ignored);
        if (result != NULL)
            high = options.heap_bytes;
        else
            low = options.heap_bytes;
        replay_forget(result);
        if (high == 0 && low / LARGEST > live + FLOOR)
            return -1;
        options.heap_bytes = high == 0 ? low * 2 : low + (high - low) / 2;
    }
    /* Less than what is live: the allocator had mapped its memory before the limit was set. */
    return high >= live ? (int64_t)high : -1;
}

static struct replay_report run_backend(struct replayer *replayer,
                                        const struct replay_backend *backend) {
    struct replay_report report = {.backend = backend, .smallest_heap = -1};
    struct replay_result *speeds[REPLAY_REPEAT_MAX], *latencies[REPLAY_REPEAT_MAX];
    if (!replay_backend_is_installed(backend)) {
        steve_complain("%s is not installed%s%s%s", backend->library,
                       backend->package != NULL ? " (Debian: " : "",
                       backend->package != NULL ? backend->package : "",
                       backend->package != NULL ? ")" : "");
        snprintf(report.failure, sizeof report.failure, "not there");
        return report;
    }
    report.repeats = replayer->repeat;
    struct replay_result *memory = run_pass(replayer, &report, REPLAY_MEMORY);
    if (memory == NULL || !run_repeats(replayer, &report, REPLAY_SPEED, speeds) ||
        !run_repeats(replayer, &report, REPLAY_LATENCY, latencies))
        return report;
    report.memory = memory;
    add_speeds(&report, speeds);
    add_latencies(&report, latencies);
    if (replayer->smallest && !backend->ideal)
        report.smallest_heap = find_smallest(replayer, &report);
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
    if (strcmp(list, "all") == 0) {
        const struct replay_backend *backend;
        for (size_t i = 0; (backend = replay_backend_at(i)) != NULL; i++) {
            if (replay_backend_is_installed(backend))
                replayer->backends[replayer->backend_count++] = backend;
            else
                steve_complain("%s is left out: it is not installed", backend->name);
        }
        return 0;
    }
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

enum {
    IDLE_EVERY = 256,
    BUDGET_US,
    SAMPLES,
    REPEAT,
    TIMEOUT,
    HEAP,
    SMALLEST,
    ROUNDS,
    FREE_SHARE,
    SEED,
    STOP_AT_PEAK,
    MAPS,
    MAP_COUNT,
    PLOT,
    JSON,
    CSV,
    PARTIAL
};

/* Options whose value is a number within limits. */
static int parse_number_option(struct replayer *replayer, int option, const char *value) {
    struct replay_options *options = &replayer->options;
    uint64_t number = 0;
    int result = -1;
    switch (option) {
    case IDLE_EVERY:
        return steve_parse_number("--idle-every", value, 1, (uint64_t)1 << 40,
                                  &options->idle_every);
    case SAMPLES:
        return steve_parse_number("--samples", value, 1, SAMPLES_MAX, &options->samples);
    case SEED:
        return steve_parse_number("--seed", value, 0, UINT64_MAX, &options->seed);
    case BUDGET_US:
        result = steve_parse_number("--budget-us", value, 0, UINT32_MAX, &number);
        options->budget_us = (uint32_t)number;
        break;
    case REPEAT:
        result = steve_parse_number("--repeat", value, 1, REPLAY_REPEAT_MAX, &number);
        replayer->repeat = (unsigned)number;
        break;
    case TIMEOUT:
        result = steve_parse_number("--timeout", value, 0, 1u << 20, &number);
        replayer->timeout_s = (uint32_t)number;
        break;
    case HEAP:
        result = steve_parse_number("--heap", value, 4096, (uint64_t)1 << 46, &number);
        options->heap_bytes = (size_t)number;
        break;
    case ROUNDS:
        result = steve_parse_number("--rounds", value, 1, 1000, &number);
        options->rounds = (uint32_t)number;
        break;
    case FREE_SHARE:
        result = steve_parse_number("--free-share", value, 0, 100, &number);
        options->free_share = (double)number / 100;
        break;
    case MAP_COUNT:
        result = steve_parse_number("--map-count", value, 1, 10000, &number);
        options->maps = (uint32_t)number;
        break;
    }
    return result;
}

static int parse_option(struct replayer *replayer, int option, char *value) {
    switch (option) {
    case 'a':
        return parse_allocators(replayer, value);
    case SMALLEST:
        replayer->smallest = true;
        return 0;
    case STOP_AT_PEAK:
        replayer->options.stop_at_peak = true;
        return 0;
    case MAPS:
        replayer->maps = value;
        return 0;
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
        return parse_number_option(replayer, option, value);
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
        {"timeout", required_argument, NULL, TIMEOUT},
        {"heap", required_argument, NULL, HEAP},
        {"smallest", no_argument, NULL, SMALLEST},
        {"rounds", required_argument, NULL, ROUNDS},
        {"free-share", required_argument, NULL, FREE_SHARE},
        {"seed", required_argument, NULL, SEED},
        {"stop-at-peak", no_argument, NULL, STOP_AT_PEAK},
        {"maps", required_argument, NULL, MAPS},
        {"map-count", required_argument, NULL, MAP_COUNT},
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
        .options = {.idle_every = 5000,
                    .budget_us = 1000,
                    .samples = 1000,
                    .rounds = 1,
                    .free_share = 0.5,
                    .seed = 1,
                    .maps = 60},
        .repeat = 3,
        .backends = {&replay_jeff, &replay_malloc},
        .backend_count = 2,
    };
    int status = parse_arguments(&replayer, argc, argv);
    if (status >= 0)
        return status;
    struct trace_reader *reader = open_trace(&replayer);
    if (reader == NULL)
        return STEVE_FAILED;
    if (replay_scan(replayer.trace, &replayer.options) != 0) {
        trace_reader_close(reader);
        return STEVE_FAILED;
    }
    static struct replay_report reports[ALLOCATORS_MAX];
    for (size_t i = 0; i < replayer.backend_count; i++) {
        reports[i] = run_backend(&replayer, replayer.backends[i]);
        replayer.failed |= reports[i].memory == NULL;
    }
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
