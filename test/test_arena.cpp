// The arena: chunks, the map from address to chunk, dirty memory, refusals, threads, the checker.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

// The arena's own structure is C with its atomics; here it is damaged on purpose.
#define _STDATOMIC_H
#define _GLIBCXX_STDATOMIC_H
#define __CLANG_STDATOMIC_H
#define _Atomic(type) std::atomic<type>
#define _Alignas(bytes) alignas(bytes)
#if !defined(__clang__)
#define _Static_assert static_assert
#endif
using std::atomic_bool;
using std::atomic_load_explicit;
using std::atomic_size_t;
using std::atomic_uchar;
using std::atomic_uint;
using std::memory_order_acquire;
extern "C" {
#include "arena/internal.h"
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNDER_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNDER_SANITIZER 1
#endif
#endif
#if !defined(UNDER_SANITIZER)
#define UNDER_SANITIZER 0
#endif

namespace {

constexpr size_t unit = JF_UNIT_SIZE;
constexpr size_t mib = size_t{1} << 20;

struct Destroy {
    void operator()(jf_arena *arena) const {
        jf_arena_destroy(arena);
    }
};
using ArenaPointer = std::unique_ptr<jf_arena, Destroy>;

ArenaPointer make_arena(unsigned shift, unsigned share_shift = 6, size_t table_max = mib) {
    return ArenaPointer(jf_arena_create(shift, shift, share_shift, table_max));
}

size_t size_of(unsigned order) {
    return unit << order;
}

char *bytes(uintptr_t address) {
    return reinterpret_cast<char *>(address);
}

void fill(uintptr_t address, size_t size) {
    std::memset(bytes(address), 0x5a, size);
}

bool reads_as_zero(uintptr_t address, size_t size) {
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

} // namespace

// --- Creation

TEST_F(Arena, WindowIsAlignedToItsSizeAndTheTableIsKeptOut) {
    EXPECT_EQ(jf_arena_size(arena), size_t{1} << 30);
    EXPECT_EQ(jf_arena_base(arena) % jf_arena_size(arena), 0u);
    EXPECT_EQ(jf_arena_table_size(arena), mib);
    EXPECT_EQ(alloc(0), jf_arena_base(arena) + mib);
    EXPECT_EQ(jf_arena_find(arena, jf_arena_base(arena)).kind, JF_CHUNK_NONE);
}

TEST(ArenaCreate, TableIsTheShareOrTheMostWhicheverIsLess) {
    EXPECT_EQ(jf_arena_table_size(make_arena(30, 4, size_t{1} << 40).get()), 64 * mib);
    EXPECT_EQ(jf_arena_table_size(make_arena(30, 4, 3 * mib + 5).get()), 3 * mib);
    EXPECT_EQ(jf_arena_table_size(make_arena(24, 20, mib).get()), unit);
    ArenaPointer none = make_arena(24, 4, 0);
    EXPECT_EQ(jf_arena_table_size(none.get()), 0u);
    EXPECT_EQ(jf_arena_alloc(none.get(), 8, JF_CHUNK_LARGE, nullptr, nullptr),
              jf_arena_base(none.get()));
    EXPECT_STREQ(jf_arena_check(none.get()), nullptr);
}

TEST(ArenaCreate, WindowOfOneTebibyteIsUsable) {
    ArenaPointer arena = make_arena(40, 6, size_t{1} << 40);
    if (arena == nullptr) {
        GTEST_SKIP() << "the system does not reserve 1 TiB";
    }
    EXPECT_EQ(jf_arena_table_size(arena.get()), size_t{1} << 34);
    EXPECT_EQ(jf_arena_largest_order(arena.get()), 23);
    uintptr_t half = jf_arena_alloc(arena.get(), 23, JF_CHUNK_HUGE, &arena, nullptr);
    ASSERT_EQ(half, jf_arena_base(arena.get()) + (size_t{1} << 39));
    uintptr_t last = half + (size_t{1} << 39) - 1;
    *bytes(last) = 1;
    EXPECT_EQ(jf_arena_find(arena.get(), last).owner, &arena);
    EXPECT_STREQ(jf_arena_check(arena.get()), nullptr);
    jf_arena_free(arena.get(), half, size_t{1} << 39);
    EXPECT_EQ(jf_arena_dirty(arena.get()), 0u);
    EXPECT_EQ(jf_arena_largest_order(arena.get()), 23);
    EXPECT_STREQ(jf_arena_check(arena.get()), nullptr);
}

TEST(ArenaCreate, LargerThanOneTebibyteIsCutToThat) {
    ArenaPointer arena(jf_arena_create(60, 24, 6, mib));
    ASSERT_NE(arena, nullptr);
    EXPECT_LE(jf_arena_size(arena.get()), size_t{1} << 40);
}

// Exit status of `function` in a child with that much address space left.
template <typename Function> int status_with_address_space(size_t size, Function function) {
    pid_t child = fork();
    if (child == 0) {
        rlimit limit = {size, size};
        setrlimit(RLIMIT_AS, &limit);
        _exit(function());
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ArenaCreate, LimitOfAddressSpaceGivesASmallerWindow) {
    if (UNDER_SANITIZER) {
        GTEST_SKIP() << "a sanitizer needs its address space";
    }
    auto shift_had = [] {
        jf_arena *arena = jf_arena_create(40, 24, 6, size_t{1} << 34);
        if (arena == nullptr) {
            return 0;
        }
        uintptr_t chunk = jf_arena_alloc(arena, 6, JF_CHUNK_REGION, arena, nullptr);
        if (chunk == 0 || jf_arena_meta_alloc(arena, 4096) == nullptr) {
            return 1;
        }
        fill(chunk, size_of(6));
        jf_arena_free(arena, chunk, size_of(6));
        return jf_arena_check(arena) == nullptr ? (int)jf_bits_log2(jf_arena_size(arena)) : 2;
    };
    int large = status_with_address_space(size_t{4} << 30, shift_had);
    EXPECT_GE(large, 31);
    EXPECT_LE(large, 32);
    int small = status_with_address_space(200 * mib, shift_had);
    EXPECT_GE(small, 26);
    EXPECT_LE(small, 27);
    EXPECT_EQ(status_with_address_space(10 * mib, shift_had), 0);
}

TEST(ArenaCreate, BookkeepingOf100MegabytesIsAFewDozenKibibytes) {
    ArenaPointer arena(jf_arena_create(40, 30, 6, size_t{1} << 34));
    ASSERT_NE(arena, nullptr);
    for (int i = 0; i < 25; i++) {
        ASSERT_NE(jf_arena_alloc(arena.get(), 6, JF_CHUNK_REGION, nullptr, nullptr), 0u);
    }
    EXPECT_GT(jf_arena_overhead(arena.get()), 0u);
    EXPECT_LE(jf_arena_overhead(arena.get()), 64u * 1024);
}

// --- Chunks

TEST_F(Arena, ChunksAreAlignedAccessibleAndFoundFromInside) {
    for (unsigned order = 0; order <= 10; order++) {
        int mark = 0;
        uintptr_t chunk = jf_arena_alloc(arena, order, JF_CHUNK_SPAN, &mark, nullptr);
        ASSERT_NE(chunk, 0u);
        EXPECT_EQ((chunk - jf_arena_base(arena)) % size_of(order), 0u);
        *bytes(chunk) = 1;
        *bytes(chunk + size_of(order) - 1) = 1;
        for (uintptr_t inside :
             {chunk, chunk + 1, chunk + size_of(order) / 2, chunk + size_of(order) - 1}) {
            jf_chunk found = jf_arena_find(arena, inside);
            EXPECT_EQ(found.address, chunk);
            EXPECT_EQ(found.order, order);
            EXPECT_EQ(found.kind, JF_CHUNK_SPAN);
            EXPECT_EQ(found.owner, &mark);
            EXPECT_EQ(jf_arena_owner(arena, inside), &mark);
        }
    }
}

TEST_F(Arena, NothingIsFoundOutsideOfLivingChunks) {
    uintptr_t chunk = alloc_filled(4);
    uintptr_t base = jf_arena_base(arena);
    for (uintptr_t wild : {uintptr_t{0}, uintptr_t{1}, base - 1, base, base + jf_arena_size(arena),
                           base + jf_arena_size(arena) - 1, chunk + size_of(4), UINTPTR_MAX}) {
        EXPECT_EQ(jf_arena_find(arena, wild).kind, JF_CHUNK_NONE) << std::hex << wild;
        EXPECT_EQ(jf_arena_find(arena, wild).owner, nullptr) << std::hex << wild;
    }
    free(chunk, size_of(4));
    for (size_t offset = 0; offset < size_of(4); offset += unit) {
        EXPECT_EQ(jf_arena_find(arena, chunk + offset).kind, JF_CHUNK_NONE) << "dirty";
    }
    jf_arena_purge(arena, 0, 0);
    EXPECT_EQ(jf_arena_find(arena, chunk).kind, JF_CHUNK_NONE) << "given back";
}

TEST_F(Arena, LowestPieceOfTheSmallestOrderIsTaken) {
    uintptr_t first = alloc(0);
    uintptr_t second = alloc(0);
    uintptr_t third = alloc(0);
    EXPECT_EQ(second, first + unit);
    EXPECT_EQ(third, second + unit);
    free(third, 0);
    free(first, 0);
    EXPECT_EQ(alloc(0), first);
    EXPECT_EQ(alloc(0), third);
}

TEST_F(Arena, AllUnitsOfASmallWindowCanBeHadAndMergeAgain) {
    ArenaPointer small = make_arena(24);
    std::vector<uintptr_t> chunks;
    while (uintptr_t chunk = jf_arena_alloc(small.get(), 0, JF_CHUNK_REGION, this, nullptr)) {
        fill(chunk, unit);
        chunks.push_back(chunk);
    }
    EXPECT_EQ(chunks.size() * unit, jf_arena_size(small.get()) - jf_arena_table_size(small.get()));
    EXPECT_EQ(jf_arena_largest_order(small.get()), -1);
    EXPECT_STREQ(jf_arena_check(small.get()), nullptr);
    for (size_t i = 0; i < chunks.size(); i += 2) {
        jf_arena_free(small.get(), chunks[i], unit);
    }
    EXPECT_EQ(jf_arena_largest_order(small.get()), 0);
    EXPECT_EQ(jf_arena_alloc(small.get(), 1, JF_CHUNK_REGION, this, nullptr), 0u);
    for (size_t i = 1; i < chunks.size(); i += 2) {
        jf_arena_free(small.get(), chunks[i], unit);
    }
    EXPECT_EQ(jf_arena_largest_order(small.get()), 7);
    EXPECT_NE(jf_arena_alloc(small.get(), 7, JF_CHUNK_REGION, this, nullptr), 0u);
    EXPECT_STREQ(jf_arena_check(small.get()), nullptr);
}

TEST_F(Arena, MoreThanTheWindowIsRefusedAtOnce) {
    uintptr_t kept = alloc_filled(2);
    free(kept, size_of(2));
    EXPECT_EQ(alloc(14), 0u);
    EXPECT_EQ(alloc(63), 0u);
    EXPECT_EQ(jf_arena_dirty(arena), size_of(2)) << "nothing was given back for nothing";
}

TEST_F(Arena, ExtendTakesFreeNeighboursAndReadsAsZero) {
    uintptr_t chunk = alloc(2);
    ASSERT_EQ((chunk - jf_arena_base(arena)) % size_of(4), 0u);
    fill(chunk, size_of(2));
    EXPECT_TRUE(jf_arena_extend(arena, chunk, 4));
    EXPECT_TRUE(reads_as_zero(chunk + size_of(2), size_of(4) - size_of(2)));
    EXPECT_EQ(bytes(chunk)[size_of(2) - 1], 0x5a);
    jf_chunk found = jf_arena_find(arena, chunk + size_of(4) - 1);
    EXPECT_EQ(found.address, chunk);
    EXPECT_EQ(found.order, 4u);
    EXPECT_EQ(found.owner, this);
    EXPECT_EQ(jf_arena_find(arena, chunk + size_of(4)).kind, JF_CHUNK_NONE);
}

TEST_F(Arena, ExtendGivesDirtyNeighboursBackFirst) {
    uintptr_t chunk = alloc_filled(1);
    uintptr_t right = alloc_filled(1);
    uintptr_t far = alloc_filled(2);
    ASSERT_EQ(right, chunk + size_of(1));
    free(right, size_of(1));
    free(far, size_of(2));
    EXPECT_TRUE(jf_arena_extend(arena, chunk, 2));
    EXPECT_TRUE(reads_as_zero(right, size_of(1)));
    EXPECT_EQ(jf_arena_dirty(arena), size_of(2)) << "the one outside keeps its memory";
}

TEST_F(Arena, ExtendIsRefusedByLivingNeighboursAndForUpperBuddies) {
    uintptr_t chunk = alloc(1);
    uintptr_t right = alloc_filled(0);
    uintptr_t beside = alloc(0);
    ASSERT_EQ(right, chunk + size_of(1));
    ASSERT_EQ(beside, right + unit);
    free(right, unit);
    EXPECT_FALSE(jf_arena_extend(arena, chunk, 2)) << "a chunk lies in the way";
    EXPECT_EQ(jf_arena_dirty(arena), unit) << "nothing was given back for nothing";
    EXPECT_FALSE(jf_arena_extend(arena, beside, 1)) << "upper buddy";
    EXPECT_FALSE(jf_arena_extend(arena, chunk, 14)) << "larger than the window";
    EXPECT_EQ(jf_arena_find(arena, chunk).order, 1u);
    EXPECT_EQ(jf_arena_find(arena, beside).order, 0u);
}

TEST_F(Arena, ShrinkKeepsTheLowerPartAndItsOwner) {
    uintptr_t chunk = alloc_filled(5);
    jf_arena_shrink(arena, chunk, 2, size_of(5));
    EXPECT_EQ(jf_arena_dirty(arena), size_of(5) - size_of(2));
    jf_chunk found = jf_arena_find(arena, chunk + size_of(2) - 1);
    EXPECT_EQ(found.order, 2u);
    EXPECT_EQ(found.owner, this);
    EXPECT_EQ(jf_arena_find(arena, chunk + size_of(2)).kind, JF_CHUNK_NONE);
    jf_arena_purge(arena, 0, 0);
    EXPECT_EQ(jf_os_resident(chunk, size_of(5)), size_of(2));
    EXPECT_EQ(bytes(chunk)[size_of(2) - 1], 0x5a);
    EXPECT_TRUE(jf_arena_extend(arena, chunk, 5));
}

TEST_F(Arena, ShrinkOfWhatWasHardlyUsedLeavesNothingDirty) {
    uintptr_t chunk = alloc(5);
    fill(chunk, 3 * unit);
    jf_arena_shrink(arena, chunk, 1, 3 * unit);
    EXPECT_EQ(jf_arena_dirty(arena), unit);
    free(chunk, 2 * unit);
    EXPECT_EQ(jf_arena_dirty(arena), 3 * unit);
}

// --- Memory kept and given back

TEST_F(Arena, FreshMemoryIsZeroAndSaidToBe) {
    bool zero = false;
    uintptr_t chunk = alloc(3, &zero);
    EXPECT_TRUE(zero);
    EXPECT_TRUE(reads_as_zero(chunk, size_of(3)));
}

TEST_F(Arena, DirtyChunkOfThatOrderIsReusedWithItsMemory) {
    uintptr_t low = alloc_filled(3);
    uintptr_t high = alloc_filled(3);
    free(high, size_of(3));
    free(low, size_of(3));
    bool zero = true;
    EXPECT_EQ(alloc(3, &zero), low);
    EXPECT_FALSE(zero);
    EXPECT_EQ(*bytes(low), 0x5a);
    EXPECT_EQ(jf_arena_dirty(arena), size_of(3));
    EXPECT_EQ(alloc(3, &zero), high);
    EXPECT_EQ(jf_arena_dirty(arena), 0u);
}

TEST_F(Arena, PurgeGivesTheMemoryBack) {
    uintptr_t chunk = alloc_filled(6);
    EXPECT_EQ(jf_os_resident(chunk, size_of(6)), size_of(6));
    free(chunk, size_of(6));
    EXPECT_EQ(jf_os_resident(chunk, size_of(6)), size_of(6)) << "kept for a while";
    EXPECT_EQ(jf_arena_purge(arena, 0, 0), size_of(6));
    EXPECT_EQ(jf_os_resident(chunk, size_of(6)), 0u);
    bool zero = false;
    EXPECT_EQ(alloc(6, &zero), chunk);
    EXPECT_TRUE(zero);
    EXPECT_TRUE(reads_as_zero(chunk, size_of(6)));
}

TEST_F(Arena, PurgeStopsAtWhatIsToBeKeptAndAtItsChunks) {
    std::vector<uintptr_t> chunks;
    for (int i = 0; i < 8; i++) {
        chunks.push_back(alloc_filled(2));
    }
    for (uintptr_t chunk : chunks) {
        free(chunk, size_of(2));
    }
    EXPECT_EQ(jf_arena_purge(arena, 0, 3), 3 * size_of(2));
    EXPECT_EQ(jf_arena_dirty(arena), 5 * size_of(2));
    for (size_t i = 0; i < chunks.size(); i++) {
        EXPECT_EQ(jf_os_resident(chunks[i], unit), i < 3 ? 0 : unit) << "oldest first";
    }
    EXPECT_EQ(jf_arena_purge(arena, 2 * size_of(2), 0), 3 * size_of(2));
    EXPECT_EQ(jf_arena_purge(arena, 2 * size_of(2), 0), 0u);
    EXPECT_EQ(jf_arena_dirty(arena), 2 * size_of(2));
}

TEST_F(Arena, OnlyWhatWasUsedCountsAsDirty) {
    uintptr_t chunk = alloc(8);
    fill(chunk, unit + 1);
    free(chunk, unit + 1);
    EXPECT_EQ(jf_arena_dirty(arena), unit + 1);
    EXPECT_EQ(jf_arena_purge(arena, 0, 0), unit + 1);
    EXPECT_EQ(jf_os_resident(chunk, size_of(8)), 0u);
    chunk = alloc(8);
    free(chunk, 0);
    EXPECT_EQ(jf_arena_dirty(arena), 0u);
}

TEST_F(Arena, WhatAnEarlierOwnerLeftIsNotForgotten) {
    uintptr_t chunk = alloc_filled(4);
    free(chunk, size_of(4));
    bool zero = true;
    ASSERT_EQ(alloc(4, &zero), chunk);
    ASSERT_FALSE(zero);
    free(chunk, 0);
    EXPECT_EQ(jf_arena_dirty(arena), size_of(4)) << "this owner wrote nothing, the first one did";
    ASSERT_EQ(alloc(4), chunk);
    jf_arena_shrink(arena, chunk, 3, 0);
    jf_arena_purge(arena, 0, 0);
    EXPECT_EQ(jf_os_resident(chunk, size_of(4)), size_of(3));
    EXPECT_TRUE(jf_arena_extend(arena, chunk, 4));
    EXPECT_TRUE(reads_as_zero(chunk + size_of(3), size_of(3)));
}

TEST_F(Arena, LimitDrivesOutTheOldest) {
    jf_arena_set_dirty_limit(arena, 3 * size_of(2));
    std::vector<uintptr_t> chunks;
    for (int i = 0; i < 5; i++) {
        chunks.push_back(alloc_filled(2));
    }
    for (uintptr_t chunk : chunks) {
        free(chunk, size_of(2));
    }
    EXPECT_EQ(jf_arena_dirty(arena), 3 * size_of(2));
    for (size_t i = 0; i < chunks.size(); i++) {
        EXPECT_EQ(jf_os_resident(chunks[i], size_of(2)), i < 2 ? 0 : size_of(2)) << i;
    }
    uintptr_t large = alloc_filled(5);
    free(large, size_of(5));
    EXPECT_EQ(jf_os_resident(large, size_of(5)), 0u) << "over the limit by itself";
    EXPECT_EQ(jf_arena_dirty(arena), 3 * size_of(2)) << "and drives no other out";
    jf_arena_set_dirty_limit(arena, size_of(2));
    EXPECT_EQ(jf_arena_dirty(arena), size_of(2));
    jf_arena_set_dirty_limit(arena, 0);
    EXPECT_EQ(jf_arena_dirty(arena), 0u);
}

TEST_F(Arena, NoMoreChunksStayDirtyThanTheListHolds) {
    std::vector<uintptr_t> chunks;
    for (int i = 0; i < JF_ARENA_DIRTY_MAX + 10; i++) {
        chunks.push_back(alloc_filled(0));
    }
    for (uintptr_t chunk : chunks) {
        free(chunk, unit);
    }
    EXPECT_EQ(jf_arena_dirty(arena), JF_ARENA_DIRTY_MAX * unit);
    EXPECT_EQ(jf_os_resident(chunks[9], unit), 0u);
    EXPECT_EQ(jf_os_resident(chunks[10], unit), unit);
}

TEST_F(Arena, DirtyChunksAreMergedBeforeAnAllocationFails) {
    ArenaPointer small = make_arena(24);
    std::vector<uintptr_t> chunks;
    while (uintptr_t chunk = jf_arena_alloc(small.get(), 2, JF_CHUNK_REGION, this, nullptr)) {
        fill(chunk, size_of(2));
        chunks.push_back(chunk);
    }
    for (uintptr_t chunk : chunks) {
        jf_arena_free(small.get(), chunk, size_of(2));
    }
    ASSERT_GT(jf_arena_dirty(small.get()), 0u);
    EXPECT_EQ(jf_arena_largest_order(small.get()), 7);
    bool zero = false;
    uintptr_t half = jf_arena_alloc(small.get(), 7, JF_CHUNK_REGION, this, &zero);
    ASSERT_NE(half, 0u);
    EXPECT_TRUE(zero);
    EXPECT_TRUE(reads_as_zero(half, size_of(7)));
}

TEST_F(Arena, FreePathsLeaveErrnoAlone) {
    jf_arena_set_dirty_limit(arena, 0);
    uintptr_t chunk = alloc_filled(4);
    errno = 7;
    jf_arena_shrink(arena, chunk, 2, size_of(4));
    free(chunk, size_of(2));
    jf_arena_purge(arena, 0, 0);
    EXPECT_EQ(errno, 7);
}

// --- Bookkeeping objects

TEST_F(Arena, BookkeepingObjectsAreZeroedAlignedAndReused) {
    for (size_t size : {size_t{1}, size_t{64}, size_t{65}, size_t{1000}, size_t{65536}}) {
        auto *object = static_cast<char *>(jf_arena_meta_alloc(arena, size));
        auto *other = static_cast<char *>(jf_arena_meta_alloc(arena, size));
        ASSERT_NE(object, nullptr);
        ASSERT_NE(other, nullptr);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(object) % 64, 0u);
        EXPECT_GE(static_cast<size_t>(other - object), size);
        std::memset(object, 0x5a, size);
        std::memset(other, 0x5a, size);
        jf_arena_meta_free(arena, object, size);
        auto *again = static_cast<char *>(jf_arena_meta_alloc(arena, size));
        EXPECT_EQ(again, object);
        for (size_t i = 0; i < size; i++) {
            ASSERT_EQ(again[i], 0);
        }
        EXPECT_EQ(other[size - 1], 0x5a);
    }
    EXPECT_EQ(jf_arena_meta_alloc(arena, 65537), nullptr);
    jf_arena_meta_free(arena, nullptr, 64);
}

TEST_F(Arena, BookkeepingObjectsRunOutCleanly) {
    ArenaPointer small = make_arena(24);
    size_t count = 0;
    void *last = nullptr;
    while (void *object = jf_arena_meta_alloc(small.get(), 65536)) {
        std::memset(object, 1, 65536);
        last = object;
        count++;
    }
    EXPECT_EQ(count, 16u) << "1 MiB is the least";
    EXPECT_EQ(jf_arena_meta_alloc(small.get(), 1), nullptr);
    jf_arena_meta_free(small.get(), last, 65536);
    EXPECT_EQ(jf_arena_meta_alloc(small.get(), 65536), last);
}

// --- Requests to the system

TEST_F(Arena, AnyRangeOfTheWindowCanBeMadeAccessible) {
    uintptr_t base = jf_arena_base(arena);
    EXPECT_TRUE(jf_arena_make_accessible(arena, base, 4096));
    *bytes(base + 4095) = 1;
    EXPECT_TRUE(jf_arena_make_accessible(arena, base + mib - 4096, 8192));
    *bytes(base + mib - 4096) = 1;
    *bytes(base + mib + 4095) = 1;
    EXPECT_TRUE(jf_arena_make_accessible(arena, base, jf_arena_size(arena)));
    *bytes(base + jf_arena_size(arena) - 1) = 1;
    EXPECT_TRUE(jf_arena_make_accessible(arena, base, 0));
    EXPECT_FALSE(jf_arena_make_accessible(arena, base + jf_arena_size(arena) - 4096, 8192));
    EXPECT_FALSE(jf_arena_make_accessible(arena, base - 4096, 4096));
    jf_arena_refuse(arena, 1, true);
    EXPECT_TRUE(jf_arena_make_accessible(arena, base, jf_arena_size(arena))) << "asked for nothing";
}

TEST_F(Arena, TableIsMadeAccessibleInStepsOfItsOwn) {
    ArenaPointer wide = make_arena(32, 4, size_t{1} << 28);
    uintptr_t base = jf_arena_base(wide.get());
    ASSERT_TRUE(jf_arena_make_accessible(wide.get(), base, 4096));
    jf_arena_refuse(wide.get(), 1, true);
    EXPECT_TRUE(jf_arena_make_accessible(wide.get(), base + mib - 4096, 4096));
    EXPECT_FALSE(jf_arena_make_accessible(wide.get(), base + mib, 4096));
    jf_arena_refuse(wide.get(), 0, false);
    EXPECT_TRUE(jf_arena_make_accessible(wide.get(), base + mib, 4096));
}

TEST_F(Arena, RefusalOnceIsOnce) {
    jf_arena_refuse(arena, 1, false);
    EXPECT_EQ(alloc(0), 0u);
    uintptr_t chunk = alloc(0);
    EXPECT_EQ(chunk, jf_arena_base(arena) + mib) << "the refused one took nothing";
    jf_arena_refuse(arena, 1, false);
    EXPECT_FALSE(jf_arena_extend(arena, chunk, 10)) << "needs another granule";
    EXPECT_EQ(jf_arena_find(arena, chunk).order, 0u);
    jf_arena_refuse(arena, 1, false);
    EXPECT_EQ(jf_arena_meta_alloc(arena, 64), nullptr);
    EXPECT_NE(jf_arena_meta_alloc(arena, 64), nullptr);
}

// A little of everything; true when no call failed.
static bool run_script(jf_arena *arena) {
    bool good = true;
    uintptr_t chunks[6];
    for (unsigned i = 0; i < 6; i++) {
        chunks[i] = jf_arena_alloc(arena, 2 * i, JF_CHUNK_LARGE, arena, nullptr);
        if (chunks[i] != 0) {
            fill(chunks[i], unit);
            EXPECT_EQ(jf_arena_find(arena, chunks[i]).owner, arena);
        }
        good = chunks[i] != 0 && good;
        good = jf_arena_meta_alloc(arena, 40000) != nullptr && good;
        good = jf_arena_make_accessible(arena, jf_arena_base(arena) + i * mib, 4096) && good;
        EXPECT_STREQ(jf_arena_check(arena), nullptr);
    }
    for (uintptr_t chunk : chunks) {
        if (chunk != 0) {
            jf_arena_free(arena, chunk, unit);
        }
    }
    EXPECT_STREQ(jf_arena_check(arena), nullptr);
    return good;
}

TEST(ArenaRefusal, EveryRequestCanBeRefused) {
    for (bool persistent : {false, true}) {
        unsigned nth = 1;
        for (bool refused = true; refused; nth++) {
            ArenaPointer arena = make_arena(30, 4, 8 * mib);
            jf_arena_refuse(arena.get(), nth, persistent);
            refused = !run_script(arena.get());
            jf_arena_refuse(arena.get(), 0, false);
            EXPECT_TRUE(run_script(arena.get())) << "usable after refusal " << nth;
            jf_arena_purge(arena.get(), 0, 0);
            EXPECT_EQ(jf_arena_largest_order(arena.get()), 13);
            ASSERT_LT(nth, 1000u);
        }
        EXPECT_GT(nth, 10u) << "the script asks the system";
    }
}

// --- Random programs against a model

namespace {

struct LiveChunk {
    unsigned order;
    jf_chunk_kind kind;
    size_t used; // bytes from the start that were written
    uint64_t stamp;
};

// Knows which units are taken; so it knows what must succeed.
class RandomProgram {
  public:
    RandomProgram(unsigned shift, uint64_t seed)
        : owner(make_arena(shift, 5, 4 * mib)), arena(owner.get()), random(seed),
          taken(jf_arena_size(arena) / unit) {
        std::fill_n(taken.begin(), jf_arena_table_size(arena) / unit, true);
        jf_arena_set_dirty_limit(arena, size_t{1} << (shift - 4));
    }

    void step() {
        bool refusing = random() % 32 == 0;
        if (refusing) {
            jf_arena_refuse(arena, static_cast<unsigned>(1 + random() % 3), random() % 2 == 0);
        }
        may_be_refused = refusing;
        switch (random() % 8) {
        case 0:
        case 1:
        case 2:
            allocate();
            break;
        case 3:
        case 4:
            if (!live.empty()) {
                release(pick());
            }
            break;
        case 5:
            if (!live.empty()) {
                extend(pick());
            }
            break;
        case 6:
            if (!live.empty()) {
                shrink(pick());
            }
            break;
        default:
            purge();
        }
        jf_arena_refuse(arena, 0, false);
        compare();
    }

  private:
    using Chunks = std::map<uintptr_t, LiveChunk>;

    bool range_is_free(size_t first, size_t count) const {
        for (size_t i = first; i < first + count; i++) {
            if (i >= taken.size() || taken[i]) {
                return false;
            }
        }
        return true;
    }

    void take(uintptr_t address, size_t from, size_t to, bool value) {
        size_t first = (address - jf_arena_base(arena)) / unit;
        std::fill(taken.begin() + static_cast<long>(first + from),
                  taken.begin() + static_cast<long>(first + to), value);
    }

    int largest_free() const {
        int largest = -1;
        for (int order = 0; size_t{1} << order <= taken.size(); order++) {
            for (size_t first = 0; first < taken.size() && largest < order;
                 first += size_t{1} << order) {
                largest = range_is_free(first, size_t{1} << order) ? order : largest;
            }
        }
        return largest;
    }

    Chunks::iterator pick() {
        auto chunk = live.begin();
        std::advance(chunk, static_cast<long>(random() % live.size()));
        return chunk;
    }

    unsigned random_order() {
        unsigned most = jf_bits_log2(taken.size());
        return random() % 16 == 0 ? static_cast<unsigned>(random() % (most + 2))
                                  : static_cast<unsigned>(random() % 4);
    }

    // Marks every page that counts as used.
    static void write(uintptr_t address, LiveChunk &chunk, size_t used) {
        for (size_t offset = 0; offset < used; offset += 4096) {
            *reinterpret_cast<uint64_t *>(address + offset) = chunk.stamp + offset;
        }
        chunk.used = used;
    }

    static void verify(uintptr_t address, const LiveChunk &chunk) {
        for (size_t offset = 0; offset < chunk.used; offset += 4096) {
            ASSERT_EQ(*reinterpret_cast<uint64_t *>(address + offset), chunk.stamp + offset);
        }
    }

    // One word of each page: the stamps of earlier owners lie at their starts.
    static bool pages_read_as_zero(uintptr_t address, size_t size) {
        for (size_t offset = 0; offset < size; offset += 4096) {
            if (*reinterpret_cast<uint64_t *>(address + offset) != 0) {
                return false;
            }
        }
        return true;
    }

    void allocate() {
        unsigned order = random_order();
        auto kind = static_cast<jf_chunk_kind>(1 + random() % 5);
        bool zero = false;
        uint64_t stamp = random() | 1;
        bool possible = static_cast<int>(order) <= largest_free();
        uintptr_t address =
            jf_arena_alloc(arena, order, kind, reinterpret_cast<void *>(stamp), &zero);
        if (address == 0) {
            ASSERT_TRUE(!possible || may_be_refused) << "order " << order;
            return;
        }
        size_t first = (address - jf_arena_base(arena)) / unit;
        ASSERT_EQ(first % (size_t{1} << order), 0u);
        ASSERT_TRUE(range_is_free(first, size_t{1} << order));
        if (zero) {
            ASSERT_TRUE(pages_read_as_zero(address, size_of(order)));
        }
        take(address, 0, size_t{1} << order, true);
        LiveChunk chunk = {order, kind, 0, stamp};
        size_t used = random() % 4 == 0 ? 0 : random() % (size_of(order) + 1);
        write(address, chunk, used < mib ? used : mib);
        live.emplace(address, chunk);
    }

    void release(Chunks::iterator chunk) {
        auto [address, it] = *chunk;
        verify(address, it);
        jf_arena_free(arena, address, it.used);
        take(address, 0, size_t{1} << it.order, false);
        live.erase(chunk);
    }

    void extend(Chunks::iterator chunk) {
        uintptr_t address = chunk->first;
        LiveChunk &it = chunk->second;
        unsigned order = it.order + 1 + static_cast<unsigned>(random() % 2);
        size_t first = (address - jf_arena_base(arena)) / unit;
        size_t old_count = size_t{1} << it.order;
        bool possible = first % (size_t{1} << order) == 0 &&
                        range_is_free(first + old_count, (size_t{1} << order) - old_count);
        bool done = jf_arena_extend(arena, address, order);
        if (!done) {
            ASSERT_TRUE(!possible || may_be_refused);
            return;
        }
        ASSERT_TRUE(possible);
        verify(address, it);
        ASSERT_TRUE(
            pages_read_as_zero(address + size_of(it.order), size_of(order) - size_of(it.order)));
        take(address, old_count, size_t{1} << order, true);
        it.order = order;
    }

    void shrink(Chunks::iterator chunk) {
        uintptr_t address = chunk->first;
        LiveChunk &it = chunk->second;
        unsigned order = static_cast<unsigned>(random() % (it.order + 1));
        jf_arena_shrink(arena, address, order, it.used);
        take(address, size_t{1} << order, size_t{1} << it.order, false);
        it.order = order;
        it.used = it.used < size_of(order) ? it.used : size_of(order);
        verify(address, it);
    }

    void purge() {
        size_t before = jf_arena_dirty(arena);
        size_t keep = random() % (before + 1);
        auto most = static_cast<unsigned>(random() % 3);
        size_t given = jf_arena_purge(arena, keep, most);
        ASSERT_EQ(jf_arena_dirty(arena), before - given);
        if (most == 0) {
            ASSERT_LE(jf_arena_dirty(arena), keep);
        }
    }

    void compare() {
        ASSERT_STREQ(jf_arena_check(arena), nullptr);
        ASSERT_EQ(jf_arena_largest_order(arena), largest_free());
        for (const auto &[address, chunk] : live) {
            uintptr_t inside = address + random() % size_of(chunk.order);
            jf_chunk found = jf_arena_find(arena, inside);
            ASSERT_EQ(found.address, address);
            ASSERT_EQ(found.order, chunk.order);
            ASSERT_EQ(found.kind, chunk.kind);
            ASSERT_EQ(found.owner, reinterpret_cast<void *>(chunk.stamp));
        }
        size_t any = random() % taken.size();
        bool in_table = any < jf_arena_table_size(arena) / unit;
        jf_chunk found = jf_arena_find(arena, jf_arena_base(arena) + any * unit + random() % unit);
        ASSERT_EQ(found.kind != JF_CHUNK_NONE, taken[any] && !in_table);
    }

    ArenaPointer owner;
    jf_arena *arena;
    std::mt19937_64 random;
    std::vector<bool> taken; // per unit, the table's included
    Chunks live;
    bool may_be_refused = false;
};

} // namespace

TEST(ArenaRandom, SmallWindowsAgreeWithTheModel) {
    for (uint64_t seed = 1; seed <= 8; seed++) {
        SCOPED_TRACE(seed);
        RandomProgram program(24, seed);
        for (int i = 0; i < 4000; i++) {
            ASSERT_NO_FATAL_FAILURE(program.step()) << "step " << i;
        }
    }
}

TEST(ArenaRandom, WindowOf256MebibytesAgreesWithTheModel) {
    for (uint64_t seed = 1; seed <= 2; seed++) {
        SCOPED_TRACE(seed);
        RandomProgram program(28, seed);
        for (int i = 0; i < 1500; i++) {
            ASSERT_NO_FATAL_FAILURE(program.step()) << "step " << i;
        }
    }
}

// --- Threads and fork

namespace {

// Works on chunks of its own only and looks whether they stay what they are.
void use_chunks(jf_arena *arena, uint64_t seed, int steps) {
    std::mt19937_64 random(seed);
    std::vector<std::pair<uintptr_t, unsigned>> mine;
    void *self = reinterpret_cast<void *>(seed);
    for (int i = 0; i < steps; i++) {
        if (mine.size() < 12 && random() % 2 == 0) {
            auto order = static_cast<unsigned>(random() % 4);
            bool zero = false;
            uintptr_t chunk = jf_arena_alloc(arena, order, JF_CHUNK_REGION, self, &zero);
            if (chunk != 0) {
                auto *last = reinterpret_cast<uint64_t *>(chunk + size_of(order)) - 1;
                ASSERT_TRUE(!zero || *last == 0);
                *last = seed;
                mine.emplace_back(chunk, order);
            }
        } else if (!mine.empty()) {
            size_t at = random() % mine.size();
            auto [chunk, order] = mine[at];
            jf_chunk found = jf_arena_find(arena, chunk + random() % size_of(order));
            ASSERT_EQ(found.address, chunk);
            ASSERT_EQ(found.order, order);
            ASSERT_EQ(found.owner, self);
            auto *last = reinterpret_cast<uint64_t *>(chunk + size_of(order)) - 1;
            ASSERT_EQ(*last, seed);
            if (random() % 4 == 0 && jf_arena_extend(arena, chunk, order + 1)) {
                jf_arena_shrink(arena, chunk, order, size_of(order));
            } else {
                jf_arena_free(arena, chunk, size_of(order));
                mine[at] = mine.back();
                mine.pop_back();
            }
        }
    }
    for (auto [chunk, order] : mine) {
        jf_arena_free(arena, chunk, size_of(order));
    }
}

} // namespace

TEST(ArenaThreads, ChunksStayWhatTheyAreWhileOthersWork) {
    ArenaPointer arena = make_arena(24);
    jf_arena_set_dirty_limit(arena.get(), 20 * unit);
    int fixed_owner = 0;
    uintptr_t fixed = jf_arena_alloc(arena.get(), 2, JF_CHUNK_POOL, &fixed_owner, nullptr);
    std::atomic<bool> stop{false};
    std::thread finder([&] {
        std::mt19937_64 random(99);
        while (!stop) {
            jf_chunk found = jf_arena_find(arena.get(), fixed + random() % size_of(2));
            ASSERT_EQ(found.owner, &fixed_owner);
            ASSERT_EQ(found.kind, JF_CHUNK_POOL);
            // Anywhere else: any answer, but no wild access.
            jf_arena_find(arena.get(), jf_arena_base(arena.get()) + random() % (size_t{1} << 24));
        }
    });
    std::thread purger([&] {
        while (!stop) {
            jf_arena_purge(arena.get(), 4 * unit, 1);
            ASSERT_STREQ(jf_arena_check(arena.get()), nullptr);
            jf_arena_largest_order(arena.get());
            jf_arena_overhead(arena.get());
        }
    });
    std::vector<std::thread> workers;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        workers.emplace_back(use_chunks, arena.get(), seed, 4000);
    }
    for (std::thread &worker : workers) {
        worker.join();
    }
    stop = true;
    finder.join();
    purger.join();
    jf_arena_free(arena.get(), fixed, 0);
    jf_arena_purge(arena.get(), 0, 0);
    EXPECT_STREQ(jf_arena_check(arena.get()), nullptr);
    EXPECT_EQ(jf_arena_largest_order(arena.get()), 7);
}

TEST(ArenaThreads, AllocationWaitsForMemoryThatIsJustGivenBack) {
    // One half, and two threads that want it in turn: it is always allocated, being given back, or free.
    ArenaPointer arena = make_arena(24);
    jf_arena_set_dirty_limit(arena.get(), 0);
    std::atomic<int> failures{0};
    std::atomic<bool> is_free{true};
    auto use = [&] {
        for (int i = 0; i < 300;) {
            if (!is_free.exchange(false)) {
                std::this_thread::yield();
                continue;
            }
            uintptr_t half = jf_arena_alloc(arena.get(), 7, JF_CHUNK_LARGE, nullptr, nullptr);
            failures += half == 0;
            if (half != 0) {
                fill(half, 64 * unit);
                // From here on it counts as freed: the other allocates while this one gives back.
                std::thread freer([&] { jf_arena_free(arena.get(), half, 64 * unit); });
                while (jf_arena_find(arena.get(), half).kind != JF_CHUNK_NONE) {
                    std::this_thread::yield();
                }
                is_free = true;
                freer.join();
            } else {
                is_free = true;
            }
            i++;
        }
    };
    std::thread other(use);
    use();
    other.join();
    EXPECT_EQ(failures, 0);
}

TEST(ArenaFork, ChildWorksWhileOtherThreadsWereInside) {
    ArenaPointer arena = make_arena(24);
    jf_arena_set_dirty_limit(arena.get(), 4 * unit);
    std::atomic<bool> stop{false};
    std::thread worker([&] {
        for (uint64_t seed = 1; !stop; seed++) {
            use_chunks(arena.get(), seed, 50);
        }
    });
    for (int i = 0; i < 20; i++) {
        jf_arena_fork_prepare(arena.get());
        pid_t child = fork();
        jf_arena_fork_done(arena.get(), child == 0);
        if (child == 0) {
            bool good = jf_arena_check(arena.get()) == nullptr && arena->giving == 0;
            uintptr_t chunk = jf_arena_alloc(arena.get(), 0, JF_CHUNK_SPAN, nullptr, nullptr);
            good = good && chunk != 0;
            jf_arena_free(arena.get(), chunk, unit);
            _exit(good && jf_arena_check(arena.get()) == nullptr ? 0 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        EXPECT_EQ(status, 0);
    }
    stop = true;
    worker.join();
    EXPECT_STREQ(jf_arena_check(arena.get()), nullptr);
}

// --- The checker: every rule broken on purpose

namespace {

class ArenaDamage : public Arena {
  protected:
    ArenaDamage() : chunk(alloc(3)), dirty(alloc(1)) {
        free(dirty, unit);
        chunk_unit = jf_unit_of(arena, chunk);
        dirty_unit = jf_unit_of(arena, dirty);
    }

    // Looks that the damage is named, and that it was the only one.
    template <typename Damage, typename Repair>
    void expect_fault(const char *text, Damage damage, Repair repair) {
        ASSERT_STREQ(jf_arena_check(arena), nullptr);
        damage();
        EXPECT_STREQ(jf_arena_check(arena), text);
        repair();
    }

    void set_map(size_t at, unsigned char byte) {
        arena->map[at] = byte;
    }

    uintptr_t chunk;
    uintptr_t dirty;
    size_t chunk_unit;
    size_t dirty_unit;
};

} // namespace

TEST_F(ArenaDamage, LostUnitIsFound) {
    size_t first = jf_pieces_first(&arena->pieces, 2);
    ASSERT_NE(first, JF_PIECES_NONE);
    expect_fault(
        "arena: a unit is in no chunk and in no free piece",
        [&] { jf_pieces_remove(&arena->pieces, first, 2); },
        [&] { jf_pieces_add(&arena->pieces, first, 2); });
}

TEST_F(ArenaDamage, OverlappingPiecesAreFound) {
    size_t first = jf_pieces_first(&arena->pieces, 2);
    expect_fault(
        "arena: a unit is in two free pieces", [&] { jf_pieces_add(&arena->pieces, first, 1); },
        [&] { jf_pieces_remove(&arena->pieces, first, 1); });
    expect_fault(
        "arena: the count of free pieces is wrong",
        [&] { jf_pieces_add(&arena->pieces, first + 2, 1); },
        [&] { jf_pieces_remove(&arena->pieces, first + 2, 1); });
    expect_fault(
        "arena: the count of free pieces is wrong",
        [&] { jf_pieces_add(&arena->pieces, chunk_unit + 2, 1); },
        [&] { jf_pieces_remove(&arena->pieces, chunk_unit + 2, 1); });
}

TEST_F(ArenaDamage, UnmergedBuddiesAreFound) {
    size_t first = jf_pieces_first(&arena->pieces, 2);
    auto halves = [&](auto change) {
        change(&arena->pieces, first, 1);
        change(&arena->pieces, first + 2, 1);
    };
    expect_fault(
        "arena: two free buddies are not merged",
        [&] {
            jf_pieces_remove(&arena->pieces, first, 2);
            halves(jf_pieces_add);
        },
        [&] {
            halves(jf_pieces_remove);
            jf_pieces_add(&arena->pieces, first, 2);
        });
}

TEST_F(ArenaDamage, DamagedLevelsAreFound) {
    uint64_t *filled = arena->pieces.filled[2];
    uint64_t saved = filled[0];
    expect_fault(
        "arena: the levels of the free pieces disagree", [&] { filled[0] = 0; },
        [&] { filled[0] = saved; });
}

TEST_F(ArenaDamage, WrongMapIsFound) {
    unsigned char byte = arena->map[chunk_unit];
    expect_fault(
        "arena: the map of a chunk is not uniform", [&] { set_map(chunk_unit + 5, 0); },
        [&] { set_map(chunk_unit + 5, byte); });
    expect_fault(
        "arena: a chunk is not aligned to its size",
        [&] { set_map(chunk_unit, jf_map_byte(JF_CHUNK_REGION, 9)); },
        [&] { set_map(chunk_unit, byte); });
    size_t first = jf_pieces_first(&arena->pieces, 2);
    expect_fault(
        "arena: a chunk lies in a free piece", [&] { set_map(first + 1, byte); },
        [&] { set_map(first + 1, 0); });
    size_t closed = arena->unit_count / 2;
    expect_fault(
        "arena: a chunk is not accessible", [&] { set_map(closed, jf_map_byte(1, 0)); },
        [&] { set_map(closed, 0); });
}

TEST_F(ArenaDamage, WrongDirtyListIsFound) {
    expect_fault(
        "arena: the count of dirty chunks is wrong", [&] { arena->dirty_count = 0; },
        [&] { arena->dirty_count = 1; });
    expect_fault(
        "arena: the count of dirty chunks is wrong", [&] { arena->giving = 1; },
        [&] { arena->giving = 0; });
    expect_fault(
        "arena: the dirty list names a chunk that is not dirty",
        [&] { arena->dirty[0].unit = static_cast<uint32_t>(chunk_unit); },
        [&] { arena->dirty[0].unit = static_cast<uint32_t>(dirty_unit); });
    expect_fault(
        "arena: the sum of the dirty bytes is wrong", [&] { arena->dirty_bytes += 1; },
        [&] { arena->dirty_bytes -= 1; });
    expect_fault(
        "arena: a dirty chunk has more dirty bytes than bytes, or none",
        [&] { arena->units[dirty_unit].stale = 3 * unit; },
        [&] { arena->units[dirty_unit].stale = unit; });
}
