/* The read sections of all threads, as the compactor sees them: a list of every thread's sequence
 * number, odd while a section is open. A block that was marked MOVING may be moved once every thread
 * has been outside its section since: a section opened later sees the mark and aborts the move.
 * The idea is that of epoch-based reclamation and quiescent states (Fraser, "Practical lock-freedom",
 * 2004; McKenney, RCU), with the reader's fence replaced by one that the compactor makes everybody do.
 */
#ifndef JEFF_HANDLE_READERS_H
#define JEFF_HANDLE_READERS_H

#include "base/os.h"
#include <jeff/jeff.h>

#if defined(RM_NO_INLINE)
/* As in <jeff/inline.h>, which is not there. */
struct rm_reader {
    uint32_t depth;
    uint32_t registered;
    uint64_t sequence;
};
#endif

struct jf_reader_node {
    struct rm_reader *reader;
    struct jf_reader_node *next;
};

struct jf_readers {
    jf_mutex mutex;
    struct jf_reader_node *first;
    uint32_t any;       /* some thread has ever opened a section */
    uint32_t fence_all; /* readers rely on a fence on all threads; else they fence themselves */
};

void jf_readers_init(struct jf_readers *readers);

/* Adds or takes out the calling thread's section. Adding waits for nobody. */
void jf_readers_add(struct jf_readers *readers, struct jf_reader_node *node,
                    struct rm_reader *reader);
void jf_readers_remove(struct jf_readers *readers, struct jf_reader_node *node);

/* Whether no thread has ever opened a section. */
static inline bool jf_readers_none(const struct jf_readers *readers) {
    return __atomic_load_n(&readers->any, __ATOMIC_ACQUIRE) == 0;
}

/* Whether every thread has been outside its section at some time since this call began. Waits at most a
 * few microseconds for sections to end; false when one stays open or the calling thread is in one, or
 * when another thread does not come to the end of such a look.
 * `own` is the calling thread's section, may be NULL. `system_fence`: use the fence on all threads (to be
 * false for fixed heaps, which make no system calls: their readers fence themselves). */
bool jf_readers_quiet(struct jf_readers *readers, const struct rm_reader *own, bool system_fence);

/* After fork: only the calling thread is left. */
void jf_readers_fork_child(struct jf_readers *readers, struct jf_reader_node *own);

#endif
