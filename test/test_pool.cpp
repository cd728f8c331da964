// Pools with stable pointers: elements, blocks, misuse, memory.
#include <gtest/gtest.h>

#include <jeff/pool.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

extern "C" {
#include "collections/pool.h"
}

#include "support/profiles.hpp"

namespace {

using support::Profile;
using support::ProfileHeap;

class Pool : public testing::Test {
  protected:
    void SetUp() override {
        testing::FLAGS_gtest_death_test_style = "fast";
        rm_options options;
        rmoptions_init(&options);
        options.check = 2;
        heap_ = std::make_unique<ProfileHeap>(Profile::growing, &options);
    }
    rmpool_t pool(size_t size, size_t per_block = 0, unsigned flags = 0, size_t alignment = 0) {
        rm_pool_options options;
        rmpool_options_init(&options);
        options.flags = flags;
        options.alignment = alignment;
        return rmpool_create(heap_->get(), size, per_block, &options);
    }
    static rm_pool_stats stats(rmpool_t pool) {
        rm_pool_stats stats;
        rmpool_stats(pool, &stats);
        return stats;
    }
    std::unique_ptr<ProfileHeap> heap_;
};

TEST_F(Pool, ElementsAreDistinctAndKeepTheirContents) {
    for (size_t size : {1u, 7u, 8u, 24u, 64u, 100u, 1000u, 5000u, 70000u}) {
        rmpool_t elements = pool(size);
        ASSERT_NE(nullptr, elements) << size;
        std::vector<unsigned char *> all;
        for (size_t i = 0; i < 500; i++) {
            all.push_back(static_cast<unsigned char *>(rmpool_alloc(elements)));
            ASSERT_NE(nullptr, all.back());
            std::memset(all.back(), static_cast<int>(i % 251), size);
        }
        for (size_t i = 0; i < all.size(); i++)
            for (size_t at = 0; at < size; at++)
                ASSERT_EQ(i % 251, all[i][at]);
        std::sort(all.begin(), all.end());
        for (size_t i = 1; i < all.size(); i++)
            ASSERT_GE(static_cast<size_t>(all[i] - all[i - 1]), size);
        EXPECT_EQ(500u, stats(elements).elements);
        heap_->expect_sound();
        for (unsigned char *element : all)
            rmpool_free(elements, element);
        EXPECT_EQ(0u, stats(elements).elements);
        heap_->expect_sound();
        rmpool_destroy(elements);
    }
}

TEST_F(Pool, AlignmentIsWhatWasAskedFor) {
    for (size_t alignment : {1u, 8u, 16u, 64u, 256u, 4096u, 65536u}) {
        rmpool_t elements = pool(24, 100, 0, alignment);
        ASSERT_NE(nullptr, elements);
        for (int i = 0; i < 300; i++)
            ASSERT_EQ(0u, reinterpret_cast<uintptr_t>(rmpool_alloc(elements)) % alignment);
        rmpool_destroy(elements);
    }
    for (size_t size : {1u, 8u, 16u, 24u, 48u, 40u}) {
        rmpool_t elements = pool(size);
        EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(rmpool_alloc(elements)) % 8);
        EXPECT_EQ(size < 8 ? 8 : size, stats(elements).stride) << "no padding";
        rmpool_destroy(elements);
    }
}

TEST_F(Pool, FullPoolAddsABlock) {
    rmpool_t elements = pool(64, 100);
    EXPECT_EQ(0u, stats(elements).blocks);
    rmpool_alloc(elements);
    EXPECT_EQ(1u, stats(elements).blocks);
    EXPECT_EQ(100u, stats(elements).block_elements);
    for (int i = 1; i < 1000; i++)
        rmpool_alloc(elements);
    EXPECT_GE(stats(elements).blocks, 10u);
    EXPECT_LE(stats(elements).blocks, 11u) << "what the thread has at hand";
    EXPECT_EQ(1000u, stats(elements).elements);
    rmpool_destroy(elements);
}

TEST_F(Pool, ZeroedElementsAreZeroAgain) {
    rmpool_t elements = pool(100, 0, RM_POOL_ZEROED);
    for (int round = 0; round < 3; round++) {
        std::vector<void *> all;
        for (int i = 0; i < 300; i++) {
            char *element = static_cast<char *>(rmpool_alloc(elements));
            ASSERT_EQ(100, std::count(element, element + 100, 0));
            std::memset(element, 0xff, 100);
            all.push_back(element);
        }
        for (void *element : all)
            rmpool_free(elements, element);
    }
    rmpool_destroy(elements);
}

TEST_F(Pool, EmptyBlocksGoBackButOne) {
    rmpool_t elements = pool(1000, 1000);
    std::vector<void *> all;
    for (int i = 0; i < 20000; i++)
        all.push_back(rmpool_alloc(elements));
    rm_stats before;
    rmheap_stats(heap_->get(), &before);
    EXPECT_GT(before.committed, 20000000u);
    for (void *element : all)
        rmpool_free(elements, element);
    rm_pool_stats now = stats(elements);
    EXPECT_LE(now.blocks, 3u) << "one empty, and those of elements at hand";
    EXPECT_LE(now.empty_blocks, 1u);
    rm_stats after;
    rmheap_stats(heap_->get(), &after);
    EXPECT_LT(after.committed, 4000000u);
    rmpool_compact(elements, 0, nullptr);
    EXPECT_EQ(0u, stats(elements).blocks);
    rmheap_stats(heap_->get(), &after);
    EXPECT_EQ(0u, after.committed);
    rmpool_destroy(elements);
}

TEST_F(Pool, ABlockAtTheBrinkIsNotGivenBackAndForth) {
    rmpool_t elements = pool(1000, 100);
    std::vector<void *> all;
    for (int i = 0; i < 150; i++)
        all.push_back(rmpool_alloc(elements));
    size_t blocks = stats(elements).blocks;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 100; i++)
            rmpool_free(elements, all[static_cast<size_t>(i)]);
        EXPECT_EQ(blocks, stats(elements).blocks);
        for (int i = 0; i < 100; i++)
            all[static_cast<size_t>(i)] = rmpool_alloc(elements);
    }
    rmpool_destroy(elements);
}

TEST_F(Pool, DestroyGivesEverythingBackAtOnce) {
    rmpool_t elements = pool(64);
    for (int i = 0; i < 100000; i++)
        std::memset(rmpool_alloc(elements), 1, 64);
    uintptr_t somewhere = reinterpret_cast<uintptr_t>(rmpool_alloc(elements)) & ~uintptr_t{4095};
    EXPECT_EQ(4096u, jf_os_resident(somewhere, 4096));
    rmpool_destroy(elements);
    EXPECT_EQ(0u, jf_os_resident(somewhere, 4096));
    rm_stats stats;
    rmheap_stats(heap_->get(), &stats);
    EXPECT_EQ(0u, stats.committed);
    heap_->expect_sound();
    rmpool_destroy(nullptr);
}

TEST_F(Pool, EndsWithItsHeap) {
    ProfileHeap heap(Profile::growing);
    rmpool_t elements = rmpool_create(heap.get(), 64, 0, nullptr);
    for (int i = 0; i < 1000; i++)
        rmpool_alloc(elements);
}

TEST_F(Pool, VisitSeesEveryLiveElementOnce) {
    rmpool_t elements = pool(64, 300);
    std::set<void *> live;
    std::vector<void *> all;
    for (int i = 0; i < 2000; i++)
        all.push_back(rmpool_alloc(elements));
    for (size_t i = 0; i < all.size(); i++) {
        if (i % 3 == 0)
            rmpool_free(elements, all[i]);
        else
            live.insert(all[i]);
    }
    std::set<void *> seen;
    EXPECT_EQ(0,
              rmpool_visit(
                  elements,
                  [](void *context, void *element, rmhandle_t handle) {
                      EXPECT_EQ(nullptr, handle);
                      EXPECT_TRUE(static_cast<std::set<void *> *>(context)->insert(element).second);
                      return 0;
                  },
                  &seen));
    EXPECT_EQ(live, seen);
    EXPECT_EQ(7, rmpool_visit(
                     elements, [](void *, void *, rmhandle_t) { return 7; }, nullptr));
    rmpool_destroy(elements);
}

TEST_F(Pool, VisitMayFreeWhatItVisits) {
    rmpool_t elements = pool(64, 300);
    for (int i = 0; i < 2000; i++)
        rmpool_alloc(elements);
    EXPECT_EQ(0, rmpool_visit(
                     elements,
                     [](void *context, void *element, rmhandle_t) {
                         rmpool_free(static_cast<rmpool_t>(context), element);
                         return 0;
                     },
                     elements));
    EXPECT_EQ(0u, stats(elements).elements);
    EXPECT_LE(stats(elements).empty_blocks, 1u);
    heap_->expect_sound();
    rmpool_destroy(elements);
}

TEST_F(Pool, OfKnowsLiveElementsOnly) {
    rmpool_t elements = pool(64);
    char *element = static_cast<char *>(rmpool_alloc(elements));
    EXPECT_EQ(elements, rmpool_of(element));
    EXPECT_EQ(nullptr, rmpool_of(element + 1));
    EXPECT_EQ(nullptr, rmpool_of(&elements));
    EXPECT_EQ(nullptr, rmpool_of(nullptr));
    rmpool_free(elements, element);
    EXPECT_EQ(nullptr, rmpool_of(element));
    rmpool_destroy(elements);
}

TEST_F(Pool, BadOptionsAreRefused) {
    auto refused = [](rmpool_t pool) {
        EXPECT_EQ(nullptr, pool);
        EXPECT_EQ(EINVAL, errno);
        errno = 0;
    };
    refused(pool(0));
    refused(pool(SIZE_MAX));
    refused(pool(8, 0, 4));
    refused(pool(8, 0, 0, 24));
    refused(pool(8, 0, 0, 128 << 10));
    rm_pool_options options{};
    refused(rmpool_create(heap_->get(), 8, 0, &options));
    ProfileHeap fixed(Profile::fixed);
    refused(rmpool_create(fixed.get(), 8, 0, nullptr));
    rmpool_t elements = pool(8);
    EXPECT_EQ(nullptr, rmpool_alloc_handle(elements));
    EXPECT_EQ(EINVAL, errno);
    rmpool_destroy(elements);
}

TEST_F(Pool, HugeBlocksAreCutToSize) {
    rmpool_t elements = pool(64, SIZE_MAX);
    ASSERT_NE(nullptr, elements);
    EXPECT_NE(nullptr, rmpool_alloc(elements));
    EXPECT_GT(stats(elements).block_elements, 1000000u);
    EXPECT_LT(stats(elements).committed, 64u << 20);
    rmpool_destroy(elements);
    elements = pool(100 << 20, 3);
    char *element = static_cast<char *>(rmpool_alloc(elements));
    ASSERT_NE(nullptr, element);
    element[0] = element[(100 << 20) - 1] = 1;
    rmpool_free(elements, element);
    rmpool_destroy(elements);
}

// ------------------------------------------------------------------------------------ misuse

TEST_F(Pool, DoubleFreeIsDetected) {
    rmpool_t elements = pool(64);
    void *element = rmpool_alloc(elements);
    void *other = rmpool_alloc(elements);
    rmpool_free(elements, element);
    EXPECT_DEATH(
        rmpool_free(elements, element),
        "jeff: rmpool_free: element 0x[0-9a-f]+ \\(heap 0x[0-9a-f]+\\): it was freed before");
    rmpool_free(elements, other);
    EXPECT_DEATH(rmpool_free(elements, element), "it was freed before");
    rmpool_destroy(elements);
}

TEST_F(Pool, ForeignPointerIsDetected) {
    rmpool_t elements = pool(64);
    char *element = static_cast<char *>(rmpool_alloc(elements));
    char local;
    for (void *foreign : {static_cast<void *>(&local), static_cast<void *>(element + 8),
                          static_cast<void *>(element - 64 * 200), reinterpret_cast<void *>(16),
                          static_cast<void *>(element + (1 << 19))})
        EXPECT_DEATH(rmpool_free(elements, foreign), "no element of a pool lies there");
    rmhandle_t block = rmheap_malloc(heap_->get(), 100);
    void *payload = rmlock(block);
    EXPECT_DEATH(rmpool_free(elements, payload), "no element of a pool lies there");
    rmunlock(block);
    rmpool_destroy(elements);
}

TEST_F(Pool, WrongPoolIsDetected) {
    rmpool_t first = pool(64), second = pool(64), third = pool(32);
    void *element = rmpool_alloc(first);
    rmpool_free(second, rmpool_alloc(second));
    EXPECT_DEATH(rmpool_free(second, element), "it belongs to another pool");
    EXPECT_DEATH(rmpool_free(third, element), "it belongs to another pool");
    EXPECT_DEATH(rmpool_free(nullptr, element), "a pool is needed here");
    EXPECT_DEATH(rmpool_alloc(nullptr), "a pool is needed here");
    rmpool_destroy(first);
    rmpool_destroy(second);
    rmpool_destroy(third);
}

TEST_F(Pool, MisuseThatIsPardonedHasNoEffect) {
    std::vector<rm_misuse_kind> kinds;
    rm_options options;
    rmoptions_init(&options);
    options.context = &kinds;
    options.misuse = [](void *context, const rm_misuse *misuse) {
        static_cast<std::vector<rm_misuse_kind> *>(context)->push_back(misuse->kind);
        return 1;
    };
    ProfileHeap heap(Profile::growing, &options);
    rmpool_t first = rmpool_create(heap.get(), 64, 0, nullptr);
    rmpool_t second = rmpool_create(heap.get(), 64, 0, nullptr);
    void *element = rmpool_alloc(first);
    rmpool_free(second, element);
    rmpool_free(first, &element);
    rmpool_free(first, element);
    rmpool_free(first, element);
    EXPECT_EQ((std::vector<rm_misuse_kind>{RM_MISUSE_WRONG_POOL, RM_MISUSE_FOREIGN_POINTER,
                                           RM_MISUSE_DOUBLE_FREE}),
              kinds);
    EXPECT_EQ(0u, stats(first).elements);
    heap.expect_sound();
}

TEST_F(Pool, SimultaneousDoubleFreeIsNoticedBeforeTheElementIsGivenOutTwice) {
    std::vector<std::string> messages;
    rm_options options;
    rmoptions_init(&options);
    options.context = &messages;
    options.misuse = [](void *context, const rm_misuse *misuse) {
        static_cast<std::vector<std::string> *>(context)->push_back(misuse->message);
        return 1;
    };
    ProfileHeap heap(Profile::growing, &options);
    rmpool_t elements = rmpool_create(heap.get(), 64, 0, nullptr);
    void *element = rmpool_alloc(elements);
    rmpool_free(elements, element);
    // what the second of two threads would have done that saw the element live at the same time
    auto *inner = reinterpret_cast<jf_pool *>(elements);
    jf_pool_cache *cache = jf_thread_self()->pool_caches[inner->id];
    *cache->top = cache->top[-1];
    cache->top++;
    void *once = rmpool_alloc(elements);
    void *twice = rmpool_alloc(elements);
    EXPECT_EQ(element, once);
    EXPECT_NE(once, twice);
    ASSERT_EQ(1u, messages.size());
    EXPECT_NE(std::string::npos, messages[0].find("two threads freed it at the same time"));
}

// ------------------------------------------------------------------------------------ memory

TEST_F(Pool, LimitOfTheHeapHolds) {
    rm_options options = support::limited_options(Profile::growing, 3 << 20);
    ProfileHeap heap(Profile::growing, &options);
    rmpool_t elements = rmpool_create(heap.get(), 1000, 0, nullptr);
    std::vector<void *> all;
    while (void *element = rmpool_alloc(elements))
        all.push_back(element);
    EXPECT_EQ(ENOMEM, errno);
    EXPECT_GT(all.size(), 2500u);
    EXPECT_LE(all.size(), 3200u);
    heap.expect_sound();
    rmpool_free(elements, all.back());
    EXPECT_EQ(all.back(), rmpool_alloc(elements));
    rm_stats stats;
    rmheap_stats(heap.get(), &stats);
    EXPECT_LE(stats.committed, 3u << 20);
    for (void *element : all)
        rmpool_free(elements, element);
    rmpool_compact(elements, 0, nullptr);
    rmhandle_t block = rmheap_malloc(heap.get(), 2 << 20);
    EXPECT_NE(nullptr, block) << "the pool's memory is the heap's again";
}

TEST_F(Pool, MemoryRefusedAtEveryPointChangesNothing) {
    ProfileHeap heap(Profile::growing);
    jf_arena *arena = reinterpret_cast<jf_heap *>(heap.get())->u.grow.window->arena;
    for (unsigned nth = 1; nth < 12; nth++) {
        jf_arena_refuse(arena, nth, nth % 2 == 0);
        rmpool_t elements = rmpool_create(heap.get(), 30000, 0, nullptr);
        std::vector<void *> all;
        for (int i = 0; i < 200 && elements != nullptr; i++) {
            void *element = rmpool_alloc(elements);
            if (element != nullptr)
                all.push_back(element);
            else
                EXPECT_EQ(ENOMEM, errno);
        }
        heap.expect_sound();
        jf_arena_refuse(arena, 0, false);
        if (elements != nullptr) {
            EXPECT_EQ(all.size(), stats(elements).elements);
        }
        rmpool_destroy(elements);
        heap.expect_sound();
    }
}

// Every call of a pool's life, with the nth request for memory refused, once or from there on. Gives how many
// elements there could be.
size_t live_through_refusal(bool handles, unsigned nth, bool persistent) {
    ProfileHeap heap(Profile::growing);
    jf_arena *arena = reinterpret_cast<jf_heap *>(heap.get())->u.grow.window->arena;
    rm_pool_options options;
    rmpool_options_init(&options);
    options.flags = handles ? RM_POOL_HANDLES : 0;
    jf_arena_refuse_calls(arena, nth, persistent);
    errno = 0;
    rmpool_t elements = rmpool_create(heap.get(), 5000, 100, &options);
    EXPECT_TRUE(elements != nullptr || errno == ENOMEM);
    std::vector<void *> all;
    for (int i = 0; i < 500 && elements != nullptr; i++) {
        errno = 0;
        void *element =
            handles ? static_cast<void *>(rmpool_alloc_handle(elements)) : rmpool_alloc(elements);
        EXPECT_TRUE(element != nullptr || errno == ENOMEM);
        if (element != nullptr)
            all.push_back(element);
    }
    heap.expect_sound();
    for (size_t i = 0; i < all.size(); i++)
        if (i % 3 != 0 && handles)
            rmpool_free_handle(elements, static_cast<rmhandle_t>(all[i]));
        else if (i % 3 != 0)
            rmpool_free(elements, all[i]);
    rm_compact_result result;
    rmpool_compact(elements, 0, &result);
    heap.expect_sound();
    jf_arena_refuse_calls(arena, 0, false);
    if (elements != nullptr) {
        rm_pool_stats figures;
        rmpool_stats(elements, &figures);
        EXPECT_EQ((all.size() + 2) / 3, figures.elements);
    }
    rmpool_destroy(elements);
    heap.expect_sound();
    return all.size();
}

TEST_F(Pool, EveryCallIsSoundWhicheverRequestForMemoryIsRefused) {
    for (bool handles : {false, true}) {
        size_t least = SIZE_MAX, most = 0;
        for (unsigned nth = 1; nth <= 25; nth++) {
            live_through_refusal(handles, nth, false);
            size_t count = live_through_refusal(handles, nth, true);
            least = std::min(least, count);
            most = std::max(most, count);
        }
        EXPECT_EQ(0u, least) << "the first request";
        EXPECT_EQ(500u, most) << "none is left to be refused";
    }
}

TEST_F(Pool, Rule15BlockThatMiscountsItsElements) {
    rmpool_t elements = pool(64);
    void *element = rmpool_alloc(elements);
    auto *inner = reinterpret_cast<jf_pool *>(elements);
    jf_pool_block *block = jf_pool_block_at(inner->window, reinterpret_cast<uintptr_t>(element));
    block->used++;
    rm_fault fault;
    EXPECT_EQ(15, rmheap_check(heap_->get(), &fault));
    EXPECT_STREQ("pool", fault.name);
    block->used--;
    uint32_t slot = jf_pool_slot_at(inner, block, reinterpret_cast<uintptr_t>(element));
    block->free[slot / 64] |= uint64_t{1} << (slot % 64);
    EXPECT_EQ(15, rmheap_check(heap_->get(), &fault));
    block->free[slot / 64] &= ~(uint64_t{1} << (slot % 64));
    inner->blocks++;
    EXPECT_EQ(15, rmheap_check(heap_->get(), &fault));
    inner->blocks--;
    heap_->expect_sound();
    rmpool_destroy(elements);
}

} // namespace
