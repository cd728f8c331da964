/* Any bytes as a file of another tool, for libFuzzer (tools/fuzz-steve): the first byte names the format. An
 * import that succeeds leaves a trace that can be read and makes sense. */
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../steve.h"
#include "../trace_live.h"
#include "../trace_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PATH_BYTES = 64 };

/* Complaints are expected, and not shown. */
void steve_complain(const char *format, ...) {
    (void)format;
}

void steve_show_progress(const char *what, double share) {
    (void)what, (void)share;
}

int steve_parse_number(const char *option, const char *text, uint64_t minimum, uint64_t maximum,
                       uint64_t *ret_value) {
    (void)option, (void)minimum, (void)maximum;
    *ret_value = strtoull(text, NULL, 10);
    return 0;
}

static int open_memory(const char *name, char *ret_path) {
    int file = memfd_create(name, 0);
    if (file < 0)
        abort();
    snprintf(ret_path, PATH_BYTES, "/proc/self/fd/%d", file);
    return file;
}

static void check_trace(const char *path) {
    struct trace_error error;
    struct trace_event event;
    struct trace_live live;
    struct trace_reader *reader = trace_reader_open(path, &error);
    int result = -1;
    if (reader != NULL && trace_live_init(&live, 0) == 0) {
        while ((result = trace_reader_next(reader, &event, &error)) == 1) {
            if (trace_live_apply(&live, &event, &error) != 0)
                break;
        }
        trace_live_finish(&live);
    }
    if (result != 0) {
        fprintf(stderr, "an import left a bad trace: %s\n", error.text);
        abort();
    }
    trace_reader_close(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char path[PATH_BYTES], output_path[PATH_BYTES];
    static int file = -1;
    static char names[][10] = {"ops", "heaptrack", "mtrace", "lackey"};
    if (file < 0) {
        file = open_memory("input", path);
        open_memory("output", output_path);
    }
    if (size == 0)
        return 0;
    char *format = names[data[0] % (sizeof names / sizeof names[0])];
    if (ftruncate(file, 0) != 0 || pwrite(file, data + 1, size - 1, 0) != (ssize_t)size - 1)
        abort();
    char command[] = "import", from[] = "--from", to[] = "-o", plain[] = "--no-compress";
    char *arguments[] = {command, from, format, to, output_path, plain, path, NULL};
    optind = 0; /* getopt begins anew */
    if (steve_import(7, arguments) == STEVE_OK)
        check_trace(output_path);
    return 0;
}
