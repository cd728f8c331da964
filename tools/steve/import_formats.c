/* Readers of foreign formats: the thesis' ops and memtrace files, mtrace, Lackey. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import.h"

size_t import_split(char *line, char **ret_words, size_t limit) {
    size_t count = 0;
    for (char *rest = line, *word; count < limit && (word = strsep(&rest, " \t\r")) != NULL;) {
        if (*word != '\0')
            ret_words[count++] = word;
    }
    return count;
}

bool import_number(const char *text, int base, uint64_t *ret_value) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, base);
    *ret_value = value;
    return *text != '-' && *text != '+' && *text != ' ' && end != text && *end == '\0' &&
           errno == 0;
}

/* --- The thesis' files. An ops file has lines "handle op address size", where the operations are
 * N(ew), F(ree), and accesses L(oad), S(tore), M(odify); with locks inferred, L and U stand for lock
 * and unlock, and have address and size 0. A memtrace has lines ">>> op address size". */

/* Handles of an ops file, to block numbers. */
struct handles {
    uint32_t *blocks; /* number + 1; 0 = not live */
    size_t capacity;
};

enum { HANDLES_MAX = 1 << 28 };

static uint32_t *place_of(struct importer *importer, struct handles *handles, uint64_t handle) {
    if (handle >= HANDLES_MAX) {
        import_bad_line(importer, "the handle is too large");
        return NULL;
    }
    if (handle >= handles->capacity) {
        size_t capacity = (size_t)handle + handle / 2 + 1024;
        /* Zeroed by calloc, which leaves what a file with few large handles does not use untouched. */
        uint32_t *blocks = calloc(capacity, sizeof *blocks);
        if (blocks == NULL) {
            import_bad_line(importer, "out of memory");
            return NULL;
        }
        if (handles->capacity != 0)
            memcpy(blocks, handles->blocks, handles->capacity * sizeof *blocks);
        free(handles->blocks);
        handles->blocks = blocks;
        handles->capacity = capacity;
    }
    return &handles->blocks[handle];
}

static int use_handle(struct importer *importer, uint32_t block, char op, uint64_t address,
                      uint64_t size) {
    if (address == 0 && size == 0 && (op == 'L' || op == 'U'))
        return import_lock(importer, block, op == 'L');
    if (op != 'L' && op != 'S' && op != 'M')
        return import_bad_line(importer, "the operation is none of N, F, L, S, M, U");
    uint64_t start = importer->blocks[block].address;
    uint64_t offset = address >= start ? address - start : UINT64_MAX;
    return import_access_block(importer, block, offset, size, op != 'S', op != 'L');
}

static int import_op(struct importer *importer, struct handles *handles, char **words) {
    uint64_t handle, address, size;
    if (!import_number(words[0], 10, &handle) || words[1][1] != '\0' ||
        !import_number(words[2], 10, &address) || !import_number(words[3], 10, &size))
        return import_bad_line(importer, "this is no line of an ops file");
    uint32_t *place = place_of(importer, handles, handle);
    if (place == NULL)
        return -1;
    char op = words[1][0];
    if (op == 'N') {
        uint32_t block;
        if (*place != 0)
            return import_bad_line(importer, "the handle is live already");
        if (import_allocate_plain(importer, size, &block) != 0)
            return -1;
        importer->blocks[block].address = address;
        *place = block + 1;
        return 0;
    }
    if (*place == 0)
        return import_bad_line(importer, "the handle is not live");
    uint32_t block = *place - 1;
    if (op != 'F')
        return use_handle(importer, block, op, address, size);
    *place = 0;
    return import_free_block(importer, block);
}

static int import_memtrace_line(struct importer *importer, char **words) {
    uint64_t address, size;
    if (words[1][1] != '\0' || !import_number(words[2], 10, &address) ||
        !import_number(words[3], 10, &size))
        return import_bad_line(importer, "this is no line of a memtrace");
    switch (words[1][0]) {
    case 'N':
        return import_allocate(importer, TRACE_MALLOC, address, size, 0, NULL);
    case 'F':
        return import_free(importer, address);
    case 'L':
        return import_access(importer, address, size, true, false);
    case 'S':
        return import_access(importer, address, size, false, true);
    case 'M':
        return import_access(importer, address, size, true, true);
    default:
        return import_bad_line(importer, "the operation is none of N, F, L, S, M");
    }
}

int import_ops(struct importer *importer) {
    struct handles handles = {0};
    int result = 0;
    char *line;
    while (result == 0 && (line = import_next_line(importer)) != NULL) {
        char *words[5];
        size_t count = import_split(line, words, 5);
        if (count == 0)
            continue;
        if (count != 4)
            result = import_bad_line(importer, "this is no line of an ops file");
        else if (strcmp(words[0], ">>>") == 0)
            result = import_memtrace_line(importer, words);
        else
            result = import_op(importer, &handles, words);
    }
    free(handles.blocks);
    return result;
}

/* --- mtrace of the C library: "@ caller + address size", "- address", "< address" and "> address
 * size" for the two halves of a reallocation, "! address size" for one that failed. */

struct mtrace {
    bool resizing;
    uint64_t old_address;
};

static int import_mtrace_op(struct importer *importer, struct mtrace *mtrace, char **words,
                            size_t count) {
    uint64_t address = 0, size = 0;
    char op = words[0][1] == '\0' ? words[0][0] : '?';
    bool sized = op == '+' || op == '>' || op == '!';
    if (count != (sized ? 3u : 2u) || !import_number(words[1], 16, &address) ||
        (sized && !import_number(words[2], 16, &size)))
        return import_bad_line(importer, "this is no line of mtrace");
    if (op == '+')
        return import_allocate(importer, TRACE_MALLOC, address, size, 0, NULL);
    if (op == '-')
        return import_free(importer, address);
    if (op == '<') {
        *mtrace = (struct mtrace){.resizing = true, .old_address = address};
        return 0;
    }
    if (op == '>' && mtrace->resizing) {
        mtrace->resizing = false;
        return import_resize(importer, mtrace->old_address, address, size);
    }
    return op == '!' ? 0 : import_bad_line(importer, "this is no line of mtrace");
}

/* Of "= Start", "= End" and "@ caller OPERATION"; 1 = the line is none of those. */
static int import_mtrace_words(struct importer *importer, struct mtrace *mtrace, char **words,
                               size_t count) {
    if (count == 0 || strcmp(words[0], "=") == 0)
        return 0;
    if (strcmp(words[0], "@") != 0)
        return 1;
    /* The caller may have spaces in it: the operation is at the end. */
    size_t at = count >= 3 && strchr("+>!", words[count - 3][0]) != NULL ? count - 3 : count - 2;
    if (count < 4 || at < 2)
        return import_bad_line(importer, "this is no line of mtrace");
    return import_mtrace_op(importer, mtrace, words + at, count - at);
}

enum { WORDS_MAX = 64 };

int import_mtrace(struct importer *importer) {
    struct mtrace mtrace = {0};
    char *line;
    int result = 0;
    while (result == 0 && (line = import_next_line(importer)) != NULL) {
        char *words[WORDS_MAX];
        size_t count = import_split(line, words, WORDS_MAX);
        result = import_mtrace_words(importer, &mtrace, words, count);
        if (result == 1)
            result = import_mtrace_op(importer, &mtrace, words, count);
    }
    return result;
}

/* --- Lackey with --trace-mem=yes: "I  address,size" for instructions, " L", " S", " M" for data.
 * Lackey knows no allocations; lines of mtrace among its own give them. */

static int import_lackey_access(struct importer *importer, char op, char *operands) {
    uint64_t address, size;
    char *comma = strchr(operands, ',');
    if (comma != NULL)
        *comma = '\0';
    if (comma == NULL || !import_number(operands, 16, &address) ||
        !import_number(comma + 1, 10, &size))
        return import_bad_line(importer, "this is no line of Lackey");
    return import_access(importer, address, size, op != 'S', op != 'L');
}

int import_lackey(struct importer *importer) {
    struct mtrace mtrace = {0};
    char *line;
    int result = 0;
    while (result == 0 && (line = import_next_line(importer)) != NULL) {
        if (strncmp(line, "==", 2) == 0 || strncmp(line, "--", 2) == 0 || line[0] == 'I')
            continue;
        char *words[WORDS_MAX];
        size_t count = import_split(line, words, WORDS_MAX);
        if (count == 2 && strchr("LSM", words[0][0]) != NULL && words[0][1] == '\0')
            result = import_lackey_access(importer, words[0][0], words[1]);
        else
            result = import_mtrace_words(importer, &mtrace, words, count);
        if (result == 1)
            result = import_bad_line(importer, "this is no line of Lackey");
    }
    return result;
}
