// Compaction of a growing heap: what it reaches, what locked blocks prevent and how that is told, where it
// stops and goes on, and that it converges.
#include "support/heaps.hpp"
#include "support/model.hpp"

#include <algorithm>
#include <map>

using support::GrowingHeap;

namespace {

class Compact : public testing::Test {
  protected:
    struct Block {
        rmhandle_t handle;
        size_t size;
        unsigned char seed;
    };

    void add(size_t size) {
        Block block = {rmheap_malloc(heap, size), size, static_cast<unsigned char>(blocks.size())};
        ASSERT_NE(block.handle, nullptr);
        auto *bytes = static_cast<unsigned char *>(rmlock(block.handle));
        std::fill(bytes, bytes + size, block.seed);
        rmunlock(block.handle);
        blocks.push_back(block);
    }

    // So many blocks of up to `most` bytes.
    void fill(size_t count, size_t most) {
        for (size_t i = 0; i < count; i++)
            add(random.below(most + 1));
    }

    // Frees all but about `keep` of 1000.
    void thin_out(size_t keep) {
        std::vector<Block> rest;
        for (const Block &block : blocks) {
            if (random.below(1000) < keep)
                rest.push_back(block);
            else
                rmfree(block.handle);
        }
        blocks.swap(rest);
    }

    void expect_whole() {
        for (const Block &block : blocks) {
            const auto *bytes = static_cast<const unsigned char *>(rmlock(block.handle));
            ASSERT_TRUE(std::all_of(bytes, bytes + block.size,
                                    [&](unsigned char byte) { return byte == block.seed; }));
            rmunlock(block.handle);
        }
        EXPECT_EQ(heap.check(), 0) << heap.fault.name << ": " << heap.fault.text;
    }

    rm_compact_status compact(uint32_t max_us = 0) {
        return rmheap_compact_us(heap, max_us, &result);
    }

    struct rm_stats stats() {
        struct rm_stats figures;
        rmheap_stats(heap, &figures);
        return figures;
    }

    GrowingHeap heap;
    support::Random random{11};
    std::vector<Block> blocks;
    struct rm_compact_result result = {};
};

TEST_F(Compact, OfAnEmptyHeapHasNothingToDo) {
    EXPECT_EQ(compact(), RM_COMPACT_DONE);
    EXPECT_EQ(result.blocks_moved, 0u);
    EXPECT_EQ(result.bytes_released, 0u);
}

TEST_F(Compact, PacksWhatIsLeft) {
    fill(100000, 400);
    size_t committed = stats().committed;
    thin_out(333);
    EXPECT_EQ(compact(), RM_COMPACT_DONE);
    struct rm_stats after = stats();
    EXPECT_LE(after.committed, after.live + after.live / 25);
    EXPECT_GE(result.bytes_released, committed - after.committed);
    EXPECT_GT(result.blocks_moved, blocks.size() / 2);
    EXPECT_GE(result.bytes_moved, result.blocks_moved * 16);
    EXPECT_EQ(result.blocks_locked, 0u);
    EXPECT_EQ(result.bytes_locked, 0u);
    EXPECT_EQ(after.compactions, 1u);
    EXPECT_EQ(after.bytes_moved, result.bytes_moved);
    expect_whole();
}

TEST_F(Compact, ConvergesAndThenMovesNothing) {
    fill(50000, 800);
    thin_out(500);
    EXPECT_EQ(compact(), RM_COMPACT_DONE);
    for (int again = 0; again < 3; again++) {
        EXPECT_EQ(compact(), RM_COMPACT_DONE);
        EXPECT_EQ(result.blocks_moved, 0u);
        EXPECT_EQ(result.bytes_released, 0u);
    }
    expect_whole();
}

TEST_F(Compact, GoesOnWhereTheLastCallStopped) {
    fill(100000, 300);
    thin_out(250);
    unsigned calls = 0;
    while (compact(200) == RM_COMPACT_BUDGET) {
        if (++calls % 16 == 0) {
            EXPECT_EQ(heap.check(), 0) << heap.fault.name;
        }
        ASSERT_LT(calls, 1000000u);
    }
    EXPECT_GT(calls, 2u);
    EXPECT_EQ(result.status, RM_COMPACT_DONE);
    struct rm_stats after = stats();
    EXPECT_LE(after.committed, after.live + after.live / 20);
    expect_whole();
}

TEST_F(Compact, ProgramMayGoOnBetweenTwoCalls) {
    fill(30000, 300);
    for (int round = 0; round < 300; round++) {
        thin_out(round % 50 == 0 ? 500 : 999);
        fill(100, 3000);
        compact(100);
    }
    while (compact(1000) == RM_COMPACT_BUDGET) {
    }
    struct rm_stats after = stats();
    // the region that is being filled, and less than a 32nd of each other
    EXPECT_LE(after.committed, after.live + after.live / 32 + JF_REGION_SIZE);
    expect_whole();
}

TEST_F(Compact, LockedBlocksStayAndTheResultSaysWhatTheyPrevent) {
    fill(100000, 300);
    thin_out(20);
    std::map<rmhandle_t, void *> locked;
    for (size_t i = 0; i < blocks.size(); i += 10)
        locked[blocks[i].handle] = rmlock(blocks[i].handle);
    EXPECT_EQ(compact(), RM_COMPACT_LOCKED);
    EXPECT_GT(result.blocks_locked, 0u);
    EXPECT_GT(result.bytes_locked, 0u);
    struct rm_stats after = stats();
    // a page for each, and for some two
    EXPECT_LE(after.committed, locked.size() * 4096 * 5 / 4);
    EXPECT_EQ(after.locked_blocks, locked.size());
    for (const auto &[handle, address] : locked) {
        EXPECT_EQ(rmlock(handle), address);
        rmunlock(handle);
    }
    expect_whole();
    EXPECT_EQ(compact(), RM_COMPACT_LOCKED);
    EXPECT_EQ(result.blocks_moved, 0u);
    for (const auto &each : locked)
        rmunlock(each.first);
    EXPECT_EQ(compact(), RM_COMPACT_DONE);
    EXPECT_EQ(result.bytes_locked, 0u);
    EXPECT_GT(result.bytes_released, 0u);
    after = stats();
    EXPECT_LE(after.committed, after.live + after.live / 25);
    expect_whole();
}

TEST_F(Compact, GapsBeforeLockedBlocksAreFilledWithBlocksThatFit) {
    for (int i = 0; i < 20000; i++)
        add(i % 100 == 0 ? 3000 : 120);
    std::vector<Block> rest;
    std::vector<uintptr_t> locked;
    for (size_t i = 0; i < blocks.size(); i++) {
        bool stays = i % 100 == 0;
        if (!stays && i % 4 != 1) {
            rmfree(blocks[i].handle);
            continue;
        }
        rest.push_back(blocks[i]);
        if (stays)
            locked.push_back(reinterpret_cast<uintptr_t>(rmlock(blocks[i].handle)));
    }
    blocks.swap(rest);
    compact();
    EXPECT_GT(result.blocks_moved, 0u);
    // the small ones lie between the locked ones now
    size_t between = 0;
    for (const Block &block : blocks) {
        uintptr_t at = heap.payload(block.handle);
        auto next = std::upper_bound(locked.begin(), locked.end(), at);
        between += block.size == 120 && next != locked.begin() && next != locked.end() &&
                   at - next[-1] < 16384;
    }
    EXPECT_GT(between, blocks.size() / 4);
    struct rm_stats after = stats();
    EXPECT_LE(after.committed, after.live + after.live / 3);
    for (size_t i = 0; i < blocks.size(); i++)
        if (blocks[i].size == 3000)
            rmunlock(blocks[i].handle);
    expect_whole();
}

TEST_F(Compact, LargeBlocksAreGivenBackWithoutBeingMoved) {
    for (int i = 0; i < 40; i++)
        add(1 << 20);
    std::map<rmhandle_t, uintptr_t> places;
    thin_out(500);
    for (const Block &block : blocks)
        places[block.handle] = heap.payload(block.handle);
    EXPECT_EQ(compact(), RM_COMPACT_DONE);
    EXPECT_EQ(result.blocks_moved, 0u);
    for (const auto &[handle, address] : places)
        EXPECT_EQ(heap.payload(handle), address);
    struct rm_stats after = stats();
    EXPECT_LE(after.committed, after.live + blocks.size() * 4096);
    expect_whole();
}

TEST_F(Compact, AlignmentIsKept) {
    std::vector<rmhandle_t> handles;
    for (int i = 0; i < 20000; i++)
        handles.push_back(rmheap_aligned_alloc(heap, size_t{16} << (i % 9), 100));
    for (size_t i = 0; i < handles.size(); i++)
        if (i % 3 != 0)
            rmfree(handles[i]);
    EXPECT_EQ(compact(), RM_COMPACT_DONE);
    EXPECT_GT(result.blocks_moved, 1000u);
    for (size_t i = 0; i < handles.size(); i += 3)
        EXPECT_EQ(heap.payload(handles[i]) % (size_t{16} << (i % 9)), 0u);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
}

struct Told {
    std::map<rmhandle_t, void *> places;
    size_t calls = 0;
};

void note(void *context, rmhandle_t handle, void *address, size_t size) {
    auto *told = static_cast<Told *>(context);
    told->places[handle] = address;
    told->calls++;
    EXPECT_EQ(rmsize(handle), size);
    EXPECT_EQ(rmlock(handle), address);
    rmunlock(handle);
}

TEST_F(Compact, EveryMoveIsToldWithTheNewAddress) {
    Told told;
    struct rm_options options;
    rmoptions_init(&options);
    options.context = &told;
    options.moved = note;
    ASSERT_EQ(rmheap_configure(heap, &options), 0);
    fill(10000, 300);
    thin_out(333);
    std::map<rmhandle_t, uintptr_t> before;
    for (const Block &block : blocks)
        before[block.handle] = heap.payload(block.handle);
    compact();
    EXPECT_EQ(told.calls, result.blocks_moved);
    for (const Block &block : blocks) {
        uintptr_t now = heap.payload(block.handle);
        auto place = told.places.find(block.handle);
        EXPECT_EQ(place != told.places.end(), now != before[block.handle]);
        if (place != told.places.end()) {
            EXPECT_EQ(place->second, reinterpret_cast<void *>(now));
        }
    }
}

TEST_F(Compact, TheMoveBeforeALongLockIsTold) {
    Told told;
    struct rm_options options;
    rmoptions_init(&options);
    options.context = &told;
    options.moved = note;
    ASSERT_EQ(rmheap_configure(heap, &options), 0);
    fill(100, 300);
    void *place = rmlock_long(blocks[50].handle);
    ASSERT_EQ(told.calls, 1u);
    EXPECT_EQ(told.places[blocks[50].handle], place);
    rmunlock(blocks[50].handle);
    expect_whole();
}

} // namespace
