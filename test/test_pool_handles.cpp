// Pools of handles: block calls on elements, compaction, locks and readers beside it.
#include <gtest/gtest.h>

#include <jeff/pool.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

extern "C" {
#include "collections/pool.h"
}

#include "support/model.hpp"
#include "support/profiles.hpp"

namespace {

using support::Profile;
using support::ProfileHeap;
using support::Random;

class PoolHandles : public testing::Test {
  protected:
    void SetUp() override {
        testing::FLAGS_gtest_death_test_style = "fast";
        rm_options options;
        rmoptions_init(&options);
        options.context = &moved_;
        options.moved = [](void *context, rmhandle_t handle, void *address, size_t size) {
            EXPECT_EQ(address, rmweaklock(handle));
            EXPECT_EQ(size, rmsize(handle));
            static_cast<std::vector<rmhandle_t> *>(context)->push_back(handle);
        };
        heap_ = std::make_unique<ProfileHeap>(Profile::growing, &options);
    }
    rmpool_t pool(size_t size, size_t per_block = 0, unsigned flags = 0) {
        rm_pool_options options;
        rmpool_options_init(&options);
        options.flags = RM_POOL_HANDLES | flags;
        return rmpool_create(heap_->get(), size, per_block, &options);
    }
    static rm_pool_stats stats(rmpool_t pool) {
        rm_pool_stats stats;
        rmpool_stats(pool, &stats);
        return stats;
    }
    static rmhandle_t make(rmpool_t pool, uint64_t seed) {
        rmhandle_t handle = rmpool_alloc_handle(pool);
        if (handle == nullptr)
            return nullptr;
        support::fill_pattern(rmlock(handle), rmsize(handle), seed);
        rmunlock(handle);
        return handle;
    }
    static bool is_right(rmhandle_t handle, uint64_t seed) {
        bool right = support::has_pattern(rmlock(handle), 0, rmsize(handle), seed);
        rmunlock(handle);
        return right;
    }
    // Frees all but every n-th, gives those that are left by their seed.
    static std::vector<std::pair<rmhandle_t, uint64_t>> sparse(rmpool_t pool, size_t count,
                                                               size_t nth) {
        std::vector<rmhandle_t> all;
        for (size_t i = 0; i < count; i++)
            all.push_back(make(pool, i));
        std::vector<std::pair<rmhandle_t, uint64_t>> kept;
        for (size_t i = 0; i < count; i++) {
            if (i % nth == 0)
                kept.emplace_back(all[i], i);
            else
                rmpool_free_handle(pool, all[i]);
        }
        return kept;
    }

    std::vector<rmhandle_t> moved_;
    std::unique_ptr<ProfileHeap> heap_;
};

TEST_F(PoolHandles, BlockCallsWorkOnElements) {
    rmpool_t elements = pool(50);
    rmhandle_t handle = rmpool_alloc_handle(elements);
    ASSERT_NE(nullptr, handle);
    void *address = rmlock(handle);
    EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(address) % 16);
    EXPECT_EQ(50u, rmsize(handle));
    EXPECT_EQ(heap_->get(), rmheap_of(handle));
    EXPECT_EQ(handle, rmhandle_of(address));
    EXPECT_EQ(elements, rmpool_of(address));
    EXPECT_EQ(address, rmtrylock(handle));
    rmunlock(handle);
    EXPECT_EQ(address, rmlock_long(handle));
    rmunlock(handle);
    rmunlock(handle);
    rmread_begin();
    EXPECT_EQ(address, rmderef(handle));
    rmread_end();
    EXPECT_EQ(1, rmweak_valid(handle, rmweaklock(handle)));
    EXPECT_EQ(-1, rmrealloc(handle, 20));
    EXPECT_EQ(EINVAL, errno);
    errno = 0;
    EXPECT_EQ(-1, rmpurgeable(handle, 1));
    EXPECT_EQ(EINVAL, errno);
    EXPECT_EQ(nullptr, rmpool_alloc(elements));
    heap_->expect_sound();
    rmfree(handle);
    EXPECT_EQ(nullptr, rmheap_of(handle));
    EXPECT_EQ(0u, stats(elements).elements);
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, ElementsKeepTheirContents) {
    rmpool_t elements = pool(100, 200);
    auto kept = sparse(elements, 3000, 2);
    for (auto &[handle, seed] : kept)
        EXPECT_TRUE(is_right(handle, seed));
    EXPECT_EQ(1500u, stats(elements).elements);
    for (size_t i = 0; i < 1000; i++)
        kept.emplace_back(make(elements, 5000 + i), 5000 + i);
    for (auto &[handle, seed] : kept)
        EXPECT_TRUE(is_right(handle, seed));
    heap_->expect_sound();
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, CompactionLeavesAtMostOnePartialBlock) {
    for (size_t nth : {2u, 3u, 10u, 100u}) {
        rmpool_t elements = pool(64, 500);
        auto kept = sparse(elements, 20000, nth);
        rm_compact_result result;
        EXPECT_EQ(RM_COMPACT_DONE, rmpool_compact(elements, 0, &result));
        rm_pool_stats now = stats(elements);
        EXPECT_LE(now.partial_blocks, 1u);
        EXPECT_EQ(0u, now.empty_blocks);
        EXPECT_EQ((kept.size() + 499) / 500, now.blocks);
        EXPECT_GT(result.bytes_released, 0u);
        EXPECT_EQ(result.blocks_moved, moved_.size());
        for (auto &[handle, seed] : kept)
            ASSERT_TRUE(is_right(handle, seed));
        heap_->expect_sound();
        rmpool_destroy(elements);
        moved_.clear();
    }
}

TEST_F(PoolHandles, SecondCompactionMovesNothing) {
    rmpool_t elements = pool(64, 500);
    sparse(elements, 20000, 7);
    EXPECT_EQ(RM_COMPACT_DONE, rmpool_compact(elements, 0, nullptr));
    rm_compact_result result;
    EXPECT_EQ(RM_COMPACT_DONE, rmpool_compact(elements, 0, &result));
    EXPECT_EQ(0u, result.blocks_moved);
    EXPECT_EQ(0u, result.bytes_released);
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, CompactionInSlicesComesToTheSameEnd) {
    rmpool_t elements = pool(64, 500);
    auto kept = sparse(elements, 20000, 10);
    rm_compact_status status;
    unsigned calls = 0;
    do
        status = rmpool_compact(elements, 1, nullptr);
    while (status == RM_COMPACT_BUDGET && ++calls < 100000);
    EXPECT_EQ(RM_COMPACT_DONE, status);
    EXPECT_EQ((kept.size() + 499) / 500, stats(elements).blocks);
    for (auto &[handle, seed] : kept)
        ASSERT_TRUE(is_right(handle, seed));
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, LockedElementsStayWhereTheyAre) {
    rmpool_t elements = pool(64, 100);
    auto kept = sparse(elements, 2000, 10);
    std::vector<void *> places;
    for (size_t i = 0; i < kept.size(); i += 20)
        places.push_back(rmlock(kept[i].first));
    rm_compact_result result;
    EXPECT_EQ(RM_COMPACT_LOCKED, rmpool_compact(elements, 0, &result));
    EXPECT_GT(result.blocks_locked, 0u);
    for (size_t i = 0; i < places.size(); i++) {
        EXPECT_EQ(places[i], rmlock(kept[i * 20].first));
        rmunlock(kept[i * 20].first);
        rmunlock(kept[i * 20].first);
    }
    EXPECT_EQ(RM_COMPACT_DONE, rmpool_compact(elements, 0, nullptr));
    EXPECT_EQ(2u, stats(elements).blocks);
    for (auto &[handle, seed] : kept)
        ASSERT_TRUE(is_right(handle, seed));
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, OpenReadSectionKeepsEverythingInPlace) {
    rmpool_t elements = pool(64, 100);
    auto kept = sparse(elements, 1000, 10);
    rmread_begin();
    const void *before = rmderef(kept.back().first);
    rm_compact_result result;
    EXPECT_EQ(RM_COMPACT_LOCKED, rmpool_compact(elements, 0, &result));
    EXPECT_EQ(0u, result.blocks_moved);
    EXPECT_EQ(before, rmderef(kept.back().first));
    rmread_end();
    EXPECT_EQ(RM_COMPACT_DONE, rmpool_compact(elements, 0, &result));
    EXPECT_GT(result.blocks_moved, 0u);
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, RmfreeIsAFreeOfTheElement) {
    rmpool_t elements = pool(64, 100);
    std::vector<rmhandle_t> all;
    for (uint64_t i = 0; i < 5000; i++)
        all.push_back(make(elements, i));
    for (rmhandle_t handle : all)
        rmfree(handle);
    EXPECT_EQ(0u, stats(elements).elements);
    rmpool_compact(elements, 0, nullptr);
    EXPECT_EQ(0u, stats(elements).blocks);
    heap_->expect_sound();
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, ZeroedElementsAreZeroAgain) {
    rmpool_t elements = pool(100, 0, RM_POOL_ZEROED);
    for (int round = 0; round < 3; round++) {
        std::vector<rmhandle_t> all;
        for (int i = 0; i < 300; i++) {
            all.push_back(rmpool_alloc_handle(elements));
            char *element = static_cast<char *>(rmlock(all.back()));
            ASSERT_EQ(100, std::count(element, element + 100, 0));
            std::memset(element, 0xff, 100);
            rmunlock(all.back());
        }
        for (rmhandle_t handle : all)
            rmfree(handle);
        rmpool_compact(elements, 0, nullptr);
    }
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, DestroyedPoolsHandlesAreStale) {
    rmpool_t elements = pool(64);
    rmhandle_t live = make(elements, 1);
    rmhandle_t freed = make(elements, 2);
    rmfree(freed);
    rmpool_destroy(elements);
    EXPECT_EQ(nullptr, rmheap_of(live));
    EXPECT_DEATH(rmlock(live), "stale handle");
    heap_->expect_sound();
    rm_stats figures;
    rmheap_stats(heap_->get(), &figures);
    EXPECT_EQ(0u, figures.committed);
}

TEST_F(PoolHandles, HeapThatEndsEndsItsPools) {
    rmhandle_t handle;
    {
        ProfileHeap heap(Profile::growing);
        rm_pool_options options;
        rmpool_options_init(&options);
        options.flags = RM_POOL_HANDLES;
        handle = rmpool_alloc_handle(rmpool_create(heap.get(), 64, 0, &options));
        EXPECT_EQ(heap.get(), rmheap_of(handle));
    }
    EXPECT_EQ(nullptr, rmheap_of(handle));
}

TEST_F(PoolHandles, VisitGivesHandles) {
    rmpool_t elements = pool(64, 100);
    auto kept = sparse(elements, 1000, 3);
    std::set<rmhandle_t> expected, seen;
    for (auto &[handle, seed] : kept)
        expected.insert(handle);
    rmpool_visit(
        elements,
        [](void *context, void *element, rmhandle_t handle) {
            EXPECT_EQ(nullptr, element);
            EXPECT_TRUE(static_cast<std::set<rmhandle_t> *>(context)->insert(handle).second);
            return 0;
        },
        &seen);
    EXPECT_EQ(expected, seen);
    rmpool_visit(
        elements, [](void *, void *, rmhandle_t handle) { return rmfree(handle), 0; }, nullptr);
    EXPECT_EQ(0u, stats(elements).elements);
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, MisuseIsDetected) {
    rmpool_t first = pool(64), second = pool(64);
    rmhandle_t element = make(first, 1);
    rmhandle_t other = make(first, 2);
    rmhandle_t block = rmheap_malloc(heap_->get(), 64);
    EXPECT_DEATH(rmpool_free_handle(second, element),
                 "rmpool_free_handle: element 0x.*another pool");
    EXPECT_DEATH(rmpool_free_handle(first, block), "no element of a pool lies there");
    EXPECT_DEATH(rmpool_free(first, &first), "freed by their handles");
    rmlock(element);
    EXPECT_DEATH(rmpool_free_handle(first, element), "the block is locked");
    EXPECT_DEATH(rmfree(element), "the block is locked");
    rmunlock(element);
    EXPECT_DEATH(rmunlock(element), "not locked");
    rmpool_free_handle(first, element);
    EXPECT_DEATH(rmpool_free_handle(first, element), "rmpool_free_handle: stale handle");
    EXPECT_DEATH(rmfree(element), "rmfree: stale handle");
    EXPECT_DEATH(rmlock(element), "rmlock: stale handle");
    rmpool_free_handle(first, nullptr);
    rmpool_free_handle(first, other);
    rmpool_destroy(first);
    rmpool_destroy(second);
}

TEST_F(PoolHandles, EntryThatIsNotTheElementsIsAFault) {
    rmpool_t elements = pool(64);
    rmhandle_t handle = make(elements, 1);
    auto *inner = reinterpret_cast<jf_pool *>(elements);
    auto address = reinterpret_cast<uintptr_t>(rmweaklock(handle));
    jf_pool_block *block = jf_pool_block_at(inner->window, address);
    uint32_t *index = jf_pool_index(block, jf_pool_slot_at(inner, block, address));
    ++*index;
    rm_fault fault;
    EXPECT_EQ(4, rmheap_check(heap_->get(), &fault));
    --*index;
    heap_->expect_sound();
    rmpool_destroy(elements);
}

TEST_F(PoolHandles, ScrambleMovesWhatIsNotLocked) {
    rm_options options;
    rmoptions_init(&options);
    options.check = 3;
    ProfileHeap heap(Profile::growing, &options);
    rm_pool_options pool_options;
    rmpool_options_init(&pool_options);
    pool_options.flags = RM_POOL_HANDLES;
    rmpool_t elements = rmpool_create(heap.get(), 64, 100, &pool_options);
    rmhandle_t kept = make(elements, 1);
    rmhandle_t locked = make(elements, 2);
    const void *place = rmlock(locked);
    const char *weak = static_cast<const char *>(rmweaklock(kept));
    make(elements, 3);
    EXPECT_EQ(0, rmweak_valid(kept, weak)) << "it has moved";
    EXPECT_EQ('\xdb', weak[5]) << "and its old place is filled";
    EXPECT_EQ(1, rmweak_valid(locked, place));
    rmunlock(locked);
    for (uint64_t i = 0; i < 300; i++)
        make(elements, i);
    EXPECT_TRUE(is_right(kept, 1));
    EXPECT_TRUE(is_right(locked, 2));
}

TEST_F(PoolHandles, BlocksAndElementsShareTheRing) {
    rmpool_t elements = pool(64, 1000);
    Random random(5);
    std::vector<rmhandle_t> all;
    for (int i = 0; i < 30000; i++) {
        if (all.size() < 1000 || random.chance(500)) {
            all.push_back(random.chance(500) ? make(elements, 1)
                                             : rmheap_malloc(heap_->get(), random.size(3000)));
        } else {
            size_t which = random.below(all.size());
            rmfree(all[which]);
            all[which] = all.back();
            all.pop_back();
        }
        if (i % 10000 == 0)
            rmheap_compact(heap_->get(), 0);
    }
    for (rmhandle_t handle : all)
        rmfree(handle);
    EXPECT_EQ(0u, stats(elements).elements);
    heap_->expect_sound();
    rmpool_destroy(elements);
}

} // namespace
