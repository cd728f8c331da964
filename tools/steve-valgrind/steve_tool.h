/* Part of Steve's Valgrind tool, a program of its own.
 * SPDX-License-Identifier: GPL-2.0-or-later; see COPYING.
 *
 * The tool attributes every load and store to the heap block it touches, collapses neighbours into
 * runs and writes records (protocol.h) into a pipe. */
#ifndef STEVE_TOOL_H
#define STEVE_TOOL_H

#include "pub_tool_basics.h"
#include "pub_tool_tooliface.h"

#include "protocol.h"

/* --- Blocks (blocks.c): numbers and addresses of what is live. */

typedef struct {
    Addr start;
    SizeT size;
} Block;

extern Block *steve_blocks; /* by number */

/* The number + 1 of the block that has the address, or 0. Constant time. */
UInt steve_block_at(Addr address);

/* Enters a new block, or one resized or moved, under a number; takes it out again. */
UInt steve_block_new(Addr start, SizeT size);
void steve_block_set(UInt block, Addr start, SizeT size);
void steve_block_clear(UInt block);
void steve_block_free(UInt block);

/* In a forked child: no block is known any more, so that its recording begins with none. What the
 * parent had allocated can still be asked for by address, and taken off that list. */
void steve_blocks_inherit(void);
Bool steve_block_inherited(Addr start, SizeT *ret_size);
void steve_block_disown(Addr start);

/* --- Output (output.c). */

extern ThreadId steve_thread;

/* Opens the pipe and begins the recording of this process. `shared`: other processes may write into
 * the same pipe. */
void steve_output_open(const HChar *path, Bool shared);

/* Ends the recording. */
void steve_output_close(void);

/* In a forked child: forgets what is the parent's, and begins a recording of its own or none. */
void steve_output_restart(Bool record);

/* Writes what is buffered, as before the process becomes another program. */
void steve_output_flush(void);

struct steve_pipe_record *steve_record_new(UInt op, UInt block);

/* An access of `size` bytes; a run grows or another begins. */
void steve_access(Addr address, UInt size, Bool reads, Bool writes);

/* Writes the run of accesses that is being collected, as before any other record. */
void steve_flush_run(void);

/* --- Instrumentation (instrument.c): every superblock notes the addresses it touches in a buffer. */

IRSB *steve_instrument(VgCallbackClosure *closure, IRSB *block, const VexGuestLayout *layout,
                       const VexGuestExtents *extents, const VexArchInfo *host, IRType guest_word,
                       IRType host_word);
void steve_instrument_init(void);

/* Takes what is noted out of the buffer. To be called before anything but an access is recorded. */
void steve_drain(void);

#endif
