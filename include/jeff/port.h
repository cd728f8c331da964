/* What a freestanding build of Jeff asks of its surroundings. Hosted builds do not need it. */
#ifndef JEFF_PORT_H
#define JEFF_PORT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All may be NULL. `enter` and `leave` bracket every access to the library's own state (they nest; for
 * instance, disable and restore interrupts); without them the program must call from one context only.
 * `clock_us` is a free-running microsecond counter; without it time budgets are counted as 1 us per 64
 * bytes moved and per 16 blocks looked at. `fault` gets the line that a hosted build would print on
 * standard error before it aborts; when it returns, the library stops in an endless loop. */
struct rm_port {
    void (*enter)(void);
    void (*leave)(void);
    uint32_t (*clock_us)(void);
    void (*fault)(const char *line);
};

/* To be called before any other function of the library. */
void rmport_set(const struct rm_port *port);

#ifdef __cplusplus
}
#endif

#endif
