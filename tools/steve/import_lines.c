/* Lines of a text file, plain or compressed with zstd. */
#include "import_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(STEVE_HAVE_ZSTD)
#include <zstd.h>
#endif

enum { LINE_MAX_BYTES = 64 << 10, INPUT_BYTES = 128 << 10, TEXT_BYTES = 256 << 10 };

struct import_lines {
    int descriptor;
    bool packed;
    bool at_end; /* of the file */
    uint64_t number;
    size_t input_at, input_end;
    size_t text_at, text_end;
    char name[256];
#if defined(STEVE_HAVE_ZSTD)
    ZSTD_DStream *unpacker;
#endif
    uint8_t input[INPUT_BYTES];
    char text[TEXT_BYTES + 1];
};

static int fail(const struct import_lines *lines, struct trace_error *error, const char *what) {
    snprintf(error->text, sizeof error->text, "%s: line %llu: %s", lines->name,
             (unsigned long long)lines->number + 1, what);
    return -1;
}

static int fill_input(struct import_lines *lines, struct trace_error *error) {
    ssize_t got;
    do
        got = read(lines->descriptor, lines->input, sizeof lines->input);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return fail(lines, error, strerror(errno));
    lines->input_at = 0;
    lines->input_end = (size_t)got;
    lines->at_end = got == 0;
    return 0;
}

#if defined(STEVE_HAVE_ZSTD)
static int unpack(struct import_lines *lines, struct trace_error *error) {
    ZSTD_inBuffer from = {lines->input, lines->input_end, lines->input_at};
    ZSTD_outBuffer to = {lines->text, TEXT_BYTES, lines->text_end};
    if (lines->unpacker == NULL && (lines->unpacker = ZSTD_createDStream()) == NULL)
        return fail(lines, error, "out of memory");
    size_t result = ZSTD_decompressStream(lines->unpacker, &to, &from);
    if (ZSTD_isError(result))
        return fail(lines, error, ZSTD_getErrorName(result));
    lines->input_at = from.pos;
    lines->text_end = to.pos;
    return 0;
}
#else
static int unpack(struct import_lines *lines, struct trace_error *error) {
    return fail(lines, error, "compressed with zstd, and this steve was built without it");
}
#endif

/* Moves input to the text. */
static int move(struct import_lines *lines, struct trace_error *error) {
    if (lines->packed)
        return unpack(lines, error);
    size_t size = lines->input_end - lines->input_at;
    if (size > TEXT_BYTES - lines->text_end)
        size = TEXT_BYTES - lines->text_end;
    memcpy(lines->text + lines->text_end, lines->input + lines->input_at, size);
    lines->input_at += size;
    lines->text_end += size;
    return 0;
}

static int fill_text(struct import_lines *lines, struct trace_error *error) {
    memmove(lines->text, lines->text + lines->text_at, lines->text_end - lines->text_at);
    lines->text_end -= lines->text_at;
    lines->text_at = 0;
    size_t before = lines->text_end;
    while (lines->text_end == before) {
        if (lines->input_at == lines->input_end && fill_input(lines, error) != 0)
            return -1;
        if (lines->at_end)
            return 0;
        if (move(lines, error) != 0)
            return -1;
    }
    return 0;
}

/* What the first bytes tell of the file. */
static int look_at_start(struct import_lines *lines, struct trace_error *error) {
    static const uint8_t zstd_magic[] = {0x28, 0xb5, 0x2f, 0xfd};
    static const uint8_t gzip_magic[] = {0x1f, 0x8b};
    if (fill_input(lines, error) != 0)
        return -1;
    lines->packed = lines->input_end >= sizeof zstd_magic &&
                    memcmp(lines->input, zstd_magic, sizeof zstd_magic) == 0;
    if (lines->input_end >= sizeof gzip_magic &&
        memcmp(lines->input, gzip_magic, sizeof gzip_magic) == 0)
        return fail(lines, error, "compressed with gzip; unpack it first");
    return 0;
}

struct import_lines *import_lines_open(const char *path, struct trace_error *error) {
    struct import_lines *lines = calloc(1, sizeof *lines);
    if (lines == NULL) {
        snprintf(error->text, sizeof error->text, "out of memory");
        return NULL;
    }
    snprintf(lines->name, sizeof lines->name, "%s", path);
    lines->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (lines->descriptor < 0) {
        snprintf(error->text, sizeof error->text, "cannot open %.200s: %s", path, strerror(errno));
        free(lines);
        return NULL;
    }
    if (look_at_start(lines, error) != 0) {
        import_lines_close(lines);
        return NULL;
    }
    return lines;
}

char *import_lines_next(struct import_lines *lines, struct trace_error *error) {
    error->text[0] = '\0';
    for (;;) {
        char *start = lines->text + lines->text_at;
        size_t size = lines->text_end - lines->text_at;
        char *end = memchr(start, '\n', size);
        if (end == NULL && lines->at_end && size > 0)
            end = start + size;
        if (end != NULL) {
            *end = '\0';
            lines->text_at = (size_t)(end - lines->text) + (end < lines->text + lines->text_end);
            lines->number++;
            return start;
        }
        if (lines->at_end)
            return NULL;
        if (size > LINE_MAX_BYTES) {
            fail(lines, error, "the line is longer than 64 KiB");
            return NULL;
        }
        if (fill_text(lines, error) != 0)
            return NULL;
    }
}

double import_lines_share(const struct import_lines *lines) {
    struct stat status;
    off_t offset = lseek(lines->descriptor, 0, SEEK_CUR);
    if (offset < 0 || fstat(lines->descriptor, &status) != 0 || status.st_size <= 0)
        return 0;
    return offset < status.st_size ? (double)offset / (double)status.st_size : 1;
}

uint64_t import_lines_number(const struct import_lines *lines) {
    return lines->number;
}

void import_lines_close(struct import_lines *lines) {
    if (lines == NULL)
        return;
#if defined(STEVE_HAVE_ZSTD)
    ZSTD_freeDStream(lines->unpacker);
#endif
    close(lines->descriptor);
    free(lines);
}
