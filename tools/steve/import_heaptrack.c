/* Reader of heaptrack's files, as its recorder writes them (`heaptrack --raw`: blocks have addresses)
 * and as its interpreter leaves them (the usual: blocks are told apart by size and call stack only,
 * and the one allocated last is taken to be freed first). Numbers are hexadecimal. Call stacks are
 * not taken over. */
#include <stdlib.h>
#include <string.h>

#include "import.h"

enum { WORDS = 5 }; /* of a line, one more than any has */

/* A size and place of allocation of an interpreted file, and its live blocks. */
struct heaptrack_kind {
    uint64_t size;
    uint32_t *blocks;
    size_t count, capacity;
};

struct heaptrack {
    struct heaptrack_kind *kinds;
    size_t count, capacity;
};

static int add_kind(struct importer *importer, struct heaptrack *file, uint64_t size) {
    if (file->count == file->capacity) {
        size_t capacity = file->capacity != 0 ? 2 * file->capacity : 1024;
        struct heaptrack_kind *kinds = realloc(file->kinds, capacity * sizeof *kinds);
        if (kinds == NULL)
            return import_bad_line(importer, "out of memory");
        file->kinds = kinds;
        file->capacity = capacity;
    }
    file->kinds[file->count++] = (struct heaptrack_kind){.size = size};
    return 0;
}

static int allocate_kind(struct importer *importer, struct heaptrack_kind *kind) {
    if (kind->count == kind->capacity) {
        size_t capacity = kind->capacity != 0 ? 2 * kind->capacity : 4;
        uint32_t *blocks = realloc(kind->blocks, capacity * sizeof *blocks);
        if (blocks == NULL)
            return import_bad_line(importer, "out of memory");
        kind->blocks = blocks;
        kind->capacity = capacity;
    }
    return import_allocate_plain(importer, kind->size, &kind->blocks[kind->count++]);
}

static int free_kind(struct importer *importer, struct heaptrack_kind *kind) {
    if (kind->count == 0) {
        importer->unknown_frees++;
        return 0;
    }
    return import_free_block(importer, kind->blocks[--kind->count]);
}

static int import_line(struct importer *importer, struct heaptrack *file, char **words,
                       size_t count) {
    uint64_t numbers[WORDS - 1] = {0};
    for (size_t i = 1; i < count; i++) {
        if (!import_number(words[i], 16, &numbers[i - 1]))
            return import_bad_line(importer, "this is no line of heaptrack");
    }
    char op = words[0][0];
    bool interpreted = file->count != 0 && count == 2;
    if (op == 'a' && count == 3)
        return add_kind(importer, file, numbers[0]);
    if (op == 'c' && count == 2) {
        if (numbers[0] < UINT64_MAX / 1000 && numbers[0] * 1000 > importer->time_us)
            importer->time_us = numbers[0] * 1000;
        return 0;
    }
    if (op == '+' && count == 4)
        return import_allocate(importer, TRACE_MALLOC, numbers[2], numbers[0], 0, NULL);
    if (op == '-' && count == 2 && !interpreted)
        return import_free(importer, numbers[0]);
    if (!interpreted || numbers[0] >= file->count)
        return import_bad_line(importer, "there is no such kind of allocation");
    struct heaptrack_kind *kind = &file->kinds[numbers[0]];
    return op == '+' ? allocate_kind(importer, kind) : free_kind(importer, kind);
}

int import_heaptrack(struct importer *importer) {
    struct heaptrack file = {0};
    char *line;
    int result = 0;
    bool seen_version = false;
    while (result == 0 && (line = import_next_line(importer)) != NULL) {
        char *words[WORDS];
        seen_version |= line[0] == 'v';
        if (!seen_version)
            result = import_bad_line(importer, "this is no file of heaptrack (no version first)");
        else if (line[0] != '\0' && strchr("+-ac", line[0]) != NULL && line[1] == ' ')
            result = import_line(importer, &file, words, import_split(line, words, WORDS));
    }
    for (size_t i = 0; i < file.count; i++)
        free(file.kinds[i].blocks);
    free(file.kinds);
    return result;
}
