/* Assertions on the library's own state: compiled in with -Dassertions=on (and in debug builds), nothing
 * otherwise. What a program can do wrong is never asserted but reported (heap/misuse.h).
 */
#ifndef JEFF_BASE_DEBUG_H
#define JEFF_BASE_DEBUG_H

#if defined(JF_ASSERTIONS) && JF_ASSERTIONS

#include "base/os.h"

#define JF_DEBUG_TEXT_(line) #line
#define JF_DEBUG_LINE_(line) JF_DEBUG_TEXT_(line)

/* Prints where and what, and ends the process, when the condition does not hold. */
#define JF_ASSERT(condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            jf_os_print_line("jeff: " __FILE__                                                     \
                             ":" JF_DEBUG_LINE_(__LINE__) ": not so: " #condition);                \
            jf_os_abort();                                                                         \
        }                                                                                          \
    } while (0)

#else

#define JF_ASSERT(condition) ((void)0)

#endif
#endif
