/* The last words of a program that misuses malloc: one line that names the call, the pointer and what is
 * wrong. Uses no memory and no stdio: the heap may be broken.
 */
#include "malloc/facade.h"

#include "base/line.h"

void jf_malloc_report(const char *call, const void *pointer, const char *what) {
    struct jf_line line;
    jf_line_start(&line);
    jf_line_add(&line, "jeff: ");
    jf_line_add(&line, call);
    jf_line_add(&line, ": pointer ");
    jf_line_add_address(&line, (uintptr_t)pointer);
    jf_line_add(&line, ": ");
    jf_line_add(&line, what);
    jf_os_print_line(line.text);
    jf_os_abort();
}

void jf_malloc_report_pointer(const char *call, const void *pointer) {
    uintptr_t address = (uintptr_t)pointer;
    const struct jf_span *span = jf_central_span_at(address);
    if (span != NULL)
        jf_malloc_report(call, pointer, "it is not the start of a block");
    const struct jf_huge *huge = jf_huge_at(address);
    if (huge != NULL)
        jf_malloc_report(call, pointer, "it is not the start of a block");
    const char *known = jf_malloc.explain != NULL ? jf_malloc.explain(address) : NULL;
    if (known != NULL)
        jf_malloc_report(call, pointer, known);
    if (address - jf_malloc.base < jf_malloc_units() << JF_UNIT_SHIFT)
        jf_malloc_report(call, pointer, "no block lies there; it may have been freed before");
    jf_malloc_report(call, pointer, "malloc has not given it out");
}
