/* Writes a trace of any length with few live blocks: steve-test-generate EVENTS FILE. Blocks of a few
 * sizes are replaced in turn; every tenth event is a run of accesses. For tests of long traces. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "../trace_live.h"
#include "../trace_write.h"

enum { BLOCKS = 4096 };

static struct trace_event next_event(uint64_t number, uint64_t *sizes, uint64_t *random) {
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    uint32_t block = (uint32_t)(*random >> 33) % BLOCKS;
    struct trace_event event = {.op = TRACE_FREE, .block = block, .time_us = number / 10};
    if (number < BLOCKS)
        event.block = block = (uint32_t)number;
    if (sizes[block] == 0) {
        event.op = TRACE_MALLOC;
        event.size = sizes[block] = 16 + (*random >> 50) % 500;
    } else if (number % 10 == 0) {
        event.op = TRACE_ACCESS;
        event.size = sizes[block] / 2;
        event.reads = 1 + number % 7;
    } else {
        sizes[block] = 0;
    }
    return event;
}

int main(int argc, char **argv) {
    static uint64_t sizes[BLOCKS];
    struct trace_header header = {.page_size = 4096};
    struct trace_error error;
    struct trace_live live;
    uint64_t random = 1;
    uint64_t events = argc == 3 ? strtoull(argv[1], NULL, 10) : 0;
    int descriptor = argc == 3 ? open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (events == 0 || descriptor < 0 || trace_live_init(&live, BLOCKS) != 0)
        return 2;
    struct trace_writer *writer = trace_writer_create(descriptor, argv[2], &header, 1, &error);
    if (writer == NULL)
        return 1;
    for (uint64_t number = 0; number < events; number++) {
        struct trace_event event = next_event(number, sizes, &random);
        if (trace_live_apply(&live, &event, &error) != 0 ||
            trace_writer_add(writer, &event, &error) != 0) {
            fprintf(stderr, "%s\n", error.text);
            return 1;
        }
    }
    return trace_writer_finish(writer, &live.totals, &error) == 0 ? 0 : 1;
}
