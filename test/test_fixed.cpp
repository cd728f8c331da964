// The fixed heap: holes, entries, resizing, purging, and random programs against a model. Compaction
// has tests of its own in test_slide.cpp.
#include "support/fixed_heap.hpp"

#include <algorithm>
#include <random>

using namespace fixed_test;

namespace {

TEST(Fixed, NeedsFourKibibytes) {
    alignas(16) static char buffer[4095];
    EXPECT_EQ(jf_fixed_create(buffer, sizeof buffer, nullptr, 1), nullptr);
}

TEST(Fixed, LeavesMostOfASmallBufferToBlocks) {
    FixedHeap heap(4 * kib, 5);
    EXPECT_GE(jf_fixed_largest_free(heap.get()), 2560u);
    uint32_t index = heap.allocate(2560);
    EXPECT_NE(index, 0u);
    heap.check();
}

TEST(Fixed, StaysInsideItsBuffer) {
    std::vector<unsigned char> memory(8 * kib + 64, 0xa5);
    jf_heap *heap = jf_fixed_create(memory.data() + 27, 8 * kib, nullptr, 1);
    while (jf_fixed_allocate(heap, 40, 4) != 0)
        continue;
    jf_fixed_destroy(heap);
    EXPECT_TRUE(std::all_of(memory.begin(), memory.begin() + 27, [](int b) { return b == 0xa5; }));
    EXPECT_TRUE(
        std::all_of(memory.begin() + 27 + 8 * kib, memory.end(), [](int b) { return b == 0xa5; }));
}

TEST(Fixed, BlocksOfNoBytesAreDistinct) {
    FixedHeap heap(4 * kib);
    uint32_t first = heap.allocate(0), second = heap.allocate(0);
    EXPECT_NE(first, second);
    EXPECT_NE(heap.address(first), heap.address(second));
    heap.check();
}

TEST(Fixed, NeverGivesOutEntryZero) {
    FixedHeap heap(4 * kib);
    size_t count = 0;
    while (heap.allocate(0) != 0)
        count++;
    EXPECT_EQ(heap.blocks().count(0), 0u);
    EXPECT_EQ(count, heap.blocks().size());
    EXPECT_GT(count, 80u);
    heap.check();
}

TEST(Fixed, PayloadsAreAlignedAsAskedFor) {
    FixedHeap heap(4 * mib, 3);
    for (unsigned log2 = 4; log2 <= JF_ALIGN_LOG2_MAX; log2++)
        EXPECT_NE(heap.allocate(100, log2), 0u) << log2;
    heap.check();
    heap.check_contents();
}

TEST(Fixed, RequestsTooLargeForTheHeapChangeNothing) {
    FixedHeap heap(64 * kib);
    heap.allocate(1000);
    FixedHeap::Holes before = heap.holes();
    for (size_t size : {size_t{64} * kib, SIZE_MAX / 2, SIZE_MAX - 20, SIZE_MAX})
        EXPECT_EQ(heap.allocate(size), 0u) << size;
    EXPECT_EQ(heap.allocate(64 * kib), 0u);
    heap.check();
    EXPECT_LE(before.bytes - heap.holes().bytes, size_t{JF_GRAIN}); // a pair of entries
    EXPECT_EQ(heap.blocks().size(), 1u);
}

TEST(Fixed, LargestFreeIsWhatCanBeAllocated) {
    FixedHeap heap(64 * kib);
    for (int i = 0; i < 5; i++) {
        size_t largest = jf_fixed_largest_free(heap.get());
        EXPECT_EQ(heap.allocate(largest + 1), 0u);
        largest = jf_fixed_largest_free(heap.get());
        uint32_t index = heap.allocate(largest);
        ASSERT_NE(index, 0u);
        heap.check();
        heap.release(index);
        heap.allocate(5000);
    }
}

TEST(Fixed, FreedNeighboursBecomeOneHoleInWhateverOrder) {
    for (bool ascending : {true, false}) {
        FixedHeap heap(64 * kib);
        std::vector<uint32_t> blocks;
        for (int i = 0; i < 50; i++)
            blocks.push_back(heap.allocate(100));
        uint32_t wall = heap.allocate(100);
        if (!ascending)
            std::reverse(blocks.begin(), blocks.end());
        for (uint32_t index : blocks)
            heap.release(index);
        EXPECT_EQ(heap.holes().count, 2u);
        EXPECT_GT(heap.address(wall), heap.part().start + 5000);
        heap.check();
    }
}

TEST(Fixed, SearchJoinsHolesThatLieBesideEachOther) {
    FixedHeap heap(16 * kib);
    uint32_t first = heap.allocate(3000), second = heap.allocate(16), third = heap.allocate(500);
    heap.allocate(1000);
    uint32_t rest = heap.allocate(jf_fixed_largest_free(heap.get()));
    ASSERT_NE(rest, 0u);
    for (uint32_t index : {first, third, second})
        heap.release(index);
    EXPECT_EQ(heap.holes().count, 2u);
    EXPECT_NE(heap.allocate(3500), 0u);
    heap.check();
}

TEST(Fixed, AllocationFindsAHoleBehindManyTooSmallOnes) {
    FixedHeap heap(64 * kib);
    std::vector<uint32_t> freed;
    auto with_wall = [&](size_t size) {
        freed.push_back(heap.allocate(size));
        heap.allocate(0);
    };
    with_wall(1400);
    for (int i = 0; i < 20; i++)
        with_wall(1100);
    heap.allocate(jf_fixed_largest_free(heap.get()));
    for (uint32_t index : freed)
        heap.release(index);
    uint32_t index = heap.allocate(1300);
    EXPECT_EQ(index != 0 ? heap.address(index) : 0, heap.part().start + 8);
    heap.check();
}

TEST(Fixed, WithTheLastBlockEverythingIsAsNew) {
    FixedHeap heap(64 * kib);
    FixedHeap::Holes empty = heap.holes();
    std::vector<uint32_t> blocks;
    while (uint32_t index = heap.allocate(24))
        blocks.push_back(index);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
    for (uint32_t index : blocks)
        heap.release(index);
    heap.check();
    EXPECT_EQ(heap.holes().count, 1u);
    EXPECT_EQ(heap.holes().bytes, empty.bytes);
    EXPECT_EQ(jf_space_entries(heap.get()->space), 1u);
}

TEST(Fixed, HandlesFromBeforeTheTableShrankStayStale) {
    FixedHeap heap(16 * kib);
    std::vector<rmhandle_t> stale;
    for (int round = 0; round < 50; round++) {
        std::vector<uint32_t> blocks;
        for (int i = 0; i < 20; i++)
            blocks.push_back(heap.allocate(16));
        for (uint32_t index : blocks) {
            EXPECT_EQ(std::count(stale.begin(), stale.end(), heap.block(index).handle), 0);
            stale.push_back(heap.block(index).handle);
        }
        for (uint32_t index : blocks)
            heap.release(index);
        heap.check();
    }
}

TEST(Fixed, GenerationsGoOnWhereTheTableShrankAndCameBack) {
    FixedHeap heap(4 * kib);
    std::map<rmhandle_t, int> last;
    for (int i = 0; i < 3 * 4096; i++) {
        uint32_t index = heap.allocate(8);
        auto [place, fresh] = last.insert({heap.block(index).handle, i});
        ASSERT_TRUE(fresh || i - place->second >= 4095) << i << " after " << place->second;
        place->second = i;
        heap.release(index);
        ASSERT_EQ(jf_space_entries(heap.get()->space), 1u);
    }
    heap.check();
}

TEST(Fixed, EntriesFarAheadOfTheOthersStayInTheTable) {
    FixedHeap heap(16 * kib);
    std::vector<uint32_t> blocks;
    for (int i = 0; i < 9; i++)
        blocks.push_back(heap.allocate(8));
    std::vector<rmhandle_t> stale;
    uint32_t hot = blocks[4];
    for (int i = 0; i < 1000; i++) {
        stale.push_back(heap.block(hot).handle);
        heap.release(hot);
        ASSERT_EQ(heap.allocate(8), hot);
    }
    for (uint32_t index : blocks)
        heap.release(index);
    EXPECT_EQ(jf_space_entries(heap.get()->space), (hot + 1) | 1u);
    heap.check();
    for (int i = 0; i < 20; i++) {
        uint32_t index = heap.allocate(8);
        EXPECT_EQ(std::count(stale.begin(), stale.end(), heap.block(index).handle), 0);
    }
}

TEST(Fixed, RetireNeverGivesAHandleTwice) {
    jf_options options = {};
    options.retire = true;
    FixedHeap heap(4 * kib, 0, options);
    std::map<rmhandle_t, int> seen;
    for (int i = 0; i < 3 * 4096; i++) {
        uint32_t index = heap.allocate(8);
        ASSERT_NE(index, 0u);
        ASSERT_EQ(seen[heap.block(index).handle]++, 0) << i;
        heap.release(index);
    }
    heap.check();
}

/* ------------------------------------------------------------------------------------- resize */

TEST(FixedResize, ShrinksAndGrowsWhereItIs) {
    FixedHeap heap(16 * kib);
    uint32_t index = heap.allocate(1000);
    heap.allocate(16);
    uintptr_t at = heap.address(index);
    for (size_t size : {999, 500, 0, 16, 700, 1000}) {
        EXPECT_TRUE(heap.resize(index, size));
        EXPECT_EQ(heap.address(index), at);
        heap.check();
        heap.check_contents();
    }
    EXPECT_EQ(heap.holes().count, 1u);
}

TEST(FixedResize, MovesWhenThereIsNoRoomBehind) {
    FixedHeap heap(16 * kib);
    uint32_t index = heap.allocate(100, 8);
    heap.allocate(1000);
    uintptr_t at = heap.address(index);
    EXPECT_TRUE(heap.resize(index, 3000));
    EXPECT_NE(heap.address(index), at);
    heap.check();
    heap.check_contents();
}

TEST(FixedResize, LockedBlockIsResizedOnlyInPlace) {
    FixedHeap heap(16 * kib);
    uint32_t index = heap.allocate(100);
    uint32_t wall = heap.allocate(100);
    heap.lock(index);
    EXPECT_FALSE(heap.resize(index, 200));
    heap.check();
    EXPECT_TRUE(heap.resize(index, 60));
    heap.release(wall);
    EXPECT_TRUE(heap.resize(index, 200));
    heap.check();
    heap.check_contents();
    heap.unlock(index);
}

TEST(FixedResize, WithoutRoomNothingChanges) {
    FixedHeap heap(16 * kib);
    uint32_t index = heap.allocate(4000);
    heap.allocate(9000);
    EXPECT_FALSE(heap.resize(index, 12000));
    EXPECT_FALSE(heap.resize(index, SIZE_MAX - 5));
    heap.check();
    heap.check_contents();
}

TEST(FixedResize, WorksAcrossTheLimitOfTheStrideField) {
    FixedHeap heap(72 * mib);
    uint32_t index = heap.allocate(1000);
    for (size_t size : {JF_STRIDE_FIELD_MAX - 8, JF_STRIDE_FIELD_MAX - 7, 20 * mib,
                        JF_STRIDE_FIELD_MAX - 100, 17 * mib, size_t{50}, 18 * mib}) {
        EXPECT_TRUE(heap.resize(index, size)) << size;
        heap.check();
        heap.check_contents();
    }
}

TEST(FixedResize, MayTakeThePlaceOfTheCursor) {
    FixedHeap heap(16 * kib);
    std::vector<uint32_t> unused;
    uint32_t index = heap.allocate(1000);
    for (int i = 0; i < 40; i++)
        unused.push_back(heap.allocate(8));
    uint32_t last = heap.allocate(1000);
    for (uint32_t freed : unused)
        heap.release(freed);
    heap.slide();
    ASSERT_EQ(heap.holes().count, 1u);
    // A slide has come as far as the hole at the end.
    heap.part().sliding = true;
    heap.part().cursor = heap.part().tail;
    heap.check();
    EXPECT_TRUE(heap.resize(last, 1000 + heap.holes().bytes));
    EXPECT_EQ(heap.part().cursor, jf_fixed_last(heap.get()));
    heap.check();
    EXPECT_TRUE(heap.resize(last, 1000));
    heap.check();
    while (heap.allocate(1) != 0) // the table grows and takes the end of the chain with it
        heap.check();
    while (heap.blocks().size() > 2)
        heap.release(heap.blocks().rbegin()->first);
    jf_fixed_trim_start(heap.get());
    while (jf_fixed_trim(heap.get(), 100)) // and shrinks again
        continue;
    heap.check();
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    heap.check();
    EXPECT_EQ(heap.holes().count, 1u);
    EXPECT_NE(heap.address(index), 0u);
}

/* ------------------------------------------------------------------------------------- purge, lower */

TEST(FixedPurge, EmptiesTheFirstUnlockedBlockOfThePriority) {
    FixedHeap heap(16 * kib);
    uint32_t first = heap.allocate(1000), second = heap.allocate(1000, 9);
    uint32_t third = heap.allocate(1000), other = heap.allocate(1000);
    for (uint32_t index : {first, second, third})
        heap.set_priority(index, 3);
    heap.set_priority(other, 4);
    heap.lock(first);
    EXPECT_EQ(heap.purge(2), 0u);
    EXPECT_EQ(heap.purge(3), second);
    EXPECT_EQ(heap.purge(3), third);
    EXPECT_EQ(heap.purge(3), 0u);
    heap.check();
    heap.unlock(first);
    EXPECT_EQ(heap.purge(3), first);
    EXPECT_EQ(heap.purge(4), other);
    heap.check();
    EXPECT_EQ(heap.holes().count, 1u);
}

TEST(FixedPurge, RevivedBlockIsAlignedAsBefore) {
    FixedHeap heap(16 * kib);
    heap.allocate(10);
    uint32_t index = heap.allocate(1000, 9);
    heap.set_priority(index, 1);
    ASSERT_EQ(heap.purge(1), index);
    heap.allocate(600); // where the block was
    EXPECT_TRUE(heap.resize(index, 700));
    heap.check();
    heap.check_contents();
    EXPECT_EQ(heap.purge(1), 0u);
}

TEST(FixedPurge, PurgedBlocksCanBeFreed) {
    FixedHeap heap(16 * kib);
    uint32_t index = heap.allocate(1000);
    heap.set_priority(index, 1);
    ASSERT_EQ(heap.purge(1), index);
    heap.release(index);
    heap.check();
    EXPECT_EQ(jf_space_entries(heap.get()->space), 1u);
}

TEST(FixedPurge, LeavesBlocksAloneWhileAReadSectionIsOpen) {
    FixedHeap heap(16 * kib);
    uint32_t index = heap.allocate(1000);
    heap.set_priority(index, 1);
    rm_reader reader = {};
    jf_reader_node node = {};
    reader.sequence = 1;
    jf_readers_add(&heap.readers(), &node, &reader);
    EXPECT_EQ(heap.purge(1), 0u);
    EXPECT_EQ(jf_entry_state(heap.word(index)), JF_ENTRY_LIVE);
    reader.sequence = 2;
    EXPECT_EQ(heap.purge(1), index);
    jf_readers_remove(&heap.readers(), &node);
}

TEST(FixedLower, MovesToTheLowestHoleThatFits) {
    FixedHeap heap(16 * kib);
    uint32_t blocks[6];
    for (uint32_t &index : blocks)
        index = heap.allocate(200);
    uint32_t top = heap.allocate(150);
    uintptr_t place = heap.address(blocks[1]);
    for (int i : {1, 5, 3})
        heap.release(blocks[i]);
    jf_fixed_lower(heap.get(), top, &heap.readers(), nullptr);
    EXPECT_EQ(heap.address(top), place);
    heap.check();
    heap.check_contents();
    jf_fixed_lower(heap.get(), top, &heap.readers(), nullptr);
    EXPECT_EQ(heap.address(top), place);
    heap.check();
}

TEST(FixedLower, LeavesALockedBlockAlone) {
    FixedHeap heap(16 * kib);
    uint32_t low = heap.allocate(200), high = heap.allocate(200);
    heap.release(low);
    heap.lock(high);
    jf_fixed_lower(heap.get(), high, &heap.readers(), nullptr);
    heap.check();
}

/* ------------------------------------------------------------------------------------- random programs */

class Program {
  public:
    Program(size_t size, uint32_t seed) : heap(size, seed % 16), random_(seed), size_(size) {}

    void step() {
        size_t what = pick(20);
        if (what < 8)
            heap.allocate(any_size(), what == 7 ? static_cast<unsigned>(4 + pick(6)) : 4);
        else if (what < 12)
            with_block(&Program::release_unlocked);
        else if (what < 14)
            with_block([this](uint32_t index) { heap.resize(index, any_size()); });
        else if (what < 17)
            what == 14 ? with_block(&Program::lock_some) : with_locked(&Program::unlock);
        else if (what == 17)
            with_block(&Program::mark_or_purge);
        else if (what == 18)
            with_block(&Program::lower);
        else
            heap.slide(pick(4) == 0 ? 0 : 16 + static_cast<uint32_t>(pick(20)));
        if (pick(2000) == 0)
            free_most();
    }

    FixedHeap heap;

  private:
    size_t pick(size_t count) {
        return random_() % count;
    }

    size_t any_size() {
        size_t most = size_ / (pick(10) == 0 ? 8 : 64);
        return pick(most + 1);
    }

    template <typename Function> void with_block(Function function) {
        if (heap.blocks().empty())
            return;
        auto place = heap.blocks().begin();
        std::advance(place, pick(heap.blocks().size()));
        if constexpr (std::is_member_function_pointer_v<Function>)
            (this->*function)(place->first);
        else
            function(place->first);
    }

    template <typename Function> void with_locked(Function function) {
        std::vector<uint32_t> locked;
        for (auto &[index, block] : heap.blocks())
            if (block.locks != 0)
                locked.push_back(index);
        if (!locked.empty())
            (this->*function)(locked[pick(locked.size())]);
    }

    void release_unlocked(uint32_t index) {
        if (heap.block(index).locks == 0)
            heap.release(index);
    }

    void lock_some(uint32_t index) {
        if (heap.block(index).purged || locked_ == 5)
            return;
        heap.lock(index);
        locked_++;
    }

    void unlock(uint32_t index) {
        heap.unlock(index);
        locked_--;
    }

    void mark_or_purge(uint32_t index) {
        if (!heap.block(index).purged)
            heap.set_priority(index, static_cast<unsigned>(pick(3)));
        if (pick(4) == 0)
            heap.purge(1 + static_cast<unsigned>(pick(2)));
    }

    void lower(uint32_t index) {
        if (!heap.block(index).purged)
            jf_fixed_lower(heap.get(), index, &heap.readers(), nullptr);
    }

    void free_most() {
        std::vector<uint32_t> all;
        for (auto &[index, block] : heap.blocks())
            if (block.locks == 0 && pick(20) != 0)
                all.push_back(index);
        for (uint32_t index : all)
            heap.release(index);
    }

    std::mt19937 random_;
    size_t size_;
    size_t locked_ = 0;
};

TEST(FixedRandom, ProgramsKeepEveryRuleAndEveryByte) {
    for (size_t size : {4 * kib, 16 * kib, 100 * kib, 1 * mib}) {
        for (uint32_t seed = 1; seed <= 4; seed++) {
            SCOPED_TRACE(testing::Message() << "size " << size << " seed " << seed);
            Program program(size, seed);
            for (int i = 0; i < 4000; i++) {
                program.step();
                program.heap.check();
                if (i % 50 == 0)
                    program.heap.check_contents();
                if (testing::Test::HasFatalFailure())
                    FAIL() << "step " << i;
            }
        }
    }
}

} // namespace
