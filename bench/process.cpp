/* Clocks, resident memory and child processes of the benchmark programs, on Linux. */
#include "process.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace bench {

static uint64_t read_clock(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t wall_ns() {
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t cpu_ns() {
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

/* The number of KiB behind `key` in a file of /proc, in bytes. Uses no heap. */
static size_t read_kib(const char *path, const char *key) {
    char text[4096];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = file >= 0 ? read(file, text, sizeof text - 1) : -1;
    if (file >= 0)
        close(file);
    text[size > 0 ? size : 0] = '\0';
    const char *found = strstr(text, key);
    if (found == nullptr)
        throw std::runtime_error(std::string("no ") + (key + 1) + " in " + path);
    return strtoull(found + strlen(key), nullptr, 10) * 1024;
}

size_t resident_bytes() {
    return read_kib("/proc/self/smaps_rollup", "\nRss:");
}

size_t peak_resident_bytes() {
    return read_kib("/proc/self/status", "\nVmHWM:");
}

void reset_peak() {
    int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    bool done = file >= 0 && write(file, "5", 1) == 1;
    if (file >= 0)
        close(file);
    if (!done)
        throw std::runtime_error("/proc/self/clear_refs cannot be written");
}

enum {
    CHILD_SECONDS = 300
}; /* longer than any measurement: a call that does not return is an error */

[[noreturn]] static void be_child(const std::function<Values()> &work, int to_parent) {
    std::string text;
    int status = 0;
    try {
        for (const auto &[name, value] : work()) {
            char line[128];
            snprintf(line, sizeof line, "%s %.17g\n", name.c_str(), value);
            text += line;
        }
    } catch (const std::exception &error) {
        fprintf(stderr, "bench: %s\n", error.what());
        status = 1;
    }
    if (write(to_parent, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        status = 1;
    _exit(status);
}

static std::string read_all(int file) {
    std::string text;
    char part[4096];
    ssize_t size;
    while ((size = read(file, part, sizeof part)) > 0 || (size < 0 && errno == EINTR))
        if (size > 0)
            text.append(part, static_cast<size_t>(size));
    return text;
}

static Values parse(const std::string &text) {
    Values values;
    size_t at = 0;
    while (at < text.size()) {
        size_t space = text.find(' ', at);
        size_t end = text.find('\n', at);
        values[text.substr(at, space - at)] = strtod(text.c_str() + space + 1, nullptr);
        at = end + 1;
    }
    return values;
}

Values run_in_child(const std::function<Values()> &work) {
    int ends[2];
    fflush(nullptr);
    if (pipe2(ends, O_CLOEXEC) != 0)
        throw std::runtime_error("no pipe");
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(CHILD_SECONDS);
        be_child(work, ends[1]);
    }
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        throw std::runtime_error("no child process");
    }
    std::string text = read_all(ends[0]);
    close(ends[0]);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        throw std::runtime_error(std::string("the child ended: ") + strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) != 0)
        throw std::runtime_error("the child failed");
    return parse(text);
}

void want_static_tls(char **argv) {
    static const char wanted[] = "glibc.rtld.optional_static_tls=65536";
    const char *now = getenv("GLIBC_TUNABLES");
    if (now != nullptr && strstr(now, wanted) != nullptr)
        return;
    std::string tunables = now != nullptr ? std::string(now) + ":" + wanted : wanted;
    setenv("GLIBC_TUNABLES", tunables.c_str(), 1);
    execv("/proc/self/exe", argv);
}

Mapping::Mapping(size_t size) : size_(size != 0 ? size : 1) {
    void *memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        throw std::runtime_error("no memory");
    data_ = static_cast<char *>(memory);
}

Mapping::~Mapping() {
    munmap(data_, size_);
}

} // namespace bench
