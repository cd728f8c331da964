// Arrays of growing heaps that are kept in the head beside the entry: what changes when they become large, lose their
// memory, leave their entry to others; and how they come to more room.
#include "support/heaps.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <jeff/array.h>
#include <map>

extern "C" {
#include "collections/blocks.h"
}

using support::GrowingHeap;

namespace {

class Heads : public testing::Test {
  protected:
    void TearDown() override {
        EXPECT_EQ(heap.check(), 0) << heap.fault.name << ": " << heap.fault.text;
    }
    rmarray_t make(size_t element_size, size_t alignment = 0) {
        rm_array_options options;
        rmarray_options_init(&options);
        options.alignment = alignment;
        return rmarray_create(heap, element_size, &options);
    }
    jf_word head(rmarray_t array) {
        return *jf_space_head(heap.get()->space, heap.index_of(heap.get(), rmarray_handle(array)));
    }
    static bool is(rmarray_t array, const std::vector<char> &expected) {
        bool same = rmarray_length(array) * rmarray_element_size(array) == expected.size() &&
                    memcmp(rmarray_lock(array), expected.data(), expected.size()) == 0;
        rmarray_unlock(array);
        return same;
    }

    GrowingHeap heap;
};

TEST_F(Heads, WhatIsNoArrayIsNoneWhoeverHadItsEntry) {
    std::vector<rmarray_t> arrays;
    std::vector<rmhandle_t> blocks;
    for (int i = 0; i < 100; i++) {
        arrays.push_back(make(4));
        ASSERT_EQ(0, rmarray_resize(arrays.back(), 5));
    }
    std::map<uint32_t, bool> had;
    for (rmarray_t array : arrays) {
        had[heap.index_of(heap.get(), rmarray_handle(array))] = true;
        rmarray_destroy(array);
    }
    size_t reused = 0;
    for (int i = 0; i < 100; i++) {
        rmhandle_t block = rmheap_malloc(heap, 24);
        memset(rmlock(block), 0, 24);
        rmunlock(block);
        reused += had.count(heap.index_of(heap.get(), block));
        EXPECT_EQ(0u, rmarray_length(rmarray_of(block)));
        EXPECT_EQ(-1, rmarray_push(rmarray_of(block), &reused));
        EXPECT_EQ(EINVAL, errno);
        blocks.push_back(block);
    }
    EXPECT_GT(reused, 50u);
    for (rmhandle_t block : blocks)
        rmfree(block);
}

TEST_F(Heads, ABlockWithTheHandleThatAnArrayHadIsNone) {
    rmarray_t array = make(4);
    ASSERT_EQ(0, rmarray_resize(array, 5));
    rmhandle_t handle = rmarray_handle(array);
    rmarray_destroy(array);
    rmhandle_t blocks[JF_RING_SIZE];
    const rmhandle_t *found = nullptr;
    for (int round = 0; round < 3 * JF_GENERATION_MAX; round++) {
        for (rmhandle_t &block : blocks)
            block = rmheap_malloc(heap, 24);
        found = std::find(std::begin(blocks), std::end(blocks), handle);
        if (found != std::end(blocks))
            break;
        for (rmhandle_t block : blocks)
            rmfree(block);
    }
    ASSERT_NE(std::end(blocks), found) << "generations come round";
    memset(rmlock(handle), 0, 24);
    rmunlock(handle);
    EXPECT_EQ(0u, rmarray_length(array));
    EXPECT_EQ(-1, rmarray_push(array, "what"));
    EXPECT_EQ(EINVAL, errno);
    for (rmhandle_t block : blocks)
        rmfree(block);
}

TEST_F(Heads, AreLeftForTheTailAndTakenUpAgain) {
    for (size_t element_size : {1, 3, 1000, 32767, 32768, 70000}) {
        rmarray_t array = make(element_size);
        std::vector<char> expected;
        std::vector<char> element(element_size);
        EXPECT_EQ(element_size < 32768, head(array) != 0);
        while (expected.size() < 400000) {
            std::fill(element.begin(), element.end(), static_cast<char>(expected.size() % 127));
            ASSERT_EQ(0, rmarray_push(array, element.data()));
            expected.insert(expected.end(), element.begin(), element.end());
        }
        EXPECT_EQ(0u, head(array)) << "large";
        ASSERT_TRUE(is(array, expected));
        size_t kept = 40000 / element_size + 1;
        expected.resize(kept * element_size);
        ASSERT_EQ(0, rmarray_resize(array, kept));
        ASSERT_TRUE(is(array, expected));
        ASSERT_EQ(0, rmarray_shrink(array));
        ASSERT_TRUE(is(array, expected));
        EXPECT_EQ(element_size < 32768, head(array) != 0);
        EXPECT_LE(rmsize(rmarray_handle(array)), expected.size() + 24);
        rmarray_destroy(array);
    }
}

TEST_F(Heads, SayNothingOfABlockThatHasLostItsMemory) {
    rmarray_t array = make(1);
    ASSERT_EQ(0, rmarray_resize(array, 1000));
    ASSERT_EQ(0, rmpurgeable(rmarray_handle(array), 1));
    rmheap_compact_us(heap, 0, nullptr);
    jf_grow_purge_one(heap.get(), 1, jf_blocks_readers(), nullptr);
    ASSERT_EQ(nullptr, rmarray_lock(array));
    ASSERT_EQ(0, rmrealloc(rmarray_handle(array), 200));
    memset(rmarray_lock(array), 0, 200);
    rmarray_unlock(array);
    EXPECT_EQ(0u, rmarray_length(array));
    EXPECT_EQ(-1, rmarray_push(array, "x"));
    EXPECT_EQ(EINVAL, errno);
    rmarray_destroy(array);
}

// As a call finds it that is about to get more room when another thread empties the block.
TEST_F(Heads, ABlockThatHasLostItsMemoryIsGivenNoOther) {
    rmarray_t array = make(1);
    ASSERT_EQ(0, rmarray_resize(array, 1000));
    ASSERT_EQ(0, rmpurgeable(rmarray_handle(array), 1));
    rmheap_compact_us(heap, 0, nullptr);
    jf_grow_purge_one(heap.get(), 1, jf_blocks_readers(), nullptr);
    EXPECT_EQ(JF_BLOCKS_GONE, jf_blocks_resize(rmarray_handle(array), 2008, 0, true, "test"));
    EXPECT_EQ(nullptr, rmarray_lock(array));
    rmarray_destroy(array);
}

TEST_F(Heads, SayNothingOfABlockThatIsMadeSmallerBehindTheArray) {
    for (size_t size : {16, 90, 1000, 8000, 100000})
        for (bool much : {true, false}) {
            rmarray_t array = make(1, size == 8000 ? 8192 : 16);
            ASSERT_EQ(0, rmarray_resize(array, size));
            memset(rmarray_lock(array), 0, size);
            rmarray_unlock(array);
            size_t less = much ? size / 2 : rmsize(rmarray_handle(array)) - 1;
            ASSERT_EQ(0, rmrealloc(rmarray_handle(array), less));
            EXPECT_EQ(-1, rmarray_push(array, "x"));
            EXPECT_EQ(EINVAL, errno);
            rmarray_destroy(array);
        }
}

TEST_F(Heads, KeepTheirCapacityWhenTheBlockIsMadeLargerBehindTheArray) {
    for (size_t size : {16, 90, 1000, 8000, 100000})
        for (size_t more : {size_t{10}, 2 * size}) {
            rmarray_t array = make(1, 16);
            ASSERT_EQ(0, rmarray_resize(array, size));
            memset(rmarray_lock(array), 'a', size);
            rmarray_unlock(array);
            size_t capacity = rmarray_capacity(array);
            ASSERT_EQ(0, rmrealloc(rmarray_handle(array), rmsize(rmarray_handle(array)) + more));
            EXPECT_EQ(size, rmarray_length(array));
            EXPECT_EQ(capacity, rmarray_capacity(array));
            for (size_t i = size; i < 4 * size; i++)
                ASSERT_EQ(0, rmarray_push(array, "b")) << i;
            ASSERT_EQ(4 * size, rmarray_length(array));
            const char *text = (const char *)rmarray_lock(array);
            EXPECT_EQ(std::string(size, 'a') + std::string(3 * size, 'b'),
                      std::string(text, 4 * size));
            rmarray_unlock(array);
            rmarray_destroy(array);
            EXPECT_EQ(0, rmcheck(nullptr));
        }
}

// ------------------------------------------------------------------------------------ more room

TEST_F(Heads, AGrowingArrayChangesPlacesWithABlockThatWaits) {
    if (JF_MARK_ACTIVE)
        GTEST_SKIP() << "a debugger watches: no bins";
    rm_array_options options;
    rmarray_options_init(&options);
    options.capacity = 100;
    options.growth = RM_GROWTH_EXACT;
    std::vector<rmarray_t> arrays;
    std::vector<rmhandle_t> blocks;
    for (int i = 0; i < 32; i++) {
        arrays.push_back(rmarray_create(heap, 1, &options));
        blocks.push_back(rmheap_malloc(heap, 200));
    }
    for (unsigned i = 0; i < JF_RING_SIZE; i++) // that many may stay in the ring
        blocks.push_back(rmheap_malloc(heap, 200));
    std::map<uintptr_t, uint32_t> waiting;
    for (rmhandle_t block : blocks) {
        waiting[heap.payload(block)] = heap.index_of(heap.get(), block);
        rmfree(block);
    }
    std::vector<char> text(200, 'x');
    for (rmarray_t array : arrays) {
        rmhandle_t handle = rmarray_handle(array);
        uintptr_t before = heap.payload(handle);
        ASSERT_EQ(0, rmarray_append(array, text.data(), 100));
        ASSERT_EQ(before, heap.payload(handle));
        ASSERT_EQ(0, rmarray_append(array, text.data(), 100));
        auto found = waiting.find(heap.payload(handle));
        ASSERT_NE(found, waiting.end());
        jf_word other = jf_word_load(jf_space_entry(heap.get()->space, found->second));
        EXPECT_EQ(before, jf_space_address(heap.get()->space, other));
        EXPECT_EQ(JF_ENTRY_PENDING, jf_entry_state(other));
        EXPECT_TRUE(is(array, text));
        ASSERT_EQ(heap.check(), 0) << heap.fault.name << ": " << heap.fault.text;
    }
    std::vector<rmhandle_t> reused;
    for (int i = 0; i < 32; i++)
        reused.push_back(rmheap_malloc(heap, 100));
    for (rmarray_t array : arrays) {
        EXPECT_TRUE(is(array, text)) << "nobody else has its place";
        rmarray_destroy(array);
    }
    for (rmhandle_t handle : reused)
        rmfree(handle);
}

TEST_F(Heads, ALockedArrayStaysWhereItIs) {
    std::vector<rmarray_t> arrays;
    std::vector<rmhandle_t> blocks; // or the last array could grow where the thread bumps
    for (int i = 0; i < 20; i++) {
        arrays.push_back(make(1));
        blocks.push_back(rmheap_malloc(heap, 50));
    }
    for (rmarray_t array : arrays) {
        std::vector<char> text(rmarray_capacity(array), 'x');
        ASSERT_EQ(0, rmarray_append(array, text.data(), text.size()));
        const void *address = rmarray_lock(array);
        EXPECT_EQ(-1, rmarray_push(array, "y"));
        EXPECT_EQ(EBUSY, errno);
        EXPECT_EQ(address, rmweaklock(rmarray_handle(array)));
        EXPECT_TRUE(is(array, text));
        rmarray_unlock(array);
        text.push_back('y');
        EXPECT_EQ(0, rmarray_push(array, "y"));
        EXPECT_TRUE(is(array, text));
        rmarray_destroy(array);
    }
    for (rmhandle_t block : blocks)
        rmfree(block);
}

TEST_F(Heads, AGrowingArrayKeepsAlignmentAndPriority) {
    std::vector<rmarray_t> arrays;
    for (size_t alignment : {16, 64, 1024})
        for (int i = 0; i < 20; i++)
            arrays.push_back(make(1, alignment));
    for (rmarray_t array : arrays)
        ASSERT_EQ(0, rmpurgeable(rmarray_handle(array), 5));
    for (int length = 0; length < 3000; length++)
        for (size_t i = 0; i < arrays.size(); i++) {
            ASSERT_EQ(0, rmarray_push(arrays[i], &length));
            uintptr_t address = heap.payload(rmarray_handle(arrays[i]));
            ASSERT_EQ(0u, address % (i < 20 ? 16 : i < 40 ? 64 : 1024));
            ASSERT_EQ(5u, jf_header_priority(jf_header_load(address - JF_HEADER_SIZE)));
        }
    for (rmarray_t array : arrays)
        rmarray_destroy(array);
}

} // namespace
