// For programs that fork with threads about.
#pragma once

// In a forked child the library makes its mutexes anew; ThreadSanitizer takes them for still held. In place of the
// options of support/threads.cpp, which are among these.
extern "C" const char *__tsan_default_options();
extern "C" const char *__tsan_default_options() {
    return "detect_deadlocks=0:report_mutex_bugs=0:history_size=7";
}
