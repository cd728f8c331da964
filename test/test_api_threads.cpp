// The public calls while other things go on: other threads, threads that end, read sections that stay open, fork, signal
// handlers.
#include "support/api.hpp"

#include <atomic>
#include <csignal>
#include <cstring>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using support::Api;
using support::FIXED;
using support::GROWING;
using support::options_with_check;

namespace {

TEST_P(Api, EveryThreadFreesAndLocksWhatOthersMade) {
    start(options_with_check(0));
    std::vector<rmhandle_t> blocks;
    std::thread([&] {
        for (int i = 0; i < 1000; i++) {
            blocks.push_back(rmheap_malloc(heap_, 48));
            rmread_begin();
            write(blocks.back(), static_cast<char>(i), 48);
            rmread_end();
        }
    }).join();
    std::thread([&] {
        for (int i = 0; i < 1000; i++)
            EXPECT_EQ(std::string(48, static_cast<char>(i)),
                      read(blocks[static_cast<size_t>(i)], 48));
        for (rmhandle_t block : blocks)
            rmfree(block);
    }).join();
    rmheap_compact(heap_, 0);
    rm_stats stats;
    rmheap_stats(heap_, &stats);
    EXPECT_EQ(0u, stats.blocks);
    EXPECT_EQ(0, rmheap_check(heap_, nullptr));
}

TEST_P(Api, ThreadThatEndsInASectionHindersNobody) {
    start(options_with_check(0));
    std::vector<rmhandle_t> blocks;
    for (int i = 0; i < 100; i++)
        blocks.push_back(rmheap_malloc(heap_, 2000));
    for (size_t i = 0; i < 100; i += 2)
        rmfree(blocks[i]);
    std::thread([&] {
        rmread_begin();
        EXPECT_NE(nullptr, rmderef(blocks[99]));
    }).join();
    EXPECT_EQ(RM_COMPACT_DONE, rmheap_compact(heap_, 0));
}

TEST_P(Api, OpenSectionKeepsBlocksWhereTheyAre) {
    start(options_with_check(0));
    std::vector<rmhandle_t> blocks;
    for (int i = 0; i < 100; i++)
        blocks.push_back(rmheap_malloc(heap_, 2000));
    for (size_t i = 0; i < 100; i += 2)
        rmfree(blocks[i]);
    std::atomic<int> step{0};
    std::thread reader([&] {
        rmread_begin();
        rmread_begin();
        rmread_end();
        std::vector<void *> seen;
        for (size_t i = 1; i < 100; i += 2)
            seen.push_back(rmderef(blocks[i]));
        step = 1;
        while (step != 2)
            std::this_thread::yield();
        for (size_t i = 1; i < 100; i += 2)
            EXPECT_EQ(seen[i / 2], rmderef(blocks[i]));
        rmread_end();
    });
    while (step != 1)
        std::this_thread::yield();
    rm_compact_result result;
    rmheap_compact_us(heap_, 0, &result);
    EXPECT_EQ(0u, result.blocks_moved);
    step = 2;
    reader.join();
    EXPECT_EQ(RM_COMPACT_DONE, rmheap_compact(heap_, 0));
}

// A move that was given up leaves nothing behind, even where nobody looks at the block meanwhile.
TEST_P(Api, BlocksThatAnOpenSectionKeptMoveAfterIt) {
    start(options_with_check(0));
    std::vector<rmhandle_t> blocks;
    for (int i = 0; i < 100; i++)
        blocks.push_back(rmheap_malloc(heap_, 2000));
    for (size_t i = 0; i < 100; i += 2)
        rmfree(blocks[i]);
    rm_compact_result result;
    rmread_begin();
    EXPECT_EQ(RM_COMPACT_LOCKED, rmheap_compact_us(heap_, 0, &result));
    EXPECT_EQ(0u, result.blocks_moved);
    rmread_end();
    EXPECT_EQ(RM_COMPACT_DONE, rmheap_compact_us(heap_, 0, &result));
    EXPECT_LT(40u, result.blocks_moved);
}

TEST_P(Api, ChildGoesOnWithTheHeapWhileThreadsOfTheParentAreAtWork) {
    start(options_with_check(0));
    rmhandle_t block = rmheap_malloc(heap_, 1000);
    write(block, 'p', 1000);
    std::atomic<bool> stop{false};
    auto work = [&] {
        while (!stop) {
            rmhandle_t own = rmheap_malloc(heap_, 200);
            if (own == nullptr)
                continue;
            rmread_begin();
            rmderef(own);
            rmread_end();
            rmfree(own);
        }
    };
    std::thread first(work), second(work);
    std::thread compactor([&] {
        while (!stop)
            rmheap_compact_us(heap_, 500, nullptr);
    });
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            bool good = read(block, 1000) == std::string(1000, 'p');
            for (int j = 0; j < 300 && good; j++) {
                rmhandle_t own = rmheap_malloc(heap_, 100 + static_cast<size_t>(j));
                good = own != nullptr;
                if (j % 2 == 0)
                    rmfree(own);
            }
            good = good && rmheap_compact(heap_, 0) == RM_COMPACT_DONE;
            good = good && rmheap_check(heap_, nullptr) == 0;
            _exit(good ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(child, waitpid(child, &status, 0));
        EXPECT_TRUE(WIFEXITED(status)) << i;
        EXPECT_EQ(0, WEXITSTATUS(status)) << i;
    }
    stop = true;
    first.join();
    second.join();
    compactor.join();
}

rmhandle_t signal_block;
std::atomic<int> signal_count{0};

void lock_in_handler(int) {
    void *address = rmlock(signal_block);
    rmread_begin();
    if (address != nullptr && rmderef(signal_block) == address)
        signal_count++;
    rmread_end();
    rmunlock(signal_block);
}

TEST_P(Api, HandlerMayLockAndReadWhateverItInterrupts) {
    start(options_with_check(0));
    signal_block = rmheap_malloc(heap_, 64);
    signal_count = 0;
    struct sigaction action = {};
    struct sigaction before;
    action.sa_handler = lock_in_handler;
    ASSERT_EQ(0, sigaction(SIGUSR1, &action, &before));
    std::atomic<bool> ready{false}, stop{false};
    std::thread worker([&] {
        ready = true;
        while (!stop) {
            rmread_begin();
            rmderef(signal_block);
            rmread_end();
            rmlock(signal_block);
            rmunlock(signal_block);
            rmheap_compact_us(heap_, 100, nullptr);
        }
    });
    while (!ready)
        std::this_thread::yield();
    for (int i = 0; i < 200; i++) {
        int seen = signal_count;
        pthread_kill(worker.native_handle(), SIGUSR1);
        while (signal_count == seen)
            std::this_thread::yield();
    }
    stop = true;
    worker.join();
    sigaction(SIGUSR1, &before, nullptr);
    EXPECT_EQ(200, signal_count);
    rmfree(signal_block);
    EXPECT_EQ(0, rmheap_check(heap_, nullptr));
}

INSTANTIATE_TEST_SUITE_P(In, Api, testing::Values(GROWING, FIXED), support::api_profile_name);

} // namespace
