// A random program over the public calls, compared with the model at every step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "support/model.hpp"

namespace support {

struct RandomProgramOptions {
    uint64_t seed = 1;
    const uint8_t *choices = nullptr; // in place of random numbers: ends when these bytes are spent
    size_t choice_bytes = 0;
    size_t operations = 10000;
    unsigned heaps = 1;             // at most 8
    size_t buffer_size = 0;         // fixed heaps of this size; 0: growing ones
    size_t limit = 0;               // of every growing heap; 0: none
    size_t live_target = 256 << 10; // bytes that the program tries to keep, all heaps together
    size_t size_most = 16 << 10;    // largest block but for the rare ones
    size_t size_rare = 1 << 20;     // largest of the rare ones (1 in 500)
    size_t alignment_most = 4096;
    unsigned locked_percent = 10; // of the blocks, at most
    unsigned check_every = 1;     // operations between two checks
    unsigned verify_every = 2000; // operations between two looks at all contents and figures
    unsigned scramble_period = 0;
    unsigned destroy_every = 5000; // operations, about, between two ends of a heap; 0: never
    bool use_purge = true;
    bool use_misuse = true; // commits misuse now and then and expects it to be found
};

// JEFF_TEST_OPERATIONS in the environment, or so many times `otherwise` when it begins with an x (x10).
size_t operations_from_environment(size_t otherwise);
// JEFF_TEST_SEED in the environment, or all seeds from 1 to `count`.
std::vector<uint64_t> seeds_from_environment(unsigned count);

// Runs the program; failures are reported to GoogleTest with the seed and the operation's number.
void run_random_program(const RandomProgramOptions &options);

class RandomProgram {
  public:
    explicit RandomProgram(const RandomProgramOptions &options);
    ~RandomProgram();
    RandomProgram(const RandomProgram &) = delete;
    RandomProgram &operator=(const RandomProgram &) = delete;

    // Does operation after operation until one fails, or the choices are spent.
    void run();

  private:
    using Operation = void (RandomProgram::*)();

    void create_heap(unsigned heap);
    Operation choose();

    void allocate();
    void resize();
    void free_one();
    void lock();
    void unlock();
    void look_weakly();
    void look_at_pointer();
    void mark_purgeable();
    void read_section();
    void compact();
    void destroy_heap();
    void misuse();

    void took_no_memory(unsigned heap, size_t size);
    void got_memory(rmhandle_t handle, unsigned heap, size_t size, size_t alignment, bool zero);
    void remember_freed(rmhandle_t handle);
    // Whether the block has been emptied, as it may when it is purgeable.
    bool notice_purge(size_t index);
    void verify_contents(const ModelBlock &block, const void *memory, bool whole);
    void verify_block(size_t index);
    void verify_moves();
    void verify_figures(unsigned heap);
    void verify_visit(unsigned heap);
    void verify_all();
    void check_rules();
    void expect_misuse(enum rm_misuse_kind kind);

    static void on_moved(void *context, rmhandle_t handle, void *address, size_t size);
    static int on_misuse(void *context, const struct rm_misuse *misuse);

    struct Moved {
        rmhandle_t handle;
        void *address;
        size_t size;
    };

    RandomProgramOptions options_;
    Random random_;
    Model model_;
    std::vector<rmheap_t> heaps_;
    std::vector<std::vector<char>> buffers_;
    std::vector<Moved> moved_;
    std::vector<rmhandle_t> freed_; // the last few
    size_t step_ = 0;
    std::string operation_;
    unsigned misuses_ = 0;
    enum rm_misuse_kind misuse_kind_ = RM_MISUSE_NULL_HANDLE;
};

} // namespace support
