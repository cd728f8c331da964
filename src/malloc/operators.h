/* What the C++ operators call: the facade's own headers are C. */
#ifndef JEFF_MALLOC_OPERATORS_H
#define JEFF_MALLOC_OPERATORS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* NULL when there is no memory. */
void *jf_operator_new(size_t size);
void *jf_operator_new_aligned(size_t size, size_t alignment);

void jf_operator_delete(void *pointer);
void jf_operator_delete_sized(void *pointer, size_t size);
void jf_operator_delete_aligned(void *pointer, size_t size, size_t alignment);

/* There is no memory, and no C++ runtime to say so to. */
#ifdef __cplusplus
[[noreturn]]
#else
__attribute__((noreturn))
#endif
void jf_operator_fail(void);

#ifdef __cplusplus
}
#endif

#endif
