// Scrambling: everything that may move does, what must not move stays, and what was vacated is filled.
#include "support/heaps.hpp"
#include "support/model.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <thread>

extern "C" {
#include "handle/readers.h"
}

// The race that is meant: a block that is being copied may be written by whoever locks it, and the copy is
// thrown away then.
extern "C" const char *__tsan_default_suppressions();
extern "C" const char *__tsan_default_suppressions() {
    return "race:^trade_places$\n";
}

using support::fill_pattern;
using support::FixedHeap;
using support::GrowingHeap;
using support::has_pattern;
using support::Heap;

namespace {

class Readers {
  public:
    Readers() {
        jf_readers_init(&readers);
    }
    ~Readers() {
        jf_os_mutex_finish(&readers.mutex);
    }
    jf_readers readers;
};

void scramble(const Heap &heap, const rm_reader *own = nullptr) {
    Readers none;
    jf_scramble(heap.get(), &none.readers, own);
}

rmhandle_t make(const Heap &heap, size_t size, size_t alignment = 16) {
    rmhandle_t handle = rmheap_aligned_alloc(heap, alignment, size);
    EXPECT_NE(handle, nullptr);
    fill_pattern(rmlock(handle), size, size);
    rmunlock(handle);
    return handle;
}

bool is_intact(rmhandle_t handle) {
    bool intact = has_pattern(rmlock(handle), 0, rmsize(handle), rmsize(handle));
    rmunlock(handle);
    return intact;
}

bool is_filled(const void *memory, size_t size) {
    const auto *bytes = static_cast<const unsigned char *>(memory);
    return std::all_of(bytes, bytes + size,
                       [](unsigned char byte) { return byte == JF_SCRAMBLE_BYTE; });
}

struct Fixed256K : FixedHeap {
    Fixed256K() : FixedHeap(256 << 10) {}
};

template <typename Kind> class Scramble : public testing::Test {
  public:
    void TearDown() override {
        EXPECT_EQ(heap.check(), 0) << heap.fault.name;
    }
    Kind heap;
};

using Kinds = testing::Types<GrowingHeap, Fixed256K>;
TYPED_TEST_SUITE(Scramble, Kinds, );

TYPED_TEST(Scramble, MovesEveryUnlockedBlockAndNoOther) {
    std::vector<rmhandle_t> handles;
    std::vector<const void *> places;
    for (size_t size = 0; size < 100; size++) {
        handles.push_back(make(this->heap, size * 7, size % 5 == 0 ? 128 : 16));
        places.push_back(rmweaklock(handles.back()));
        if (size % 10 == 3)
            rmlock(handles.back());
    }
    for (int round = 0; round < 20; round++) {
        scramble(this->heap);
        ASSERT_EQ(this->heap.check(), 0) << this->heap.fault.name;
        for (size_t i = 0; i < handles.size(); i++) {
            EXPECT_EQ(rmsize(handles[i]), i * 7);
            EXPECT_TRUE(is_intact(handles[i])) << i;
            const void *place = rmweaklock(handles[i]);
            EXPECT_EQ(place == places[i], i % 10 == 3) << i << " in round " << round;
            EXPECT_EQ(reinterpret_cast<uintptr_t>(place) % (i % 5 == 0 ? 128 : 16), 0u);
            places[i] = place;
        }
    }
    for (size_t i = 3; i < handles.size(); i += 10)
        rmunlock(handles[i]);
}

// The first two words of a fixed heap's hole are its header and its links, the third perhaps its size.
TYPED_TEST(Scramble, FillsWhatWasVacated) {
    rmhandle_t before = make(this->heap, 100);
    rmhandle_t moved = make(this->heap, 1000);
    rmhandle_t behind = make(this->heap, 100);
    rmlock(before);
    rmlock(behind);
    const auto *place = static_cast<const unsigned char *>(rmweaklock(moved));
    scramble(this->heap);
    EXPECT_NE(rmweaklock(moved), place);
    EXPECT_EQ(rmweak_valid(moved, place), 0);
    EXPECT_TRUE(is_filled(place + 16, 1000 - 16));
    rmunlock(before);
    rmunlock(behind);
}

TYPED_TEST(Scramble, SeedChoosesTheOrder) {
    std::vector<rmhandle_t> handles;
    for (size_t i = 0; i < 50; i++)
        handles.push_back(make(this->heap, 64));
    auto order = [&](uint64_t seed) {
        this->heap.get()->scramble_state = seed;
        scramble(this->heap);
        std::map<const void *, size_t> by_address;
        for (size_t i = 0; i < handles.size(); i++)
            by_address[rmweaklock(handles[i])] = i;
        std::vector<size_t> sequence;
        for (const auto &each : by_address)
            sequence.push_back(each.second);
        return sequence;
    };
    EXPECT_NE(order(1), order(2));
}

TYPED_TEST(Scramble, TellsTheProgramWhatMoved) {
    struct Told {
        std::map<rmhandle_t, std::pair<void *, size_t>> moves;
        unsigned calls = 0;
    } told;
    struct rm_options options;
    rmoptions_init(&options);
    options.context = &told;
    options.moved = [](void *context, rmhandle_t handle, void *address, size_t size) {
        auto *to = static_cast<Told *>(context);
        to->moves[handle] = {address, size};
        to->calls++;
        EXPECT_EQ(rmlock(handle), address) << "locks are allowed inside";
        rmunlock(handle);
    };
    rmheap_configure(this->heap, &options);
    std::vector<rmhandle_t> handles;
    for (size_t i = 1; i <= 200; i++)
        handles.push_back(make(this->heap, i));
    scramble(this->heap);
    EXPECT_EQ(told.calls, 200u);
    for (rmhandle_t handle : handles) {
        EXPECT_EQ(told.moves[handle].first, rmweaklock(handle));
        EXPECT_EQ(told.moves[handle].second, rmsize(handle));
    }
}

TYPED_TEST(Scramble, LeavesBlocksAloneWhileAReadSectionIsOpen) {
    rmhandle_t handle = make(this->heap, 100);
    rm_reader own = {};
    own.depth = 1;
    own.sequence = 1;
    Readers list;
    jf_reader_node node = {};
    jf_readers_add(&list.readers, &node, &own);
    const void *place = rmweaklock(handle);
    jf_scramble(this->heap.get(), &list.readers, &own);
    EXPECT_EQ(rmweaklock(handle), place) << "its own section";
    jf_scramble(this->heap.get(), &list.readers, nullptr);
    EXPECT_EQ(rmweaklock(handle), place) << "another thread's";
    own.depth = 0;
    own.sequence = 2;
    jf_scramble(this->heap.get(), &list.readers, &own);
    EXPECT_NE(rmweaklock(handle), place);
    jf_readers_remove(&list.readers, &node);
}

TYPED_TEST(Scramble, KeepsPurgePriorities) {
    rmhandle_t handles[8];
    for (int i = 0; i < 8; i++) {
        handles[i] = make(this->heap, 100);
        rmpurgeable(handles[i], i);
    }
    for (int round = 0; round < 5; round++)
        scramble(this->heap);
    std::map<rmhandle_t, unsigned> priorities;
    rmheap_visit(
        this->heap,
        [](void *context, const struct rm_block_info *info) {
            auto *to = static_cast<std::map<rmhandle_t, unsigned> *>(context);
            (*to)[info->handle] = info->priority;
            return 0;
        },
        &priorities);
    EXPECT_EQ(priorities.size(), 8u);
    for (unsigned i = 0; i < 8; i++)
        EXPECT_EQ(priorities[handles[i]], i);
}

TYPED_TEST(Scramble, HappensAtEveryPeriodthAllocation) {
    struct rm_options options;
    rmoptions_init(&options);
    options.scramble_period = 3;
    rmheap_configure(this->heap, &options);
    rmhandle_t handle = make(this->heap, 100);
    unsigned moves = 0;
    for (int i = 0; i < 30; i++) {
        const void *place = rmweaklock(handle);
        rmfree(rmheap_malloc(this->heap, 10));
        moves += rmweaklock(handle) != place;
    }
    EXPECT_EQ(moves, 10u);
}

TEST(ScrambleGrowing, MovesLargeBlocksToo) {
    GrowingHeap heap;
    rmhandle_t large = make(heap, 1 << 20, 1 << 16);
    rmpurgeable(large, 3);
    rmhandle_t small = make(heap, 10);
    for (int round = 0; round < 5; round++) {
        const void *place = rmweaklock(large);
        scramble(heap);
        EXPECT_NE(rmweaklock(large), place);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(rmweaklock(large)) % (1 << 16), 0u);
        EXPECT_TRUE(is_intact(large));
        EXPECT_TRUE(is_intact(small));
        EXPECT_EQ(heap.large(large)->priority, 3u);
        ASSERT_EQ(heap.check(), 0) << heap.fault.name;
    }
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    EXPECT_EQ(stats.large_blocks, 1u);
}

TEST(ScrambleGrowing, StaysWithinTheLimit) {
    struct rm_options options;
    rmoptions_init(&options);
    options.limit = 4 << 20;
    GrowingHeap heap(&options);
    rmhandle_t large = make(heap, 3 << 20);
    rmhandle_t small = make(heap, 1000);
    const void *place = rmweaklock(large);
    scramble(heap);
    EXPECT_EQ(rmweaklock(large), place) << "there is no room for another";
    EXPECT_TRUE(is_intact(large));
    EXPECT_TRUE(is_intact(small));
    struct rm_stats stats;
    rmheap_stats(heap, &stats);
    EXPECT_LE(stats.peak_committed, options.limit);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
}

TEST(ScrambleGrowing, LeavesOtherHeapsAlone) {
    GrowingHeap one, other;
    rmhandle_t moved = make(one, 100);
    rmhandle_t kept = make(other, 100);
    const void *place = rmweaklock(kept);
    const void *place_of_moved = rmweaklock(moved);
    scramble(one);
    EXPECT_EQ(rmweaklock(kept), place);
    EXPECT_NE(rmweaklock(moved), place_of_moved);
}

// A block larger than any hole moves up into the hole behind it, over itself.
TEST(ScrambleFixed, MovesABlockThatFillsMostOfTheBuffer) {
    FixedHeap heap(64 << 10);
    rmhandle_t handle = make(heap, 50000);
    const auto *place = static_cast<const unsigned char *>(rmweaklock(handle));
    scramble(heap);
    EXPECT_GT(rmweaklock(handle), place);
    EXPECT_TRUE(is_intact(handle));
    EXPECT_TRUE(is_filled(place + 16, 1000));
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
}

// The slide of a compaction is to go on where the block comes to lie.
TEST(ScrambleFixed, TakesTheCompactionsCursorAlong) {
    FixedHeap heap(64 << 10);
    rmhandle_t handle = make(heap, 50000);
    heap.fixed().cursor = heap.fixed().tail;
    heap.fixed().sliding = true;
    ASSERT_EQ(heap.check(), 0);
    scramble(heap);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
    EXPECT_EQ(rmheap_compact(heap, 0), RM_COMPACT_DONE);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
    EXPECT_TRUE(is_intact(handle));
}

TEST(ScrambleFixed, MovesABlockWithALongHeader) {
    FixedHeap heap(48 << 20);
    rmhandle_t handle = make(heap, 20 << 20, 4096);
    for (int round = 0; round < 3; round++) {
        const void *place = rmweaklock(handle);
        scramble(heap);
        EXPECT_NE(rmweaklock(handle), place);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(rmweaklock(handle)) % 4096, 0u);
        EXPECT_TRUE(is_intact(handle));
        ASSERT_EQ(heap.check(), 0) << heap.fault.name;
    }
}

TEST(ScrambleFixed, LeavesAFullHeapAsItIs) {
    FixedHeap heap(8 << 10);
    std::vector<rmhandle_t> handles;
    while (rmhandle_t handle = rmheap_malloc(heap, 56))
        handles.push_back(handle);
    for (rmhandle_t handle : handles) {
        fill_pattern(rmlock(handle), 56, 56);
        rmunlock(handle);
    }
    scramble(heap);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
    for (rmhandle_t handle : handles)
        EXPECT_TRUE(is_intact(handle));
}

// Locks, resizes and frees meet moves half way; whatever gives way, contents stay.
TYPED_TEST(Scramble, GivesWayToOtherThreads) {
    std::atomic<bool> stop{false};
    auto work = [&](uint64_t seed) {
        support::Random random(seed);
        std::vector<rmhandle_t> handles;
        while (!stop) {
            if (handles.size() < 100) {
                handles.push_back(make(this->heap, random.below(300)));
                continue;
            }
            size_t i = random.below(handles.size());
            auto *memory = static_cast<unsigned char *>(rmlock(handles[i]));
            size_t size = rmsize(handles[i]);
            EXPECT_TRUE(has_pattern(memory, 0, size, size));
            EXPECT_EQ(rmlock(handles[i]), memory);
            rmunlock(handles[i]);
            rmunlock(handles[i]);
            if (random.chance(500)) {
                rmfree(handles[i]);
                handles[i] = handles.back();
                handles.pop_back();
            } else {
                EXPECT_EQ(rmrealloc(handles[i], size / 2), 0);
                fill_pattern(rmlock(handles[i]), size / 2, size / 2);
                rmunlock(handles[i]);
            }
        }
        for (rmhandle_t handle : handles) {
            EXPECT_TRUE(is_intact(handle));
            rmfree(handle);
        }
    };
    std::thread one(work, 1), two(work, 2);
    for (int round = 0; round < 300; round++) {
        scramble(this->heap);
        EXPECT_EQ(this->heap.check(), 0) << this->heap.fault.name;
    }
    stop = true;
    one.join();
    two.join();
}

} // namespace
