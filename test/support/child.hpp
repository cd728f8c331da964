// Tests that run in a child process: what they break or use up is gone with it.
#pragma once

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include <jeff/jeff.h>

// Ends the child; standard error names the place.
#define CHILD_EXPECT(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: in the child: %s\n", __FILE__, __LINE__, #condition);     \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (false)

namespace support {

constexpr unsigned child_seconds = 60;

// Runs `child` in a child process and returns its exit status: 0 when nothing failed, 1 and 2 when something
// did, -1 when it was ended by a signal. A child that hangs is ended by its alarm. What `child` returns is
// the exit status when nothing failed.
template <typename Function> int status_of_child(const Function &child) {
    std::fflush(nullptr);
    bool failed_before = testing::Test::HasFailure();
    pid_t pid = fork();
    if (pid == 0) {
        alarm(child_seconds);
        int status = child();
        _exit(testing::Test::HasFailure() && !failed_before ? 2 : status);
    }
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status)) << "ended by signal " << WTERMSIG(status);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

template <typename Function> void run_child(const Function &child) {
    EXPECT_EQ(status_of_child([&] {
                  child();
                  return 0;
              }),
              0);
}

inline void expect_whole_in_child(rmheap_t heap) {
    rm_fault fault;
    int rule = rmheap_check(heap, &fault);
    if (rule != 0)
        std::fprintf(stderr, "rule %d %s at %p: %s\n", rule, fault.name, fault.address, fault.text);
    CHILD_EXPECT(rule == 0);
}

} // namespace support
