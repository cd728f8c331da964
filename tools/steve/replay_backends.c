/* The allocators the replayer knows, and how each is found. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replay.h"
#include "steve.h"

/* The system's malloc with a library preloaded, which is known by its names. */
struct library {
    const char *name, *description, *package;
    const char *files[4];
};

static const struct library libraries[] = {
    {"facade", "Jeff's malloc", NULL, {"libjeff-malloc.so", "libjeff-malloc.so.0"}},
    {"jemalloc", "jemalloc", "libjemalloc2", {"libjemalloc.so.2"}},
    {"mimalloc", "mimalloc", "libmimalloc2.0", {"libmimalloc.so.2", "libmimalloc.so.2.0"}},
    {"tcmalloc",
     "tcmalloc",
     "libtcmalloc-minimal4",
     {"libtcmalloc_minimal.so.4", "libtcmalloc.so.4"}},
};

enum { LIBRARIES = sizeof libraries / sizeof libraries[0], PATHS_MAX = 8 };

static struct replay_backend preloaded[LIBRARIES];
static struct replay_backend by_path[PATHS_MAX];
static size_t path_count;

/* Beside steve first: a build that is not installed has Jeff's own library there or nearby. */
static bool find_library(const char *file, char *ret_path, size_t size) {
    static const char *const folders[] = {"/usr/local/lib", "/usr/lib/x86_64-linux-gnu",
                                          "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/lib"};
    static const char *const nearby[] = {".", "../../src", "../../src/malloc", ".."};
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length > 0) {
        self[length] = '\0';
        *strrchr(self, '/') = '\0';
        for (size_t i = 0; i < sizeof nearby / sizeof nearby[0]; i++) {
            if ((size_t)snprintf(ret_path, size, "%s/%s/%s", self, nearby[i], file) < size &&
                access(ret_path, R_OK) == 0)
                return true;
        }
    }
    if ((size_t)snprintf(ret_path, size, "%s/../%s", STEVE_INSTALL_DIR, file) < size &&
        access(ret_path, R_OK) == 0)
        return true;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if ((size_t)snprintf(ret_path, size, "%s/%s", folders[i], file) < size &&
            access(ret_path, R_OK) == 0)
            return true;
    }
    return false;
}

static const struct replay_backend *preloaded_backend(size_t index) {
    static char paths[LIBRARIES][PATH_MAX];
    const struct library *library = &libraries[index];
    struct replay_backend *backend = &preloaded[index];
    if (backend->name != NULL)
        return backend;
    *backend = replay_malloc;
    backend->name = library->name;
    backend->description = library->description;
    backend->package = library->package;
    backend->library = library->files[0];
    for (size_t i = 0; library->files[i] != NULL; i++) {
        if (find_library(library->files[i], paths[index], sizeof paths[index])) {
            backend->library = paths[index];
            break;
        }
    }
    return backend;
}

static const struct replay_backend *path_backend(const char *path) {
    for (size_t i = 0; i < path_count; i++) {
        if (strcmp(by_path[i].library, path) == 0)
            return &by_path[i];
    }
    if (path_count == PATHS_MAX)
        return NULL;
    struct replay_backend *backend = &by_path[path_count];
    *backend = replay_malloc;
    backend->library = realpath(path, NULL);
    if (backend->library == NULL)
        backend->library = strdup(path);
    const char *file = strrchr(path, '/') + 1;
    char *name = strdup(file);
    if (backend->library == NULL || name == NULL)
        return NULL;
    char *ending = strstr(name, ".so");
    if (ending != NULL && ending != name)
        *ending = '\0';
    backend->name = name;
    backend->description = backend->library;
    path_count++;
    return backend;
}

const struct replay_backend *replay_backend_at(size_t index) {
    static const struct replay_backend *const linked[] = {
        &replay_jeff,       &replay_jeff_never, &replay_jeff_oom, &replay_jeff_background,
        &replay_jeff_fixed, &replay_malloc,     &replay_ideal};
    enum { LINKED = sizeof linked / sizeof linked[0] };
    if (index < LINKED)
        return linked[index];
    return index - LINKED < LIBRARIES ? preloaded_backend(index - LINKED) : NULL;
}

const struct replay_backend *replay_backend_find(const char *name) {
    if (strchr(name, '/') != NULL)
        return path_backend(name);
    if (strcmp(name, "glibc") == 0)
        return &replay_malloc;
    for (size_t i = 0; replay_backend_at(i) != NULL; i++) {
        if (strcmp(replay_backend_at(i)->name, name) == 0)
            return replay_backend_at(i);
    }
    return NULL;
}

bool replay_backend_is_installed(const struct replay_backend *backend) {
    return backend->library == NULL || access(backend->library, R_OK) == 0;
}
