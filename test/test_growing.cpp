// The growing profile and the system's memory: more than 64 GiB of blocks, what is given back, and what a
// program that never compacts uses again.
#include "support/heaps.hpp"
#include "support/model.hpp"

#include <cstdio>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

using support::GrowingHeap;

namespace {

constexpr size_t mib = size_t{1} << 20, gib = size_t{1} << 30;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool has_shadow = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool has_shadow = true;
#else
constexpr bool has_shadow = false;
#endif
#else
constexpr bool has_shadow = false;
#endif

// Bytes of the process in memory. Of no use where a sanitizer keeps a shadow of it.
size_t resident() {
    size_t size = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    EXPECT_EQ(fscanf(file, "%zu %zu", &size, &pages), 2);
    fclose(file);
    return pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

void expect_resident_below(size_t most) {
    if (!has_shadow) {
        EXPECT_LT(resident(), most);
    }
}

// A few bytes of the block, far from each other: written, or compared.
void touch(rmhandle_t handle, size_t size, unsigned char seed, bool write) {
    auto *bytes = static_cast<volatile unsigned char *>(rmlock(handle));
    ASSERT_NE(bytes, nullptr);
    for (size_t i = 0; i < 16; i++) {
        size_t at = i == 15 ? size - 1 : size / 16 * i;
        auto value = static_cast<unsigned char>(seed + i);
        if (write)
            bytes[at] = value;
        else
            ASSERT_EQ(bytes[at], value) << "byte " << at;
    }
    rmunlock(handle);
}

// Holds `count` blocks of `size` bytes each at a time, half of them replaced by others.
void hold_many(size_t size, size_t count) {
    GrowingHeap heap;
    size_t before = resident();
    std::vector<rmhandle_t> handles(count);
    auto make = [&](size_t i) {
        handles[i] = rmheap_malloc(heap, size);
        ASSERT_NE(handles[i], nullptr) << "block " << i;
        touch(handles[i], size, static_cast<unsigned char>(i), true);
    };
    for (size_t i = 0; i < count; i++)
        make(i);
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    EXPECT_EQ(stats.blocks, count);
    EXPECT_GE(stats.requested, 65 * gib);
    EXPECT_GE(stats.reserved, stats.live);
    expect_resident_below(before + count * 17 * 4096 + 64 * mib);
    for (size_t i = 0; i < count; i += 2)
        rmfree(handles[i]);
    for (size_t i = 0; i < count; i += 2)
        make(i);
    EXPECT_EQ(rmheap_compact_us(heap, 0, nullptr), RM_COMPACT_DONE);
    for (size_t i = 0; i < count; i++)
        touch(handles[i], size, static_cast<unsigned char>(i), false);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
    for (rmhandle_t handle : handles)
        rmfree(handle);
    rmheap_compact_us(heap, 0, nullptr);
    // what stays is the arena's map of the address space that was in use
    expect_resident_below(before + 64 * mib);
}

TEST(Growing, ManagesMoreThan64GiBInBlocksOfAGiB) {
    if (has_shadow)
        GTEST_SKIP() << "a sanitizer's shadow of it would take all memory";
    hold_many(gib, 66);
}

TEST(Growing, ManagesMoreThan64GiBInBlocksOfSomeMiB) {
    if (has_shadow)
        GTEST_SKIP() << "a sanitizer's shadow of it would take all memory";
    hold_many(11 * mib + 12345, 6100);
}

TEST(Growing, OneBlockMayHaveMoreThan64GiB) {
    if (has_shadow)
        GTEST_SKIP() << "a sanitizer's shadow of it would take all memory";
    GrowingHeap heap;
    rmhandle_t handle = rmheap_malloc(heap, 70 * gib);
    ASSERT_NE(handle, nullptr);
    touch(handle, 70 * gib, 1, true);
    touch(handle, 70 * gib, 1, false);
    EXPECT_EQ(rmsize(handle), 70 * gib);
    rmfree(handle);
}

// Blocks of 16 to 1000 bytes, `bytes` of them, each filled.
std::vector<rmhandle_t> fill(rmheap_t heap, size_t bytes) {
    support::Random random(5);
    std::vector<rmhandle_t> handles;
    for (size_t sum = 0; sum < bytes;) {
        size_t size = 16 + random.below(985);
        handles.push_back(rmheap_malloc(heap, size));
        memset(rmlock(handles.back()), 0x33, size);
        rmunlock(handles.back());
        sum += size;
    }
    return handles;
}

TEST(Growing, CompactionGivesMemoryBack) {
    GrowingHeap heap;
    size_t before = resident();
    std::vector<rmhandle_t> handles = fill(heap, 128 * mib);
    if (!has_shadow) {
        EXPECT_GT(resident(), before + 120 * mib);
    }
    for (size_t i = 0; i < handles.size(); i++)
        if (i % 50 != 0)
            rmfree(handles[i]);
    struct rm_compact_result result;
    EXPECT_EQ(rmheap_compact_us(heap, 0, &result), RM_COMPACT_DONE);
    EXPECT_GT(result.bytes_released, 110 * mib);
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    EXPECT_LT(stats.committed, stats.live + stats.live / 25 + 64 * 1024);
    expect_resident_below(before + 16 * mib);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
}

TEST(Growing, MemoryOfLastBlockGoesBack) {
    GrowingHeap heap;
    for (rmhandle_t handle : fill(heap, 32 * mib))
        rmfree(handle);
    EXPECT_EQ(rmheap_compact_us(heap, 0, nullptr), RM_COMPACT_DONE);
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    EXPECT_EQ(stats.blocks, 0u);
    EXPECT_EQ(stats.committed, 0u);
}

// Bytes of the block's pages in memory, from its byte `from` to its byte `to`.
size_t resident_of(rmhandle_t handle, size_t from, size_t to) {
    std::vector<unsigned char> pages((to - from) / 4096);
    EXPECT_EQ(0, mincore(static_cast<char *>(rmweaklock(handle)) + from, to - from, pages.data()));
    size_t count = 0;
    for (unsigned char page : pages)
        count += page & 1u;
    return count * 4096;
}

TEST(Growing, WhatALargeBlockLosesByShrinkingGoesBack) {
    GrowingHeap heap;
    rmhandle_t handle = rmheap_malloc(heap, 8 * mib);
    ASSERT_NE(handle, nullptr);
    memset(rmlock(handle), 'l', 8 * mib);
    rmunlock(handle);
    EXPECT_EQ(resident_of(handle, 0, 8 * mib), 8 * mib);
    ASSERT_EQ(0, rmrealloc(handle, 7 * mib)); // the chunk stays
    EXPECT_EQ(resident_of(handle, 7 * mib, 8 * mib), 0u);
    EXPECT_EQ(resident_of(handle, 0, 7 * mib), 7 * mib);
    ASSERT_EQ(0, rmrealloc(handle, 3 * mib)); // a chunk of 4 MiB
    EXPECT_EQ(resident_of(handle, 3 * mib, 4 * mib), 0u);
    EXPECT_EQ(resident_of(handle, 0, 3 * mib), 3 * mib);
    rmfree(handle);
}

TEST(Growing, PurgedBlocksEndWithTheirHeap) {
    struct rm_options options;
    rmoptions_init(&options);
    options.limit = 4 * mib;
    rmhandle_t purged;
    {
        GrowingHeap heap(&options);
        purged = rmheap_malloc(heap, 20000);
        EXPECT_EQ(0, rmpurgeable(purged, 1));
        for (int i = 0; i < 1000 && rmsize(purged) != 0; i++)
            rmheap_malloc(heap, 20000);
        ASSERT_EQ(0u, rmsize(purged));
        EXPECT_NE(nullptr, rmheap_of(purged));
    }
    GrowingHeap next(&options); // with the number of the one before
    EXPECT_EQ(nullptr, rmheap_of(purged));
}

TEST(Growing, WithoutCompactionFreedMemoryIsUsedAgain) {
    GrowingHeap heap;
    support::Random random(6);
    std::vector<rmhandle_t> handles(20000);
    struct rm_stats stats;
    size_t live_most = 0;
    for (size_t i = 0; i < 2000000; i++) {
        rmhandle_t &handle = handles[random.below(handles.size())];
        if (handle != nullptr)
            rmfree(handle);
        handle = rmheap_malloc(heap, 16 + random.below(497));
        ASSERT_NE(handle, nullptr);
        if (i % 500000 == 499999) {
            rmheap_stats_brief(heap, &stats);
            live_most = std::max(live_most, static_cast<size_t>(stats.live));
        }
    }
    rmheap_stats(heap, &stats);
    // 25 times the live bytes went through the heap
    EXPECT_LT(stats.peak_committed, 2 * live_most);
    EXPECT_EQ(stats.compactions, 0u);
}

// Few blocks that come, go, and get other sizes all the time; compaction gets `slice` microseconds every 500
// operations. Gives the most memory that was held.
size_t peak_of_few_blocks(size_t most, size_t operations, unsigned slice) {
    GrowingHeap heap;
    support::Random random(7);
    std::vector<rmhandle_t> handles(60);
    for (size_t i = 0; i < operations; i++) {
        rmhandle_t &handle = handles[random.below(handles.size())];
        size_t size = 1 + random.below(most);
        bool done = true;
        if (handle != nullptr && random.chance(500)) {
            done = rmrealloc(handle, size) == 0;
        } else {
            if (handle != nullptr)
                rmfree(handle);
            handle = rmheap_malloc(heap, size);
            done = handle != nullptr;
        }
        EXPECT_TRUE(done);
        if (slice != 0 && i % 500 == 499)
            rmheap_compact_us(heap, slice, nullptr);
    }
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    return stats.peak_committed;
}

// What waits to be used again keeps hardly any region from being filled again or given back.
TEST(Growing, FewBlocksOfChangingSizesTakeFewRegions) {
    EXPECT_LT(peak_of_few_blocks(1000, 1000000, 0), 16 * mib);
}

// However busy the program is, a compaction lets go of regions it has been through.
TEST(Growing, ShortSlicesKeepNoRegionFromABusyProgram) {
    EXPECT_LT(peak_of_few_blocks(120000, 400000, 50), 32 * mib);
}

// Blocks of more than the least alignment go into holes too.
TEST(Growing, AlignedBlocksUseFreedMemoryAgain) {
    GrowingHeap heap;
    support::Random random(8);
    std::vector<rmhandle_t> brief(1000), lasting;
    for (size_t i = 0; i < 500000; i++) {
        rmhandle_t &handle = brief[random.below(brief.size())];
        if (handle != nullptr)
            rmfree(handle);
        handle = rmheap_aligned_alloc(heap, 64, 100);
        ASSERT_NE(handle, nullptr);
        if (i % 1000 == 0)
            lasting.push_back(rmheap_aligned_alloc(heap, 64, 100));
    }
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    EXPECT_LT(stats.peak_committed, 16 * mib);
}

// Regions that were swept in vain are swept again when most of what was in their way has died, however little it was.
TEST(Growing, RegionsThatBecomeNearlyEmptyAreFilled) {
    GrowingHeap heap;
    std::vector<rmhandle_t> small, large;
    for (size_t i = 0; i < 100; i++) {
        for (size_t j = 0; j < 24; j++) {
            small.push_back(rmheap_malloc(heap, 4200));
            large.push_back(rmheap_malloc(heap, 37700));
        }
    }
    auto allocate_large = [&](size_t count) {
        for (size_t i = 0; i < count; i++)
            large.push_back(rmheap_malloc(heap, 60000));
    };
    auto free_large = [&] {
        for (rmhandle_t handle : large)
            rmfree(handle);
        large.clear();
    };
    free_large();
    allocate_large(3000); // nowhere among the small ones
    free_large();
    for (size_t i = 0; i < small.size(); i++)
        if (i % 24 != 0)
            rmfree(small[i]);
    allocate_large(1500);
    struct rm_stats stats;
    rmheap_stats_brief(heap, &stats);
    EXPECT_LT(stats.committed, 150 * mib);
}

// Blocks of a few KiB that live for long take no holes away from large ones that come and go.
TEST(Growing, LargeBlocksHaveRegionsOfTheirOwn) {
    GrowingHeap heap;
    support::Random random(11);
    std::vector<rmhandle_t> lasting(4000), brief(160);
    auto replace = [&](std::vector<rmhandle_t> &handles, size_t least, size_t most) {
        rmhandle_t &handle = handles[random.below(handles.size())];
        if (handle != nullptr)
            rmfree(handle);
        handle = rmheap_malloc(heap, least + random.below(most - least));
    };
    for (size_t i = 0; i < 400000; i++) {
        replace(brief, 20000, 60000);
        if (i % 20 == 0)
            replace(lasting, 2000, 6000);
    }
    EXPECT_EQ(heap.check(), 0) << heap.fault.text;
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    EXPECT_LT(stats.committed, 2 * stats.live);
}

// A hole that one block leaves behind, or leaves a rest of, is there for the next one.
TEST(Growing, HolesAreFilledByWhatFitsThemBest) {
    GrowingHeap heap;
    support::Random random(9);
    std::vector<rmhandle_t> handles(1000);
    auto draw = [&] { return rmheap_malloc(heap, 5000 + random.below(55000)); };
    for (rmhandle_t &handle : handles)
        handle = draw();
    for (size_t i = 0; i < 100000; i++) {
        rmhandle_t &handle = handles[random.below(handles.size())];
        rmfree(handle);
        handle = draw();
    }
    EXPECT_EQ(heap.check(), 0) << heap.fault.text;
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    EXPECT_LT(stats.committed, stats.live + stats.live / 2);
}

TEST(Growing, ALimitIsKept) {
    struct rm_options options;
    rmoptions_init(&options);
    options.limit = 8 * mib;
    GrowingHeap heap(&options);
    std::vector<rmhandle_t> handles;
    while (rmhandle_t handle = rmheap_malloc(heap, 10000))
        handles.push_back(handle);
    EXPECT_EQ(errno, ENOMEM);
    EXPECT_GT(handles.size(), 8 * mib / 10016 * 95 / 100);
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    EXPECT_LE(stats.peak_committed, 8 * mib);
}

} // namespace
