// Arrays of one type: the macros' functions and the C++ owner. What must not compile is in meson.build.
#include <gtest/gtest.h>

#include <jeff/array.hpp>

#include <cerrno>
#include <type_traits>
#include <vector>

namespace {

struct alignas(64) Wide {
    double values[8];
};

RM_ARRAY_TYPE(int_list, int);
RM_ARRAY_TYPE(wide_list, Wide);

int compare_ints(const void *first, const void *second) {
    int a = *static_cast<const int *>(first), b = *static_cast<const int *>(second);
    return (a > b) - (a < b);
}

static_assert(std::is_same_v<int *, decltype(int_list_lock(int_list{}))>);
static_assert(!std::is_convertible_v<int_list, wide_list>);
static_assert(sizeof(int_list) == sizeof(rmarray_t), "one word is all the program keeps");

TEST(Typed, FunctionsTakeAndGiveValues) {
    int_list list = int_list_create(nullptr, nullptr);
    for (int i = 0; i < 100; i++)
        ASSERT_EQ(0, int_list_push(list, 99 - i));
    EXPECT_EQ(100u, int_list_length(list));
    EXPECT_LE(100u, int_list_capacity(list));
    ASSERT_EQ(0, int_list_sort(list, compare_ints));
    int value = 42;
    EXPECT_EQ(42u, int_list_search(list, &value, compare_ints));
    EXPECT_EQ(42u, int_list_find(list, 0, &value, compare_ints));
    ASSERT_EQ(0, int_list_set(list, 0, 1000));
    ASSERT_EQ(0, int_list_get(list, 0, &value));
    EXPECT_EQ(1000, value);
    ASSERT_EQ(0, int_list_pop(list, &value));
    EXPECT_EQ(99, value);
    ASSERT_EQ(0, int_list_insert(list, 1, &value, 1));
    ASSERT_EQ(0, int_list_append(list, &value, 1));
    ASSERT_EQ(0, int_list_remove(list, 3, 2));
    ASSERT_EQ(0, int_list_remove_swap(list, 0));
    int_list copy = int_list_copy(list);
    ASSERT_EQ(0, int_list_concat(list, copy));
    EXPECT_EQ(2 * int_list_length(copy), int_list_length(list));
    ASSERT_EQ(0, int_list_reserve(list, 1000));
    ASSERT_EQ(0, int_list_resize(list, 10));
    ASSERT_EQ(0, int_list_shrink(list));
    const int *first = int_list_lock(list);
    EXPECT_EQ(99, first[0]);
    int_list_unlock(list);
    rmread_begin();
    EXPECT_EQ(99, int_list_deref(list)[0]);
    rmread_end();
    ASSERT_EQ(0, int_list_clear(list));
    int_list_destroy(copy);
    int_list_destroy(list);
}

TEST(Typed, CursorTakesValues) {
    int_list list = int_list_create(nullptr, nullptr);
    int_list_cursor cursor;
    ASSERT_EQ(0, int_list_append_begin(&cursor, list));
    for (int i = 0; i < 100000; i++)
        ASSERT_EQ(0, int_list_append_next(&cursor, i));
    int_list_append_end(&cursor);
    ASSERT_EQ(100000u, int_list_length(list));
    const int *first = int_list_lock(list);
    for (int i = 0; i < 100000; i++)
        ASSERT_EQ(i, first[i]);
    int_list_unlock(list);
    int_list_destroy(list);
}

TEST(Typed, AlignmentIsThatOfTheType) {
    wide_list list = wide_list_create(nullptr, nullptr);
    for (int i = 0; i < 100; i++) {
        ASSERT_EQ(0, wide_list_push(list, Wide{}));
        EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(wide_list_lock(list)) % 64);
        wide_list_unlock(list);
    }
    wide_list_destroy(list);
}

static_assert(!std::is_copy_constructible_v<jeff::array<int>>);
static_assert(std::is_nothrow_move_constructible_v<jeff::array<int>>);

TEST(ArrayHpp, OwnsAndThrows) {
    jeff::array<int> list;
    for (int i = 0; i < 10; i++)
        list.push_back(i);
    EXPECT_EQ(10u, list.size());
    EXPECT_EQ(9, list.pop_back());
    EXPECT_EQ(3, list.at(3));
    EXPECT_THROW(list.at(9), std::out_of_range);
    list.set(0, 7);
    list.erase(1);
    list.erase_swap(1);
    EXPECT_EQ(8, list.at(1));
    jeff::array<int> moved = std::move(list);
    EXPECT_EQ(nullptr, list.get());
    jeff::array<int> copy = moved.copy();
    moved.append(copy);
    EXPECT_EQ(2 * copy.size(), moved.size());
    moved.clear();
    EXPECT_THROW(moved.pop_back(), std::out_of_range);
    EXPECT_THROW(moved.reserve(SIZE_MAX / 8), std::bad_alloc);
}

TEST(ArrayHpp, GrowingUnderLockThrowsBusy) {
    jeff::array<int> list;
    while (list.size() < list.capacity())
        list.push_back(1);
    auto view = list.lock();
    EXPECT_EQ(list.size(), view.size());
    try {
        list.push_back(2);
        FAIL() << "no exception";
    } catch (const std::system_error &error) {
        EXPECT_EQ(EBUSY, error.code().value());
    }
    int sum = 0;
    for (int value : view)
        sum += value;
    EXPECT_EQ(static_cast<int>(list.size()), sum);
}

TEST(ArrayHpp, AppenderCountsWhatItAdded) {
    jeff::array<Wide> list;
    {
        jeff::array<Wide>::appender appender(list);
        for (int i = 0; i < 1000; i++)
            appender.push_back(Wide{{double(i)}});
    }
    ASSERT_EQ(1000u, list.size());
    const auto &readable = list;
    auto view = readable.lock();
    EXPECT_EQ(999.0, view[999].values[0]);
}

} // namespace
