// Programs of many threads that verify contents while a compactor runs with random budgets.
// JEFF_TEST_THREADS_SCALE multiplies the number of operations.
#include "support/threads.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

using support::BusyCompactor;
using support::Exchange;
using support::expect_whole;
using support::Filled;
using support::MixedOptions;
using support::Random;
using support::run_mixed;
using support::run_threads;
using support::thread_operations;

namespace {

constexpr unsigned workers = 4;

// The default heap; empty and whole at the end of every test.
class Threads : public testing::Test {
  protected:
    void TearDown() override {
        EXPECT_NE(rmcompact(0), RM_COMPACT_LOCKED);
        expect_whole(nullptr);
        rm_stats stats;
        rmstats(&stats);
        EXPECT_EQ(stats.blocks, 0u);
        EXPECT_EQ(stats.locked_blocks, 0u);
        rmdestroy();
    }
};

TEST_F(Threads, OwnBlocksKeepTheirContents) {
    MixedOptions options;
    options.operations = thread_operations(60000);
    BusyCompactor compactor;
    for (unsigned round = 0; round < 2; round++)
        run_threads(workers, [&](unsigned i) { run_mixed(options, round * workers + i + 1); });
    compactor.stop();
    EXPECT_GT(compactor.moved(), 0u);
}

TEST_F(Threads, BlocksFreedByOtherThreadsKeepTheirContentsUntilThen) {
    Exchange exchange(4000);
    MixedOptions options;
    options.exchange = &exchange;
    options.operations = thread_operations(60000);
    for (unsigned round = 0; round < 3; round++) {
        BusyCompactor compactor(nullptr, round);
        run_threads(workers, [&](unsigned i) { run_mixed(options, 100 * round + i); });
        compactor.stop();
        expect_whole(nullptr);
    }
    exchange.clear();
}

TEST_F(Threads, EightThreadsOnSmallBlocks) {
    Exchange exchange(20000);
    MixedOptions options;
    options.exchange = &exchange;
    options.operations = thread_operations(30000);
    options.size_most = 64;
    options.size_rare = 256;
    BusyCompactor compactor;
    run_threads(8, [&](unsigned i) { run_mixed(options, i); });
    compactor.stop();
    exchange.clear();
}

// ---------------------------------------------------------------------------------------- shared blocks

// Every thread counts in a place of its own in blocks that all of them lock; a write that a move has lost
// is missing at the end.
TEST_F(Threads, NoWriteToALockedBlockIsLost) {
    constexpr size_t blocks = 512;
    constexpr size_t places = 64;
    std::vector<rmhandle_t> shared(blocks);
    std::vector<rmhandle_t> rest;
    for (rmhandle_t &handle : shared) {
        handle = rmcalloc(places, sizeof(uint64_t));
        rest.push_back(rmmalloc(700));
    }
    std::vector<std::vector<uint64_t>> counted(workers, std::vector<uint64_t>(blocks));
    size_t operations = thread_operations(400000);
    BusyCompactor compactor;
    std::thread churn([&] {
        Random random(7);
        for (size_t i = 0; i < operations / 4; i++) {
            size_t at = random.below(rest.size());
            rmfree(rest[at]);
            rest[at] = rmmalloc(random.below(3000));
        }
    });
    run_threads(workers, [&](unsigned thread) {
        Random random(thread);
        for (size_t i = 0; i < operations; i++) {
            size_t at = random.below(blocks);
            auto *memory = static_cast<uint64_t *>(rmlock(shared[at]));
            memory[thread * 16]++;
            rmunlock(shared[at]);
            counted[thread][at]++;
        }
    });
    churn.join();
    compactor.stop();
    EXPECT_GT(compactor.moved(), 0u);
    for (size_t at = 0; at < blocks; at++) {
        const auto *memory = static_cast<const uint64_t *>(rmlock(shared[at]));
        for (unsigned thread = 0; thread < workers; thread++)
            EXPECT_EQ(memory[thread * 16], counted[thread][at]);
        rmunlock(shared[at]);
        rmfree(shared[at]);
        rmfree(rest[at]);
    }
}

// One thread resizes what others lock: the first bytes never change.
TEST_F(Threads, ResizedBlocksKeepTheirFirstBytes) {
    constexpr size_t kept = 64;
    std::vector<rmhandle_t> shared(256);
    for (size_t i = 0; i < shared.size(); i++) {
        shared[i] = rmmalloc(kept);
        support::fill_pattern(rmlock(shared[i]), kept, i);
        rmunlock(shared[i]);
    }
    size_t operations = thread_operations(60000);
    std::atomic<bool> done{false};
    BusyCompactor compactor;
    run_threads(workers, [&](unsigned thread) {
        Random random(thread);
        for (size_t i = 0; thread == 0 ? i < operations : !done; i++) {
            size_t at = random.below(shared.size());
            if (thread == 0) {
                size_t size = kept + random.size(random.chance(20) ? 400000 : 2000);
                EXPECT_TRUE(rmrealloc(shared[at], size) == 0 || errno == EBUSY);
                continue;
            }
            EXPECT_GE(rmsize(shared[at]), kept);
            const void *memory = random.chance(500) ? rmlock(shared[at]) : rmtrylock(shared[at]);
            if (memory == nullptr)
                continue;
            EXPECT_TRUE(support::has_pattern(memory, 0, kept, at));
            rmunlock(shared[at]);
        }
        done = done || thread == 0;
    });
    compactor.stop();
    for (rmhandle_t handle : shared)
        rmfree(handle);
}

TEST_F(Threads, BlocksStayWhileTheyAreInAReadSection) {
    std::vector<Filled> shared;
    std::vector<Filled> rest;
    Random random(1);
    for (unsigned i = 0; i < 4000; i++) {
        shared.push_back(support::make_filled(nullptr, random, 512));
        rest.push_back(support::make_filled(nullptr, random, 1024));
    }
    size_t operations = thread_operations(8000);
    BusyCompactor compactor;
    run_threads(workers, [&](unsigned thread) {
        Random own(thread);
        for (size_t i = 0; i < operations && !HasFailure(); i++) {
            if (thread == 0) { /* keeps the compactor busy */
                size_t at = own.below(rest.size());
                support::free_filled(rest[at]);
                rest[at] = support::make_filled(nullptr, own, 1024);
                continue;
            }
            std::array<size_t, 16> at;
            std::array<const void *, 16> memory;
            rmread_begin();
            for (size_t k = 0; k < at.size(); k++) {
                at[k] = own.below(shared.size());
                memory[k] = rmderef(shared[at[k]].handle);
            }
            for (size_t k = 0; k < at.size(); k++) {
                EXPECT_TRUE(support::verify_at(shared[at[k]], memory[k]));
                EXPECT_EQ(rmderef(shared[at[k]].handle), memory[k]);
            }
            rmread_end();
        }
    });
    compactor.stop();
    for (const Filled &block : shared)
        support::free_filled(block);
    for (const Filled &block : rest)
        support::free_filled(block);
}

TEST_F(Threads, BlocksLockedForLongStayWhereTheyAre) {
    Exchange exchange(1000);
    MixedOptions options;
    options.exchange = &exchange;
    options.operations = thread_operations(30000);
    size_t rounds = thread_operations(400);
    BusyCompactor compactor;
    run_threads(workers, [&](unsigned thread) {
        if (thread >= 2) {
            run_mixed(options, thread);
            return;
        }
        Random random(thread);
        for (size_t i = 0; i < rounds; i++) {
            std::array<Filled, 32> blocks;
            std::array<const void *, 32> memory;
            for (size_t k = 0; k < blocks.size(); k++)
                blocks[k] = support::make_filled(nullptr, random, 4096);
            for (size_t k = 0; k < blocks.size(); k++)
                memory[k] = rmlock_long(blocks[k].handle);
            std::this_thread::sleep_for(std::chrono::microseconds(200));
            for (size_t k = 0; k < blocks.size(); k++) {
                EXPECT_TRUE(support::verify_at(blocks[k], memory[k]));
                EXPECT_EQ(rmlock(blocks[k].handle), memory[k]);
                rmunlock(blocks[k].handle);
                rmunlock(blocks[k].handle);
                rmfree(blocks[k].handle);
            }
        }
    });
    compactor.stop();
    exchange.clear();
}

// ---------------------------------------------------------------------------------------- purging

// Frees the block, makes it smaller, or takes its mark away: then it is not emptied any more.
void use_purgeable(Random &random, Filled *block) {
    if (random.chance(200)) {
        rmfree(block->handle);
        block->handle = nullptr;
    } else if (random.chance(200)) {
        size_t size = block->size / 2;
        if (rmrealloc(block->handle, size) == 0)
            block->size = size;
    } else if (rmpurgeable(block->handle, 0) == 0) {
        std::this_thread::yield();
        EXPECT_TRUE(support::verify_filled(*block));
        EXPECT_GE(rmpurgeable(block->handle, static_cast<int>(1 + random.below(3))), 0);
    }
}

TEST_F(Threads, PurgeableBlocksAreWholeOrEmpty) {
    rm_options options;
    rmoptions_init(&options);
    options.limit = 3 << 20;
    rmheap_t heap = rmheap_create(&options);
    ASSERT_NE(heap, nullptr);
    std::atomic<uint64_t> purged{0};
    size_t operations = thread_operations(6000);
    BusyCompactor compactor(heap);
    run_threads(workers, [&](unsigned thread) {
        Random random(thread);
        std::vector<Filled> blocks(3000);
        for (size_t i = 0; i < operations && !HasFailure(); i++) {
            Filled &block = blocks[random.below(blocks.size())];
            if (block.handle == nullptr) {
                block = support::make_filled(heap, random, random.chance(30) ? 300000 : 16000);
                int priority = static_cast<int>(random.below(4));
                EXPECT_TRUE(block.handle == nullptr || rmpurgeable(block.handle, priority) >= 0);
            } else if (const void *memory = rmlock(block.handle)) {
                EXPECT_TRUE(support::verify_at(block, memory));
                rmunlock(block.handle);
                use_purgeable(random, &block);
            } else if (rmrealloc(block.handle, block.size) == 0) {
                purged++;
                support::fill_pattern(rmlock(block.handle), block.size, block.seed);
                rmunlock(block.handle);
            } else {
                EXPECT_EQ(errno, ENOMEM);
            }
        }
        for (const Filled &block : blocks)
            rmfree(block.handle);
    });
    compactor.stop();
    EXPECT_GT(purged, 0u);
    expect_whole(heap);
    rmheap_destroy(heap);
}

// ---------------------------------------------------------------------------------------- lives of threads

TEST_F(Threads, ManyShortLivedThreadsLeaveNothingBehind) {
    Exchange exchange(3000);
    BusyCompactor compactor;
    std::array<uint64_t, 2> overhead;
    size_t count = thread_operations(2400);
    for (size_t done = 0; done < count; done += 8) {
        run_threads(8, [&](unsigned thread) {
            Random random(done + thread);
            Filled block;
            for (unsigned i = 0; i < 60; i++) {
                block = support::make_filled(nullptr, random, 600);
                if (i % 2 == 0 || !exchange.put(block))
                    support::free_filled(block);
                if (exchange.take(random, &block))
                    support::free_filled(block);
            }
            rmread_begin();
            rmread_end();
        });
        rm_stats stats;
        rmstats_brief(&stats);
        overhead[done > count / 2] = stats.overhead;
    }
    compactor.stop();
    /* a thread's descriptor is larger than what all of them may add */
    EXPECT_LT(overhead[1], overhead[0] + 4096);
    exchange.clear();
}

// ---------------------------------------------------------------------------------------- many heaps

TEST_F(Threads, HeapsComeAndGoWhileOthersAreInUse) {
    Exchange exchange(500);
    MixedOptions options;
    options.exchange = &exchange;
    options.operations = thread_operations(40000);
    size_t rounds = thread_operations(160);
    BusyCompactor compactor;
    run_threads(workers, [&](unsigned thread) {
        if (thread < 2) {
            run_mixed(options, thread);
            return;
        }
        Random random(thread);
        for (size_t i = 0; i < rounds && !HasFailure(); i++) {
            rmheap_t heap = rmheap_create(nullptr);
            ASSERT_NE(heap, nullptr);
            std::vector<Filled> blocks;
            for (unsigned k = 0; k < 200; k++) {
                blocks.push_back(
                    support::make_filled(heap, random, random.chance(10) ? 200000 : 2000));
                if (random.chance(300)) {
                    support::free_filled(blocks.back());
                    blocks.pop_back();
                }
            }
            if (random.chance(500))
                rmheap_compact_us(heap, random.chance(500) ? 0 : 100, nullptr);
            for (const Filled &block : blocks)
                support::verify_filled(block);
            expect_whole(heap);
            rmheap_destroy(heap);
            EXPECT_EQ(rmheap_of(blocks.back().handle), nullptr);
        }
    });
    compactor.stop();
    exchange.clear();
}

// Blocks of one heap wait in the rings of many threads when it ends.
TEST_F(Threads, AHeapEndsWithBlocksThatOthersHaveFreed) {
    Exchange exchange(100000);
    for (unsigned round = 0; round < thread_operations(80); round++) {
        rmheap_t heap = rmheap_create(nullptr);
        ASSERT_NE(heap, nullptr);
        std::vector<Filled> blocks;
        Random random(round);
        for (unsigned i = 0; i < 4 * 150; i++)
            blocks.push_back(support::make_filled(heap, random, 1000));
        std::atomic<unsigned> ready{0};
        std::atomic<bool> ended{false};
        std::thread end([&] {
            while (ready != workers)
                std::this_thread::yield();
            rmheap_destroy(heap);
            ended = true;
        });
        run_threads(workers, [&](unsigned thread) {
            for (unsigned i = 0; i < 100; i++)
                support::free_filled(blocks[thread * 150 + i]);
            ready++;
            while (!ended)
                std::this_thread::yield();
            MixedOptions options; /* the rings go on with other heaps' blocks */
            options.operations = 200;
            run_mixed(options, thread);
        });
        end.join();
        EXPECT_EQ(rmheap_of(blocks.back().handle), nullptr);
    }
    expect_whole(nullptr);
}

// ---------------------------------------------------------------------------------------- fixed heaps

TEST_F(Threads, AFixedHeapIsSharedByAll) {
    std::vector<char> buffer(6 << 20);
    rmheap_t heap = rmheap_create_in(buffer.data(), buffer.size(), nullptr);
    ASSERT_NE(heap, nullptr);
    Exchange exchange(1000);
    MixedOptions options;
    options.heap = heap;
    options.exchange = &exchange;
    options.operations = thread_operations(40000);
    options.blocks_most = 3000;
    options.may_fail = true;
    for (unsigned round = 0; round < 2; round++) {
        BusyCompactor compactor(heap, round);
        run_threads(workers, [&](unsigned i) { run_mixed(options, 10 * round + i); });
        compactor.stop();
        expect_whole(heap);
    }
    exchange.clear();
    EXPECT_EQ(rmheap_compact(heap, 0), RM_COMPACT_DONE);
    expect_whole(heap);
    rmheap_destroy(heap);
}

TEST_F(Threads, FixedHeapsComeAndGoBesideGrowingOnes) {
    MixedOptions options;
    options.operations = thread_operations(20000);
    size_t rounds = thread_operations(400);
    BusyCompactor compactor;
    run_threads(workers, [&](unsigned thread) {
        if (thread < 2) {
            run_mixed(options, thread);
            return;
        }
        std::vector<char> buffer(64 << 10);
        for (size_t i = 0; i < rounds && !HasFailure(); i++) {
            rmheap_t heap = rmheap_create_in(buffer.data(), buffer.size(), nullptr);
            ASSERT_NE(heap, nullptr);
            MixedOptions inside;
            inside.heap = heap;
            inside.operations = 100;
            inside.size_most = 500;
            inside.size_rare = 5000;
            inside.may_fail = true;
            run_mixed(inside, i);
            expect_whole(heap);
            rmheap_destroy(heap);
        }
    });
}

// What others make sparse again all the time keeps nobody in a call without a limit.
// At a heap's limit an allocation compacts; and it waits for the compaction of another thread, which may be what makes
// room for it.
TEST_F(Threads, AllocationsAtTheLimitWaitForCompactionsByOthers) {
    enum { BLOCKS = 100, SIZE_MOST = 60000 };
    rm_options options;
    rmoptions_init(&options);
    options.limit = size_t{20} << 20; // what lives is some 12 MiB
    rmheap_t heap = rmheap_create(&options);
    std::atomic<unsigned> refused{0};
    run_threads(workers, [&](unsigned worker) {
        Random random(worker + 1);
        std::vector<rmhandle_t> handles(BLOCKS);
        size_t operations = thread_operations(20000);
        for (size_t i = 0; i < operations; i++) {
            rmhandle_t &handle = handles[random.below(BLOCKS)];
            rmfree(handle);
            handle = rmheap_malloc(heap, 1 + random.below(SIZE_MOST));
            refused += handle == nullptr;
        }
        for (rmhandle_t handle : handles)
            rmfree(handle);
    });
    EXPECT_EQ(refused, 0u);
    expect_whole(heap);
    rmheap_destroy(heap);
}

TEST_F(Threads, ACompactionWithoutLimitEndsBesideBusyThreads) {
    std::atomic<bool> stop{false};
    std::atomic<unsigned> ready{0};
    auto churn = [&](uint64_t seed) {
        Random random(seed);
        std::vector<rmhandle_t> own(10000);
        for (size_t i = 0; !stop; i++) {
            rmhandle_t &handle = own[random.below(own.size())];
            if (handle != nullptr)
                rmfree(handle);
            handle = rmmalloc(1 + random.below(3000));
            ready += i == own.size();
        }
        for (rmhandle_t handle : own)
            if (handle != nullptr)
                rmfree(handle);
    };
    std::thread one(churn, 1), two(churn, 2);
    while (ready != 2)
        std::this_thread::yield();
    for (int i = 0; i < 3; i++)
        rmcompact(0);
    stop = true;
    one.join();
    two.join();
}

} // namespace
