// A fuzzer's bytes choose what a program does with the public calls: the kind of heap, then operation after
// operation, each compared with the model and followed by a check of every rule. What is wrong ends the
// process, and libFuzzer keeps the bytes.
#include <gtest/gtest.h>

#include "support/random_program.hpp"

using support::RandomProgramOptions;

namespace {

enum { OPTION_BYTES = 8, OPERATIONS_MOST = 4000 };

// The first bytes say which heaps there are; half of the programs have fixed ones.
RandomProgramOptions options_from(const uint8_t *data, size_t size) {
    RandomProgramOptions options;
    options.seed = data[0];
    options.heaps = 1 + data[1] % 3;
    if (data[2] % 2 == 0) {
        options.buffer_size = 4096 + size_t{data[2]} * (data[3] % 2 != 0 ? 1 : 512);
        options.size_most = options.buffer_size / 8;
        options.size_rare = options.buffer_size;
        options.alignment_most = 512;
        options.live_target = options.buffer_size * (1 + data[3] % 4) / 2;
    } else {
        options.limit = data[2] % 3 == 0 ? (2 << 20) + (size_t{data[3]} << 12) : 0;
        options.live_target = size_t{8 << 10} << data[3] % 8;
        options.size_most = size_t{256} << data[4] % 10;
        options.size_rare = 2 << 20;
        options.alignment_most = size_t{64} << data[4] % 8;
    }
    options.locked_percent = data[5] % 64;
    options.scramble_period = data[6] % 4 == 0 ? 1 + data[6] / 4 : 0;
    options.verify_every = 64 + data[7];
    options.destroy_every = data[7] % 2 == 0 ? 1000 : 0;
    options.operations = OPERATIONS_MOST;
    options.choices = data + OPTION_BYTES;
    options.choice_bytes = size - OPTION_BYTES;
    return options;
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int *argc, char ***argv);
extern "C" int LLVMFuzzerInitialize(int *argc, char ***argv) {
    testing::InitGoogleTest(argc, *argv);
    testing::GTEST_FLAG(break_on_failure) = true;
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > OPTION_BYTES)
        support::RandomProgram(options_from(data, size)).run();
    return 0;
}
