/* A sampled profile of what is allocated: one block for every `rate` bytes or so, with the calls that led to
 * it, written in the text form of heap profiles that pprof reads ("heap_v2").
 */
#ifndef JEFF_MALLOC_PROFILE_H
#define JEFF_MALLOC_PROFILE_H

#include "malloc/facade.h"

/* Reads JEFF_PROFILE (a path, or NULL), JEFF_PROFILE_RATE (bytes) and JEFF_PROFILE_SIGNAL (a number) and
 * begins. False when there is nothing to do, or no memory for it. */
bool jf_profile_start(const char *path);

/* A block of `size` bytes was allocated; may sample it. */
void jf_profile_allocated(struct jf_cache *cache, const void *pointer, size_t size);

/* A block is about to be freed. */
void jf_profile_freed(const void *pointer);

/* Writes the profile to PATH.PID.NUMBER and, when `leaks`, says in one line what is still allocated. */
void jf_profile_write(bool leaks);

/* Around fork: the process is not copied in the middle of a change. */
void jf_profile_fork_prepare(void);
void jf_profile_fork_done(void);

#endif
