/* Memory and time of the replayer's own process. Nothing here allocates, so that measuring does not
 * disturb what is measured. */
#include "measure.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int rollup_file = -1;
static int status_file = -1;

int measure_open(void) {
    rollup_file = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
    status_file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    return rollup_file < 0 || status_file < 0 ? -1 : 0;
}

/* The number of KiB after `key` in a text of /proc, in bytes; -1 when it is not there. */
static int64_t find_kib(const char *text, const char *key) {
    const char *found = strstr(text, key);
    return found != NULL ? (int64_t)strtoll(found + strlen(key), NULL, 10) * 1024 : -1;
}

enum { TEXT_BYTES = 4096 };

static void read_text(int file, char text[TEXT_BYTES]) {
    ssize_t size = pread(file, text, TEXT_BYTES - 1, 0);
    text[size > 0 ? size : 0] = '\0';
}

static int64_t read_kib(int file, const char *key) {
    char text[TEXT_BYTES];
    read_text(file, text);
    return find_kib(text, key);
}

void measure_memory(int64_t *ret_resident, int64_t *ret_share) {
    char text[TEXT_BYTES];
    read_text(rollup_file, text);
    *ret_resident = find_kib(text, "\nRss:");
    /* How many others have a page of a library changes while other programs come and go. */
    int64_t files = find_kib(text, "\nPss_File:");
    *ret_share = find_kib(text, "\nPss:") - (files > 0 ? files : 0);
}

int64_t measure_data(void) {
    return read_kib(status_file, "\nVmData:");
}

int64_t measure_resident(void) {
    return read_kib(rollup_file, "\nRss:");
}

int64_t measure_resident_peak(void) {
    return read_kib(status_file, "\nVmHWM:");
}

int measure_reset_peak(void) {
    int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    ssize_t written = write(file, "5", 1);
    close(file);
    return written == 1 ? 0 : -1;
}

static uint64_t read_clock(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t measure_wall_ns(void) {
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t measure_cpu_ns(void) {
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

/* A line of /proc/self/maps: of a mapped file, its pages are made present. */
static void touch_mapping(const char *line) {
#if defined(MADV_POPULATE_READ)
    char *rest;
    uintptr_t start = (uintptr_t)strtoull(line, &rest, 16);
    uintptr_t end = (uintptr_t)strtoull(rest + 1, &rest, 16);
    if (strchr(rest, '/') == NULL || rest[1] != 'r')
        return;
    /* What cannot be had, such as a page beyond a file's end, is left. */
    madvise((void *)start, end - start, rest[2] == 'w' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
#else
    (void)line;
#endif
}

void measure_touch_files(void) {
    enum { BUFFER = 1 << 16 };
    static char text[BUFFER + 1];
    size_t held = 0;
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    ssize_t got;
    while (file >= 0 && (got = read(file, text + held, BUFFER - held)) > 0) {
        char *line = text, *end;
        held += (size_t)got;
        text[held] = '\0';
        while ((end = strchr(line, '\n')) != NULL) {
            *end = '\0';
            touch_mapping(line);
            line = end + 1;
        }
        held -= (size_t)(line - text);
        memmove(text, line, held);
    }
    if (file >= 0)
        close(file);
}

void *measure_map(size_t size) {
    void *memory = mmap(NULL, size != 0 ? size : 1, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static int compare_times(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* The smallest of the sorted times that at least `share` of all do not exceed. */
static double at_rank(const uint64_t *times, size_t count, double share) {
    double exact = share * (double)count;
    size_t rank = (size_t)exact;
    if ((double)rank < exact)
        rank++;
    return (double)times[rank != 0 ? rank - 1 : 0] / 1e3;
}

struct replay_percentiles measure_percentiles(uint64_t *times, size_t count) {
    struct replay_percentiles result = {0};
    if (count == 0)
        return result;
    qsort(times, count, sizeof *times, compare_times);
    for (size_t i = 0; i < count; i++)
        result.total_us += (double)times[i] / 1e3;
    result.p50_us = at_rank(times, count, 0.5);
    result.p99_us = at_rank(times, count, 0.99);
    result.max_us = (double)times[count - 1] / 1e3;
    return result;
}
