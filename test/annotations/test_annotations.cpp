// Programs that use a pointer too long, in a library built for a memory debugger: AddressSanitizer ends
// the process where the pointer is used; Valgrind counts an error. And programs that do nothing wrong,
// which must not be reported.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include <jeff/jeff.h>

#if defined(JF_ANNOTATE_VALGRIND)
#include <valgrind/memcheck.h>
#endif

namespace {

volatile unsigned char sink;

// Not inlined, so that it shows in the report.
__attribute__((noinline)) void read_byte(const void *memory) {
    sink = *static_cast<const volatile unsigned char *>(memory);
}

__attribute__((noinline)) void write_byte(void *memory) {
    *static_cast<volatile unsigned char *>(memory) = 1;
}

#if defined(JF_ANNOTATE_VALGRIND)

unsigned reports() {
    return VALGRIND_COUNT_ERRORS;
}
#define EXPECT_REPORT(statement)                                                                   \
    do {                                                                                           \
        unsigned count = reports();                                                                \
        statement;                                                                                 \
        EXPECT_GT(reports(), count) << #statement;                                                 \
    } while (0)
#define EXPECT_NO_REPORT(statement)                                                                \
    do {                                                                                           \
        unsigned count = reports();                                                                \
        statement;                                                                                 \
        EXPECT_EQ(reports(), count) << #statement;                                                 \
    } while (0)

#else

#define EXPECT_REPORT(statement) EXPECT_DEATH(statement, "use-after-poison")
#define EXPECT_NO_REPORT(statement) statement

#endif

char *at(void *memory, ptrdiff_t offset) {
    return static_cast<char *>(memory) + offset;
}

class Annotations : public testing::TestWithParam<bool> {
  public:
    void SetUp() override {
#if defined(JF_ANNOTATE_VALGRIND)
        if (!RUNNING_ON_VALGRIND)
            GTEST_SKIP() << "to be run under Valgrind";
#endif
        testing::FLAGS_gtest_death_test_style = "threadsafe";
        if (GetParam())
            heap = rmheap_create_in(buffer.data(), buffer.size(), nullptr);
        else
            heap = rmheap_create(nullptr);
        ASSERT_NE(heap, nullptr);
    }
    void TearDown() override {
        if (heap != nullptr)
            rmheap_destroy(heap);
    }
    std::vector<char> buffer = std::vector<char>(256 << 10);
    rmheap_t heap = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Growing, Annotations, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Fixed, Annotations, testing::Values(true));

TEST_P(Annotations, PointerKeptAfterUnlockIsReported) {
    rmhandle_t handle = rmheap_malloc(heap, 100);
    void *memory = rmlock(handle);
    EXPECT_NO_REPORT(write_byte(at(memory, 99)));
    rmunlock(handle);
    EXPECT_REPORT(read_byte(memory));
    EXPECT_REPORT(read_byte(at(memory, 99)));
    memory = rmlock(handle);
    EXPECT_NO_REPORT(read_byte(memory));
    EXPECT_NO_REPORT(write_byte(at(memory, 99)));
    rmunlock(handle);
}

TEST_P(Annotations, OnlyTheLastUnlockCounts) {
    rmhandle_t handle = rmheap_malloc(heap, 100);
    void *memory = rmlock(handle);
    EXPECT_EQ(rmtrylock(handle), memory);
    EXPECT_EQ(rmlock_long(handle), memory);
    rmunlock(handle);
    EXPECT_NO_REPORT(read_byte(memory));
    rmunlock(handle);
    EXPECT_NO_REPORT(read_byte(memory));
    std::thread([&] { rmunlock(handle); }).join();
    EXPECT_REPORT(read_byte(memory));
}

TEST_P(Annotations, BytesAroundALockedBlockAreReported) {
    rmhandle_t before = rmheap_malloc(heap, 40);
    rmhandle_t handle = rmheap_malloc(heap, 20);
    rmhandle_t behind = rmheap_malloc(heap, 40);
    rmlock(before);
    rmlock(behind);
    void *memory = rmlock(handle);
    EXPECT_NO_REPORT(write_byte(at(memory, 19)));
    EXPECT_REPORT(read_byte(at(memory, 20)));
    EXPECT_REPORT(read_byte(at(memory, 24)));
    EXPECT_REPORT(read_byte(at(memory, -1)));
    EXPECT_REPORT(read_byte(at(memory, -8)));
    rmunlock(before);
    rmunlock(handle);
    rmunlock(behind);
}

TEST_P(Annotations, FreedBlocksAreReported) {
    rmhandle_t handle = rmheap_malloc(heap, 100);
    void *memory = rmlock(handle);
    rmunlock(handle);
    rmfree(handle);
    EXPECT_REPORT(read_byte(memory));
    EXPECT_REPORT(read_byte(at(memory, 50)));
}

TEST_P(Annotations, VacatedPlacesAreReported) {
    rmhandle_t handles[200];
    for (rmhandle_t &handle : handles)
        handle = rmheap_calloc(heap, 1, 1000);
    for (int i = 0; i < 200; i += 2)
        rmfree(handles[i]);
    void *memory = rmlock(handles[199]);
    memset(memory, 7, 1000);
    rmunlock(handles[199]);
    EXPECT_NO_REPORT(rmheap_compact(heap, 0));
    void *moved = rmlock(handles[199]);
    EXPECT_NE(moved, memory);
    EXPECT_NO_REPORT(read_byte(at(moved, 999)));
    EXPECT_EQ(*at(moved, 999), 7);
    EXPECT_REPORT(read_byte(at(memory, 500)));
    rmunlock(handles[199]);
}

TEST_P(Annotations, ResizedBlocksAreOpenAsFarAsTheyReach) {
    rmhandle_t handle = rmheap_malloc(heap, 100);
    void *memory = rmlock(handle);
    ASSERT_EQ(rmrealloc(handle, 40), 0);
    EXPECT_NO_REPORT(write_byte(at(memory, 39)));
    EXPECT_REPORT(read_byte(at(memory, 40)));
    rmunlock(handle);
    ASSERT_EQ(rmrealloc(handle, 5000), 0);
    memory = rmlock(handle);
    EXPECT_NO_REPORT(write_byte(at(memory, 4999)));
    EXPECT_REPORT(read_byte(at(memory, 5000)));
    rmunlock(handle);
}

TEST_P(Annotations, LargeBlocksAreTreatedAsOthers) {
    size_t size = GetParam() ? 100000 : 3000001;
    rmhandle_t handle = rmheap_calloc(heap, 1, size);
    char *memory = static_cast<char *>(rmlock(handle));
    EXPECT_NO_REPORT(write_byte(at(memory, static_cast<ptrdiff_t>(size) - 1)));
    EXPECT_REPORT(read_byte(at(memory, static_cast<ptrdiff_t>(size))));
    rmunlock(handle);
    EXPECT_REPORT(read_byte(at(memory, 70000)));
    ASSERT_EQ(rmrealloc(handle, size / 2), 0);
    ASSERT_EQ(rmrealloc(handle, size), 0);
    memory = static_cast<char *>(rmlock(handle));
    EXPECT_NO_REPORT(write_byte(at(memory, static_cast<ptrdiff_t>(size) - 1)));
    rmunlock(handle);
    rmfree(handle);
    EXPECT_REPORT(read_byte(at(memory, 70000)));
}

TEST_P(Annotations, WhatAReadSectionSeesIsNotReported) {
    rmhandle_t handle = rmheap_calloc(heap, 1, 100);
    rmread_begin();
    void *memory = rmderef(handle);
    EXPECT_NO_REPORT(read_byte(at(memory, 99)));
    rmlock(handle);
    rmunlock(handle);
    EXPECT_NO_REPORT(read_byte(at(memory, 99)));
    rmread_end();
}

// Reading what a weak pointer leads to is allowed even after the block has moved or was freed.
TEST_P(Annotations, WeakPointersAreNotReported) {
    rmhandle_t handles[200];
    for (rmhandle_t &handle : handles)
        handle = rmheap_calloc(heap, 1, 1000);
    void *memory = rmweaklock(handles[199]);
    EXPECT_NO_REPORT(read_byte(memory));
    for (int i = 0; i < 199; i++)
        rmfree(handles[i]);
    rmlock(handles[199]);
    rmunlock(handles[199]);
    rmheap_compact(heap, 0);
    EXPECT_NO_REPORT(read_byte(at(memory, 999)));
    rmfree(handles[199]);
    EXPECT_NO_REPORT(read_byte(memory));
    rmheap_malloc(heap, 1000);
    EXPECT_NO_REPORT(read_byte(at(memory, 999)));
}

TEST_P(Annotations, TheLibraryItselfIsNotReported) {
    EXPECT_NO_REPORT({
        std::vector<rmhandle_t> handles;
        unsigned random = 1;
        for (int i = 0; i < 3000; i++) {
            random = random * 1103515245 + 12345;
            size_t size = (random >> 8) % 900;
            if (handles.size() < 100) {
                rmhandle_t handle =
                    i % 2 ? rmheap_calloc(heap, 1, size) : rmheap_aligned_alloc(heap, 64, size);
                memset(rmlock(handle), i, size);
                rmunlock(handle);
                handles.push_back(handle);
                continue;
            }
            size_t index = random % handles.size();
            if (i % 3 == 0) {
                rmrealloc(handles[index], size);
            } else {
                rmfree(handles[index]);
                handles[index] = handles.back();
                handles.pop_back();
            }
            if (i % 50 == 0)
                rmheap_compact_us(heap, 1000, nullptr);
            if (i % 100 == 0) {
                EXPECT_EQ(rmheap_check(heap, nullptr), 0);
                struct rm_stats stats;
                rmheap_stats(heap, &stats);
            }
        }
    });
}

TEST_P(Annotations, ScramblingIsNotReported) {
    struct rm_options options;
    rmoptions_init(&options);
    options.scramble_period = 1;
    options.check = 2;
    rmheap_configure(heap, &options);
    EXPECT_NO_REPORT({
        for (int i = 0; i < 50; i++)
            rmheap_calloc(heap, 1, 300);
    });
}

TEST(AnnotationsOfABuffer, GoWithTheHeap) {
    std::vector<char> buffer(8192);
    rmheap_t heap = rmheap_create_in(buffer.data(), buffer.size(), nullptr);
    rmlock(rmheap_malloc(heap, 100));
    rmheap_malloc(heap, 100);
    rmheap_destroy(heap);
    EXPECT_NO_REPORT({
        for (char &byte : buffer)
            write_byte(&byte);
    });
}

} // namespace
