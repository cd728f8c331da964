/* Workers of the replay. They are this program again, started anew: a fork would carry the memory of
 * the parent into what is measured. Parent and worker share a file in memory. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"
#include "replay.h"
#include "steve.h"

struct shared {
    struct replay_result result; /* first: what the parent hands around */
    struct replay_options options;
    enum replay_pass pass;
    char backend[PATH_MAX];
};

static struct shared *map_shared(int descriptor) {
    void *shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_POPULATE, descriptor, 0);
    return shared == MAP_FAILED ? NULL : shared;
}

/* The linker only warns when it cannot preload, and the system's malloc would run under another's
 * name. */
static bool has_library(const struct replay_backend *backend) {
    Dl_info info;
    char found[PATH_MAX], wanted[PATH_MAX];
    void *function = dlsym(RTLD_DEFAULT, "malloc");
    return backend->library == NULL ||
           (function != NULL && dladdr(function, &info) != 0 &&
            realpath(info.dli_fname, found) != NULL && realpath(backend->library, wanted) != NULL &&
            strcmp(found, wanted) == 0);
}

int steve_replay_worker(int argc, char **argv) {
    uint64_t descriptor;
    if (argc != 3 || steve_parse_number(argv[0], argv[1], 0, INT_MAX, &descriptor) != 0)
        return STEVE_USAGE;
    struct shared *shared = map_shared((int)descriptor);
    const struct replay_backend *backend = NULL;
    if (shared != NULL)
        backend = replay_backend_find(shared->backend);
    if (backend == NULL) {
        steve_complain("the replay worker cannot start");
        return STEVE_FAILED;
    }
    if (!has_library(backend)) {
        steve_complain("%s: %s was not preloaded", backend->name, backend->library);
        return STEVE_FAILED;
    }
    int result = replay_run(argv[2], backend, shared->pass, &shared->options, &shared->result);
    return result == 0 ? STEVE_OK : STEVE_FAILED;
}

static _Noreturn void exec_worker(const char *trace, const struct replay_backend *backend,
                                  int descriptor) {
    char number[24];
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    if (backend->library != NULL)
        setenv("LD_PRELOAD", backend->library, 1);
    snprintf(number, sizeof number, "%d", descriptor);
    execl("/proc/self/exe", "steve", STEVE_WORKER_COMMAND, number, trace, (char *)NULL);
    steve_complain("cannot start the replay worker: %s", strerror(errno));
    _exit(STEVE_FAILED);
}

static void show_progress(const struct replay_backend *backend, enum replay_pass pass,
                          struct replay_result *result) {
    static const char *const names[] = {"memory", "speed", "latency", "fit"};
    static const char bar[] = "########################################";
    enum { WIDTH = sizeof bar - 1 };
    uint64_t done = atomic_load_explicit(&result->progress, memory_order_relaxed);
    double share = result->progress_total != 0 ? (double)done / (double)result->progress_total : 0;
    fprintf(stderr, "\rsteve: %-16s %-8s [%-*.*s] %3.0f %%\033[K", backend->name, names[pass],
            WIDTH, (int)(share * WIDTH), bar, share * 100);
}

/* Waits for the worker's end and its status. False when it took too long and was killed. */
static bool wait_for(pid_t pid, const struct replay_backend *backend, enum replay_pass pass,
                     struct replay_result *result, uint32_t timeout_s, bool quiet,
                     int *ret_status) {
    enum { STEP_MS = 100 };
    int descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    uint64_t start = measure_wall_ns();
    bool in_time = true;
    bool shows = !quiet && isatty(STDERR_FILENO);
    struct pollfd end = {.fd = descriptor, .events = POLLIN};
    while (descriptor >= 0 && poll(&end, 1, shows || timeout_s != 0 ? STEP_MS : -1) <= 0) {
        if (shows)
            show_progress(backend, pass, result);
        if (timeout_s != 0 && measure_wall_ns() - start > (uint64_t)timeout_s * 1000000000u) {
            kill(pid, SIGKILL);
            in_time = false;
            break;
        }
    }
    while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
        ;
    if (descriptor >= 0)
        close(descriptor);
    if (shows)
        fputs("\r\033[K", stderr);
    return in_time;
}

static struct shared *make_shared(int *ret_descriptor) {
    struct shared *shared = NULL;
    int descriptor = memfd_create("steve-replay", 0);
    if (descriptor >= 0 && ftruncate(descriptor, (off_t)sizeof *shared) == 0)
        shared = map_shared(descriptor);
    if (shared == NULL) {
        steve_complain("cannot share memory with a replay worker: %s", strerror(errno));
        if (descriptor >= 0)
            close(descriptor);
    }
    *ret_descriptor = descriptor;
    return shared;
}

/* Says how a pass failed. */
static void explain(const struct replay_backend *backend, const struct shared *shared, pid_t pid,
                    bool in_time, int status, char *ret_failure) {
    snprintf(ret_failure, REPLAY_FAILURE_TEXT, in_time ? "failed" : "timed out");
    if (shared->pass == REPLAY_FIT)
        return;
    if (pid < 0)
        steve_complain("cannot fork: %s", strerror(errno));
    else if (!in_time)
        steve_complain("%s: the pass took too long and was stopped", backend->name);
    else if (WIFSIGNALED(status))
        steve_complain("%s: the pass ended by signal %d (%s)", backend->name, WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    else
        steve_complain("%s: the pass failed", backend->name);
}

/* Allocators that complain of a heap that is too small are heard where that is an error only. */
static void hush(void) {
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nowhere >= 0)
        dup2(nowhere, STDERR_FILENO);
}

struct replay_result *replay_spawn(const char *trace, const struct replay_backend *backend,
                                   enum replay_pass pass, const struct replay_options *options,
                                   uint32_t timeout_s, bool quiet, char *ret_failure) {
    int descriptor, status = 0;
    struct shared *shared = make_shared(&descriptor);
    snprintf(ret_failure, REPLAY_FAILURE_TEXT, "failed");
    if (shared == NULL)
        return NULL;
    shared->options = *options;
    shared->pass = pass;
    bool path = backend->library != NULL && replay_backend_find(backend->name) != backend;
    snprintf(shared->backend, sizeof shared->backend, "%s",
             path ? backend->library : backend->name);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (pass == REPLAY_FIT)
            hush();
        exec_worker(trace, backend, descriptor);
    }
    close(descriptor);
    bool in_time =
        pid < 0 || wait_for(pid, backend, pass, &shared->result, timeout_s, quiet, &status);
    if (pid > 0 && in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0 && shared->result.done)
        return &shared->result;
    explain(backend, shared, pid, in_time, status, ret_failure);
    munmap(shared, sizeof *shared);
    return NULL;
}

void replay_forget(struct replay_result *result) {
    if (result != NULL)
        munmap(result, sizeof(struct shared));
}
