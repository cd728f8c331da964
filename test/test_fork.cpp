// fork in a program whose other threads allocate, resize, compact, create and end heaps just then: the
// child goes on with everything. JEFF_TEST_THREADS_SCALE multiplies the number of forks.
#include "support/child.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>

extern "C" {
#include "heap/heap.h"
}

using support::BusyCompactor;
using support::Exchange;
using support::expect_whole_in_child;
using support::Filled;
using support::MixedOptions;
using support::Random;
using support::run_child;
using support::run_mixed;

namespace {

constexpr size_t shared_first = 64; /* bytes of a shared block that never change */

// Threads that are busy in many ways until they are stopped.
class Busy {
  public:
    explicit Busy(size_t shared_count) : shared_(shared_count) {
        for (size_t i = 0; i < shared_.size(); i++) {
            shared_[i] = rmmalloc(shared_first);
            support::fill_pattern(rmlock(shared_[i]), shared_first, i);
            rmunlock(shared_[i]);
        }
        for (unsigned i = 0; i < 2; i++)
            threads_.emplace_back([this, i] { mix(i); });
        threads_.emplace_back([this] { resize(); });
        threads_.emplace_back([this] { make_heaps(); });
    }

    ~Busy() {
        stop_ = true;
        for (std::thread &thread : threads_)
            thread.join();
        exchange_.clear();
        for (rmhandle_t handle : shared_)
            rmfree(handle);
    }

    // In the child: the blocks that another thread was resizing can be locked and used.
    void use_shared_in_child() const {
        for (size_t i = 0; i < shared_.size(); i++) {
            const void *memory = rmlock(shared_[i]);
            CHILD_EXPECT(memory != nullptr);
            CHILD_EXPECT(support::has_pattern(memory, 0, shared_first, i));
            rmunlock(shared_[i]);
            CHILD_EXPECT(rmsize(shared_[i]) >= shared_first);
            CHILD_EXPECT(rmrealloc(shared_[i], shared_first + i) == 0);
        }
    }

  private:
    void mix(unsigned number) {
        MixedOptions options;
        options.exchange = &exchange_;
        options.operations = 500;
        for (uint64_t seed = number; !stop_; seed += 2)
            run_mixed(options, seed);
    }

    void resize() {
        Random random(5);
        while (!stop_) {
            size_t more = random.size(random.chance(100) ? 400000 : 3000);
            EXPECT_EQ(rmrealloc(shared_[random.below(shared_.size())], shared_first + more), 0);
        }
    }

    void make_heaps() {
        Random random(9);
        while (!stop_) {
            rmheap_t heap = rmheap_create(nullptr);
            EXPECT_NE(heap, nullptr);
            for (unsigned i = 0; i < 20; i++)
                support::make_filled(heap, random, 3000);
            rmheap_compact(heap, 0);
            rmheap_destroy(heap);
        }
    }

    std::vector<rmhandle_t> shared_;
    Exchange exchange_{2000};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> threads_;
};

class Fork : public testing::Test {
  protected:
    void make_own(rmheap_t heap, unsigned count) {
        for (unsigned i = 0; i < count; i++)
            own_.push_back(support::make_filled(heap, random_, i % 50 == 0 ? 200000 : 1000));
        for (unsigned i = 0; i < count / 2; i++) {
            support::free_filled(own_[i]);
            own_[i] = own_.back();
            own_.pop_back();
        }
    }

    // What a child does with a heap, its own blocks there included.
    void use_in_child(rmheap_t heap) {
        for (const Filled &block : own_)
            CHILD_EXPECT(support::verify_filled(block));
        std::vector<Filled> blocks;
        for (unsigned i = 0; i < 300; i++) {
            blocks.push_back(support::make_filled(heap, random_, 2000));
            CHILD_EXPECT(blocks.back().handle != nullptr);
        }
        for (unsigned i = 0; i < 300; i += 2)
            support::free_filled(blocks[i]);
        rmread_begin();
        for (unsigned i = 1; i < 300; i += 2)
            CHILD_EXPECT(support::verify_at(blocks[i], rmderef(blocks[i].handle)));
        rmread_end();
        rm_compact_result result;
        rmheap_compact_us(heap, 0, &result);
        CHILD_EXPECT(result.status != RM_COMPACT_BUDGET);
        expect_whole_in_child(heap);
        for (unsigned i = 1; i < 300; i += 2)
            support::free_filled(blocks[i]);
        for (const Filled &block : own_)
            CHILD_EXPECT(support::verify_filled(block));
    }

    void TearDown() override {
        for (const Filled &block : own_)
            support::free_filled(block);
        rmcompact(0);
        support::expect_whole(nullptr);
        rmdestroy();
    }

    Random random_{11};
    std::vector<Filled> own_;
};

TEST_F(Fork, TheChildUsesWhatItInheritsFromASingleThread) {
    make_own(nullptr, 2000);
    run_child([&] {
        use_in_child(nullptr);
        for (const Filled &block : own_)
            support::free_filled(block);
        CHILD_EXPECT(rmcompact(0) == RM_COMPACT_DONE);
        expect_whole_in_child(nullptr);
        rm_stats stats;
        rmstats(&stats);
        CHILD_EXPECT(stats.blocks == 0);
    });
}

TEST_F(Fork, TheChildOfAProgramThatNeverUsedTheLibraryStartsIt) {
    run_child([&] { use_in_child(nullptr); });
}

TEST_F(Fork, TheChildGoesOnWhileOthersWereBusy) {
    make_own(nullptr, 1000);
    size_t forks = support::thread_operations(80);
    Busy busy(200);
    BusyCompactor compactor;
    for (size_t i = 0; i < forks && !HasFailure(); i++) {
        std::this_thread::sleep_for(std::chrono::microseconds(random_.below(3000)));
        run_child([&] {
            busy.use_shared_in_child();
            use_in_child(nullptr);
            rmheap_t heap = rmheap_create(nullptr);
            CHILD_EXPECT(heap != nullptr);
            std::vector<Filled> own;
            own.swap(own_);
            use_in_child(heap);
            rmheap_destroy(heap);
            own.swap(own_);
        });
    }
}

TEST_F(Fork, TheChildForksAgain) {
    make_own(nullptr, 1000);
    size_t forks = support::thread_operations(20);
    Busy busy(50);
    BusyCompactor compactor;
    for (size_t i = 0; i < forks && !HasFailure(); i++) {
        run_child([&] {
            use_in_child(nullptr);
            run_child([&] {
                use_in_child(nullptr);
                run_child([&] { use_in_child(nullptr); });
            });
            busy.use_shared_in_child();
            use_in_child(nullptr);
        });
    }
}

TEST_F(Fork, TheChildEndsTheHeapsItInherited) {
    size_t forks = support::thread_operations(20);
    rmheap_t heap = rmheap_create(nullptr);
    MixedOptions options;
    options.heap = heap;
    options.operations = 1000;
    std::atomic<bool> stop{false};
    std::thread mixing([&] {
        for (uint64_t seed = 1; !stop; seed++)
            run_mixed(options, seed);
    });
    BusyCompactor compactor(heap);
    for (size_t i = 0; i < forks && !HasFailure(); i++) {
        std::this_thread::sleep_for(std::chrono::microseconds(random_.below(3000)));
        run_child([&] {
            rmheap_destroy(heap);
            use_in_child(nullptr);
            rmdestroy();
            use_in_child(nullptr);
        });
    }
    stop = true;
    mixing.join();
    compactor.stop();
    rmheap_destroy(heap);
}

// ThreadSanitizer allows no new threads in the child of a program with many.
TEST_F(Fork, TheChildStartsThreads) {
    if (JF_TEST_SANITIZED)
        GTEST_SKIP() << "the thread sanitizer allows no threads in such a child";
    make_own(nullptr, 500);
    size_t forks = support::thread_operations(20);
    Busy busy(50);
    BusyCompactor compactor;
    for (size_t i = 0; i < forks && !HasFailure(); i++) {
        std::this_thread::sleep_for(std::chrono::microseconds(random_.below(3000)));
        run_child([&] {
            BusyCompactor in_child;
            MixedOptions options;
            options.operations = 2000;
            support::run_threads(3, [&](unsigned thread) { run_mixed(options, thread); });
            in_child.stop();
            use_in_child(nullptr);
        });
    }
}

TEST_F(Fork, TheChildUsesAFixedHeapThatOthersWereBusyIn) {
    std::vector<char> buffer(4 << 20);
    rmheap_t heap = rmheap_create_in(buffer.data(), buffer.size(), nullptr);
    ASSERT_NE(heap, nullptr);
    make_own(heap, 300);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 3; i++) {
        threads.emplace_back([&, i] {
            MixedOptions options;
            options.heap = heap;
            options.operations = 500;
            options.blocks_most = 500;
            options.may_fail = true;
            for (uint64_t seed = i; !stop; seed += 3)
                run_mixed(options, seed);
        });
    }
    BusyCompactor compactor(heap);
    size_t forks = support::thread_operations(60);
    for (size_t i = 0; i < forks && !HasFailure(); i++) {
        std::this_thread::sleep_for(std::chrono::microseconds(random_.below(2000)));
        run_child([&] { use_in_child(heap); });
    }
    compactor.stop();
    stop = true;
    for (std::thread &thread : threads)
        thread.join();
    for (const Filled &block : own_)
        support::free_filled(block);
    own_.clear();
    support::expect_whole(heap);
    rmheap_destroy(heap);
}

// A slide gives way to threads that wait for the heap's mutex. In the child there are none, however many
// waited at the moment of the fork.
TEST_F(Fork, TheChildsSlideGivesWayToNobody) {
    std::vector<char> buffer(64 << 10);
    rmheap_t heap = rmheap_create_in(buffer.data(), buffer.size(), nullptr);
    ASSERT_NE(heap, nullptr);
    auto *inner = reinterpret_cast<struct jf_heap *>(heap);
    __atomic_store_n(&inner->waiting, 3, __ATOMIC_RELAXED);
    run_child([&] {
        CHILD_EXPECT(__atomic_load_n(&inner->waiting, __ATOMIC_RELAXED) == 0);
        CHILD_EXPECT(rmheap_compact(heap, 0) == RM_COMPACT_DONE);
    });
    EXPECT_EQ(inner->waiting, 3u);
    __atomic_store_n(&inner->waiting, 0, __ATOMIC_RELAXED);
    rmheap_destroy(heap);
}

// What threads had freed that the child does not have is accounted for in it at once: nobody else would look there
// before the next compaction.
TEST_F(Fork, NothingWaitsWithThreadsThatTheChildHasNot) {
    make_own(nullptr, 1); // and nothing freed on this thread
    enum { WAITING = JF_RING_SIZE / 2 };
    std::atomic<bool> freed{false}, stop{false};
    std::thread other([&] {
        for (int i = 0; i < WAITING; i++)
            rmfree(rmmalloc(100));
        freed = true;
        while (!stop)
            std::this_thread::yield();
    });
    while (!freed)
        std::this_thread::yield();
    auto waiting = [&] {
        const auto *heap = reinterpret_cast<const jf_heap *>(rmheap_of(own_[0].handle));
        uint32_t count = 0;
        for (const jf_thread *thread = heap->u.grow.window->threads; thread != nullptr;
             thread = thread->next)
            count += thread->ring_count;
        return count;
    };
    EXPECT_NE(waiting(), 0u);
    run_child([&] { CHILD_EXPECT(waiting() == 0); });
    stop = true;
    other.join();
}

// What the child inherits locked stays where it is, and it can be unlocked there.
TEST_F(Fork, LocksAreInherited) {
    make_own(nullptr, 400);
    std::vector<const void *> memory;
    for (const Filled &block : own_)
        memory.push_back(rmlock(block.handle));
    run_child([&] {
        rmcompact(0);
        for (size_t i = 0; i < own_.size(); i++) {
            CHILD_EXPECT(rmlock(own_[i].handle) == memory[i]);
            rmunlock(own_[i].handle);
            rmunlock(own_[i].handle);
        }
        use_in_child(nullptr);
    });
    for (const Filled &block : own_)
        rmunlock(block.handle);
}

} // namespace
