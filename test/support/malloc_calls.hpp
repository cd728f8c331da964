// The malloc facade under the names a test program is compiled for: the prefixed ones of <jeff/malloc.h>, or with
// JF_TEST_STANDARD_NAMES the standard ones, which libjeff-malloc defines.
#pragma once

#include <jeff/malloc.h>

#include <cstdlib>
#include <malloc.h>

#if defined(JF_TEST_STANDARD_NAMES)
#define CALL(name) ::name
extern "C" void free_sized(void *pointer, size_t size);
extern "C" void free_aligned_sized(void *pointer, size_t alignment, size_t size);
#else
#define CALL(name) ::jeff_##name
#endif

namespace support {

// Keeps the compiler from knowing what a value is, and so from judging its use.
template <typename T> T hide(T value) {
    asm volatile("" : "+r"(value) : : "memory");
    return value;
}

} // namespace support
