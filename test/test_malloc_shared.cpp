// Blocks behind handles and blocks of malloc in one arena: what compaction frees is at once malloc's, and the
// reverse.
#include <gtest/gtest.h>

#include "support/malloc_calls.hpp"

#include <cstdlib>
#include <cstring>
#include <set>
#include <vector>

extern "C" {
#include "api.h"
#include "malloc/facade.h"
}

namespace {

constexpr size_t chunk = size_t{1} << 20;

// So many blocks; a tenth where every call looks at the whole heap.
size_t many(size_t count) {
    return getenv("JEFF_CHECK") != nullptr ? count / 10 : count;
}

uintptr_t chunk_of(const void *pointer) {
    return reinterpret_cast<uintptr_t>(pointer) & ~(chunk - 1);
}

std::vector<rmhandle_t> fill_handles(size_t count, std::set<uintptr_t> *ret_chunks) {
    std::vector<rmhandle_t> handles;
    for (size_t i = 0; i < count; i++) {
        handles.push_back(rmmalloc(1000));
        void *memory = rmlock(handles.back());
        std::memset(memory, 1, 1000);
        ret_chunks->insert(chunk_of(memory));
        rmunlock(handles.back());
    }
    return handles;
}

TEST(SharedArena, WhatCompactionFreesServesMalloc) {
    std::set<uintptr_t> before;
    std::vector<rmhandle_t> handles = fill_handles(many(50000), &before);
    for (size_t i = 0; i < handles.size(); i++)
        if (i % 10 != 0)
            rmfree(handles[i]);
    rmcompact(0);
    std::set<uintptr_t> blocks;
    std::vector<void *> pointers;
    for (size_t i = 0; i < many(30000); i++) {
        pointers.push_back(jeff_malloc(1000));
        blocks.insert(chunk_of(pointers.back()));
    }
    size_t taken_over = 0;
    for (uintptr_t place : blocks)
        taken_over += before.count(place);
    EXPECT_GE(taken_over * 2, blocks.size());
    for (void *pointer : pointers)
        jeff_free(pointer);
    for (size_t i = 0; i < handles.size(); i += 10)
        rmfree(handles[i]);
}

TEST(SharedArena, WhatMallocFreesServesHandles) {
    std::set<uintptr_t> before;
    std::vector<void *> pointers;
    for (size_t i = 0; i < many(50000); i++) {
        pointers.push_back(jeff_malloc(1000));
        std::memset(pointers.back(), 1, 1000);
        before.insert(chunk_of(pointers.back()));
    }
    for (void *pointer : pointers)
        jeff_free(pointer);
    std::set<uintptr_t> after;
    std::vector<rmhandle_t> handles = fill_handles(many(30000), &after);
    size_t taken_over = 0;
    for (uintptr_t place : after)
        taken_over += before.count(place);
    EXPECT_GE(taken_over * 2, after.size());
    for (rmhandle_t handle : handles)
        rmfree(handle);
}

TEST(SharedArena, TrimmingCompactsAndGivesBackWhatBothLeft) {
    std::set<uintptr_t> chunks;
    std::vector<rmhandle_t> handles = fill_handles(many(50000), &chunks);
    std::vector<void *> pointers;
    for (size_t i = 0; i < many(20000); i++) {
        pointers.push_back(jeff_malloc(1000));
        std::memset(pointers.back(), 1, 1000);
    }
    for (size_t i = 0; i < handles.size(); i++)
        if (i % 10 != 0)
            rmfree(handles[i]);
    for (void *pointer : pointers)
        jeff_free(pointer);
    EXPECT_EQ(1, jeff_malloc_trim(0));
    struct jf_window *window = jf_api_window();
    EXPECT_EQ(0u, jf_arena_dirty(window->arena));
    struct rm_compact_result result;
    EXPECT_EQ(RM_COMPACT_DONE, rmcompact_us(0, &result));
    EXPECT_EQ(0u, result.bytes_moved) << "it was compacted before";
    for (size_t i = 0; i < handles.size(); i += 10)
        rmfree(handles[i]);
}

TEST(SharedArena, BothKindsOfBlocksLieInOneWindow) {
    rmhandle_t handle = rmmalloc(100);
    void *block = jeff_malloc(100);
    void *huge = jeff_malloc(10000000);
    struct jf_window *window = jf_api_window();
    EXPECT_EQ(JF_CHUNK_REGION,
              jf_arena_find(window->arena, reinterpret_cast<uintptr_t>(rmlock(handle))).kind);
    EXPECT_EQ(JF_CHUNK_SPAN, jf_arena_find(window->arena, reinterpret_cast<uintptr_t>(block)).kind);
    EXPECT_EQ(JF_CHUNK_HUGE, jf_arena_find(window->arena, reinterpret_cast<uintptr_t>(huge)).kind);
    rmunlock(handle);
    rmfree(handle);
    jeff_free(block);
    jeff_free(huge);
    EXPECT_EQ(nullptr, jf_arena_check(window->arena));
    EXPECT_EQ(0, rmcheck(nullptr));
}

} // namespace
