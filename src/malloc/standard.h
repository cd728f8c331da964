/* Arguments of the standard calls as the standards say: which alignments are none, what errno is then.
 * Used under the prefixed and under the standard names.
 */
#ifndef JEFF_MALLOC_STANDARD_H
#define JEFF_MALLOC_STANDARD_H

#include "malloc/fast.h"

#include <errno.h>

static inline void *jf_standard_aligned_alloc(size_t alignment, size_t size) {
    if (!jf_bits_is_power_of_two(alignment)) {
        jf_os_set_errno(JF_OS_EINVAL);
        return NULL;
    }
    return jf_malloc_aligned(alignment, size);
}

static inline void *jf_standard_memalign(size_t alignment, size_t size) {
    if (alignment > SIZE_MAX / 2 + 1) {
        jf_os_set_errno(JF_OS_EINVAL);
        return NULL;
    }
    return jf_malloc_aligned((size_t)1 << jf_bits_log2_up(alignment == 0 ? 1 : alignment), size);
}

static inline int jf_standard_posix_memalign(void **ret_pointer, size_t alignment, size_t size) {
    if (!jf_bits_is_power_of_two(alignment) || alignment % sizeof(void *) != 0)
        return EINVAL;
    int saved = jf_os_save_errno();
    void *pointer = jf_malloc_aligned(alignment, size);
    jf_os_restore_errno(saved);
    if (pointer == NULL)
        return ENOMEM;
    *ret_pointer = pointer;
    return 0;
}

static inline void *jf_standard_pvalloc(size_t size) {
    size_t page = jf_os_page_size();
    size_t whole;
    if (!jf_bits_add(size, page - 1, &whole)) {
        jf_os_set_errno(JF_OS_ENOMEM);
        return NULL;
    }
    return jf_malloc_aligned(page, whole & ~(page - 1));
}

/* The hot form of free with a size. */
static inline void jf_fast_free_sized(void *pointer, size_t size, const char *call) {
    if (RM_LIKELY(size <= JF_SMALL_MAX) &&
        RM_LIKELY(jf_fast_put(jf_cache_front, pointer, jf_bin_of[(size + 15) / 16])))
        return;
    jf_malloc_free_sized(pointer, 1, size, call);
}

static inline void jf_standard_free_aligned_sized(void *pointer, size_t alignment, size_t size) {
    if (pointer != NULL && !jf_bits_is_power_of_two(alignment))
        jf_malloc_report("free_aligned_sized", pointer, "its alignment is no power of two");
    jf_malloc_free_sized(pointer, alignment, size, "free_aligned_sized");
}

#endif
