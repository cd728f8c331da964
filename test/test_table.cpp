// The growing profile's handle table: pages and their owners, entries that come back from other threads,
// generations, and pages whose memory is given back.
#include "support/heaps.hpp"

#include <map>
#include <set>
#include <thread>

using support::GrowingHeap;

namespace {

class Table : public testing::Test {
  protected:
    uint32_t index(rmhandle_t handle) {
        return heap.index_of(heap.get(), handle);
    }
    jf_table *table() {
        return &heap.window()->table;
    }
    static unsigned generation(rmhandle_t handle) {
        return static_cast<unsigned>(reinterpret_cast<uintptr_t>(handle) >> 52);
    }

    GrowingHeap heap;
};

TEST_F(Table, NoTwoBlocksHaveTheSameEntry) {
    std::set<uint32_t> seen;
    std::vector<rmhandle_t> handles;
    for (int i = 0; i < 3 * JF_TABLE_PAGE_ENTRIES; i++) {
        handles.push_back(rmheap_malloc(heap, 8));
        EXPECT_NE(index(handles.back()), 0u);
        EXPECT_TRUE(seen.insert(index(handles.back())).second);
    }
    for (rmhandle_t handle : handles)
        rmfree(handle);
}

TEST_F(Table, AnEntryUsedAgainHasTheNextGeneration) {
    std::map<uint32_t, unsigned> last; // generation of each entry's newest handle
    unsigned came_round = 0;
    for (int i = 0; i < 400000; i++) {
        rmhandle_t handle = rmheap_malloc(heap, 8);
        unsigned now = generation(handle);
        auto [entry, is_new] = last.emplace(index(handle), now);
        if (!is_new) {
            ASSERT_EQ(now, (entry->second + 1) & JF_GENERATION_MAX);
            came_round += now == 0;
            entry->second = now;
        }
        rmfree(handle);
    }
    EXPECT_GT(came_round, 10u);
}

TEST_F(Table, RetiredEntriesAreNotUsedAgain) {
    struct rm_options options;
    rmoptions_init(&options);
    options.retire = 1;
    GrowingHeap retiring(&options);
    std::set<rmhandle_t> seen;
    for (int i = 0; i < 30000; i++) {
        rmhandle_t handle = rmheap_malloc(retiring, 8);
        ASSERT_TRUE(seen.insert(handle).second) << "given out twice after " << i;
        rmfree(handle);
    }
}

TEST_F(Table, EntriesAreRetiredWhenTheirHeapEndsToo) {
    struct rm_options options;
    rmoptions_init(&options);
    options.retire = 1;
    std::set<uint32_t> used_up;
    {
        GrowingHeap retiring(&options);
        for (size_t size : {8, 300000}) {
            rmhandle_t handle = rmheap_malloc(retiring, size);
            jf_word *entry = heap.entry(handle);
            jf_word_fetch_xor(entry, ~*entry & JF_ENTRY_GENERATION_MASK); // as after 4095 reuses
            used_up.insert(index(handle));
        }
    }
    for (int i = 0; i < 2 * JF_TABLE_PAGE_ENTRIES; i++)
        EXPECT_EQ(used_up.count(index(rmheap_malloc(heap, 8))), 0u);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
}

TEST_F(Table, EntriesFreedByOthersComeBackToTheirOwner) {
    size_t pages = table()->pages_used;
    for (int round = 0; round < 50; round++) {
        std::vector<rmhandle_t> handles;
        for (int i = 0; i < JF_TABLE_PAGE_ENTRIES / 2; i++)
            handles.push_back(rmheap_malloc(heap, 8));
        std::thread([&] {
            for (rmhandle_t handle : handles)
                rmfree(handle);
        }).join();
    }
    EXPECT_LE(table()->pages_used, pages + 4);
}

TEST_F(Table, PagesWithoutAnEntryInUseAreGivenBackAndTakenAgain) {
    std::vector<rmhandle_t> handles;
    for (int i = 0; i < 64 * JF_TABLE_PAGE_ENTRIES; i++)
        handles.push_back(rmheap_malloc(heap, 8));
    size_t pages = table()->pages_used;
    std::vector<rmhandle_t> stale = handles;
    for (rmhandle_t handle : handles)
        rmfree(handle);
    rmheap_compact_us(heap, 0, nullptr);
    size_t free_pages = 0;
    for (jf_table_page *page = table()->free_pages; page != nullptr; page = page->next)
        free_pages++;
    EXPECT_GE(free_pages, 60u);
    std::set<rmhandle_t> old(stale.begin(), stale.end());
    for (rmhandle_t &handle : handles) {
        handle = rmheap_malloc(heap, 8);
        EXPECT_EQ(old.count(handle), 0u);
    }
    EXPECT_EQ(table()->pages_used, pages);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
}

} // namespace
