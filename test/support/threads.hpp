// What programs of many threads share: blocks whose contents are known, a compactor that never rests.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <jeff/jeff.h>

#include "support/model.hpp"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define JF_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define JF_TEST_SANITIZED 1
#endif
#endif
#if !defined(JF_TEST_SANITIZED)
#define JF_TEST_SANITIZED 0
#endif

namespace support {

// Operations of each thread: `usual`, a quarter of it under a sanitizer, times JEFF_TEST_THREADS_SCALE.
size_t thread_operations(size_t usual);

// A block filled with the pattern of its seed.
struct Filled {
    rmhandle_t handle = nullptr;
    size_t size = 0;
    uint64_t seed = 0;
};

// NULL handle when there is no memory, with errno ENOMEM (else a failure).
Filled make_filled(rmheap_t heap, Random &random, size_t most);
// Whether the contents are right; a failure that says what and where when they are not.
bool verify_at(const Filled &block, const void *memory);
bool verify_filled(const Filled &block);
void free_filled(const Filled &block);

// Compacts `heap` over and over with random budgets (now and then with none) in a thread of its own.
class BusyCompactor {
  public:
    explicit BusyCompactor(rmheap_t heap = nullptr, uint64_t seed = 1);
    ~BusyCompactor();
    BusyCompactor(const BusyCompactor &) = delete;
    BusyCompactor &operator=(const BusyCompactor &) = delete;
    void stop();
    uint64_t moved() const {
        return moved_;
    }

  private:
    void run(uint64_t seed);

    rmheap_t heap_;
    std::atomic<bool> stop_{false};
    std::atomic<uint64_t> moved_{0};
    std::thread thread_;
};

// Blocks that threads hand to each other.
class Exchange {
  public:
    explicit Exchange(size_t most) : most_(most) {}
    // False when it is full.
    bool put(const Filled &block);
    bool take(Random &random, Filled *ret_block);
    // Frees all that is left.
    void clear();

  private:
    size_t most_;
    std::mutex mutex_;
    std::vector<Filled> blocks_;
};

// Runs `work(number)` in `count` threads and waits for them.
void run_threads(unsigned count, const std::function<void(unsigned)> &work);

// rmcheck finds nothing. To be called while no other thread is in a call on the heap.
void expect_whole(rmheap_t heap);

// A worker's program: allocates, fills, verifies, resizes, hands over and frees for `operations` operations.
struct MixedOptions {
    rmheap_t heap = nullptr;
    Exchange *exchange = nullptr; // none: own blocks only
    size_t operations = 10000;
    size_t size_most = 1024;
    size_t size_rare = 200000; // 1 in 100
    size_t blocks_most = 2000;
    bool may_fail = false; // memory may run out
};
void run_mixed(const MixedOptions &options, uint64_t seed);

} // namespace support
