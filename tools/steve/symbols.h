/* Names for addresses of a recorded program: which file of code they lay in, and, where `addr2line`
 * knows, which function. Not thread-safe. */
#ifndef STEVE_SYMBOLS_H
#define STEVE_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct symbol_module {
    uint64_t start, end, base; /* as in the trace */
    uint32_t program;          /* how many times the process had become another one before */
    char *path;
};

struct symbol {
    uint64_t address; /* a return address */
    uint32_t program;
    const struct symbol_module *module; /* NULL = not known */
    char *function;                     /* NULL = not known */
    char *place;                        /* source file and line; NULL = not known */
};

struct symbols {
    struct symbol_module *modules;
    size_t module_count, module_capacity;
    struct symbol *table; /* sorted by program and address once resolved */
    size_t count, capacity;
};

/* Notes a file of code of the program; the last one told of an address holds. False when there is
 * no memory. */
bool symbols_add_module(struct symbols *symbols, uint32_t program, const uint64_t numbers[3],
                        const char *path);

/* Wants an address to be looked up. False when there is no memory. */
bool symbols_want(struct symbols *symbols, uint32_t program, uint64_t address);

/* Looks up everything wanted; what cannot be found stays unknown. */
void symbols_resolve(struct symbols *symbols);

/* What was found out about an address that was wanted. */
const struct symbol *symbols_find(const struct symbols *symbols, uint32_t program,
                                  uint64_t address);

void symbols_finish(struct symbols *symbols);

#endif
