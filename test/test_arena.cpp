// The arena seen from outside: chunks, the map from address to chunk, dirty memory, refusals.
#include "support/arena.hpp"

#include <cerrno>
#include <chrono>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

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

using namespace arena_test;

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
    jf_arena_shrink(none.get(), jf_arena_base(none.get()), 0, 0);
    jf_arena_free(none.get(), jf_arena_base(none.get()), 0);
    EXPECT_EQ(jf_arena_largest_order(none.get()), 8) << "merged to the whole window";
    EXPECT_STREQ(jf_arena_check(none.get()), nullptr);
}

TEST(ArenaCreate, WindowOfOneTebibyteIsUsable) {
    if (UNDER_SANITIZER) {
        GTEST_SKIP() << "a sanitizer writes an eighth of it";
    }
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
    free(far, size_of(2));
    free(right, size_of(1));
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

TEST_F(Arena, PurgeStopsAtWhatIsToBeKeptAndAtItsBytes) {
    std::vector<uintptr_t> chunks;
    for (int i = 0; i < 8; i++) {
        chunks.push_back(alloc_filled(2));
    }
    for (uintptr_t chunk : chunks) {
        free(chunk, size_of(2));
    }
    EXPECT_EQ(jf_arena_purge(arena, 0, 3 * size_of(2)), 3 * size_of(2));
    EXPECT_EQ(jf_arena_dirty(arena), 5 * size_of(2));
    for (size_t i = 0; i < chunks.size(); i++) {
        EXPECT_EQ(jf_os_resident(chunks[i], unit), i < 3 ? 0 : unit) << "oldest first";
    }
    EXPECT_EQ(jf_arena_purge(arena, 2 * size_of(2), 0), 3 * size_of(2));
    EXPECT_EQ(jf_arena_purge(arena, 2 * size_of(2), 0), 0u);
    EXPECT_EQ(jf_arena_dirty(arena), 2 * size_of(2));
}

TEST_F(Arena, PurgeGivesALargeChunkBackInParts) {
    uintptr_t chunk = alloc_filled(4);
    uintptr_t newer = alloc_filled(0);
    free(chunk, size_of(4));
    free(newer, unit);
    EXPECT_EQ(jf_arena_purge(arena, 0, 5 * unit + 1), 5 * unit);
    EXPECT_EQ(jf_os_resident(chunk, size_of(4)), 11 * unit);
    EXPECT_EQ(*bytes(chunk + 11 * unit - 1), 0x5a) << "the upper part goes first";
    EXPECT_EQ(jf_arena_dirty(arena), 12 * unit);
    EXPECT_STREQ(jf_arena_check(arena), nullptr);
    EXPECT_EQ(jf_arena_purge(arena, 0, jf_os_page_size() - 1), 0u) << "less than a page";
    bool zero = true;
    EXPECT_EQ(alloc(4, &zero), chunk);
    EXPECT_FALSE(zero);
    free(chunk, 0);
    EXPECT_EQ(jf_arena_dirty(arena), 12 * unit) << "what is left is not forgotten";
    EXPECT_EQ(jf_arena_purge(arena, 0, 12 * unit - 1), 12 * unit - jf_os_page_size());
    EXPECT_EQ(jf_os_resident(newer, unit), 0u) << "now the oldest";
    EXPECT_EQ(jf_arena_purge(arena, 0, 12 * unit), jf_os_page_size());
    EXPECT_EQ(jf_os_resident(chunk, size_of(4)), 0u);
}

TEST_F(Arena, OnlyWhatWasUsedCountsAsDirty) {
    uintptr_t chunk = alloc(8);
    fill(chunk, unit + 1);
    free(chunk, unit + 1);
    EXPECT_EQ(jf_arena_dirty(arena), unit + jf_os_page_size());
    EXPECT_EQ(jf_arena_purge(arena, 0, 0), unit + jf_os_page_size());
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
    free(chunk, 0);
    EXPECT_EQ(jf_arena_dirty(arena), size_of(3)) << "the upper half was given back";
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

TEST_F(Arena, YoungChunksMayKeepMoreForAWhile) {
    jf_arena_set_dirty_limit(arena, size_of(2));
    jf_arena_set_young_limit(arena, 4 * size_of(2));
    std::vector<uintptr_t> chunks;
    for (int i = 0; i < 6; i++) {
        chunks.push_back(alloc_filled(2));
    }
    for (uintptr_t chunk : chunks) {
        free(chunk, size_of(2));
    }
    EXPECT_EQ(jf_arena_dirty(arena), 4 * size_of(2));
    EXPECT_EQ(jf_os_resident(chunks[1], size_of(2)), 0u) << "the oldest go first";
    std::this_thread::sleep_for(std::chrono::milliseconds(2 * JF_ARENA_YOUNG_MS));
    uintptr_t other = alloc(3);
    EXPECT_EQ(jf_arena_dirty(arena), size_of(2)) << "the others have grown old";
    free(other, 0);
}

TEST_F(Arena, ALargerDirtyChunkIsSplitBeforeFreshMemoryIsTaken) {
    jf_arena_set_dirty_limit(arena, size_of(8));
    uintptr_t chunk = alloc_filled(5);
    free(chunk, size_of(4) + 3 * unit);
    bool zero = true;
    uintptr_t part = alloc(2, &zero);
    EXPECT_EQ(part, chunk);
    EXPECT_FALSE(zero);
    EXPECT_EQ(jf_arena_stale(arena, part), size_of(2));
    EXPECT_EQ(jf_arena_dirty(arena), size_of(4) + 3 * unit - size_of(2));
    EXPECT_EQ(jf_arena_check(arena), nullptr);
    EXPECT_EQ(alloc(2), chunk + size_of(2)) << "what was left over is found again";
    EXPECT_EQ(alloc(4, &zero), chunk + size_of(4));
    EXPECT_FALSE(zero);
    EXPECT_EQ(jf_arena_stale(arena, chunk + size_of(4)), 3 * unit);
    EXPECT_EQ(jf_arena_check(arena), nullptr);
    for (uintptr_t at : {chunk, chunk + size_of(2), chunk + size_of(4)}) {
        free(at, 0);
    }
    jf_arena_purge(arena, 0, 0);
    EXPECT_EQ(jf_arena_check(arena), nullptr);
    EXPECT_EQ(jf_os_resident(chunk, size_of(4)), 0u);
}

TEST_F(Arena, ASplitStopsWhereTheListIsFull) {
    jf_arena_set_dirty_limit(arena, size_of(0));
    jf_arena_set_young_limit(arena, size_of(12));
    uintptr_t large = alloc_filled(5);
    std::vector<uintptr_t> chunks;
    for (int i = 1; i < JF_ARENA_DIRTY_MAX; i++) {
        chunks.push_back(alloc_filled(0));
    }
    free(large, size_of(5));
    for (uintptr_t chunk : chunks) {
        free(chunk, unit);
    }
    uintptr_t part = alloc(3);
    ASSERT_NE(part, 0u);
    EXPECT_NE(part, large);
    EXPECT_EQ(jf_arena_check(arena), nullptr);
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

TEST_F(Arena, PersistentRefusalLastsUntilItIsTakenBack) {
    jf_arena_refuse(arena, 1, true);
    for (int i = 0; i < 5; i++) {
        EXPECT_EQ(alloc(0), 0u);
        EXPECT_EQ(jf_arena_meta_alloc(arena, 64), nullptr);
    }
    jf_arena_refuse(arena, 0, true);
    EXPECT_NE(alloc(0), 0u);
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
