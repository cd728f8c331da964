// The compactor's thread is suspended in the middle of a move: nobody waits for it. A signal handler on
// that very thread may lock too.
#include "support/threads.hpp"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstring>

extern "C" {
#include "api.h"
}

using support::Filled;
using support::Random;

namespace {

constexpr size_t block_size = 100 << 10; /* a copy takes long enough to be hit by a signal */
constexpr unsigned blocks_per_round = 24;
constexpr unsigned rounds_most = 400;
constexpr unsigned signals_most = 40;

// What the handler shares with the test; semaphores and atomics are all that it touches.
struct Suspension {
    sem_t reached;
    sem_t go_on;
    sem_t end; // the compactor's thread waits for that, so that it can be sent signals until then
    std::atomic<void (*)()> work{nullptr};
};
Suspension suspension;

void on_signal(int) {
    int saved = errno;
    void (*work)() = suspension.work;
    if (work != nullptr)
        work();
    sem_post(&suspension.reached);
    while (work == nullptr && sem_wait(&suspension.go_on) != 0)
        continue;
    errno = saved;
}

enum jf_entry_state state_of(rmhandle_t handle) {
    jf_home home;
    if (!jf_api_find(handle, &home))
        return JF_ENTRY_FREE;
    return jf_entry_state(jf_word_load(jf_space_entry(home.space, home.index)));
}

// A heap of which every second block has been freed, and a thread that compacts it.
class Suspended : public testing::Test {
  protected:
    void SetUp() override {
        sem_init(&suspension.reached, 0, 0);
        sem_init(&suspension.go_on, 0, 0);
        sem_init(&suspension.end, 0, 0);
        suspension.work = nullptr;
        struct sigaction action = {};
        action.sa_handler = on_signal;
        action.sa_flags = SA_RESTART;
        sigaction(SIGUSR1, &action, nullptr);
    }

    void TearDown() override {
        for (const Filled &block : blocks_)
            support::free_filled(block);
        rmcompact(0);
        support::expect_whole(nullptr);
        rmdestroy();
    }

    void make_sparse_heap() {
        Random random(round_++);
        std::vector<Filled> dead;
        for (unsigned i = 0; i < blocks_per_round; i++) {
            for (unsigned alive = 0; alive < 2; alive++) {
                Filled block;
                block.size = block_size;
                block.seed = random.next();
                block.handle = rmmalloc(block.size);
                ASSERT_NE(block.handle, nullptr);
                support::fill_pattern(rmlock(block.handle), block.size, block.seed);
                rmunlock(block.handle);
                (alive != 0 ? blocks_ : dead).push_back(block);
            }
        }
        for (const Filled &block : dead)
            rmfree(block.handle);
    }

    void free_all() {
        for (const Filled &block : blocks_)
            support::free_filled(block);
        blocks_.clear();
    }

    void start_compactor() {
        done_ = false;
        compactor_ = std::thread([this] {
            rmcompact(0);
            done_ = true;
            while (sem_wait(&suspension.end) != 0)
                continue;
        });
    }

    void join_compactor() {
        sem_post(&suspension.end);
        compactor_.join();
    }

    static bool is_taken(jf_mutex *mutex) {
        if (!jf_os_mutex_trylock(mutex))
            return true;
        jf_os_mutex_unlock(mutex);
        return false;
    }

    // Locking takes no mutex; other calls may have to wait for the window's if the compactor has it, and threads that
    // end for that of the read sections.
    static bool has_mutex() {
        return is_taken(&jf_api_window()->mutex) || is_taken(&jf_api.readers.mutex);
    }

    // A block of the suspended compactor's that is MOVING.
    Filled *find_moving() {
        if (!any_moment_ && has_mutex())
            return nullptr;
        for (Filled &block : blocks_)
            if (state_of(block.handle) == JF_ENTRY_MOVING)
                return &block;
        return nullptr;
    }

    // Suspends the compactor again and again until it is caught in a move. The compactor is suspended when
    // the block is not NULL, and has ended when it is.
    Filled *suspend_in_a_move() {
        for (unsigned i = 0; i < signals_most && !done_; i++) {
            std::this_thread::sleep_for(std::chrono::microseconds(10 * (i % 16)));
            if (!suspend())
                break;
            if (Filled *block = find_moving())
                return block;
            resume();
        }
        join_compactor();
        return nullptr;
    }

    bool suspend() {
        if (done_)
            return false;
        pthread_kill(compactor_.native_handle(), SIGUSR1);
        while (sem_wait(&suspension.reached) != 0)
            continue;
        return true;
    }

    void resume() {
        sem_post(&suspension.go_on);
    }

    // Heap after heap until a compactor is suspended in a move.
    Filled *catch_a_move(bool any_moment = false) {
        any_moment_ = any_moment;
        for (unsigned i = 0; i < rounds_most; i++) {
            free_all();
            make_sparse_heap();
            start_compactor();
            if (Filled *block = suspend_in_a_move())
                return block;
        }
        ADD_FAILURE() << "no move was caught";
        return nullptr;
    }

    void finish() {
        resume();
        join_compactor();
        for (const Filled &block : blocks_)
            support::verify_filled(block);
        support::expect_whole(nullptr);
    }

    std::vector<Filled> blocks_;
    std::thread compactor_;
    std::atomic<bool> done_{false};
    unsigned round_ = 0;
    bool any_moment_ = false;
};

// ---------------------------------------------------------------------------------------- other threads

TEST_F(Suspended, ALockerGoesOnAtTheOldAddressAndItsWritesStay) {
    for (unsigned i = 0; i < 5; i++) {
        Filled *block = catch_a_move(true);
        ASSERT_NE(block, nullptr);
        const void *weak = rmweaklock(block->handle);
        void *memory = rmlock(block->handle);
        EXPECT_EQ(memory, weak);
        EXPECT_EQ(state_of(block->handle), JF_ENTRY_LIVE) << "the move is given up";
        EXPECT_TRUE(support::verify_at(*block, memory));
        block->seed++;
        support::fill_pattern(memory, block->size, block->seed);
        resume();
        join_compactor();
        EXPECT_EQ(rmlock(block->handle), memory) << "a locked block stays";
        EXPECT_TRUE(support::verify_at(*block, memory));
        rmunlock(block->handle);
        rmunlock(block->handle);
        support::expect_whole(nullptr);
    }
}

TEST_F(Suspended, ALockHeldAndGivenBackDuringAMoveKeepsTheWrites) {
    for (unsigned i = 0; i < 5; i++) {
        Filled *block = catch_a_move(true);
        ASSERT_NE(block, nullptr);
        block->seed++;
        support::fill_pattern(rmlock(block->handle), block->size, block->seed);
        rmunlock(block->handle);
        finish();
    }
}

TEST_F(Suspended, TrylockSucceeds) {
    Filled *block = catch_a_move(true);
    ASSERT_NE(block, nullptr);
    void *memory = rmtrylock(block->handle);
    ASSERT_NE(memory, nullptr);
    block->seed++;
    support::fill_pattern(memory, block->size, block->seed);
    rmunlock(block->handle);
    finish();
}

TEST_F(Suspended, ABlockCanBeFreedAndItsEntryUsedAgain) {
    for (unsigned i = 0; i < 5; i++) {
        Filled *block = catch_a_move();
        ASSERT_NE(block, nullptr);
        rmhandle_t stale = block->handle;
        rmfree(block->handle);
        *block = blocks_.back();
        blocks_.pop_back();
        Random random(i);
        for (unsigned k = 0; k < 1000; k++)
            blocks_.push_back(support::make_filled(nullptr, random, 500));
        EXPECT_EQ(rmheap_of(stale), nullptr);
        finish();
    }
}

TEST_F(Suspended, AReadSectionSeesTheBlockAndItStays) {
    for (unsigned i = 0; i < 5; i++) {
        Filled *block = catch_a_move(true);
        ASSERT_NE(block, nullptr);
        rmread_begin();
        const void *memory = rmderef(block->handle);
        EXPECT_TRUE(support::verify_at(*block, memory));
        resume();
        join_compactor();
        EXPECT_EQ(rmderef(block->handle), memory);
        EXPECT_TRUE(support::verify_at(*block, memory));
        rmread_end();
        support::expect_whole(nullptr);
    }
}

TEST_F(Suspended, ABlockThatIsMovingCanBeResized) {
    for (unsigned i = 0; i < 5; i++) {
        Filled *block = catch_a_move();
        ASSERT_NE(block, nullptr);
        EXPECT_EQ(rmsize(block->handle), block->size);
        EXPECT_EQ(rmrealloc(block->handle, block->size / 2), 0);
        block->size /= 2;
        EXPECT_EQ(rmsize(block->handle), block->size);
        finish();
    }
}

TEST_F(Suspended, OthersAllocateAndFreeMeanwhile) {
    ASSERT_NE(catch_a_move(), nullptr);
    support::MixedOptions options;
    options.operations = support::thread_operations(4000);
    support::run_threads(3, [&](unsigned thread) { support::run_mixed(options, thread); });
    rm_compact_result result;
    EXPECT_EQ(rmcompact_us(0, &result), RM_COMPACT_BUDGET) << "one compaction of a heap at a time";
    EXPECT_EQ(result.blocks_moved, 0u);
    finish();
}

// ---------------------------------------------------------------------------------------- its own thread

Filled *handled_block;
std::atomic<unsigned> handled;
std::atomic<bool> handled_wrong;

// Runs in the signal handler: every block that is MOVING there is the handler's own thread's.
void lock_in_handler() {
    Filled &block = *handled_block;
    void *memory = rmlock(block.handle);
    bool right = memory != nullptr && state_of(block.handle) == JF_ENTRY_LIVE &&
                 support::has_pattern(memory, 0, block.size, block.seed);
    if (right) {
        block.seed++;
        support::fill_pattern(memory, block.size, block.seed);
        rmunlock(block.handle);
        handled++;
    }
    void *again = rmtrylock(block.handle);
    if (!right || again != memory)
        handled_wrong = true;
    if (again != nullptr)
        rmunlock(block.handle);
}

// Picks the block that is being moved just now, if there is one.
std::vector<Filled> *all_blocks;
std::atomic<unsigned> in_a_move;
void lock_what_is_moving() {
    for (Filled &block : *all_blocks) {
        if (state_of(block.handle) != JF_ENTRY_MOVING)
            continue;
        in_a_move++;
        handled_block = &block;
        lock_in_handler();
    }
}

TEST_F(Suspended, AHandlerOnTheCompactorsThreadLocksWhatIsBeingMoved) {
    handled = in_a_move = 0;
    handled_wrong = false;
    all_blocks = &blocks_;
    suspension.work = lock_what_is_moving;
    for (unsigned i = 0; i < rounds_most && in_a_move < 5; i++) {
        free_all();
        make_sparse_heap();
        start_compactor();
        for (unsigned k = 0; k < signals_most && suspend(); k++)
            std::this_thread::sleep_for(std::chrono::microseconds(20 * (k % 16)));
        join_compactor();
        for (const Filled &block : blocks_)
            EXPECT_TRUE(support::verify_filled(block));
        support::expect_whole(nullptr);
    }
    EXPECT_FALSE(handled_wrong);
    EXPECT_GE(in_a_move, 1u);
    EXPECT_GE(handled, in_a_move);
}

// ---------------------------------------------------------------------------------------- callbacks

// The moved callback runs with no lock held: other threads do everything while it waits.
struct Stopped {
    sem_t reached;
    sem_t go_on;
};

void stop_in_callback(void *context, rmhandle_t, void *, size_t) {
    auto *stopped = static_cast<Stopped *>(context);
    static std::atomic<bool> stopping{false};
    if (stopping.exchange(true))
        return; // another thread's, before a long lock
    sem_post(&stopped->reached);
    sem_wait(&stopped->go_on);
    stopping = false;
}

TEST_F(Suspended, NobodyWaitsForTheMovedCallback) {
    Stopped stopped;
    sem_init(&stopped.reached, 0, 0);
    sem_init(&stopped.go_on, 0, 0);
    rm_options options;
    rmoptions_init(&options);
    options.context = &stopped;
    options.moved = stop_in_callback;
    ASSERT_EQ(rmconfigure(&options), 0);
    make_sparse_heap();
    start_compactor();
    sem_wait(&stopped.reached);
    support::MixedOptions mixed;
    mixed.operations = support::thread_operations(2000);
    support::run_threads(2, [&](unsigned thread) { support::run_mixed(mixed, thread); });
    rmheap_t other = rmheap_create(nullptr);
    EXPECT_EQ(rmheap_compact(other, 0), RM_COMPACT_DONE);
    rmheap_destroy(other);
    support::expect_whole(nullptr);
    while (!done_) {
        sem_post(&stopped.go_on);
        std::this_thread::yield();
    }
    join_compactor();
    rmoptions_init(&options);
    ASSERT_EQ(rmconfigure(&options), 0);
}

} // namespace
