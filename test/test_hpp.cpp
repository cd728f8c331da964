// The C++17 face: ownership, guards, exceptions.
#include <gtest/gtest.h>

#include <jeff/jeff.hpp>

#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

namespace {

static_assert(!std::is_copy_constructible_v<jeff::handle>);
static_assert(!std::is_copy_assignable_v<jeff::handle>);
static_assert(std::is_nothrow_move_constructible_v<jeff::handle>);
static_assert(std::is_nothrow_move_assignable_v<jeff::handle>);
static_assert(!std::is_copy_constructible_v<jeff::locked<int>>);
static_assert(std::is_nothrow_move_constructible_v<jeff::locked<int>>);
static_assert(!std::is_copy_constructible_v<jeff::read_section>);
static_assert(!std::is_move_constructible_v<jeff::read_section>);
static_assert(sizeof(jeff::handle) == sizeof(rmhandle_t));

class Hpp : public testing::Test {
  protected:
    Hpp() : buffer_(64 << 10) {
        rm_options options;
        rmoptions_init(&options);
        options.check = 2;
        heap_ = rmheap_create_in(buffer_.data(), buffer_.size(), &options);
    }
    ~Hpp() override {
        rmheap_destroy(heap_);
    }

    uint64_t blocks() const {
        rm_stats stats;
        rmheap_stats(heap_, &stats);
        return stats.blocks;
    }
    uint64_t locked_blocks() const {
        rm_stats stats;
        rmheap_stats(heap_, &stats);
        return stats.locked_blocks;
    }

    std::vector<char> buffer_;
    rmheap_t heap_;
};

TEST_F(Hpp, HandleFreesItsBlockAtItsEnd) {
    {
        jeff::handle block(100, heap_);
        EXPECT_TRUE(block);
        EXPECT_EQ(100u, block.size());
        EXPECT_EQ(1u, blocks());
    }
    EXPECT_EQ(0u, blocks());
}

TEST_F(Hpp, EmptyHandleOwnsNothing) {
    jeff::handle block;
    EXPECT_FALSE(block);
    EXPECT_EQ(nullptr, block.get());
    block.reset();
}

TEST_F(Hpp, MovePassesTheBlockOn) {
    jeff::handle first(10, heap_);
    rmhandle_t raw = first.get();
    jeff::handle second(std::move(first));
    EXPECT_FALSE(first);
    EXPECT_EQ(raw, second.get());
    jeff::handle third(20, heap_);
    third = std::move(second);
    EXPECT_FALSE(second);
    EXPECT_EQ(raw, third.get());
    EXPECT_EQ(1u, blocks());
    jeff::handle &same = third;
    third = std::move(same);
    EXPECT_EQ(raw, third.get());
    EXPECT_EQ(1u, blocks());
}

TEST_F(Hpp, SwapReleaseResetAdopt) {
    jeff::handle first(10, heap_), second(20, heap_);
    swap(first, second);
    EXPECT_EQ(20u, first.size());
    rmhandle_t raw = first.release();
    EXPECT_FALSE(first);
    EXPECT_EQ(2u, blocks());
    second.reset(raw);
    EXPECT_EQ(1u, blocks());
    EXPECT_EQ(20u, second.size());
    jeff::handle third = jeff::handle::adopt(second.release());
    EXPECT_EQ(20u, third.size());
}

TEST_F(Hpp, LockedUnlocksAtItsEnd) {
    jeff::handle block = jeff::handle::of<int>(5, heap_);
    {
        jeff::locked<int> numbers = block.lock<int>();
        ASSERT_TRUE(numbers);
        EXPECT_EQ(5u, numbers.size());
        std::iota(numbers.begin(), numbers.end(), 7);
        EXPECT_EQ(7, *numbers);
        EXPECT_EQ(11, numbers[4]);
        EXPECT_EQ(numbers.get() + 5, numbers.end());
        EXPECT_EQ(1u, locked_blocks());
    }
    EXPECT_EQ(0u, locked_blocks());
}

TEST_F(Hpp, LockedPassesItsLockOnOnce) {
    jeff::handle block = jeff::handle::of<int>(5, heap_);
    jeff::handle other = jeff::handle::of<int>(5, heap_);
    jeff::locked<int> first = block.lock<int>();
    jeff::locked<int> second(std::move(first));
    EXPECT_FALSE(first);
    EXPECT_TRUE(second);
    EXPECT_EQ(1u, locked_blocks());
    jeff::locked<int> third = other.lock_long<int>();
    EXPECT_EQ(2u, locked_blocks());
    third = std::move(second);
    EXPECT_EQ(1u, locked_blocks());
    third.unlock();
    EXPECT_FALSE(third);
    EXPECT_EQ(0u, third.size());
    EXPECT_EQ(third.begin(), third.end());
    EXPECT_EQ(0u, locked_blocks());
}

struct Point {
    int x, y;
};

TEST_F(Hpp, LockedGivesMembers) {
    jeff::handle block = jeff::handle::of<Point>(1, heap_);
    auto point = block.try_lock<Point>();
    ASSERT_TRUE(point);
    point->x = 3;
    (*point).y = 4;
    EXPECT_EQ(3, point[0].x);
    EXPECT_EQ(4, point->y);
}

struct alignas(64) Line {
    char bytes[64];
};

TEST_F(Hpp, ElementsAreAlignedAsTheirTypeAsks) {
    jeff::handle small(24, heap_);
    jeff::handle block = jeff::handle::of<Line>(3, heap_);
    auto lines = block.lock<Line>();
    EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(lines.get()) % 64);
    EXPECT_EQ(3u, lines.size());
    jeff::handle page(100, std::align_val_t{4096}, heap_);
    EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(page.lock().get()) % 4096);
}

TEST_F(Hpp, NoMemoryIsBadAlloc) {
    EXPECT_THROW(jeff::handle(1 << 20, heap_), std::bad_alloc);
    EXPECT_THROW(jeff::handle::of<double>(SIZE_MAX / 4, heap_), std::bad_alloc);
    EXPECT_THROW(jeff::handle(8, std::align_val_t{1 << 20}, heap_), std::bad_alloc);
    jeff::handle block(100, heap_);
    EXPECT_THROW(block.resize(1 << 20), std::bad_alloc);
    EXPECT_EQ(100u, block.size());
}

TEST_F(Hpp, ResizeKeepsTheContents) {
    jeff::handle block(6, heap_);
    std::memcpy(block.lock<char>().get(), "still", 6);
    block.resize(5000);
    EXPECT_EQ(5000u, block.size());
    EXPECT_STREQ("still", block.lock<char>().get());
}

TEST_F(Hpp, ResizeOfALockedBlockThatWouldMoveIsASystemError) {
    jeff::handle block(100, heap_), behind(100, heap_);
    auto held = block.lock();
    try {
        block.resize(9000);
        FAIL() << "resized";
    } catch (const std::system_error &error) {
        EXPECT_EQ(EBUSY, error.code().value());
    }
    EXPECT_EQ(100u, block.size());
}

TEST_F(Hpp, PurgedBlockGivesAnEmptyGuard) {
    jeff::handle block(40000, heap_);
    EXPECT_FALSE(block.purgeable(1));
    jeff::handle needs_room(40000, heap_);
    EXPECT_TRUE(block.purgeable(1));
    EXPECT_FALSE(block.lock());
    EXPECT_FALSE(block.try_lock());
    EXPECT_EQ(0u, block.size());
    jeff::read_section section;
    EXPECT_EQ(nullptr, section.deref(block));
}

TEST_F(Hpp, ReadSectionGivesAddresses) {
    jeff::handle block = jeff::handle::of<int>(2, heap_);
    block.lock<int>()[1] = 42;
    {
        jeff::read_section section;
        EXPECT_EQ(42, section.deref<int>(block)[1]);
        jeff::read_section inner;
        EXPECT_EQ(42, inner.deref<int>(block.get())[1]);
    }
    EXPECT_EQ(0u, locked_blocks());
}

} // namespace
