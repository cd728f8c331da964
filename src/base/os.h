/* The whole boundary to the operating system: memory, clock, fences between threads, mutexes, the
 * environment, the last words. os_posix.c is the hosted half, os_none.c the freestanding one. No other
 * file of the library calls the system or tests for a platform.
 */
#ifndef JEFF_BASE_OS_H
#define JEFF_BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* JF_HAS_GROWING: there is a system to reserve address space from. Without, only fixed heaps exist. */
#if defined(JF_FREESTANDING)
#include <jeff/port.h>
#define JF_HAS_GROWING 0
typedef struct jf_mutex {
    char unused;
} jf_mutex;
typedef jf_mutex jf_signals;
#define JF_THREAD_LOCAL
#else
#include <pthread.h>
#include <sys/select.h> /* sigset_t, without the names that <signal.h> brings */
#define JF_HAS_GROWING 1
typedef pthread_mutex_t jf_mutex;
typedef sigset_t jf_signals;
#define JF_THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))
#endif

/* --- Memory. Addresses and sizes are multiples of jf_os_page_size(). Failures leave all as it was. */

/* Bytes of the system's page, a power of two, at least 4096. */
size_t jf_os_page_size(void);

/* Reserves `size` bytes of address space aligned to `alignment` (a power of two), not accessible, not
 * counted as memory. Returns 0 when refused. */
uintptr_t jf_os_reserve(size_t size, size_t alignment);

/* Makes a part of a reserved range readable and writable; it reads as zero until written. False when
 * the system refuses. Making it accessible twice is harmless. */
bool jf_os_make_accessible(uintptr_t address, size_t size);

/* Makes a part of a reserved range readable: it reads as zero, and neither holds nor counts as memory
 * until a part of it is made accessible. False when the system refuses. */
bool jf_os_make_readable(uintptr_t address, size_t size);

/* Gives the physical memory of an accessible range back; it stays accessible and reads as zero. */
void jf_os_give_back(uintptr_t address, size_t size);

/* Moves the memory of an accessible range, pages and all, to another that lies apart from it and whose contents
 * are lost; the first reads as zero then. False when the system cannot; the first is unchanged then. */
bool jf_os_move(uintptr_t from, uintptr_t to, size_t size);

/* Says that a part of an accessible range will be written to at once: its memory is fetched in one go, and in
 * huge pages where it holds whole ones of JF_OS_HUGE bytes. Only advice. */
void jf_os_populate(uintptr_t address, size_t size);
#define JF_OS_HUGE ((uintptr_t)2 << 20)

/* Whether memory that a part of a reserved range, of whole huge pages, gets from now on may come in huge pages;
 * after jf_os_reserve it may not. Only advice: the system's own setting may forbid them. */
void jf_os_allow_huge(uintptr_t address, size_t size, bool allow);

/* Gives a whole reservation back. */
void jf_os_release(uintptr_t address, size_t size);

/* Bytes of physical memory in an accessible range (mincore); `size` when it cannot be told. */
size_t jf_os_resident(uintptr_t address, size_t size);

/* --- Time. */

/* Monotonic wall clock, nanoseconds. */
uint64_t jf_os_clock_ns(void);

/* The same to a few milliseconds, for a fraction of the price. The two do not agree to the millisecond. */
uint64_t jf_os_clock_coarse_ns(void);

/* --- Threads. */

void jf_os_mutex_init(jf_mutex *mutex);
void jf_os_mutex_finish(jf_mutex *mutex);
void jf_os_mutex_lock(jf_mutex *mutex);
bool jf_os_mutex_trylock(jf_mutex *mutex);
void jf_os_mutex_unlock(jf_mutex *mutex);

/* Gives the processor to another thread for a moment. */
void jf_os_yield(void);

/* A fence on every running thread of this process (membarrier). jf_os_fence_prepare asks for it once
 * and says whether it is to be had; jf_os_fence_all may be called only then. */
bool jf_os_fence_prepare(void);
void jf_os_fence_all(void);

/* Has `callback` called on the calling thread when it ends. The same callback may be asked for by many
 * threads; at most 4 different ones in a process. */
void jf_os_at_thread_exit(void (*callback)(void));

/* Keeps signal handlers from running on the calling thread until they are let in again. */
void jf_os_signals_block(jf_signals *ret_before);
void jf_os_signals_restore(const jf_signals *before);

/* Has the three called around every fork: before it, and after it in the parent and in the child. */
void jf_os_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

/* Random bits that differ from run to run. */
uint64_t jf_os_random(void);

/* --- Environment and last words. */

/* Value of an environment variable, or NULL; always NULL when the program runs with more rights than
 * its user (setuid, setgid, capabilities). */
const char *jf_os_environment(const char *name);

/* Writes one line (the newline is added) to standard error, without stdio and without memory. */
void jf_os_print_line(const char *line);

/* Ends the process abnormally (SIGABRT). */
__attribute__((noreturn)) void jf_os_abort(void);

/* --- For profiles; hosted builds only. Those of files leave errno alone. */

/* Return addresses of the calls that led here, the innermost first; how many. May allocate. */
size_t jf_os_call_stack(void **ret_frames, size_t count_max);

/* From now on the signal sets *flag to 1 and does nothing else. */
void jf_os_note_signal(int number, int *flag);

/* A new file, or an old one emptied; negative when it cannot be. */
int jf_os_file_create(const char *path);
void jf_os_file_write(int file, const void *bytes, size_t size);
void jf_os_file_close(int file);

/* Writes the list of the process's mappings, as the system words it, if it has one. */
void jf_os_file_write_mappings(int file);

uint64_t jf_os_process_id(void);

/* errno, where there is one. */
enum jf_os_error { JF_OS_ENOMEM, JF_OS_EINVAL, JF_OS_EBUSY };
void jf_os_set_errno(enum jf_os_error error);
int jf_os_save_errno(void);
void jf_os_restore_errno(int saved);

#endif
