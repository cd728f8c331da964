// Arrays: life, size, growth, errors, options, in both profiles.
#include <gtest/gtest.h>

#include <jeff/array.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "support/profiles.hpp"

namespace {

using support::Profile;
using support::ProfileHeap;

class Array : public testing::TestWithParam<Profile> {
  protected:
    void SetUp() override {
        testing::FLAGS_gtest_death_test_style = "fast";
        rm_options options;
        rmoptions_init(&options);
        options.check = 2;
        heap_ = std::make_unique<ProfileHeap>(GetParam(), &options);
    }
    rmarray_t ints(size_t length, unsigned hints = 0) {
        rm_array_options options;
        rmarray_options_init(&options);
        options.hints = hints;
        rmarray_t array = rmarray_create(heap_->get(), sizeof(int), &options);
        for (size_t i = 0; i < length; i++) {
            int value = static_cast<int>(i);
            EXPECT_EQ(0, rmarray_push(array, &value));
        }
        return array;
    }
    static std::vector<int> contents(rmarray_t array) {
        const int *first = static_cast<const int *>(rmarray_lock(array));
        std::vector<int> all(first, first + rmarray_length(array));
        rmarray_unlock(array);
        return all;
    }
    static std::vector<int> counted(size_t length) {
        std::vector<int> all(length);
        std::iota(all.begin(), all.end(), 0);
        return all;
    }

    std::unique_ptr<ProfileHeap> heap_;
};

TEST_P(Array, StartsEmptyAndGivesItsBlockBack) {
    rmarray_t array = rmarray_create(heap_->get(), sizeof(int), nullptr);
    ASSERT_NE(nullptr, array);
    EXPECT_EQ(0u, rmarray_length(array));
    EXPECT_EQ(sizeof(int), rmarray_element_size(array));
    EXPECT_EQ(1u, heap_->blocks());
    rmarray_destroy(array);
    rmarray_destroy(nullptr);
    EXPECT_EQ(0u, heap_->blocks());
}

TEST_P(Array, KeepsItsHandleAndItsElementsWhileItGrows) {
    rmarray_t array = ints(0);
    rmarray_t before = array;
    for (int i = 0; i < 100000; i++)
        ASSERT_EQ(0, rmarray_push(array, &i));
    EXPECT_EQ(before, array);
    EXPECT_EQ(100000u, rmarray_length(array));
    EXPECT_EQ(counted(100000), contents(array));
    heap_->expect_sound();
    rmarray_destroy(array);
}

TEST_P(Array, CapacityIsAllOfTheBlock) {
    for (size_t element_size : {1, 2, 3, 4, 8, 12, 16, 24, 100, 4096}) {
        rm_array_options options;
        rmarray_options_init(&options);
        for (size_t wanted : {0, 1, 5, 100, 1000}) {
            options.capacity = wanted;
            rmarray_t array = rmarray_create(heap_->get(), element_size, &options);
            ASSERT_NE(nullptr, array);
            rm_array_stats stats;
            ASSERT_EQ(0, rmarray_stats(array, &stats));
            EXPECT_GE(stats.capacity, wanted);
            EXPECT_EQ(stats.bytes, rmsize(rmarray_handle(array)));
            size_t tail = GetParam() == Profile::fixed || stats.large ? 8 : 0;
            EXPECT_EQ((stats.bytes - tail) / element_size, stats.capacity);
            if (!stats.large) {
                EXPECT_EQ(8u, stats.bytes % 16) << "no slack is left to the block";
            }
            rmarray_destroy(array);
        }
    }
}

TEST_P(Array, PushWithinTheCapacityNeverMovesTheBlock) {
    rmarray_t array = ints(0);
    ASSERT_EQ(0, rmarray_reserve(array, 1000));
    size_t capacity = rmarray_capacity(array);
    ASSERT_GE(capacity, 1000u);
    const void *before = rmarray_lock(array);
    for (size_t i = 0; i < capacity; i++) {
        int value = static_cast<int>(i);
        ASSERT_EQ(0, rmarray_push(array, &value));
    }
    EXPECT_EQ(capacity, rmarray_capacity(array));
    EXPECT_EQ(before, rmweaklock(rmarray_handle(array)));
    rmarray_unlock(array);
    EXPECT_EQ(counted(capacity), contents(array));
    rmarray_destroy(array);
}

TEST_P(Array, GrowingCallOnALockedArrayIsAnErrorAndChangesNothing) {
    rmarray_t array = ints(10);
    while (rmarray_length(array) < rmarray_capacity(array)) {
        int value = static_cast<int>(rmarray_length(array));
        ASSERT_EQ(0, rmarray_push(array, &value));
    }
    size_t length = rmarray_length(array);
    size_t capacity = rmarray_capacity(array);
    const void *address = rmarray_lock(array);
    int value = -1;
    auto refused = [&](int result) {
        EXPECT_EQ(-1, result);
        EXPECT_EQ(EBUSY, errno);
        EXPECT_EQ(length, rmarray_length(array));
        EXPECT_EQ(capacity, rmarray_capacity(array));
        EXPECT_EQ(address, rmweaklock(rmarray_handle(array)));
        errno = 0;
    };
    refused(rmarray_push(array, &value));
    refused(rmarray_insert(array, 0, &value, 1));
    refused(rmarray_append(array, &value, 1));
    refused(rmarray_concat(array, array));
    refused(rmarray_reserve(array, capacity + 1));
    refused(rmarray_resize(array, capacity + 1));
    rm_array_cursor cursor;
    ASSERT_EQ(0, rmarray_append_begin(&cursor, array, sizeof(int)));
    refused(rmarray_append_next(&cursor, &value));
    rmarray_append_end(&cursor);
    EXPECT_EQ(counted(length), contents(array));
    rmarray_unlock(array);
    EXPECT_EQ(0, rmarray_push(array, &value));
    rmarray_destroy(array);
}

TEST_P(Array, ShrinkOnALockedArrayIsAnErrorAndChangesNothing) {
    rmarray_t array = ints(10);
    ASSERT_EQ(0, rmarray_reserve(array, 10000));
    size_t capacity = rmarray_capacity(array);
    rmarray_lock(array);
    EXPECT_EQ(-1, rmarray_shrink(array));
    EXPECT_EQ(EBUSY, errno);
    EXPECT_EQ(capacity, rmarray_capacity(array));
    rmarray_unlock(array);
    EXPECT_EQ(0, rmarray_shrink(array));
    EXPECT_LT(rmarray_capacity(array), 16u);
    EXPECT_EQ(counted(10), contents(array));
    rmarray_destroy(array);
}

TEST_P(Array, ShrinkOfALargeArrayKeepsTheElements) {
    rmarray_t array = ints(100);
    ASSERT_EQ(0, rmarray_reserve(array, 500000));
    ASSERT_EQ(0, rmarray_shrink(array));
    rm_array_stats stats;
    ASSERT_EQ(0, rmarray_stats(array, &stats));
    EXPECT_LE(stats.bytes, 100 * sizeof(int) + 24);
    EXPECT_FALSE(stats.large);
    EXPECT_EQ(counted(100), contents(array));
    heap_->expect_sound();
    rmarray_destroy(array);
}

TEST_P(Array, ResizeAddsZerosWhenAskedTo) {
    for (size_t added : {10u, 5000u, 400000u}) {
        rmarray_t array = ints(0, RM_ARRAY_ZEROED);
        ASSERT_EQ(0, rmarray_resize(array, added));
        std::memset(rmarray_lock(array), 0xee, added * sizeof(int));
        rmarray_unlock(array);
        ASSERT_EQ(0, rmarray_resize(array, 3));
        ASSERT_EQ(0, rmarray_resize(array, added));
        std::vector<int> all = contents(array);
        for (size_t i = 0; i < added; i++)
            ASSERT_EQ(i < 3 ? static_cast<int>(0xeeeeeeee) : 0, all[i]) << i;
        rmarray_destroy(array);
    }
}

TEST_P(Array, ClearKeepsTheCapacity) {
    rmarray_t array = ints(1000);
    size_t capacity = rmarray_capacity(array);
    EXPECT_EQ(0, rmarray_clear(array));
    EXPECT_EQ(0u, rmarray_length(array));
    EXPECT_EQ(capacity, rmarray_capacity(array));
    rmarray_destroy(array);
}

TEST_P(Array, AlignmentHoldsWhereverTheBlockGoes) {
    for (size_t alignment = 1;
         alignment <= (GetParam() == Profile::growing ? 512u << 10 : 64u << 10); alignment *= 2) {
        rm_array_options options;
        rmarray_options_init(&options);
        options.alignment = alignment;
        rmarray_t array = rmarray_create(heap_->get(), 24, &options);
        ASSERT_NE(nullptr, array) << alignment;
        char element[24] = "element";
        for (int i = 0; i < 300; i++) {
            ASSERT_EQ(0, rmarray_push(array, element));
            EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(rmarray_lock(array)) % alignment);
            rmarray_unlock(array);
        }
        rmheap_compact(heap_->get(), 0);
        EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(rmarray_lock(array)) % alignment);
        rmarray_unlock(array);
        rm_array_stats stats;
        ASSERT_EQ(0, rmarray_stats(array, &stats));
        EXPECT_EQ(alignment < 16 ? 16 : alignment, stats.alignment);
        rmarray_t copy = rmarray_copy(array);
        ASSERT_EQ(0, rmarray_stats(copy, &stats));
        EXPECT_EQ(alignment < 16 ? 16 : alignment, stats.alignment);
        rmarray_destroy(copy);
        rmarray_destroy(array);
    }
}

TEST_P(Array, BadOptionsAreRefused) {
    rm_array_options options;
    auto refused = [&](size_t element_size) {
        EXPECT_EQ(nullptr, rmarray_create(heap_->get(), element_size, &options));
        EXPECT_EQ(EINVAL, errno);
        errno = 0;
        rmarray_options_init(&options);
    };
    rmarray_options_init(&options);
    refused(0);
    options.alignment = 24;
    refused(4);
    options.alignment = 1 << 20;
    refused(4);
    options.hints = 16;
    refused(4);
    options.growth = static_cast<rm_array_growth>(5);
    refused(4);
    options.struct_size = 0;
    refused(4);
    EXPECT_EQ(0u, heap_->blocks());
}

TEST_P(Array, OverflowingCountsAreNoMemory) {
    rmarray_t array = ints(5);
    int value = 0;
    for (size_t count :
         {SIZE_MAX, SIZE_MAX / 4, SIZE_MAX / 4 + 1, (size_t)1 << 40, (size_t)1 << 62}) {
        EXPECT_EQ(-1, rmarray_reserve(array, count));
        EXPECT_EQ(ENOMEM, errno);
        EXPECT_EQ(-1, rmarray_resize(array, count));
        EXPECT_EQ(ENOMEM, errno);
        EXPECT_EQ(-1, rmarray_append(array, &value, count));
        EXPECT_EQ(ENOMEM, errno);
        EXPECT_EQ(-1, rmarray_insert(array, 1, &value, count));
        EXPECT_EQ(ENOMEM, errno);
        errno = 0;
    }
    rm_array_options options;
    rmarray_options_init(&options);
    options.capacity = SIZE_MAX / 2;
    EXPECT_EQ(nullptr, rmarray_create(heap_->get(), 3, &options));
    EXPECT_EQ(ENOMEM, errno);
    EXPECT_EQ(counted(5), contents(array));
    rmarray_destroy(array);
}

TEST_P(Array, GrowthPolicyDecidesWhatIsAddedBeyondTheNeed) {
    std::vector<size_t> bytes;
    for (rm_array_growth growth :
         {RM_GROWTH_EXACT, RM_GROWTH_EIGHTH, RM_GROWTH_HALF, RM_GROWTH_DOUBLE}) {
        rm_array_options options;
        rmarray_options_init(&options);
        options.growth = growth;
        options.capacity = 1000;
        rmarray_t array = rmarray_create(heap_->get(), 8, &options);
        ASSERT_EQ(0, rmarray_resize(array, rmarray_capacity(array)));
        uint64_t value = 1;
        ASSERT_EQ(0, rmarray_push(array, &value));
        rm_array_stats stats;
        ASSERT_EQ(0, rmarray_stats(array, &stats));
        EXPECT_EQ(growth, stats.growth);
        bytes.push_back(stats.bytes);
        rmarray_destroy(array);
    }
    EXPECT_LE(bytes[0], 8040u);
    EXPECT_NEAR(9000, bytes[1], 50);
    EXPECT_NEAR(12000, bytes[2], 50);
    EXPECT_NEAR(16000, bytes[3], 50);
}

TEST_P(Array, HintsChooseTheGrowthUnlessItIsNamed) {
    auto growth = [&](unsigned hints, rm_array_growth named) {
        rm_array_options options;
        rmarray_options_init(&options);
        options.hints = hints;
        options.growth = named;
        rmarray_t array = rmarray_create(heap_->get(), 8, &options);
        rm_array_stats stats;
        EXPECT_EQ(0, rmarray_stats(array, &stats));
        EXPECT_EQ(hints, stats.hints);
        rmarray_destroy(array);
        return stats.growth;
    };
    EXPECT_EQ(RM_GROWTH_HALF, growth(0, RM_GROWTH_DEFAULT));
    EXPECT_EQ(RM_GROWTH_DOUBLE, growth(RM_ARRAY_TEMPORARY, RM_GROWTH_DEFAULT));
    EXPECT_EQ(RM_GROWTH_EIGHTH, growth(RM_ARRAY_LONG_LIVED, RM_GROWTH_DEFAULT));
    EXPECT_EQ(RM_GROWTH_EXACT, growth(RM_ARRAY_TEMPORARY, RM_GROWTH_EXACT));
}

TEST_P(Array, WideElementsAreArraysToo) {
    std::vector<unsigned char> element(100000);
    rmarray_t array = rmarray_create(heap_->get(), element.size(), nullptr);
    for (unsigned char i = 0; i < 20; i++) {
        std::fill(element.begin(), element.end(), i);
        ASSERT_EQ(0, rmarray_push(array, element.data()));
    }
    EXPECT_EQ(100000u, rmarray_element_size(array));
    for (unsigned char i = 0; i < 20; i++) {
        ASSERT_EQ(0, rmarray_get(array, i, element.data()));
        EXPECT_EQ(std::vector<unsigned char>(100000, i), element);
    }
    rmarray_destroy(array);
}

TEST_P(Array, PurgedArrayIsLostButNoMisuse) {
    rmarray_t array = ints(1000);
    rmarray_t other = ints(10);
    ASSERT_EQ(0, rmpurgeable(rmarray_handle(array), 1));
    rm_options options = support::limited_options(GetParam(), 1 << 20);
    rmheap_configure(heap_->get(), &options);
    std::vector<rmhandle_t> fill;
    while (rmsize(rmarray_handle(array)) != 0)
        fill.push_back(rmheap_malloc(heap_->get(), 60000));
    int value = 0;
    EXPECT_EQ(0u, rmarray_length(array));
    EXPECT_EQ(-1, rmarray_push(array, &value));
    EXPECT_EQ(EINVAL, errno);
    EXPECT_EQ(nullptr, rmarray_lock(array));
    rmarray_destroy(array);
    EXPECT_EQ(counted(10), contents(other));
    rmarray_destroy(other);
    for (rmhandle_t handle : fill)
        rmfree(handle);
}

TEST_P(Array, MisuseNamesTheCall) {
    rmarray_t array = ints(3);
    rmarray_t other = ints(3); // keeps the table as long as it is
    rmarray_destroy(array);
    int value = 0;
    EXPECT_DEATH(rmarray_push(array, &value), "jeff: rmarray_push: stale handle 0x");
    EXPECT_DEATH(rmarray_length(array), "jeff: rmarray_length: stale handle 0x");
    EXPECT_DEATH(rmarray_push(nullptr, &value), "jeff: rmarray_push: NULL handle");
    EXPECT_DEATH(rmarray_reserve(reinterpret_cast<rmarray_t>(&value), 1),
                 "jeff: rmarray_reserve: foreign handle 0x");
    EXPECT_DEATH(rmarray_destroy(array), "jeff: rmfree: stale handle 0x");
    rmarray_destroy(other);
}

INSTANTIATE_TEST_SUITE_P(Profiles, Array, testing::Values(Profile::growing, Profile::fixed),
                         support::profile_name);

// ------------------------------------------------------------------------------------ one profile

TEST(FixedArray, MovedCallbackSeesArrays) {
    std::vector<rmhandle_t> moved;
    rm_options options;
    rmoptions_init(&options);
    options.context = &moved;
    options.moved = [](void *context, rmhandle_t handle, void *, size_t) {
        static_cast<std::vector<rmhandle_t> *>(context)->push_back(handle);
    };
    ProfileHeap heap(Profile::fixed, &options);
    rmhandle_t before = rmheap_malloc(heap.get(), 100000);
    rmarray_t array = rmarray_create(heap.get(), 4, nullptr);
    int value = 7;
    ASSERT_EQ(0, rmarray_push(array, &value));
    rmfree(before);
    moved.clear();
    rmheap_compact(heap.get(), 0);
    EXPECT_EQ(std::vector<rmhandle_t>{rmarray_handle(array)}, moved);
    rmarray_destroy(array);
}

uintptr_t address_of(rmarray_t array) {
    uintptr_t address = reinterpret_cast<uintptr_t>(rmarray_lock(array));
    rmarray_unlock(array);
    return address;
}

TEST(GrowingArray, LargeArrayGrowsWhereItLies) {
    ProfileHeap heap(Profile::growing);
    rmarray_t array = rmarray_create(heap.get(), 8, nullptr);
    ASSERT_EQ(0, rmarray_reserve(array, 40000));
    uintptr_t before = address_of(array);
    std::vector<rmhandle_t> neighbours;
    for (size_t capacity = 40000; capacity < 100000; capacity += 5000) {
        ASSERT_EQ(0, rmarray_reserve(array, capacity));
        neighbours.push_back(rmheap_malloc(heap.get(), 200000));
    }
    EXPECT_EQ(before, address_of(array)) << "its room is four times its size at first";
    for (rmhandle_t handle : neighbours)
        rmfree(handle);
    rmarray_destroy(array);
}

// Every second of many neighbours is freed; the others grow into their places, those in a region that the thread
// still fills excepted.
TEST(GrowingArray, SmallArrayGrowsIntoItsDeadNeighbour) {
    ProfileHeap heap(Profile::growing);
    std::vector<rmarray_t> arrays;
    rm_array_options options;
    rmarray_options_init(&options);
    options.capacity = 1000;
    options.growth = RM_GROWTH_EXACT;
    for (int i = 0; i < 10000; i++)
        arrays.push_back(rmarray_create(heap.get(), 1, &options));
    for (size_t i = 1; i < arrays.size(); i += 2)
        rmarray_destroy(arrays[i]);
    size_t in_place = 0;
    for (size_t i = 0; i < arrays.size(); i += 2) {
        uintptr_t before = address_of(arrays[i]);
        ASSERT_EQ(0, rmarray_resize(arrays[i], 900));
        memset(rmarray_lock(arrays[i]), static_cast<int>(i % 251), 900);
        rmarray_unlock(arrays[i]);
        ASSERT_EQ(0, rmarray_resize(arrays[i], 1500));
        in_place += address_of(arrays[i]) == before;
    }
    EXPECT_GT(in_place, arrays.size() / 2 * 7 / 10);
    heap.expect_sound();
    for (size_t i = 0; i < arrays.size(); i += 2) {
        std::vector<char> expected(900, static_cast<char>(i % 251));
        ASSERT_EQ(0, memcmp(rmarray_lock(arrays[i]), expected.data(), 900));
        rmarray_unlock(arrays[i]);
    }
    rmheap_compact_us(heap.get(), 0, nullptr);
    heap.expect_sound();
    for (size_t i = 0; i < arrays.size(); i += 2)
        rmarray_destroy(arrays[i]);
    EXPECT_EQ(0u, heap.blocks());
}

TEST(GrowingArray, WillGrowReservesAddressSpaceAndNoMemory) {
    ProfileHeap heap(Profile::growing);
    rm_array_options options;
    rmarray_options_init(&options);
    options.hints = RM_ARRAY_WILL_GROW;
    options.expected = 64 << 20;
    rmarray_t array = rmarray_create(heap.get(), 1, &options);
    rm_array_stats figures;
    ASSERT_EQ(0, rmarray_stats(array, &figures));
    EXPECT_GE(figures.room, size_t{64} << 20);
    rm_stats stats;
    rmheap_stats(heap.get(), &stats);
    EXPECT_LE(stats.committed, 128u << 10);
    uintptr_t before = address_of(array);
    std::vector<rmhandle_t> neighbours;
    for (size_t capacity = 1 << 10; capacity <= 64 << 20; capacity *= 4) {
        ASSERT_EQ(0, rmarray_reserve(array, capacity));
        neighbours.push_back(rmheap_malloc(heap.get(), 300000));
    }
    EXPECT_EQ(before, address_of(array));
    heap.expect_sound();
    ASSERT_EQ(0, rmarray_shrink(array));
    ASSERT_EQ(0, rmarray_stats(array, &figures));
    EXPECT_FALSE(figures.large);
    for (rmhandle_t handle : neighbours)
        rmfree(handle);
    rmarray_destroy(array);
}

TEST(GrowingArray, LimitOfTheHeapLeavesTheArrayAsItWas) {
    rm_options options = support::limited_options(Profile::growing, 4 << 20);
    ProfileHeap heap(Profile::growing, &options);
    rmarray_t array = rmarray_create(heap.get(), 1, nullptr);
    std::vector<char> part(1000, 'x');
    size_t length = 0;
    while (rmarray_append(array, part.data(), part.size()) == 0)
        length += part.size();
    EXPECT_EQ(ENOMEM, errno);
    EXPECT_EQ(length, rmarray_length(array));
    EXPECT_GT(length, size_t{3} << 20) << "growth gives way to need";
    rmarray_destroy(array);
}

} // namespace
