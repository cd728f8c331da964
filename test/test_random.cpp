// Random programs over the public calls against a model, in both profiles, with the checker at every
// step. JEFF_TEST_OPERATIONS sets the number of operations of each (x10: ten times as many as usual),
// JEFF_TEST_SEED the only seed to run.
#include <gtest/gtest.h>

#include "support/random_program.hpp"

using support::RandomProgramOptions;

namespace {

void run(RandomProgramOptions options, size_t operations, unsigned seeds) {
    options.operations = support::operations_from_environment(operations);
    for (uint64_t seed : support::seeds_from_environment(seeds)) {
        options.seed = seed;
        support::run_random_program(options);
        if (testing::Test::HasFailure())
            return;
    }
}

TEST(RandomProgram, GrowingHeap) {
    RandomProgramOptions options;
    run(options, 10000, 3);
}

TEST(RandomProgram, GrowingHeapWithLargeBlocks) {
    RandomProgramOptions options;
    options.size_most = 256 << 10;
    options.size_rare = 8 << 20;
    options.live_target = 16 << 20;
    options.alignment_most = 64 << 10;
    options.check_every = 7;
    run(options, 10000, 3);
}

TEST(RandomProgram, GrowingHeapOfManyBlocks) {
    RandomProgramOptions options;
    options.size_most = 512;
    options.live_target = 8 << 20;
    options.check_every = 1009;
    options.verify_every = 20000;
    options.destroy_every = 0;
    run(options, 200000, 1);
}

TEST(RandomProgram, SeveralGrowingHeaps) {
    RandomProgramOptions options;
    options.heaps = 5;
    options.check_every = 10;
    run(options, 10000, 3);
}

TEST(RandomProgram, GrowingHeapAtItsLimit) {
    RandomProgramOptions options;
    options.limit = 2 << 20;
    options.live_target = 4 << 20;
    options.size_most = 64 << 10;
    run(options, 5000, 3);
}

TEST(RandomProgram, GrowingHeapScrambled) {
    RandomProgramOptions options;
    options.scramble_period = 3;
    options.live_target = 64 << 10;
    run(options, 5000, 3);
}

TEST(RandomProgram, SmallestFixedHeap) {
    RandomProgramOptions options;
    options.buffer_size = 4096;
    options.size_most = 256;
    options.size_rare = 1024;
    options.alignment_most = 64;
    options.live_target = 4096;
    run(options, 50000, 3);
}

TEST(RandomProgram, FixedHeap) {
    RandomProgramOptions options;
    options.buffer_size = 256 << 10;
    options.size_most = 4 << 10;
    options.size_rare = 64 << 10;
    run(options, 30000, 3);
}

TEST(RandomProgram, FullFixedHeap) {
    RandomProgramOptions options;
    options.buffer_size = 128 << 10;
    options.live_target = 1 << 20;
    options.size_most = 8 << 10;
    options.size_rare = 32 << 10;
    run(options, 20000, 3);
}

TEST(RandomProgram, FixedHeapWithHugeBlocks) {
    RandomProgramOptions options;
    options.buffer_size = 160 << 20;
    options.size_most = 1 << 20;
    options.size_rare = 40 << 20;
    options.live_target = 100 << 20;
    options.check_every = 11;
    options.verify_every = 500;
    run(options, 1500, 2);
}

TEST(RandomProgram, SeveralFixedHeaps) {
    RandomProgramOptions options;
    options.heaps = 6;
    options.buffer_size = 64 << 10;
    options.size_most = 1 << 10;
    options.size_rare = 16 << 10;
    run(options, 20000, 3);
}

TEST(RandomProgram, FixedHeapScrambled) {
    RandomProgramOptions options;
    options.buffer_size = 128 << 10;
    options.size_most = 2 << 10;
    options.size_rare = 16 << 10;
    options.live_target = 64 << 10;
    options.scramble_period = 2;
    run(options, 10000, 3);
}

TEST(RandomProgram, FullFixedHeapScrambled) {
    RandomProgramOptions options;
    options.buffer_size = 32 << 10;
    options.size_most = 4 << 10;
    options.size_rare = 16 << 10;
    options.live_target = 1 << 20;
    options.scramble_period = 5;
    run(options, 10000, 3);
}

} // namespace
