// Memory refused at every point where the malloc facade asks for it, and limits of the process: always NULL with
// ENOMEM, nothing else changed, and all is well when there is memory again.
#include "support/child.hpp"
#include "support/fork_options.hpp"
#include "support/malloc_calls.hpp"
#include "support/threads.hpp"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include <sys/resource.h>

extern "C" {
#include "api.h"
#include "malloc/facade.h"
}

using support::run_child;

namespace {

constexpr size_t mib = size_t{1} << 20;

void limit_address_space(size_t room) {
    rlimit limit = {};
    unsigned long pages = 0;
    FILE *file = std::fopen("/proc/self/statm", "r");
    CHILD_EXPECT(file != nullptr && std::fscanf(file, "%lu", &pages) == 1);
    std::fclose(file);
    CHILD_EXPECT(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = pages * 4096 + room;
    CHILD_EXPECT(setrlimit(RLIMIT_AS, &limit) == 0);
}

// First, while this process has no window that a child would inherit.
TEST(MallocRefused, UnderALimitOnAddressSpaceMemoryEndsWithErrno) {
    if (JF_TEST_SANITIZED)
        GTEST_SKIP() << "the sanitizer needs the address space";
    for (size_t size : {size_t{100}, size_t{5000}, size_t{50000}, size_t{3} * mib}) {
        run_child([size] {
            limit_address_space(300 * mib);
            std::vector<void *> blocks;
            blocks.reserve(4 << 20);
            void *block;
            errno = 0;
            while ((block = jeff_malloc(size)) != nullptr) {
                std::memset(block, 1, 100);
                blocks.push_back(block);
            }
            CHILD_EXPECT(errno == ENOMEM);
            CHILD_EXPECT(blocks.size() * size > 50 * mib);
            for (void *used : blocks)
                jeff_free(used);
            for (size_t i = 0; i < blocks.size() / 2; i++)
                CHILD_EXPECT(jeff_malloc(size) != nullptr);
        });
    }
}

TEST(MallocRefused, WithoutAnyAddressSpaceMallocFailsAndFreeOfNothingWorks) {
    if (JF_TEST_SANITIZED)
        GTEST_SKIP() << "the sanitizer needs the address space";
    run_child([] {
        limit_address_space(4 * mib);
        errno = 0;
        CHILD_EXPECT(jeff_malloc(100) == nullptr && errno == ENOMEM);
        CHILD_EXPECT(jeff_calloc(1, 100) == nullptr);
        CHILD_EXPECT(jeff_realloc(nullptr, 100) == nullptr);
        CHILD_EXPECT(jeff_aligned_alloc(64, 100) == nullptr);
        CHILD_EXPECT(jeff_malloc(10 * mib) == nullptr);
        jeff_free(nullptr);
    });
}

// One of everything that may need memory; returns how many were refused.
unsigned use_everything(std::vector<void *> *blocks) {
    unsigned refused = 0;
    auto keep = [&](void *block, size_t size) {
        if (block == nullptr) {
            EXPECT_EQ(ENOMEM, errno);
            refused++;
            return;
        }
        std::memset(block, 3, size);
        blocks->push_back(block);
    };
    for (size_t size : {16u, 500u, 3000u, 8000u, 20000u, 100000u, 200000u, 3000000u}) {
        errno = 0;
        keep(jeff_malloc(size), size);
        keep(jeff_calloc(1, size), size);
        keep(jeff_aligned_alloc(4096, size), size);
        void *block = jeff_malloc(size);
        if (block != nullptr) {
            std::memset(block, 9, size);
            void *larger = jeff_realloc(block, size * 3);
            if (larger == nullptr) {
                EXPECT_EQ(ENOMEM, errno);
                EXPECT_EQ(9, static_cast<unsigned char *>(block)[size - 1]);
                larger = block;
                refused++;
            }
            blocks->push_back(larger);
        }
    }
    return refused;
}

class MallocRefusedAt : public testing::TestWithParam<bool> {};

TEST_P(MallocRefusedAt, EveryRequestInTurn) {
    jeff_free(jeff_malloc(1));
    bool persistent = GetParam();
    for (unsigned nth = 1; nth < 60; nth++) {
        run_child([nth, persistent] {
            std::vector<void *> blocks;
            blocks.reserve(1000);
            jf_arena_refuse_calls(jf_malloc.arena, nth, persistent);
            unsigned refused = 0;
            for (int i = 0; i < 3; i++)
                refused += use_everything(&blocks);
            jf_arena_refuse_calls(jf_malloc.arena, 0, false);
            CHILD_EXPECT(refused > 0 || !persistent || nth > 20);
            CHILD_EXPECT(jf_arena_check(jf_malloc.arena) == nullptr);
            for (void *block : blocks)
                jeff_free(block);
            blocks.clear();
            CHILD_EXPECT(use_everything(&blocks) == 0);
        });
    }
}

INSTANTIATE_TEST_SUITE_P(OnceAndForGood, MallocRefusedAt, testing::Bool());

TEST(MallocRefused, MakingABlockSmallerDoesNotFail) {
    run_child([] {
        void *block = jeff_malloc(5000);
        void *huge = jeff_malloc(5 * mib);
        jf_arena_refuse_calls(jf_malloc.arena, 1, true);
        std::vector<void *> all;
        void *small;
        while ((small = jeff_malloc(20)) != nullptr)
            all.push_back(small);
        block = jeff_realloc(block, 20);
        CHILD_EXPECT(block != nullptr);
        huge = jeff_realloc(huge, 20);
        CHILD_EXPECT(huge != nullptr);
        jf_arena_refuse_calls(jf_malloc.arena, 0, false);
        jeff_free_sized(block, 20);
        jeff_free_sized(huge, 20);
        for (void *each : all)
            jeff_free_sized(each, 20);
    });
}

TEST(MallocRefused, AThreadWithoutMemoryForItsCacheIsRefusedAndMayFree) {
    run_child([] {
        void *block = jeff_malloc(100);
        jf_arena_refuse_calls(jf_malloc.arena, 1, true);
        pthread_t thread;
        CHILD_EXPECT(pthread_create(
                         &thread, nullptr,
                         [](void *given) -> void * {
                             jeff_free(given);
                             return jeff_malloc(300);
                         },
                         block) == 0);
        void *got = nullptr;
        CHILD_EXPECT(pthread_join(thread, &got) == 0);
        jf_arena_refuse_calls(jf_malloc.arena, 0, false);
        jeff_free(got);
    });
}

} // namespace
