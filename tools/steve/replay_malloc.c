/* The allocator the replayer itself is linked with: the system's malloc, or one that is preloaded.
 */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay.h"

static void *allocate(size_t size) {
    /* NULL for a size of 0 would be a failure here. */
    return malloc(size != 0 ? size : 1);
}

static void *allocate_zeroed(size_t size) {
    return calloc(1, size != 0 ? size : 1);
}

static void *allocate_aligned(size_t alignment, size_t size) {
    void *block = NULL;
    if (alignment < sizeof(void *))
        alignment = sizeof(void *);
    int error = posix_memalign(&block, alignment, size != 0 ? size : 1);
    errno = error;
    return error == 0 ? block : NULL;
}

static void *resize(void *block, size_t size) {
    return realloc(block, size != 0 ? size : 1);
}

static void *open_block(void *block) {
    return block;
}

static void close_block(void *block) {
    (void)block;
}

static const char *tidy(void) {
    malloc_trim(0);
    return "malloc_trim(0)";
}

/* The largest number after `key` in glibc's XML about its heap. */
static long long largest_number(const char *text, const char *key) {
    long long largest = 0;
    while ((text = strstr(text, key)) != NULL) {
        text += strlen(key);
        long long value = strtoll(text, NULL, 10);
        if (value > largest)
            largest = value;
    }
    return largest;
}

/* glibc's free chunks by size, and the free end of its main heap. The sizes include 8 bytes of
 * header. */
static int64_t largest_hole(void) {
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    if (stream == NULL)
        return -1;
    int result = malloc_info(0, stream);
    if (fclose(stream) != 0 || result != 0 || text == NULL) {
        free(text);
        return -1;
    }
    long long largest = largest_number(text, " to=\"");
    free(text);
    struct mallinfo2 info = mallinfo2();
    if ((long long)info.keepcost > largest)
        largest = (long long)info.keepcost;
    return largest > 8 ? largest - 8 : 0;
}

const struct replay_backend replay_malloc = {
    .name = "malloc",
    .description = "the system's malloc",
    .allocate = allocate,
    .allocate_zeroed = allocate_zeroed,
    .allocate_aligned = allocate_aligned,
    .resize = resize,
    .release = free,
    .open = open_block,
    .close = close_block,
    .tidy = tidy,
    .largest_hole = largest_hole,
};
