// What becomes of freed blocks in the growing profile: they wait in bins and in the depot, are given out again
// with their entries, and are out of the way when memory is counted, compacted or short.
#include "support/heaps.hpp"
#include "support/model.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <thread>

using support::GrowingHeap;

namespace {

class Bins : public testing::Test {
  protected:
    void SetUp() override {
        if (JF_MARK_ACTIVE)
            GTEST_SKIP() << "a debugger watches: no bins";
    }
    void TearDown() override {
        EXPECT_EQ(heap.check(), 0) << heap.fault.name << ": " << heap.fault.text;
    }

    std::vector<rmhandle_t> fill(size_t count, size_t size) {
        std::vector<rmhandle_t> handles(count);
        for (rmhandle_t &handle : handles)
            handle = rmheap_malloc(heap, size);
        return handles;
    }
    static void free_all(const std::vector<rmhandle_t> &handles) {
        for (rmhandle_t handle : handles)
            rmfree(handle);
    }
    rm_stats stats() {
        rm_stats stats;
        stats.struct_size = sizeof stats;
        rmheap_stats(heap, &stats);
        return stats;
    }
    unsigned in_bin(size_t size) {
        jf_share *share = jf_thread_share(jf_thread_get(heap.window()), heap.get());
        return *jf_bins_at(&share->bins, jf_bins_of_size(size));
    }

    GrowingHeap heap;
};

TEST_F(Bins, AGrowingBlockChangesPlacesWithOneThatWaits) {
    std::vector<rmhandle_t> growing = fill(25, 100);
    std::vector<rmhandle_t> freed = fill(25 + JF_RING_SIZE, 200); // the ring may keep that many
    std::map<uintptr_t, uint32_t> places;
    for (rmhandle_t handle : growing) {
        memset(rmlock(handle), 'g', 100);
        rmunlock(handle);
    }
    for (rmhandle_t handle : freed)
        places[heap.payload(handle)] = heap.index_of(heap.get(), handle);
    free_all(freed);
    for (rmhandle_t handle : growing) {
        uintptr_t before = heap.payload(handle);
        ASSERT_EQ(0, rmrealloc(handle, 104)) << "which its stride has room for";
        ASSERT_EQ(before, heap.payload(handle));
        ASSERT_EQ(0, rmrealloc(handle, 195));
        auto found = places.find(heap.payload(handle));
        ASSERT_NE(found, places.end());
        EXPECT_EQ(before,
                  jf_space_address(heap.get()->space,
                                   jf_word_load(jf_space_entry(heap.get()->space, found->second))));
        EXPECT_EQ(195u, rmsize(handle));
        EXPECT_EQ(std::string(100, 'g'), std::string(static_cast<char *>(rmlock(handle)), 100));
        rmunlock(handle);
        ASSERT_EQ(heap.check(), 0) << heap.fault.name << ": " << heap.fault.text;
    }
    free_all(growing);
}

TEST_F(Bins, ALockedBlockDoesNotChangePlaces) {
    std::vector<rmhandle_t> handles = fill(10, 100);
    rmhandle_t last = rmheap_malloc(heap, 100); // which could grow where it lies
    for (rmhandle_t handle : handles) {
        const void *address = rmlock(handle);
        EXPECT_EQ(-1, rmrealloc(handle, 500));
        EXPECT_EQ(EBUSY, errno);
        EXPECT_EQ(100u, rmsize(handle));
        EXPECT_EQ(address, rmlock(handle));
        rmunlock(handle);
        rmunlock(handle);
    }
    rmfree(last);
    free_all(handles);
}

TEST_F(Bins, AFreedBlockServesTheNextOfItsStrideWithItsEntry) {
    std::map<uintptr_t, uint32_t> places;
    std::vector<rmhandle_t> handles = fill(40, 100);
    for (rmhandle_t handle : handles)
        places[heap.payload(handle)] = heap.index_of(heap.get(), handle);
    free_all(handles);
    for (size_t size = 89; size <= 104; size++) {
        rmhandle_t handle = rmheap_malloc(heap, size);
        auto found = places.find(heap.payload(handle));
        ASSERT_NE(found, places.end());
        EXPECT_EQ(found->second, heap.index_of(heap.get(), handle));
        EXPECT_EQ(rmsize(handle), size);
        places.erase(found);
    }
}

TEST_F(Bins, AStaleHandleOfABlockGivenOutAgainIsStale) {
    std::vector<rmhandle_t> old = fill(JF_RING_SIZE, 100);
    free_all(old);
    std::set<rmhandle_t> fresh;
    for (rmhandle_t handle : fill(JF_RING_SIZE, 100))
        fresh.insert(handle);
    for (rmhandle_t handle : old) {
        EXPECT_EQ(fresh.count(handle), 0u);
        EXPECT_EQ(rmheap_of(handle), nullptr);
    }
}

TEST_F(Bins, ABlockGivenOutAgainIsZeroedWhenThatIsAskedFor) {
    for (rmhandle_t handle : fill(JF_RING_SIZE, 200)) {
        memset(rmlock(handle), 0xff, 200);
        rmunlock(handle);
        rmpurgeable(handle, 3);
        rmfree(handle);
    }
    ASSERT_NE(in_bin(200), 0u);
    for (int i = 0; i < JF_RING_SIZE; i++) {
        rmhandle_t handle = rmheap_calloc(heap, 1, 200);
        EXPECT_EQ(jf_header_priority(*heap.header(handle)), 0u);
        auto *bytes = static_cast<unsigned char *>(rmlock(handle));
        EXPECT_EQ(std::count(bytes, bytes + 200, 0), 200);
        rmunlock(handle);
    }
}

TEST_F(Bins, AlignedBlocksAreServedFromElsewhere) {
    free_all(fill(200, 240));
    ASSERT_NE(in_bin(240), 0u);
    for (int i = 0; i < 50; i++) {
        rmhandle_t handle = rmheap_aligned_alloc(heap, 256, 240);
        EXPECT_EQ(heap.payload(handle) % 256, 0u);
    }
    EXPECT_EQ(heap.check(), 0);
}

TEST_F(Bins, BlocksThatWaitAreNotCountedAndAreGoneAfterACompaction) {
    std::vector<rmhandle_t> handles = fill(100000, 64);
    uint64_t whole = stats().live;
    for (size_t i = 0; i < handles.size(); i += 2)
        rmfree(handles[i]);
    EXPECT_GT(jf_depot_blocks(heap.get()), 0u);
    EXPECT_LE(jf_depot_bytes(heap.get()), heap.grow().committed >> JF_DEPOT_SHARE_SHIFT);
    EXPECT_EQ(heap.check(), 0) << heap.fault.text;
    EXPECT_EQ(stats().live, whole / 2);
    EXPECT_EQ(stats().blocks, handles.size() / 2);
    EXPECT_EQ(rmheap_compact(heap, 0), RM_COMPACT_DONE);
    EXPECT_EQ(jf_depot_blocks(heap.get()), 0u);
    EXPECT_EQ(jf_depot_bytes(heap.get()), 0u);
    EXPECT_LT(heap.grow().committed, whole / 2 + (JF_REGION_SIZE));
    EXPECT_EQ(stats().live, whole / 2);
}

TEST_F(Bins, TheDepotBringsFreedBlocksToOtherThreads) {
    std::vector<rmhandle_t> handles = fill(50000, 64);
    std::vector<rmhandle_t> rest(handles.begin() + 1000, handles.end());
    handles.resize(1000);
    std::set<uintptr_t> places;
    for (rmhandle_t handle : handles)
        places.insert(heap.payload(handle));
    std::thread([&] {
        rmhandle_t own = rmheap_malloc(heap, 64);
        free_all(handles);
        rmfree(own);
        EXPECT_GT(jf_depot_blocks(heap.get()), 500u);
    }).join();
    size_t met = 0;
    for (rmhandle_t handle : fill(500, 64))
        met += places.count(heap.payload(handle));
    EXPECT_EQ(met, 500u);
    free_all(rest);
}

// Blocks and entries of threads that use what they free stay on cache lines of their own.
TEST_F(Bins, TheDepotGivesAThreadBackWhatItGave) {
    enum { FREED = JF_DEPOT_UNUSED_GIVES / 2 * JF_BATCH_ROOM };
    fill(50000, 64); // so that there is room in the depot
    std::set<uintptr_t> places;
    std::atomic<bool> freed{false}, goes_on{false};
    std::thread other([&] {
        std::vector<rmhandle_t> handles = fill(FREED, 64);
        for (rmhandle_t handle : handles)
            places.insert(heap.payload(handle));
        free_all(handles);
        freed = true;
        while (!goes_on)
            std::this_thread::yield();
        size_t met = 0;
        for (rmhandle_t handle : fill(FREED / 2, 64))
            met += places.count(heap.payload(handle));
        EXPECT_EQ(met, size_t{FREED / 2});
    });
    while (!freed)
        std::this_thread::yield();
    EXPECT_GT(jf_depot_blocks(heap.get()), 0u);
    for (rmhandle_t handle : fill(FREED, 64))
        EXPECT_EQ(places.count(heap.payload(handle)), 0u);
    goes_on = true;
    other.join();
    EXPECT_EQ(heap.check(), 0) << heap.fault.text;
}

TEST_F(Bins, WhatAThreadHasGivenServesOthersWhenItHasEnded) {
    fill(50000, 64);
    std::set<uintptr_t> places;
    std::thread([&] {
        std::vector<rmhandle_t> handles = fill(1000, 64);
        for (rmhandle_t handle : handles)
            places.insert(heap.payload(handle));
        free_all(handles);
        fill(JF_BIN_BLOCKS + 1, 64); // it has taken something back, and the part is closed again
    }).join();
    ASSERT_GT(jf_depot_blocks(heap.get()), 500u);
    size_t met = 0;
    for (rmhandle_t handle : fill(500, 64))
        met += places.count(heap.payload(handle));
    EXPECT_EQ(met, 500u);
}

TEST_F(Bins, RandomReplacementNeedsLittleMoreThanWhatLives) {
    std::vector<rmhandle_t> handles(20000);
    uint64_t state = 1;
    auto draw = [&](size_t below) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<size_t>(state >> 33) % below;
    };
    for (rmhandle_t &handle : handles)
        handle = rmheap_malloc(heap, 16 + draw(497));
    for (size_t i = 0; i < 20 * handles.size(); i++) {
        rmhandle_t &handle = handles[draw(handles.size())];
        rmfree(handle);
        handle = rmheap_malloc(heap, 16 + draw(497));
    }
    EXPECT_EQ(heap.check(), 0) << heap.fault.text;
    uint64_t live = stats().live;
    EXPECT_LT(heap.grow().committed, live + live / 8 + JF_REGION_SIZE);
}

TEST_F(Bins, BlocksOfSomeKiBAmongSmallOnesNeedLittleMore) {
    std::vector<rmhandle_t> handles(20000);
    support::Random random(1);
    auto draw = [&] { return rmheap_malloc(heap, 16 + random.below(2500)); };
    for (rmhandle_t &handle : handles)
        handle = draw();
    for (size_t i = 0; i < 60 * handles.size(); i++) {
        rmhandle_t &handle = handles[random.below(handles.size())];
        rmfree(handle);
        handle = draw();
    }
    EXPECT_EQ(heap.check(), 0) << heap.fault.text;
    uint64_t live = stats().live;
    EXPECT_LT(heap.grow().committed, live + live / 2);
}

TEST_F(Bins, MemoryThatWaitsIsFoundWhenMemoryIsShort) {
    rm_options options;
    rmoptions_init(&options);
    options.limit = 8 << 20;
    GrowingHeap small(&options);
    std::vector<rmhandle_t> handles;
    while (rmhandle_t handle = rmheap_malloc(small, 64))
        handles.push_back(handle);
    ASSERT_GT(handles.size(), 50000u);
    for (rmhandle_t handle : handles)
        rmfree(handle);
    handles.clear();
    while (rmhandle_t handle = rmheap_malloc(small, 500))
        handles.push_back(handle);
    EXPECT_GT(handles.size() * 512, size_t{7} << 20);
    EXPECT_EQ(small.check(), 0);
}

TEST_F(Bins, CheckedHeapsHaveNone) {
    rm_options options;
    rmoptions_init(&options);
    options.check = 1;
    GrowingHeap checked(&options);
    std::vector<rmhandle_t> handles(1000);
    for (rmhandle_t &handle : handles)
        handle = rmheap_malloc(checked, 64);
    free_all(handles);
    jf_thread *thread = jf_thread_get(checked.window());
    jf_share *share = jf_thread_share(thread, checked.get());
    EXPECT_EQ(*jf_bins_at(&share->bins, jf_bins_of_size(64)), 0u);
    EXPECT_EQ(jf_depot_blocks(checked.get()), 0u);
}

TEST_F(Bins, AHeapEndsWithBlocksThatWait) {
    size_t before;
    {
        GrowingHeap first;
        before = jf_thread_get(first.window())->share_count;
        for (int i = 0; i < 20000; i++)
            rmfree(rmheap_malloc(first, 16 + i % 500));
        std::vector<rmhandle_t> handles(20000);
        for (rmhandle_t &handle : handles)
            handle = rmheap_malloc(first, 64);
        free_all(handles);
        EXPECT_GT(jf_depot_blocks(first.get()), 0u);
    }
    GrowingHeap second;
    EXPECT_EQ(jf_thread_get(second.window())->share_count, before);
    std::vector<rmhandle_t> handles(1000);
    for (rmhandle_t &handle : handles)
        handle = rmheap_malloc(second, 64);
    EXPECT_EQ(second.check(), 0) << second.fault.text;
}

} // namespace
