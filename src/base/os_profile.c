/* What profiles need of the system: call stacks, signals, files. POSIX, and the C library's backtrace.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/os.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { COPY_SIZE = 4096, FILE_MODE = 0644 };

size_t jf_os_call_stack(void **ret_frames, size_t count_max) {
    int saved = errno;
    int count = backtrace(ret_frames, (int)count_max);
    errno = saved;
    return count > 0 ? (size_t)count : 0;
}

/* A handler has no argument of its own; there is one flag in the process. */
static int *noted;

static void note(int number) {
    (void)number;
    __atomic_store_n(noted, 1, __ATOMIC_RELAXED);
}

void jf_os_note_signal(int number, int *flag) {
    int saved = errno;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    noted = flag;
    sigaction(number, &action, NULL);
    errno = saved;
}

int jf_os_file_create(const char *path) {
    int saved = errno;
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FILE_MODE);
    errno = saved;
    return file;
}

void jf_os_file_write(int file, const void *bytes, size_t size) {
    int saved = errno;
    const char *next = bytes;
    while (size > 0) {
        ssize_t written = write(file, next, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            break;
        next += written;
        size -= (size_t)written;
    }
    errno = saved;
}

void jf_os_file_close(int file) {
    int saved = errno;
    close(file);
    errno = saved;
}

void jf_os_file_write_mappings(int file) {
    int saved = errno;
    char buffer[COPY_SIZE];
    int mappings = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    ssize_t size;
    while (mappings >= 0 && (size = read(mappings, buffer, sizeof buffer)) > 0)
        jf_os_file_write(file, buffer, (size_t)size);
    if (mappings >= 0)
        close(mappings);
    errno = saved;
}

uint64_t jf_os_process_id(void) {
    return (uint64_t)getpid();
}
