/* The standard names, for libjeff-malloc: in place of the C library's own. Their meaning is that of the
 * prefixed calls in <jeff/malloc.h>.
 */
#include "malloc/figures.h"
#include "malloc/standard.h"

#include <jeff/malloc.h>

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

/* C23; no header of the C library at hand declares them. */
void free_sized(void *pointer, size_t size);
void free_aligned_sized(void *pointer, size_t alignment, size_t size);
/* Gone from the headers, still called by old programs. */
void cfree(void *pointer);

#define EXPORT __attribute__((visibility("default")))

EXPORT void *malloc(size_t size) {
    return jf_fast_malloc_bytes(size);
}

EXPORT void free(void *pointer) {
    jf_fast_free(pointer, "free");
}

EXPORT void cfree(void *pointer) {
    jf_fast_free(pointer, "cfree");
}

EXPORT void *calloc(size_t count, size_t size) {
    return jf_malloc_zeroed(count, size);
}

EXPORT void *realloc(void *pointer, size_t size) {
    return jf_malloc_resize(pointer, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size) {
    return jf_standard_aligned_alloc(alignment, size);
}

EXPORT void *memalign(size_t alignment, size_t size) {
    return jf_standard_memalign(alignment, size);
}

EXPORT int posix_memalign(void **ret_pointer, size_t alignment, size_t size) {
    return jf_standard_posix_memalign(ret_pointer, alignment, size);
}

EXPORT void *valloc(size_t size) {
    return jf_malloc_aligned(jf_os_page_size(), size);
}

EXPORT void *pvalloc(size_t size) {
    return jf_standard_pvalloc(size);
}

EXPORT void free_sized(void *pointer, size_t size) {
    jf_fast_free_sized(pointer, size, "free_sized");
}

EXPORT void free_aligned_sized(void *pointer, size_t alignment, size_t size) {
    jf_standard_free_aligned_sized(pointer, alignment, size);
}

EXPORT size_t malloc_usable_size(void *pointer) {
    return jf_malloc_usable(pointer);
}

EXPORT int malloc_trim(size_t pad) {
    return jeff_malloc_trim(pad);
}

EXPORT void malloc_stats(void) {
    jeff_malloc_stats();
}

static void print_to_file(void *context, const char *line) {
    FILE *file = context;
    fputs(line, file);
    fputc('\n', file);
}

EXPORT int malloc_info(int options, FILE *file) {
    if (options != 0)
        return EINVAL;
    jf_figures_print(JF_FIGURES_XML, print_to_file, file);
    return 0;
}

EXPORT struct mallinfo2 mallinfo2(void) {
    struct jf_figures figures;
    jf_figures_take(&figures);
    return (struct mallinfo2){
        .arena = figures.span_bytes,
        .ordblks = figures.free_cells,
        .smblks = figures.cached_cells,
        .hblks = figures.huge_blocks,
        .hblkhd = figures.huge,
        .fsmblks = figures.cached,
        .uordblks = figures.used,
        .fordblks = figures.cached + figures.free,
        .keepcost = figures.kept,
    };
}

static int capped(size_t value) {
    return value < INT_MAX ? (int)value : INT_MAX;
}

EXPORT struct mallinfo mallinfo(void) {
    struct mallinfo2 all = mallinfo2();
    return (struct mallinfo){
        .arena = capped(all.arena),
        .ordblks = capped(all.ordblks),
        .smblks = capped(all.smblks),
        .hblks = capped(all.hblks),
        .hblkhd = capped(all.hblkhd),
        .fsmblks = capped(all.fsmblks),
        .uordblks = capped(all.uordblks),
        .fordblks = capped(all.fordblks),
        .keepcost = capped(all.keepcost),
    };
}

/* The C library's own settings have no counterpart here: accepted, without effect. */
EXPORT int mallopt(int parameter, int value) {
    (void)parameter;
    (void)value;
    return 1;
}

static void print_to_stderr(void *context, const char *line) {
    (void)context;
    jf_os_print_line(line);
}

/* JEFF_STATS=1 as text, JEFF_STATS=json as JSON, when the program ends. */
__attribute__((destructor)) static void print_at_exit(void) {
    const char *value = jf_os_environment("JEFF_STATS");
    if (value == NULL)
        return;
    if (value[0] == '1')
        jf_figures_print(JF_FIGURES_TEXT, print_to_stderr, NULL);
    else if (value[0] == 'j')
        jf_figures_print(JF_FIGURES_JSON, print_to_stderr, NULL);
}
