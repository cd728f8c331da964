/* steve infer: where a program would hold locks. Reads the trace twice: what a block's whole life
 * says is known after the first pass. */
#include "infer.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure.h"
#include "steve.h"
#include "trace_read.h"

#define HELP                                                                                       \
    "Usage: steve infer [OPTION]... [-o FILE] TRACE\n"                                             \
    "\n"                                                                                           \
    "Infers from a program's accesses where it would lock and unlock its blocks, and writes the\n" \
    "trace with those locks. Locks that TRACE has itself are taken to be placed by hand, and "     \
    "the\n"                                                                                        \
    "inferred ones are compared with them. Blocks that are never freed are freed after their\n"    \
    "last access.\n"                                                                               \
    "\n"                                                                                           \
    "  -o, --output=FILE      the trace with locks; without it only the figures are printed\n"     \
    "  -m, --method=METHOD    coarse, fine or burst (default burst)\n"                             \
    "      --share=P          coarse: a block with P percent or more of the accesses in its "      \
    "life\n"                                                                                       \
    "                         is locked for life (default 50)\n"                                   \
    "      --gain=X           fine: life value for an own access (default 1)\n"                    \
    "      --loss=X           fine: taken off for an operation on another block (default 0.5)\n"   \
    "      --gap=N            burst: more operations than N on others end it (default 100)\n"      \
    "      --keep-open        do not free blocks that are never freed\n"                           \
    "      --no-accesses      leave the accesses out of FILE\n"                                    \
    "      --json=FILE        write the figures as JSON\n"                                         \
    "  -h, --help             this text\n"                                                         \
    "\n"                                                                                           \
    "Exit status: 0; 1 TRACE is damaged or has no accesses, or a file cannot be written; 2 "       \
    "wrong\n"                                                                                      \
    "command line.\n"

struct infer {
    const char *trace, *output, *json;
    struct infer_options options;
    bool keep_open;
    bool no_accesses;
    struct infer_sink sink;
    uint64_t *locked_for_life; /* a bit for each allocation */
    uint64_t bit_capacity;
    double seconds, cpu_seconds;
};

/* What the first pass knows of a block. */
struct life {
    uint64_t born; /* accesses until then */
    uint64_t own;
    uint64_t last_event;
};

struct first_pass {
    struct trace_live live;
    struct life *lives;
    uint64_t life_capacity;
    uint64_t accesses;
};

static int complain_out_of_memory(void) {
    steve_complain("out of memory");
    return -1;
}

static void end_life(struct infer *infer, const struct first_pass *pass, uint32_t block) {
    const struct life *life = &pass->lives[block];
    uint64_t index = pass->live.blocks[block].serial - 1;
    double all = (double)(pass->accesses - life->born);
    if (life->own != 0 && (double)life->own >= infer->options.share / 100 * all)
        infer->locked_for_life[index / 64] |= (uint64_t)1 << index % 64;
}

static int make_places(struct infer *infer, struct first_pass *pass, uint32_t block) {
    if (block >= pass->life_capacity) {
        uint64_t capacity = 2 * (uint64_t)block + 1024;
        struct life *lives = realloc(pass->lives, capacity * sizeof *lives);
        if (lives == NULL)
            return complain_out_of_memory();
        pass->lives = lives;
        pass->life_capacity = capacity;
    }
    if (pass->live.serials > infer->bit_capacity) {
        uint64_t capacity = 2 * infer->bit_capacity + 65536;
        uint64_t *bits = realloc(infer->locked_for_life, capacity / 8);
        if (bits == NULL)
            return complain_out_of_memory();
        memset(bits + infer->bit_capacity / 64, 0, (capacity - infer->bit_capacity) / 8);
        infer->locked_for_life = bits;
        infer->bit_capacity = capacity;
    }
    return 0;
}

static int look_at(struct infer *infer, struct first_pass *pass, struct trace_event *event,
                   struct trace_error *error) {
    if (event->op == TRACE_FREE && event->block < pass->live.totals.block_numbers &&
        pass->live.blocks[event->block].size != 0)
        end_life(infer, pass, event->block);
    if (trace_live_apply(&pass->live, event, error) != 0)
        return -1;
    switch (event->op) {
    case TRACE_MALLOC:
    case TRACE_CALLOC:
    case TRACE_ALIGNED:
        if (make_places(infer, pass, event->block) != 0)
            return -1;
        pass->lives[event->block] = (struct life){.born = pass->accesses};
        break;
    case TRACE_ACCESS:
        pass->accesses += event->reads + event->writes;
        pass->lives[event->block].own += event->reads + event->writes;
        break;
    case TRACE_REALLOC:
        break;
    default:
        return 0;
    }
    pass->lives[event->block].last_event = event->number;
    return 0;
}

static int compare_ends(const void *left, const void *right) {
    uint64_t a = ((const struct infer_end *)left)->event;
    uint64_t b = ((const struct infer_end *)right)->event;
    return (a > b) - (a < b);
}

/* Blocks that are live at the end of the trace. */
static int collect_ends(struct infer *infer, struct first_pass *pass) {
    struct infer_sink *sink = &infer->sink;
    sink->ends = malloc((pass->live.live_blocks + 1) * sizeof *sink->ends);
    if (sink->ends == NULL)
        return complain_out_of_memory();
    for (uint64_t i = 0; i < pass->live.totals.block_numbers; i++) {
        if (pass->live.blocks[i].size == 0)
            continue;
        end_life(infer, pass, (uint32_t)i);
        sink->ends[sink->end_count++] = (struct infer_end){pass->lives[i].last_event, (uint32_t)i};
    }
    qsort(sink->ends, sink->end_count, sizeof *sink->ends, compare_ends);
    if (infer->keep_open)
        sink->end_count = 0;
    return 0;
}

typedef int event_fn(struct infer *infer, void *context, struct trace_event *event,
                     struct trace_error *error);

/* Calls `take` for every event; 0, or -1 after a complaint. */
static int follow(struct infer *infer, const char *what, event_fn *take, void *context) {
    enum { PROGRESS_EVERY = 1 << 20 };
    struct trace_error error;
    struct trace_event event;
    struct trace_reader *reader = trace_reader_open(infer->trace, &error);
    if (reader == NULL) {
        steve_complain("%s", error.text);
        return -1;
    }
    int result;
    while ((result = trace_reader_next(reader, &event, &error)) == 1) {
        if (event.number % PROGRESS_EVERY == PROGRESS_EVERY - 1)
            steve_show_progress(what, trace_reader_share(reader));
        if (take(infer, context, &event, &error) != 0) {
            char where[256];
            trace_reader_where(reader, where, sizeof where);
            steve_complain("%s: %s", where, error.text);
            trace_reader_close(reader);
            return -1;
        }
    }
    steve_show_progress(what, 1);
    if (result < 0)
        steve_complain("%s", error.text);
    trace_reader_close(reader);
    return result;
}

static int take_first(struct infer *infer, void *context, struct trace_event *event,
                      struct trace_error *error) {
    return look_at(infer, context, event, error);
}

static int run_first(struct infer *infer) {
    struct first_pass pass = {0};
    if (trace_live_init(&pass.live, 0) != 0)
        return complain_out_of_memory();
    int result = follow(infer, "looking at whole lives", take_first, &pass);
    infer->sink.block_count = pass.live.totals.block_numbers;
    if (result == 0 && pass.accesses == 0) {
        steve_complain("%s: there are no accesses in this trace; record it with --accesses",
                       infer->trace);
        result = -1;
    }
    if (result == 0)
        result = collect_ends(infer, &pass);
    trace_live_finish(&pass.live);
    free(pass.lives);
    return result;
}

struct second_pass {
    struct trace_live live;
    struct infer_machine *machine;
};

static int take_second(struct infer *infer, void *context, struct trace_event *event,
                       struct trace_error *error) {
    struct second_pass *pass = context;
    /* Nobody asks for the serial number of an access. */
    if ((event->op == TRACE_ACCESS ? trace_live_access(&pass->live, event, error)
                                   : trace_live_apply(&pass->live, event, error)) != 0)
        return -1;
    if (infer_machine_next(pass->machine, event) == 0)
        return 0;
    *error = infer->sink.error;
    return -1;
}

static int open_output(struct infer *infer) {
    struct trace_error error;
    if (infer->output == NULL)
        return 0;
    struct trace_reader *reader = trace_reader_open(infer->trace, &error);
    if (reader == NULL) {
        steve_complain("%s", error.text);
        return -1;
    }
    int descriptor = open(infer->output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0)
        snprintf(error.text, sizeof error.text, "cannot write %.200s: %s", infer->output,
                 strerror(errno));
    else
        infer->sink.writer =
            trace_writer_create(descriptor, infer->output, trace_reader_header(reader), 1, &error);
    trace_reader_close(reader);
    if (infer->sink.writer != NULL)
        return 0;
    steve_complain("%s", error.text);
    return -1;
}

static int close_output(struct infer *infer) {
    struct trace_error error;
    struct infer_sink *sink = &infer->sink;
    if (sink->writer == NULL)
        return 0;
    struct trace_totals totals = sink->live.totals;
    int result = trace_writer_finish(sink->writer, &totals, &error);
    sink->writer = NULL;
    if (result != 0)
        steve_complain("%s", error.text);
    return result;
}

static int run_second(struct infer *infer) {
    struct second_pass pass = {0};
    struct infer_sink *sink = &infer->sink;
    sink->blocks = calloc(sink->block_count + 1, sizeof *sink->blocks);
    pass.machine = infer_machine_create(&infer->options, sink, infer->locked_for_life);
    if (sink->blocks == NULL || pass.machine == NULL || trace_live_init(&pass.live, 0) != 0 ||
        trace_live_init(&sink->live, 0) != 0)
        return complain_out_of_memory();
    sink->with_accesses = !infer->no_accesses;
    sink->with_stacks = infer->options.method != INFER_BURST;
    int result = open_output(infer);
    if (result == 0)
        result = follow(infer, "placing locks", take_second, &pass);
    if (result == 0 && infer_machine_finish(pass.machine) != 0) {
        steve_complain("%s", sink->error.text);
        result = -1;
    }
    infer_finish_score(sink);
    if (result == 0)
        result = close_output(infer);
    trace_writer_abandon(sink->writer);
    trace_live_finish(&pass.live);
    trace_live_finish(&sink->live);
    infer_machine_destroy(pass.machine);
    return result;
}

/* --- Figures. */

static const char *const method_names[] = {"coarse", "fine", "burst"};

static double share_of(double part, double whole) {
    return whole > 0 ? part / whole : 0;
}

static void print_figures(const struct infer *infer) {
    const struct infer_score *score = &infer->sink.score;
    printf("%-44s%s\n", "method", method_names[infer->options.method]);
    printf("%-44s%" PRIu64 "\n", "accesses", score->accesses);
    printf("%-44s%" PRIu64 "\n", "locks inferred", score->locks);
    printf("%-44s%.2f %%\n", "accesses made under an inferred lock",
           100 * share_of((double)score->covered, (double)score->accesses));
    printf("%-44s%.3f %%\n", "blocks locked, average over accesses",
           100 * share_of(score->inferred, score->live));
    printf("%-44s%.3f %%\n", "bytes locked, average over accesses",
           100 * share_of(score->inferred_bytes, score->live_bytes));
    if (score->hand_locks == 0)
        return;
    printf("%-44s%" PRIu64 "\n", "locks placed by hand", score->hand_locks);
    printf("%-44s%.3f %%\n", "blocks locked by hand, average",
           100 * share_of(score->hand, score->live));
    printf("%-44s%.2f %%\n", "precision", 100 * share_of(score->both, score->inferred));
    printf("%-44s%.2f %%\n", "recall", 100 * share_of(score->both, score->hand));
    printf("%-44s%.0f blocks x accesses (%.2f times the time locked by hand)\n",
           "locked beyond what the hand locked", score->inferred - score->both,
           share_of(score->inferred - score->both, score->hand));
}

static int write_json(const struct infer *infer) {
    const struct infer_score *score = &infer->sink.score;
    const struct infer_options *options = &infer->options;
    FILE *stream = fopen(infer->json, "we");
    if (stream == NULL) {
        steve_complain("cannot write %s: %s", infer->json, strerror(errno));
        return -1;
    }
    fprintf(stream,
            "{\n  \"method\": \"%s\",\n  \"share\": %g,\n  \"gain\": %g,\n  \"loss\": %g,\n"
            "  \"gap\": %" PRIu64 ",\n",
            method_names[options->method], options->share, options->gain, options->loss,
            options->gap);
    fprintf(stream,
            "  \"accesses\": %" PRIu64 ",\n  \"covered\": %" PRIu64 ",\n  \"locks\": %" PRIu64
            ",\n  \"hand_locks\": %" PRIu64 ",\n  \"seconds\": %.6f,\n  \"cpu_seconds\": %.6f,\n",
            score->accesses, score->covered, score->locks, score->hand_locks, infer->seconds,
            infer->cpu_seconds);
    fprintf(stream,
            "  \"hand\": %.0f,\n  \"inferred\": %.0f,\n  \"both\": %.0f,\n  \"live\": %.0f,\n"
            "  \"hand_bytes\": %.0f,\n  \"inferred_bytes\": %.0f,\n  \"both_bytes\": %.0f,\n"
            "  \"live_bytes\": %.0f,\n",
            score->hand, score->inferred, score->both, score->live, score->hand_bytes,
            score->inferred_bytes, score->both_bytes, score->live_bytes);
    fprintf(stream, "  \"precision\": %.6f,\n  \"recall\": %.6f\n}\n",
            share_of(score->both, score->inferred), share_of(score->both, score->hand));
    int failed = ferror(stream);
    if (fclose(stream) == 0 && !failed)
        return 0;
    steve_complain("cannot write %s: %s", infer->json, strerror(errno));
    return -1;
}

/* --- The command. */

enum { SHARE = 256, GAIN, LOSS, GAP, KEEP_OPEN, NO_ACCESSES, JSON };

static int parse_real(const char *option, const char *text, double minimum, double maximum,
                      double *ret_value) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= minimum && value <= maximum)) {
        steve_complain("%s: '%s' is no number from %g to %g", option, text, minimum, maximum);
        return -1;
    }
    *ret_value = value;
    return 0;
}

static int parse_method(const char *text, enum infer_method *ret_method) {
    for (unsigned i = 0; i < sizeof method_names / sizeof method_names[0]; i++) {
        if (strcmp(text, method_names[i]) == 0) {
            *ret_method = (enum infer_method)i;
            return 0;
        }
    }
    steve_complain("--method: there is no method '%s'", text);
    return -1;
}

static int parse_option(struct infer *infer, int option, const char *value) {
    struct infer_options *options = &infer->options;
    switch (option) {
    case 'o':
        infer->output = value;
        return 0;
    case 'm':
        return parse_method(value, &options->method);
    case SHARE:
        return parse_real("--share", value, 0, 100, &options->share);
    case GAIN:
        return parse_real("--gain", value, 0.001, 1e6, &options->gain);
    case LOSS:
        return parse_real("--loss", value, 0.000001, 1e6, &options->loss);
    case GAP:
        return steve_parse_number("--gap", value, 0, 1u << 24, &options->gap);
    case KEEP_OPEN:
        infer->keep_open = true;
        return 0;
    case NO_ACCESSES:
        infer->no_accesses = true;
        return 0;
    case JSON:
        infer->json = value;
        return 0;
    default:
        return -1;
    }
}

static int run(struct infer *infer) {
    uint64_t start = measure_wall_ns(), cpu = measure_cpu_ns();
    int result = run_first(infer) != 0 || run_second(infer) != 0 ? -1 : 0;
    infer->seconds = (double)(measure_wall_ns() - start) / 1e9;
    infer->cpu_seconds = (double)(measure_cpu_ns() - cpu) / 1e9;
    if (result == 0) {
        print_figures(infer);
        if (infer->json != NULL)
            result = write_json(infer);
    }
    free(infer->sink.blocks);
    free(infer->sink.ends);
    free(infer->locked_for_life);
    return result == 0 ? STEVE_OK : STEVE_FAILED;
}

int steve_infer(int argc, char **argv) {
    static const struct option options[] = {{"output", required_argument, NULL, 'o'},
                                            {"method", required_argument, NULL, 'm'},
                                            {"share", required_argument, NULL, SHARE},
                                            {"gain", required_argument, NULL, GAIN},
                                            {"loss", required_argument, NULL, LOSS},
                                            {"gap", required_argument, NULL, GAP},
                                            {"keep-open", no_argument, NULL, KEEP_OPEN},
                                            {"no-accesses", no_argument, NULL, NO_ACCESSES},
                                            {"json", required_argument, NULL, JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    struct infer infer = {
        .options = {.method = INFER_BURST, .share = 50, .gain = 1, .loss = 0.5, .gap = 100}};
    int option;
    while ((option = getopt_long(argc, argv, "o:m:h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(HELP, stdout);
            return STEVE_OK;
        }
        if (parse_option(&infer, option, optarg) != 0)
            return STEVE_USAGE;
    }
    if (argc - optind != 1) {
        steve_complain("infer needs one trace; see 'steve infer --help'");
        return STEVE_USAGE;
    }
    infer.trace = argv[optind];
    return run(&infer);
}
