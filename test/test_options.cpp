// The JEFF_* environment: what is understood, what is reported and ignored.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

extern "C" {
#include "base/options.h"
}

namespace {

struct SizeText {
    const char *text;
    bool valid;
    size_t size;
};

class Size : public testing::TestWithParam<SizeText> {};

TEST_P(Size, IsReadAsWritten) {
    size_t size = 77;
    EXPECT_EQ(GetParam().valid, jf_options_parse_size(GetParam().text, &size));
    EXPECT_EQ(GetParam().valid ? GetParam().size : 77, size);
}

INSTANTIATE_TEST_SUITE_P(
    Good, Size,
    testing::Values(SizeText{"0", true, 0}, SizeText{"1", true, 1}, SizeText{"4096", true, 4096},
                    SizeText{"64K", true, 65536}, SizeText{"256M", true, size_t{256} << 20},
                    SizeText{"3G", true, size_t{3} << 30}, SizeText{"007", true, 7},
                    SizeText{"18446744073709551615", true, SIZE_MAX},
                    SizeText{"17179869183G", true, size_t{17179869183} << 30}));

INSTANTIATE_TEST_SUITE_P(Bad, Size,
                         testing::Values(SizeText{"", false, 0}, SizeText{"K", false, 0},
                                         SizeText{"-1", false, 0}, SizeText{"+1", false, 0},
                                         SizeText{" 1", false, 0}, SizeText{"1 ", false, 0},
                                         SizeText{"1KB", false, 0}, SizeText{"1k", false, 0},
                                         SizeText{"0x10", false, 0}, SizeText{"1.5M", false, 0},
                                         SizeText{"12Q", false, 0},
                                         SizeText{"18446744073709551616", false, 0},
                                         SizeText{"99999999999999999999999", false, 0},
                                         SizeText{"17179869184G", false, 0}));

TEST(Number, HasALimit) {
    uint64_t number = 77;
    EXPECT_TRUE(jf_options_parse_number("3", 3, &number));
    EXPECT_EQ(3u, number);
    EXPECT_FALSE(jf_options_parse_number("4", 3, &number));
    EXPECT_FALSE(jf_options_parse_number("03x", 3, &number));
    EXPECT_FALSE(jf_options_parse_number("", 3, &number));
    EXPECT_EQ(3u, number);
}

TEST(Scramble, IsAPeriodAndPerhapsASeed) {
    unsigned period = 0;
    uint64_t seed = 5;
    EXPECT_TRUE(jf_options_parse_scramble("100", &period, &seed));
    EXPECT_EQ(100u, period);
    EXPECT_EQ(5u, seed);
    EXPECT_TRUE(jf_options_parse_scramble("7,42", &period, &seed));
    EXPECT_EQ(7u, period);
    EXPECT_EQ(42u, seed);
}

TEST(Scramble, WithAnythingElseIsRefusedWhole) {
    for (const char *text : {"", ",", "7,", ",42", "7,42,1", "7;42", "4294967296", "7,x", "x"}) {
        unsigned period = 1;
        uint64_t seed = 5;
        EXPECT_FALSE(jf_options_parse_scramble(text, &period, &seed)) << text;
        EXPECT_EQ(1u, period) << text;
        EXPECT_EQ(5u, seed) << text;
    }
}

class Environment : public testing::Test {
  protected:
    void SetUp() override {
        clear();
    }
    void TearDown() override {
        clear();
    }

    static void clear() {
        for (const char *name : {"JEFF_LIMIT", "JEFF_CHECK", "JEFF_SCRAMBLE", "JEFF_RETIRE"})
            unsetenv(name);
    }

    // What is printed while the environment is read.
    std::string read() {
        options_ = {};
        options_.limit = 1;
        options_.check = 1;
        options_.scramble_period = 9;
        options_.scramble_seed = 9;
        options_.retire = 0;
        testing::internal::CaptureStderr();
        jf_options_from_environment(&options_);
        return testing::internal::GetCapturedStderr();
    }

    rm_options options_;
};

TEST_F(Environment, ChangesNothingWhenItIsEmpty) {
    EXPECT_EQ("", read());
    EXPECT_EQ(1u, options_.limit);
    EXPECT_EQ(1u, options_.check);
    EXPECT_EQ(9u, options_.scramble_period);
    EXPECT_EQ(9u, options_.scramble_seed);
    EXPECT_EQ(0, options_.retire);
}

TEST_F(Environment, SetsEveryOption) {
    setenv("JEFF_LIMIT", "256M", 1);
    setenv("JEFF_CHECK", "2", 1);
    setenv("JEFF_SCRAMBLE", "100,42", 1);
    setenv("JEFF_RETIRE", "1", 1);
    EXPECT_EQ("", read());
    EXPECT_EQ(size_t{256} << 20, options_.limit);
    EXPECT_EQ(2u, options_.check);
    EXPECT_EQ(100u, options_.scramble_period);
    EXPECT_EQ(42u, options_.scramble_seed);
    EXPECT_EQ(1, options_.retire);
}

TEST_F(Environment, DrawsASeedWhenNoneIsGiven) {
    setenv("JEFF_SCRAMBLE", "3", 1);
    EXPECT_NE(read().find("JEFF_SCRAMBLE=3: seed "), std::string::npos);
    uint64_t first = options_.scramble_seed;
    read();
    EXPECT_NE(first, options_.scramble_seed);
}

TEST_F(Environment, ReportsABadValueAndKeepsTheDefault) {
    setenv("JEFF_LIMIT", "12Q", 1);
    EXPECT_EQ(
        "jeff: JEFF_LIMIT=12Q is ignored: expected a size in bytes such as 268435456 or 256M\n",
        read());
    EXPECT_EQ(1u, options_.limit);
}

TEST_F(Environment, ReportsEveryBadValueInALineOfItsOwn) {
    setenv("JEFF_CHECK", "4", 1);
    setenv("JEFF_SCRAMBLE", "often", 1);
    setenv("JEFF_RETIRE", "yes", 1);
    EXPECT_EQ("jeff: JEFF_CHECK=4 is ignored: expected a level from 0 to 3\n"
              "jeff: JEFF_SCRAMBLE=often is ignored: expected period[,seed] such as 100,42\n"
              "jeff: JEFF_RETIRE=yes is ignored: expected 0 or 1\n",
              read());
    EXPECT_EQ(1u, options_.check);
    EXPECT_EQ(9u, options_.scramble_period);
    EXPECT_EQ(0, options_.retire);
}

TEST_F(Environment, ShowsOnlyTheBeginningOfALongValue) {
    setenv("JEFF_RETIRE", std::string(5000, 'z').c_str(), 1);
    EXPECT_EQ("jeff: JEFF_RETIRE=" + std::string(40, 'z') + " is ignored: expected 0 or 1\n",
              read());
}

} // namespace
