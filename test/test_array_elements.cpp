// Arrays: elements in and out, the append cursor, order and search, strings.
#include <gtest/gtest.h>

#include <jeff/array.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/profiles.hpp"

namespace {

using support::Profile;
using support::ProfileHeap;

int compare_ints(const void *first, const void *second) {
    int a, b;
    std::memcpy(&a, first, sizeof a);
    std::memcpy(&b, second, sizeof b);
    return (a > b) - (a < b);
}

class Elements : public testing::TestWithParam<Profile> {
  protected:
    void SetUp() override {
        rm_options options;
        rmoptions_init(&options);
        options.check = 2;
        options.scramble_period = 1; // whatever is kept beyond a lock fails
        heap_ = std::make_unique<ProfileHeap>(GetParam(), &options);
        array_ = rmarray_create(heap_->get(), sizeof(int), nullptr);
    }
    void TearDown() override {
        rmarray_destroy(array_);
    }
    void fill(const std::vector<int> &values) {
        ASSERT_EQ(0, rmarray_clear(array_));
        ASSERT_EQ(0, rmarray_append(array_, values.data(), values.size()));
    }
    std::vector<int> contents() const {
        const int *first = static_cast<const int *>(rmarray_lock(array_));
        std::vector<int> all(first, first + rmarray_length(array_));
        rmarray_unlock(array_);
        return all;
    }
    void refused(int result) {
        EXPECT_EQ(-1, result);
        EXPECT_EQ(EINVAL, errno);
        errno = 0;
    }

    std::unique_ptr<ProfileHeap> heap_;
    rmarray_t array_ = nullptr;
};

using Ints = std::vector<int>;

TEST_P(Elements, PopGivesTheLastOne) {
    fill({1, 2, 3});
    int value = 0;
    EXPECT_EQ(0, rmarray_pop(array_, &value));
    EXPECT_EQ(3, value);
    EXPECT_EQ(0, rmarray_pop(array_, nullptr));
    EXPECT_EQ(0, rmarray_pop(array_, &value));
    EXPECT_EQ(1, value);
    refused(rmarray_pop(array_, &value));
    EXPECT_EQ(1, value);
}

TEST_P(Elements, GetAndSetKnowTheLength) {
    fill({1, 2, 3});
    int value = 9;
    EXPECT_EQ(0, rmarray_set(array_, 1, &value));
    EXPECT_EQ(0, rmarray_get(array_, 2, &value));
    EXPECT_EQ(3, value);
    refused(rmarray_get(array_, 3, &value));
    refused(rmarray_set(array_, 3, &value));
    refused(rmarray_set(array_, SIZE_MAX, &value));
    EXPECT_EQ((Ints{1, 9, 3}), contents());
}

TEST_P(Elements, InsertMakesRoomAnywhere) {
    fill({1, 2, 3});
    Ints more{7, 8, 9, 10};
    EXPECT_EQ(0, rmarray_insert(array_, 0, more.data(), 1));
    EXPECT_EQ(0, rmarray_insert(array_, 2, more.data(), 4));
    EXPECT_EQ(0, rmarray_insert(array_, 8, more.data() + 1, 1));
    EXPECT_EQ((Ints{7, 1, 7, 8, 9, 10, 2, 3, 8}), contents());
    refused(rmarray_insert(array_, 10, more.data(), 1));
    EXPECT_EQ(0, rmarray_insert(array_, 3, nullptr, 0));
    EXPECT_EQ(9u, rmarray_length(array_));
}

TEST_P(Elements, RemoveKeepsTheOrder) {
    fill({1, 2, 3, 4, 5, 6});
    EXPECT_EQ(0, rmarray_remove(array_, 1, 2));
    EXPECT_EQ((Ints{1, 4, 5, 6}), contents());
    EXPECT_EQ(0, rmarray_remove(array_, 3, 1));
    EXPECT_EQ(0, rmarray_remove(array_, 0, 0));
    EXPECT_EQ((Ints{1, 4, 5}), contents());
    refused(rmarray_remove(array_, 2, 2));
    refused(rmarray_remove(array_, 4, 0));
    refused(rmarray_remove(array_, 1, SIZE_MAX));
    EXPECT_EQ(0, rmarray_remove(array_, 0, 3));
    EXPECT_EQ(0u, rmarray_length(array_));
}

TEST_P(Elements, RemoveSwapPutsTheLastInItsPlace) {
    fill({1, 2, 3, 4});
    EXPECT_EQ(0, rmarray_remove_swap(array_, 0));
    EXPECT_EQ((Ints{4, 2, 3}), contents());
    EXPECT_EQ(0, rmarray_remove_swap(array_, 2));
    EXPECT_EQ((Ints{4, 2}), contents());
    refused(rmarray_remove_swap(array_, 2));
}

TEST_P(Elements, CopyIsAnArrayOfItsOwn) {
    fill({1, 2, 3});
    rmarray_t copy = rmarray_copy(array_);
    ASSERT_NE(nullptr, copy);
    int value = 5;
    EXPECT_EQ(0, rmarray_set(array_, 0, &value));
    EXPECT_EQ(0, rmarray_get(copy, 0, &value));
    EXPECT_EQ(1, value);
    EXPECT_EQ(3u, rmarray_length(copy));
    EXPECT_LE(rmarray_capacity(copy), 6u);
    EXPECT_EQ(rmheap_of(rmarray_handle(array_)), rmheap_of(rmarray_handle(copy)));
    rmarray_destroy(copy);
}

TEST_P(Elements, ConcatAddsAnotherArrayOrItself) {
    fill({1, 2, 3});
    rmarray_t copy = rmarray_copy(array_);
    EXPECT_EQ(0, rmarray_concat(array_, copy));
    EXPECT_EQ(0, rmarray_concat(array_, array_));
    EXPECT_EQ((Ints{1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}), contents());
    rmarray_t longs = rmarray_create(heap_->get(), sizeof(long), nullptr);
    refused(rmarray_concat(array_, longs));
    EXPECT_EQ(12u, rmarray_length(array_));
    rmarray_destroy(longs);
    rmarray_destroy(copy);
}

TEST_P(Elements, CursorAppendsUnderOneLock) {
    fill({1});
    rm_array_cursor cursor;
    ASSERT_EQ(0, rmarray_append_begin(&cursor, array_, sizeof(int)));
    EXPECT_NE(nullptr, rmhandle_of(rmweaklock(rmarray_handle(array_)))) << "it is locked";
    Ints expected{1};
    for (int i = 0; i < 3000; i++) {
        ASSERT_EQ(0, rmarray_append_next(&cursor, &i));
        expected.push_back(i);
    }
    rmarray_append_end(&cursor);
    EXPECT_EQ(expected, contents());
    EXPECT_EQ(nullptr, rmhandle_of(rmweaklock(rmarray_handle(array_)))) << "it is unlocked";
}

TEST_P(Elements, CursorOnElementsOfAnotherSizeIsRefused) {
    rm_array_cursor cursor;
    refused(rmarray_append_begin(&cursor, array_, sizeof(int) + 1));
    int value = 1;
    EXPECT_EQ(-1, rmarray_append_next(&cursor, &value));
    rmarray_append_end(&cursor);
    EXPECT_EQ(0u, rmarray_length(array_));
}

TEST_P(Elements, FailedCursorKeepsWhatWasAdded) {
    rm_options options = support::limited_options(GetParam(), 256 << 10);
    ProfileHeap heap(GetParam(), &options, 64 << 10);
    rmarray_t array = rmarray_create(heap.get(), sizeof(int), nullptr);
    rm_array_cursor cursor;
    ASSERT_EQ(0, rmarray_append_begin(&cursor, array, sizeof(int)));
    int count = 0;
    while (rmarray_append_next(&cursor, &count) == 0)
        count++;
    EXPECT_EQ(ENOMEM, errno);
    EXPECT_EQ(-1, rmarray_append_next(&cursor, &count));
    rmarray_append_end(&cursor);
    EXPECT_EQ(static_cast<size_t>(count), rmarray_length(array));
    EXPECT_GT(count, 4000);
    for (int i = 0; i < count; i += 17) {
        int value;
        ASSERT_EQ(0, rmarray_get(array, static_cast<size_t>(i), &value));
        EXPECT_EQ(i, value);
    }
    heap.expect_sound();
    rmarray_destroy(array);
}

TEST_P(Elements, SortAndSearchGoByTheComparator) {
    fill({5, 3, 9, 1, 7});
    EXPECT_EQ(0, rmarray_sort(array_, compare_ints));
    EXPECT_EQ((Ints{1, 3, 5, 7, 9}), contents());
    int key = 7;
    EXPECT_EQ(3u, rmarray_search(array_, &key, compare_ints));
    key = 4;
    EXPECT_EQ(RM_ARRAY_NONE, rmarray_search(array_, &key, compare_ints));
}

TEST_P(Elements, FindGoesOnFromAnIndex) {
    fill({5, 3, 5, 1, 5});
    int key = 5;
    EXPECT_EQ(0u, rmarray_find(array_, 0, &key, compare_ints));
    EXPECT_EQ(2u, rmarray_find(array_, 1, &key, compare_ints));
    EXPECT_EQ(4u, rmarray_find(array_, 3, &key, compare_ints));
    EXPECT_EQ(RM_ARRAY_NONE, rmarray_find(array_, 5, &key, compare_ints));
    key = 4;
    EXPECT_EQ(RM_ARRAY_NONE, rmarray_find(array_, 0, &key, compare_ints));
}

// ------------------------------------------------------------------------------------ strings

class String : public Elements {
  protected:
    void SetUp() override {
        Elements::SetUp();
        string_ = rmarray_create_string(heap_->get(), nullptr);
        ASSERT_NE(nullptr, string_);
    }
    void TearDown() override {
        rmarray_destroy(string_);
        Elements::TearDown();
    }
    // What C sees, which must be as long as the array says.
    std::string text() const {
        std::string text = static_cast<const char *>(rmarray_lock(string_));
        EXPECT_EQ(text.size(), rmarray_length(string_));
        rmarray_unlock(string_);
        return text;
    }
    rmarray_t string_ = nullptr;
};

TEST_P(String, IsTerminatedAfterEveryCall) {
    EXPECT_EQ("", text());
    EXPECT_EQ(0, rmarray_append_string(string_, "hello"));
    EXPECT_EQ("hello", text());
    EXPECT_EQ(0, rmarray_append(string_, ", world", 7));
    EXPECT_EQ("hello, world", text());
    EXPECT_EQ(0, rmarray_pop(string_, nullptr));
    EXPECT_EQ("hello, worl", text());
    EXPECT_EQ(0, rmarray_remove(string_, 0, 7));
    EXPECT_EQ("worl", text());
    EXPECT_EQ(0, rmarray_insert(string_, 1, "ood", 3));
    EXPECT_EQ("woodorl", text());
    EXPECT_EQ(0, rmarray_remove_swap(string_, 0));
    EXPECT_EQ("loodor", text());
    EXPECT_EQ(0, rmarray_resize(string_, 3));
    EXPECT_EQ("loo", text());
    EXPECT_EQ(0, rmarray_shrink(string_));
    EXPECT_EQ("loo", text());
    EXPECT_EQ(0, rmarray_concat(string_, string_));
    EXPECT_EQ("looloo", text());
    EXPECT_EQ(0, rmarray_clear(string_));
    EXPECT_EQ("", text());
}

TEST_P(String, IsTerminatedAtEveryLength) {
    std::string expected;
    for (int i = 0; i < 300; i++) {
        char byte = static_cast<char>('a' + i % 26);
        ASSERT_EQ(0, rmarray_push(string_, &byte));
        expected += byte;
        ASSERT_EQ(expected, text());
    }
}

TEST_P(String, CursorLeavesItTerminated) {
    rm_array_cursor cursor;
    ASSERT_EQ(0, rmarray_append_begin(&cursor, string_, 1));
    for (int i = 0; i < 100; i++)
        ASSERT_EQ(0, rmarray_append_next(&cursor, "x"));
    rmarray_append_end(&cursor);
    EXPECT_EQ(std::string(100, 'x'), text());
}

TEST_P(String, PrintfAppendsHoweverLong) {
    std::string expected;
    for (int i = 0; i < 200; i++) {
        ASSERT_EQ(0, rmarray_printf(string_, "%d:%s;", i, std::string(i % 40, 'p').c_str()));
        expected += std::to_string(i) + ":" + std::string(i % 40, 'p') + ";";
    }
    EXPECT_EQ(expected, text());
    ASSERT_EQ(0, rmarray_printf(string_, "%s", std::string(100000, 'q').c_str()));
    EXPECT_EQ(expected + std::string(100000, 'q'), text());
    ASSERT_EQ(0, rmarray_printf(string_, "%s", ""));
    EXPECT_EQ(expected.size() + 100000, rmarray_length(string_));
}

TEST_P(String, PrintfOnALockedStringThatMustGrowChangesNothing) {
    ASSERT_EQ(0, rmarray_append_string(string_, "abc"));
    rmarray_lock(string_);
    EXPECT_EQ(-1, rmarray_printf(string_, "%s", std::string(5000, 'q').c_str()));
    EXPECT_EQ(EBUSY, errno);
    rmarray_unlock(string_);
    EXPECT_EQ("abc", text());
}

TEST_P(String, OtherArraysAreNoStrings) {
    refused(rmarray_append_string(array_, "abc"));
    refused(rmarray_printf(array_, "abc"));
    EXPECT_EQ(0u, rmarray_length(array_));
}

TEST_P(String, CopyIsAString) {
    ASSERT_EQ(0, rmarray_append_string(string_, "abcdefg"));
    rmarray_t copy = rmarray_copy(string_);
    EXPECT_STREQ("abcdefg", static_cast<const char *>(rmarray_lock(copy)));
    rmarray_unlock(copy);
    rm_array_stats stats;
    ASSERT_EQ(0, rmarray_stats(copy, &stats));
    EXPECT_TRUE(stats.string);
    rmarray_destroy(copy);
}

// Calls that need no lock hold the array by a read section; whatever becomes of them, it ends with them.
TEST(ArraySections, EveryCallLeavesTheArrayFreeToMove) {
    support::ProfileHeap heap(Profile::growing);
    rmarray_t array = rmarray_create(heap.get(), 1, nullptr);
    rmarray_t wide = rmarray_create(heap.get(), 9000, nullptr);
    std::string element(9000, 'w');
    const std::vector<std::function<int()>> calls = {
        [&] { return rmarray_push(array, "p"); },
        [&] { return rmarray_append(array, element.data(), 10); },
        [&] { return rmarray_append(array, element.data(), 9000); },
        [&] { return rmarray_get(array, 3, &element[0]); },
        [&] { return rmarray_get(array, 1 << 20, &element[0]) + 1; },
        [&] { return rmarray_set(array, 3, "s"); },
        [&] { return rmarray_set(array, 1 << 20, "s") + 1; },
        [&] { return rmarray_pop(array, nullptr); },
        [&] { return rmarray_remove_swap(array, 2); },
        [&] { return rmarray_remove_swap(array, 1 << 20) + 1; },
        [&] { return rmarray_reserve(array, 10); },
        [&] { return rmarray_reserve(array, SIZE_MAX / 4) + 1; },
        [&] { return rmarray_reserve(array, rmarray_capacity(array) + 1); },
        [&] { return rmarray_length(array) == 0; },
        [&] { return rmarray_element_size(array) != 1; },
        [&] { return rmarray_push(wide, element.data()); },
        [&] { return rmarray_get(wide, 0, &element[0]); },
        [&] { return rmarray_pop(wide, nullptr); },
        [&] { return rmarray_pop(wide, nullptr) + 1; },
        [&] { return rmarray_clear(array); },
    };
    rmread_begin(); // in a section of the program's own they work too
    EXPECT_EQ(0, rmarray_push(array, "p"));
    EXPECT_NE(nullptr, rmarray_deref(array));
    rmread_end();
    for (size_t i = 0; i < calls.size(); i++) {
        std::vector<rmhandle_t> holes;
        for (int j = 0; j < 4000; j++)
            holes.push_back(rmheap_malloc(heap.get(), 1000));
        EXPECT_EQ(0, calls[i]()) << i;
        for (size_t j = 0; j < holes.size(); j++)
            if (j % 10 != 0)
                rmfree(holes[j]);
        rm_compact_result result;
        EXPECT_EQ(RM_COMPACT_DONE, rmheap_compact_us(heap.get(), 0, &result)) << i;
        EXPECT_GT(result.blocks_moved, 0u) << i;
        for (size_t j = 0; j < holes.size(); j += 10)
            rmfree(holes[j]);
    }
    rmarray_destroy(array);
    rmarray_destroy(wide);
}

INSTANTIATE_TEST_SUITE_P(Profiles, Elements, testing::Values(Profile::growing, Profile::fixed),
                         support::profile_name);
INSTANTIATE_TEST_SUITE_P(Profiles, String, testing::Values(Profile::growing, Profile::fixed),
                         support::profile_name);

} // namespace
