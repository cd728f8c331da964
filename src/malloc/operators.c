/* What the C++ operators call: see operators.h. */
#include "malloc/operators.h"

#include "malloc/standard.h"

void *jf_operator_new(size_t size) {
    return jf_fast_malloc_bytes(size);
}

void *jf_operator_new_aligned(size_t size, size_t alignment) {
    return jf_standard_aligned_alloc(alignment, size);
}

void jf_operator_delete(void *pointer) {
    jf_fast_free(pointer, "operator delete");
}

void jf_operator_delete_sized(void *pointer, size_t size) {
    jf_fast_free_sized(pointer, size, "operator delete");
}

void jf_operator_delete_aligned(void *pointer, size_t size, size_t alignment) {
    jf_malloc_free_sized(pointer, alignment, size, "operator delete");
}

void jf_operator_fail(void) {
    jf_os_print_line("jeff: operator new: no memory, and no C++ runtime to throw bad_alloc");
    jf_os_abort();
}
