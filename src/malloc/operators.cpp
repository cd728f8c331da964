// The C++ operators new and delete in all their forms, for libjeff-malloc. The library is to serve C programs
// without pulling in the C++ runtime, so what is used of that is referred to weakly: it is there whenever
// somebody calls these.
#include "malloc/operators.h"

#include <new>

// Called by nobody in a program without C++.
__asm__(".weak __gxx_personality_v0\n"
        ".weak __cxa_begin_catch\n"
        ".weak __cxa_end_catch\n"
        ".weak __cxa_rethrow\n"
        ".weak _ZSt9terminatev\n");

namespace std {
[[noreturn]] __attribute__((weak)) void __throw_bad_alloc();
}
extern "C++" __attribute__((weak)) std::new_handler std::get_new_handler() noexcept;

namespace {

void *allocate(std::size_t size, std::size_t alignment) noexcept {
    return alignment == 0 ? jf_operator_new(size) : jf_operator_new_aligned(size, alignment);
}

// The new handler may free memory, throw, or not return; without one it is bad_alloc.
__attribute__((noinline, cold)) void *retry(std::size_t size, std::size_t alignment) {
    for (;;) {
        std::new_handler handler =
            std::get_new_handler != nullptr ? std::get_new_handler() : nullptr;
        if (handler == nullptr) {
            if (std::__throw_bad_alloc != nullptr)
                std::__throw_bad_alloc();
            jf_operator_fail();
        }
        handler();
        void *pointer = allocate(size, alignment);
        if (pointer != nullptr)
            return pointer;
    }
}

inline void *get(std::size_t size, std::size_t alignment) {
    void *pointer = allocate(size, alignment);
    return __builtin_expect(pointer != nullptr, 1) ? pointer : retry(size, alignment);
}

__attribute__((noinline, cold)) void *retry_or_null(std::size_t size,
                                                    std::size_t alignment) noexcept {
    try {
        return retry(size, alignment);
    } catch (...) {
        return nullptr;
    }
}

inline void *get_or_null(std::size_t size, std::size_t alignment) noexcept {
    void *pointer = allocate(size, alignment);
    return __builtin_expect(pointer != nullptr, 1) ? pointer : retry_or_null(size, alignment);
}

} // namespace

#define EXPORT __attribute__((visibility("default")))

EXPORT void *operator new(std::size_t size) {
    return get(size, 0);
}

EXPORT void *operator new[](std::size_t size) {
    return get(size, 0);
}

EXPORT void *operator new(std::size_t size, const std::nothrow_t &) noexcept {
    return get_or_null(size, 0);
}

EXPORT void *operator new[](std::size_t size, const std::nothrow_t &) noexcept {
    return get_or_null(size, 0);
}

EXPORT void *operator new(std::size_t size, std::align_val_t alignment) {
    return get(size, static_cast<std::size_t>(alignment));
}

EXPORT void *operator new[](std::size_t size, std::align_val_t alignment) {
    return get(size, static_cast<std::size_t>(alignment));
}

EXPORT void *operator new(std::size_t size, std::align_val_t alignment,
                          const std::nothrow_t &) noexcept {
    return get_or_null(size, static_cast<std::size_t>(alignment));
}

EXPORT void *operator new[](std::size_t size, std::align_val_t alignment,
                            const std::nothrow_t &) noexcept {
    return get_or_null(size, static_cast<std::size_t>(alignment));
}

EXPORT void operator delete(void *pointer) noexcept {
    jf_operator_delete(pointer);
}

EXPORT void operator delete[](void *pointer) noexcept {
    jf_operator_delete(pointer);
}

EXPORT void operator delete(void *pointer, const std::nothrow_t &) noexcept {
    jf_operator_delete(pointer);
}

EXPORT void operator delete[](void *pointer, const std::nothrow_t &) noexcept {
    jf_operator_delete(pointer);
}

EXPORT void operator delete(void *pointer, std::size_t size) noexcept {
    jf_operator_delete_sized(pointer, size);
}

EXPORT void operator delete[](void *pointer, std::size_t size) noexcept {
    jf_operator_delete_sized(pointer, size);
}

EXPORT void operator delete(void *pointer, std::align_val_t) noexcept {
    jf_operator_delete(pointer);
}

EXPORT void operator delete[](void *pointer, std::align_val_t) noexcept {
    jf_operator_delete(pointer);
}

EXPORT void operator delete(void *pointer, std::align_val_t, const std::nothrow_t &) noexcept {
    jf_operator_delete(pointer);
}

EXPORT void operator delete[](void *pointer, std::align_val_t, const std::nothrow_t &) noexcept {
    jf_operator_delete(pointer);
}

EXPORT void operator delete(void *pointer, std::size_t size, std::align_val_t alignment) noexcept {
    jf_operator_delete_aligned(pointer, size, static_cast<std::size_t>(alignment));
}

EXPORT void operator delete[](void *pointer, std::size_t size,
                              std::align_val_t alignment) noexcept {
    jf_operator_delete_aligned(pointer, size, static_cast<std::size_t>(alignment));
}
