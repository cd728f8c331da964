// Integer helpers of base/bits.h, and the sets of free pieces that are built on them.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <vector>

extern "C" {
#include "arena/pieces.h"
#include "base/bits.h"
}

TEST(Bits, LogarithmsOfPowersAndTheirNeighbours) {
    for (unsigned shift = 1; shift < 64; shift++) {
        uint64_t power = uint64_t{1} << shift;
        EXPECT_EQ(jf_bits_log2(power), shift);
        EXPECT_EQ(jf_bits_log2(power - 1), shift - 1);
        EXPECT_EQ(jf_bits_log2_up(power), shift);
        EXPECT_EQ(jf_bits_log2_up(power + 1), shift + 1);
        EXPECT_EQ(jf_bits_lowest(power), shift);
        EXPECT_EQ(jf_bits_lowest(~uint64_t{0} << shift), shift);
    }
    EXPECT_EQ(jf_bits_log2_up(0), 0u);
    EXPECT_EQ(jf_bits_log2_up(1), 0u);
    EXPECT_EQ(jf_bits_log2(1), 0u);
}

TEST(Bits, PowersOfTwoAreTold) {
    EXPECT_FALSE(jf_bits_is_power_of_two(0));
    EXPECT_TRUE(jf_bits_is_power_of_two(1));
    EXPECT_TRUE(jf_bits_is_power_of_two(size_t{1} << 63));
    EXPECT_FALSE(jf_bits_is_power_of_two((size_t{1} << 63) + 1));
    EXPECT_FALSE(jf_bits_is_power_of_two(6));
}

TEST(Bits, RoundingGoesToTheNextMultiple) {
    EXPECT_EQ(jf_bits_round_up(0, 16), 0u);
    EXPECT_EQ(jf_bits_round_up(1, 16), 16u);
    EXPECT_EQ(jf_bits_round_up(16, 16), 16u);
    EXPECT_EQ(jf_bits_round_up(17, 16), 32u);
    EXPECT_EQ(jf_bits_round_down(15, 16), 0u);
    EXPECT_EQ(jf_bits_round_down(16, 16), 16u);
    EXPECT_EQ(jf_bits_round_down(31, 16), 16u);
    EXPECT_EQ(jf_bits_round_up(5, 1), 5u);
}

TEST(Bits, OverflowIsToldAndTheLargestResultIsNot) {
    size_t result = 0;
    EXPECT_TRUE(jf_bits_add(SIZE_MAX - 1, 1, &result));
    EXPECT_EQ(result, SIZE_MAX);
    EXPECT_FALSE(jf_bits_add(SIZE_MAX, 1, &result));
    EXPECT_TRUE(jf_bits_multiply(SIZE_MAX / 3, 3, &result));
    EXPECT_EQ(result, SIZE_MAX / 3 * 3);
    EXPECT_FALSE(jf_bits_multiply(SIZE_MAX / 2 + 1, 2, &result));
    EXPECT_TRUE(jf_bits_multiply(0, SIZE_MAX, &result));
    EXPECT_EQ(result, 0u);
}

TEST(Bits, WideProductHasBothHalves) {
    uint64_t low;
    EXPECT_EQ(jf_bits_multiply_wide(UINT32_MAX, UINT64_MAX, &low), uint64_t{UINT32_MAX} - 1);
    EXPECT_EQ(low, 0u - uint64_t{UINT32_MAX});
    EXPECT_EQ(jf_bits_multiply_wide(3, (uint64_t{1} << 63) + 5, &low), 1u);
    EXPECT_EQ(low, (uint64_t{1} << 63) + 15);
    EXPECT_EQ(jf_bits_multiply_wide(0, UINT64_MAX, &low), 0u);
    EXPECT_EQ(low, 0u);
}

namespace {

// Two full blocks and a part of a third, so that every level has more than one word somewhere.
constexpr size_t unit_count = 3 * 4096;

class Pieces : public ::testing::Test {
  protected:
    Pieces() : blocks(jf_pieces_blocks_size(unit_count) / sizeof(uint64_t)) {
        pieces = std::make_unique<jf_pieces>();
        *pieces = jf_pieces{};
        pieces->blocks = reinterpret_cast<uint64_t(*)[JF_PIECES_BLOCK_WORDS]>(blocks.data());
    }

    std::vector<uint64_t> blocks;
    std::unique_ptr<jf_pieces> pieces;
};

} // namespace

TEST_F(Pieces, EmptySetHasNoFirst) {
    for (unsigned order = 0; order < JF_ARENA_ORDERS; order++) {
        EXPECT_EQ(jf_pieces_first(pieces.get(), order), JF_PIECES_NONE);
        EXPECT_EQ(jf_pieces_reachable(pieces.get(), order), 0u);
    }
}

TEST_F(Pieces, OrdersDoNotDisturbEachOther) {
    for (unsigned order = 0; order <= 13; order++) {
        for (size_t unit = 0; unit < unit_count; unit += size_t{1} << order) {
            ASSERT_FALSE(jf_pieces_has(pieces.get(), unit, order)) << unit << " " << order;
        }
        jf_pieces_add(pieces.get(), 0, order);
    }
    jf_pieces_remove(pieces.get(), 0, 5);
    for (unsigned order = 0; order <= 13; order++) {
        EXPECT_EQ(jf_pieces_has(pieces.get(), 0, order), order != 5);
    }
}

TEST_F(Pieces, LargestOrdersOfTheLargestWindowHaveTheirPlace) {
    for (unsigned order = JF_PIECES_BLOCK_ORDER; order < JF_ARENA_ORDERS; order++) {
        size_t last = (size_t{1} << (JF_ARENA_ORDERS - 1)) - (size_t{1} << order);
        jf_pieces_add(pieces.get(), last, order);
    }
    for (unsigned order = JF_PIECES_BLOCK_ORDER; order < JF_ARENA_ORDERS; order++) {
        size_t last = (size_t{1} << (JF_ARENA_ORDERS - 1)) - (size_t{1} << order);
        EXPECT_EQ(jf_pieces_first(pieces.get(), order), last);
        EXPECT_EQ(jf_pieces_reachable(pieces.get(), order), 1u);
        jf_pieces_remove(pieces.get(), last, order);
        EXPECT_EQ(jf_pieces_first(pieces.get(), order), JF_PIECES_NONE);
    }
}

TEST_F(Pieces, RandomAddsAndRemovesAgreeWithAnOrderedSet) {
    std::mt19937_64 random(1);
    std::vector<std::set<size_t>> model(JF_PIECES_BLOCK_ORDER + 2);
    for (int step = 0; step < 200000; step++) {
        unsigned order = static_cast<unsigned>(random() % model.size());
        size_t unit = random() % unit_count >> order << order;
        if (model[order].erase(unit) != 0) {
            jf_pieces_remove(pieces.get(), unit, order);
        } else {
            model[order].insert(unit);
            jf_pieces_add(pieces.get(), unit, order);
        }
        ASSERT_EQ(jf_pieces_has(pieces.get(), unit, order), model[order].count(unit) != 0);
        ASSERT_EQ(pieces->count[order], model[order].size());
        ASSERT_EQ(jf_pieces_first(pieces.get(), order),
                  model[order].empty() ? JF_PIECES_NONE : *model[order].begin());
        if (step % 100 == 0) {
            ASSERT_EQ(jf_pieces_reachable(pieces.get(), order), model[order].size());
        }
        // Thin out at times, so that upper levels become empty again.
        if (step % 5000 == 4999) {
            for (size_t each : model[order]) {
                jf_pieces_remove(pieces.get(), each, order);
            }
            model[order].clear();
            ASSERT_EQ(jf_pieces_first(pieces.get(), order), JF_PIECES_NONE);
        }
    }
}
