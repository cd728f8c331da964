// Memory is refused at every point where it is asked for: always NULL or -1 with ENOMEM and nothing changed.
// Then the heap's limit, the fixed buffer and the limits of the process.
#include "support/child.hpp"
#include "support/threads.hpp"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <set>

extern "C" {
#include "api.h"
}

using support::Filled;
using support::Random;

namespace {

constexpr size_t mib = size_t{1} << 20;

// ---------------------------------------------------------------------------------------- the process's limits
// First, while this process has no window that a child would inherit.

void limit_address_space(size_t room, int resource) {
    rlimit limit = {};
    unsigned long pages = 0;
    FILE *file = std::fopen("/proc/self/statm", "r");
    CHILD_EXPECT(file != nullptr && std::fscanf(file, "%lu", &pages) == 1);
    std::fclose(file);
    CHILD_EXPECT(getrlimit(resource, &limit) == 0);
    limit.rlim_cur = (resource == RLIMIT_AS ? pages * 4096 : 0) + room;
    CHILD_EXPECT(setrlimit(resource, &limit) == 0);
}

// Allocates until there is no more, and goes on after a part of it has been freed. Returns the bytes got.
size_t use_up_and_go_on(size_t size) {
    std::vector<rmhandle_t> blocks;
    blocks.reserve(1 << 16);
    while (blocks.size() < blocks.capacity()) {
        rmhandle_t handle = rmmalloc(size);
        if (handle == nullptr)
            break;
        std::memset(rmlock(handle), 0x55, size);
        rmunlock(handle);
        blocks.push_back(handle);
    }
    CHILD_EXPECT(errno == ENOMEM);
    support::expect_whole_in_child(nullptr);
    size_t got = blocks.size() * size;
    for (size_t i = 0; i < blocks.size(); i += 2)
        rmfree(blocks[i]);
    /* almost: small holes in dense regions are not looked for */
    size_t refused = 0;
    for (size_t i = 0; i < blocks.size(); i += 2) {
        blocks[i] = rmmalloc(size);
        refused += blocks[i] == nullptr;
    }
    CHILD_EXPECT(refused <= blocks.size() / 100);
    for (rmhandle_t handle : blocks)
        rmfree(handle);
    support::expect_whole_in_child(nullptr);
    return got;
}

class ProcessLimit : public testing::Test {
  protected:
    void SetUp() override {
        if (JF_TEST_SANITIZED)
            GTEST_SKIP() << "a sanitizer's shadow does not fit into a limit";
        if (jf_api_window() != nullptr)
            GTEST_SKIP() << "the window is there already";
    }
};

TEST_F(ProcessLimit, NoAddressSpaceForTheSmallestWindow) {
    support::run_child([] {
        limit_address_space(8 * mib, RLIMIT_AS);
        errno = 0;
        CHILD_EXPECT(rmmalloc(100) == nullptr && errno == ENOMEM);
        errno = 0;
        CHILD_EXPECT(rmheap_create(nullptr) == nullptr && errno == ENOMEM);
        CHILD_EXPECT(rmheap_default() == nullptr);
        static char buffer[16384];
        CHILD_EXPECT(rminit(buffer, sizeof buffer) == 0);
        CHILD_EXPECT(rmmalloc(100) != nullptr);
    });
}

TEST_F(ProcessLimit, LittleAddressSpaceIsUsedUpAndUsedAgain) {
    support::run_child([] {
        limit_address_space(100 * mib, RLIMIT_AS);
        CHILD_EXPECT(use_up_and_go_on(1000) > 16 * mib);
    });
    support::run_child([] {
        limit_address_space(300 * mib, RLIMIT_AS);
        CHILD_EXPECT(use_up_and_go_on(1 * mib) > 48 * mib);
    });
}

TEST_F(ProcessLimit, LittleMemoryIsUsedUpAndUsedAgain) {
    support::run_child([] {
        limit_address_space(128 * mib, RLIMIT_DATA);
        CHILD_EXPECT(use_up_and_go_on(3000) > 60 * mib);
    });
    support::run_child([] {
        limit_address_space(256 * mib, RLIMIT_DATA);
        CHILD_EXPECT(use_up_and_go_on(300000) > 100 * mib);
    });
}

// ---------------------------------------------------------------------------------------- every request

// A program that goes on when memory is refused, and checks each time that nothing has changed. It runs in a
// child.
class Program {
  public:
    explicit Program(rmheap_t heap) : heap_(heap) {}

    void run() {
        allocate(40, 3000);
        create_and_end_heap(0);
        allocate(3, 300000);
        allocate_aligned();
        allocate_zeroed(200000);
        allocate_zeroed(700);
        resize();
        free_some();
        compact();
        lock_for_long();
        in_a_thread();
        create_and_end_heap(3);
        allocate(200, 600);
        purge();
        free_some();
        compact();
        resize();
        free_in_a_thread();
        verify();
    }

    void end() {
        for (const Filled &block : blocks_)
            support::free_filled(block);
        blocks_.clear();
        rmheap_compact(heap_, 0);
        support::expect_whole_in_child(heap_);
        rm_stats stats;
        rmheap_stats(heap_, &stats);
        CHILD_EXPECT(stats.blocks == 0);
    }

    unsigned refused() const {
        return refused_;
    }

  private:
    void verify() {
        size_t requested = 0;
        for (const Filled &block : blocks_) {
            CHILD_EXPECT(support::verify_filled(block));
            requested += block.size;
        }
        support::expect_whole_in_child(heap_);
        rm_stats stats;
        rmheap_stats(heap_, &stats);
        CHILD_EXPECT(stats.blocks == blocks_.size());
        CHILD_EXPECT(stats.requested == requested);
    }

    void was_refused() {
        CHILD_EXPECT(errno == ENOMEM);
        refused_++;
        verify();
    }

    void keep(rmhandle_t handle, size_t size) {
        if (handle == nullptr) {
            was_refused();
            return;
        }
        Filled block = {handle, size, random_.next()};
        CHILD_EXPECT(rmsize(handle) == size);
        support::fill_pattern(rmlock(handle), size, block.seed);
        rmunlock(handle);
        blocks_.push_back(block);
        errno = 0;
    }

    void allocate(unsigned count, size_t size) {
        for (unsigned i = 0; i < count; i++)
            keep(rmheap_malloc(heap_, size), size);
    }

    void allocate_aligned() {
        keep(rmheap_aligned_alloc(heap_, 4096, 5000), 5000);
        keep(rmheap_aligned_alloc(heap_, 65536, 100), 100);
        keep(rmheap_aligned_alloc(heap_, 512 << 10, 200000), 200000);
    }

    void allocate_zeroed(size_t size) {
        rmhandle_t handle = rmheap_calloc(heap_, 1, size);
        if (handle != nullptr) {
            const auto *bytes = static_cast<const char *>(rmlock(handle));
            for (size_t i = 0; i < size; i++)
                CHILD_EXPECT(bytes[i] == 0);
            rmunlock(handle);
        }
        keep(handle, size);
    }

    void resize() {
        const size_t sizes[] = {10, 100000, 5000, 300000, 600000, 150000, 1000};
        for (size_t i = 0; i < 2 && i < blocks_.size(); i++)
            for (size_t size : sizes)
                resize_one(blocks_[i], size);
    }

    void resize_one(Filled &block, size_t size) {
        errno = 0;
        if (rmrealloc(block.handle, size) != 0) {
            was_refused();
            return;
        }
        Filled kept = block;
        kept.size = size < block.size ? size : block.size;
        CHILD_EXPECT(support::verify_filled(kept));
        block.size = size;
        support::fill_pattern(rmlock(block.handle), size, block.seed);
        rmunlock(block.handle);
    }

    void free_some() {
        for (size_t i = 0; i < blocks_.size(); i += 2) {
            support::free_filled(blocks_[i]);
            blocks_[i] = blocks_.back();
            blocks_.pop_back();
        }
    }

    void compact() {
        rm_compact_result result;
        rmheap_compact_us(heap_, 0, &result);
        CHILD_EXPECT(result.status != RM_COMPACT_BUDGET);
        verify();
    }

    void lock_for_long() {
        for (size_t i = 0; i < 5 && i < blocks_.size(); i++) {
            const void *memory = rmlock_long(blocks_[i].handle);
            CHILD_EXPECT(support::verify_at(blocks_[i], memory));
            rmunlock(blocks_[i].handle);
        }
        verify();
    }

    void purge() {
        for (size_t i = 0; i < 20 && i < blocks_.size(); i++)
            CHILD_EXPECT(rmpurgeable(blocks_[i].handle, 1) == 0);
        /* what is emptied for it is known only afterwards */
        rmhandle_t more = rmheap_malloc(heap_, 500000);
        CHILD_EXPECT(more != nullptr || errno == ENOMEM);
        for (size_t i = blocks_.size(); i-- > 0;)
            if (rmpurgeable(blocks_[i].handle, 0) != 0)
                give_memory_again(i);
        if (more != nullptr)
            keep(more, 500000);
        verify();
    }

    void give_memory_again(size_t index) {
        Filled &block = blocks_[index];
        CHILD_EXPECT(rmlock(block.handle) == nullptr && rmsize(block.handle) == 0);
        if (rmrealloc(block.handle, 77) == 0) {
            block.size = 77;
            support::fill_pattern(rmlock(block.handle), 77, block.seed);
            rmunlock(block.handle);
            return;
        }
        CHILD_EXPECT(errno == ENOMEM);
        rmfree(block.handle);
        block = blocks_.back();
        blocks_.pop_back();
    }

    void create_and_end_heap(unsigned scramble_period) {
        rm_options options;
        rmoptions_init(&options);
        options.scramble_period = scramble_period;
        errno = 0;
        rmheap_t heap = rmheap_create(&options);
        if (heap == nullptr) {
            was_refused();
            return;
        }
        Program inside(heap);
        inside.allocate(40, 900);
        inside.allocate(1, 150000);
        inside.free_some();
        inside.allocate(40, 2000);
        inside.verify();
        refused_ += inside.refused_;
        rmheap_destroy(heap);
        verify();
    }

    // A thread's own state takes memory too.
    void in_a_thread() {
        std::thread([this] {
            allocate(20, 500);
            free_some();
            compact();
        }).join();
        verify();
    }

    // A thread that has no state, and may get none, frees.
    void free_in_a_thread() {
        std::thread([this] { free_some(); }).join();
        verify();
    }

    rmheap_t heap_;
    Random random_{3};
    std::vector<Filled> blocks_;
    unsigned refused_ = 0;
};

enum { STATUS_DONE = 10, STATUS_LAST = 11 };

// Refusing the n-th request to the system, or the n-th call that may end in one.
using Refuse = void (*)(jf_arena *arena, unsigned nth, bool persistent);

// Whether what was to be refused is still to come; asks for parts of the table that nobody has asked for yet.
bool is_still_to_come(jf_arena *arena, unsigned nth, bool persistent) {
    uintptr_t unused = jf_arena_base(arena) + jf_arena_table_size(arena) / 2;
    for (unsigned i = 0; i < nth; i++)
        if (!jf_arena_make_accessible(arena, unused + i * mib, JF_UNIT_SIZE))
            return i > 0 || !persistent;
    return false;
}

// Runs the program with the n-th refused. STATUS_LAST: it comes to no n-th.
int run_refused(Refuse refuse, unsigned nth, bool persistent) {
    return support::status_of_child([&] {
        CHILD_EXPECT(rmheap_default() != nullptr);
        jf_arena *arena = jf_api_window()->arena;
        refuse(arena, nth, persistent);
        Program program(nullptr);
        program.run();
        bool last = is_still_to_come(arena, nth, persistent);
        refuse(arena, 0, false);
        program.run();
        program.end();
        return last ? STATUS_LAST : STATUS_DONE;
    });
}

unsigned refuse_every(Refuse refuse, bool persistent) {
    /* a child costs much under a sanitizer: every fifth there */
    for (unsigned nth = 1; nth < 10000; nth += JF_TEST_SANITIZED ? 5 : 1) {
        int status = run_refused(refuse, nth, persistent);
        if (status == STATUS_LAST)
            return nth - 1;
        EXPECT_EQ(status, STATUS_DONE) << "number " << nth << " refused";
        if (status != STATUS_DONE)
            break;
    }
    return 0;
}

TEST(MemoryRefused, OnceAtEveryRequestToTheSystem) {
    EXPECT_GT(refuse_every(jf_arena_refuse, false), 0u);
}

TEST(MemoryRefused, FromEveryRequestToTheSystemOn) {
    EXPECT_GT(refuse_every(jf_arena_refuse, true), 0u);
}

TEST(MemoryRefused, OnceAtEveryCall) {
    EXPECT_GT(refuse_every(jf_arena_refuse_calls, false), 30u);
}

TEST(MemoryRefused, FromEveryCallOn) {
    EXPECT_GT(refuse_every(jf_arena_refuse_calls, true), 30u);
}

// ---------------------------------------------------------------------------------------- the heap's limit

constexpr size_t limit = 4 * mib;

// What the memory_low callback is asked and answers.
struct Low {
    std::vector<rmhandle_t> to_free; // one at a time
    unsigned calls = 0;
    size_t size = 0;
    bool pretends = false;
};

int on_memory_low(void *context, size_t size) {
    auto *low = static_cast<Low *>(context);
    low->calls++;
    low->size = size;
    if (low->to_free.empty())
        return low->pretends;
    rmfree(low->to_free.back());
    low->to_free.pop_back();
    return 1;
}

// In both profiles: a growing heap with a limit, and a fixed one of that size.
class AtTheLimit : public testing::TestWithParam<bool> {
  protected:
    void SetUp() override {
        rm_options options;
        rmoptions_init(&options);
        options.context = &low_;
        options.memory_low = on_memory_low;
        if (GetParam()) {
            buffer_.resize(limit);
            heap_ = rmheap_create_in(buffer_.data(), buffer_.size(), &options);
        } else {
            options.limit = limit;
            heap_ = rmheap_create(&options);
        }
        ASSERT_NE(heap_, nullptr);
    }

    void TearDown() override {
        support::expect_whole(heap_);
        rmheap_destroy(heap_);
    }

    Filled make(size_t size) {
        Filled block = {rmheap_malloc(heap_, size), size, random_.next()};
        if (block.handle != nullptr) {
            support::fill_pattern(rmlock(block.handle), size, block.seed);
            rmunlock(block.handle);
        }
        return block;
    }

    // Allocates until there is no more.
    std::vector<Filled> fill_up(size_t size) {
        std::vector<Filled> blocks;
        for (;;) {
            errno = 0;
            Filled block = make(size);
            if (block.handle == nullptr)
                break;
            blocks.push_back(block);
        }
        EXPECT_EQ(errno, ENOMEM);
        return blocks;
    }

    rm_stats stats() const {
        rm_stats figures;
        rmheap_stats(heap_, &figures);
        return figures;
    }

    std::vector<char> buffer_;
    rmheap_t heap_ = nullptr;
    Random random_{1};
    Low low_;
};

INSTANTIATE_TEST_SUITE_P(Profiles, AtTheLimit, testing::Bool(),
                         [](const auto &profile) { return profile.param ? "Fixed" : "Growing"; });

TEST_P(AtTheLimit, MostOfItCanBeHadAndNotMore) {
    for (size_t size : {40, 1000, 100000, 1000000}) {
        std::vector<Filled> blocks = fill_up(size);
        EXPECT_GE(blocks.size() * size, limit * 3 / 5) << size;
        EXPECT_LE(stats().committed, limit);
        for (const Filled &block : blocks)
            support::free_filled(block);
    }
}

TEST_P(AtTheLimit, AFailureChangesNothing) {
    std::vector<Filled> blocks = fill_up(5000);
    rm_stats before = stats();
    EXPECT_EQ(rmheap_calloc(heap_, 1, 1000000), nullptr);
    EXPECT_EQ(rmheap_aligned_alloc(heap_, 4096, 500000), nullptr);
    errno = 0;
    EXPECT_EQ(rmrealloc(blocks[3].handle, 1000000), -1);
    EXPECT_EQ(errno, ENOMEM);
    rm_stats after = stats();
    EXPECT_EQ(after.blocks, before.blocks);
    EXPECT_EQ(after.live, before.live);
    EXPECT_EQ(after.requested, before.requested);
    for (const Filled &block : blocks) {
        EXPECT_EQ(rmsize(block.handle), block.size);
        support::free_filled(block);
    }
}

TEST_P(AtTheLimit, HolesAreJoinedByCompacting) {
    std::vector<Filled> blocks = fill_up(5000);
    for (size_t i = 0; i < blocks.size(); i += 2)
        rmfree(blocks[i].handle);
    uint64_t moved = stats().blocks_moved;
    for (size_t got = 0; got + 100000 < limit / 3; got += 100000)
        EXPECT_NE(make(100000).handle, nullptr) << got;
    EXPECT_GT(stats().blocks_moved, moved);
    EXPECT_EQ(low_.calls, 1u) << "asked by the last request of fill_up only";
    for (size_t i = 1; i < blocks.size(); i += 2)
        support::verify_filled(blocks[i]);
}

TEST_P(AtTheLimit, BlocksAreEmptiedByPriority) {
    std::vector<Filled> blocks = fill_up(4000);
    low_.calls = 0;
    for (size_t i = 0; i < blocks.size(); i++)
        EXPECT_EQ(rmpurgeable(blocks[i].handle, static_cast<int>(i % 4)), 0);
    for (unsigned k = 0; k < 150; k++) {
        Filled more = make(13000);
        if (more.handle == nullptr)
            break;
        size_t kept[4] = {};
        size_t emptied[4] = {};
        for (size_t i = 0; i < blocks.size(); i++) {
            const void *memory = rmlock(blocks[i].handle);
            (memory != nullptr ? kept : emptied)[i % 4]++;
            if (memory == nullptr)
                continue;
            EXPECT_TRUE(support::verify_at(blocks[i], memory));
            rmunlock(blocks[i].handle);
        }
        EXPECT_EQ(emptied[0], 0u);
        EXPECT_TRUE(emptied[2] == 0 || kept[1] == 0) << "after " << k;
        EXPECT_TRUE(emptied[3] == 0 || kept[2] == 0) << "after " << k;
        if (HasFailure())
            return;
    }
    EXPECT_EQ(rmsize(blocks[1].handle), 0u);
    EXPECT_EQ(rmpurgeable(blocks[1].handle, 0), 1) << "emptied already";
    EXPECT_EQ(low_.calls, 0u) << "not asked while something can be emptied";
}

TEST_P(AtTheLimit, LockedBlocksAreNotEmptied) {
    std::vector<Filled> blocks = fill_up(4000);
    std::vector<const void *> memory;
    for (size_t i = 0; i < blocks.size(); i++) {
        EXPECT_EQ(rmpurgeable(blocks[i].handle, 1), 0);
        memory.push_back(i % 2 == 0 ? rmlock(blocks[i].handle) : nullptr);
    }
    while (make(4000).handle != nullptr)
        continue;
    for (size_t i = 0; i < blocks.size(); i++) {
        if (i % 2 != 0) {
            EXPECT_EQ(rmlock(blocks[i].handle), nullptr);
            continue;
        }
        EXPECT_EQ(rmlock(blocks[i].handle), memory[i]);
        EXPECT_TRUE(support::verify_at(blocks[i], memory[i]));
        rmunlock(blocks[i].handle);
        rmunlock(blocks[i].handle);
    }
}

TEST_P(AtTheLimit, TheCallbackIsAskedAndTheRequestTriedAgain) {
    std::vector<Filled> blocks = fill_up(10000);
    EXPECT_EQ(low_.calls, 1u);
    low_ = Low();
    for (unsigned i = 0; i < 80; i++)
        low_.to_free.push_back(blocks[i].handle);
    EXPECT_NE(rmheap_malloc(heap_, 100000), nullptr);
    EXPECT_GE(low_.calls, 10u);
    EXPECT_EQ(low_.size, 100000u);
    EXPECT_EQ(low_.to_free.size(), 80u - low_.calls);
    EXPECT_EQ(rmrealloc(blocks[90].handle, 60000), 0) << "resizing asks too";
    for (size_t i = 91; i < blocks.size(); i++)
        support::verify_filled(blocks[i]);
}

TEST_P(AtTheLimit, ACallbackThatFreesNothingIsNotAskedForEver) {
    fill_up(10000);
    low_ = Low();
    low_.pretends = true;
    errno = 0;
    EXPECT_EQ(rmheap_malloc(heap_, 100000), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    EXPECT_GT(low_.calls, 1u);
}

TEST_P(AtTheLimit, WhatCanNeverFitEmptiesNothing) {
    Filled block = make(1000);
    EXPECT_EQ(rmpurgeable(block.handle, 1), 0);
    for (size_t size : {limit + 1, size_t{1} << 40, SIZE_MAX / 2, SIZE_MAX - 7, SIZE_MAX}) {
        errno = 0;
        EXPECT_EQ(rmheap_malloc(heap_, size), nullptr);
        EXPECT_EQ(errno, ENOMEM);
        errno = 0;
        EXPECT_EQ(rmrealloc(block.handle, size), -1);
        EXPECT_EQ(errno, ENOMEM);
    }
    errno = 0;
    EXPECT_EQ(rmheap_calloc(heap_, SIZE_MAX / 2, 3), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    EXPECT_EQ(low_.calls, 0u);
    EXPECT_TRUE(support::verify_filled(block));
}

TEST_P(AtTheLimit, EmptiedBlocksAreGivenMemoryAgainOrFreed) {
    std::vector<Filled> blocks = fill_up(4000);
    for (const Filled &block : blocks)
        EXPECT_EQ(rmpurgeable(block.handle, 2), 0);
    Filled big = make(limit / 2);
    ASSERT_NE(big.handle, nullptr);
    unsigned again = 0;
    unsigned freed = 0;
    for (Filled &block : blocks) {
        if (rmsize(block.handle) != 0)
            continue;
        if (again < 10 && rmrealloc(block.handle, 50) == 0) {
            again++;
            EXPECT_EQ(rmsize(block.handle), 50u);
            EXPECT_NE(rmlock(block.handle), nullptr);
            rmunlock(block.handle);
        } else if (freed++ % 2 == 0) {
            rmfree(block.handle);
        }
    }
    EXPECT_EQ(again, 10u);
    EXPECT_TRUE(support::verify_filled(big));
}

// Allocating and freeing at the limit for a long time: always the same amount fits.
TEST_P(AtTheLimit, NothingLeaksInALongRun) {
    std::vector<Filled> blocks;
    size_t live = 0;
    for (unsigned i = 0; i < 20000 && !HasFailure(); i++) {
        size_t size = random_.size(20000);
        while (live + size > limit / 2) {
            size_t at = random_.below(blocks.size());
            live -= blocks[at].size;
            support::free_filled(blocks[at]);
            blocks[at] = blocks.back();
            blocks.pop_back();
        }
        blocks.push_back(make(size));
        ASSERT_NE(blocks.back().handle, nullptr) << i;
        live += size;
    }
    EXPECT_EQ(low_.calls, 0u);
}

} // namespace
