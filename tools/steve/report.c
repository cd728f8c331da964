/* The table of a replay, and its JSON and CSV. */
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "steve.h"

enum { CELL = 32, NAME_WIDTH = 44, COLUMN_WIDTH = 18, COLUMNS = 4 };

/* Fills a cell from a report whose passes both succeeded. */
typedef void cell_fn(const struct replay_report *report, char ret_text[CELL]);

static void put_bytes(char text[CELL], int64_t bytes) {
    char shown[STEVE_BYTES_TEXT];
    snprintf(text, CELL, "%s", bytes < 0 ? "?" : steve_bytes_text((double)bytes, shown));
}

static void put_us(char text[CELL], const struct replay_report *report, double us) {
    if (report->speed->pause_count == 0)
        snprintf(text, CELL, "-");
    else
        snprintf(text, CELL, us < 1000 ? "%.1f us" : "%.0f us", us);
}

static void live_peak(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, (int64_t)report->memory->peak_live);
}
static void live_average(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, (int64_t)report->memory->live_average);
}
static void live_end(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, (int64_t)report->memory->end_live);
}
static void resident_peak(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, report->memory->resident_peak);
}
static void resident_average(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, (int64_t)report->memory->resident_average);
}
static void resident_end(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, report->memory->resident_end);
}
static void resident_tidy(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, report->memory->resident_tidy);
}
static void largest_end(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, report->memory->largest_end);
}
static void largest_tidy(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, report->memory->largest_tidy);
}
static void pause_count(const struct replay_report *report, char text[CELL]) {
    snprintf(text, CELL, "%" PRIu64, report->speed->pause_count);
}
static void pause_p50(const struct replay_report *report, char text[CELL]) {
    put_us(text, report, report->speed->pause_wall.p50_us);
}
static void pause_p99(const struct replay_report *report, char text[CELL]) {
    put_us(text, report, report->speed->pause_wall.p99_us);
}
static void pause_max(const struct replay_report *report, char text[CELL]) {
    put_us(text, report, report->speed->pause_wall.max_us);
}
static void pause_cpu_p50(const struct replay_report *report, char text[CELL]) {
    put_us(text, report, report->speed->pause_cpu.p50_us);
}
static void pause_cpu_p99(const struct replay_report *report, char text[CELL]) {
    put_us(text, report, report->speed->pause_cpu.p99_us);
}
static void pause_cpu_max(const struct replay_report *report, char text[CELL]) {
    put_us(text, report, report->speed->pause_cpu.max_us);
}
static void pause_total(const struct replay_report *report, char text[CELL]) {
    if (report->speed->pause_count == 0)
        snprintf(text, CELL, "-");
    else
        snprintf(text, CELL, "%.1f ms", report->speed->pause_wall.total_us / 1e3);
}
static void tidy_time(const struct replay_report *report, char text[CELL]) {
    snprintf(text, CELL, "%.1f ms", report->speed->tidy_wall_us / 1e3);
}

static double per_second(const struct replay_result *speed) {
    return speed->seconds > 0 ? (double)speed->operations / speed->seconds : 0;
}

static void operations(const struct replay_report *report, char text[CELL]) {
    snprintf(text, CELL, "%.2f M/s", per_second(report->speed) / 1e6);
}
static void operations_mean(const struct replay_report *report, char text[CELL]) {
    snprintf(text, CELL, "%.2f +- %.2f", report->speed_mean.mean / 1e6,
             report->speed_mean.half_width / 1e6);
}

static void put_mean_ns(char text[CELL], struct replay_mean mean) {
    if (mean.mean < 10000)
        snprintf(text, CELL, "%.0f +- %.0f ns", mean.mean, mean.half_width);
    else if (mean.mean >= 10e6)
        snprintf(text, CELL, "%.1f +- %.1f ms", mean.mean / 1e6, mean.half_width / 1e6);
    else
        snprintf(text, CELL, "%.0f +- %.0f us", mean.mean / 1e3, mean.half_width / 1e3);
}
static void latency_p50(const struct replay_report *report, char text[CELL]) {
    put_mean_ns(text, report->p50);
}
static void latency_p99(const struct replay_report *report, char text[CELL]) {
    put_mean_ns(text, report->p99);
}
static void latency_p999(const struct replay_report *report, char text[CELL]) {
    put_mean_ns(text, report->p999);
}
static void latency_max(const struct replay_report *report, char text[CELL]) {
    put_mean_ns(text, report->max);
}
static void share_average(const struct replay_report *report, char text[CELL]) {
    put_bytes(text, (int64_t)report->memory->share_average);
}
static void overhead(const struct replay_report *report, char text[CELL]) {
    const struct replay_result *memory = report->memory;
    if (memory->live_average > 0)
        snprintf(text, CELL, "%+.1f %%",
                 100 * (memory->resident_average / memory->live_average - 1));
    else
        snprintf(text, CELL, "-");
}
static void smallest_heap(const struct replay_report *report, char text[CELL]) {
    if (report->smallest_heap < 0)
        snprintf(text, CELL, "-");
    else
        put_bytes(text, report->smallest_heap);
}

/* The average over compactions of the share of blocks, or of bytes, that were locked. */
static void put_locked(const struct replay_report *report, bool bytes, char text[CELL]) {
    const struct replay_result *speed = report->speed;
    double sum = 0;
    for (uint32_t i = 0; i < speed->pause_kept; i++) {
        const struct replay_pause *pause = &speed->pauses[i];
        uint64_t all = bytes ? pause->bytes : pause->blocks;
        uint64_t locked = bytes ? pause->locked_bytes : pause->locked_blocks;
        sum += all != 0 ? (double)locked / (double)all : 0;
    }
    if (speed->pause_kept == 0)
        snprintf(text, CELL, "-");
    else
        snprintf(text, CELL, "%.2f %%", 100 * sum / speed->pause_kept);
}
static void locked_blocks(const struct replay_report *report, char text[CELL]) {
    put_locked(report, false, text);
}
static void locked_bytes(const struct replay_report *report, char text[CELL]) {
    put_locked(report, true, text);
}

static const struct {
    const char *name;
    cell_fn *fill; /* NULL = a heading */
} rows[] = {
    {"live bytes (asked for by the program)", NULL},
    {"  peak", live_peak},
    {"  average", live_average},
    {"  at the end", live_end},
    {"resident bytes", NULL},
    {"  peak", resident_peak},
    {"  average", resident_average},
    {"  average over live bytes", overhead},
    {"  average, shared pages by share (PSS)", share_average},
    {"  at the end, before full compaction", resident_end},
    {"  at the end, after full compaction", resident_tidy},
    {"largest block to be had within the peak", NULL},
    {"  at the end, before full compaction", largest_end},
    {"  at the end, after full compaction", largest_tidy},
    {"pauses at idle points, wall clock", pause_count},
    {"  p50", pause_p50},
    {"  p99", pause_p99},
    {"  max", pause_max},
    {"pauses at idle points, thread CPU", pause_count},
    {"  p50", pause_cpu_p50},
    {"  p99", pause_cpu_p99},
    {"  max", pause_cpu_max},
    {"all pauses together, wall clock", pause_total},
    {"full compaction at the end, wall clock", tidy_time},
    {"operations per second, without pauses", operations},
    {"  mean of the repeats, M/s", operations_mean},
    {"time of a single call", NULL},
    {"  p50", latency_p50},
    {"  p99", latency_p99},
    {"  p99.9", latency_p999},
    {"  max", latency_max},
    {"locked at a compaction, average", NULL},
    {"  of the blocks", locked_blocks},
    {"  of the bytes", locked_bytes},
    {"smallest heap that runs the trace", smallest_heap},
};

static void print_command(FILE *stream, const struct trace_header *header) {
    for (uint32_t i = 0; i + 1 < header->command_bytes && i < 200; i++) {
        char c = header->command[i];
        fputc(c == '\0' || (unsigned char)c < ' ' ? ' ' : c, stream);
    }
}

static void print_head(const struct report_subject *subject, const struct replay_report *reports,
                       size_t count) {
    const struct replay_options *options = subject->options;
    printf("%s: ", subject->path);
    print_command(stdout, subject->header);
    for (size_t i = 0; i < count; i++) {
        if (reports[i].memory != NULL) {
            printf("\n%" PRIu64 " operations", reports[i].memory->operations);
            break;
        }
    }
    if (options->budget_us != 0)
        printf("; idle point every %" PRIu64 " operations with %u us for compaction\n\n",
               options->idle_every, options->budget_us);
    else
        printf("; no compaction at idle points\n\n");
}

/* As many allocators as fit side by side. */
static void print_rows(const struct replay_report *reports, size_t count) {
    printf("%-*s", NAME_WIDTH, "");
    for (size_t i = 0; i < count; i++)
        printf("%*s", COLUMN_WIDTH, reports[i].backend->name);
    putchar('\n');
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        printf("%-*s", rows[row].fill != NULL ? NAME_WIDTH : 0, rows[row].name);
        for (size_t i = 0; i < count && rows[row].fill != NULL; i++) {
            char text[CELL];
            snprintf(text, sizeof text, "%s", reports[i].failure);
            if (reports[i].memory != NULL)
                rows[row].fill(&reports[i], text);
            printf("%*s", COLUMN_WIDTH, text);
        }
        putchar('\n');
    }
    putchar('\n');
}

void report_table(const struct report_subject *subject, const struct replay_report *reports,
                  size_t count) {
    print_head(subject, reports, count);
    for (size_t first = 0; first < count; first += COLUMNS)
        print_rows(reports + first, count - first < COLUMNS ? count - first : COLUMNS);
    for (size_t i = 0; i < count; i++) {
        if (reports[i].memory == NULL)
            continue;
        printf("%s: full compaction is %s", reports[i].backend->name, reports[i].memory->tidy_what);
        if (reports[i].memory->alignments_reduced != 0)
            printf("; %" PRIu64 " alignments beyond %zu bytes were reduced to that",
                   reports[i].memory->alignments_reduced, reports[i].backend->alignment_max);
        if (reports[i].memory->limit_raises != 0)
            printf("; its limit was too small and was raised %" PRIu64 " times",
                   reports[i].memory->limit_raises);
        putchar('\n');
    }
}

/* --- JSON. */

static void json_string(FILE *stream, const char *text, size_t size) {
    fputc('"', stream);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            fprintf(stream, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            fprintf(stream, "\\u%04x", c);
        else
            fputc(c, stream);
    }
    fputc('"', stream);
}

static void json_percentiles(FILE *stream, const char *name,
                             const struct replay_percentiles *percentiles) {
    fprintf(stream,
            "      \"%s\": {\"p50_us\": %.3f, \"p99_us\": %.3f, \"max_us\": %.3f, \"total_us\": "
            "%.3f},\n",
            name, percentiles->p50_us, percentiles->p99_us, percentiles->max_us,
            percentiles->total_us);
}

static void json_samples(FILE *stream, const struct replay_result *memory) {
    fputs("      \"samples\": [", stream);
    for (uint32_t i = 0; i < memory->sample_count; i++) {
        const struct replay_sample *sample = &memory->samples[i];
        fprintf(stream,
                "%s\n        {\"event\": %" PRIu64 ", \"time_us\": %" PRIu64
                ", \"live_bytes\": %" PRIu64 ", \"live_blocks\": %" PRIu64
                ", \"resident_bytes\": %" PRId64 ", \"share_bytes\": %" PRId64
                ", \"round\": %u, \"after_compaction\": %s}",
                i == 0 ? "" : ",", sample->event, sample->time_us, sample->live, sample->blocks,
                sample->resident, sample->share, sample->round,
                sample->compacted ? "true" : "false");
    }
    fputs("\n      ]\n", stream);
}

static void json_pauses(FILE *stream, const struct replay_result *speed) {
    fputs("      \"compactions\": [", stream);
    for (uint32_t i = 0; i < speed->pause_kept; i++) {
        const struct replay_pause *pause = &speed->pauses[i];
        fprintf(stream,
                "%s\n        {\"event\": %" PRIu64 ", \"time_us\": %" PRIu64
                ", \"wall_ns\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 ", \"blocks\": %" PRIu64
                ", \"locked_blocks\": %" PRIu64 ", \"bytes\": %" PRIu64
                ", \"locked_bytes\": %" PRIu64 "}",
                i == 0 ? "" : ",", pause->event, pause->time_us, pause->wall_ns, pause->cpu_ns,
                pause->blocks, pause->locked_blocks, pause->bytes, pause->locked_bytes);
    }
    fputs("\n      ],\n", stream);
}

static void json_latency(FILE *stream, const struct replay_report *report) {
    static const char *const kinds[] = {"allocate", "resize", "free", "all"};
    fputs("      \"latency\": {", stream);
    for (unsigned kind = 0; kind < KINDS; kind++) {
        const struct replay_latency *latency = &report->latency->latency[kind];
        fprintf(stream,
                "%s\n        \"%s\": {\"count\": %" PRIu64 ", \"mean_ns\": %.1f, \"p50_ns\": "
                "%.1f, \"p99_ns\": %.1f, \"p999_ns\": %.1f, \"max_ns\": %.1f}",
                kind == 0 ? "" : ",", kinds[kind], latency->count, latency->mean_ns,
                latency->p50_ns, latency->p99_ns, latency->p999_ns, latency->max_ns);
    }
    fputs("\n      },\n", stream);
}

static void json_mean(FILE *stream, const char *name, struct replay_mean mean) {
    fprintf(stream, "      \"%s\": {\"mean\": %.3f, \"half_width_95\": %.3f},\n", name, mean.mean,
            mean.half_width);
}

static void json_memory(FILE *stream, const struct replay_result *memory) {
    fprintf(stream,
            "      \"operations\": %" PRIu64 ",\n      \"live_peak_bytes\": %" PRIu64
            ",\n      \"live_average_bytes\": %.0f,\n      \"live_end_bytes\": %" PRIu64
            ",\n      \"live_end_blocks\": %" PRIu64 ",\n",
            memory->operations, memory->peak_live, memory->live_average, memory->end_live,
            memory->end_blocks);
    fprintf(stream,
            "      \"resident_peak_bytes\": %" PRId64 ",\n      \"resident_average_bytes\": %.0f"
            ",\n      \"share_average_bytes\": %.0f,\n      \"resident_end_bytes\": %" PRId64
            ",\n      \"resident_after_full_compaction_bytes\": %" PRId64 ",\n",
            memory->resident_peak, memory->resident_average, memory->share_average,
            memory->resident_end, memory->resident_tidy);
    fprintf(stream,
            "      \"largest_block_end_bytes\": %" PRId64
            ",\n      \"largest_block_after_full_compaction_bytes\": %" PRId64
            ",\n      \"verified_bytes\": %" PRIu64 ",\n      \"alignments_reduced\": %" PRIu64
            ",\n      \"limit_raises\": %" PRIu64 ",\n",
            memory->largest_end, memory->largest_tidy, memory->verified_bytes,
            memory->alignments_reduced, memory->limit_raises);
    fprintf(stream, "      \"full_compaction\": ");
    json_string(stream, memory->tidy_what, strlen(memory->tidy_what));
    fputs(",\n", stream);
}

static void json_results(FILE *stream, const struct replay_report *report) {
    const struct replay_result *speed = report->speed;
    json_memory(stream, report->memory);
    if (report->smallest_heap >= 0)
        fprintf(stream, "      \"smallest_heap_bytes\": %" PRId64 ",\n", report->smallest_heap);
    fprintf(stream,
            "      \"full_compaction_wall_us\": %.3f,\n      \"full_compaction_cpu_us\": %.3f"
            ",\n      \"pauses\": %" PRIu64 ",\n",
            speed->tidy_wall_us, speed->tidy_cpu_us, speed->pause_count);
    json_percentiles(stream, "pause_wall", &speed->pause_wall);
    json_percentiles(stream, "pause_cpu", &speed->pause_cpu);
    fprintf(stream,
            "      \"operations_per_second\": %.0f,\n      \"cpu_ns_per_operation\": %.2f,\n"
            "      \"repeats\": [",
            per_second(speed),
            speed->operations != 0 ? speed->cpu_seconds * 1e9 / (double)speed->operations : 0);
    for (unsigned i = 0; i < report->repeats; i++)
        fprintf(stream, "%s%.0f", i == 0 ? "" : ", ", report->speeds[i]);
    fputs("],\n", stream);
    json_mean(stream, "operations_per_second_mean", report->speed_mean);
    json_mean(stream, "p50_ns", report->p50);
    json_mean(stream, "p99_ns", report->p99);
    json_mean(stream, "p999_ns", report->p999);
    json_mean(stream, "max_ns", report->max);
    json_latency(stream, report);
    json_pauses(stream, speed);
    json_samples(stream, report->memory);
}

/* Closes a report file; -1 after a complaint when not all of it could be written. */
static int close_report(FILE *stream, const char *path) {
    int failed = ferror(stream);
    if (fclose(stream) != 0 || failed) {
        steve_complain("cannot write %s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}

static FILE *open_report(const char *path) {
    FILE *stream = fopen(path, "we");
    if (stream == NULL)
        steve_complain("cannot write %s: %s", path, strerror(errno));
    return stream;
}

int report_json(const char *path, const struct report_subject *subject,
                const struct replay_report *reports, size_t count) {
    FILE *stream = open_report(path);
    if (stream == NULL)
        return -1;
    fprintf(stream, "{\n  \"steve\": \"%s\",\n  \"trace\": ", STEVE_VERSION);
    json_string(stream, subject->path, strlen(subject->path));
    fputs(",\n  \"command\": [", stream);
    const struct trace_header *header = subject->header;
    for (uint32_t i = 0; i < header->command_bytes;) {
        size_t length = strnlen(header->command + i, header->command_bytes - i);
        fputs(i == 0 ? "" : ", ", stream);
        json_string(stream, header->command + i, length);
        i += (uint32_t)length + 1;
    }
    fprintf(stream,
            "],\n  \"idle_every\": %" PRIu64 ",\n  \"budget_us\": %u,\n  \"rounds\": %u,\n"
            "  \"free_share\": %.2f,\n  \"seed\": %" PRIu64 ",\n  \"allocators\": [\n",
            subject->options->idle_every, subject->options->budget_us, subject->options->rounds,
            subject->options->free_share, subject->options->seed);
    for (size_t i = 0; i < count; i++) {
        bool failed = reports[i].memory == NULL;
        const struct replay_backend *backend = reports[i].backend;
        fputs("    {\n      \"name\": ", stream);
        json_string(stream, backend->name, strlen(backend->name));
        fputs(",\n      \"description\": ", stream);
        json_string(stream, backend->description, strlen(backend->description));
        fprintf(stream, ",\n      \"failed\": %s,\n      \"failure\": \"%s\"%s\n",
                failed ? "true" : "false", reports[i].failure, failed ? "" : ",");
        if (!failed)
            json_results(stream, &reports[i]);
        fprintf(stream, "    }%s\n", i + 1 < count ? "," : "");
    }
    fputs("  ]\n}\n", stream);
    return close_report(stream, path);
}

int report_csv(const char *path, const struct replay_report *reports, size_t count) {
    FILE *stream = open_report(path);
    if (stream == NULL)
        return -1;
    fputs("allocator,event,time_us,live_bytes,live_blocks,resident_bytes,share_bytes,round,"
          "after_compaction\n",
          stream);
    for (size_t i = 0; i < count; i++) {
        const struct replay_result *memory = reports[i].memory;
        for (uint32_t at = 0; memory != NULL && at < memory->sample_count; at++) {
            const struct replay_sample *sample = &memory->samples[at];
            fprintf(stream,
                    "%s,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRId64 ",%" PRId64
                    ",%u,%u\n",
                    reports[i].backend->name, sample->event, sample->time_us, sample->live,
                    sample->blocks, sample->resident, sample->share, sample->round,
                    sample->compacted);
        }
    }
    return close_report(stream, path);
}
