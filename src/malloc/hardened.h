/* What the hardened mode puts around every block: its size and guard bytes behind it, which free looks at;
 * and a quarantine, through which freed cells go before they are given out again, filled with a byte that
 * nobody may change.
 *
 *   block  [ the program's `size` bytes | guard bytes, at least 8 | size under a key ]
 */
#ifndef JEFF_MALLOC_HARDENED_H
#define JEFF_MALLOC_HARDENED_H

#include "malloc/facade.h"

enum { JF_GUARD_MIN = 16 };

/* Writes both behind a block of `size` bytes, in `whole` bytes. */
void jf_guard_write(void *pointer, size_t size, size_t whole);

/* The size of such a block; ends the process when it or a guard byte was written to. */
size_t jf_guard_check(const void *pointer, size_t whole, const char *call);

/* Puts a cell of `whole` bytes into the cache's quarantine, filled; returns the cell that leaves it for
 * that, or NULL. Ends the process when somebody has written to that one meanwhile. Without memory for a
 * quarantine the cell itself is returned. */
void *jf_quarantine_put(struct jf_cache *cache, void *cell, size_t whole);

#endif
