// A fixed heap under test with a model beside it: what every block must contain, how it must be aligned,
// and where it must lie while it is locked. Works below the public calls, as those do.
#ifndef JEFF_TEST_SUPPORT_FIXED_HEAP_HPP
#define JEFF_TEST_SUPPORT_FIXED_HEAP_HPP

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <vector>

extern "C" {
#include "check/check.h"
#include "compact/compact.h"
#include "heap/fixed.h"
}

namespace fixed_test {

constexpr size_t kib = 1024;
constexpr size_t mib = size_t{1} << 20;

struct Block {
    rmhandle_t handle;
    size_t size;
    unsigned align_log2;
    uint64_t seed;
    unsigned locks = 0;
    uintptr_t locked_at = 0;
    bool purged = false;
};

class FixedHeap {
  public:
    // `shift` bytes are left out at the front, so that the heap gets a buffer aligned to nothing.
    explicit FixedHeap(size_t size, size_t shift = 0, jf_options options = {})
        : memory_(static_cast<char *>(std::malloc(size + shift))),
          heap_(jf_fixed_create(memory_ + shift, size, &options, 1)) {
        jf_readers_init(&readers_);
    }
    ~FixedHeap() {
        jf_fixed_destroy(heap_);
        std::free(memory_);
    }
    FixedHeap(const FixedHeap &) = delete;
    FixedHeap &operator=(const FixedHeap &) = delete;

    jf_heap *get() {
        return heap_;
    }
    jf_fixed &part() {
        return heap_->u.fixed_part;
    }
    jf_readers &readers() {
        return readers_;
    }
    std::map<uint32_t, Block> &blocks() {
        return blocks_;
    }
    Block &block(uint32_t index) {
        return blocks_.at(index);
    }
    jf_word word(uint32_t index) {
        return jf_word_load(jf_space_entry(heap_->space, index));
    }
    uintptr_t address(uint32_t index) {
        return jf_space_address(heap_->space, word(index));
    }

    // The new block's index, 0 when there was no room.
    uint32_t allocate(size_t size, unsigned align_log2 = 4) {
        uint32_t index = jf_fixed_allocate(heap_, size, align_log2);
        if (index == 0)
            return 0;
        EXPECT_EQ(blocks_.count(index), 0u);
        Block block{handle_of(index), size, align_log2, ++seeds_};
        fill(index, block, 0);
        blocks_[index] = block;
        return index;
    }

    void release(uint32_t index) {
        jf_word old;
        ASSERT_EQ(jf_access_free(heap_->space, index, block(index).handle, &old), JF_ACCESS_OK);
        if (!block(index).purged)
            jf_fixed_release_block(heap_, jf_space_address(heap_->space, old));
        jf_fixed_release_entry(heap_, index);
        blocks_.erase(index);
    }

    void lock(uint32_t index) {
        void *pointer;
        Block &locked = block(index);
        ASSERT_EQ(jf_access_lock(heap_->space, heap_, index, locked.handle, true, &pointer),
                  JF_ACCESS_OK);
        locked.locks++;
        locked.locked_at = reinterpret_cast<uintptr_t>(pointer);
        ASSERT_EQ(locked.locked_at, address(index));
    }

    void unlock(uint32_t index) {
        ASSERT_EQ(jf_access_unlock(heap_->space, index, block(index).handle), JF_ACCESS_OK);
        block(index).locks--;
    }

    bool resize(uint32_t index, size_t size) {
        Block &resized = block(index);
        jf_word before;
        enum jf_access access = jf_access_claim(heap_->space, index, resized.handle, &before);
        EXPECT_EQ(access, resized.locks != 0 ? JF_ACCESS_LOCKED : JF_ACCESS_OK);
        if (!jf_fixed_resize(heap_, index, size, resized.locks != 0)) {
            jf_access_unclaim(heap_->space, index, before);
            return false;
        }
        fill(index, Block{resized.handle, size, 0, resized.seed},
             resized.purged ? 0 : resized.size);
        resized.size = size;
        resized.purged = false;
        return true;
    }

    void set_priority(uint32_t index, unsigned priority) {
        uintptr_t header = address(index) - JF_HEADER_SIZE;
        jf_header_store(header,
                        jf_header_with_kind(jf_header_load(header), JF_KIND_BLOCK + priority));
    }

    // The block that was emptied, 0 for none.
    uint32_t purge(unsigned priority) {
        if (!jf_fixed_purge_one(heap_, priority, &readers_, nullptr))
            return 0;
        for (auto &[index, block] : blocks_) {
            if (!block.purged && jf_entry_state(word(index)) == JF_ENTRY_PURGED) {
                block.purged = true;
                return index;
            }
        }
        ADD_FAILURE() << "nothing was purged";
        return 0;
    }

    // Compacts for max_us microseconds; 0 = no limit.
    rm_compact_status slide(uint32_t max_us = 0, const rm_reader *own = nullptr) {
        static jf_compaction compaction;
        compaction = {};
        compaction.heap = heap_;
        compaction.readers = &readers_;
        compaction.own_reader = own;
        jf_budget_start(&compaction.budget, max_us);
        rm_compact_status status = jf_slide(&compaction);
        result = compaction.result;
        return status;
    }

    struct Holes {
        size_t count = 0, bytes = 0, largest = 0;
    };
    Holes holes() {
        Holes holes;
        jf_step step;
        for (uintptr_t at = part().start; at < jf_fixed_last(heap_); at += step.stride) {
            if (!jf_block_step(at, &step))
                return holes;
            if (step.hole) {
                holes.count++;
                holes.bytes += step.stride;
                holes.largest = std::max(holes.largest, step.stride);
            }
        }
        return holes;
    }

    // Every rule of the heap, and that it has the model's blocks and no other.
    void check() {
        rm_fault fault = {};
        ASSERT_EQ(jf_check(heap_, &fault), 0)
            << fault.name << ": " << fault.text << " at " << fault.address;
        size_t live = 0;
        jf_step step;
        uintptr_t at = part().start;
        for (; at < jf_fixed_last(heap_); at += step.stride) {
            ASSERT_TRUE(jf_block_step(at, &step)) << at - part().start;
            if (step.hole)
                continue;
            uint32_t index = jf_header_index(step.header);
            ASSERT_EQ(blocks_.count(index), 1u);
            ASSERT_EQ(step.payload, address(index));
            ASSERT_EQ(jf_step_size(&step), block(index).size);
            check_place(index);
            live++;
        }
        ASSERT_EQ(at, jf_fixed_last(heap_));
        for (auto &[index, block] : blocks_)
            live += block.purged;
        ASSERT_EQ(live, blocks_.size());
        ASSERT_EQ(part().used_entries, blocks_.size());
    }

    void check_contents() {
        for (auto &[index, block] : blocks_)
            check_contents(index);
    }

    void check_contents(uint32_t index) {
        const Block &checked = block(index);
        if (checked.purged)
            return;
        copy_.resize(checked.size);
        jf_mark_copy(copy_.data(), reinterpret_cast<const void *>(address(index)), checked.size);
        for (size_t i = 0; i < checked.size; i += i < 64 ? 1 : 8)
            ASSERT_EQ(copy_[i], byte(checked, i)) << "byte " << i << " of " << checked.size;
    }

    // What the block must contain at a position.
    static unsigned char byte(const Block &block, size_t position) {
        return static_cast<unsigned char>((block.seed * 31 + position) * 0x9e3779b97f4a7c15u >> 56);
    }

    rm_compact_result result = {};

  private:
    rmhandle_t handle_of(uint32_t index) {
        return jf_handle_make(heap_->space, index, jf_entry_generation(word(index)));
    }

    void fill(uint32_t index, const Block &block, size_t from) {
        if (from >= block.size)
            return;
        copy_.resize(block.size - from);
        for (size_t i = from; i < block.size; i++)
            copy_[i - from] = byte(block, i);
        jf_mark_copy(reinterpret_cast<void *>(address(index) + from), copy_.data(), copy_.size());
    }

    void check_place(uint32_t index) {
        const Block &checked = block(index);
        ASSERT_EQ(address(index) & ((uintptr_t{1} << checked.align_log2) - 1), 0u);
        ASSERT_EQ(jf_entry_count(word(index)), checked.locks);
        if (checked.locks != 0) {
            ASSERT_EQ(address(index), checked.locked_at);
        }
    }

    char *memory_;
    jf_heap *heap_;
    jf_readers readers_;
    std::map<uint32_t, Block> blocks_;
    uint64_t seeds_ = 0;
    std::vector<unsigned char> copy_;
};

} // namespace fixed_test

#endif
