// Random programs on many arrays against std::vector, with scrambling, other threads' compactions, and memory
// refused at every point.
#include <gtest/gtest.h>

#include <jeff/array.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

extern "C" {
#include "heap/heap.h"
}

#include "support/model.hpp"
#include "support/profiles.hpp"
#include "support/threads.hpp"

namespace {

using support::Profile;
using support::ProfileHeap;
using support::Random;

// One array and what must be in it.
struct Pair {
    rmarray_t array;
    size_t element_size;
    bool string;
    std::vector<unsigned char> model; // elements as bytes
    size_t length() const {
        return model.size() / element_size;
    }
};

class Program {
  public:
    Program(rmheap_t heap, uint64_t seed, size_t most) : heap_(heap), random_(seed), most_(most) {}
    ~Program() {
        for (Pair &pair : pairs_)
            rmarray_destroy(pair.array);
    }
    void step() {
        if (pairs_.empty() || (pairs_.size() < most_ && random_.chance(60)))
            create();
        else
            change(random_.below(pairs_.size()));
    }
    void verify_all() {
        for (Pair &pair : pairs_)
            verify(pair);
    }
    size_t refused() const {
        return refused_;
    }

  private:
    void create() {
        static const size_t sizes[] = {1, 2, 3, 4, 8, 16, 20, 64, 300};
        rm_array_options options;
        rmarray_options_init(&options);
        options.alignment = size_t{1} << random_.below(13);
        options.capacity = random_.chance(300) ? random_.size(2000) : 0;
        options.growth = static_cast<rm_array_growth>(random_.below(5));
        options.hints = static_cast<unsigned>(random_.below(16));
        options.expected = random_.chance(100) ? random_.size(1 << 20) : 0;
        Pair pair{nullptr, sizes[random_.below(9)], random_.chance(300), {}};
        if (pair.string)
            pair.element_size = 1;
        pair.array = pair.string ? rmarray_create_string(heap_, &options)
                                 : rmarray_create(heap_, pair.element_size, &options);
        if (pair.array != nullptr)
            pairs_.push_back(pair);
        else
            expect_no_memory();
    }
    void expect_no_memory() {
        refused_++;
        ASSERT_EQ(ENOMEM, errno);
    }
    bool went_well(int result) {
        if (result != 0)
            expect_no_memory();
        return result == 0;
    }
    std::vector<unsigned char> elements(const Pair &pair, size_t count) {
        std::vector<unsigned char> bytes(count * pair.element_size);
        for (unsigned char &byte : bytes)
            byte = static_cast<unsigned char>(1 + random_.below(255));
        return bytes;
    }
    void insert(Pair &pair, size_t index, size_t count) {
        std::vector<unsigned char> bytes = elements(pair, count);
        int result = index == pair.length() && random_.chance(700)
                         ? (count == 1 ? rmarray_push(pair.array, bytes.data())
                                       : rmarray_append(pair.array, bytes.data(), count))
                         : rmarray_insert(pair.array, index, bytes.data(), count);
        if (went_well(result))
            pair.model.insert(pair.model.begin() +
                                  static_cast<ptrdiff_t>(index * pair.element_size),
                              bytes.begin(), bytes.end());
    }
    void burst(Pair &pair) {
        rm_array_cursor cursor;
        ASSERT_EQ(0, rmarray_append_begin(&cursor, pair.array, pair.element_size));
        for (size_t i = random_.below(300); i > 0; i--) {
            std::vector<unsigned char> bytes = elements(pair, 1);
            if (!went_well(rmarray_append_next(&cursor, bytes.data())))
                break;
            pair.model.insert(pair.model.end(), bytes.begin(), bytes.end());
        }
        rmarray_append_end(&cursor);
    }
    void remove(Pair &pair) {
        size_t index = random_.below(pair.length() + 1);
        size_t count = random_.below(pair.length() - index + 1);
        ASSERT_EQ(0, rmarray_remove(pair.array, index, count));
        auto from = pair.model.begin() + static_cast<ptrdiff_t>(index * pair.element_size);
        pair.model.erase(from, from + static_cast<ptrdiff_t>(count * pair.element_size));
    }
    void resize(Pair &pair) {
        size_t length = random_.size(3000);
        size_t old = pair.length();
        if (!went_well(rmarray_resize(pair.array, length)))
            return;
        pair.model.resize(length * pair.element_size);
        rm_array_stats stats;
        ASSERT_EQ(0, rmarray_stats(pair.array, &stats));
        if (length > old && !pair.string && (stats.hints & RM_ARRAY_ZEROED) == 0) {
            std::memset(static_cast<unsigned char *>(rmarray_lock(pair.array)) +
                            old * pair.element_size,
                        0, (length - old) * pair.element_size);
            rmarray_unlock(pair.array);
        }
    }
    void destroy(size_t which) {
        rmarray_destroy(pairs_[which].array);
        pairs_[which] = pairs_.back();
        pairs_.pop_back();
    }
    void change(size_t which) {
        Pair &pair = pairs_[which];
        switch (random_.below(12)) {
        case 0:
            destroy(which);
            return;
        case 1:
            remove(pair);
            break;
        case 2:
            resize(pair);
            break;
        case 3:
            burst(pair);
            break;
        case 4:
            went_well(rmarray_shrink(pair.array));
            break;
        case 5:
            went_well(rmarray_reserve(pair.array, random_.size(5000)));
            break;
        case 6:
            rmheap_compact_us(heap_, 200, nullptr);
            break;
        case 7: {
            const Pair &other = pairs_[random_.below(pairs_.size())];
            if (other.element_size != pair.element_size ||
                pair.model.size() + other.model.size() > 100000)
                break;
            if (went_well(rmarray_concat(pair.array, other.array))) {
                std::vector<unsigned char> copy = other.model;
                pair.model.insert(pair.model.end(), copy.begin(), copy.end());
            }
            break;
        }
        default:
            insert(pair, random_.chance(500) ? pair.length() : random_.below(pair.length() + 1),
                   random_.chance(500) ? 1 : random_.size(200));
        }
        verify(pairs_[which]);
    }
    void verify(const Pair &pair) {
        ASSERT_EQ(pair.length(), rmarray_length(pair.array));
        ASSERT_LE(pair.length(), rmarray_capacity(pair.array));
        const unsigned char *bytes = static_cast<const unsigned char *>(rmarray_lock(pair.array));
        ASSERT_EQ(0, pair.model.empty() ? 0
                                        : std::memcmp(bytes, pair.model.data(), pair.model.size()));
        if (pair.string) {
            ASSERT_EQ(0, bytes[pair.model.size()]);
        }
        rmarray_unlock(pair.array);
    }

    rmheap_t heap_;
    Random random_;
    size_t most_;
    size_t refused_ = 0;
    std::vector<Pair> pairs_;
};

class ArrayRandom : public testing::TestWithParam<Profile> {};

TEST_P(ArrayRandom, AgreesWithTheModel) {
    ProfileHeap heap(GetParam());
    Program program(heap.get(), 1, 60);
    for (size_t i = 0; i < support::thread_operations(100000) && !HasFatalFailure(); i++) {
        program.step();
        if (i % 1000 == 0)
            heap.expect_sound();
    }
    program.verify_all();
}

TEST_P(ArrayRandom, AgreesWithTheModelWhenEverythingMovesAtEveryAllocation) {
    rm_options options;
    rmoptions_init(&options);
    options.check = 3;
    ProfileHeap heap(GetParam(), &options);
    Program program(heap.get(), 2, 20);
    for (size_t i = 0; i < support::thread_operations(8000) && !HasFatalFailure(); i++)
        program.step();
    program.verify_all();
}

TEST_P(ArrayRandom, AgreesWithTheModelWhenMemoryIsScarce) {
    rm_options options = support::limited_options(GetParam(), 600 << 10);
    ProfileHeap heap(GetParam(), &options, 200 << 10);
    Program program(heap.get(), 3, 100);
    /* as many under a sanitizer: memory has to run out again and again */
    for (size_t i = 0; i < 20000 && !HasFatalFailure(); i++)
        program.step();
    EXPECT_GT(program.refused(), 10u);
    program.verify_all();
    heap.expect_sound();
}

INSTANTIATE_TEST_SUITE_P(Profiles, ArrayRandom, testing::Values(Profile::growing, Profile::fixed),
                         support::profile_name);

TEST(ArrayRefused, AgreesWithTheModelWhenTheSystemRefusesAtEveryPoint) {
    ProfileHeap heap(Profile::growing);
    jf_arena *arena = reinterpret_cast<jf_heap *>(heap.get())->u.grow.window->arena;
    Program program(heap.get(), 4, 300);
    for (unsigned round = 0; round < 300 && !testing::Test::HasFatalFailure(); round++) {
        jf_arena_refuse(arena, 1 + round % 7, round % 2 == 1);
        for (size_t i = 0; i < 40; i++)
            program.step();
    }
    jf_arena_refuse(arena, 0, false);
    program.verify_all();
    heap.expect_sound();
}

TEST(ArrayThreads, EveryThreadHasItsOwnWhileAnotherCompacts) {
    support::BusyCompactor compactor;
    std::vector<std::thread> threads;
    for (uint64_t seed = 0; seed < 3; seed++)
        threads.emplace_back([seed] {
            Program program(nullptr, 10 + seed, 40);
            for (size_t i = 0; i < support::thread_operations(20000); i++)
                program.step();
            program.verify_all();
        });
    for (std::thread &thread : threads)
        thread.join();
    compactor.stop();
    rm_fault fault;
    EXPECT_EQ(0, rmcheck(&fault)) << fault.name;
    rmdestroy();
}

TEST(ArrayThreads, ReadersLockWhileTheCompactorMovesTheArray) {
    support::BusyCompactor compactor;
    rmarray_t array = rmarray_create(nullptr, sizeof(uint64_t), nullptr);
    for (uint64_t i = 0; i < 1000; i++)
        ASSERT_EQ(0, rmarray_push(array, &i));
    std::vector<std::thread> threads;
    for (uint64_t seed = 0; seed < 2; seed++)
        threads.emplace_back([array, seed] {
            Random random(seed);
            for (size_t i = 0; i < support::thread_operations(100000); i++) {
                uint64_t index = random.below(1000);
                uint64_t value = 0;
                ASSERT_EQ(0, rmarray_get(array, index, &value));
                ASSERT_EQ(index, value);
                ASSERT_EQ(1000u, rmarray_length(array));
            }
        });
    for (std::thread &thread : threads)
        thread.join();
    compactor.stop();
    rmarray_destroy(array);
    rmdestroy();
}

} // namespace
