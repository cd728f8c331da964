// The calls of the malloc facade do what C23, POSIX and the C library's manual say. Compiled twice: for the
// prefixed names, and as test_malloc_names for the standard ones.
#include <gtest/gtest.h>

#include "support/malloc_calls.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace {

using support::hide;

constexpr size_t sizes[] = {0,      1,      15,     16,     17,      31,      32,
                            100,    255,    256,    257,    1000,    1024,    4095,
                            4096,   8191,   8192,   8193,   20000,   65536,   99999,
                            131072, 131073, 262144, 300001, 1048576, 5000000, 40000000};

uintptr_t bits(const void *pointer) {
    return reinterpret_cast<uintptr_t>(pointer);
}

bool is_filled(const void *pointer, int byte, size_t size) {
    const unsigned char *bytes = static_cast<const unsigned char *>(pointer);
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != static_cast<unsigned char>(byte))
            return false;
    return true;
}

TEST(Malloc, EveryBlockIsAlignedAndUsableToItsEnd) {
    for (size_t size : sizes) {
        void *block = CALL(malloc)(size);
        ASSERT_NE(nullptr, block) << size;
        EXPECT_EQ(0u, bits(block) % 16) << size;
        EXPECT_GE(CALL(malloc_usable_size)(block), size);
        std::memset(block, 0x5a, CALL(malloc_usable_size)(block));
        CALL(free)(block);
    }
}

TEST(Malloc, LittleIsLostToRounding) {
    if (getenv("JEFF_HARDENED") != nullptr)
        GTEST_SKIP() << "blocks have guards";
    for (size_t size = 1; size <= 100000; size += size <= 1024 ? 1 : 97) {
        void *block = CALL(malloc)(size);
        ASSERT_NE(nullptr, block);
        EXPECT_LE(CALL(malloc_usable_size)(block) - size, size <= 512 ? 15 : size / 8) << size;
        CALL(free)(block);
    }
}

TEST(Malloc, BlocksOfNoSizeAreDistinct) {
    std::set<void *> blocks;
    for (int i = 0; i < 1000; i++)
        blocks.insert(CALL(malloc)(0));
    EXPECT_EQ(1000u, blocks.size());
    EXPECT_EQ(0u, blocks.count(nullptr));
    for (void *block : blocks)
        CALL(free)(block);
}

TEST(Malloc, LiveBlocksDoNotOverlap) {
    std::vector<unsigned char *> blocks;
    std::vector<size_t> lengths;
    for (int round = 0; round < 40; round++) {
        for (size_t size : sizes) {
            if (size > 300001)
                continue;
            unsigned char *block = static_cast<unsigned char *>(CALL(malloc)(size));
            ASSERT_NE(nullptr, block);
            std::memset(block, static_cast<int>(blocks.size() % 251), size);
            blocks.push_back(block);
            lengths.push_back(size);
        }
    }
    for (size_t i = 0; i < blocks.size(); i++) {
        EXPECT_TRUE(is_filled(blocks[i], static_cast<int>(i % 251), lengths[i])) << i;
        CALL(free)(blocks[i]);
    }
}

TEST(Malloc, AnImpossibleSizeIsRefusedWithErrno) {
    for (size_t size : {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2, static_cast<size_t>(1) << 62}) {
        errno = 0;
        EXPECT_EQ(nullptr, CALL(malloc)(hide(size)));
        EXPECT_EQ(ENOMEM, errno);
    }
}

TEST(Malloc, UsableSizeOfNothingIsNothing) {
    EXPECT_EQ(0u, CALL(malloc_usable_size)(nullptr));
}

TEST(Malloc, NoMoreThanAnEighthIsLostToASizeClass) {
    for (size_t size = 128; size <= 131072; size += size < 4096 ? 1 : 977) {
        void *block = CALL(malloc)(size);
        EXPECT_LE(CALL(malloc_usable_size)(block), size + (size + 7) / 8) << size;
        CALL(free)(block);
    }
}

TEST(Free, LeavesErrnoAlone) {
    for (size_t size : sizes) {
        void *block = CALL(malloc)(size);
        errno = 4711;
        CALL(free)(block);
        EXPECT_EQ(4711, errno) << size;
    }
    CALL(free)(nullptr);
    EXPECT_EQ(4711, errno);
}

TEST(Calloc, IsZeroAlsoWhereOtherBlocksHaveBeen) {
    for (int round = 0; round < 4; round++) {
        for (size_t size : sizes) {
            void *block = CALL(calloc)(1, size);
            ASSERT_NE(nullptr, block) << size;
            EXPECT_TRUE(is_filled(block, 0, CALL(malloc_usable_size)(block) < size ? 0 : size))
                << size;
            std::memset(block, 0xff, CALL(malloc_usable_size)(block));
            CALL(free)(block);
        }
    }
}

TEST(Calloc, AProductThatOverflowsIsRefused) {
    size_t half = hide(SIZE_MAX / 2);
    errno = 0;
    EXPECT_EQ(nullptr, CALL(calloc)(half, 3));
    EXPECT_EQ(ENOMEM, errno);
    void *none = CALL(calloc)(0, half);
    EXPECT_NE(nullptr, none);
    CALL(free)(none);
}

TEST(Realloc, KeepsContentsUpToTheSmallerSize) {
    for (size_t from : sizes) {
        for (size_t to : sizes) {
            if (to == 0)
                continue;
            void *block = CALL(malloc)(from);
            std::memset(block, 0x3c, from);
            block = CALL(realloc)(block, to);
            ASSERT_NE(nullptr, block) << from << " to " << to;
            EXPECT_TRUE(is_filled(block, 0x3c, from < to ? from : to)) << from << " to " << to;
            EXPECT_GE(CALL(malloc_usable_size)(block), to);
            CALL(free)(block);
        }
    }
}

TEST(Realloc, OfNothingAllocatesAndToNothingFrees) {
    void *block = CALL(realloc)(nullptr, 100);
    ASSERT_NE(nullptr, block);
    EXPECT_EQ(nullptr, CALL(realloc)(block, 0));
}

TEST(Realloc, ThatFailsLeavesTheBlock) {
    char *block = static_cast<char *>(CALL(malloc)(100));
    std::memset(block, 7, 100);
    size_t impossible = hide(SIZE_MAX / 2);
    errno = 0;
    char *same = hide(block);
    EXPECT_EQ(nullptr, CALL(realloc)(block, impossible));
    EXPECT_EQ(ENOMEM, errno);
    EXPECT_TRUE(is_filled(hide(same), 7, 100));
    CALL(free)(hide(same));
}

TEST(Realloc, WithinASizeClassKeepsThePlace) {
    void *block = CALL(malloc)(1000);
    uintptr_t before = bits(block);
    block = CALL(realloc)(block, 1010);
    EXPECT_EQ(before, bits(block));
    CALL(free)(block);
}

TEST(Realloc, AHugeBlockGrowsAndShrinksInPlaceMostOfTheTime) {
    size_t size = 200000;
    char *block = static_cast<char *>(CALL(malloc)(size));
    int moved = 0;
    int grown = 0;
    while (size < 60000000) {
        std::memset(block + size - 1000, static_cast<int>(grown), 1000);
        size_t larger = size + size / 10;
        uintptr_t before = bits(block);
        char *next = static_cast<char *>(CALL(realloc)(block, larger));
        ASSERT_NE(nullptr, next);
        moved += bits(next) != before;
        EXPECT_TRUE(is_filled(next + size - 1000, grown, 1000)) << size;
        block = next;
        size = larger;
        grown++;
    }
    EXPECT_LT(moved * 5, grown);
    uintptr_t before = bits(block);
    block = static_cast<char *>(CALL(realloc)(block, 1000000));
    EXPECT_EQ(before, bits(block));
    CALL(free)(block);
}

TEST(AlignedAlloc, EveryAlignmentIsKept) {
    for (size_t alignment = 1; alignment <= static_cast<size_t>(8) << 20; alignment *= 2) {
        for (size_t size : {static_cast<size_t>(0), static_cast<size_t>(1), alignment - 1,
                            alignment, alignment + 1, 3 * alignment, static_cast<size_t>(5000)}) {
            void *block = CALL(aligned_alloc)(alignment, size);
            ASSERT_NE(nullptr, block) << alignment << " " << size;
            EXPECT_EQ(0u, bits(block) % alignment) << alignment << " " << size;
            std::memset(block, 1, size);
            CALL(free_aligned_sized)(block, alignment, size);
        }
    }
}

TEST(AlignedAlloc, WhatIsNoPowerOfTwoIsRefused) {
    for (size_t alignment : {0u, 3u, 24u, 1000u}) {
        errno = 0;
        EXPECT_EQ(nullptr, CALL(aligned_alloc)(hide(alignment), 100));
        EXPECT_EQ(EINVAL, errno);
    }
}

TEST(AlignedAlloc, WhatCannotBeAlignedOrIsTooLargeIsNoMemory) {
    size_t most = hide(SIZE_MAX);
    for (size_t alignment : {static_cast<size_t>(16), static_cast<size_t>(64),
                             static_cast<size_t>(4096), static_cast<size_t>(1) << 62}) {
        for (size_t size : {most, most - 4096, most / 2}) {
            errno = 0;
            EXPECT_EQ(nullptr, CALL(aligned_alloc)(alignment, size)) << alignment << " " << size;
            EXPECT_EQ(ENOMEM, errno);
            errno = 0;
            EXPECT_EQ(nullptr, CALL(memalign)(alignment, size)) << alignment << " " << size;
            EXPECT_EQ(ENOMEM, errno);
        }
    }
    errno = 0;
    EXPECT_EQ(nullptr, CALL(aligned_alloc)(hide(static_cast<size_t>(1) << 62), 1));
    EXPECT_EQ(ENOMEM, errno);
    errno = 0;
    EXPECT_EQ(nullptr, CALL(memalign)(most, 1)) << "there is no larger power of two";
    EXPECT_EQ(EINVAL, errno);
    errno = 0;
    EXPECT_EQ(nullptr, CALL(valloc)(most));
    EXPECT_EQ(ENOMEM, errno);
    errno = 0;
    EXPECT_EQ(nullptr, CALL(pvalloc)(most));
    EXPECT_EQ(ENOMEM, errno);
}

TEST(Memalign, TakesTheNextPowerOfTwo) {
    for (size_t alignment : {1u, 3u, 24u, 100u, 3000u}) {
        void *block = CALL(memalign)(alignment, 50);
        ASSERT_NE(nullptr, block);
        size_t power = 1;
        while (power < alignment)
            power *= 2;
        EXPECT_EQ(0u, bits(block) % power);
        CALL(free)(block);
    }
}

TEST(PosixMemalign, ReturnsItsErrorAndTouchesNothing) {
    void *block = this;
    errno = 4711;
    EXPECT_EQ(EINVAL, CALL(posix_memalign)(&block, 4, 100));
    EXPECT_EQ(EINVAL, CALL(posix_memalign)(&block, 24, 100));
    EXPECT_EQ(ENOMEM, CALL(posix_memalign)(&block, 64, SIZE_MAX / 2));
    EXPECT_EQ(this, block);
    EXPECT_EQ(4711, errno);
    ASSERT_EQ(0, CALL(posix_memalign)(&block, 256, 100));
    EXPECT_EQ(0u, bits(block) % 256);
    CALL(free)(block);
}

TEST(Valloc, IsAlignedToPages) {
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void *block = CALL(valloc)(10);
    EXPECT_EQ(0u, bits(block) % page);
    CALL(free)(block);
    block = CALL(pvalloc)(page + 1);
    EXPECT_EQ(0u, bits(block) % page);
    EXPECT_GE(CALL(malloc_usable_size)(block), 2 * page);
    CALL(free)(block);
}

TEST(FreeSized, TakesTheSizeAskedForAndTheOneOfTheLastRealloc) {
    for (size_t size : sizes) {
        CALL(free_sized)(CALL(malloc)(size), size);
        void *block = CALL(realloc)(CALL(malloc)(size), size / 2 + 1);
        CALL(free_sized)(block, size / 2 + 1);
        block = CALL(realloc)(CALL(malloc)(size), size * 2 + 1);
        CALL(free_sized)(block, size * 2 + 1);
    }
    CALL(free_sized)(nullptr, 100);
    CALL(free_aligned_sized)(nullptr, 64, 100);
}

TEST(MallocTrim, GivesBackWhatIsFree) {
    std::vector<void *> blocks;
    for (int i = 0; i < 20000; i++) {
        blocks.push_back(CALL(malloc)(1000));
        std::memset(blocks.back(), 1, 1000);
    }
    for (void *block : blocks)
        CALL(free)(block);
    EXPECT_EQ(1, CALL(malloc_trim)(0));
    unsigned char resident[1];
    void *page = reinterpret_cast<void *>(bits(blocks[10000]) & ~static_cast<uintptr_t>(4095));
    ASSERT_EQ(0, mincore(page, 1, resident));
    EXPECT_EQ(0, resident[0] & 1);
}

TEST(MallocFigures, FollowWhatIsAllocatedAndFreed) {
    auto figures = [] {
        struct jeff_malloc_figures taken;
        taken.struct_size = sizeof taken;
        jeff_malloc_take_figures(&taken);
        return taken;
    };
    struct jeff_malloc_figures before = figures();
    std::vector<void *> blocks;
    blocks.reserve(1000);
    for (int i = 0; i < 1000; i++)
        blocks.push_back(CALL(malloc)(1024));
    void *huge = CALL(malloc)(10000000);
    struct jeff_malloc_figures after = figures();
    EXPECT_EQ(before.huge_blocks + 1, after.huge_blocks);
    EXPECT_GE(after.huge, before.huge + 10000000);
    EXPECT_GE(after.blocks, before.blocks + 1001);
    EXPECT_LE(after.blocks, before.blocks + 1010);
    EXPECT_GE(after.used, before.used + 1024000 + 10000000);
    EXPECT_GE(after.threads, 1u);
    for (void *block : blocks)
        CALL(free)(block);
    CALL(free)(huge);
    struct jeff_malloc_figures last = figures();
    EXPECT_LE(last.blocks, before.blocks + 10);
    EXPECT_EQ(before.huge, last.huge);
    EXPECT_GE(last.cached + last.free + last.kept, before.cached);
}

TEST(MallocFigures, AreFilledInAsFarAsTheCallersStructGoes) {
    struct jeff_malloc_figures figures;
    std::memset(&figures, 0x77, sizeof figures);
    figures.struct_size = offsetof(struct jeff_malloc_figures, used);
    jeff_malloc_take_figures(&figures);
    EXPECT_EQ(0x77u, figures.used & 0xff);
    EXPECT_EQ(offsetof(struct jeff_malloc_figures, used), figures.struct_size);
}

TEST(MallocStats, PrintsLinesOfTextToStandardError) {
    void *block = CALL(malloc)(100);
    testing::internal::CaptureStderr();
    CALL(malloc_stats)();
    std::string text = testing::internal::GetCapturedStderr();
    EXPECT_NE(std::string::npos, text.find("jeff: malloc: used_bytes "));
    CALL(free)(block);
}

#if defined(JF_TEST_STANDARD_NAMES)
TEST(Mallinfo, HasTheFiguresInTheFieldsOfTheCLibrary) {
    void *block = ::malloc(3000000);
    struct mallinfo2 info = mallinfo2();
    EXPECT_GE(info.hblks, 1u);
    EXPECT_GE(info.hblkhd, 3000000u);
    EXPECT_GE(info.uordblks, 3000000u);
    ::free(block);
    EXPECT_EQ(info.hblks - 1, mallinfo2().hblks);
    EXPECT_EQ(1, mallopt(M_MMAP_THRESHOLD, 1000));
}

TEST(MallocInfo, WritesXml) {
    char *text = nullptr;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    ASSERT_EQ(0, malloc_info(0, file));
    EXPECT_EQ(EINVAL, malloc_info(1, file));
    std::fclose(file);
    EXPECT_EQ(0u, std::string(text).find("<malloc version=\"1\">"));
    EXPECT_NE(std::string::npos, std::string(text).find("name=\"used_bytes\" value=\""));
    ::free(text);
}

TEST(Names, BothFamiliesServeTheSameBlocks) {
    void *block = ::malloc(100);
    jeff_free(block);
    ::free(jeff_malloc(100));
    EXPECT_GE(jeff_malloc_usable_size(block = ::strdup("text")), 5u);
    jeff_free(block);
}

// malloc_usable_size ends the process on a pointer that is not ours.
TEST(Names, WhatTheCLibraryAllocatesForItsCallersIsOurs) {
    auto expect_ours = [](void *block, size_t size) {
        ASSERT_NE(nullptr, block);
        EXPECT_GE(jeff_malloc_usable_size(block), size);
        ::free(block);
    };
    expect_ours(::strdup("some text"), 10);
    expect_ours(::strndup("some text", 4), 5);
    char *text = nullptr;
    ASSERT_EQ(9, ::asprintf(&text, "%s %d", "number", 17));
    expect_ours(text, 10);
    expect_ours(::realpath("/", nullptr), 2);
    expect_ours(::getcwd(nullptr, 0), 2);
    FILE *file = std::tmpfile();
    ASSERT_NE(nullptr, file);
    std::fputs("one line\n", file);
    std::rewind(file);
    char *line = nullptr;
    size_t room = 0;
    EXPECT_EQ(9, ::getline(&line, &room, file));
    std::fclose(file);
    expect_ours(line, room);
}

TEST(Names, ReallocarrayOfTheCLibraryIsServedAndChecksItsProduct) {
    char *block = static_cast<char *>(::reallocarray(nullptr, 10, 10));
    ASSERT_NE(nullptr, block);
    EXPECT_GE(jeff_malloc_usable_size(block), 100u);
    std::memset(block, 3, 100);
    size_t half = hide(SIZE_MAX / 2);
    errno = 0;
    EXPECT_EQ(nullptr, ::reallocarray(block, half, 3));
    EXPECT_EQ(ENOMEM, errno);
    EXPECT_TRUE(is_filled(hide(block), 3, 100));
    block = static_cast<char *>(::reallocarray(hide(block), 100, 100));
    ASSERT_NE(nullptr, block);
    EXPECT_TRUE(is_filled(block, 3, 100));
    ::free(block);
}
#endif

} // namespace
