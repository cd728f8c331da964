// Arrays in large blocks: growth that moves pages instead of copying, more than 64 GiB, bursts in pieces; and
// memory refused at every point of every call that may need some.
#include <gtest/gtest.h>

#include <jeff/array.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

extern "C" {
#include "heap/heap.h"
}

#include "support/profiles.hpp"
#include "support/threads.hpp"

namespace {

using support::Profile;
using support::ProfileHeap;

constexpr size_t mib = size_t{1} << 20;
constexpr size_t gib = size_t{1} << 30;

uintptr_t address_of(rmarray_t array) {
    uintptr_t address = reinterpret_cast<uintptr_t>(rmarray_lock(array));
    rmarray_unlock(array);
    return address;
}

void fill(rmarray_t array, size_t from, size_t to) {
    uint64_t *words = static_cast<uint64_t *>(rmarray_lock(array));
    for (size_t i = from; i < to; i++)
        words[i] = i * 0x9e3779b97f4a7c15u;
    rmarray_unlock(array);
}

bool holds(rmarray_t array, size_t to) {
    const uint64_t *words = static_cast<const uint64_t *>(rmarray_lock(array));
    size_t i = 0;
    while (i < to && words[i] == i * 0x9e3779b97f4a7c15u)
        i++;
    rmarray_unlock(array);
    return i == to;
}

TEST(LargeArray, KeepsItsElementsWhenItsPagesMove) {
    ProfileHeap heap(Profile::growing);
    rm_array_options options;
    rmarray_options_init(&options);
    options.growth = RM_GROWTH_EXACT; // no room of their own: they are in each other's way
    rmarray_t first = rmarray_create(heap.get(), 8, &options);
    rmarray_t second = rmarray_create(heap.get(), 8, &options);
    size_t length = 0, moves = 0;
    uintptr_t before = 0;
    for (size_t next = 1000; next < 4 * mib; length = next, next = next * 3 / 2 + 1) {
        for (rmarray_t array : {first, second}) {
            ASSERT_EQ(0, rmarray_resize(array, next));
            fill(array, length, next);
        }
        moves += address_of(first) != before;
        before = address_of(first);
        ASSERT_TRUE(holds(first, next) && holds(second, next)) << next;
        heap.expect_sound();
    }
    EXPECT_GT(moves, 3u);
    rmarray_destroy(first);
    rmarray_destroy(second);
}

TEST(LargeArray, MemoryThatMovedAwayIsZeroForTheNext) {
    ProfileHeap heap(Profile::growing);
    rmhandle_t block = rmheap_malloc(heap.get(), 2 * mib);
    memset(rmlock(block), 1, 2 * mib);
    rmunlock(block);
    rmhandle_t neighbour = rmheap_malloc(heap.get(), 2 * mib);
    ASSERT_EQ(0, rmrealloc(block, 16 * mib));
    for (int i = 0; i < 4; i++) {
        rmhandle_t other = rmheap_calloc(heap.get(), 1, 2 * mib);
        const char *bytes = static_cast<const char *>(rmlock(other));
        EXPECT_EQ(2 * mib, static_cast<size_t>(std::count(bytes, bytes + 2 * mib, 0)));
        rmunlock(other);
    }
    rmfree(neighbour);
    heap.expect_sound();
}

TEST(LargeArray, CursorInPiecesLosesNothing) {
    for (size_t element_size : {1, 3, 4, 24, 300, 100000, 3000000}) {
        ProfileHeap heap(Profile::growing);
        rmarray_t array = rmarray_create(heap.get(), element_size, nullptr);
        rm_array_cursor cursor;
        ASSERT_EQ(0, rmarray_append_begin(&cursor, array, element_size));
        std::vector<unsigned char> element(element_size);
        size_t count = 40 * mib / element_size;
        for (size_t i = 0; i < count; i++) {
            memcpy(element.data(), &i, std::min(sizeof i, element_size));
            ASSERT_EQ(0, rmarray_append_next(&cursor, element.data()));
        }
        rmarray_append_end(&cursor);
        ASSERT_EQ(count, rmarray_length(array));
        const unsigned char *first = static_cast<const unsigned char *>(rmarray_lock(array));
        size_t wrong = 0;
        for (size_t i = 0; i < count; i++)
            wrong += memcmp(first + i * element_size, &i, std::min(sizeof i, element_size)) != 0;
        EXPECT_EQ(0u, wrong) << element_size;
        rmarray_unlock(array);
        heap.expect_sound();
        rmarray_destroy(array);
    }
}

TEST(LargeArray, OfMoreThan64GiBGrowsWithoutCopying) {
    if (JF_TEST_SANITIZED)
        GTEST_SKIP() << "a sanitizer leaves no room for it";
    rm_array_options options;
    rmarray_options_init(&options);
    options.hints = RM_ARRAY_WILL_GROW | RM_ARRAY_ZEROED;
    options.expected = 65 * gib;
    rmarray_t array = rmarray_create(nullptr, 1, &options);
    uintptr_t first = address_of(array);
    for (size_t length = gib; length <= 65 * gib; length += gib) {
        ASSERT_EQ(0, rmarray_resize(array, length));
        char *bytes = static_cast<char *>(rmarray_lock(array));
        ASSERT_EQ(0, bytes[length - 1]);
        bytes[length - 1] = static_cast<char>(length / gib);
        rmarray_unlock(array);
    }
    EXPECT_EQ(first, address_of(array)) << "it was copied";
    for (size_t length = gib; length <= 65 * gib; length += gib) {
        char value;
        ASSERT_EQ(0, rmarray_get(array, length - 1, &value));
        EXPECT_EQ(static_cast<char>(length / gib), value);
    }
    EXPECT_EQ(65 * jf_os_page_size(), jf_os_resident(first, 65 * gib))
        << "only what was written to is there";
    rm_fault fault;
    EXPECT_EQ(0, rmcheck(&fault)) << fault.name;
    rmarray_destroy(array);
    rmdestroy();
}

// --- Memory refused

// What an array is to its user.
struct Snapshot {
    explicit Snapshot(rmarray_t array) : length(rmarray_length(array)) {
        const char *first = static_cast<const char *>(rmarray_lock(array));
        text.assign(first, length + 1);
        rmarray_unlock(array);
    }
    bool operator==(const Snapshot &other) const {
        return length == other.length && text == other.text;
    }
    size_t length;
    std::string text; // with the zero byte behind it
};

using Call = std::function<int(rmarray_t string, rmarray_t other)>;

const std::vector<std::pair<const char *, Call>> growing_calls = {
    {"reserve", [](rmarray_t string, rmarray_t) { return rmarray_reserve(string, 9 * mib); }},
    {"resize", [](rmarray_t string, rmarray_t) { return rmarray_resize(string, 9 * mib); }},
    {"insert",
     [](rmarray_t string, rmarray_t) {
         return rmarray_insert(string, 2, std::string(3 * mib, 'i').data(), 3 * mib);
     }},
    {"append",
     [](rmarray_t string, rmarray_t) {
         return rmarray_append(string, std::string(3 * mib, 'a').data(), 3 * mib);
     }},
    {"concat", [](rmarray_t string, rmarray_t other) { return rmarray_concat(string, other); }},
    {"append_string",
     [](rmarray_t string, rmarray_t) {
         return rmarray_append_string(string, std::string(3 * mib, 's').c_str());
     }},
    {"printf", [](rmarray_t string, rmarray_t) { return rmarray_printf(string, "%3000000d", 7); }},
    {"copy",
     [](rmarray_t, rmarray_t other) {
         rmarray_t copy = rmarray_copy(other);
         rmarray_destroy(copy);
         return copy != nullptr ? 0 : -1;
     }},
    {"create",
     [](rmarray_t, rmarray_t other) {
         rm_array_options options;
         rmarray_options_init(&options);
         options.capacity = 3 * mib;
         options.alignment = 64 << 10;
         rmarray_t made = rmarray_create(rmheap_of(rmarray_handle(other)), 1, &options);
         rmarray_destroy(made);
         return made != nullptr ? 0 : -1;
     }},
};

// Refuses the nth call for memory, once or from there on. Gives how often that was too much for the call.
unsigned refuse_at_every_point(const char *name, const Call &call, bool persistent) {
    unsigned failures = 0;
    for (unsigned nth = 1; nth <= 12; nth++) {
        ProfileHeap heap(Profile::growing);
        jf_arena *arena = reinterpret_cast<jf_heap *>(heap.get())->u.grow.window->arena;
        rmarray_t string = rmarray_create_string(heap.get(), nullptr);
        rmarray_t other = rmarray_create_string(heap.get(), nullptr);
        EXPECT_EQ(0, rmarray_append_string(string, "begun"));
        EXPECT_EQ(0, rmarray_resize(other, 2 * mib));
        Snapshot before(string);
        jf_arena_refuse_calls(arena, nth, persistent);
        int result = call(string, other);
        int error = errno;
        jf_arena_refuse_calls(arena, 0, false);
        heap.expect_sound();
        if (result != 0) {
            failures++;
            EXPECT_EQ(ENOMEM, error) << name << nth;
            EXPECT_TRUE(before == Snapshot(string)) << name << nth;
            EXPECT_EQ(0, call(string, other)) << name << ": goes on afterwards";
        }
        rmarray_destroy(string);
        rmarray_destroy(other);
    }
    return failures;
}

class RefusedArray : public testing::TestWithParam<bool> {};

TEST_P(RefusedArray, IsUnchangedByEveryCallAtEveryPoint) {
    for (const auto &[name, call] : growing_calls) {
        unsigned failures = refuse_at_every_point(name, call, GetParam());
        EXPECT_GE(failures, GetParam() ? 1u : 0u) << name;
        EXPECT_LT(failures, 12u) << name;
    }
}

INSTANTIATE_TEST_SUITE_P(OnceAndForEver, RefusedArray, testing::Bool());

} // namespace
