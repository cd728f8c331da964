// Compaction of a fixed heap: what a slide leaves behind, what locked blocks and open read sections keep,
// where it stops and goes on, and that it converges.
#include "support/fixed_heap.hpp"

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

using namespace fixed_test;

namespace {

// Fills the heap with blocks of sizes up to `most` and frees every one that `dead` says so of.
template <typename Dead>
std::vector<uint32_t> fill_and_free(FixedHeap &heap, size_t most, Dead dead) {
    std::mt19937 random(7);
    std::vector<uint32_t> all, live;
    while (uint32_t index = heap.allocate(random() % (most + 1)))
        all.push_back(index);
    for (size_t i = 0; i < all.size(); i++) {
        if (dead(i))
            heap.release(all[i]);
        else
            live.push_back(all[i]);
    }
    return live;
}

auto every_second = [](size_t i) { return i % 2 == 0; };

TEST(Slide, WithNothingLockedLeavesOneHole) {
    for (size_t size : {4 * kib, 64 * kib, 1 * mib}) {
        FixedHeap heap(size);
        fill_and_free(heap, size / 100, every_second);
        ASSERT_GT(heap.holes().count, 5u);
        EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
        heap.check();
        heap.check_contents();
        EXPECT_EQ(heap.holes().count, 1u);
        EXPECT_GT(heap.result.blocks_moved, 0u);
        EXPECT_GT(heap.result.bytes_moved, heap.result.blocks_moved * 15);
        EXPECT_GT(heap.result.bytes_released, size / 4);
        EXPECT_EQ(heap.result.blocks_locked, 0u);
        EXPECT_EQ(heap.result.bytes_locked, 0u);
    }
}

TEST(Slide, AllFreeBytesLessAHundredthCanBeAllocatedAfterwards) {
    for (size_t size : {16 * kib, 1 * mib, 40 * mib}) {
        FixedHeap heap(size);
        fill_and_free(heap, size / 50, every_second);
        ASSERT_EQ(heap.slide(), RM_COMPACT_DONE);
        size_t free_bytes = heap.holes().bytes;
        EXPECT_NE(heap.allocate(free_bytes - free_bytes / 100), 0u);
        heap.check();
    }
}

TEST(Slide, ConvergesAndThenMovesNothing) {
    FixedHeap heap(256 * kib);
    fill_and_free(heap, 500, every_second);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_FALSE(heap.part().sliding);
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
        EXPECT_EQ(heap.result.blocks_moved, 0u);
        EXPECT_EQ(heap.result.bytes_released, 0u);
    }
}

TEST(Slide, SkipsThePackedPartOfTheHeap) {
    FixedHeap heap(64 * kib);
    std::vector<uint32_t> blocks;
    while (uint32_t index = heap.allocate(100))
        blocks.push_back(index);
    size_t last = blocks.size() - 3;
    heap.release(blocks[last]);
    EXPECT_EQ(heap.part().lowest, heap.part().recent);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_EQ(heap.result.blocks_moved, 2u);
    heap.check();
}

TEST(Slide, GoesOnWhereTheLastCallStopped) {
    FixedHeap heap(4 * mib);
    fill_and_free(heap, 500, every_second);
    int calls = 0;
    while (heap.slide(500) == RM_COMPACT_BUDGET && calls < 10000) {
        calls++;
        ASSERT_NO_FATAL_FAILURE(heap.check());
        if (calls % 5 == 0) {
            heap.allocate(300);
            heap.release(heap.blocks().begin()->first);
        }
    }
    ASSERT_NO_FATAL_FAILURE(heap.check_contents());
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_EQ(heap.holes().count, 1u);
}

TEST(Slide, WithoutTimeDoesNothing) {
    FixedHeap heap(64 * kib);
    fill_and_free(heap, 500, every_second);
    EXPECT_EQ(heap.slide(1), RM_COMPACT_BUDGET);
    EXPECT_EQ(heap.result.blocks_moved, 0u);
    heap.check();
}

TEST(Slide, KeepsAlignment) {
    FixedHeap heap(256 * kib, 9);
    std::mt19937 random(3);
    std::vector<uint32_t> blocks;
    for (int i = 0; i < 200; i++) {
        uint32_t index = heap.allocate(random() % 300, 4 + random() % 7);
        if (index != 0)
            blocks.push_back(index);
    }
    for (size_t i = 0; i < blocks.size(); i += 2)
        heap.release(blocks[i]);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    heap.check();
    heap.check_contents();
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_EQ(heap.result.blocks_moved, 0u);
}

/* ------------------------------------------------------------------------------------- locked blocks */

TEST(Slide, LockedBlocksKeepTheirAddress) {
    FixedHeap heap(256 * kib);
    std::vector<uint32_t> live = fill_and_free(heap, 500, every_second);
    for (size_t i = 10; i < live.size(); i += 10)
        heap.lock(live[i]);
    rm_compact_status status = heap.slide();
    heap.check();
    heap.check_contents();
    EXPECT_TRUE(status == RM_COMPACT_LOCKED || status == RM_COMPACT_DONE);
    EXPECT_GT(heap.result.blocks_locked, 0u);
    for (size_t i = 10; i < live.size(); i += 10)
        heap.unlock(live[i]);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    heap.check();
    EXPECT_EQ(heap.holes().count, 1u);
}

TEST(Slide, TellsWhatALockedBlockKeepsAndGoesOnWhenItIsUnlocked) {
    FixedHeap heap(64 * kib);
    uint32_t dead = heap.allocate(1000), locked = heap.allocate(2000);
    heap.lock(locked);
    heap.release(dead);
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(heap.slide(), RM_COMPACT_LOCKED);
        EXPECT_EQ(heap.result.blocks_locked, 1u);
        EXPECT_EQ(heap.result.bytes_locked, 1008u);
        EXPECT_EQ(heap.result.blocks_moved, 0u);
        EXPECT_FALSE(heap.part().sliding);
    }
    heap.unlock(locked);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_EQ(heap.result.blocks_moved, 1u);
    EXPECT_EQ(heap.result.bytes_released, 1008u);
    heap.check();
}

TEST(Slide, FillsTheGapBeforeALockedBlock) {
    FixedHeap heap(64 * kib);
    uint32_t dead = heap.allocate(1000), locked = heap.allocate(100);
    std::vector<uint32_t> others;
    for (size_t size : {3000, 280, 5000, 700})
        others.push_back(heap.allocate(size));
    heap.lock(locked);
    heap.release(dead);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    heap.check();
    heap.check_contents();
    EXPECT_LT(heap.address(others[1]), heap.address(locked));
    EXPECT_LT(heap.address(others[3]), heap.address(locked));
    EXPECT_EQ(heap.holes().count, 1u);
    heap.unlock(locked);
}

TEST(Slide, ABlockLockedAboveNoHoleHindersNothing) {
    FixedHeap heap(64 * kib);
    uint32_t first = heap.allocate(1000);
    heap.allocate(1000);
    uint32_t dead = heap.allocate(500);
    heap.allocate(200);
    heap.lock(first);
    heap.release(dead);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_EQ(heap.result.blocks_locked, 0u);
    heap.unlock(first);
}

TEST(Slide, EveryOneOfFewLockedBlocksIsNoticedWhenUnlocked) {
    FixedHeap heap(64 * kib);
    std::vector<uint32_t> live = fill_and_free(heap, 3000, every_second);
    ASSERT_GE(live.size(), 6u);
    for (size_t i = 0; i < 6; i++)
        heap.lock(live[i]);
    heap.slide();
    for (size_t i : {4, 1, 5, 0, 3, 2}) {
        heap.unlock(live[i]);
        heap.slide();
        heap.check();
    }
    heap.check_contents();
    EXPECT_EQ(heap.holes().count, 1u);
}

/* ------------------------------------------------------------------------------------- read sections */

TEST(Slide, MovesNothingWhileAReadSectionIsOpen) {
    FixedHeap heap(64 * kib);
    fill_and_free(heap, 500, every_second);
    rm_reader reader = {};
    jf_reader_node node = {};
    jf_readers_add(&heap.readers(), &node, &reader);
    reader.depth = 1;
    reader.sequence = 1;
    EXPECT_EQ(heap.slide(), RM_COMPACT_LOCKED);
    EXPECT_EQ(heap.result.blocks_moved, 0u);
    EXPECT_GT(heap.result.bytes_locked, 0u);
    heap.check();
    for (auto &[index, block] : heap.blocks())
        ASSERT_EQ(jf_entry_state(heap.word(index)), JF_ENTRY_LIVE);
    EXPECT_EQ(heap.slide(0, &reader), RM_COMPACT_LOCKED);
    EXPECT_EQ(heap.result.blocks_moved, 0u);
    reader.sequence = 2;
    reader.depth = 0;
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_EQ(heap.holes().count, 1u);
    jf_readers_remove(&heap.readers(), &node);
}

/* ------------------------------------------------------------------------------------- large blocks */

TEST(Slide, BlocksOfManyMebibytesSlideToo) {
    FixedHeap heap(64 * mib);
    uint32_t first = heap.allocate(100), big = heap.allocate(17 * mib);
    uint32_t second = heap.allocate(5 * mib), other = heap.allocate(18 * mib, 16);
    heap.check();
    heap.release(first);
    heap.release(second);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    heap.check();
    heap.check_contents();
    EXPECT_LT(heap.address(big), heap.address(other));
    EXPECT_GE(jf_fixed_largest_free(heap.get()), 28 * mib);
    heap.release(big);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    heap.check();
    heap.check_contents();
    heap.release(other);
    EXPECT_EQ(heap.holes().count, 1u);
}

TEST(Slide, ABlockTooLargeForTheBudgetStaysUntilThereIsMore) {
    FixedHeap heap(16 * mib);
    uint32_t dead = heap.allocate(100000), big = heap.allocate(8 * mib);
    uintptr_t at = heap.address(big);
    uint32_t small = heap.allocate(100);
    heap.release(dead);
    int calls = 0;
    while (heap.slide(1000) == RM_COMPACT_BUDGET && calls < 1000)
        calls++;
    EXPECT_EQ(heap.slide(1000), RM_COMPACT_NOT_WORTH);
    EXPECT_EQ(heap.result.blocks_moved, 0u);
    EXPECT_EQ(heap.address(big), at);
    EXPECT_LT(heap.address(small), at);
    heap.check();
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_LT(heap.address(big), at);
    heap.check();
    heap.check_contents();
}

/* ------------------------------------------------------------------------------------- the table */

TEST(Slide, GivesTheTableOfFreedBlocksBack) {
    FixedHeap heap(256 * kib);
    std::vector<uint32_t> blocks;
    while (uint32_t index = heap.allocate(8))
        blocks.push_back(index);
    size_t full = jf_space_entries(heap.get()->space);
    std::shuffle(blocks.begin() + 10, blocks.end(), std::mt19937(5));
    while (blocks.size() > 10) {
        heap.release(blocks.back());
        blocks.pop_back();
    }
    EXPECT_EQ(jf_space_entries(heap.get()->space), full);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_LT(jf_space_entries(heap.get()->space), 20u);
    heap.check();
    heap.check_contents();
    EXPECT_EQ(heap.holes().count, 1u);
}

TEST(Slide, BlocksComeAndGoWhileTheTableIsTrimmed) {
    FixedHeap heap(256 * kib);
    std::mt19937 random(11);
    for (int round = 0; round < 20; round++) {
        std::vector<uint32_t> blocks;
        while (uint32_t index = heap.allocate(8))
            blocks.push_back(index);
        std::shuffle(blocks.begin(), blocks.end(), random);
        while (blocks.size() > 100) {
            heap.release(blocks.back());
            blocks.pop_back();
        }
        jf_fixed_trim_start(heap.get());
        for (int i = 0; jf_fixed_trim(heap.get(), 50); i++) {
            if (i % 3 == 0) {
                ASSERT_NE(heap.allocate(8), 0u);
            }
            if (i % 4 == 0)
                heap.release(std::next(heap.blocks().begin(), random() % 50)->first);
            ASSERT_NO_FATAL_FAILURE(heap.check());
        }
        ASSERT_NO_FATAL_FAILURE(heap.check());
        while (heap.blocks().size() > 20)
            heap.release(heap.blocks().rbegin()->first);
    }
}

/* ------------------------------------------------------------------------------------- callback, threads */

TEST(Slide, TellsEveryMoveOnceItIsMade) {
    struct Seen {
        FixedHeap *heap;
        std::map<rmhandle_t, void *> moves;
        size_t calls = 0;
    } seen;
    jf_options options = {};
    options.context = &seen;
    options.moved = [](void *context, rmhandle_t handle, void *address, size_t size) {
        auto *told = static_cast<Seen *>(context);
        uint32_t index = jf_handle_index(told->heap->get()->space, handle);
        EXPECT_EQ(told->heap->block(index).handle, handle);
        EXPECT_EQ(told->heap->block(index).size, size);
        void *locked;
        EXPECT_EQ(jf_access_lock(told->heap->get()->space, told->heap->get(), index, handle, true,
                                 &locked),
                  JF_ACCESS_OK);
        EXPECT_EQ(locked, address);
        jf_access_unlock(told->heap->get()->space, index, handle);
        told->moves[handle] = address;
        told->calls++;
    };
    FixedHeap heap(256 * kib, 0, options);
    seen.heap = &heap;
    fill_and_free(heap, 200, every_second);
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_EQ(seen.calls, heap.result.blocks_moved);
    for (auto &[index, block] : heap.blocks()) {
        if (seen.moves.count(block.handle) != 0) {
            EXPECT_EQ(seen.moves[block.handle], reinterpret_cast<void *>(heap.address(index)));
        }
    }
}

// Locks blocks at random and looks at their first byte; counts what was wrong.
void lock_at_random(jf_heap *heap, const std::vector<std::pair<uint32_t, Block>> &blocks,
                    uint32_t seed, std::atomic<bool> &stop, std::atomic<size_t> &wrong) {
    std::mt19937 random(seed);
    while (!stop.load()) {
        auto &[index, block] = blocks[random() % blocks.size()];
        void *pointer;
        if (jf_access_lock(heap->space, heap, index, block.handle, true, &pointer) !=
            JF_ACCESS_OK) {
            wrong++;
            continue;
        }
        unsigned char first = FixedHeap::byte(block, 0);
        if (block.size != 0)
            jf_mark_copy(&first, pointer, 1);
        wrong += first != FixedHeap::byte(block, 0);
        wrong += jf_access_unlock(heap->space, index, block.handle) != JF_ACCESS_OK;
    }
}

// Resizes a block that others may lock at any time.
void resize_shared(jf_heap *heap, uint32_t index, rmhandle_t handle, size_t size) {
    jf_word before;
    enum jf_access access = jf_access_claim(heap->space, index, handle, &before);
    ASSERT_TRUE(access == JF_ACCESS_OK || access == JF_ACCESS_LOCKED);
    jf_os_mutex_lock(&heap->mutex);
    bool resized = jf_fixed_resize(heap, index, size, access == JF_ACCESS_LOCKED);
    jf_os_mutex_unlock(&heap->mutex);
    if (!resized)
        jf_access_unclaim(heap->space, index, before);
}

TEST(Slide, RunsBesideThreadsThatLock) {
    FixedHeap heap(512 * kib);
    fill_and_free(heap, 300, every_second);
    std::vector<std::pair<uint32_t, Block>> blocks(heap.blocks().begin(), heap.blocks().end());
    std::atomic<bool> stop{false};
    std::atomic<size_t> wrong{0};
    std::thread threads[2];
    for (uint32_t i = 0; i < 2; i++)
        threads[i] = std::thread([&, i] { lock_at_random(heap.get(), blocks, i, stop, wrong); });
    std::mt19937 random(5);
    size_t moved = 0;
    for (int round = 0; round < 150; round++) {
        // A block that grows moves up, most often, and leaves a hole that the slide closes.
        for (int i = 0; i < 30; i++) {
            auto &[index, block] = blocks[random() % blocks.size()];
            resize_shared(heap.get(), index, block.handle, block.size + 100);
            resize_shared(heap.get(), index, block.handle, block.size);
        }
        heap.slide(round % 2 == 0 ? 0 : 200);
        moved += heap.result.blocks_moved;
    }
    stop = true;
    for (std::thread &thread : threads)
        thread.join();
    EXPECT_EQ(wrong.load(), 0u);
    EXPECT_GT(moved, 1000u);
    for (auto &[index, block] : blocks)
        ASSERT_TRUE(heap.resize(index, block.size));
    heap.check();
    heap.check_contents();
    heap.slide();
    EXPECT_EQ(heap.slide(), RM_COMPACT_DONE);
    EXPECT_EQ(heap.holes().count, 1u);
}

} // namespace
