/* The allocator the worker runs with: the system's malloc, or one that is preloaded. And the ideal
 * one, which is none. */
#include <dlfcn.h>
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

/* A function of whichever allocator is there. */
static bool find(void *ret_function, const char *name) {
    void *function = dlsym(RTLD_DEFAULT, name);
    memcpy(ret_function, &function, sizeof function);
    return function != NULL;
}

/* Each allocator has its own word for giving memory back. */
static const char *tidy(void) {
    int (*control)(const char *, void *, size_t *, void *, size_t);
    void (*collect)(bool);
    void (*give_back)(void);
    if (find(&control, "mallctl")) {
        control("thread.tcache.flush", NULL, NULL, NULL, 0);
        control("arena.4096.purge", NULL, NULL, NULL, 0);
        return "arena.4096.purge";
    }
    if (find(&collect, "mi_collect")) {
        collect(true);
        return "mi_collect(true)";
    }
    if (find(&give_back, "MallocExtension_ReleaseFreeMemory")) {
        give_back();
        return "MallocExtension_ReleaseFreeMemory";
    }
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

/* Whether malloc and malloc_info belong to the same library. */
static bool describes_itself(void) {
    Dl_info allocator, description;
    void *functions[2];
    return find(&functions[0], "malloc") && find(&functions[1], "malloc_info") &&
           dladdr(functions[0], &allocator) != 0 && dladdr(functions[1], &description) != 0 &&
           allocator.dli_fbase == description.dli_fbase;
}

/* glibc's free chunks by size, and the free end of its main heap. The sizes include 8 bytes of
 * header. */
static int64_t largest_hole(void) {
    char *text = NULL;
    size_t size = 0;
    if (!describes_itself())
        return -1;
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

/* References are addresses; how blocks come and go is all that differs. */
#define CALLS(give, give_zeroed, give_aligned, change, take_back)                                  \
    .allocate = (give), .allocate_zeroed = (give_zeroed), .allocate_aligned = (give_aligned),      \
    .resize = (change), .release = (take_back)

const struct replay_backend replay_malloc = {
    .name = "malloc",
    .description = "the system's malloc",
    CALLS(allocate, allocate_zeroed, allocate_aligned, resize, free),
    .tidy = tidy,
    .largest_hole = largest_hole,
};

/* --- The ideal: every call costs nothing, and memory is what the program asked for. What its replay
 * takes is the replayer's own part. */

static char nowhere[64];

static void *give_nowhere(size_t size) {
    (void)size;
    return nowhere;
}

static void *give_nowhere_aligned(size_t alignment, size_t size) {
    (void)alignment, (void)size;
    return nowhere;
}

static void *stay(void *reference, size_t size) {
    (void)size;
    return reference;
}

static void forget(void *reference) {
    (void)reference;
}

static const char *tidy_nothing(void) {
    return "none";
}

const struct replay_backend replay_ideal = {
    .name = "ideal",
    .description = "the lower bound: live bytes only, no time at all",
    .ideal = true,
    CALLS(give_nowhere, give_nowhere, give_nowhere_aligned, stay, forget),
    .tidy = tidy_nothing,
};
