/* Importing foreign traces: what the readers of the formats give to the writer of the trace. Blocks
 * come with addresses or with numbers of their own and leave with the dense numbers of the format;
 * accesses are collapsed into runs. Not thread-safe. */
#ifndef STEVE_IMPORT_H
#define STEVE_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "import_lines.h"
#include "span_map.h"
#include "trace_format.h"
#include "trace_live.h"
#include "trace_write.h"

struct import_block {
    uint64_t address;
    uint64_t size;
};

struct importer {
    struct import_lines *lines;
    struct trace_writer *writer;
    struct trace_live live;
    struct span_map spans;       /* addresses of live blocks */
    struct import_block *blocks; /* by block number */
    size_t block_capacity;
    uint32_t *free_numbers;
    size_t free_count, free_capacity;
    struct trace_event run; /* accesses not yet written; reads + writes = 0: none */
    uint64_t grain;         /* memory outside of blocks becomes blocks of this size; 0 = stray */
    uint64_t time_us;
    uint32_t thread;
    uint64_t stray_accesses;
    uint64_t unknown_frees;
    uint64_t implicit_frees;
    struct trace_error error;
};

/* All return 0, or -1 with importer->error filled, without the place. */

/* A new block at an address. What was there before is freed first and counted. `ret_block` may be
 * NULL. */
int import_allocate(struct importer *importer, enum trace_op op, uint64_t address, uint64_t size,
                    uint32_t alignment_log2, uint32_t *ret_block);

/* A new block without an address. */
int import_allocate_plain(struct importer *importer, uint64_t size, uint32_t *ret_block);

/* A block's end, by its address or by its number. Unknown addresses are counted. */
int import_free(struct importer *importer, uint64_t address);
int import_free_block(struct importer *importer, uint32_t block);

/* The block at `old_address` has another size and perhaps another place. An unknown one is new. */
int import_resize(struct importer *importer, uint64_t old_address, uint64_t address, uint64_t size);

/* `size` bytes read, written, or both, at an address, or in a block. What is no block's is counted,
 * or becomes blocks of `grain` bytes. */
int import_access(struct importer *importer, uint64_t address, uint64_t size, bool reads,
                  bool writes);
int import_access_block(struct importer *importer, uint32_t block, uint64_t offset, uint64_t size,
                        bool reads, bool writes);

/* A lock taken or given back. */
int import_lock(struct importer *importer, uint32_t block, bool lock);

/* The block that `address` is in; false when in none. */
bool import_find(const struct importer *importer, uint64_t address, uint32_t *ret_block);

/* The next line, and NULL, as of import_lines_next; tells the user how far it is. */
char *import_next_line(struct importer *importer);

/* Says what is wrong with the line read last. Returns -1. */
int import_bad_line(struct importer *importer, const char *why);

/* Readers of the formats: from the first line to the last. */
int import_ops(struct importer *importer);
int import_mtrace(struct importer *importer);
int import_lackey(struct importer *importer);
int import_heaptrack(struct importer *importer);

/* The words of a line, separated by spaces, at most `limit`; returns how many. Changes the line. */
size_t import_split(char *line, char **ret_words, size_t limit);

/* A whole number of the base, without sign; false when it is none. "0x" is allowed in base 16. */
bool import_number(const char *text, int base, uint64_t *ret_value);

#endif
