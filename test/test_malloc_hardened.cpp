// The hardened mode: guard bytes behind every block, freed blocks filled and held back.
#include <gtest/gtest.h>

#include "support/area_model.hpp"
#include "support/malloc_calls.hpp"

#include <cstring>
#include <vector>

extern "C" {
#include "malloc/facade.h"
}

using support::hide;

namespace {

class Hardened : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        setenv("JEFF_HARDENED", "1", 1); /* read when the facade starts, with its first call */
        jeff_free(jeff_malloc(1));
        ASSERT_EQ(JF_MODE_HARDENED, jf_malloc.mode);
    }
    void SetUp() override {
        testing::FLAGS_gtest_death_test_style = "fast";
    }
};
using HardenedDeathTest = Hardened;

char *get(size_t size) {
    return hide(static_cast<char *>(jeff_malloc(size)));
}

TEST_F(Hardened, BlocksAreWholeAndTheirSizeIsExact) {
    for (size_t size : {0u, 1u, 15u, 16u, 100u, 1000u, 8192u, 100000u, 1000000u}) {
        char *block = get(size);
        EXPECT_EQ(size, jeff_malloc_usable_size(block));
        std::memset(block, 1, size);
        block = hide(static_cast<char *>(jeff_realloc(block, size + 50)));
        EXPECT_EQ(size + 50, jeff_malloc_usable_size(block));
        EXPECT_TRUE(size == 0 || (block[0] == 1 && block[size - 1] == 1));
        jeff_free_sized(block, size + 50);
        block = static_cast<char *>(jeff_calloc(1, size));
        for (size_t i = 0; i < size; i++)
            ASSERT_EQ(0, block[i]);
        jeff_free(block);
        block = static_cast<char *>(jeff_aligned_alloc(512, size));
        EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(block) % 512);
        jeff_free_aligned_sized(block, 512, size);
    }
}

TEST_F(Hardened, AreasAgreeWithTheModel) {
    support::AreaModel model(77);
    for (int i = 0; i < 3000 && !HasFailure(); i++)
        model.step();
}

TEST_F(HardenedDeathTest, AWriteBehindAnAreaIsFound) {
    char *area = static_cast<char *>(jeff_area_append(nullptr, "abc", 3));
    size_t size = jeff_area_capacity(area) + 8;
    EXPECT_DEATH((hide(area)[size] = 1, jeff_free(area)), "bytes behind the block");
    jeff_free(area);
}

TEST_F(Hardened, AFreedBlockIsFilledAndNotGivenOutAtOnce) {
    char *block = get(100);
    std::memset(block, 1, 100);
    jeff_free(block);
    EXPECT_EQ(static_cast<char>(0xdf), hide(block)[50]);
    for (int i = 0; i < 100; i++) {
        char *other = get(100);
        EXPECT_NE(block, other);
        jeff_free(other);
    }
}

TEST_F(HardenedDeathTest, AByteWrittenBehindABlockIsFoundAtItsFree) {
    for (size_t size : {1u, 16u, 100u, 1000u, 100000u, 1000000u}) {
        char *block = get(size);
        EXPECT_DEATH((block[size] = 1, jeff_free(block)), "bytes behind the block were written to")
            << size;
        jeff_free(block);
    }
}

TEST_F(HardenedDeathTest, AByteWrittenIntoAFreedBlockIsFoundWhenItLeavesTheQuarantine) {
    EXPECT_DEATH(
        {
            char *block = get(100);
            jeff_free(block);
            hide(block)[60] = 1;
            for (int i = 0; i < 1000; i++)
                jeff_free(get(100));
        },
        "written to after it was freed");
}

TEST_F(HardenedDeathTest, ASecondFreeIsFoundInTheQuarantine) {
    char *block = get(100);
    EXPECT_DEATH((jeff_free(block), jeff_free(block)), "freed before");
    EXPECT_DEATH(jeff_free_sized(block, 99), "another size");
    jeff_free(block);
}

} // namespace
