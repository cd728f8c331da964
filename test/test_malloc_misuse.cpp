// Every misuse of the malloc facade ends the process with one line that says what is wrong.
#include <gtest/gtest.h>

#include "support/fork_options.hpp"
#include "support/malloc_calls.hpp"

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

using support::hide;

class MallocMisuse : public testing::Test {
  protected:
    void SetUp() override {
        testing::FLAGS_gtest_death_test_style = "fast";
    }
};
using MallocMisuseDeathTest = MallocMisuse;

char *get(size_t size) {
    return hide(static_cast<char *>(jeff_malloc(size)));
}

constexpr size_t sizes[] = {1, 16, 100, 1000, 8192, 10000, 100000};

TEST_F(MallocMisuseDeathTest, ASecondFreeAtOnceIsFound) {
    for (size_t size : sizes) {
        char *block = get(size);
        EXPECT_DEATH((jeff_free(block), jeff_free(block)), "jeff: free: pointer 0x.*freed before")
            << size;
        jeff_free(block);
    }
}

TEST_F(MallocMisuseDeathTest, ASecondFreeOfAHugeBlockIsFound) {
    char *block = get(1000000);
    EXPECT_DEATH((jeff_free(block), jeff_free(block)), "jeff: free: .*freed before");
    jeff_free(block);
}

TEST_F(MallocMisuseDeathTest, ASecondFreeAfterManyOthersIsFound) {
    EXPECT_DEATH(
        {
            char *block = get(48);
            std::vector<char *> others;
            for (int i = 0; i < 10000; i++)
                others.push_back(get(48));
            jeff_free(block);
            for (char *other : others)
                jeff_free(other);
            jeff_free(block);
        },
        "freed before|no block lies there");
}

TEST_F(MallocMisuseDeathTest, ASecondFreeBetweenFreesOfAnotherIsFound) {
    char *first = get(64);
    char *second = get(64);
    EXPECT_DEATH((jeff_free(first), jeff_free(second), jeff_free(first)), "freed before");
    jeff_free(first);
    jeff_free(second);
}

TEST_F(MallocMisuseDeathTest, ASecondFreeByAnotherThreadIsFound) {
    char *block = get(64);
    EXPECT_DEATH(
        {
            std::thread([block] { jeff_free(block); }).join();
            jeff_free(block);
        },
        "freed before");
    jeff_free(block);
}

TEST_F(MallocMisuseDeathTest, ReallocOfAFreedBlockIsFound) {
    char *block = get(64);
    EXPECT_DEATH((jeff_free(block), jeff_realloc(block, 1000)), "jeff: realloc: .*freed before");
    jeff_free(block);
}

TEST_F(MallocMisuseDeathTest, APointerToTheStackIsFound) {
    char local[64];
    EXPECT_DEATH(jeff_free(hide(local + 0)), "malloc has not given it out");
}

TEST_F(MallocMisuseDeathTest, APointerToAVariableIsFound) {
    static char variable[64];
    EXPECT_DEATH(jeff_free(hide(variable + 0)), "malloc has not given it out");
}

TEST_F(MallocMisuseDeathTest, AnyNumberIsFound) {
    for (uintptr_t number : {uintptr_t{1}, uintptr_t{16}, ~uintptr_t{15}, uintptr_t{1} << 63})
        EXPECT_DEATH(jeff_free(reinterpret_cast<void *>(number)), "jeff: free: pointer") << number;
}

TEST_F(MallocMisuseDeathTest, APointerIntoABlockIsFound) {
    for (size_t size : {32u, 100u, 1000u, 8192u, 10000u, 100000u, 1000000u}) {
        char *block = get(size);
        EXPECT_DEATH(jeff_free(block + 16), "not the start of a block") << size;
        EXPECT_DEATH(jeff_free(block + 1), "not the start of a block") << size;
        EXPECT_DEATH(jeff_free(block + size / 2 + 8), "not the start of a block") << size;
        EXPECT_DEATH(jeff_realloc(block + 16, 5), "not the start of a block") << size;
        EXPECT_DEATH(jeff_malloc_usable_size(block + 8), "not the start of a block") << size;
        jeff_free(block);
    }
}

TEST_F(MallocMisuseDeathTest, AWrongSizeAtFreeIsFound) {
    for (size_t size : {16u, 100u, 1000u, 10000u, 100000u, 1000000u}) {
        char *block = get(size);
        EXPECT_DEATH(jeff_free_sized(block, size * 2), "jeff: free_sized: .*another size") << size;
        EXPECT_DEATH(jeff_free_sized(block, size / 2 + 100000000), "another size") << size;
        if (size > 16) {
            EXPECT_DEATH(jeff_free_sized(block, size / 2), "another size") << size;
        }
        jeff_free_sized(block, size);
    }
    char *block = static_cast<char *>(jeff_aligned_alloc(256, 1000));
    EXPECT_DEATH(jeff_free_aligned_sized(block, 256, 3000), "another size");
    EXPECT_DEATH(jeff_free_aligned_sized(block, 255, 1000), "no power of two");
    jeff_free_aligned_sized(block, 256, 1000);
}

TEST_F(MallocMisuseDeathTest, AHandleGivenToFreeIsFound) {
    rmhandle_t handle = rmmalloc(100);
    EXPECT_DEATH(jeff_free(handle), "it is a handle");
    void *inside = rmlock(handle);
    EXPECT_DEATH(jeff_free(inside), "block behind a handle");
    rmunlock(handle);
    rmfree(handle);
    handle = rmmalloc(100);
    EXPECT_DEATH(jeff_free(handle), "it is a handle");
    rmfree(handle);
}

TEST_F(MallocMisuseDeathTest, APointerGivenToRmfreeIsFound) {
    for (size_t size : {16u, 1000u, 100000u, 1000000u}) {
        char *block = get(size);
        EXPECT_DEATH(rmfree(reinterpret_cast<rmhandle_t>(block)), "jeff: rmfree: foreign handle")
            << size;
        jeff_free(block);
    }
}

// More blocks than a thread keeps at hand, freed but for some, so that their spans stay: most lie in lists.
std::vector<char *> get_and_free_many(size_t size) {
    std::vector<char *> blocks;
    for (int i = 0; i < 3000; i++)
        blocks.push_back(get(size));
    for (size_t i = 0; i < blocks.size(); i++)
        if (i % 10 != 0)
            jeff_free(blocks[i]);
    return blocks;
}

void get_many(size_t size) {
    for (int i = 0; i < 3000; i++)
        get(size);
}

TEST_F(MallocMisuseDeathTest, AForgedLinkIsFoundBeforeItIsFollowed) {
    for (size_t size : {16u, 64u, 1000u}) {
        EXPECT_DEATH(
            {
                std::vector<char *> blocks = get_and_free_many(size);
                std::memcpy(hide(blocks[1001]), &blocks[0], sizeof(char *));
                get_many(size);
            },
            "written to after it was freed")
            << size;
    }
}

TEST_F(MallocMisuseDeathTest, ASingleBitChangedInALinkIsFound) {
    for (size_t bit : {0u, 5u, 40u, 63u, 64u, 100u, 127u}) {
        EXPECT_DEATH(
            {
                std::vector<char *> blocks = get_and_free_many(64);
                char *block = hide(blocks[1001]);
                block[bit / 8] = static_cast<char>(block[bit / 8] ^ 1 << bit % 8);
                get_many(64);
            },
            "written to after it was freed")
            << bit;
    }
}

TEST_F(MallocMisuseDeathTest, AWriteToAFreedBlockHidesNoSecondFree) {
    for (size_t size : {16u, 64u, 1000u}) {
        char *block = get(size);
        EXPECT_DEATH(
            {
                jeff_free(block);
                std::memset(hide(block), 0x41, size);
                jeff_free(block);
            },
            "freed before")
            << size;
        jeff_free(block);
    }
}

} // namespace
