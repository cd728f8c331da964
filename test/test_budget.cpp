// The time limit of a compaction call. No figure here depends on how fast the machine is: the start of
// the call is moved instead.
#include <gtest/gtest.h>

extern "C" {
#include "base/os.h"
#include "compact/budget.h"
}

namespace {

constexpr uint64_t second_ns = 1000000000;

// A budget of max_us that began `ago_ns` before now.
jf_budget begun(uint32_t max_us, uint64_t ago_ns) {
    jf_budget budget;
    jf_budget_start(&budget, max_us);
    budget.start_ns -= ago_ns;
    return budget;
}

TEST(Budget, WithoutLimitAffordsEverything) {
    jf_budget budget = begun(0, 10 * second_ns);
    EXPECT_EQ(jf_budget_left(&budget), UINT64_MAX);
    EXPECT_TRUE(jf_budget_affords(&budget, UINT64_MAX));
    EXPECT_TRUE(jf_budget_could_ever_afford(&budget, UINT64_MAX));
}

TEST(Budget, KeepsTheSlackBack) {
    jf_budget budget = begun(4000000, 0);
    EXPECT_LE(jf_budget_left(&budget), 4 * second_ns - JF_BUDGET_SLACK_NS);
    EXPECT_GT(jf_budget_left(&budget), 0u);
    EXPECT_FALSE(jf_budget_affords(&budget, 4 * second_ns));
    EXPECT_TRUE(jf_budget_affords(&budget, 1));
}

TEST(Budget, IsSpentWhenTheTimeIsOver) {
    jf_budget budget = begun(1000, 2000000);
    EXPECT_EQ(jf_budget_left(&budget), 0u);
    EXPECT_FALSE(jf_budget_affords(&budget, 1));
    EXPECT_TRUE(jf_budget_could_ever_afford(&budget, 100000));
}

TEST(Budget, SmallerThanTheSlackAffordsNothing) {
    jf_budget budget = begun(JF_BUDGET_SLACK_NS / 1000, 0);
    EXPECT_EQ(jf_budget_left(&budget), 0u);
    EXPECT_FALSE(jf_budget_could_ever_afford(&budget, 1));
}

TEST(Budget, WhatJustFitsAWholeCallIsNotCountedOn) {
    jf_budget budget = begun(1000, 0);
    uint64_t usable = 1000000 - JF_BUDGET_SLACK_NS;
    EXPECT_FALSE(jf_budget_could_ever_afford(&budget, usable));
    EXPECT_TRUE(jf_budget_could_ever_afford(&budget, usable / 2));
}

TEST(Budget, TellsTheTimeSinceTheStart) {
    jf_budget budget = begun(1000, 3 * second_ns);
    EXPECT_GE(jf_budget_elapsed_us(&budget), 3000000u);
    EXPECT_LT(jf_budget_elapsed_us(&budget), 300000000u);
    budget = begun(1000, 5000 * second_ns);
    EXPECT_EQ(jf_budget_elapsed_us(&budget), UINT32_MAX);
}

TEST(Budget, CountsWorkForPortsWithoutAClock) {
    jf_budget budget = begun(1000, 0);
    jf_budget_worked(&budget, 64 * 1024, 10);
    EXPECT_EQ(budget.worked_ns, jf_budget_move_ns(64 * 1024, 10));
    jf_budget_worked(&budget, 0, 1);
    EXPECT_EQ(budget.worked_ns, jf_budget_move_ns(64 * 1024, 11));
}

} // namespace
