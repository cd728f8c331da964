// The arena's inside: random programs against a model, threads, fork, and the checker with every rule broken.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

// The arena's own structure is C with its atomics; here it is damaged on purpose.
#define _STDATOMIC_H
#define _GLIBCXX_STDATOMIC_H
#define __CLANG_STDATOMIC_H
#define _Atomic(type) std::atomic<type>
#define _Alignas(bytes) alignas(bytes)
#if !defined(__clang__)
#define _Static_assert static_assert
#endif
using std::atomic_bool;
using std::atomic_load_explicit;
using std::atomic_size_t;
using std::atomic_uchar;
using std::atomic_uint;
using std::memory_order_acquire;
extern "C" {
#include "arena/internal.h"
}

#include "support/arena.hpp"

using namespace arena_test;

// --- Random programs against a model

namespace {

struct LiveChunk {
    unsigned order;
    jf_chunk_kind kind;
    size_t used; // bytes from the start that were written
    uint64_t stamp;
};

// Knows which units are taken; so it knows what must succeed.
class RandomProgram {
  public:
    RandomProgram(unsigned shift, uint64_t seed)
        : owner(make_arena(shift, 5, 4 * mib)), arena(owner.get()), random(seed),
          taken(jf_arena_size(arena) / unit) {
        std::fill_n(taken.begin(), jf_arena_table_size(arena) / unit, true);
        jf_arena_set_dirty_limit(arena, size_t{1} << (shift - 4));
    }

    void step() {
        bool refusing = random() % 32 == 0;
        if (refusing) {
            jf_arena_refuse(arena, static_cast<unsigned>(1 + random() % 3), random() % 2 == 0);
        }
        may_be_refused = refusing;
        switch (random() % 8) {
        case 0:
        case 1:
        case 2:
            allocate();
            break;
        case 3:
        case 4:
            if (!live.empty()) {
                release(pick());
            }
            break;
        case 5:
            if (!live.empty()) {
                extend(pick());
            }
            break;
        case 6:
            if (!live.empty()) {
                shrink(pick());
            }
            break;
        default:
            purge();
        }
        jf_arena_refuse(arena, 0, false);
        compare();
    }

  private:
    using Chunks = std::map<uintptr_t, LiveChunk>;

    bool range_is_free(size_t first, size_t count) const {
        for (size_t i = first; i < first + count; i++) {
            if (i >= taken.size() || taken[i]) {
                return false;
            }
        }
        return true;
    }

    void take(uintptr_t address, size_t from, size_t to, bool value) {
        size_t first = (address - jf_arena_base(arena)) / unit;
        std::fill(taken.begin() + static_cast<long>(first + from),
                  taken.begin() + static_cast<long>(first + to), value);
    }

    int largest_free() const {
        int largest = -1;
        for (int order = 0; size_t{1} << order <= taken.size(); order++) {
            for (size_t first = 0; first < taken.size() && largest < order;
                 first += size_t{1} << order) {
                largest = range_is_free(first, size_t{1} << order) ? order : largest;
            }
        }
        return largest;
    }

    Chunks::iterator pick() {
        auto chunk = live.begin();
        std::advance(chunk, static_cast<long>(random() % live.size()));
        return chunk;
    }

    unsigned random_order() {
        unsigned most = jf_bits_log2(taken.size());
        return random() % 16 == 0 ? static_cast<unsigned>(random() % (most + 2))
                                  : static_cast<unsigned>(random() % 4);
    }

    // Marks every page that counts as used.
    static void write(uintptr_t address, LiveChunk &chunk, size_t used) {
        for (size_t offset = 0; offset < used; offset += 4096) {
            *reinterpret_cast<uint64_t *>(address + offset) = chunk.stamp + offset;
        }
        chunk.used = used;
    }

    static void verify(uintptr_t address, const LiveChunk &chunk) {
        for (size_t offset = 0; offset < chunk.used; offset += 4096) {
            ASSERT_EQ(*reinterpret_cast<uint64_t *>(address + offset), chunk.stamp + offset);
        }
    }

    // One word of each page: the stamps of earlier owners lie at their starts.
    static bool pages_read_as_zero(uintptr_t address, size_t size) {
        for (size_t offset = 0; offset < size; offset += 4096) {
            if (*reinterpret_cast<uint64_t *>(address + offset) != 0) {
                return false;
            }
        }
        return true;
    }

    void allocate() {
        unsigned order = random_order();
        auto kind = static_cast<jf_chunk_kind>(1 + random() % 5);
        bool zero = false;
        uint64_t stamp = random() | 1;
        bool possible = static_cast<int>(order) <= largest_free();
        uintptr_t address =
            jf_arena_alloc(arena, order, kind, reinterpret_cast<void *>(stamp), &zero);
        if (address == 0) {
            ASSERT_TRUE(!possible || may_be_refused) << "order " << order;
            return;
        }
        size_t first = (address - jf_arena_base(arena)) / unit;
        ASSERT_EQ(first % (size_t{1} << order), 0u);
        ASSERT_TRUE(range_is_free(first, size_t{1} << order));
        if (zero) {
            ASSERT_TRUE(pages_read_as_zero(address, size_of(order)));
        }
        take(address, 0, size_t{1} << order, true);
        LiveChunk chunk = {order, kind, 0, stamp};
        size_t used = random() % 4 == 0 ? 0 : random() % (size_of(order) + 1);
        write(address, chunk, used < mib ? used : mib);
        live.emplace(address, chunk);
    }

    void release(Chunks::iterator chunk) {
        auto [address, it] = *chunk;
        verify(address, it);
        jf_arena_free(arena, address, it.used);
        take(address, 0, size_t{1} << it.order, false);
        live.erase(chunk);
    }

    void extend(Chunks::iterator chunk) {
        uintptr_t address = chunk->first;
        LiveChunk &it = chunk->second;
        unsigned order = it.order + 1 + static_cast<unsigned>(random() % 2);
        size_t first = (address - jf_arena_base(arena)) / unit;
        size_t old_count = size_t{1} << it.order;
        bool possible = first % (size_t{1} << order) == 0 &&
                        range_is_free(first + old_count, (size_t{1} << order) - old_count);
        bool done = jf_arena_extend(arena, address, order);
        if (!done) {
            ASSERT_TRUE(!possible || may_be_refused);
            return;
        }
        ASSERT_TRUE(possible);
        verify(address, it);
        ASSERT_TRUE(
            pages_read_as_zero(address + size_of(it.order), size_of(order) - size_of(it.order)));
        take(address, old_count, size_t{1} << order, true);
        it.order = order;
    }

    void shrink(Chunks::iterator chunk) {
        uintptr_t address = chunk->first;
        LiveChunk &it = chunk->second;
        unsigned order = static_cast<unsigned>(random() % (it.order + 1));
        jf_arena_shrink(arena, address, order, it.used);
        take(address, size_t{1} << order, size_t{1} << it.order, false);
        it.order = order;
        it.used = it.used < size_of(order) ? it.used : size_of(order);
        verify(address, it);
    }

    void purge() {
        size_t before = jf_arena_dirty(arena);
        size_t keep = random() % (before + 1);
        size_t most = random() % 2 == 0 ? 0 : random() % (before + 1);
        size_t given = jf_arena_purge(arena, keep, most);
        ASSERT_EQ(jf_arena_dirty(arena), before - given);
        if (most == 0) {
            ASSERT_LE(jf_arena_dirty(arena), keep);
        } else {
            ASSERT_LE(given, most);
        }
    }

    void compare() {
        ASSERT_STREQ(jf_arena_check(arena), nullptr);
        ASSERT_EQ(jf_arena_largest_order(arena), largest_free());
        for (const auto &[address, chunk] : live) {
            uintptr_t inside = address + random() % size_of(chunk.order);
            jf_chunk found = jf_arena_find(arena, inside);
            ASSERT_EQ(found.address, address);
            ASSERT_EQ(found.order, chunk.order);
            ASSERT_EQ(found.kind, chunk.kind);
            ASSERT_EQ(found.owner, reinterpret_cast<void *>(chunk.stamp));
        }
        size_t any = random() % taken.size();
        bool in_table = any < jf_arena_table_size(arena) / unit;
        jf_chunk found = jf_arena_find(arena, jf_arena_base(arena) + any * unit + random() % unit);
        ASSERT_EQ(found.kind != JF_CHUNK_NONE, taken[any] && !in_table);
    }

    ArenaPointer owner;
    jf_arena *arena;
    std::mt19937_64 random;
    std::vector<bool> taken; // per unit, the table's included
    Chunks live;
    bool may_be_refused = false;
};

} // namespace

TEST(ArenaRandom, SmallWindowsAgreeWithTheModel) {
    for (uint64_t seed = 1; seed <= 8; seed++) {
        SCOPED_TRACE(seed);
        RandomProgram program(24, seed);
        for (int i = 0; i < 4000; i++) {
            ASSERT_NO_FATAL_FAILURE(program.step()) << "step " << i;
        }
    }
}

TEST(ArenaRandom, WindowOf256MebibytesAgreesWithTheModel) {
    for (uint64_t seed = 1; seed <= 2; seed++) {
        SCOPED_TRACE(seed);
        RandomProgram program(28, seed);
        for (int i = 0; i < 1500; i++) {
            ASSERT_NO_FATAL_FAILURE(program.step()) << "step " << i;
        }
    }
}

// --- Threads and fork

namespace {

// Works on chunks of its own only and looks whether they stay what they are.
void use_chunks(jf_arena *arena, uint64_t seed, int steps) {
    std::mt19937_64 random(seed);
    std::vector<std::pair<uintptr_t, unsigned>> mine;
    void *self = reinterpret_cast<void *>(seed);
    for (int i = 0; i < steps; i++) {
        if (mine.size() < 12 && random() % 2 == 0) {
            auto order = static_cast<unsigned>(random() % 4);
            bool zero = false;
            uintptr_t chunk = jf_arena_alloc(arena, order, JF_CHUNK_REGION, self, &zero);
            if (chunk != 0) {
                auto *last = reinterpret_cast<uint64_t *>(chunk + size_of(order)) - 1;
                ASSERT_TRUE(!zero || *last == 0);
                *last = seed;
                mine.emplace_back(chunk, order);
            }
        } else if (!mine.empty()) {
            size_t at = random() % mine.size();
            auto [chunk, order] = mine[at];
            jf_chunk found = jf_arena_find(arena, chunk + random() % size_of(order));
            ASSERT_EQ(found.address, chunk);
            ASSERT_EQ(found.order, order);
            ASSERT_EQ(found.owner, self);
            auto *last = reinterpret_cast<uint64_t *>(chunk + size_of(order)) - 1;
            ASSERT_EQ(*last, seed);
            if (random() % 4 == 0 && jf_arena_extend(arena, chunk, order + 1)) {
                jf_arena_shrink(arena, chunk, order, size_of(order));
            } else {
                jf_arena_free(arena, chunk, size_of(order));
                mine[at] = mine.back();
                mine.pop_back();
            }
        }
    }
    for (auto [chunk, order] : mine) {
        jf_arena_free(arena, chunk, size_of(order));
    }
}

} // namespace

TEST(ArenaThreads, ChunksStayWhatTheyAreWhileOthersWork) {
    ArenaPointer arena = make_arena(24);
    jf_arena_set_dirty_limit(arena.get(), 20 * unit);
    int fixed_owner = 0;
    uintptr_t fixed = jf_arena_alloc(arena.get(), 2, JF_CHUNK_POOL, &fixed_owner, nullptr);
    std::atomic<bool> stop{false};
    std::thread finder([&] {
        std::mt19937_64 random(99);
        while (!stop) {
            jf_chunk found = jf_arena_find(arena.get(), fixed + random() % size_of(2));
            ASSERT_EQ(found.owner, &fixed_owner);
            ASSERT_EQ(found.kind, JF_CHUNK_POOL);
            // Anywhere else: any answer, but no wild access.
            jf_arena_find(arena.get(), jf_arena_base(arena.get()) + random() % (size_t{1} << 24));
        }
    });
    std::thread purger([&] {
        while (!stop) {
            jf_arena_purge(arena.get(), 4 * unit, 3 * jf_os_page_size());
            ASSERT_STREQ(jf_arena_check(arena.get()), nullptr);
            jf_arena_largest_order(arena.get());
            jf_arena_overhead(arena.get());
        }
    });
    std::vector<std::thread> workers;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        workers.emplace_back(use_chunks, arena.get(), seed, 4000);
    }
    for (std::thread &worker : workers) {
        worker.join();
    }
    stop = true;
    finder.join();
    purger.join();
    jf_arena_free(arena.get(), fixed, 0);
    jf_arena_purge(arena.get(), 0, 0);
    EXPECT_STREQ(jf_arena_check(arena.get()), nullptr);
    EXPECT_EQ(jf_arena_largest_order(arena.get()), 7);
}

TEST(ArenaThreads, AllocationWaitsForMemoryThatIsJustGivenBack) {
    // One half, and two threads that want it in turn: it is always allocated, being given back, or free.
    ArenaPointer arena = make_arena(24);
    jf_arena_set_dirty_limit(arena.get(), 0);
    std::atomic<int> failures{0};
    std::atomic<bool> is_free{true};
    auto use = [&] {
        for (int i = 0; i < 300;) {
            if (!is_free.exchange(false)) {
                std::this_thread::yield();
                continue;
            }
            uintptr_t half = jf_arena_alloc(arena.get(), 7, JF_CHUNK_LARGE, nullptr, nullptr);
            failures += half == 0;
            if (half != 0) {
                fill(half, 64 * unit);
                // From here on it counts as freed: the other allocates while this one gives back.
                std::thread freer([&] { jf_arena_free(arena.get(), half, 64 * unit); });
                while (jf_arena_find(arena.get(), half).kind != JF_CHUNK_NONE) {
                    std::this_thread::yield();
                }
                is_free = true;
                freer.join();
            } else {
                is_free = true;
            }
            i++;
        }
    };
    std::thread other(use);
    use();
    other.join();
    EXPECT_EQ(failures, 0);
}

TEST(ArenaFork, ChildWorksWhileOtherThreadsWereInside) {
    ArenaPointer arena = make_arena(24);
    jf_arena_set_dirty_limit(arena.get(), 4 * unit);
    std::atomic<bool> stop{false};
    std::thread worker([&] {
        for (uint64_t seed = 1; !stop; seed++) {
            use_chunks(arena.get(), seed, 50);
        }
    });
    for (int i = 0; i < 20; i++) {
        jf_arena_fork_prepare(arena.get());
        pid_t child = fork();
        jf_arena_fork_done(arena.get(), child == 0);
        if (child == 0) {
            bool good = jf_arena_check(arena.get()) == nullptr && arena->giving == 0;
            uintptr_t chunk = jf_arena_alloc(arena.get(), 0, JF_CHUNK_SPAN, nullptr, nullptr);
            good = good && chunk != 0;
            jf_arena_free(arena.get(), chunk, unit);
            _exit(good && jf_arena_check(arena.get()) == nullptr ? 0 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        EXPECT_EQ(status, 0);
    }
    stop = true;
    worker.join();
    EXPECT_STREQ(jf_arena_check(arena.get()), nullptr);
}

// --- The checker: every rule broken on purpose

namespace {

class ArenaDamage : public Arena {
  protected:
    ArenaDamage() : chunk(alloc(3)), dirty(alloc(1)) {
        free(dirty, unit);
        chunk_unit = jf_unit_of(arena, chunk);
        dirty_unit = jf_unit_of(arena, dirty);
    }

    // Looks that the damage is named, and that it was the only one.
    template <typename Damage, typename Repair>
    void expect_fault(const char *text, Damage damage, Repair repair) {
        ASSERT_STREQ(jf_arena_check(arena), nullptr);
        damage();
        EXPECT_STREQ(jf_arena_check(arena), text);
        repair();
    }

    void set_map(size_t at, unsigned char byte) {
        arena->map[at] = byte;
    }

    uintptr_t chunk;
    uintptr_t dirty;
    size_t chunk_unit;
    size_t dirty_unit;
};

} // namespace

TEST_F(ArenaDamage, LostUnitIsFound) {
    size_t first = jf_pieces_first(&arena->pieces, 2);
    ASSERT_NE(first, JF_PIECES_NONE);
    expect_fault(
        "arena: a unit is in no chunk and in no free piece",
        [&] { jf_pieces_remove(&arena->pieces, first, 2); },
        [&] { jf_pieces_add(&arena->pieces, first, 2); });
}

TEST_F(ArenaDamage, OverlappingPiecesAreFound) {
    size_t first = jf_pieces_first(&arena->pieces, 2);
    expect_fault(
        "arena: a unit is in two free pieces", [&] { jf_pieces_add(&arena->pieces, first, 1); },
        [&] { jf_pieces_remove(&arena->pieces, first, 1); });
    expect_fault(
        "arena: the count of free pieces is wrong",
        [&] { jf_pieces_add(&arena->pieces, first + 2, 1); },
        [&] { jf_pieces_remove(&arena->pieces, first + 2, 1); });
    expect_fault(
        "arena: the count of free pieces is wrong",
        [&] { jf_pieces_add(&arena->pieces, chunk_unit + 2, 1); },
        [&] { jf_pieces_remove(&arena->pieces, chunk_unit + 2, 1); });
}

TEST_F(ArenaDamage, UnmergedBuddiesAreFound) {
    size_t first = jf_pieces_first(&arena->pieces, 2);
    auto halves = [&](auto change) {
        change(&arena->pieces, first, 1);
        change(&arena->pieces, first + 2, 1);
    };
    expect_fault(
        "arena: two free buddies are not merged",
        [&] {
            jf_pieces_remove(&arena->pieces, first, 2);
            halves(jf_pieces_add);
        },
        [&] {
            halves(jf_pieces_remove);
            jf_pieces_add(&arena->pieces, first, 2);
        });
}

TEST_F(ArenaDamage, DamagedLevelsAreFound) {
    uint64_t *filled = arena->pieces.filled[2];
    uint64_t saved = filled[0];
    expect_fault(
        "arena: the levels of the free pieces disagree", [&] { filled[0] = 0; },
        [&] { filled[0] = saved; });
}

TEST_F(ArenaDamage, WrongMapIsFound) {
    unsigned char byte = arena->map[chunk_unit];
    expect_fault(
        "arena: the map of a chunk is not uniform", [&] { set_map(chunk_unit + 5, 0); },
        [&] { set_map(chunk_unit + 5, byte); });
    expect_fault(
        "arena: a chunk is not aligned to its size",
        [&] { set_map(chunk_unit, jf_map_byte(JF_CHUNK_REGION, 9)); },
        [&] { set_map(chunk_unit, byte); });
    size_t first = jf_pieces_first(&arena->pieces, 2);
    expect_fault(
        "arena: a chunk lies in a free piece", [&] { set_map(first + 1, byte); },
        [&] { set_map(first + 1, 0); });
    size_t closed = arena->unit_count / 2;
    expect_fault(
        "arena: a chunk is not accessible", [&] { set_map(closed, jf_map_byte(1, 0)); },
        [&] { set_map(closed, 0); });
}

TEST_F(ArenaDamage, WrongDirtyListIsFound) {
    expect_fault(
        "arena: the count of dirty chunks is wrong", [&] { arena->dirty_count = 0; },
        [&] { arena->dirty_count = 1; });
    expect_fault(
        "arena: the count of dirty chunks is wrong", [&] { arena->giving = 1; },
        [&] { arena->giving = 0; });
    expect_fault(
        "arena: the dirty list names a chunk that is not dirty",
        [&] { arena->dirty[0].unit = static_cast<uint32_t>(chunk_unit); },
        [&] { arena->dirty[0].unit = static_cast<uint32_t>(dirty_unit); });
    expect_fault(
        "arena: the sum of the dirty bytes is wrong", [&] { arena->dirty_bytes += 1; },
        [&] { arena->dirty_bytes -= 1; });
    expect_fault(
        "arena: a dirty chunk has more dirty bytes than bytes, or none",
        [&] { arena->units[dirty_unit].stale = 3 * unit; },
        [&] { arena->units[dirty_unit].stale = unit; });
}
