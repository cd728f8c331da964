// Pools and many threads: elements that are freed by others, compaction beside locks, threads that come and go,
// fork.
#include <gtest/gtest.h>

#include <jeff/pool.h>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "support/model.hpp"
#include "support/profiles.hpp"
#include "support/threads.hpp"

namespace {

using support::Profile;
using support::ProfileHeap;
using support::Random;

constexpr size_t THREADS = 4;

// A bag that threads put things into and take any out of.
template <class T> class Bag {
  public:
    void put(T thing) {
        std::lock_guard<std::mutex> guard(mutex_);
        things_.push_back(thing);
    }
    bool take(Random &random, T *ret_thing) {
        std::lock_guard<std::mutex> guard(mutex_);
        if (things_.empty())
            return false;
        size_t which = random.below(things_.size());
        *ret_thing = things_[which];
        things_[which] = things_.back();
        things_.pop_back();
        return true;
    }
    size_t size() {
        std::lock_guard<std::mutex> guard(mutex_);
        return things_.size();
    }

  private:
    std::mutex mutex_;
    std::vector<T> things_;
};

TEST(PoolThreads, ElementsAreFreedByOtherThreads) {
    ProfileHeap heap(Profile::growing);
    rmpool_t pool = rmpool_create(heap.get(), 48, 500, nullptr);
    Bag<uint64_t *> bag;
    std::vector<std::thread> threads;
    for (uint64_t seed = 0; seed < THREADS; seed++)
        threads.emplace_back([&, seed] {
            Random random(seed);
            for (size_t i = 0; i < support::thread_operations(100000); i++) {
                uint64_t *element;
                if (random.chance(500 + (i / 10000 % 2 != 0 ? 30 : 0))) {
                    element = static_cast<uint64_t *>(rmpool_alloc(pool));
                    for (size_t j = 0; j < 6; j++)
                        element[j] = reinterpret_cast<uintptr_t>(element) + j;
                    bag.put(element);
                } else if (bag.take(random, &element)) {
                    for (size_t j = 0; j < 6; j++)
                        ASSERT_EQ(reinterpret_cast<uintptr_t>(element) + j, element[j]);
                    rmpool_free(pool, element);
                }
            }
        });
    for (std::thread &thread : threads)
        thread.join();
    rm_pool_stats stats;
    rmpool_stats(pool, &stats);
    EXPECT_EQ(bag.size(), stats.elements);
    heap.expect_sound();
    rmpool_destroy(pool);
    heap.expect_sound();
}

TEST(PoolThreads, HandlesAreLockedAndFreedWhileThePoolIsCompacted) {
    ProfileHeap heap(Profile::growing);
    rm_pool_options options;
    rmpool_options_init(&options);
    options.flags = RM_POOL_HANDLES;
    rmpool_t pool = rmpool_create(heap.get(), 64, 300, &options);
    struct Made {
        rmhandle_t handle;
        uint64_t seed;
    };
    Bag<Made> bag;
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> moved{0};
    std::thread compactor([&] {
        Random random(99);
        while (!stop) {
            rm_compact_result result;
            rmpool_compact(pool, static_cast<uint32_t>(random.below(4) * 30), &result);
            moved += result.blocks_moved;
        }
    });
    std::vector<std::thread> threads;
    for (uint64_t seed = 0; seed < THREADS - 1; seed++)
        threads.emplace_back([&, seed] {
            Random random(seed);
            uint64_t next = seed << 40;
            for (size_t i = 0; i < support::thread_operations(60000); i++) {
                Made made{};
                if (random.chance(350)) {
                    made = {rmpool_alloc_handle(pool), ++next};
                    support::fill_pattern(rmlock(made.handle), 64, made.seed);
                    rmunlock(made.handle);
                    bag.put(made);
                } else if (bag.take(random, &made)) {
                    if (random.chance(500)) {
                        rmread_begin();
                        ASSERT_TRUE(support::has_pattern(rmderef(made.handle), 0, 64, made.seed));
                        rmread_end();
                    }
                    char *memory = static_cast<char *>(rmlock(made.handle));
                    ASSERT_TRUE(support::has_pattern(memory, 0, 64, made.seed));
                    support::fill_pattern(memory, 64, ++made.seed);
                    rmunlock(made.handle);
                    if (random.chance(450))
                        rmpool_free_handle(pool, made.handle);
                    else
                        bag.put(made);
                }
            }
        });
    for (std::thread &thread : threads)
        thread.join();
    stop = true;
    compactor.join();
    EXPECT_GT(moved, 0u);
    rm_pool_stats stats;
    rmpool_stats(pool, &stats);
    EXPECT_EQ(bag.size(), stats.elements);
    EXPECT_EQ(RM_COMPACT_DONE, rmpool_compact(pool, 0, nullptr));
    rmpool_stats(pool, &stats);
    EXPECT_LE(stats.partial_blocks, 1u);
    heap.expect_sound();
    rmpool_destroy(pool);
}

TEST(PoolThreads, WhatAThreadHadAtHandServesTheNext) {
    ProfileHeap heap(Profile::growing);
    rmpool_t pool = rmpool_create(heap.get(), 64, 1000, nullptr);
    for (int i = 0; i < 200; i++)
        std::thread([&] { rmpool_free(pool, rmpool_alloc(pool)); }).join();
    rm_pool_stats stats;
    rmpool_stats(pool, &stats);
    EXPECT_LE(stats.blocks, 1u);
    rmpool_destroy(pool);
}

TEST(PoolThreads, PoolsComeAndGoBesideOthers) {
    ProfileHeap heap(Profile::growing);
    std::vector<std::thread> threads;
    for (uint64_t seed = 0; seed < THREADS; seed++)
        threads.emplace_back([&, seed] {
            Random random(seed);
            for (size_t round = 0; round < support::thread_operations(400); round++) {
                rm_pool_options options;
                rmpool_options_init(&options);
                options.flags = random.chance(500) ? RM_POOL_HANDLES : 0;
                rmpool_t pool = rmpool_create(heap.get(), 32, 100, &options);
                std::vector<rmhandle_t> handles;
                for (size_t i = random.below(300); i > 0; i--) {
                    if (options.flags != 0)
                        handles.push_back(rmpool_alloc_handle(pool));
                    else
                        std::memset(rmpool_alloc(pool), 1, 32);
                }
                for (size_t i = 0; i < handles.size(); i += 2)
                    rmfree(handles[i]);
                rmpool_destroy(pool);
            }
        });
    for (std::thread &thread : threads)
        thread.join();
    rm_stats stats;
    rmheap_stats(heap.get(), &stats);
    EXPECT_EQ(0u, stats.committed);
    heap.expect_sound();
}

#if !JF_TEST_SANITIZED
TEST(PoolThreads, ForkedChildGoesOn) {
    ProfileHeap heap(Profile::growing);
    rm_pool_options options;
    rmpool_options_init(&options);
    rmpool_t stable = rmpool_create(heap.get(), 64, 100, &options);
    options.flags = RM_POOL_HANDLES;
    rmpool_t handles = rmpool_create(heap.get(), 64, 100, &options);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; i++)
        threads.emplace_back([&] {
            while (!stop) {
                std::vector<void *> elements;
                for (int j = 0; j < 200; j++)
                    elements.push_back(rmpool_alloc(stable));
                for (void *element : elements)
                    rmpool_free(stable, element);
                rmfree(rmpool_alloc_handle(handles));
            }
        });
    for (int round = 0; round < 30; round++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            for (int j = 0; j < 1000; j++) {
                std::memset(rmpool_alloc(stable), 1, 64);
                rmpool_alloc_handle(handles);
            }
            rmpool_compact(handles, 0, nullptr);
            _exit(rmheap_check(heap.get(), nullptr));
        }
        int status = -1;
        ASSERT_EQ(child, waitpid(child, &status, 0));
        ASSERT_TRUE(WIFEXITED(status));
        ASSERT_EQ(0, WEXITSTATUS(status));
    }
    stop = true;
    for (std::thread &thread : threads)
        thread.join();
    rmpool_destroy(stable);
    rmpool_destroy(handles);
}
#endif

} // namespace
