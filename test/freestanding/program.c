/* The library on a machine without a system: heaps in static buffers, every call checked against a model.
 * Prints one line per test and ends with `N passed, M failed`. Runs under an emulator: see `run`.
 */
#include <jeff/array.h>
#include <jeff/jeff.h>
#include <jeff/port.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 4096, LARGE = 64 * 1024, BLOCKS = 200, STEPS = 20000 };

static unsigned char small_buffer[SMALL + 64];
static unsigned char large_buffer[LARGE];
static unsigned passed, failed;
static bool failing;
static unsigned depth, deepest;
static uint32_t now_us;
static enum rm_misuse_kind misuse_kind;
static rmhandle_t misuse_handle;

#define EXPECT(condition) expect((condition), #condition, __LINE__)

static void expect(bool condition, const char *text, int line) {
    if (condition)
        return;
    printf("  line %d: not so: %s\n", line, text);
    failing = true;
}

static void run(const char *name, void (*test)(void)) {
    failing = false;
    test();
    printf("%s: %s\n", failing ? "FAILED" : "ok", name);
    passed += !failing;
    failed += failing;
}

/* ------------------------------------------------------------------------------------- the port */

static void enter(void) {
    depth++;
    deepest = depth > deepest ? depth : deepest;
}

static void leave(void) {
    EXPECT(depth != 0);
    depth--;
}

static uint32_t clock_us(void) {
    return now_us++;
}

static void fault(const char *line) {
    printf("  %s\n", line);
    printf("%u passed, %u failed\n", passed, failed + 1);
    exit(1);
}

static int note_misuse(void *context, const struct rm_misuse *misuse) {
    (void)context;
    misuse_kind = misuse->kind;
    misuse_handle = misuse->handle;
    return 1;
}

/* ------------------------------------------------------------------------------------- the model */

struct block {
    rmhandle_t handle;
    size_t size;
    unsigned char seed;
    unsigned char *locked_at; /* NULL: not locked */
};

static struct block blocks[BLOCKS];
static uint32_t state = 1;

static uint32_t draw(uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)state * below >> 32);
}

static void fill(struct block *block, size_t from) {
    unsigned char *bytes = rmlock(block->handle);
    for (size_t i = from; i < block->size; i++)
        bytes[i] = (unsigned char)(block->seed + i);
    rmunlock(block->handle);
}

static bool is_whole(const struct block *block, size_t size) {
    const unsigned char *bytes = rmlock(block->handle);
    size_t i = 0;
    while (bytes != NULL && i < size && bytes[i] == (unsigned char)(block->seed + i))
        i++;
    rmunlock(block->handle);
    return i == size && (block->locked_at == NULL || bytes == block->locked_at);
}

static void step(rmheap_t heap, size_t most) {
    struct block *block = &blocks[draw(BLOCKS)];
    if (block->handle == NULL) {
        block->size = draw((uint32_t)most);
        block->seed = (unsigned char)draw(256);
        block->handle = rmheap_malloc(heap, block->size);
        if (block->handle != NULL)
            fill(block, 0);
        return;
    }
    EXPECT(is_whole(block, block->size));
    switch (draw(4)) {
    case 0:
        if (block->locked_at == NULL) {
            block->locked_at = rmlock(block->handle);
        } else {
            rmunlock(block->handle);
            block->locked_at = NULL;
        }
        return;
    case 1: {
        size_t size = draw((uint32_t)most);
        if (block->locked_at == NULL && rmrealloc(block->handle, size) == 0) {
            size_t kept = size < block->size ? size : block->size;
            EXPECT(is_whole(block, kept));
            block->size = size;
            fill(block, kept);
        }
        return;
    }
    default:
        if (block->locked_at != NULL)
            rmunlock(block->handle);
        rmfree(block->handle);
        *block = (struct block){0};
    }
}

static void run_random(void *buffer, size_t size, size_t most) {
    struct rm_fault found;
    rmheap_t heap = rmheap_create_in(buffer, size, NULL);
    EXPECT(heap != NULL);
    for (unsigned i = 0; i < STEPS && !failing; i++) {
        step(heap, most);
        if (i % 16 == 0)
            rmheap_compact_us(heap, draw(50) + 1, NULL);
        if (i % 8 == 0)
            EXPECT(rmheap_check(heap, &found) == 0);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].handle == NULL)
            continue;
        if (blocks[i].locked_at != NULL)
            rmunlock(blocks[i].handle);
        rmfree(blocks[i].handle);
        blocks[i] = (struct block){0};
    }
    EXPECT(rmheap_check(heap, &found) == 0);
    rmheap_destroy(heap);
}

/* ------------------------------------------------------------------------------------- tests */

static void runs_in_4_kib(void) {
    run_random(small_buffer, SMALL, 100);
}

static void runs_in_an_unaligned_buffer(void) {
    run_random(small_buffer + 3, SMALL + 60, 200);
}

static void runs_in_64_kib(void) {
    run_random(large_buffer, LARGE, 1000);
}

static void slides_around_a_locked_block(void) {
    static rmhandle_t all[300];
    struct rm_compact_result result;
    struct rm_stats stats;
    rmheap_t heap = rmheap_create_in(large_buffer, LARGE, NULL);
    for (unsigned i = 0; i < 300; i++)
        all[i] = rmheap_malloc(heap, 120);
    unsigned char *locked = rmlock(all[151]);
    for (unsigned i = 0; i < 300; i += 2)
        rmfree(all[i]);
    EXPECT(rmheap_compact_us(heap, 0, &result) != RM_COMPACT_BUDGET);
    EXPECT(result.blocks_moved > 100);
    EXPECT(rmlock(all[151]) == locked);
    rmunlock(all[151]);
    rmunlock(all[151]);
    EXPECT(rmheap_compact_us(heap, 0, &result) == RM_COMPACT_DONE);
    rmheap_stats(heap, &stats);
    EXPECT(stats.holes == 1);
    EXPECT(stats.largest_free >= stats.hole_bytes - stats.hole_bytes / 100);
    EXPECT(rmheap_malloc(heap, (size_t)stats.largest_free) != NULL);
    rmheap_destroy(heap);
}

static void reports_misuse(void) {
    struct rm_options options;
    rmoptions_init(&options);
    options.misuse = note_misuse;
    rmheap_t heap = rmheap_create_in(large_buffer, LARGE, &options);
    rmhandle_t handle = rmheap_malloc(heap, 10);
    rmfree(handle);
    rmfree(handle);
    EXPECT(misuse_kind == RM_MISUSE_STALE_HANDLE && misuse_handle == handle);
    EXPECT(rmlock(handle) == NULL && misuse_kind == RM_MISUSE_STALE_HANDLE);
    handle = rmheap_malloc(heap, 10);
    rmunlock(handle);
    EXPECT(misuse_kind == RM_MISUSE_UNLOCK_UNLOCKED);
    struct rm_fault found;
    EXPECT(rmheap_check(heap, &found) == 0);
    rmheap_destroy(heap);
}

static void grows_an_array(void) {
    rmheap_t heap = rmheap_create_in(large_buffer, LARGE, NULL);
    rmarray_t array = rmarray_create(heap, sizeof(int), NULL);
    rmhandle_t beside = NULL;
    for (int i = 0; i < 2000; i++) {
        EXPECT(rmarray_push(array, &i) == 0);
        if (i % 500 == 0)
            beside = rmheap_malloc(heap, 40);
    }
    EXPECT(beside != NULL && rmarray_length(array) == 2000);
    const int *elements = rmarray_lock(array);
    for (int i = 0; i < 2000; i++)
        EXPECT(elements[i] == i);
    rmarray_unlock(array);
    rmarray_destroy(array);
    rmheap_destroy(heap);
}

static void brackets_every_access(void) {
    EXPECT(depth == 0 && deepest > 0);
}

int main(void) {
    static const struct rm_port port = {enter, leave, clock_us, fault};
    rmport_set(&port);
    run("random program in 4 KiB", runs_in_4_kib);
    run("random program in an unaligned buffer", runs_in_an_unaligned_buffer);
    run("random program in 64 KiB", runs_in_64_kib);
    run("sliding around a locked block", slides_around_a_locked_block);
    run("misuse is reported", reports_misuse);
    run("an array grows", grows_an_array);
    run("the port brackets every access", brackets_every_access);
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0;
}
