/* Any bytes as a trace, for libFuzzer (tools/fuzz-steve): reading ends with an event, the end, or an error, and
 * what was read through comes out the same when it is written and read again. A mutator of its own puts
 * lengths and checksums right, so that the decoder behind them is reached. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../sites.h"
#include "../steve.h"
#include "../trace_codec.h"
#include "../trace_live.h"
#include "../trace_read.h"
#include "../trace_write.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

enum { PATH_BYTES = 64, EVENTS_MAX = 1 << 16 };

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Of the program; nothing is printed here. */
const char *steve_bytes_text(double bytes, char ret_text[STEVE_BYTES_TEXT]) {
    (void)bytes;
    return ret_text;
}

/* A file in memory, emptied for every input. */
static int open_memory(const char *name, char *ret_path) {
    int file = memfd_create(name, 0);
    REQUIRE(file >= 0);
    snprintf(ret_path, PATH_BYTES, "/proc/self/fd/%d", file);
    return file;
}

static uint64_t digest_event(uint64_t digest, const struct trace_event *event) {
    uint64_t values[] = {event->op,    event->thread, event->time_us,
                         event->block, event->size,   event->offset,
                         event->reads, event->writes, event->alignment_log2};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        digest = (digest ^ values[i]) * 0x9e3779b97f4a7c15u;
    for (uint32_t i = 0; i < event->frame_count; i++)
        digest = (digest ^ event->frames[i]) * 0x9e3779b97f4a7c15u;
    for (const char *at = event->name; at != NULL && *at != '\0'; at++)
        digest = (digest ^ (uint8_t)*at) * 0x9e3779b97f4a7c15u;
    return digest;
}

/* Reads to the end or to an error; writes what made sense to `writer` unless NULL. 0 at the end. */
static int follow(const char *path, struct trace_writer *writer, uint64_t *ret_digest,
                  uint64_t *ret_events) {
    struct trace_error error = {"nothing"};
    struct trace_event event;
    struct trace_live live;
    struct trace_totals totals;
    *ret_digest = *ret_events = 0;
    struct trace_reader *reader = trace_reader_open(path, &error);
    if (reader == NULL)
        return -1;
    trace_reader_totals(reader, &totals, &error);
    struct sites *sites = sites_create();
    REQUIRE(sites != NULL && trace_live_init(&live, 0) == 0);
    int result;
    while ((result = trace_reader_next(reader, &event, &error)) == 1 && *ret_events < EVENTS_MAX) {
        if (trace_live_apply(&live, &event, &error) != 0)
            continue;
        REQUIRE(sites_take(sites, &event, live.live_bytes));
        *ret_digest = digest_event(*ret_digest, &event);
        ++*ret_events;
        if (writer != NULL)
            REQUIRE(trace_writer_add(writer, &event, &error) == 0);
    }
    REQUIRE(result >= 0 || error.text[0] != '\0');
    sites_destroy(sites);
    trace_live_finish(&live);
    trace_reader_close(reader);
    return result;
}

static void look_for(const char *path, uint64_t number) {
    struct trace_error error;
    struct trace_event event;
    struct trace_reader *reader = trace_reader_open(path, &error);
    if (reader != NULL && trace_reader_seek(reader, number, &error) == 0)
        trace_reader_next(reader, &event, &error);
    trace_reader_close(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char path[PATH_BYTES], copy_path[PATH_BYTES];
    static int file = -1;
    struct trace_error error;
    struct trace_header header = {.page_size = 4096};
    if (file < 0) {
        file = open_memory("input", path);
        open_memory("copy", copy_path);
    }
    REQUIRE(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size);
    int descriptor = open(copy_path, O_WRONLY | O_TRUNC);
    struct trace_writer *writer = trace_writer_create(descriptor, "copy", &header, 0, &error);
    REQUIRE(writer != NULL);
    uint64_t digest, events, copy_digest, copy_events;
    follow(path, writer, &digest, &events);
    struct trace_totals totals = {0};
    REQUIRE(trace_writer_finish(writer, &totals, &error) == 0 && totals.events == events);
    REQUIRE(follow(copy_path, NULL, &copy_digest, &copy_events) == 0 || events == EVENTS_MAX);
    REQUIRE(copy_digest == digest && copy_events == events);
    look_for(path, size != 0 ? data[size - 1] : 0);
    return 0;
}

/* --- The mutator. */

/* Makes the frame at `at` say how long it is, up to where the next one begins or the file ends. */
static size_t repair_frame(uint8_t *data, size_t at, size_t size) {
    size_t start = at + TRACE_FRAME_BYTES, end = start;
    while (end < size && (end + 4 > size || trace_get_u32(data + end) != TRACE_FRAME_MAGIC))
        end++;
    if (end == size && data[at + 4] == TRACE_FRAME_END && end - start >= TRACE_TRAILER_BYTES) {
        end -= TRACE_TRAILER_BYTES;
        trace_put_u64(data + end, at);
        memcpy(data + end + 8, TRACE_END_MAGIC, 8);
    }
    trace_put_u32(data + at + 8, (uint32_t)(end - start));
    if (data[at + 5] == TRACE_STORED)
        trace_put_u32(data + at + 12, (uint32_t)(end - start));
    uint32_t crc = trace_crc32(0, data + at, 28);
    trace_put_u32(data + at + 28, trace_crc32(crc, data + start, end - start));
    return end;
}

static void repair(uint8_t *data, size_t size) {
    if (size < TRACE_HEADER_BYTES + 4)
        return;
    memcpy(data, TRACE_MAGIC, 8);
    trace_put_u16(data + 8, TRACE_VERSION_MAJOR);
    size_t header = TRACE_HEADER_BYTES;
    while (header + 8 < size && trace_get_u32(data + header + 4) != TRACE_FRAME_MAGIC)
        header++;
    trace_put_u32(data + 12, (uint32_t)header + 4);
    trace_put_u32(data + 36, (uint32_t)header - TRACE_HEADER_BYTES);
    trace_put_u32(data + header, trace_crc32(0, data, header));
    for (size_t at = header + 4;
         at + TRACE_FRAME_BYTES <= size && trace_get_u32(data + at) == TRACE_FRAME_MAGIC;)
        at = repair_frame(data, at, size);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, max_size);
    if (seed % 8 != 0)
        repair(data, size);
    return size;
}
