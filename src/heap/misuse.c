/* Puts the line of a misuse report together and decides how it ends. Uses no memory and no stdio: the
 * heap may be broken.
 */
#include "heap/misuse.h"

#include "base/line.h"

static const char *what(enum rm_misuse_kind kind) {
    switch (kind) {
    case RM_MISUSE_NULL_HANDLE:
        return "NULL handle";
    case RM_MISUSE_FOREIGN_HANDLE:
        return "foreign handle";
    case RM_MISUSE_STALE_HANDLE:
        return "stale handle";
    case RM_MISUSE_HEAP_FAULT:
        return "heap fault";
    case RM_MISUSE_READ_SECTION:
        return "read section";
    case RM_MISUSE_BAD_ARGUMENT:
        return "bad argument";
    case RM_MISUSE_DOUBLE_FREE:
    case RM_MISUSE_FOREIGN_POINTER:
    case RM_MISUSE_WRONG_POOL:
        return "element";
    default:
        return "handle";
    }
}

static const char *why(enum rm_misuse_kind kind) {
    switch (kind) {
    case RM_MISUSE_NULL_HANDLE:
        return "a block is needed here";
    case RM_MISUSE_FOREIGN_HANDLE:
        return "no heap gave it out";
    case RM_MISUSE_STALE_HANDLE:
        return "the block was freed before";
    case RM_MISUSE_FREE_LOCKED:
        return "the block is locked";
    case RM_MISUSE_UNLOCK_UNLOCKED:
        return "the block is not locked";
    case RM_MISUSE_LOCK_OVERFLOW:
        return "too many locks at a time";
    case RM_MISUSE_READ_SECTION:
        return "none is open";
    case RM_MISUSE_DOUBLE_FREE:
        return "it was freed before";
    case RM_MISUSE_FOREIGN_POINTER:
        return "no element of a pool lies there";
    case RM_MISUSE_WRONG_POOL:
        return "it belongs to another pool";
    default:
        return NULL;
    }
}

static unsigned handle_generation(rmhandle_t handle) {
#if UINTPTR_MAX == UINT64_MAX
    return (unsigned)((uintptr_t)handle >> 52);
#else
    return (unsigned)(uintptr_t)handle & 0xff;
#endif
}

/* What was found in the entry, as far as it explains this kind of misuse. */
static void add_word(struct jf_line *line, const struct jf_misuse *misuse, const char *separator) {
    switch (misuse->kind) {
    case RM_MISUSE_STALE_HANDLE:
        jf_line_add(line, separator);
        jf_line_add(line, "generation ");
        jf_line_add_number(line, handle_generation(misuse->handle));
        jf_line_add(line, ", entry now ");
        jf_line_add_number(line, jf_entry_generation(misuse->word));
        break;
    case RM_MISUSE_FREE_LOCKED:
    case RM_MISUSE_LOCK_OVERFLOW:
        jf_line_add(line, separator);
        jf_line_add_number(line, jf_entry_count(misuse->word));
        jf_line_add(line, jf_entry_count(misuse->word) == 1 ? " lock" : " locks");
        break;
    default:
        break;
    }
}

static void add_context(struct jf_line *line, const struct jf_misuse *misuse) {
    struct jf_line context;
    jf_line_start(&context);
    if (misuse->heap != NULL) {
        jf_line_add(&context, "heap ");
        jf_line_add_address(&context, (uintptr_t)misuse->heap);
    }
    if (misuse->has_word)
        add_word(&context, misuse, context.length != 0 ? ", " : "");
    if (misuse->has_seed) {
        jf_line_add(&context, context.length != 0 ? ", scramble seed " : "scramble seed ");
        jf_line_add_number(&context, misuse->seed);
    }
    if (context.length == 0)
        return;
    jf_line_add(line, " (");
    jf_line_add(line, context.text);
    jf_line_add(line, ")");
}

void jf_misuse_line(const struct jf_misuse *misuse, struct jf_line *ret_line) {
    jf_line_start(ret_line);
    jf_line_add(ret_line, "jeff: ");
    jf_line_add(ret_line, misuse->call);
    jf_line_add(ret_line, ": ");
    jf_line_add(ret_line, what(misuse->kind));
    if (misuse->rule_name != NULL) {
        jf_line_add(ret_line, ", rule ");
        jf_line_add_number(ret_line, (uint64_t)misuse->rule);
        jf_line_add(ret_line, " ");
        jf_line_add(ret_line, misuse->rule_name);
    }
    if (misuse->handle != NULL) {
        jf_line_add(ret_line, " ");
        jf_line_add_address(ret_line, (uintptr_t)misuse->handle);
    }
    add_context(ret_line, misuse);
    const char *reason = misuse->detail != NULL ? misuse->detail : why(misuse->kind);
    if (reason != NULL) {
        jf_line_add(ret_line, ": ");
        jf_line_add(ret_line, reason);
    }
}

void jf_misuse_report(const struct jf_misuse *misuse, const struct jf_options *options) {
    struct jf_line line;
    jf_misuse_line(misuse, &line);
    if (options != NULL && options->misuse != NULL) {
        struct rm_misuse told = {
            .kind = misuse->kind,
            .call = misuse->call,
            .handle = misuse->handle,
            .heap = (rmheap_t)misuse->heap,
            .message = line.text,
        };
        if (options->misuse(options->context, &told) != 0)
            return;
    }
    jf_os_print_line(line.text);
    jf_os_abort();
}
