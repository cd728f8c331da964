// The C++ operators new and delete of libjeff-malloc in all their forms, and what they do without memory.
#include <gtest/gtest.h>

#include <jeff/malloc.h>

#include <cstdint>
#include <new>
#include <stdexcept>

// Not every compiler declares these by itself.
void operator delete(void *pointer, std::size_t size) noexcept;
void operator delete[](void *pointer, std::size_t size) noexcept;
void operator delete(void *pointer, std::size_t size, std::align_val_t alignment) noexcept;
void operator delete[](void *pointer, std::size_t size, std::align_val_t alignment) noexcept;

namespace {

constexpr std::align_val_t wide = std::align_val_t{256};

template <typename T> T hide(T value) {
    asm volatile("" : "+r"(value) : : "memory");
    return value;
}

const size_t impossible = hide(SIZE_MAX / 2);

bool is_ours(void *pointer, size_t alignment) {
    return jeff_malloc_usable_size(pointer) >= 100 &&
           reinterpret_cast<uintptr_t>(pointer) % alignment == 0;
}

TEST(Operators, EveryFormOfNewIsServedAndEveryFormOfDeleteFrees) {
    void *block = operator new(100);
    EXPECT_TRUE(is_ours(block, 16));
    operator delete(block);
    block = operator new[](100);
    EXPECT_TRUE(is_ours(block, 16));
    operator delete[](block);
    block = operator new(100, std::nothrow);
    EXPECT_TRUE(is_ours(block, 16));
    operator delete(block, std::nothrow);
    block = operator new[](100, std::nothrow);
    EXPECT_TRUE(is_ours(block, 16));
    operator delete[](block, std::nothrow);
    block = operator new(100);
    operator delete (block, size_t{100});
    block = operator new[](100);
    operator delete[](block, size_t{100});
    block = operator new(100, wide);
    EXPECT_TRUE(is_ours(block, 256));
    operator delete(block, wide);
    block = operator new[](100, wide);
    EXPECT_TRUE(is_ours(block, 256));
    operator delete[](block, wide);
    block = operator new(100, wide, std::nothrow);
    EXPECT_TRUE(is_ours(block, 256));
    operator delete(block, wide, std::nothrow);
    block = operator new[](100, wide, std::nothrow);
    EXPECT_TRUE(is_ours(block, 256));
    operator delete[](block, wide, std::nothrow);
    block = operator new(100, wide);
    operator delete (block, size_t{100}, wide);
    block = operator new[](100, wide);
    operator delete[](block, size_t{100}, wide);
}

TEST(Operators, WithoutMemoryNewThrowsAndItsOtherFormReturnsNull) {
    EXPECT_THROW(operator delete(operator new(impossible)), std::bad_alloc);
    EXPECT_THROW(operator delete[](operator new[](impossible)), std::bad_alloc);
    EXPECT_THROW(operator delete(operator new(impossible, wide), wide), std::bad_alloc);
    EXPECT_EQ(nullptr, operator new(impossible, std::nothrow));
    EXPECT_EQ(nullptr, operator new[](impossible, wide, std::nothrow));
}

int calls;

TEST(Operators, TheNewHandlerIsAskedUntilItGivesUp) {
    calls = 0;
    std::set_new_handler([] {
        if (++calls == 3)
            std::set_new_handler(nullptr);
    });
    EXPECT_THROW(operator delete(operator new(impossible)), std::bad_alloc);
    EXPECT_EQ(3, calls);
}

TEST(Operators, WhatTheNewHandlerThrowsPassesThroughOrIsCaught) {
    std::set_new_handler([] { throw std::bad_alloc(); });
    EXPECT_THROW(operator delete(operator new(impossible)), std::bad_alloc);
    EXPECT_EQ(nullptr, operator new(impossible, std::nothrow));
    std::set_new_handler(nullptr);
}

TEST(OperatorsDeathTest, AWrongSizeAtDeleteIsFound) {
    testing::FLAGS_gtest_death_test_style = "fast";
    void *block = operator new(100);
    EXPECT_DEATH(operator delete (block, size_t{1000}), "jeff: operator delete: .*another size");
    EXPECT_DEATH((operator delete(hide(block)), operator delete(hide(block))), "freed before");
    operator delete(block);
}

} // namespace
