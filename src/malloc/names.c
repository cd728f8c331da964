/* The standard names, for libjeff-malloc: in place of the C library's own. Their meaning is that of the
 * prefixed calls in <jeff/malloc.h>.
 */
#include "malloc/standard.h"

#include <jeff/malloc.h>

#include <malloc.h>
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
