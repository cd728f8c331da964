/* Looks up functions with addr2line, which is run once for each file. */
#include "symbols.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 1000, DIGITS = 24 }; /* addresses on one command line */

static void *grow(void *array, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity)
        return array;
    size_t more = *capacity != 0 ? 2 * *capacity : 64;
    void *larger = realloc(array, more * size);
    if (larger != NULL)
        *capacity = more;
    return larger;
}

bool symbols_add_module(struct symbols *symbols, uint32_t program, const uint64_t numbers[3],
                        const char *path) {
    struct symbol_module *modules =
        grow(symbols->modules, symbols->module_count, &symbols->module_capacity, sizeof *modules);
    if (modules == NULL)
        return false;
    symbols->modules = modules;
    struct symbol_module *module = &modules[symbols->module_count];
    *module = (struct symbol_module){numbers[0], numbers[1], numbers[2], program, strdup(path)};
    symbols->module_count += module->path != NULL;
    return module->path != NULL;
}

bool symbols_want(struct symbols *symbols, uint32_t program, uint64_t address) {
    struct symbol *table = grow(symbols->table, symbols->count, &symbols->capacity, sizeof *table);
    if (table == NULL)
        return false;
    symbols->table = table;
    table[symbols->count++] = (struct symbol){.address = address, .program = program};
    return true;
}

static int compare(const void *left, const void *right) {
    const struct symbol *a = left, *b = right;
    if (a->program != b->program)
        return a->program < b->program ? -1 : 1;
    return (a->address > b->address) - (a->address < b->address);
}

static const struct symbol_module *find_module(const struct symbols *symbols,
                                               const struct symbol *symbol) {
    for (size_t i = symbols->module_count; i > 0; i--) {
        const struct symbol_module *module = &symbols->modules[i - 1];
        if (module->program == symbol->program && symbol->address >= module->start &&
            symbol->address < module->end)
            return module;
    }
    return NULL;
}

static void sort(struct symbols *symbols) {
    size_t kept = 0;
    qsort(symbols->table, symbols->count, sizeof *symbols->table, compare);
    for (size_t i = 0; i < symbols->count; i++) {
        if (kept != 0 && compare(&symbols->table[kept - 1], &symbols->table[i]) == 0)
            continue;
        symbols->table[kept] = symbols->table[i];
        symbols->table[kept].module = find_module(symbols, &symbols->table[i]);
        kept++;
    }
    symbols->count = kept;
}

/* Starts addr2line; its output as a stream, or NULL. */
static FILE *start(char **arguments, pid_t *ret_child) {
    int ends[2];
    if (pipe(ends) != 0)
        return NULL;
    *ret_child = fork();
    if (*ret_child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        /* What it cannot read is of no account. */
        if (freopen("/dev/null", "w", stderr) != NULL)
            execvp(arguments[0], arguments);
        _exit(1);
    }
    close(ends[1]);
    FILE *stream = *ret_child > 0 ? fdopen(ends[0], "r") : NULL;
    if (stream == NULL)
        close(ends[0]);
    return stream;
}

/* A line of its output, or NULL when it says nothing. */
static char *read_answer(FILE *stream) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length = getline(&line, &capacity, stream);
    if (length > 0 && line[length - 1] == '\n')
        line[length - 1] = '\0';
    if (length > 0 && line[0] != '?' && strstr(line, ":?") == NULL)
        return line;
    free(line);
    return NULL;
}

/* Asks for a batch of addresses in one file. */
static void ask(const struct symbol_module *module, struct symbol **batch, size_t count) {
    static char numbers[BATCH][DIGITS];
    char program[] = "addr2line", functions[] = "-fC", file[] = "-e";
    char *arguments[BATCH + 5] = {program, functions, file, module->path};
    for (size_t i = 0; i < count; i++) {
        /* The call stands before the place where it returns to. */
        snprintf(numbers[i], DIGITS, "%" PRIx64, batch[i]->address - 1 - module->base);
        arguments[4 + i] = numbers[i];
    }
    pid_t child = -1;
    FILE *stream = start(arguments, &child);
    for (size_t i = 0; stream != NULL && i < count; i++) {
        batch[i]->function = read_answer(stream);
        batch[i]->place = read_answer(stream);
    }
    if (stream != NULL)
        fclose(stream);
    if (child > 0)
        waitpid(child, NULL, 0);
}

void symbols_resolve(struct symbols *symbols) {
    sort(symbols);
    for (size_t i = 0; i < symbols->module_count; i++) {
        const struct symbol_module *module = &symbols->modules[i];
        struct symbol *batch[BATCH];
        size_t count = 0;
        if (module->path[0] != '/')
            continue;
        for (size_t at = 0; at < symbols->count; at++) {
            if (symbols->table[at].module == module)
                batch[count++] = &symbols->table[at];
            if (count == BATCH || (count != 0 && at + 1 == symbols->count)) {
                ask(module, batch, count);
                count = 0;
            }
        }
    }
}

const struct symbol *symbols_find(const struct symbols *symbols, uint32_t program,
                                  uint64_t address) {
    struct symbol wanted = {.address = address, .program = program};
    if (symbols->count == 0)
        return NULL;
    return bsearch(&wanted, symbols->table, symbols->count, sizeof wanted, compare);
}

void symbols_finish(struct symbols *symbols) {
    for (size_t i = 0; i < symbols->module_count; i++)
        free(symbols->modules[i].path);
    for (size_t i = 0; i < symbols->count; i++) {
        free(symbols->table[i].function);
        free(symbols->table[i].place);
    }
    free(symbols->modules);
    free(symbols->table);
    *symbols = (struct symbols){0};
}
