#include "support/threads.hpp"

#include <cerrno>
#include <cstdlib>

// Races that are meant: a block that is being copied may be written by whoever locks it, and the copy is
// thrown away then; what is read by a weak pointer is thrown away when the block has moved.
extern "C" const char *__tsan_default_suppressions();
extern "C" const char *__tsan_default_suppressions() {
    return "race:^move_marked$\nrace:^trade_places$\nrace:look_weakly\n";
}

// And long memories of the threads: what was read by a stack that is forgotten is suppressed by no name.
extern "C" __attribute__((weak)) const char *__tsan_default_options();
extern "C" const char *__tsan_default_options() {
    return "history_size=7";
}

namespace support {

size_t thread_operations(size_t usual) {
    const char *text = std::getenv("JEFF_TEST_THREADS_SCALE");
    double scale = text != nullptr ? std::strtod(text, nullptr) : 1;
    return static_cast<size_t>(static_cast<double>(JF_TEST_SANITIZED ? usual / 4 : usual) * scale);
}

Filled make_filled(rmheap_t heap, Random &random, size_t most) {
    Filled block;
    block.size = random.size(most);
    block.seed = random.next();
    bool aligned = random.chance(50);
    block.handle = aligned ? rmheap_aligned_alloc(heap, size_t{32} << random.below(5), block.size)
                           : rmheap_malloc(heap, block.size);
    if (block.handle == nullptr) {
        EXPECT_EQ(errno, ENOMEM);
        return block;
    }
    void *memory = rmlock(block.handle);
    EXPECT_NE(memory, nullptr);
    fill_pattern(memory, block.size, block.seed);
    rmunlock(block.handle);
    return block;
}

bool verify_at(const Filled &block, const void *memory) {
    if (memory != nullptr && has_pattern(memory, 0, block.size, block.seed))
        return true;
    ADD_FAILURE() << "contents of block " << static_cast<void *>(block.handle) << " of "
                  << block.size << " bytes at " << memory << " are wrong";
    return false;
}

bool verify_filled(const Filled &block) {
    const void *memory = rmlock(block.handle);
    bool right = verify_at(block, memory);
    if (memory != nullptr)
        rmunlock(block.handle);
    return right;
}

void free_filled(const Filled &block) {
    verify_filled(block);
    rmfree(block.handle);
}

// ---------------------------------------------------------------------------------------- compactor

BusyCompactor::BusyCompactor(rmheap_t heap, uint64_t seed)
    : heap_(heap), thread_([this, seed] { run(seed); }) {}

BusyCompactor::~BusyCompactor() {
    stop();
}

void BusyCompactor::stop() {
    stop_ = true;
    if (thread_.joinable())
        thread_.join();
}

void BusyCompactor::run(uint64_t seed) {
    Random random(seed);
    while (!stop_) {
        rm_compact_result result;
        uint32_t budget = random.chance(100) ? 0 : static_cast<uint32_t>(20 + random.below(1000));
        rmheap_compact_us(heap_, budget, &result);
        moved_ += result.blocks_moved;
        if (random.chance(250))
            std::this_thread::yield();
    }
}

// ---------------------------------------------------------------------------------------- exchange

bool Exchange::put(const Filled &block) {
    std::lock_guard<std::mutex> guard(mutex_);
    if (blocks_.size() >= most_)
        return false;
    blocks_.push_back(block);
    return true;
}

bool Exchange::take(Random &random, Filled *ret_block) {
    std::lock_guard<std::mutex> guard(mutex_);
    if (blocks_.empty())
        return false;
    size_t index = random.below(blocks_.size());
    *ret_block = blocks_[index];
    blocks_[index] = blocks_.back();
    blocks_.pop_back();
    return true;
}

void Exchange::clear() {
    for (const Filled &block : blocks_)
        free_filled(block);
    blocks_.clear();
}

void run_threads(unsigned count, const std::function<void(unsigned)> &work) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < count; i++)
        threads.emplace_back(work, i);
    for (std::thread &thread : threads)
        thread.join();
}

void expect_whole(rmheap_t heap) {
    rm_fault fault;
    EXPECT_EQ(rmheap_check(heap, &fault), 0)
        << fault.name << " at " << fault.address << ": " << fault.text;
}

// ---------------------------------------------------------------------------------------- workers

namespace {

class Mixed {
  public:
    Mixed(const MixedOptions &options, uint64_t seed) : options_(options), random_(seed) {}

    void run() {
        for (size_t i = 0; i < options_.operations && !testing::Test::HasFailure(); i++)
            step();
        for (const Filled &block : blocks_)
            free_filled(block);
    }

  private:
    void step() {
        unsigned choice = static_cast<unsigned>(random_.below(16));
        if (choice < 5 || blocks_.empty())
            allocate();
        else if (choice < 8)
            free_filled(take(any()));
        else if (choice == 8)
            hand_over();
        else if (choice == 9)
            receive();
        else if (choice == 10)
            read();
        else if (choice == 11)
            resize(blocks_[any()]);
        else if (choice == 12)
            lock_long(blocks_[any()]);
        else if (choice == 13)
            look_weakly(blocks_[any()]);
        else
            lock_twice(blocks_[any()]);
        if (blocks_.size() > options_.blocks_most)
            free_half();
    }

    size_t any() {
        return random_.below(blocks_.size());
    }

    Filled take(size_t index) {
        Filled block = blocks_[index];
        blocks_[index] = blocks_.back();
        blocks_.pop_back();
        return block;
    }

    void allocate() {
        size_t most = random_.chance(10) ? options_.size_rare : options_.size_most;
        Filled block = make_filled(options_.heap, random_, most);
        if (block.handle != nullptr)
            blocks_.push_back(block);
        else if (!options_.may_fail)
            ADD_FAILURE() << "no memory for " << block.size << " bytes";
        else if (!blocks_.empty())
            free_half();
    }

    void free_half() {
        for (size_t left = (blocks_.size() + 1) / 2; left > 0; left--) {
            free_filled(blocks_.back());
            blocks_.pop_back();
        }
    }

    void hand_over() {
        size_t index = any();
        if (options_.exchange != nullptr && options_.exchange->put(blocks_[index]))
            take(index);
    }

    void receive() {
        Filled block;
        if (options_.exchange == nullptr || !options_.exchange->take(random_, &block))
            return;
        if (random_.chance(500)) {
            free_filled(block);
        } else if (verify_filled(block)) {
            blocks_.push_back(block);
        }
    }

    void read() {
        rmread_begin();
        for (unsigned i = 0; i < 8; i++) {
            const Filled &block = blocks_[any()];
            const void *memory = rmderef(block.handle);
            verify_at(block, memory);
            EXPECT_EQ(rmderef(block.handle), memory);
        }
        rmread_end();
    }

    void resize(Filled &block) {
        size_t size = random_.size(random_.chance(50) ? options_.size_rare : options_.size_most);
        if (rmrealloc(block.handle, size) != 0) {
            EXPECT_EQ(errno, ENOMEM);
            EXPECT_TRUE(options_.may_fail);
            verify_filled(block);
            return;
        }
        Filled kept = block;
        kept.size = block.size < size ? block.size : size;
        verify_filled(kept);
        EXPECT_EQ(rmsize(block.handle), size);
        block.size = size;
        fill_pattern(rmlock(block.handle), size, block.seed);
        rmunlock(block.handle);
    }

    void lock_long(const Filled &block) {
        const void *memory = rmlock_long(block.handle);
        verify_at(block, memory);
        std::this_thread::yield();
        verify_at(block, memory);
        EXPECT_EQ(rmhandle_of(memory), block.handle);
        rmunlock(block.handle);
    }

    void look_weakly(const Filled &block) {
        const void *memory = rmweaklock(block.handle);
        bool right = has_pattern(memory, 0, block.size, block.seed);
        EXPECT_TRUE(right || !rmweak_valid(block.handle, memory));
    }

    void lock_twice(const Filled &block) {
        const void *memory = rmlock(block.handle);
        verify_at(block, memory);
        if (random_.chance(30))
            std::this_thread::yield();
        EXPECT_EQ(rmtrylock(block.handle), memory);
        verify_at(block, memory);
        rmunlock(block.handle);
        rmunlock(block.handle);
    }

    MixedOptions options_;
    Random random_;
    std::vector<Filled> blocks_;
};

} // namespace

void run_mixed(const MixedOptions &options, uint64_t seed) {
    Mixed(options, seed).run();
}

} // namespace support
