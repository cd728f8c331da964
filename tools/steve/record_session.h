/* The recording of one process: takes operations out of its ring in order, gives blocks their
 * numbers and writes the trace. Not thread-safe. */
#ifndef STEVE_RECORD_SESSION_H
#define STEVE_RECORD_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "record_map.h"
#include "record_ring.h"
#include "trace_format.h"
#include "trace_live.h"
#include "trace_write.h"

enum { SESSION_THREADS_MAX = 65536 }; /* thread numbers of a ring are 16 bits wide */

struct record_session {
    uint32_t pid;
    struct record_ring *ring;
    struct trace_writer *writer; /* NULL once writing failed */
    struct trace_live live;
    struct record_map map;
    uint32_t *free_numbers; /* a stack: the number freed last is used first */
    size_t free_count;
    size_t free_capacity;
    struct session_realloc {
        uint64_t address;
        uint32_t block; /* + 1; 0 = none begun */
    } * reallocs;       /* begun and not ended, by thread */
    /* The stack of the next operation, and the file of code that is being told of. */
    uint64_t frames[TRACE_STACK_MAX];
    uint32_t frame_count;
    uint64_t module[3];
    char module_name[TRACE_NAME_MAX + 1];
    size_t module_name_size;
    uint32_t last_ticks;
    uint64_t time_us;
    uint64_t stuck_since_us; /* for the caller: when nothing began to move; 0 = it moves */
    uint64_t unknown_frees;
    uint64_t implicit_frees;
    uint64_t lost_events;
    struct trace_error error; /* why writing failed */
};

/* Starts a session whose trace goes to `descriptor` (owned from now on). NULL with `error` filled.
 */
struct record_session *session_create(struct record_ring *ring, int descriptor, const char *name,
                                      const struct trace_header *header, bool compress,
                                      struct trace_error *error);

/* Takes at most `limit` operations, up to the first that is not written completely yet. Returns how
 * many. */
uint64_t session_drain(struct record_session *session, uint64_t limit);

/* Nobody writes to the ring any more: takes everything, leaving out what was never completed. */
void session_drain_rest(struct record_session *session);

/* The oldest operation is not complete and nothing can go on behind it: leaves it out. */
void session_skip_one(struct record_session *session);

/* The process began another program, which writes to `ring`; all its blocks are gone. The old ring
 * is emptied and unmapped. */
void session_exec(struct record_session *session, struct record_ring *ring);

/* Ends the trace and frees the session. 0, or -1 with `error` filled when the trace is not
 * complete. `ret_totals` (may be NULL) is what was recorded. */
int session_finish(struct record_session *session, int wait_status, struct trace_totals *ret_totals,
                   struct trace_error *error);

#endif
