/* Part of Steve's Valgrind tool, a program of its own.
 * SPDX-License-Identifier: GPL-2.0-or-later; see COPYING.
 *
 * The tool itself: its options, what replaces the program's allocator, and the events of the core. */
#include "pub_tool_clreq.h"
#include "pub_tool_debuginfo.h"
#include "pub_tool_libcassert.h"
#include "pub_tool_libcbase.h"
#include "pub_tool_libcprint.h"
#include "pub_tool_libcproc.h"
#include "pub_tool_machine.h"
#include "pub_tool_mallocfree.h"
#include "pub_tool_options.h"
#include "pub_tool_replacemalloc.h"
#include "pub_tool_stacktrace.h"

#include "steve_tool.h"

#include <asm/unistd.h>

/* Of Valgrind's core: the option --trace-children. */
extern Bool VG_(clo_trace_children);

enum {
    REQUEST_LOCK = VG_USERREQ_TOOL_BASE('S', 'V'),
    REQUEST_UNLOCK,
    STACK_MAX = 64,
    FILES_MAX = 1024,
    IN_RECORD = 16, /* bytes of a path in a record */
};

static const HChar *option_pipe;
static Int option_stacks = 0;
static Bool option_children = False;

/* --- Blocks. */

/* The files of code that were told of, and where the last one looked at lies. */
static const DebugInfo *told[FILES_MAX];
static UInt told_count;
static Addr last_start, last_end;

/* Tells of the file of code that an address is in, the first time. */
static void tell_file(Addr address) {
    const DebugInfo *info;
    struct steve_pipe_record *record;
    const HChar *path;
    UInt i, at, length;
    if (address >= last_start && address < last_end)
        return;
    info = VG_(find_DebugInfo)(VG_(current_DiEpoch)(), address);
    if (info == NULL)
        return;
    last_start = VG_(DebugInfo_get_text_avma)(info);
    last_end = last_start + VG_(DebugInfo_get_text_size)(info);
    for (i = 0; i < told_count && told[i] != info; i++)
        ;
    if (i < told_count || told_count == FILES_MAX)
        return;
    told[told_count++] = info;
    record = steve_record_new(STEVE_PIPE_MODULE, 0);
    record->low = last_start;
    record->high = last_end;
    path = VG_(DebugInfo_get_filename)(info);
    length = (UInt)VG_(strlen)(path);
    for (at = 0; at < length; at += IN_RECORD) {
        ULong words[2] = {0, 0};
        VG_(memcpy)(words, path + at, length - at < IN_RECORD ? length - at : IN_RECORD);
        record = steve_record_new(STEVE_PIPE_MODULE_NAME, 0);
        record->low = words[0];
        record->high = words[1];
    }
    record = steve_record_new(STEVE_PIPE_MODULE_END, 0);
    record->low = (ULong)VG_(DebugInfo_get_text_bias)(info);
}

static void tell_stack(ThreadId thread) {
    Addr frames[STACK_MAX + 2] = {0};
    struct steve_pipe_record *record;
    UInt count, i;
    if (option_stacks == 0)
        return;
    count = VG_(get_StackTrace)(thread, frames, (UInt)option_stacks, NULL, NULL, 0);
    for (i = 0; i < count; i++)
        tell_file(frames[i]);
    record = steve_record_new(STEVE_PIPE_STACK, 0);
    record->reads = count;
    for (i = 0; i < count; i += 2) {
        if (i != 0)
            record = steve_record_new(STEVE_PIPE_FRAMES_MORE, 0);
        record->low = frames[i];
        record->high = frames[i + 1];
    }
}

static void before_record(ThreadId thread) {
    steve_drain();
    steve_flush_run();
    steve_thread = thread;
}

static UInt log2_of(SizeT alignment) {
    UInt log2 = 0;
    while (((SizeT)1 << log2) < alignment)
        log2++;
    return log2;
}

static void *allocate(ThreadId thread, UInt op, SizeT alignment, SizeT size) {
    struct steve_pipe_record *record;
    UInt block;
    if ((SSizeT)size < 0)
        return NULL;
    void *start = VG_(cli_malloc)(alignment, size);
    if (start == NULL)
        return NULL;
    before_record(thread);
    tell_stack(thread);
    block = steve_block_new((Addr)start, size);
    record = steve_record_new(op, block);
    record->low = size;
    record->alignment_log2 = (UChar)(op == STEVE_PIPE_ALIGNED ? log2_of(alignment) : 0);
    return start;
}

static void *tool_malloc(ThreadId thread, SizeT size) {
    return allocate(thread, STEVE_PIPE_MALLOC, (SizeT)VG_(clo_alignment), size);
}

static void *tool_new_aligned(ThreadId thread, SizeT size, SizeT alignment) {
    return allocate(thread, STEVE_PIPE_ALIGNED, alignment, size);
}

static void *tool_memalign(ThreadId thread, SizeT alignment, SizeT size) {
    return allocate(thread, STEVE_PIPE_ALIGNED, alignment, size);
}

static void *tool_calloc(ThreadId thread, SizeT count, SizeT size) {
    if (size != 0 && count > (SizeT)-1 / size)
        return NULL;
    void *start = allocate(thread, STEVE_PIPE_CALLOC, (SizeT)VG_(clo_alignment), count * size);
    if (start != NULL)
        VG_(memset)(start, 0, count * size);
    return start;
}

/* The number of the block that begins there; False when there is none. */
static Bool find_start(const void *start, UInt *ret_block) {
    UInt number = steve_block_at((Addr)start);
    if (number == 0 || steve_blocks[number - 1].start != (Addr)start)
        return False;
    *ret_block = number - 1;
    return True;
}

/* A free of what this recording does not know: a mistake, or a block of the process that forked. */
static void free_unknown(void *start) {
    SizeT size;
    steve_record_new(STEVE_PIPE_FREE, 0)->high = 1;
    if (!steve_block_inherited((Addr)start, &size))
        return;
    steve_block_disown((Addr)start);
    VG_(cli_free)(start);
}

static void tool_free(ThreadId thread, void *start) {
    UInt block;
    before_record(thread);
    if (!find_start(start, &block)) {
        free_unknown(start);
        return;
    }
    steve_record_new(STEVE_PIPE_FREE, block);
    steve_block_free(block);
    VG_(cli_free)(start);
}

static void tool_free_aligned(ThreadId thread, void *start, SizeT alignment) {
    (void)alignment;
    tool_free(thread, start);
}

/* From now on the block is known. */
static void *resize_inherited(ThreadId thread, void *start, SizeT old_size, SizeT size) {
    void *moved = tool_malloc(thread, size);
    if (moved == NULL)
        return NULL;
    VG_(memcpy)(moved, start, old_size < size ? old_size : size);
    free_unknown(start);
    return moved;
}

static void *tool_realloc(ThreadId thread, void *start, SizeT size) {
    SizeT old_size;
    UInt block;
    void *moved;
    if (start == NULL)
        return tool_malloc(thread, size);
    if (size == 0) {
        tool_free(thread, start);
        return NULL;
    }
    if (steve_block_inherited((Addr)start, &old_size))
        return resize_inherited(thread, start, old_size, size);
    if (!find_start(start, &block) || (SSizeT)size < 0)
        return NULL;
    old_size = steve_blocks[block].size;
    moved = VG_(cli_malloc)((SizeT)VG_(clo_alignment), size);
    if (moved == NULL)
        return NULL;
    before_record(thread);
    tell_stack(thread);
    VG_(memcpy)(moved, start, old_size < size ? old_size : size);
    steve_block_clear(block);
    VG_(cli_free)(start);
    steve_block_set(block, (Addr)moved, size);
    steve_record_new(STEVE_PIPE_REALLOC, block)->low = size;
    return moved;
}

static SizeT tool_usable_size(ThreadId thread, void *start) {
    SizeT size;
    UInt block;
    (void)thread;
    if (steve_block_inherited((Addr)start, &size))
        return size;
    return find_start(start, &block) ? steve_blocks[block].size : 0;
}

/* --- Events of the core. */

static Bool tool_client_request(ThreadId thread, UWord *arguments, UWord *ret_value) {
    UInt number;
    if (!VG_IS_TOOL_USERREQ('S', 'V', arguments[0]))
        return False;
    number = steve_block_at(arguments[1]);
    if (number != 0) {
        before_record(thread);
        steve_record_new(arguments[0] == REQUEST_LOCK ? STEVE_PIPE_LOCK : STEVE_PIPE_UNLOCK,
                         number - 1);
    }
    *ret_value = number != 0;
    return True;
}

static void start_turn(ThreadId thread, ULong blocks_done) {
    (void)blocks_done;
    if (thread == steve_thread)
        return;
    steve_drain();
    steve_flush_run();
    steve_thread = thread;
}

/* System calls read and write memory, too. Large ones count once for their first bytes. */
static void access_by_system(ThreadId thread, Addr address, SizeT size, Bool reads) {
    steve_drain();
    steve_thread = thread;
    if (size != 0)
        steve_access(address, size > 0x7fffffff ? 0x7fffffff : (UInt)size, reads, !reads);
}

static void read_by_system(CorePart part, ThreadId thread, const HChar *what, Addr address,
                           SizeT size) {
    (void)what;
    if (part == Vg_CoreSysCall)
        access_by_system(thread, address, size, True);
}

static void written_by_system(CorePart part, ThreadId thread, Addr address, SizeT size) {
    if (part == Vg_CoreSysCall)
        access_by_system(thread, address, size, False);
}

/* The program that exec begins is recorded by a new Valgrind, which opens the pipe again. */
static void before_system_call(ThreadId thread, UInt number, UWord *arguments, UInt count) {
    (void)arguments, (void)count;
    if (number != __NR_execve && number != __NR_execveat)
        return;
    before_record(thread);
    steve_output_flush();
}

static void after_system_call(ThreadId thread, UInt number, UWord *arguments, UInt count,
                              SysRes result) {
    (void)thread, (void)number, (void)arguments, (void)count, (void)result;
}

static void in_child(ThreadId thread) {
    (void)thread;
    /* What was noted and not looked at is the parent's. */
    steve_instrument_init();
    steve_output_restart(option_children);
    if (option_children) {
        steve_blocks_inherit();
        told_count = 0;
        last_start = last_end = 0;
    } else {
        /* Programs that it begins run as they are. */
        VG_(clo_trace_children) = False;
    }
}

/* --- The tool. */

static Bool process_option(const HChar *argument) {
    if (VG_STR_CLO(argument, "--pipe", option_pipe)) {
    } else if (VG_BOOL_CLO(argument, "--children", option_children)) {
    } else if (VG_BINT_CLO(argument, "--stacks", option_stacks, 0, STACK_MAX)) {
    } else {
        return False;
    }
    return True;
}

static void print_usage(void) {
    VG_(printf)
    ("    --pipe=PATH   the pipe to `steve record`\n"
     "    --children=no|yes  record forked processes, too [no]\n"
     "    --stacks=N    frames of the call stack with each allocation [0]\n");
}

static void print_debug_usage(void) {
    VG_(printf)("    (none)\n");
}

static void post_options(void) {
    if (option_pipe == NULL)
        VG_(fmsg_bad_option)("--pipe", "this tool is started by `steve record --accesses`\n");
    steve_instrument_init();
    steve_output_open(option_pipe, option_children);
}

static void finish(Int status) {
    (void)status;
    steve_drain();
    steve_flush_run();
    steve_output_close();
}

static void pre_options(void) {
    VG_(details_name)("steve");
    VG_(details_version)(NULL);
    VG_(details_description)("a recorder of allocations and accesses");
    VG_(details_copyright_author)("Part of Jeff; GPL-2.0-or-later");
    VG_(details_bug_reports_to)("the authors of Jeff");
    VG_(details_avg_translation_sizeB)(350);
    VG_(basic_tool_funcs)(post_options, steve_instrument, finish);
    VG_(needs_command_line_options)(process_option, print_usage, print_debug_usage);
    VG_(needs_client_requests)(tool_client_request);
    VG_(needs_malloc_replacement)
    (tool_malloc, tool_malloc, tool_new_aligned, tool_malloc, tool_new_aligned, tool_memalign,
     tool_calloc, tool_free, tool_free, tool_free_aligned, tool_free, tool_free_aligned,
     tool_realloc, tool_usable_size, 0);
    VG_(needs_syscall_wrapper)(before_system_call, after_system_call);
    VG_(track_start_client_code)(start_turn);
    VG_(track_pre_mem_read)(read_by_system);
    VG_(track_post_mem_write)(written_by_system);
    VG_(atfork)(NULL, NULL, in_child);
}

VG_DETERMINE_INTERFACE_VERSION(pre_options)
