// Events that make no sense are found when a trace is followed, and its totals are those of a model.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "trace_events.hpp"
#include "trace_live.h"

using steve::access;
using steve::event;
using steve::Events;
using steve::random_trace;

namespace {

class TraceLive : public testing::Test {
  protected:
    TraceLive() {
        EXPECT_EQ(trace_live_init(&live, 0), 0);
    }
    ~TraceLive() override {
        trace_live_finish(&live);
    }

    std::string apply(trace_event each) {
        trace_error error{};
        return trace_live_apply(&live, &each, &error) == 0 ? "" : error.text;
    }

    trace_live live;
};

TEST_F(TraceLive, ABlockIsAllocatedOnceBeforeItIsFreed) {
    EXPECT_EQ(apply(event(TRACE_MALLOC, 0, 8)), "");
    EXPECT_EQ(apply(event(TRACE_MALLOC, 0, 8)), "block 0 is allocated but live already");
    EXPECT_EQ(apply(event(TRACE_FREE, 0)), "");
    EXPECT_EQ(apply(event(TRACE_FREE, 0)), "block 0 is freed but not live");
    EXPECT_EQ(apply(event(TRACE_REALLOC, 0, 9)), "block 0 is reallocated but not live");
    EXPECT_EQ(apply(event(TRACE_FREE, 1)), "block 1 is freed but not live");
}

TEST_F(TraceLive, OnlyLiveBlocksAreUsedAndLockedOnesStay) {
    EXPECT_EQ(apply(event(TRACE_MALLOC, 0, 64)), "");
    EXPECT_EQ(apply(access(0, 0, 64, 1, 0)), "");
    EXPECT_NE(apply(access(0, 1, 64, 1, 0)), "") << "beyond the end";
    EXPECT_NE(apply(access(1, 0, 1, 1, 0)), "");
    EXPECT_NE(apply(event(TRACE_UNLOCK, 0)), "");
    EXPECT_EQ(apply(event(TRACE_LOCK, 0)), "");
    EXPECT_EQ(apply(event(TRACE_LOCK, 0)), "");
    EXPECT_EQ(live.locked_bytes, 64u);
    EXPECT_EQ(apply(event(TRACE_REALLOC, 0, 80)), "");
    EXPECT_EQ(live.locked_bytes, 80u);
    EXPECT_NE(apply(event(TRACE_FREE, 0)), "");
    EXPECT_EQ(apply(event(TRACE_UNLOCK, 0)), "");
    EXPECT_EQ(live.locked_blocks, 1u);
    EXPECT_EQ(apply(event(TRACE_UNLOCK, 0)), "");
    EXPECT_EQ(live.locked_blocks, 0u);
    EXPECT_EQ(live.locked_bytes, 0u);
    EXPECT_EQ(apply(event(TRACE_FREE, 0)), "");
}

TEST_F(TraceLive, NumbersAreNotSkipped) {
    EXPECT_EQ(apply(event(TRACE_MALLOC, 0, 8)), "");
    EXPECT_EQ(apply(event(TRACE_MALLOC, 2, 8)), "block number 2 skips unused ones");
}

TEST_F(TraceLive, NothingIsLiveWhenAnotherProgramBegins) {
    EXPECT_EQ(apply(event(TRACE_MALLOC, 0, 8)), "");
    EXPECT_EQ(apply(event(TRACE_EXEC, 0)), "another program begins while 1 blocks are live");
}

TEST_F(TraceLive, OldSizesAndSerialsAreFilledIn) {
    trace_error error{};
    trace_event first = event(TRACE_MALLOC, 0, 100), grown = event(TRACE_REALLOC, 0, 300),
                freed = event(TRACE_FREE, 0), again = event(TRACE_MALLOC, 0, 7);
    for (trace_event *each : {&first, &grown, &freed, &again})
        ASSERT_EQ(trace_live_apply(&live, each, &error), 0) << error.text;
    EXPECT_EQ(first.serial, 1u);
    EXPECT_EQ(grown.serial, 1u);
    EXPECT_EQ(grown.old_size, 100u);
    EXPECT_EQ(freed.old_size, 300u);
    EXPECT_EQ(again.serial, 2u);
}

TEST_F(TraceLive, TotalsAgreeWithAModel) {
    Events events = random_trace(50000, 10);
    std::vector<uint64_t> sizes;
    uint64_t bytes = 0, peak = 0, blocks = 0;
    for (const trace_event &each : events) {
        ASSERT_EQ(apply(each), "");
        sizes.resize(std::max(sizes.size(), size_t(each.block) + 1));
        blocks += each.op == TRACE_MALLOC;
        blocks -= each.op == TRACE_FREE;
        bytes -= each.op == TRACE_MALLOC ? 0 : sizes[each.block];
        bytes += each.size;
        sizes[each.block] = each.size;
        peak = std::max(peak, bytes);
    }
    EXPECT_EQ(live.totals.peak_live_bytes, peak);
    EXPECT_EQ(live.totals.end_live_bytes, bytes);
    EXPECT_EQ(live.totals.end_live_blocks, blocks);
    EXPECT_EQ(live.totals.block_numbers, sizes.size());
    EXPECT_EQ(live.totals.threads, 3u);
}

} // namespace
