/* Strings: arrays of char that are always terminated. Hosted builds only, for vsnprintf. */
#include "collections/array.h"

#include <stdio.h>

static bool open_string(struct jf_array *ret_open, rmarray_t string, const char *call) {
    if (!jf_array_open(ret_open, string, call))
        return false;
    if (jf_array_is_string(ret_open))
        return true;
    jf_array_close(ret_open);
    jf_os_set_errno(JF_OS_EINVAL);
    return false;
}

int rmarray_append_string(rmarray_t string, const char *text) {
    struct jf_array open;
    size_t count = strlen(text);
    if (!open_string(&open, string, "rmarray_append_string"))
        return -1;
    if (!jf_array_make_room(&open, count))
        return jf_array_fail(&open);
    memcpy(open.elements + open.length, text, count);
    jf_array_set_length(&open, open.length + count);
    jf_array_close(&open);
    return 0;
}

/* Prints into the capacity behind the last character; gives the characters there would be, or -1. */
static int print(const struct jf_array *open, const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it does not know va_copy */
    int count = vsnprintf((char *)open->elements + open->length,
                          jf_array_capacity(open) - open->length + 1, format, again);
    va_end(again);
    return count;
}

int rmarray_vprintf(rmarray_t string, const char *format, va_list arguments) {
    struct jf_array open;
    if (!open_string(&open, string, "rmarray_printf"))
        return -1;
    int count = print(&open, format, arguments);
    bool done = count >= 0;
    if (!done)
        jf_os_set_errno(JF_OS_EINVAL);
    if (done && (size_t)count > jf_array_capacity(&open) - open.length) {
        done = jf_array_make_room(&open, (size_t)count);
        if (done)
            print(&open, format, arguments);
    }
    if (open.elements == NULL)
        return -1;
    /* also when it failed: what was printed in part is cut off */
    jf_array_set_length(&open, done ? open.length + (size_t)count : open.length);
    jf_array_close(&open);
    return done ? 0 : -1;
}

int rmarray_printf(rmarray_t string, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int result = rmarray_vprintf(string, format, arguments);
    va_end(arguments);
    return result;
}
