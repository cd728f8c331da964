/* The freestanding half of the boundary to the system: there is none. Memory is the caller's buffer
 * only, so every request for more is refused; the rest goes through the port the program has set.
 */
#include "base/os.h"

#include "base/atomic.h"

/* The program's hooks and the state of its clock: belongs to the machine, not to a heap. */
static struct rm_port port;
static uint32_t last_us;
static uint64_t passed_us;

void rmport_set(const struct rm_port *new_port) {
    static const struct rm_port empty;
    port = new_port != NULL ? *new_port : empty;
}

void jf_port_enter(void) {
    if (port.enter != NULL) {
        port.enter();
    }
}

void jf_port_leave(void) {
    if (port.leave != NULL) {
        port.leave();
    }
}

size_t jf_os_page_size(void) {
    return 4096;
}

uintptr_t jf_os_reserve(size_t size, size_t alignment) {
    (void)size;
    (void)alignment;
    return 0;
}

bool jf_os_make_accessible(uintptr_t address, size_t size) {
    (void)address;
    (void)size;
    return false;
}

bool jf_os_make_readable(uintptr_t address, size_t size) {
    (void)address;
    (void)size;
    return false;
}

void jf_os_give_back(uintptr_t address, size_t size) {
    (void)address;
    (void)size;
}

bool jf_os_move(uintptr_t from, uintptr_t to, size_t size) {
    (void)from;
    (void)to;
    (void)size;
    return false;
}

void jf_os_populate(uintptr_t address, size_t size) {
    (void)address;
    (void)size;
}

void jf_os_allow_huge(uintptr_t address, size_t size, bool allow) {
    (void)address;
    (void)size;
    (void)allow;
}

void jf_os_release(uintptr_t address, size_t size) {
    (void)address;
    (void)size;
}

size_t jf_os_resident(uintptr_t address, size_t size) {
    (void)address;
    return size;
}

/* The counter has 32 bits and wraps; the steps between readings are summed, so that a budget that
 * spans a wrap is still kept. */
uint64_t jf_os_clock_ns(void) {
    if (port.clock_us == NULL) {
        return 0;
    }
    jf_port_enter();
    uint32_t now = port.clock_us();
    passed_us += (uint32_t)(now - last_us);
    last_us = now;
    uint64_t result = passed_us * 1000u;
    jf_port_leave();
    return result;
}

uint64_t jf_os_clock_coarse_ns(void) {
    return jf_os_clock_ns();
}

void jf_os_mutex_init(jf_mutex *mutex) {
    (void)mutex;
}

void jf_os_mutex_finish(jf_mutex *mutex) {
    (void)mutex;
}

void jf_os_mutex_lock(jf_mutex *mutex) {
    (void)mutex;
    jf_port_enter();
}

bool jf_os_mutex_trylock(jf_mutex *mutex) {
    (void)mutex;
    jf_port_enter();
    return true;
}

void jf_os_mutex_unlock(jf_mutex *mutex) {
    (void)mutex;
    jf_port_leave();
}

void jf_os_yield(void) {}

bool jf_os_fence_prepare(void) {
    return false;
}

void jf_os_fence_all(void) {}

/* As good as the clock: with none, the same number at every start. */
uint64_t jf_os_random(void) {
    uint64_t value = jf_os_clock_ns() + 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

const char *jf_os_environment(const char *name) {
    (void)name;
    return NULL;
}

void jf_os_print_line(const char *line) {
    if (port.fault != NULL) {
        port.fault(line);
    }
}

void jf_os_abort(void) {
    for (;;) {
        /* An access that the compiler must keep: a loop without one may be removed. */
        (void)*(volatile char *)&port;
    }
}

void jf_os_set_errno(enum jf_os_error error) {
    (void)error;
}

int jf_os_save_errno(void) {
    return 0;
}

void jf_os_restore_errno(int saved) {
    (void)saved;
}

void jf_os_at_thread_exit(void (*callback)(void)) {
    (void)callback;
}

void jf_os_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
    (void)prepare;
    (void)parent;
    (void)child;
}

void jf_os_signals_block(jf_signals *ret_before) {
    (void)ret_before;
}

void jf_os_signals_restore(const jf_signals *before) {
    (void)before;
}
