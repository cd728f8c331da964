/* steve import: traces of other tools in steve's format. */
#include "import.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steve.h"

#define HELP                                                                                       \
    "Usage: steve import --from=FORMAT -o FILE [OPTION]... SOURCE\n"                               \
    "\n"                                                                                           \
    "Writes what another tool recorded as a trace. SOURCE may be compressed with zstd.\n"          \
    "\n"                                                                                           \
    "  -f, --from=FORMAT  ops: handles, operations and locks of the first Steve, or its "          \
    "memtrace;\n"                                                                                  \
    "                     heaptrack: interpreted or raw; mtrace: of the C library; lackey:\n"      \
    "                     Valgrind's, with --trace-mem=yes, lines of mtrace allowed among them\n"  \
    "  -o, --output=FILE  the trace; an existing file is replaced\n"                               \
    "      --grain=N      memory that is accessed and in no known block becomes blocks of N\n"     \
    "                     bytes, a power of two from 8 on; 0 = it is left out and counted.\n"      \
    "                     Default: 4096 for lackey, 0 else\n"                                      \
    "      --no-compress  store the trace as it is\n"                                              \
    "  -h, --help         this text\n"                                                             \
    "\n"                                                                                           \
    "Exit status: 0; 1 SOURCE is damaged or of another format, and no trace was written; 2 "       \
    "wrong\n"                                                                                      \
    "command line.\n"

static int fail(struct importer *importer, const char *what) {
    snprintf(importer->error.text, sizeof importer->error.text, "%s", what);
    return -1;
}

char *import_next_line(struct importer *importer) {
    enum { PROGRESS_EVERY = 1 << 16 };
    if (import_lines_number(importer->lines) % PROGRESS_EVERY == PROGRESS_EVERY - 1)
        steve_show_progress("importing", import_lines_share(importer->lines));
    return import_lines_next(importer->lines, &importer->error);
}

int import_bad_line(struct importer *importer, const char *why) {
    snprintf(importer->error.text, sizeof importer->error.text, "line %llu: %.400s",
             (unsigned long long)import_lines_number(importer->lines), why);
    return -1;
}

static int write_event(struct importer *importer, struct trace_event *event) {
    event->time_us = importer->time_us;
    event->thread = importer->thread;
    struct trace_error why;
    if (trace_live_apply(&importer->live, event, &why) != 0)
        return import_bad_line(importer, why.text);
    return trace_writer_add(importer->writer, event, &importer->error);
}

/* Writes the run of accesses that is not yet written. */
static int flush_run(struct importer *importer) {
    if (importer->run.reads + importer->run.writes == 0)
        return 0;
    struct trace_event event = importer->run;
    importer->run = (struct trace_event){0};
    return write_event(importer, &event);
}

static int take_number(struct importer *importer, uint32_t *ret_block) {
    if (importer->free_count > 0) {
        *ret_block = importer->free_numbers[--importer->free_count];
        return 0;
    }
    uint64_t number = importer->live.totals.block_numbers;
    if (number >= TRACE_BLOCK_MAX)
        return fail(importer, "more live blocks than a trace can number");
    if (number >= importer->block_capacity) {
        size_t capacity = importer->block_capacity != 0 ? 2 * importer->block_capacity : 1024;
        void *blocks = realloc(importer->blocks, capacity * sizeof *importer->blocks);
        if (blocks == NULL)
            return fail(importer, "out of memory");
        importer->blocks = blocks;
        importer->block_capacity = capacity;
    }
    *ret_block = (uint32_t)number;
    return 0;
}

static int allocate(struct importer *importer, enum trace_op op, uint64_t size,
                    uint32_t alignment_log2, uint32_t *ret_block) {
    struct trace_event event = {.op = op, .size = size, .alignment_log2 = alignment_log2};
    if (size >= TRACE_SIZE_MAX)
        return import_bad_line(importer, "the size is too large");
    if (flush_run(importer) != 0 || take_number(importer, &event.block) != 0 ||
        write_event(importer, &event) != 0)
        return -1;
    importer->blocks[event.block] = (struct import_block){.size = size};
    *ret_block = event.block;
    return 0;
}

int import_allocate_plain(struct importer *importer, uint64_t size, uint32_t *ret_block) {
    return allocate(importer, TRACE_MALLOC, size, 0, ret_block);
}

/* Frees every block that has a byte in the range: it ended in a way that was not recorded. */
static int make_room(struct importer *importer, uint64_t address, uint64_t size) {
    uint32_t block;
    while (span_map_find_any(&importer->spans, address, size, &block)) {
        importer->implicit_frees++;
        if (import_free(importer, importer->blocks[block].address) != 0)
            return -1;
    }
    return 0;
}

static int set_address(struct importer *importer, uint32_t block, uint64_t address, uint64_t size) {
    enum { SIZE_LOG2_MAX = 38 }; /* 256 GiB: more is damage */
    if (size >> SIZE_LOG2_MAX != 0)
        return import_bad_line(importer, "the size is too large");
    if (address % SPAN_GRANULE != 0 || address > UINT64_MAX - TRACE_SIZE_MAX - SPAN_PAGE)
        return import_bad_line(importer, "no allocator gives such an address");
    if (make_room(importer, address, size) != 0)
        return -1;
    importer->blocks[block] = (struct import_block){.address = address, .size = size};
    if (!span_map_set(&importer->spans, address, size, block))
        return fail(importer, "out of memory");
    return 0;
}

int import_allocate(struct importer *importer, enum trace_op op, uint64_t address, uint64_t size,
                    uint32_t alignment_log2, uint32_t *ret_block) {
    uint32_t block;
    if (allocate(importer, op, size, alignment_log2, &block) != 0 ||
        set_address(importer, block, address, size) != 0)
        return -1;
    if (ret_block != NULL)
        *ret_block = block;
    return 0;
}

int import_free_block(struct importer *importer, uint32_t block) {
    struct trace_event event = {.op = TRACE_FREE, .block = block};
    if (flush_run(importer) != 0)
        return -1;
    while (importer->live.blocks[block].locks != 0) {
        if (import_lock(importer, block, false) != 0)
            return -1;
    }
    if (write_event(importer, &event) != 0)
        return -1;
    if (importer->free_count == importer->free_capacity) {
        size_t capacity = importer->free_capacity != 0 ? 2 * importer->free_capacity : 1024;
        void *numbers = realloc(importer->free_numbers, capacity * sizeof *importer->free_numbers);
        if (numbers == NULL)
            return fail(importer, "out of memory");
        importer->free_numbers = numbers;
        importer->free_capacity = capacity;
    }
    importer->free_numbers[importer->free_count++] = block;
    return 0;
}

/* The block that begins at the address. */
static bool find_start(const struct importer *importer, uint64_t address, uint32_t *ret_block) {
    return span_map_find(&importer->spans, address, ret_block) &&
           importer->blocks[*ret_block].address == address;
}

int import_free(struct importer *importer, uint64_t address) {
    uint32_t block;
    if (!find_start(importer, address, &block)) {
        importer->unknown_frees++;
        return 0;
    }
    span_map_clear(&importer->spans, address, importer->blocks[block].size);
    return import_free_block(importer, block);
}

int import_resize(struct importer *importer, uint64_t old_address, uint64_t address,
                  uint64_t size) {
    uint32_t block;
    if (!find_start(importer, old_address, &block))
        return import_allocate(importer, TRACE_MALLOC, address, size, 0, NULL);
    struct trace_event event = {.op = TRACE_REALLOC, .block = block, .size = size};
    if (size >= TRACE_SIZE_MAX)
        return import_bad_line(importer, "the size is too large");
    span_map_clear(&importer->spans, old_address, importer->blocks[block].size);
    if (flush_run(importer) != 0 || write_event(importer, &event) != 0)
        return -1;
    return set_address(importer, block, address, size);
}

bool import_find(const struct importer *importer, uint64_t address, uint32_t *ret_block) {
    return span_map_find(&importer->spans, address, ret_block);
}

int import_access_block(struct importer *importer, uint32_t block, uint64_t offset, uint64_t size,
                        bool reads, bool writes) {
    uint64_t end = importer->blocks[block].size;
    if (offset >= end || size > end - offset) {
        importer->stray_accesses++;
        return 0;
    }
    struct trace_event *run = &importer->run;
    if (run->reads + run->writes != 0 && run->block != block && flush_run(importer) != 0)
        return -1;
    if (run->reads + run->writes == 0) {
        *run = (struct trace_event){.op = TRACE_ACCESS, .block = block, .offset = offset};
        run->size = size;
    }
    uint64_t run_end = run->offset + run->size;
    if (offset < run->offset)
        run->offset = offset;
    if (offset + size > run_end)
        run_end = offset + size;
    run->size = run_end - run->offset;
    run->reads += reads;
    run->writes += writes;
    return 0;
}

int import_access(struct importer *importer, uint64_t address, uint64_t size, bool reads,
                  bool writes) {
    uint32_t block;
    if (!import_find(importer, address, &block)) {
        uint64_t start = importer->grain != 0 ? address & ~(importer->grain - 1) : 0;
        if (importer->grain == 0 || start == 0) {
            importer->stray_accesses++;
            return 0;
        }
        /* A grain where a block lies already would cover it: the rest of memory there is stray. */
        if (span_map_find_any(&importer->spans, start, importer->grain, &block)) {
            importer->stray_accesses++;
            return 0;
        }
        if (import_allocate(importer, TRACE_MALLOC, start, importer->grain, 0, &block) != 0)
            return -1;
    }
    uint64_t offset = address - importer->blocks[block].address;
    uint64_t left = importer->blocks[block].size - offset;
    if (importer->grain != 0 && offset < importer->blocks[block].size && size > left)
        size = left;
    return import_access_block(importer, block, offset, size, reads, writes);
}

int import_lock(struct importer *importer, uint32_t block, bool lock) {
    struct trace_event event = {.op = lock ? TRACE_LOCK : TRACE_UNLOCK, .block = block};
    return flush_run(importer) != 0 ? -1 : write_event(importer, &event);
}

/* --- The command. */

typedef int import_fn(struct importer *importer);

static const struct {
    const char *name;
    import_fn *run;
    uint64_t grain;
} formats[] = {
    {"ops", import_ops, 0},
    {"heaptrack", import_heaptrack, 0},
    {"mtrace", import_mtrace, 0},
    {"lackey", import_lackey, 4096},
};

enum { FORMATS = sizeof formats / sizeof formats[0] };

struct arguments {
    const char *source, *output;
    size_t format;
    uint64_t grain; /* UINT64_MAX = the format's own */
    bool compress;
};

static int open_all(struct importer *importer, const struct arguments *arguments) {
    struct trace_header header = {.page_size = (uint32_t)sysconf(_SC_PAGESIZE)};
    char command[512];
    int size = snprintf(command, sizeof command, "import%c%s%c%.400s", '\0',
                        formats[arguments->format].name, '\0', arguments->source);
    header.command = command;
    header.command_bytes = (uint32_t)size + 1;
    importer->lines = import_lines_open(arguments->source, &importer->error);
    if (importer->lines == NULL)
        return -1;
    if (trace_live_init(&importer->live, 0) != 0)
        return fail(importer, "out of memory");
    int descriptor = open(arguments->output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0) {
        snprintf(importer->error.text, sizeof importer->error.text, "cannot write %.200s: %s",
                 arguments->output, strerror(errno));
        return -1;
    }
    importer->writer = trace_writer_create(descriptor, arguments->output, &header,
                                           arguments->compress, &importer->error);
    return importer->writer != NULL ? 0 : -1;
}

static int finish_trace(struct importer *importer) {
    if (importer->error.text[0] != '\0' || flush_run(importer) != 0)
        return -1;
    struct trace_totals totals = importer->live.totals;
    totals.stray_accesses = importer->stray_accesses;
    totals.unknown_frees = importer->unknown_frees;
    totals.implicit_frees = importer->implicit_frees;
    totals.duration_us = importer->time_us;
    int result = trace_writer_finish(importer->writer, &totals, &importer->error);
    importer->writer = NULL;
    return result;
}

static int import(const struct arguments *arguments) {
    struct importer importer = {0};
    importer.grain =
        arguments->grain != UINT64_MAX ? arguments->grain : formats[arguments->format].grain;
    int result = open_all(&importer, arguments);
    bool began = importer.writer != NULL;
    if (result == 0) {
        result = formats[arguments->format].run(&importer);
        steve_show_progress("importing", 1);
    }
    if (result == 0)
        result = finish_trace(&importer);
    if (result != 0) {
        steve_complain("%s: %s", arguments->source, importer.error.text);
        trace_writer_abandon(importer.writer);
        if (began)
            unlink(arguments->output);
    }
    import_lines_close(importer.lines);
    trace_live_finish(&importer.live);
    span_map_finish(&importer.spans);
    free(importer.blocks);
    free(importer.free_numbers);
    return result == 0 ? STEVE_OK : STEVE_FAILED;
}

static int parse_format(const char *name, size_t *ret_format) {
    for (size_t i = 0; i < FORMATS; i++) {
        if (strcmp(formats[i].name, name) == 0) {
            *ret_format = i;
            return 0;
        }
    }
    steve_complain("--from: there is no format '%s'; see 'steve import --help'", name);
    return -1;
}

static int parse_grain(const char *text, uint64_t *ret_grain) {
    if (steve_parse_number("--grain", text, 0, (uint64_t)1 << 30, ret_grain) != 0)
        return -1;
    if (*ret_grain == 0 || (*ret_grain >= SPAN_GRANULE && (*ret_grain & (*ret_grain - 1)) == 0))
        return 0;
    steve_complain("--grain: '%s' is no power of two from 8 on", text);
    return -1;
}

int steve_import(int argc, char **argv) {
    enum { GRAIN = 256, NO_COMPRESS };
    static const struct option options[] = {
        {"from", required_argument, NULL, 'f'},    {"output", required_argument, NULL, 'o'},
        {"grain", required_argument, NULL, GRAIN}, {"no-compress", no_argument, NULL, NO_COMPRESS},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    struct arguments arguments = {.format = FORMATS, .grain = UINT64_MAX, .compress = true};
    int option;
    while ((option = getopt_long(argc, argv, "f:o:h", options, NULL)) != -1) {
        int result = 0;
        if (option == 'h') {
            fputs(HELP, stdout);
            return STEVE_OK;
        }
        if (option == 'f')
            result = parse_format(optarg, &arguments.format);
        else if (option == 'o')
            arguments.output = optarg;
        else if (option == GRAIN)
            result = parse_grain(optarg, &arguments.grain);
        else if (option == NO_COMPRESS)
            arguments.compress = false;
        else
            result = -1;
        if (result != 0)
            return STEVE_USAGE;
    }
    if (argc - optind != 1 || arguments.format == FORMATS || arguments.output == NULL) {
        steve_complain("import needs --from, -o and one file; see 'steve import --help'");
        return STEVE_USAGE;
    }
    arguments.source = argv[optind];
    return import(&arguments);
}
