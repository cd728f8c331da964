#include "support/random_program.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>

namespace support {

size_t operations_from_environment(size_t otherwise) {
    const char *value = getenv("JEFF_TEST_OPERATIONS");
    if (value == nullptr)
        return otherwise;
    return value[0] == 'x' ? otherwise * strtoull(value + 1, nullptr, 10)
                           : strtoull(value, nullptr, 10);
}

std::vector<uint64_t> seeds_from_environment(unsigned count) {
    const char *value = getenv("JEFF_TEST_SEED");
    if (value != nullptr)
        return {strtoull(value, nullptr, 10)};
    std::vector<uint64_t> seeds;
    for (unsigned i = 1; i <= count; i++)
        seeds.push_back(i);
    return seeds;
}

void run_random_program(const RandomProgramOptions &options) {
    SCOPED_TRACE("JEFF_TEST_SEED=" + std::to_string(options.seed));
    RandomProgram(options).run();
}

// -------------------------------------------------------------------------------------------- heaps

RandomProgram::RandomProgram(const RandomProgramOptions &options)
    : options_(options),
      random_(options.choices != nullptr ? Random(options.choices, options.choice_bytes)
                                         : Random(options.seed)),
      heaps_(options.heaps), buffers_(options.heaps, std::vector<char>(options.buffer_size)) {
    // asked where a handle's heap cannot be told
    struct rm_options defaults;
    rmoptions_init(&defaults);
    defaults.context = this;
    defaults.misuse = on_misuse;
    rmconfigure(&defaults);
    for (unsigned heap = 0; heap < options_.heaps; heap++)
        create_heap(heap);
}

RandomProgram::~RandomProgram() {
    for (rmheap_t heap : heaps_)
        rmheap_destroy(heap);
    struct rm_options options;
    rmoptions_init(&options);
    rmconfigure(&options);
}

void RandomProgram::create_heap(unsigned heap) {
    struct rm_options options;
    rmoptions_init(&options);
    options.limit = options_.limit;
    options.scramble_period = options_.scramble_period;
    options.scramble_seed = options_.seed;
    options.context = this;
    options.moved = on_moved;
    options.misuse = on_misuse;
    std::vector<char> &buffer = buffers_[heap];
    heaps_[heap] = options_.buffer_size != 0
                       ? rmheap_create_in(buffer.data(), buffer.size(), &options)
                       : rmheap_create(&options);
    ASSERT_NE(heaps_[heap], nullptr);
}

void RandomProgram::on_moved(void *context, rmhandle_t handle, void *address, size_t size) {
    static_cast<RandomProgram *>(context)->moved_.push_back({handle, address, size});
}

int RandomProgram::on_misuse(void *context, const struct rm_misuse *misuse) {
    auto *program = static_cast<RandomProgram *>(context);
    program->misuses_++;
    program->misuse_kind_ = misuse->kind;
    return 1;
}

// -------------------------------------------------------------------------------------------- running

RandomProgram::Operation RandomProgram::choose() {
    size_t requested = 0;
    for (unsigned heap = 0; heap < heaps_.size(); heap++)
        requested += model_.requested(heap);
    const struct {
        unsigned weight;
        Operation operation;
        const char *name;
    } operations[] = {
        {requested < options_.live_target ? 260u : 160u, &RandomProgram::allocate, "allocate"},
        {requested < options_.live_target ? 140u : 240u, &RandomProgram::free_one, "free"},
        {80, &RandomProgram::resize, "resize"},
        {120, &RandomProgram::lock, "lock"},
        {120, &RandomProgram::unlock, "unlock"},
        {20, &RandomProgram::look_weakly, "weak lock"},
        {20, &RandomProgram::look_at_pointer, "handle of"},
        {options_.use_purge ? 15u : 0u, &RandomProgram::mark_purgeable, "purgeable"},
        {20, &RandomProgram::read_section, "read section"},
        {20, &RandomProgram::compact, "compact"},
        {options_.use_misuse ? 10u : 0u, &RandomProgram::misuse, "misuse"},
    };
    unsigned sum = 0;
    for (const auto &each : operations)
        sum += each.weight;
    if (options_.destroy_every != 0 && random_.below(options_.destroy_every) == 0) {
        operation_ = "destroy heap";
        return &RandomProgram::destroy_heap;
    }
    uint64_t drawn = random_.below(sum);
    for (const auto &each : operations) {
        if (drawn < each.weight) {
            operation_ = each.name;
            return each.operation;
        }
        drawn -= each.weight;
    }
    return &RandomProgram::allocate;
}

void RandomProgram::run() {
    for (step_ = 0; step_ < options_.operations && !random_.spent(); step_++) {
        if (testing::Test::HasFailure())
            break;
        Operation operation = choose();
        (this->*operation)();
        verify_moves();
        EXPECT_EQ(misuses_, 0u) << "kind " << misuse_kind_;
        if (step_ % options_.check_every == 0)
            check_rules();
        if (step_ % options_.verify_every == options_.verify_every - 1)
            verify_all();
    }
    if (!testing::Test::HasFailure())
        verify_all();
    if (testing::Test::HasFailure())
        ADD_FAILURE() << "at operation " << step_ << ", " << operation_;
}

void RandomProgram::check_rules() {
    for (rmheap_t heap : heaps_) {
        struct rm_fault fault;
        EXPECT_EQ(rmheap_check(heap, &fault), 0) << fault.name << ": " << fault.text << ", handle "
                                                 << fault.handle << ", address " << fault.address;
    }
}

// -------------------------------------------------------------------------------------------- memory

void RandomProgram::remember_freed(rmhandle_t handle) {
    freed_.push_back(handle);
    if (freed_.size() > 16)
        freed_.erase(freed_.begin());
}

// Memory may run out in a fixed heap or at the limit; then nothing of that size is free.
void RandomProgram::took_no_memory(unsigned heap, size_t size) {
    struct rm_stats stats;
    EXPECT_TRUE(errno == ENOMEM || errno == EBUSY) << strerror(errno);
    EXPECT_TRUE(options_.buffer_size != 0 || options_.limit != 0) << "no memory without a limit";
    rmheap_stats(heaps_[heap], &stats);
    if (options_.buffer_size != 0) {
        EXPECT_LT(stats.largest_free, size + options_.alignment_most);
    }
}

void RandomProgram::got_memory(rmhandle_t handle, unsigned heap, size_t size, size_t alignment,
                               bool zero) {
    EXPECT_EQ(rmsize(handle), size);
    EXPECT_EQ(rmheap_of(handle), heaps_[heap]);
    auto *memory = static_cast<unsigned char *>(rmlock(handle));
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % alignment, 0u);
    if (zero) {
        EXPECT_TRUE(
            std::all_of(memory, memory + size, [](unsigned char byte) { return byte == 0; }));
    }
    uint64_t seed = random_.next();
    fill_pattern(memory, size, seed);
    rmunlock(handle);
    model_.add({handle, heap, size, alignment, seed, size, 0, nullptr, 0, false});
}

void RandomProgram::allocate() {
    auto heap = static_cast<unsigned>(random_.below(heaps_.size()));
    size_t size = random_.size(random_.chance(2) ? options_.size_rare : options_.size_most);
    size_t alignment = 16;
    bool zero = false;
    rmhandle_t handle;
    errno = 0;
    if (random_.chance(100)) {
        alignment = size_t{16} << random_.below(9);
        alignment = std::min(alignment, options_.alignment_most);
        handle = rmheap_aligned_alloc(heaps_[heap], alignment, size);
    } else if (random_.chance(300)) {
        zero = true;
        handle = rmheap_calloc(heaps_[heap], 1, size);
    } else {
        handle = rmheap_malloc(heaps_[heap], size);
    }
    if (handle == nullptr)
        took_no_memory(heap, size);
    else
        got_memory(handle, heap, size, alignment, zero);
}

void RandomProgram::resize() {
    size_t index = model_.any(random_);
    if (index == SIZE_MAX)
        return;
    notice_purge(index);
    ModelBlock &block = model_.at(index);
    size_t size =
        random_.chance(500) ? random_.size(options_.size_most) : random_.below(2 * block.size + 32);
    size = std::min(size, options_.size_rare);
    errno = 0;
    if (rmrealloc(block.handle, size) != 0) {
        EXPECT_TRUE(block.locks == 0 || errno == EBUSY) << strerror(errno);
        if (block.locks == 0)
            took_no_memory(block.heap, size);
        if (!notice_purge(index)) {
            EXPECT_EQ(rmsize(block.handle), block.size);
        }
        return;
    }
    model_.resized(index, size);
    EXPECT_EQ(rmsize(block.handle), size);
    auto *memory = static_cast<unsigned char *>(rmlock(block.handle));
    ASSERT_NE(memory, nullptr);
    EXPECT_TRUE(has_pattern(memory, 0, block.filled, block.seed));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % block.alignment, 0u);
    if (block.locks != 0) {
        EXPECT_EQ(memory, block.address);
    }
    fill_pattern(memory, size, block.seed);
    block.filled = size;
    rmunlock(block.handle);
}

void RandomProgram::free_one() {
    size_t index = model_.any_unlocked(random_);
    if (index == SIZE_MAX)
        return;
    notice_purge(index);
    errno = 1234;
    rmfree(model_.at(index).handle);
    EXPECT_EQ(errno, 1234);
    EXPECT_EQ(rmheap_of(model_.at(index).handle), nullptr);
    remember_freed(model_.at(index).handle);
    model_.remove(index);
}

void RandomProgram::destroy_heap() {
    auto heap = static_cast<unsigned>(random_.below(heaps_.size()));
    rmheap_destroy(heaps_[heap]);
    model_.drop_heap(heap);
    freed_.clear();
    create_heap(heap);
}

// -------------------------------------------------------------------------------------------- looking

bool RandomProgram::notice_purge(size_t index) {
    ModelBlock &block = model_.at(index);
    if (block.priority == 0 || block.purged || block.locks != 0)
        return block.purged;
    if (rmpurgeable(block.handle, block.priority) != 1)
        return false;
    EXPECT_EQ(rmsize(block.handle), 0u);
    EXPECT_EQ(rmlock(block.handle), nullptr);
    EXPECT_EQ(rmtrylock(block.handle), nullptr);
    EXPECT_EQ(rmweaklock(block.handle), nullptr);
    model_.set_purged(index);
    return true;
}

void RandomProgram::verify_contents(const ModelBlock &block, const void *memory, bool whole) {
    enum { SAMPLE = 1024 };
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % block.alignment, 0u);
    if (whole || block.filled <= 2 * SAMPLE) {
        EXPECT_TRUE(has_pattern(memory, 0, block.filled, block.seed)) << block.handle;
        return;
    }
    size_t from = random_.below(block.filled - SAMPLE);
    EXPECT_TRUE(has_pattern(memory, 0, SAMPLE, block.seed)) << block.handle;
    EXPECT_TRUE(has_pattern(memory, from, from + SAMPLE, block.seed)) << block.handle;
    EXPECT_TRUE(has_pattern(memory, block.filled - SAMPLE, block.filled, block.seed))
        << block.handle;
}

void RandomProgram::verify_block(size_t index) {
    if (notice_purge(index))
        return;
    const ModelBlock &block = model_.at(index);
    EXPECT_EQ(rmsize(block.handle), block.size);
    const void *memory = rmlock(block.handle);
    ASSERT_NE(memory, nullptr);
    verify_contents(block, memory, true);
    if (block.locks != 0) {
        EXPECT_EQ(memory, block.address);
    }
    rmunlock(block.handle);
}

// What the callback said last about a block is where it is now.
void RandomProgram::verify_moves() {
    std::map<rmhandle_t, Moved> last;
    for (const Moved &moved : moved_)
        last[moved.handle] = moved;
    moved_.clear();
    for (const auto &[handle, moved] : last) {
        if (rmheap_of(handle) == nullptr)
            continue;
        const void *address = rmweaklock(handle);
        if (address != nullptr && rmsize(handle) == moved.size && operation_ != "resize") {
            EXPECT_EQ(address, moved.address) << handle;
        }
    }
}

void RandomProgram::verify_figures(unsigned heap) {
    struct rm_stats stats, brief;
    rmheap_stats(heaps_[heap], &stats);
    rmheap_stats_brief(heaps_[heap], &brief);
    size_t locked = 0;
    for (size_t i = 0; i < model_.count(); i++)
        locked += model_.at(i).heap == heap && model_.at(i).locks != 0;
    EXPECT_EQ(stats.blocks, model_.blocks(heap));
    EXPECT_EQ(stats.requested, model_.requested(heap));
    EXPECT_EQ(stats.locked_blocks, locked);
    EXPECT_GE(stats.live, stats.requested);
    EXPECT_LE(stats.live, stats.committed);
    EXPECT_LE(stats.committed, stats.peak_committed);
    EXPECT_EQ(brief.blocks, stats.blocks);
    EXPECT_EQ(brief.live, stats.live);
    EXPECT_EQ(brief.committed, stats.committed);
    if (options_.limit != 0) {
        EXPECT_LE(stats.peak_committed, options_.limit + (128 << 10));
    }
}

void RandomProgram::verify_visit(unsigned heap) {
    struct Context {
        std::map<rmhandle_t, rm_block_info> seen;
    } context;
    auto visit = [](void *opaque, const struct rm_block_info *info) {
        bool fresh = static_cast<Context *>(opaque)->seen.emplace(info->handle, *info).second;
        return fresh ? 0 : 1;
    };
    EXPECT_EQ(rmheap_visit(heaps_[heap], visit, &context), 0) << "a block was visited twice";
    size_t expected = 0;
    for (size_t i = 0; i < model_.count(); i++) {
        const ModelBlock &block = model_.at(i);
        if (block.heap != heap || block.purged)
            continue;
        expected++;
        auto found = context.seen.find(block.handle);
        ASSERT_NE(found, context.seen.end()) << block.handle;
        EXPECT_EQ(found->second.size, block.size);
        EXPECT_EQ(found->second.locks, block.locks);
        EXPECT_EQ(found->second.alignment, block.alignment);
        EXPECT_EQ(found->second.priority, static_cast<unsigned>(block.priority));
        EXPECT_EQ(found->second.address, rmweaklock(block.handle));
    }
    EXPECT_EQ(context.seen.size(), expected);
}

void RandomProgram::verify_all() {
    for (size_t i = 0; i < model_.count(); i++)
        verify_block(i);
    for (unsigned heap = 0; heap < heaps_.size(); heap++) {
        verify_figures(heap);
        verify_visit(heap);
    }
    check_rules();
}

// -------------------------------------------------------------------------------------------- locks

void RandomProgram::lock() {
    size_t index = model_.any(random_);
    if (index == SIZE_MAX || notice_purge(index))
        return;
    ModelBlock &block = model_.at(index);
    size_t most = model_.count() * options_.locked_percent / 100;
    if (block.locks == 0 && model_.locked_count() >= most)
        return;
    const void *memory;
    if (random_.chance(100))
        memory = rmlock_long(block.handle);
    else if (random_.chance(300))
        memory = rmtrylock(block.handle);
    else
        memory = rmlock(block.handle);
    ASSERT_NE(memory, nullptr);
    if (block.locks != 0) {
        EXPECT_EQ(memory, block.address);
    }
    model_.count_lock(index, memory);
    verify_contents(block, memory, false);
    if (random_.chance(200)) {
        block.seed = random_.next();
        block.filled = block.size;
        fill_pattern(const_cast<void *>(memory), block.size, block.seed);
    }
}

void RandomProgram::unlock() {
    size_t index = model_.any_locked(random_);
    if (index == SIZE_MAX)
        return;
    ModelBlock &block = model_.at(index);
    verify_contents(block, block.address, false);
    rmunlock(block.handle);
    model_.count_unlock(index);
}

void RandomProgram::look_weakly() {
    size_t index = model_.any(random_);
    if (index == SIZE_MAX || notice_purge(index))
        return;
    const ModelBlock &block = model_.at(index);
    const void *memory = rmweaklock(block.handle);
    ASSERT_NE(memory, nullptr);
    verify_contents(block, memory, false);
    EXPECT_EQ(rmweak_valid(block.handle, memory), 1);
    if (block.locks != 0) {
        EXPECT_EQ(memory, block.address);
    }
    rmheap_compact_us(heaps_[block.heap], 50, nullptr);
    EXPECT_EQ(rmweak_valid(block.handle, memory), memory == rmweaklock(block.handle));
    for (rmhandle_t freed : freed_)
        EXPECT_EQ(rmweak_valid(freed, memory), 0);
}

void RandomProgram::look_at_pointer() {
    size_t index = model_.any(random_);
    if (index == SIZE_MAX || notice_purge(index))
        return;
    const ModelBlock &block = model_.at(index);
    if (block.locks == 0) {
        EXPECT_EQ(rmhandle_of(rmweaklock(block.handle)), nullptr);
        return;
    }
    EXPECT_EQ(rmhandle_of(block.address), block.handle);
    if (block.size >= 32) {
        EXPECT_EQ(rmhandle_of(static_cast<const char *>(block.address) + 16), nullptr);
    }
}

void RandomProgram::mark_purgeable() {
    size_t index = model_.any(random_);
    if (index == SIZE_MAX || notice_purge(index) || model_.at(index).size == 0)
        return;
    int priority = static_cast<int>(random_.below(RM_PURGE_PRIORITY_MAX + 1));
    EXPECT_EQ(rmpurgeable(model_.at(index).handle, priority), 0);
    model_.at(index).priority = priority;
}

// Blocks read in a section stay where they are, whatever is allocated or compacted meanwhile.
void RandomProgram::read_section() {
    std::vector<std::pair<size_t, const void *>> read;
    rmread_begin();
    for (uint64_t count = 1 + random_.below(16); count > 0; count--) {
        size_t index = model_.any(random_);
        const void *memory = index != SIZE_MAX ? rmderef(model_.at(index).handle) : nullptr;
        if (memory != nullptr)
            read.emplace_back(index, memory);
    }
    bool nested = random_.chance(200);
    if (nested)
        rmread_begin();
    if (random_.chance(300))
        rmheap_compact_us(heaps_[random_.below(heaps_.size())],
                          static_cast<uint32_t>(random_.below(300)), nullptr);
    if (random_.chance(300))
        allocate();
    for (const auto &[index, memory] : read) {
        const ModelBlock &block = model_.at(index);
        EXPECT_EQ(rmderef(block.handle), memory);
        verify_contents(block, memory, false);
    }
    if (nested)
        rmread_end();
    rmread_end();
}

void RandomProgram::compact() {
    rmheap_t heap = heaps_[random_.below(heaps_.size())];
    uint32_t budget = random_.chance(200) ? 0 : static_cast<uint32_t>(10 + random_.below(500));
    struct rm_compact_result result;
    rm_compact_status status = rmheap_compact_us(heap, budget, &result);
    EXPECT_EQ(status, result.status);
    if (budget != 0)
        return;
    // An unlimited call leaves nothing to gain: the next one moves nothing.
    EXPECT_NE(status, RM_COMPACT_BUDGET);
    rm_compact_status again = rmheap_compact_us(heap, 0, &result);
    EXPECT_EQ(again, status);
    EXPECT_EQ(result.blocks_moved, 0u);
}

// -------------------------------------------------------------------------------------------- misuse

void RandomProgram::expect_misuse(enum rm_misuse_kind kind) {
    EXPECT_EQ(misuses_, 1u) << "kind " << kind;
    EXPECT_EQ(misuse_kind_, kind);
    misuses_ = 0;
}

void RandomProgram::misuse() {
    size_t unlocked = model_.any_unlocked(random_);
    size_t locked = model_.any_locked(random_);
    int dummy;
    switch (random_.below(6)) {
    case 0:
        if (unlocked != SIZE_MAX) {
            rmunlock(model_.at(unlocked).handle);
            expect_misuse(RM_MISUSE_UNLOCK_UNLOCKED);
        }
        break;
    case 1:
        if (locked != SIZE_MAX) {
            rmfree(model_.at(locked).handle);
            expect_misuse(RM_MISUSE_FREE_LOCKED);
        }
        break;
    case 2:
        if (!freed_.empty()) {
            rmfree(freed_[random_.below(freed_.size())]);
            expect_misuse(RM_MISUSE_STALE_HANDLE);
        }
        break;
    case 3:
        if (!freed_.empty()) {
            EXPECT_EQ(rmlock(freed_[random_.below(freed_.size())]), nullptr);
            expect_misuse(RM_MISUSE_STALE_HANDLE);
        }
        break;
    case 4:
        EXPECT_EQ(rmlock(nullptr), nullptr);
        expect_misuse(RM_MISUSE_NULL_HANDLE);
        break;
    default:
        EXPECT_EQ(rmrealloc(reinterpret_cast<rmhandle_t>(&dummy), 1), -1);
        expect_misuse(RM_MISUSE_FOREIGN_HANDLE);
    }
}

} // namespace support
