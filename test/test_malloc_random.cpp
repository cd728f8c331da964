// Random programs of malloc, calloc, realloc, aligned blocks and free against a model that knows every block's
// place, size and contents.
#include <gtest/gtest.h>

#include "support/malloc_calls.hpp"

#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <vector>

namespace {

struct Block {
    unsigned char *place;
    size_t size;
    unsigned char byte;
};

class MallocRandom : public testing::TestWithParam<unsigned> {
  protected:
    size_t size() {
        switch (random_() % 16) {
        case 0:
            return random_() % 400000;
        case 1:
        case 2:
            return random_() % 20000;
        default:
            return random_() % 600;
        }
    }

    void add(unsigned char *place, size_t size) {
        ASSERT_NE(nullptr, place);
        auto next = by_place_.lower_bound(place);
        if (next != by_place_.end()) {
            EXPECT_LE(place + size, next->first);
        }
        if (next != by_place_.begin()) {
            --next;
            EXPECT_LE(next->first + next->second, place);
        }
        by_place_[place] = size == 0 ? 1 : size;
        unsigned char byte = static_cast<unsigned char>(random_());
        std::memset(place, byte, size);
        blocks_.push_back({place, size, byte});
    }

    Block take() {
        size_t index = random_() % blocks_.size();
        Block block = blocks_[index];
        blocks_[index] = blocks_.back();
        blocks_.pop_back();
        by_place_.erase(block.place);
        for (size_t i = 0; i < block.size; i++)
            if (block.place[i] != block.byte) {
                ADD_FAILURE() << "byte " << i << " of " << block.size;
                break;
            }
        return block;
    }

    void allocate() {
        size_t bytes = size();
        switch (random_() % 4) {
        case 0: {
            unsigned char *place = static_cast<unsigned char *>(jeff_calloc(1, bytes));
            for (size_t i = 0; i < bytes; i++)
                ASSERT_EQ(0, place[i]) << i << " of " << bytes;
            add(place, bytes);
            break;
        }
        case 1: {
            size_t alignment = size_t{1} << random_() % 14;
            void *place = jeff_aligned_alloc(alignment, bytes);
            EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(place) % alignment);
            add(static_cast<unsigned char *>(place), bytes);
            break;
        }
        default:
            add(static_cast<unsigned char *>(jeff_malloc(bytes)), bytes);
        }
    }

    void resize() {
        Block block = take();
        size_t bytes = size() + 1;
        size_t kept = block.size < bytes ? block.size : bytes;
        unsigned char *place = static_cast<unsigned char *>(jeff_realloc(block.place, bytes));
        for (size_t i = 0; i < kept; i++)
            ASSERT_EQ(block.byte, place[i]) << i << " of " << block.size << " to " << bytes;
        add(place, bytes);
    }

    void run(size_t operations, size_t live) {
        for (size_t i = 0; i < operations && !HasFailure(); i++) {
            unsigned choice = random_() % 8;
            if (blocks_.empty() || (choice < 4 && blocks_.size() < live))
                allocate();
            else if (choice == 4)
                resize();
            else
                jeff_free(take().place);
        }
        while (!blocks_.empty())
            jeff_free(take().place);
    }

    std::mt19937 random_{GetParam()};
    std::vector<Block> blocks_;
    std::map<unsigned char *, size_t> by_place_;
};

TEST_P(MallocRandom, ContentsAndPlacesAgreeWithTheModel) {
    run(20000, 300);
    jeff_malloc_trim(0);
    run(20000, 3000);
}

INSTANTIATE_TEST_SUITE_P(Seeds, MallocRandom, testing::Values(1u, 2u, 3u, 4u));

} // namespace
