// Figures of a heap, in both profiles: exact where they can be, with and without the walk.
#include "support/heaps.hpp"

#include <thread>

using support::FixedHeap;
using support::GrowingHeap;
using support::Heap;

namespace {

struct rm_stats stats_of(const Heap &heap) {
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    return stats;
}

struct rm_stats brief_of(const Heap &heap) {
    struct rm_stats stats;
    rmheap_stats_brief(heap, &stats);
    return stats;
}

struct Fixed1M : FixedHeap {
    Fixed1M() : FixedHeap(1 << 20) {}
};

template <typename Kind> class Statistics : public testing::Test {
  public:
    Kind heap;
};

using Kinds = testing::Types<GrowingHeap, Fixed1M>;
TYPED_TEST_SUITE(Statistics, Kinds, );

TYPED_TEST(Statistics, EmptyHeapHasNothing) {
    struct rm_stats stats = stats_of(this->heap);
    EXPECT_EQ(stats.struct_size, offsetof(struct rm_stats, later));
    EXPECT_EQ(stats.blocks, 0u);
    EXPECT_EQ(stats.live, 0u);
    EXPECT_EQ(stats.requested, 0u);
    EXPECT_EQ(stats.committed, 0u);
    EXPECT_EQ(stats.compactions, 0u);
    EXPECT_GT(stats.largest_free, size_t{1} << 19);
}

TYPED_TEST(Statistics, CountWhatIsThere) {
    rmhandle_t handles[10];
    for (size_t i = 0; i < 10; i++)
        handles[i] = rmheap_malloc(this->heap, 100 * i);
    rmlock(handles[3]);
    rmlock(handles[3]);
    rmlock(handles[4]);
    rmpurgeable(handles[5], 2);
    struct rm_stats stats = stats_of(this->heap);
    size_t live = 0;
    for (size_t i = 0; i < 10; i++)
        live += (100 * i + 8 + 15) / 16 * 16;
    EXPECT_EQ(stats.blocks, 10u);
    EXPECT_EQ(stats.requested, 4500u);
    EXPECT_EQ(stats.live, live);
    EXPECT_EQ(stats.locked_blocks, 2u);
    EXPECT_EQ(stats.locked, size_t{320 + 416});
    EXPECT_EQ(stats.purgeable, 512u);
    EXPECT_GE(stats.committed, stats.live);
    EXPECT_GE(stats.peak_committed, stats.committed);
    EXPECT_GE(stats.reserved, stats.committed);
    EXPECT_GE(stats.table, 10 * sizeof(jf_word));
    EXPECT_GT(stats.overhead, 0u);
    EXPECT_EQ(stats.regions, 1u);
    EXPECT_EQ(stats.large_blocks, 0u);
    for (int i = 0; i < 2; i++)
        rmunlock(handles[3]);
    rmunlock(handles[4]);
}

TYPED_TEST(Statistics, BriefOnesAreTheSameWithoutTheWalk) {
    rmhandle_t handles[100];
    for (auto &handle : handles)
        handle = rmheap_malloc(this->heap, 1000);
    for (size_t i = 0; i < 100; i += 3)
        rmfree(handles[i]);
    struct rm_stats brief = brief_of(this->heap);
    struct rm_stats stats = stats_of(this->heap);
    EXPECT_EQ(brief.blocks, 66u);
    EXPECT_EQ(stats.blocks, 66u);
    EXPECT_EQ(brief.live, stats.live);
    EXPECT_EQ(brief.committed, stats.committed);
    EXPECT_EQ(brief.largest_free, stats.largest_free);
    EXPECT_EQ(brief.table, stats.table);
    EXPECT_EQ(brief.requested, 0u);
    EXPECT_EQ(brief.holes, 0u);
    EXPECT_EQ(brief.hole_bytes, 0u);
    EXPECT_EQ(brief.largest_after, 0u);
}

TYPED_TEST(Statistics, SpacesBesideEachOtherAreOneHole) {
    rmhandle_t handles[9];
    for (auto &handle : handles)
        handle = rmheap_malloc(this->heap, 1000);
    size_t holes = stats_of(this->heap).holes;
    EXPECT_EQ(holes, 1u) << "the free end";
    size_t bytes = stats_of(this->heap).hole_bytes;
    rmfree(handles[1]);
    EXPECT_EQ(stats_of(this->heap).holes, 2u);
    rmfree(handles[4]);
    EXPECT_EQ(stats_of(this->heap).holes, 3u);
    rmfree(handles[3]);
    EXPECT_EQ(stats_of(this->heap).holes, 3u);
    rmfree(handles[2]);
    EXPECT_EQ(stats_of(this->heap).holes, 2u);
    EXPECT_EQ(stats_of(this->heap).hole_bytes, bytes + 4 * 1008);
}

TYPED_TEST(Statistics, CountCompactions) {
    rmhandle_t handles[512];
    for (auto &handle : handles)
        handle = rmheap_malloc(this->heap, 1000);
    for (size_t i = 0; i < 512; i += 2)
        rmfree(handles[i]);
    struct rm_compact_result result;
    rmheap_compact_us(this->heap, 0, &result);
    struct rm_stats stats = stats_of(this->heap);
    EXPECT_EQ(stats.compactions, 1u);
    EXPECT_GT(result.blocks_moved, 0u);
    EXPECT_EQ(stats.blocks_moved, result.blocks_moved);
    EXPECT_EQ(stats.bytes_moved, result.bytes_moved);
    EXPECT_EQ(stats.bytes_released, result.bytes_released);
    EXPECT_EQ(stats.moves_aborted, result.moves_aborted);
    rmheap_compact(this->heap, 0);
    EXPECT_EQ(stats_of(this->heap).compactions, 2u);
}

TEST(StatisticsOfNothing, AreZero) {
    struct rm_stats stats;
    rmstats(&stats);
    EXPECT_EQ(stats.struct_size, offsetof(struct rm_stats, later));
    EXPECT_EQ(stats.blocks, 0u);
    EXPECT_EQ(stats.reserved, 0u);
}

// ------------------------------------------------------------------------------------- growing

TEST(StatisticsOfGrowing, CountLargeBlocksByTheirPages) {
    GrowingHeap heap;
    rmhandle_t handle = rmheap_malloc(heap, (1 << 20) + 1);
    struct rm_stats stats = stats_of(heap);
    EXPECT_EQ(stats.blocks, 1u);
    EXPECT_EQ(stats.large_blocks, 1u);
    EXPECT_EQ(stats.requested, size_t{(1 << 20) + 1});
    EXPECT_EQ(stats.live, size_t{(1 << 20) + 4096});
    EXPECT_EQ(stats.committed, stats.live);
    rmlock(handle);
    EXPECT_EQ(stats_of(heap).locked, stats.live);
    rmunlock(handle);
    rmfree(handle);
    EXPECT_EQ(stats_of(heap).committed, 0u);
    EXPECT_EQ(stats_of(heap).peak_committed, stats.committed);
}

TEST(StatisticsOfGrowing, LimitIsWhatLargestFreeKeepsTo) {
    struct rm_options options;
    rmoptions_init(&options);
    options.limit = 8 << 20;
    GrowingHeap heap(&options);
    EXPECT_EQ(stats_of(heap).largest_free, size_t{8 << 20});
    rmhandle_t handle = rmheap_malloc(heap, 3 << 20);
    EXPECT_EQ(stats_of(heap).largest_free, size_t{5 << 20});
    EXPECT_EQ(rmheap_malloc(heap, (5 << 20) + 1), nullptr);
    rmhandle_t rest = rmheap_malloc(heap, 5 << 20);
    EXPECT_NE(rest, nullptr);
    EXPECT_EQ(stats_of(heap).largest_free, 0u);
    rmfree(handle);
    rmfree(rest);
}

TEST(StatisticsOfGrowing, LargestAfterIsWhatACompactionMakesRoomFor) {
    struct rm_options options;
    rmoptions_init(&options);
    options.limit = 8 << 20;
    GrowingHeap heap(&options);
    std::vector<rmhandle_t> handles;
    for (int i = 0; i < 7000; i++)
        handles.push_back(rmheap_malloc(heap, 1000));
    for (size_t i = 0; i < handles.size(); i++) {
        if (i % 4 != 0)
            rmfree(handles[i]);
    }
    rmlock(handles[4]);
    struct rm_stats stats = stats_of(heap);
    EXPECT_LT(stats.largest_free, size_t{2 << 20});
    EXPECT_GT(stats.largest_after, size_t{5 << 20});
    rmhandle_t large = rmheap_malloc(heap, stats.largest_after - (256 << 10));
    EXPECT_NE(large, nullptr);
    rmunlock(handles[4]);
}

TEST(StatisticsOfGrowing, CountBlocksOfOtherThreads) {
    GrowingHeap heap;
    rmhandle_t mine = rmheap_malloc(heap, 10);
    std::thread([&] {
        rmhandle_t handles[50];
        for (auto &handle : handles)
            handle = rmheap_malloc(heap, 10);
        for (size_t i = 0; i < 20; i++)
            rmfree(handles[i]);
        std::thread([&] {
            EXPECT_EQ(brief_of(heap).blocks, 31u);
            EXPECT_EQ(stats_of(heap).blocks, 31u);
        }).join();
    }).join();
    EXPECT_EQ(stats_of(heap).blocks, 31u);
    EXPECT_EQ(stats_of(heap).requested, 310u);
    rmfree(mine);
}

TEST(StatisticsOfGrowing, HeapsAreCountedApart) {
    GrowingHeap one, other;
    rmheap_malloc(one, 10);
    EXPECT_EQ(stats_of(one).blocks, 1u);
    EXPECT_EQ(stats_of(other).blocks, 0u);
    EXPECT_EQ(stats_of(one).reserved, stats_of(other).reserved) << "they share a window";
}

// ------------------------------------------------------------------------------------- fixed

TEST(StatisticsOfFixed, PartsAddUpToTheBuffer) {
    FixedHeap heap(64 << 10);
    for (int i = 0; i < 100; i++)
        rmheap_malloc(heap, 100);
    struct rm_stats stats = stats_of(heap);
    EXPECT_EQ(stats.reserved, size_t{64 << 10});
    EXPECT_EQ(stats.live + stats.hole_bytes + stats.table + stats.overhead, stats.reserved);
    EXPECT_EQ(stats.committed, stats.live);
}

TEST(StatisticsOfFixed, LargestFreeIsExact) {
    FixedHeap heap(64 << 10);
    rmhandle_t first = rmheap_malloc(heap, 1000);
    size_t largest = stats_of(heap).largest_free;
    rmhandle_t all = rmheap_malloc(heap, largest);
    ASSERT_NE(all, nullptr);
    rmfree(all);
    struct rm_compact_result before, after;
    rmheap_compact_us(heap, 0, &before);
    EXPECT_EQ(rmheap_malloc(heap, largest + 17), nullptr);
    rmheap_compact_us(heap, 0, &after);
    rmfree(first);
}

// What is foretold is what a full compaction makes of it.
void expect_foretold(const Heap &heap) {
    size_t foretold = stats_of(heap).largest_after;
    rmheap_compact(heap, 0);
    struct rm_stats stats = stats_of(heap);
    EXPECT_EQ(stats.largest_free, foretold);
    EXPECT_EQ(stats.largest_after, foretold);
    rmhandle_t largest = rmheap_malloc(heap, foretold);
    EXPECT_NE(largest, nullptr);
    rmfree(largest);
}

TEST(StatisticsOfFixed, LargestAfterForetellsACompaction) {
    FixedHeap heap(256 << 10);
    std::vector<rmhandle_t> handles;
    for (int i = 0; i < 200; i++)
        handles.push_back(rmheap_malloc(heap, 1000));
    for (size_t i = 0; i < handles.size(); i++) {
        if (i % 3 != 0)
            rmfree(handles[i]);
    }
    EXPECT_LT(stats_of(heap).largest_free, size_t{64 << 10});
    expect_foretold(heap);
    EXPECT_EQ(stats_of(heap).holes, 1u);
}

TEST(StatisticsOfFixed, LargestAfterKnowsLockedBlocks) {
    FixedHeap heap(256 << 10);
    std::vector<rmhandle_t> handles;
    for (int i = 0; i < 200; i++)
        handles.push_back(rmheap_malloc(heap, 1000));
    rmlock(handles[100]);
    for (size_t i = 0; i < handles.size(); i++) {
        if (i != 100 && i % 7 != 0)
            rmfree(handles[i]);
    }
    size_t foretold = stats_of(heap).largest_after;
    EXPECT_LT(foretold, size_t{160 << 10});
    EXPECT_GT(foretold, size_t{140 << 10});
    expect_foretold(heap);
    rmunlock(handles[100]);
}

TEST(StatisticsOfFixed, BlocksBeyondTheFieldOfAHeaderAreCounted) {
    FixedHeap heap(64 << 20);
    rmhandle_t huge = rmheap_malloc(heap, 40 << 20);
    ASSERT_NE(huge, nullptr);
    struct rm_stats stats = stats_of(heap);
    EXPECT_EQ(stats.requested, size_t{40 << 20});
    EXPECT_EQ(stats.live, size_t{(40 << 20) + 32});
    EXPECT_GT(stats.largest_free, size_t{23 << 20});
    EXPECT_NE(rmheap_malloc(heap, stats.largest_free), nullptr);
}

// ------------------------------------------------------------------------------------- visits

struct Visit {
    std::vector<rm_block_info> seen;
    size_t stop_after = SIZE_MAX;
};

int note(void *context, const struct rm_block_info *info) {
    auto *visit = static_cast<Visit *>(context);
    visit->seen.push_back(*info);
    return visit->seen.size() == visit->stop_after ? 42 : 0;
}

TYPED_TEST(Statistics, VisitSeesEveryLiveBlockInOrder) {
    rmhandle_t handles[20];
    for (auto &handle : handles)
        handle = rmheap_aligned_alloc(this->heap, 64, 200);
    for (size_t i = 0; i < 20; i += 2)
        rmfree(handles[i]);
    const void *locked = rmlock(handles[3]);
    rmpurgeable(handles[5], 7);
    Visit visit;
    EXPECT_EQ(rmheap_visit(this->heap, note, &visit), 0);
    ASSERT_EQ(visit.seen.size(), 10u);
    for (size_t i = 0; i < 10; i++) {
        const rm_block_info &info = visit.seen[i];
        EXPECT_EQ(info.handle, handles[2 * i + 1]);
        EXPECT_EQ(info.address, rmweaklock(info.handle));
        EXPECT_EQ(info.size, 200u);
        EXPECT_EQ(info.alignment, 64u);
        EXPECT_EQ(info.locks, i == 1 ? 1u : 0u);
        EXPECT_EQ(info.priority, i == 2 ? 7u : 0u);
        EXPECT_EQ(info.large, 0);
    }
    EXPECT_EQ(visit.seen[1].address, locked);
    rmunlock(handles[3]);
}

TYPED_TEST(Statistics, VisitStopsWhenTold) {
    for (int i = 0; i < 20; i++)
        rmheap_malloc(this->heap, 10);
    Visit visit;
    visit.stop_after = 7;
    EXPECT_EQ(rmheap_visit(this->heap, note, &visit), 42);
    EXPECT_EQ(visit.seen.size(), 7u);
}

TEST(StatisticsOfGrowing, VisitSeesLargeBlocks) {
    GrowingHeap heap;
    rmhandle_t small = rmheap_malloc(heap, 10);
    rmhandle_t large = rmheap_aligned_alloc(heap, 1 << 16, 1 << 20);
    Visit visit;
    EXPECT_EQ(rmheap_visit(heap, note, &visit), 0);
    ASSERT_EQ(visit.seen.size(), 2u);
    EXPECT_EQ(visit.seen[0].handle, small);
    EXPECT_EQ(visit.seen[1].handle, large);
    EXPECT_EQ(visit.seen[1].large, 1);
    EXPECT_EQ(visit.seen[1].alignment, size_t{1 << 16});
    visit = Visit{};
    visit.stop_after = 2;
    EXPECT_EQ(rmheap_visit(heap, note, &visit), 42);
}

} // namespace
