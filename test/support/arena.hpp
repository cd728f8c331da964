// What the tests of the arena share: windows, filling, looking for zeros.
#ifndef JEFF_TEST_SUPPORT_ARENA_HPP
#define JEFF_TEST_SUPPORT_ARENA_HPP

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

extern "C" {
#include "arena/arena.h"
}

namespace arena_test {

constexpr size_t unit = JF_UNIT_SIZE;
constexpr size_t mib = size_t{1} << 20;

struct Destroy {
    void operator()(jf_arena *arena) const {
        jf_arena_destroy(arena);
    }
};
using ArenaPointer = std::unique_ptr<jf_arena, Destroy>;

inline ArenaPointer make_arena(unsigned shift, unsigned share_shift = 6, size_t table_max = mib) {
    return ArenaPointer(jf_arena_create(shift, shift, share_shift, table_max));
}

inline size_t size_of(unsigned order) {
    return unit << order;
}

inline char *bytes(uintptr_t address) {
    return reinterpret_cast<char *>(address);
}

inline void fill(uintptr_t address, size_t size) {
    std::memset(bytes(address), 0x5a, size);
}

inline bool reads_as_zero(uintptr_t address, size_t size) {
    return bytes(address)[0] == 0 && std::memcmp(bytes(address), bytes(address) + 1, size - 1) == 0;
}

// A window of 1 GiB with a table of 1 MiB; whole at the end of every test.
class Arena : public ::testing::Test {
  protected:
    Arena() : owner(make_arena(30)), arena(owner.get()) {}

    void TearDown() override {
        ASSERT_NE(arena, nullptr);
        EXPECT_STREQ(jf_arena_check(arena), nullptr);
    }

    uintptr_t alloc(unsigned order, bool *ret_zero = nullptr) {
        return jf_arena_alloc(arena, order, JF_CHUNK_REGION, this, ret_zero);
    }

    uintptr_t alloc_filled(unsigned order) {
        uintptr_t address = alloc(order);
        fill(address, size_of(order));
        return address;
    }

    void free(uintptr_t address, size_t dirty_size) {
        jf_arena_free(arena, address, dirty_size);
    }

    ArenaPointer owner;
    jf_arena *arena;
};

} // namespace arena_test

#endif
