/* steve info and steve dump: what is in a trace, for people. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "sites.h"
#include "steve.h"
#include "trace_live.h"
#include "trace_read.h"

#define INFO_HELP                                                                                  \
    "Usage: steve info [OPTION]... FILE\n"                                                         \
    "\n"                                                                                           \
    "Reads a whole trace, checks it, and prints what is in it.\n"                                  \
    "\n"                                                                                           \
    "      --sites[=N]   the N (10) call stacks that own most memory at the peak of live bytes;\n" \
    "                    the trace must have been recorded with --stacks. Functions are named\n"   \
    "                    where addr2line (Debian: binutils) knows them\n"                          \
    "  -h, --help        this text\n"                                                              \
    "\n"                                                                                           \
    "Exit status: 0 the trace is complete and sound; 1 it is not (what could be read is printed\n" \
    "all the same); 2 wrong command line.\n"

#define DUMP_HELP                                                                                  \
    "Usage: steve dump [OPTION]... FILE\n"                                                         \
    "\n"                                                                                           \
    "Prints every event of a trace as a line: number, microseconds, thread, operation, block,\n"   \
    "size, and for aligned allocations the alignment. Of a run of accesses: the bytes touched\n"   \
    "as offset+length, how many reads, how many writes. Of a call stack: its addresses. Of a\n"    \
    "file of code: its first address, the one after its last, that of its byte 0, its path.\n"     \
    "\n"                                                                                           \
    "      --first=N   begin with event N (default 0)\n"                                           \
    "      --count=N   at most N events\n"                                                         \
    "  -h, --help      this text\n"                                                                \
    "\n"                                                                                           \
    "Exit status: 0; 1 the trace is damaged (everything before the place is printed); 2 wrong\n"   \
    "command line.\n"

static const char *op_name(enum trace_op op) {
    switch (op) {
    case TRACE_MALLOC:
        return "malloc";
    case TRACE_CALLOC:
        return "calloc";
    case TRACE_ALIGNED:
        return "aligned";
    case TRACE_REALLOC:
        return "realloc";
    case TRACE_FREE:
        return "free";
    case TRACE_EXEC:
        return "exec";
    case TRACE_ACCESS:
        return "access";
    case TRACE_LOCK:
        return "lock";
    case TRACE_UNLOCK:
        return "unlock";
    case TRACE_STACK:
        return "stack";
    case TRACE_MODULE:
        return "module";
    default:
        return "?";
    }
}

static void print_command(const struct trace_header *header) {
    for (uint32_t i = 0; i < header->command_bytes;) {
        const char *word = header->command + i;
        size_t length = strnlen(word, header->command_bytes - i);
        fputs(i == 0 ? "" : " ", stdout);
        for (size_t at = 0; at < length; at++)
            putchar((unsigned char)word[at] < ' ' ? '?' : word[at]);
        i += (uint32_t)length + 1;
    }
    putchar('\n');
}

static void print_count(const char *name, uint64_t value) {
    printf("%-24s%" PRIu64 "\n", name, value);
}

static void print_bytes(const char *name, uint64_t value) {
    char text[STEVE_BYTES_TEXT];
    printf("%-24s%" PRIu64 " (%s)\n", name, value, steve_bytes_text((double)value, text));
}

static void print_header(const char *path, const struct trace_header *header) {
    char text[64] = "?";
    time_t seconds = (time_t)(header->start_unix_us / 1000000u);
    struct tm broken_down;
    if (seconds == 0) /* imported: nobody knows */
        snprintf(text, sizeof text, "at a time that is not known");
    else if (gmtime_r(&seconds, &broken_down) != NULL)
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &broken_down);
    printf("%-24s%s\n", "trace", path);
    printf("%-24s%u.%u, %s\n", "format", header->version_major, header->version_minor,
           header->flags & TRACE_FLAG_ZSTD ? "zstd" : "not compressed");
    printf("%-24s", "command");
    print_command(header);
    printf("%-24s%s", "recorded", text);
    if (header->pid != 0)
        printf(", process %u", header->pid);
    putchar('\n');
}

static void print_end(int wait_status) {
    if (WIFSIGNALED(wait_status))
        printf("%-24ssignal %d\n", "program ended with", WTERMSIG(wait_status));
    else
        printf("%-24sstatus %d\n", "program ended with", WEXITSTATUS(wait_status));
}

static void print_totals(const struct trace_totals *totals) {
    print_count("events", totals->events);
    print_count("  allocations", totals->allocations);
    print_count("  reallocations", totals->reallocations);
    print_count("  frees", totals->frees);
    if (totals->access_runs != 0) {
        print_count("  runs of accesses", totals->access_runs);
        print_count("reads", totals->reads);
        print_count("writes", totals->writes);
    }
    if (totals->locks != 0)
        print_count("  locks", totals->locks);
    print_count("threads", totals->threads);
    printf("%-24s%.3f s\n", "time", (double)totals->duration_us / 1e6);
    print_bytes("bytes allocated", totals->total_bytes);
    print_bytes("peak of live bytes", totals->peak_live_bytes);
    print_count("peak of live blocks", totals->peak_live_blocks);
    print_bytes("live bytes at the end", totals->end_live_bytes);
    print_count("live blocks at the end", totals->end_live_blocks);
}

/* Follows the whole trace, with `sites` when it is not NULL. 0, or -1 with `error` filled. */
static int follow(struct trace_reader *reader, struct trace_live *live, struct sites *sites,
                  struct trace_error *error) {
    struct trace_event event;
    struct trace_error why;
    enum { PROGRESS_EVERY = 1 << 20 };
    int result;
    while ((result = trace_reader_next(reader, &event, error)) == 1) {
        if (event.number % PROGRESS_EVERY == PROGRESS_EVERY - 1)
            steve_show_progress("reading", trace_reader_share(reader));
        if (trace_live_apply(live, &event, &why) != 0) {
            char where[256];
            trace_reader_where(reader, where, sizeof where);
            snprintf(error->text, sizeof error->text, "%s: %.200s", where, why.text);
            return -1;
        }
        if (sites != NULL && !sites_take(sites, &event, live->live_bytes)) {
            snprintf(error->text, sizeof error->text, "out of memory");
            return -1;
        }
    }
    steve_show_progress("reading", 1);
    return result;
}

static int info(const char *path, uint64_t site_limit) {
    struct trace_error error;
    struct trace_reader *reader = trace_reader_open(path, &error);
    if (reader == NULL) {
        steve_complain("%s", error.text);
        return STEVE_FAILED;
    }
    struct trace_live live;
    struct sites *sites = site_limit != 0 ? sites_create() : NULL;
    if (trace_live_init(&live, 0) != 0 || (site_limit != 0 && sites == NULL)) {
        steve_complain("out of memory");
        trace_reader_close(reader);
        return STEVE_FAILED;
    }
    print_header(path, trace_reader_header(reader));
    struct trace_error no_totals;
    struct trace_totals totals;
    int has_totals = trace_reader_totals(reader, &totals, &no_totals) == 0;
    int result = follow(reader, &live, sites, &error);
    print_totals(&live.totals);
    if (result == 0 && has_totals) {
        print_count("frees of unseen blocks", totals.unknown_frees);
        print_count("blocks that vanished", totals.implicit_frees);
        print_count("operations lost", totals.lost_events);
        if (totals.stray_accesses != 0)
            print_count("accesses of no block", totals.stray_accesses);
        print_end((int)totals.wait_status);
        uint64_t frames, bytes;
        trace_reader_progress(reader, &frames, &bytes);
        print_bytes("size of the file", bytes);
        if (totals.events != 0)
            printf("%-24s%.2f\n", "bytes per event", (double)bytes / (double)totals.events);
        if (totals.events != live.totals.events) {
            snprintf(error.text, sizeof error.text,
                     "%.200s: the end frame tells of %" PRIu64 " events", path, totals.events);
            result = -1;
        }
    }
    if (result == 0 && sites != NULL && !sites_print(sites, site_limit)) {
        snprintf(error.text, sizeof error.text,
                 "%.200s: there are no call stacks in this trace; record it with --stacks=8", path);
        result = -1;
    }
    sites_destroy(sites);
    trace_live_finish(&live);
    trace_reader_close(reader);
    if (result != 0)
        steve_complain("%s", error.text);
    return result != 0 ? STEVE_FAILED : STEVE_OK;
}

static void print_event(uint64_t number, const struct trace_event *event) {
    printf("%" PRIu64 " %" PRIu64 " %u %s", number, event->time_us, event->thread,
           op_name(event->op));
    bool has_block =
        event->op != TRACE_EXEC && event->op != TRACE_STACK && event->op != TRACE_MODULE;
    if (has_block)
        printf(" %u", event->block);
    if (event->op == TRACE_ACCESS)
        printf(" %" PRIu64 "+%" PRIu64 " %" PRIu64 " %" PRIu64, event->offset, event->size,
               event->reads, event->writes);
    for (uint32_t i = 0; i < event->frame_count; i++)
        printf(" 0x%" PRIx64, event->frames[i]);
    if (event->op == TRACE_MODULE)
        printf(" %s", event->name);
    if (event->op < TRACE_OP_SKIPPABLE && event->op != TRACE_EXEC && event->op != TRACE_FREE)
        printf(" %" PRIu64, event->size);
    if (event->op == TRACE_ALIGNED)
        printf(" %" PRIu64, (uint64_t)1 << event->alignment_log2);
    putchar('\n');
}

static int dump(const char *path, uint64_t first, uint64_t count) {
    struct trace_error error;
    struct trace_event event;
    struct trace_reader *reader = trace_reader_open(path, &error);
    if (reader == NULL) {
        steve_complain("%s", error.text);
        return STEVE_FAILED;
    }
    /* A pipe can only be read from its beginning. */
    uint64_t number = first;
    int result = first != 0 && trace_reader_seek(reader, first, &error) != 0 ? -1 : 1;
    for (; result == 1 && count > 0; number++, count--) {
        result = trace_reader_next(reader, &event, &error);
        if (result == 1)
            print_event(number, &event);
    }
    trace_reader_close(reader);
    if (result < 0)
        steve_complain("%s", error.text);
    else if (fflush(stdout) != 0) {
        steve_complain("cannot write the output");
        result = -1;
    }
    return result < 0 ? STEVE_FAILED : STEVE_OK;
}

int steve_info(int argc, char **argv) {
    enum { SITES = 256, SITES_DEFAULT = 10, SITES_MAX = 1000 };
    static const struct option options[] = {{"sites", optional_argument, NULL, SITES},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    uint64_t sites = 0;
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(INFO_HELP, stdout);
            return STEVE_OK;
        }
        if (option != SITES)
            return STEVE_USAGE;
        sites = SITES_DEFAULT;
        if (optarg != NULL && steve_parse_number("--sites", optarg, 1, SITES_MAX, &sites) != 0)
            return STEVE_USAGE;
    }
    if (argc - optind != 1) {
        steve_complain("info needs one trace; see 'steve info --help'");
        return STEVE_USAGE;
    }
    return info(argv[optind], sites);
}

int steve_dump(int argc, char **argv) {
    enum { FIRST = 256, COUNT };
    static const struct option options[] = {{"first", required_argument, NULL, FIRST},
                                            {"count", required_argument, NULL, COUNT},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    uint64_t first = 0, count = UINT64_MAX;
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(DUMP_HELP, stdout);
            return STEVE_OK;
        }
        if (option != FIRST && option != COUNT)
            return STEVE_USAGE;
        if (steve_parse_number(option == FIRST ? "--first" : "--count", optarg, 0, UINT64_MAX,
                               option == FIRST ? &first : &count) != 0)
            return STEVE_USAGE;
    }
    if (argc - optind != 1) {
        steve_complain("dump needs one trace; see 'steve dump --help'");
        return STEVE_USAGE;
    }
    return dump(argv[optind], first, count);
}
