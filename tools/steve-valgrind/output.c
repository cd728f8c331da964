/* Part of Steve's Valgrind tool, a program of its own.
 * SPDX-License-Identifier: GPL-2.0-or-later; see COPYING.
 *
 * Records on their way to the pipe, and runs of accesses being collected. */
#include "pub_tool_libcassert.h"
#include "pub_tool_libcbase.h"
#include "pub_tool_libcfile.h"
#include "pub_tool_libcprint.h"
#include "pub_tool_libcproc.h"
#include "pub_tool_vki.h"

#include "steve_tool.h"

/* Of Valgrind's core: moves a descriptor to where the program cannot close it. */
extern Int VG_(safe_fd)(Int descriptor);

/* What is written at once, up to the second of these, the kernel keeps in one piece; so with several
 * processes on the pipe no more is. */
enum { BUFFER = 64 << 10, BUFFER_SHARED = 4096 };

ThreadId steve_thread;
static Int pipe_descriptor = -1;
/* Begins with a record that tells whose the others are. */
static UChar buffer[BUFFER] __attribute__((aligned(16)));
static UInt used, limit = BUFFER;

/* The run: block + 1, 0 = none. `start` and `size` are the block's, for the quick test. */
static struct {
    UInt number;
    UInt reads, writes;
    Addr start;
    SizeT size;
    SizeT low, high;
} run;

static void write_records(void) {
    const UChar *at = buffer;
    Int left = (Int)used;
    used = sizeof(struct steve_pipe_record);
    while (left > 0 && pipe_descriptor >= 0) {
        Int written = VG_(write)(pipe_descriptor, at, left);
        if (written <= 0) {
            pipe_descriptor = -1;
            VG_(umsg)("steve: the recorder is gone; nothing more is recorded\n");
            return;
        }
        at += written;
        left -= written;
    }
}

/* For a record, and one more with the time: the clock is read only once in a while. */
static void make_room(void) {
    struct steve_pipe_record *record;
    if (used + 2 * sizeof *record <= limit)
        return;
    record = (struct steve_pipe_record *)(void *)(buffer + used);
    used += sizeof *record;
    VG_(memset)(record, 0, sizeof *record);
    record->op = STEVE_PIPE_TIME;
    record->low = VG_(read_millisecond_timer)();
    write_records();
}

struct steve_pipe_record *steve_record_new(UInt op, UInt block) {
    struct steve_pipe_record *record;
    make_room();
    record = (struct steve_pipe_record *)(void *)(buffer + used);
    used += sizeof *record;
    VG_(memset)(record, 0, sizeof *record);
    record->op = (UChar)op;
    record->thread = (UShort)steve_thread;
    record->block = block;
    return record;
}

static void begin(void) {
    struct steve_pipe_record *record = (struct steve_pipe_record *)(void *)buffer;
    VG_(memset)(record, 0, sizeof *record);
    record->op = STEVE_PIPE_FROM;
    record->reads = (UInt)VG_(getpid)();
    used = sizeof *record;
    record = steve_record_new(STEVE_PIPE_START, 0);
    record->low = STEVE_PROTOCOL;
    record->high = VG_(read_millisecond_timer)();
}

void steve_output_open(const HChar *path, Bool shared) {
    Int descriptor = VG_(fd_open)(path, VKI_O_WRONLY, 0);
    limit = shared ? BUFFER_SHARED : BUFFER;
    pipe_descriptor = descriptor >= 0 ? VG_(safe_fd)(descriptor) : -1;
    if (pipe_descriptor >= 0)
        begin();
    else
        VG_(umsg)("steve: the recorder cannot be reached; nothing is recorded\n");
}

void steve_output_flush(void) {
    if (used > sizeof(struct steve_pipe_record))
        write_records();
}

void steve_output_close(void) {
    steve_record_new(STEVE_PIPE_END, 0);
    write_records();
    pipe_descriptor = -1;
}

void steve_output_restart(Bool record) {
    run.number = 0;
    if (pipe_descriptor < 0)
        return;
    if (record) {
        begin();
        return;
    }
    VG_(close)(pipe_descriptor);
    pipe_descriptor = -1;
}

void steve_flush_run(void) {
    struct steve_pipe_record *record;
    if (run.number == 0)
        return;
    if (run.high > run.size)
        run.high = run.size;
    if (run.reads < 256 && run.writes < 256 && steve_thread < 256 && run.high >> 32 == 0) {
        struct steve_pipe_run *brief;
        make_room();
        brief = (struct steve_pipe_run *)(void *)(buffer + used);
        used += sizeof *brief;
        brief->op = STEVE_PIPE_RUN;
        brief->reads = (UChar)run.reads;
        brief->writes = (UChar)run.writes;
        brief->thread = (UChar)steve_thread;
        brief->block = run.number - 1;
        brief->low = (UInt)run.low;
        brief->high = (UInt)run.high;
        run.number = 0;
        return;
    }
    record = steve_record_new(STEVE_PIPE_ACCESS, run.number - 1);
    record->low = run.low;
    record->high = run.high;
    record->reads = run.reads;
    record->writes = run.writes;
    run.number = 0;
}

void steve_access(Addr address, UInt size, Bool reads, Bool writes) {
    SizeT offset = address - run.start;
    if (run.number == 0 || offset >= run.size || run.reads + run.writes > 0x3fffffffu) {
        UInt number = steve_block_at(address);
        if (number == 0)
            return;
        offset = address - steve_blocks[number - 1].start;
        /* Padding behind a block that does not fill its last 16 bytes. */
        if (offset >= steve_blocks[number - 1].size)
            return;
        steve_flush_run();
        run.number = number;
        run.start = steve_blocks[number - 1].start;
        run.size = steve_blocks[number - 1].size;
        run.reads = run.writes = 0;
        run.low = offset;
        run.high = offset;
    }
    run.reads += reads;
    run.writes += writes;
    if (offset < run.low)
        run.low = offset;
    if (offset + size > run.high)
        run.high = offset + size;
}
