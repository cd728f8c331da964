// Areas of malloc are arrays of bytes: they know their length, grow as arrays do, and every misuse and refusal is what
// it is for arrays and for malloc.
#include <gtest/gtest.h>

#include "support/area_model.hpp"
#include "support/child.hpp"
#include "support/fork_options.hpp"
#include "support/malloc_calls.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

extern "C" {
#include "api.h"
#include "malloc/facade.h"
}

using support::area_contents;
using support::AreaModel;
using support::hide;
using support::run_child;

namespace {

class Area : public testing::Test {
  protected:
    void SetUp() override {
        testing::FLAGS_gtest_death_test_style = "fast";
    }
};
using AreaDeathTest = Area;

void *make_area(const std::string &text) {
    return hide(jeff_area_append(nullptr, text.data(), text.size()));
}

TEST_F(Area, NullIsAnEmptyOne) {
    EXPECT_EQ(0u, jeff_area_length(nullptr));
    EXPECT_EQ(0u, jeff_area_capacity(nullptr));
    void *area = make_area("one");
    area = jeff_area_append(area, "two", 3);
    EXPECT_EQ("onetwo", area_contents(area));
    EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(area) % 16);
    jeff_free(area);
    area = jeff_area_reserve(nullptr, 1000);
    EXPECT_EQ(0u, jeff_area_length(area));
    EXPECT_GE(jeff_area_capacity(area), 1000u);
    jeff_free(area);
}

TEST_F(Area, APlainBlockIsAFullOne) {
    for (size_t size : {1u, 16u, 100u, 5000u, 100000u, 500000u}) {
        void *block = jeff_malloc(size);
        size_t usable = jeff_malloc_usable_size(block);
        EXPECT_EQ(usable, jeff_area_length(block));
        EXPECT_EQ(usable, jeff_area_capacity(block));
        std::memset(block, 'a', usable);
        block = jeff_area_append(block, "b", 1);
        EXPECT_EQ(std::string(usable, 'a') + "b", area_contents(block));
        block = jeff_area_resize(block, 1);
        EXPECT_EQ("a", area_contents(block));
        jeff_free(block);
    }
}

TEST_F(Area, APlainBlockThatIsCutStaysWhereItIs) {
    void *block = jeff_malloc(1000);
    std::memset(block, 'x', 1000);
    EXPECT_EQ(block, jeff_area_resize(block, 3));
    EXPECT_EQ("xxx", area_contents(block));
    EXPECT_EQ(jeff_malloc_usable_size(block), jeff_area_capacity(block));
    EXPECT_GE(jeff_area_capacity(block), 1000u);
    jeff_free(block);
}

TEST_F(Area, GrowsByTheArraysPolicy) {
    void *area = make_area("x");
    size_t moves = 0;
    for (size_t i = 1; i < 3000000; i++) {
        size_t capacity = jeff_area_capacity(area);
        area = jeff_area_append(area, "x", 1);
        if (jeff_area_capacity(area) != capacity) {
            EXPECT_GE(jeff_area_capacity(area) + 16, capacity + capacity / 2);
            EXPECT_LE(jeff_area_capacity(area), 2 * capacity + 4096);
            moves++;
        } else {
            ASSERT_LT(i, capacity);
        }
    }
    EXPECT_LT(moves, 40u);
    EXPECT_EQ(3000000u, jeff_area_length(area));
    jeff_free(area);
}

TEST_F(Area, ReservedCapacityIsUsedWhereItLies) {
    void *area = jeff_area_reserve(nullptr, 10000);
    void *before = area;
    while (jeff_area_length(area) < jeff_area_capacity(area))
        area = jeff_area_append(area, "z", 1);
    EXPECT_EQ(before, area);
    EXPECT_EQ(std::string(jeff_area_capacity(area), 'z'), area_contents(area));
    EXPECT_EQ(before, jeff_area_reserve(area, 5));
    jeff_free(area);
}

TEST_F(Area, AllOfTheCapacityIsTheProgramsToWriteTo) {
    for (size_t size : {1u, 50u, 3000u, 30000u, 300000u}) {
        void *area = jeff_area_resize(nullptr, size);
        std::memset(area, 0xff, jeff_area_capacity(area));
        EXPECT_EQ(size, jeff_area_length(area));
        std::memset(area, 0, jeff_malloc_usable_size(area));
        EXPECT_EQ(size, jeff_area_length(area));
        jeff_free(area);
    }
}

TEST_F(Area, ShrinkGivesCapacityBack) {
    for (size_t size : {2000u, 50000u, 4000000u}) {
        void *area = jeff_area_append(jeff_area_reserve(nullptr, size), "abc", 3);
        size_t before = jeff_area_capacity(area);
        area = jeff_area_shrink(area);
        EXPECT_LT(jeff_area_capacity(area), before);
        EXPECT_EQ("abc", area_contents(area));
        jeff_free(area);
    }
}

TEST_F(Area, BadIndexChangesNothing) {
    void *area = make_area("abc");
    errno = 0;
    EXPECT_EQ(nullptr, jeff_area_insert(area, 4, "x", 1));
    EXPECT_EQ(EINVAL, errno);
    errno = 0;
    EXPECT_EQ(nullptr, jeff_area_remove(area, 1, 3));
    EXPECT_EQ(EINVAL, errno);
    EXPECT_EQ(nullptr, jeff_area_remove(area, 4, 0));
    EXPECT_EQ("abc", area_contents(area));
    jeff_free(area);
}

TEST_F(Area, OverflowingLengthsAreNoMemory) {
    void *area = make_area("abc");
    for (size_t much : {SIZE_MAX, SIZE_MAX - 2, SIZE_MAX - 20, SIZE_MAX / 2, SIZE_MAX >> 24}) {
        errno = 0;
        EXPECT_EQ(nullptr, jeff_area_append(area, "x", much));
        EXPECT_EQ(ENOMEM, errno);
        EXPECT_EQ(nullptr, jeff_area_resize(area, much));
        EXPECT_EQ(nullptr, jeff_area_reserve(area, much));
        EXPECT_EQ(nullptr, jeff_area_insert(area, 1, "x", much));
    }
    EXPECT_EQ("abc", area_contents(area));
    jeff_free(area);
}

TEST_F(Area, ReallocMakesItAPlainBlock) {
    for (size_t size : {20u, 300u, 20000u, 900000u}) {
        std::string text(size, 'q');
        void *area = jeff_area_reserve(make_area(text), size + 50);
        area = jeff_realloc(area, size + 60);
        ASSERT_NE(nullptr, area);
        EXPECT_EQ(jeff_malloc_usable_size(area), jeff_area_length(area));
        EXPECT_EQ(0, std::memcmp(area, text.data(), size));
        jeff_free_sized(area, size + 60);
    }
}

TEST_F(AreaDeathTest, MisuseIsFound) {
    char *area = static_cast<char *>(make_area("abc"));
    int number = 0;
    rmhandle_t handle = rmmalloc(10);
    EXPECT_DEATH((jeff_free(area), jeff_free(area)), "jeff: free: .*freed before");
    EXPECT_DEATH((jeff_free(area), jeff_area_append(area, "x", 1)), "area_append: .*freed before");
    EXPECT_DEATH((jeff_free(area), jeff_area_length(area)), "area_length: .*freed before");
    EXPECT_DEATH((jeff_free(area), jeff_area_capacity(area)), "area_capacity: .*freed before");
    EXPECT_DEATH((jeff_free(area), jeff_area_reserve(area, 9)), "area_reserve: .*freed before");
    EXPECT_DEATH((jeff_free(area), jeff_area_resize(area, 1)), "area_resize: .*freed before");
    EXPECT_DEATH((jeff_free(area), jeff_area_shrink(area)), "area_shrink: .*freed before");
    EXPECT_DEATH((jeff_free(area), jeff_area_remove(area, 0, 1)), "area_remove: .*freed before");
    EXPECT_DEATH(jeff_area_insert(hide(area + 1), 0, "x", 1), "area_insert: ");
    EXPECT_DEATH(jeff_area_append(hide(&number), "x", 1), "area_append: ");
    EXPECT_DEATH(jeff_area_append(hide(reinterpret_cast<void *>(handle)), "x", 1), "a handle");
    EXPECT_DEATH(jeff_free_sized(area, 3000), "another size");
    rmfree(handle);
    jeff_free(area);
}

TEST_F(Area, ATailThatWasWrittenOverIsAnError) {
    char *area = static_cast<char *>(make_area("abc"));
    char *tail = hide(area + jeff_area_capacity(area));
    std::memset(tail, 0, 8);
    errno = 0;
    EXPECT_EQ(nullptr, jeff_area_append(area, "d", 1));
    EXPECT_EQ(EINVAL, errno);
    EXPECT_EQ(0u, jeff_area_length(area));
    jeff_free(area);
}

TEST_F(Area, AgreesWithTheModel) {
    for (unsigned seed = 1; seed <= 10; seed++) {
        AreaModel model(seed);
        for (int i = 0; i < 2000 && !HasFailure(); i++)
            model.step();
    }
}

TEST_F(Area, IsUnchangedWhereverMemoryIsRefused) {
    for (unsigned nth = 1; nth < 40; nth++) {
        for (bool persistent : {false, true}) {
            run_child([nth, persistent] {
                AreaModel model(nth);
                model.may_refuse = true;
                jeff_free(jeff_malloc(1));
                jf_arena_refuse_calls(jf_malloc.arena, nth, persistent);
                for (int i = 0; i < 300 && !HasFailure(); i++)
                    model.step();
                jf_arena_refuse_calls(jf_malloc.arena, 0, false);
                for (size_t which = 0; which < model.areas.size(); which++)
                    model.check(which);
                model.may_refuse = false;
                for (int i = 0; i < 100 && !HasFailure(); i++)
                    model.step();
            });
        }
    }
}

TEST_F(Area, ThreadsGrowTheirOwnAndFreeEachOthers) {
    constexpr int count = 4;
    std::vector<void *> left(count);
    for (int round = 0; round < 3; round++) {
        std::vector<std::thread> threads;
        for (int i = 0; i < count; i++)
            threads.emplace_back([&left, i, round] {
                jeff_free(left[i]);
                left[i] = nullptr;
                AreaModel model(static_cast<unsigned>(10 * round + i));
                for (int step = 0; step < 500 && !HasFailure(); step++)
                    model.step();
                left[i] = make_area("left");
            });
        for (std::thread &thread : threads)
            thread.join();
        std::rotate(left.begin(), left.begin() + 1, left.end());
    }
    for (void *area : left) {
        EXPECT_EQ("left", area_contents(area));
        jeff_free(area);
    }
}

} // namespace
