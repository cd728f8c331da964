/* steve digest: what a trace says of a program's blocks as a whole, in JSON for the report: how large
 * they are, how long they live, what is live and what is locked over time. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "steve.h"
#include "trace_live.h"
#include "trace_read.h"

#define HELP                                                                                       \
    "Usage: steve digest [OPTION]... FILE\n"                                                       \
    "\n"                                                                                           \
    "Prints histograms of the sizes and lifetimes of a trace's blocks, and what is live and\n"     \
    "locked over time, as JSON.\n"                                                                 \
    "\n"                                                                                           \
    "      --points=N   points over time (default 500)\n"                                          \
    "  -h, --help       this text\n"                                                               \
    "\n"                                                                                           \
    "Exit status: 0; 1 the trace is damaged; 2 wrong command line.\n"

enum { LOG2_BUCKETS = 64, PERCENTS = 100, POINTS_MAX = 100000 };

struct histogram {
    uint64_t count[LOG2_BUCKETS]; /* by the number of binary digits */
    uint64_t bytes[LOG2_BUCKETS];
};

struct point {
    uint64_t operations, time_us, blocks, bytes, locked_blocks, locked_bytes;
};

struct digest {
    struct trace_live live;
    uint64_t *born; /* operations done when the block was made, by number */
    uint64_t born_capacity;
    uint64_t operations, operations_all;
    struct histogram sizes;
    struct histogram lifetimes; /* in operations */
    uint64_t shares[PERCENTS];  /* lifetimes in percent of the run, */
    uint64_t never_freed, never_freed_bytes;
    struct point *points;
    size_t point_count, point_capacity;
    uint64_t point_every;
};

static unsigned digits_of(uint64_t value) {
    return value == 0 ? 0 : 64u - (unsigned)__builtin_clzll(value);
}

static void add(struct histogram *histogram, uint64_t value, uint64_t bytes) {
    unsigned digits = digits_of(value);
    digits = digits < LOG2_BUCKETS ? digits : LOG2_BUCKETS - 1;
    histogram->count[digits]++;
    histogram->bytes[digits] += bytes;
}

static void end_life(struct digest *digest, uint32_t block, uint64_t size) {
    uint64_t lifetime = digest->operations - digest->born[block];
    add(&digest->lifetimes, lifetime, size);
    double share =
        digest->operations_all != 0 ? (double)lifetime / (double)digest->operations_all : 0;
    unsigned percent = (unsigned)(share * PERCENTS);
    digest->shares[percent < PERCENTS ? percent : PERCENTS - 1]++;
}

static int note_birth(struct digest *digest, const struct trace_event *event) {
    if (event->block >= digest->born_capacity) {
        uint64_t capacity = 2 * (uint64_t)event->block + 1024;
        uint64_t *born = realloc(digest->born, capacity * sizeof *born);
        if (born == NULL)
            return -1;
        digest->born = born;
        digest->born_capacity = capacity;
    }
    digest->born[event->block] = digest->operations;
    add(&digest->sizes, event->size, event->size);
    return 0;
}

static void add_point(struct digest *digest, uint64_t time_us) {
    if (digest->point_count == digest->point_capacity)
        return;
    digest->points[digest->point_count++] = (struct point){
        digest->operations,         time_us,
        digest->live.live_blocks,   digest->live.live_bytes,
        digest->live.locked_blocks, digest->live.locked_bytes,
    };
}

static int take(struct digest *digest, struct trace_event *event, struct trace_error *error) {
    if (trace_live_apply(&digest->live, event, error) != 0)
        return -1;
    switch (event->op) {
    case TRACE_MALLOC:
    case TRACE_CALLOC:
    case TRACE_ALIGNED:
        if (note_birth(digest, event) != 0) {
            snprintf(error->text, sizeof error->text, "out of memory");
            return -1;
        }
        break;
    case TRACE_REALLOC:
        break;
    case TRACE_FREE:
        end_life(digest, event->block, event->old_size);
        break;
    default:
        return 0;
    }
    digest->operations++;
    if (digest->operations % digest->point_every == 0)
        add_point(digest, event->time_us);
    return 0;
}

static void finish(struct digest *digest) {
    for (uint64_t i = 0; i < digest->live.totals.block_numbers; i++) {
        uint64_t size = digest->live.blocks[i].size;
        if (size == 0)
            continue;
        digest->never_freed++;
        digest->never_freed_bytes += size - 1;
        end_life(digest, (uint32_t)i, size - 1);
    }
}

static void print_numbers(const char *name, const uint64_t *numbers, size_t count) {
    printf("  \"%s\": [", name);
    for (size_t i = 0; i < count; i++)
        printf("%s%" PRIu64, i == 0 ? "" : ", ", numbers[i]);
    printf("],\n");
}

static void print_digest(const struct digest *digest) {
    const struct trace_totals *totals = &digest->live.totals;
    printf("{\n  \"operations\": %" PRIu64 ",\n  \"allocations\": %" PRIu64 ",\n"
           "  \"reallocations\": %" PRIu64 ",\n  \"frees\": %" PRIu64 ",\n  \"locks\": %" PRIu64
           ",\n  \"accesses\": %" PRIu64 ",\n  \"never_freed\": %" PRIu64
           ",\n  \"never_freed_bytes\": %" PRIu64 ",\n",
           digest->operations, totals->allocations, totals->reallocations, totals->frees,
           totals->locks, totals->reads + totals->writes, digest->never_freed,
           digest->never_freed_bytes);
    print_numbers("size_blocks", digest->sizes.count, LOG2_BUCKETS);
    print_numbers("size_bytes", digest->sizes.bytes, LOG2_BUCKETS);
    print_numbers("lifetime_blocks", digest->lifetimes.count, LOG2_BUCKETS);
    print_numbers("lifetime_bytes", digest->lifetimes.bytes, LOG2_BUCKETS);
    print_numbers("lifetime_percent", digest->shares, PERCENTS);
    printf("  \"points\": [");
    for (size_t i = 0; i < digest->point_count; i++) {
        const struct point *point = &digest->points[i];
        printf("%s\n    [%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
               "]",
               i == 0 ? "" : ",", point->operations, point->time_us, point->blocks, point->bytes,
               point->locked_blocks, point->locked_bytes);
    }
    printf("\n  ]\n}\n");
}

static int follow(struct digest *digest, struct trace_reader *reader, struct trace_error *error) {
    struct trace_event event;
    enum { PROGRESS_EVERY = 1 << 20 };
    int result;
    while ((result = trace_reader_next(reader, &event, error)) == 1) {
        if (event.number % PROGRESS_EVERY == PROGRESS_EVERY - 1)
            steve_show_progress("reading", trace_reader_share(reader));
        if (take(digest, &event, error) != 0)
            return -1;
    }
    steve_show_progress("reading", 1);
    return result;
}

static int digest_trace(const char *path, uint64_t points) {
    struct trace_error error;
    struct trace_totals totals;
    struct digest digest = {.point_capacity = (size_t)points + 1};
    struct trace_reader *reader = trace_reader_open(path, &error);
    digest.points = calloc(digest.point_capacity, sizeof *digest.points);
    int result = -1;
    if (reader != NULL && (digest.points == NULL || trace_live_init(&digest.live, 0) != 0))
        snprintf(error.text, sizeof error.text, "out of memory");
    else if (reader != NULL && trace_reader_totals(reader, &totals, &error) == 0) {
        digest.operations_all = totals.allocations + totals.reallocations + totals.frees;
        digest.point_every = digest.operations_all / points + 1;
        result = follow(&digest, reader, &error);
    }
    if (result == 0) {
        finish(&digest);
        print_digest(&digest);
    } else {
        steve_complain("%s", error.text);
    }
    trace_reader_close(reader);
    trace_live_finish(&digest.live);
    free(digest.points);
    free(digest.born);
    return result == 0 ? STEVE_OK : STEVE_FAILED;
}

int steve_digest(int argc, char **argv) {
    enum { POINTS = 256 };
    static const struct option options[] = {{"points", required_argument, NULL, POINTS},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    uint64_t points = 500;
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(HELP, stdout);
            return STEVE_OK;
        }
        if (option != POINTS || steve_parse_number("--points", optarg, 1, POINTS_MAX, &points) != 0)
            return STEVE_USAGE;
    }
    if (argc - optind != 1) {
        steve_complain("digest needs one trace; see 'steve digest --help'");
        return STEVE_USAGE;
    }
    return digest_trace(argv[optind], points);
}
