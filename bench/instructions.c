/* One path of the library at a time, for Valgrind's callgrind to count: only the operations themselves are
 * instrumented. tools/instructions compares the counts with those that are committed; bench/compare draws
 * them against the number of live blocks.
 *
 * usage: instructions PATH BLOCKS; prints the number of operations measured
 */
#include <jeff/jeff.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>

enum { OPERATIONS = 100000, WARM = 20000 };

static rmhandle_t *handles;
static size_t count;
static uint64_t state = 1;

static size_t random_below(size_t limit) {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (size_t)((z ^ z >> 31) % limit);
}

static size_t next_of(size_t index) {
    return index + 1 < count ? index + 1 : 0;
}

static rmhandle_t allocate(size_t size) {
    rmhandle_t handle = rmmalloc(size);
    if (handle == NULL) {
        fputs("instructions: no memory\n", stderr);
        exit(1);
    }
    return handle;
}

static void fill(size_t size) {
    for (size_t i = 0; i < count; i++)
        handles[i] = allocate(size);
}

/* --- The paths: `operations` times each, on the blocks that are there. */

static void path_lock(size_t operations) {
    for (size_t i = 0, at = 0; i < operations; i++) {
        rmlock(handles[at]);
        rmunlock(handles[at]);
        at = next_of(at);
    }
}

static void path_deref(size_t operations) {
    rmread_begin();
    for (size_t i = 0, at = 0; i < operations; i++) {
        void *address = rmderef(handles[at]);
        __asm__ volatile("" : : "r"(address));
        at = next_of(at);
    }
    rmread_end();
}

static void path_hot(size_t operations) {
    for (size_t i = 0; i < operations; i++)
        rmfree(allocate(64));
}

static void path_retained(size_t operations) {
    for (size_t i = 0, at = 0; i < operations; i++) {
        rmfree(handles[at]);
        handles[at] = allocate(16);
        at = next_of(at);
    }
}

static void path_replace(size_t operations) {
    for (size_t i = 0; i < operations; i++) {
        size_t index = random_below(count);
        rmfree(handles[index]);
        handles[index] = allocate(16);
    }
}

static void path_allocate(size_t operations) {
    (void)operations;
    fill(16);
}

static void path_free(size_t operations) {
    (void)operations;
    for (size_t i = 0; i < count; i++)
        rmfree(handles[i]);
}

static void path_compact(size_t operations) {
    (void)operations;
    rmcompact(0);
}

/* --- What a path is measured on, and how many operations that makes. */

static size_t prepare_fill(void) {
    fill(16);
    return OPERATIONS;
}

static size_t prepare_nothing(void) {
    return count;
}

/* Allocated before, so that the memory is there; in use no more. */
static size_t prepare_filled_once(void) {
    fill(16);
    for (size_t i = 0; i < count; i++)
        rmfree(handles[i]);
    return count;
}

static size_t prepare_all(void) {
    fill(16);
    for (size_t i = count - 1; i > 0; i--) {
        size_t other = random_below(i + 1);
        rmhandle_t handle = handles[i];
        handles[i] = handles[other];
        handles[other] = handle;
    }
    return count;
}

static size_t prepare_half_dead(void) {
    size_t live = 0;
    fill(256);
    for (size_t i = 0; i < count; i++) {
        if ((random_below(2)) != 0)
            rmfree(handles[i]);
        else
            live++;
    }
    return live;
}

static const struct path {
    const char *name;
    size_t (*prepare)(void);
    void (*run)(size_t operations);
    bool warm; /* run for a while before it is measured */
} paths[] = {
    {"lock", prepare_fill, path_lock, true},
    {"deref", prepare_fill, path_deref, true},
    {"hot", prepare_fill, path_hot, true},
    {"retained", prepare_fill, path_retained, true},
    {"replace", prepare_fill, path_replace, true},
    {"first-allocate", prepare_nothing, path_allocate, false},
    {"allocate", prepare_filled_once, path_allocate, false},
    {"free", prepare_all, path_free, false},
    {"compact", prepare_half_dead, path_compact, false},
};

static int measure(const struct path *path) {
    size_t operations = path->prepare();
    if (path->warm)
        path->run(WARM);
    CALLGRIND_START_INSTRUMENTATION;
    path->run(operations);
    CALLGRIND_STOP_INSTRUMENTATION;
    printf("%zu\n", operations);
    return 0;
}

int main(int argc, char **argv) {
    count = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    handles = count != 0 ? malloc(count * sizeof *handles) : NULL;
    for (size_t i = 0; handles != NULL && i < sizeof paths / sizeof *paths; i++)
        if (strcmp(argv[1], paths[i].name) == 0)
            return measure(&paths[i]);
    fputs("usage: instructions PATH BLOCKS\npaths:", stderr);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        fprintf(stderr, " %s", paths[i].name);
    fputs("\n", stderr);
    return 2;
}
