// The public calls as a whole: the default heap's life, options, questions about blocks, memory in need,
// heaps side by side.
#include <gtest/gtest.h>

#include <jeff/jeff.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "support/api.hpp"

using support::Api;
using support::FIXED;
using support::GROWING;
using support::options_with_check;

namespace {

int note_kind(void *context, const rm_misuse *misuse) {
    static_cast<std::vector<rm_misuse_kind> *>(context)->push_back(misuse->kind);
    return 1;
}

class Default : public testing::Test {
  protected:
    void TearDown() override {
        reset();
    }

    static void reset() {
        rmdestroy();
        rm_options options = options_with_check(0);
        rmconfigure(&options);
    }

    alignas(16) char buffer_[64 << 10];
};

TEST_F(Default, HeapStartsWhenItIsAskedFor) {
    rmdestroy();
    rm_stats stats;
    rmstats(&stats);
    EXPECT_EQ(0u, stats.reserved);
    EXPECT_EQ(offsetof(struct rm_stats, later), stats.struct_size);
    EXPECT_EQ(0, rmcheck(nullptr));
    EXPECT_EQ(RM_COMPACT_DONE, rmcompact(0));
    EXPECT_NE(nullptr, rmheap_default());
    EXPECT_EQ(rmheap_default(), rmheap_default());
    rmstats(&stats);
    EXPECT_NE(0u, stats.reserved);
}

TEST_F(Default, InitTakesABufferOnce) {
    errno = 0;
    EXPECT_EQ(-1, rminit(nullptr, sizeof buffer_));
    EXPECT_EQ(EINVAL, errno);
    errno = 0;
    EXPECT_EQ(-1, rminit(buffer_, 4095));
    EXPECT_EQ(EINVAL, errno);
    EXPECT_EQ(0, rminit(buffer_, sizeof buffer_));
    errno = 0;
    EXPECT_EQ(-1, rminit(buffer_, sizeof buffer_));
    EXPECT_EQ(EBUSY, errno);
    rmhandle_t block = rmmalloc(100);
    char *address = static_cast<char *>(rmlock(block));
    EXPECT_TRUE(address >= buffer_ && address < buffer_ + sizeof buffer_);
    rmunlock(block);
    rmdestroy();
    EXPECT_EQ(0, rminit(buffer_, sizeof buffer_));
}

TEST_F(Default, InitIsRefusedOnceTheHeapGrows) {
    rmhandle_t block = rmmalloc(1);
    errno = 0;
    EXPECT_EQ(-1, rminit(buffer_, sizeof buffer_));
    EXPECT_EQ(EBUSY, errno);
    rmfree(block);
}

TEST_F(Default, HandlesAreStaleOrForeignAfterDestroy) {
    std::vector<rm_misuse_kind> kinds;
    rm_options options = options_with_check(0);
    options.context = &kinds;
    options.misuse = note_kind;
    ASSERT_EQ(0, rmconfigure(&options));
    rmhandle_t growing = rmmalloc(10);
    rmdestroy();
    EXPECT_EQ(nullptr, rmheap_of(growing));
    EXPECT_EQ(nullptr, rmlock(growing));
    EXPECT_EQ(std::vector<rm_misuse_kind>{RM_MISUSE_STALE_HANDLE}, kinds);
    kinds.clear();
    ASSERT_EQ(0, rminit(buffer_, sizeof buffer_));
    rmhandle_t fixed = rmmalloc(10);
    rmdestroy();
    EXPECT_EQ(nullptr, rmlock(fixed));
    EXPECT_EQ(std::vector<rm_misuse_kind>{RM_MISUSE_FOREIGN_HANDLE}, kinds);
}

TEST_F(Default, ConfigureRefusesWhatItDoesNotKnow) {
    rm_options options = options_with_check(4);
    errno = 0;
    EXPECT_EQ(-1, rmconfigure(&options));
    EXPECT_EQ(EINVAL, errno);
    options = options_with_check(0);
    options.struct_size = 0;
    EXPECT_EQ(-1, rmconfigure(&options));
    EXPECT_EQ(-1, rmconfigure(nullptr));
    ASSERT_EQ(0, rminit(buffer_, sizeof buffer_));
    options = options_with_check(0);
    options.limit = 1 << 20;
    errno = 0;
    EXPECT_EQ(-1, rmconfigure(&options));
    EXPECT_EQ(EINVAL, errno);
}

// In processes of their own: the environment counts until the program has configured the heap once.
class EnvironmentDeath : public testing::Test {
  protected:
    EnvironmentDeath() {
        testing::FLAGS_gtest_death_test_style = "threadsafe";
    }

    [[noreturn]] static void exit_saying_whether(bool condition) {
        _exit(condition ? 0 : 1);
    }
};

TEST_F(EnvironmentDeath, SetsTheOptionsOfTheDefaultHeap) {
    EXPECT_EXIT(
        {
            setenv("JEFF_LIMIT", "2M", 1);
            exit_saying_whether(rmmalloc(64 << 20) == nullptr && rmmalloc(1 << 20) != nullptr);
        },
        testing::ExitedWithCode(0), "");
}

TEST_F(EnvironmentDeath, IsOverruledByTheProgram) {
    EXPECT_EXIT(
        {
            setenv("JEFF_LIMIT", "2M", 1);
            rm_options options = options_with_check(0);
            exit_saying_whether(rmconfigure(&options) == 0 && rmmalloc(64 << 20) != nullptr);
        },
        testing::ExitedWithCode(0), "");
}

// A program started with another effective group than its real one is treated as one that is setgid.
TEST_F(EnvironmentDeath, IsIgnoredBySetgidPrograms) {
    if (setegid(65534) != 0)
        GTEST_SKIP() << "takes root";
    EXPECT_EXIT(
        {
            setenv("JEFF_LIMIT", "2M", 1);
            exit_saying_whether(getauxval(AT_SECURE) != 0 && rmmalloc(64 << 20) != nullptr);
        },
        testing::ExitedWithCode(0), "");
    EXPECT_EQ(setegid(getgid()), 0);
}

TEST_F(EnvironmentDeath, LimitIsNotForAHeapInABuffer) {
    EXPECT_EXIT(
        {
            static char buffer[8192];
            setenv("JEFF_LIMIT", "1K", 1);
            bool started = rminit(buffer, sizeof buffer) == 0;
            rmhandle_t first = rmmalloc(2000);
            rmhandle_t second = rmmalloc(2000);
            rmfree(first);
            exit_saying_whether(started && second != nullptr && rmmalloc(4000) != nullptr);
        },
        testing::ExitedWithCode(0), "");
}

TEST(Heap, BadOptionsAreRefused) {
    static char buffer[4096];
    rm_options options = options_with_check(9);
    errno = 0;
    EXPECT_EQ(nullptr, rmheap_create(&options));
    EXPECT_EQ(EINVAL, errno);
    options = options_with_check(0);
    options.limit = 4096;
    errno = 0;
    EXPECT_EQ(nullptr, rmheap_create_in(buffer, sizeof buffer, &options));
    EXPECT_EQ(EINVAL, errno);
    rmheap_t heap = rmheap_create_in(buffer, sizeof buffer, nullptr);
    ASSERT_NE(nullptr, heap);
    EXPECT_NE(0u, rm_window_v1.reader_fence) << "its compactions make no system call";
    EXPECT_EQ(-1, rmheap_configure(heap, &options));
    options.limit = 0;
    EXPECT_EQ(0, rmheap_configure(heap, &options));
    rmheap_destroy(heap);
    rmheap_destroy(nullptr);
}

TEST(Heap, ThereAre256FixedOnesAtATime) {
    std::vector<char> buffer(257 * 4096 + 16);
    std::vector<rmheap_t> heaps;
    for (int i = 0; i < 256; i++)
        heaps.push_back(rmheap_create_in(&buffer[static_cast<size_t>(i) * 4096], 4096, nullptr));
    for (rmheap_t heap : heaps)
        ASSERT_NE(nullptr, heap);
    errno = 0;
    EXPECT_EQ(nullptr, rmheap_create_in(&buffer[256 * 4096], 4096, nullptr));
    EXPECT_EQ(ENOMEM, errno);
    std::vector<rmhandle_t> blocks;
    for (rmheap_t heap : heaps)
        blocks.push_back(rmheap_malloc(heap, 50));
    for (size_t i = 0; i < 256; i++) {
        EXPECT_EQ(heaps[i], rmheap_of(blocks[i]));
        void *address = rmlock(blocks[i]);
        EXPECT_EQ(blocks[i], rmhandle_of(address));
        rmunlock(blocks[i]);
    }
    rmheap_destroy(heaps[100]);
    heaps[100] = rmheap_create_in(&buffer[256 * 4096], 4096, nullptr);
    EXPECT_NE(nullptr, heaps[100]);
    for (rmheap_t heap : heaps)
        rmheap_destroy(heap);
}

TEST_P(Api, SizeIsWhatWasAskedFor) {
    for (size_t size : {0, 1, 8, 15, 16, 17, 100, 4095, 70000, 200001}) {
        rmhandle_t block = rmheap_malloc(heap_, size);
        ASSERT_NE(nullptr, block) << size;
        EXPECT_EQ(size, rmsize(block));
        rmfree(block);
    }
}

TEST_P(Api, BlocksOfNoBytesAreBlocksOfTheirOwn) {
    rmhandle_t first = rmheap_malloc(heap_, 0), second = rmheap_calloc(heap_, 0, 8);
    EXPECT_NE(first, second);
    EXPECT_NE(nullptr, rmlock(first));
    rmunlock(first);
    rmfree(first);
    rmfree(second);
}

TEST_P(Api, CallocIsZeroInUsedMemory) {
    for (int round = 0; round < 3; round++) {
        rmhandle_t dirty = rmheap_malloc(heap_, 3000);
        write(dirty, 'x', 3000);
        rmfree(dirty);
        rmhandle_t clean = rmheap_calloc(heap_, 30, 100);
        EXPECT_EQ(std::string(3000, '\0'), read(clean, 3000));
        write(clean, 'y', 3000);
        rmfree(clean);
        rmheap_compact(heap_, 0);
    }
    errno = 0;
    EXPECT_EQ(nullptr, rmheap_calloc(heap_, SIZE_MAX / 2, 3));
    EXPECT_EQ(ENOMEM, errno);
}

TEST_P(Api, AlignmentIsKeptOrRefused) {
    for (size_t alignment = 1; alignment <= 4096; alignment *= 2) {
        rmhandle_t block = rmheap_aligned_alloc(heap_, alignment, 40);
        ASSERT_NE(nullptr, block) << alignment;
        uintptr_t address = reinterpret_cast<uintptr_t>(rmlock(block));
        EXPECT_EQ(0u, address % (alignment < 16 ? 16 : alignment));
        rmunlock(block);
        EXPECT_EQ(0, rmrealloc(block, 9000));
        address = reinterpret_cast<uintptr_t>(rmlock(block));
        EXPECT_EQ(0u, address % (alignment < 16 ? 16 : alignment));
        rmunlock(block);
        rmfree(block);
    }
    for (size_t alignment : {size_t{0}, size_t{24}, size_t{1} << 20}) {
        errno = 0;
        EXPECT_EQ(nullptr, rmheap_aligned_alloc(heap_, alignment, 40));
        EXPECT_EQ(EINVAL, errno);
    }
}

TEST_P(Api, ReallocKeepsHandleAndContents) {
    rmhandle_t block = rmheap_malloc(heap_, 10);
    write(block, 'a', 10);
    for (size_t size : {100, 5000, 300000, 150, 20, 0, 7, 400000}) {
        size_t kept = size < rmsize(block) ? size : rmsize(block);
        std::string before = read(block, kept);
        ASSERT_EQ(0, rmrealloc(block, size)) << size;
        EXPECT_EQ(size, rmsize(block));
        EXPECT_EQ(before, read(block, kept));
        write(block, static_cast<char>('a' + size % 20), size);
    }
    rmfree(block);
}

TEST_P(Api, ReallocOfALockedBlockMovesNothing) {
    rmhandle_t block = rmheap_malloc(heap_, 1000);
    rmhandle_t behind = rmheap_malloc(heap_, 1000);
    void *address = rmlock(block);
    errno = 0;
    EXPECT_EQ(-1, rmrealloc(block, 50000));
    EXPECT_EQ(EBUSY, errno);
    EXPECT_EQ(1000u, rmsize(block));
    EXPECT_EQ(0, rmrealloc(block, 500));
    EXPECT_EQ(500u, rmsize(block));
    EXPECT_EQ(address, rmlock(block));
    rmunlock(block);
    rmunlock(block);
    EXPECT_EQ(0, rmrealloc(block, 50000));
    rmfree(block);
    rmfree(behind);
}

TEST_P(Api, HandleOfAPointerIsFoundWhileItIsLocked) {
    rmhandle_t small = rmheap_malloc(heap_, 100), large = rmheap_malloc(heap_, 300000);
    for (rmhandle_t block : {small, large}) {
        char *address = static_cast<char *>(rmlock(block));
        EXPECT_EQ(block, rmhandle_of(address));
        EXPECT_EQ(nullptr, rmhandle_of(address + 1));
        EXPECT_EQ(nullptr, rmhandle_of(address + 16));
        rmunlock(block);
        EXPECT_EQ(nullptr, rmhandle_of(address));
    }
    EXPECT_EQ(nullptr, rmhandle_of(nullptr));
    EXPECT_EQ(nullptr, rmhandle_of(&small));
    rmfree(small);
    rmfree(large);
}

TEST_P(Api, WeakPointerIsValidUntilTheBlockMoves) {
    std::vector<rmhandle_t> blocks;
    for (int i = 0; i < 200; i++)
        blocks.push_back(rmheap_malloc(heap_, 1000));
    for (size_t i = 0; i < 199; i++)
        rmfree(blocks[i]);
    void *weak = rmweaklock(blocks[199]);
    EXPECT_EQ(1, rmweak_valid(blocks[199], weak));
    EXPECT_EQ(0, rmweak_valid(blocks[199], static_cast<char *>(weak) + 16));
    EXPECT_EQ(0, rmweak_valid(blocks[0], weak));
    EXPECT_EQ(0, rmweak_valid(nullptr, weak));
    rmheap_compact(heap_, 0);
    EXPECT_EQ(rmweaklock(blocks[199]) == weak, rmweak_valid(blocks[199], weak) == 1);
    rmfree(blocks[199]);
    EXPECT_EQ(0, rmweak_valid(blocks[199], weak));
}

TEST_P(Api, LongLockKeepsContentsAndCounts) {
    rmhandle_t first = rmheap_malloc(heap_, 2000), block = rmheap_malloc(heap_, 500);
    write(block, 'k', 500);
    rmfree(first);
    char *address = static_cast<char *>(rmlock_long(block));
    ASSERT_NE(nullptr, address);
    EXPECT_EQ(std::string(500, 'k'), std::string(address, 500));
    EXPECT_EQ(address, rmlock_long(block));
    rmunlock(block);
    EXPECT_EQ(address, rmlock(block));
    rmunlock(block);
    rmunlock(block);
    rmfree(block);
}

TEST_P(Api, MemoryThatIsOnlyScatteredIsFound) {
    start(options_with_check(0));
    std::vector<rmhandle_t> blocks = fill(3000);
    ASSERT_GT(blocks.size(), 100u);
    for (size_t i = 0; i < blocks.size(); i += 2)
        rmfree(blocks[i]);
    rmhandle_t large = rmheap_malloc(heap_, 3000 * blocks.size() / 3);
    EXPECT_NE(nullptr, large);
    EXPECT_EQ(0, rmheap_check(heap_, nullptr));
}

TEST_P(Api, PurgesLowestPriorityFirst) {
    start(options_with_check(0));
    std::vector<rmhandle_t> blocks = fill(20000);
    ASSERT_GT(blocks.size(), 20u);
    for (size_t i = 0; i < blocks.size(); i++)
        EXPECT_EQ(0, rmpurgeable(blocks[i], i % 2 == 0 ? 5 : 2));
    rmlock(blocks[1]);
    rmhandle_t wanted = rmheap_malloc(heap_, 20000);
    ASSERT_NE(nullptr, wanted);
    size_t purged = 0;
    for (size_t i = 0; i < blocks.size(); i++) {
        bool empty = rmpurgeable(blocks[i], i % 2 == 0 ? 5 : 2) == 1;
        purged += empty;
        if (i % 2 == 0 || i == 1) {
            EXPECT_FALSE(empty) << i;
        }
        if (empty) {
            EXPECT_EQ(0u, rmsize(blocks[i]));
            EXPECT_EQ(nullptr, rmlock(blocks[i]));
            EXPECT_EQ(heap_, rmheap_of(blocks[i]));
        }
    }
    EXPECT_GE(purged, 1u);
    if (GetParam() == FIXED) {
        EXPECT_LE(purged, 3u); /* block by block; a growing heap purges whole regions */
    }
    rmunlock(blocks[1]);
    EXPECT_EQ(0, rmheap_check(heap_, nullptr));
}

TEST_P(Api, PurgedBlockGetsNewMemoryOrIsFreed) {
    start(options_with_check(0));
    rmhandle_t first = rmheap_aligned_alloc(heap_, 256, 20000),
               second = rmheap_malloc(heap_, 20000);
    rmpurgeable(first, 1);
    rmpurgeable(second, 1);
    std::vector<rmhandle_t> others = fill(20000);
    ASSERT_EQ(0u, rmsize(first));
    ASSERT_EQ(0u, rmsize(second));
    rmfree(second);
    for (rmhandle_t other : others)
        rmfree(other);
    ASSERT_EQ(0, rmrealloc(first, 5000));
    EXPECT_EQ(5000u, rmsize(first));
    EXPECT_EQ(0, rmpurgeable(first, 0));
    write(first, 'n', 5000);
    rmfree(first);
    EXPECT_EQ(0, rmheap_check(heap_, nullptr));
}

struct Low {
    std::vector<rmhandle_t> spare;
    int calls = 0;
};

int free_one(void *context, size_t) {
    Low *low = static_cast<Low *>(context);
    low->calls++;
    if (low->spare.empty())
        return 0;
    rmfree(low->spare.back());
    low->spare.pop_back();
    return 1;
}

TEST_P(Api, ProgramIsAskedLastAndUntilItSaysNo) {
    Low low;
    rm_options options = options_with_check(0);
    options.context = &low;
    options.memory_low = free_one;
    start(options);
    rmhandle_t purgeable = rmheap_malloc(heap_, 30000);
    rmpurgeable(purgeable, 7);
    std::vector<rmhandle_t> blocks = fill(30000);
    EXPECT_EQ(1, low.calls);
    EXPECT_EQ(0u, rmsize(purgeable));
    low.calls = 0;
    low.spare.assign(blocks.begin(), blocks.begin() + 3);
    EXPECT_NE(nullptr, rmheap_malloc(heap_, 90000));
    EXPECT_EQ(3, low.calls);
    errno = 0;
    EXPECT_EQ(nullptr, rmheap_malloc(heap_, 90000));
    EXPECT_EQ(ENOMEM, errno);
    EXPECT_EQ(4, low.calls);
    EXPECT_EQ(0, rmheap_check(heap_, nullptr));
}

TEST_P(Api, RequestThatCanNeverBeMetChangesNothing) {
    Low low;
    rm_options options = options_with_check(2);
    options.context = &low;
    options.memory_low = free_one;
    start(options);
    rmhandle_t block = rmheap_malloc(heap_, 1000);
    rmpurgeable(block, 1);
    for (size_t size : {SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2, size_t{1} << 45, size_t{9} << 20}) {
        errno = 0;
        EXPECT_EQ(nullptr, rmheap_malloc(heap_, size));
        EXPECT_EQ(ENOMEM, errno);
        errno = 0;
        EXPECT_EQ(-1, rmrealloc(block, size));
        EXPECT_EQ(ENOMEM, errno);
    }
    EXPECT_EQ(1000u, rmsize(block));
    EXPECT_EQ(0, low.calls);
    rmfree(block);
}

TEST_P(Api, ReallocFindsMemoryAsMallocDoes) {
    Low low;
    rm_options options = options_with_check(0);
    options.context = &low;
    options.memory_low = free_one;
    start(options);
    std::vector<rmhandle_t> blocks = fill(30000);
    write(blocks[0], 'r', 30000);
    low.spare.assign(blocks.end() - 3, blocks.end());
    low.calls = 0;
    EXPECT_EQ(0, rmrealloc(blocks[0], 60000));
    EXPECT_GE(low.calls, 1);
    EXPECT_EQ(std::string(30000, 'r'), read(blocks[0], 30000));
    errno = 0;
    EXPECT_EQ(-1, rmrealloc(blocks[0], 900000 * 8));
    EXPECT_EQ(ENOMEM, errno);
    EXPECT_EQ(60000u, rmsize(blocks[0]));
    EXPECT_EQ(0, rmheap_check(heap_, nullptr));
}

TEST_P(Api, ErrnoSurvivesSuccess) {
    errno = 1234;
    rmhandle_t block = rmheap_malloc(heap_, 100);
    rmlock(block);
    rmunlock(block);
    rmrealloc(block, 300000);
    rmfree(block);
    rmheap_compact(heap_, 0);
    EXPECT_EQ(1234, errno);
}

TEST_P(Api, DerefOutsideASectionIsFoundAtCheckLevels) {
    std::vector<rm_misuse_kind> kinds;
    rm_options options = options_with_check(1);
    options.context = &kinds;
    options.misuse = note_kind;
    rm_options of_default = options;
    ASSERT_EQ(0,
              rmconfigure(&of_default)); /* misuse without a handle is told to the default heap */
    start(options);
    rmhandle_t block = rmheap_malloc(heap_, 10);
    EXPECT_EQ(nullptr, rmderef(block));
    EXPECT_EQ(std::vector<rm_misuse_kind>{RM_MISUSE_READ_SECTION}, kinds);
    rmread_begin();
    EXPECT_NE(nullptr, rmderef(block));
    rmread_end();
    EXPECT_EQ(1u, kinds.size());
    options = options_with_check(0);
    rmconfigure(&options);
}

TEST_P(Api, ScrambleMovesUnlockedBlocksAndKeepsAllContents) {
    rm_options options = options_with_check(3);
    options.scramble_seed = 7;
    start(options);
    std::vector<rmhandle_t> blocks;
    std::vector<void *> weak;
    for (int i = 0; i < 60; i++) {
        blocks.push_back(rmheap_malloc(heap_, 64));
        write(blocks.back(), static_cast<char>('A' + i % 50), 64);
    }
    void *held = rmlock(blocks[10]);
    for (rmhandle_t block : blocks)
        weak.push_back(rmweaklock(block));
    rmheap_malloc(heap_, 64);
    int moved = 0;
    for (size_t i = 0; i < blocks.size(); i++) {
        moved += !rmweak_valid(blocks[i], weak[i]);
        EXPECT_EQ(std::string(64, static_cast<char>('A' + i % 50)), read(blocks[i], 64));
    }
    EXPECT_GT(moved, 30);
    EXPECT_EQ(held, rmweaklock(blocks[10]));
    rmunlock(blocks[10]);
}

// As a program does whose wild pointer no sanitizer sees.
__attribute__((no_sanitize("address"))) void overwrite(volatile char *from, size_t count) {
    for (size_t i = 0; i < count; i++)
        from[i] = static_cast<char>(0xff);
}

TEST_P(Api, CheckLevelTwoFindsABrokenHeapAndNamesTheCall) {
    rmhandle_t block = rmheap_malloc(heap_, 100);
    char *bytes = static_cast<char *>(rmlock(block));
    EXPECT_DEATH(
        {
            overwrite(bytes - 8, 8);
            rmheap_malloc(heap_, 8);
        },
        "^jeff: rmmalloc: heap fault, rule [0-9]+ [a-z-]+");
    rmunlock(block);
    rmfree(block);
}

TEST_P(Api, CheckThatFailsWhileScramblingNamesTheSeed) {
    rm_options options = options_with_check(2);
    options.scramble_period = 1000000;
    options.scramble_seed = 4711;
    start(options);
    rmhandle_t block = rmheap_malloc(heap_, 100);
    char *bytes = static_cast<char *>(rmlock(block));
    EXPECT_DEATH(
        {
            overwrite(bytes - 8, 8);
            rmheap_malloc(heap_, 8);
        },
        "^jeff: rmmalloc: heap fault.*scramble seed 4711");
    rmunlock(block);
    rmfree(block);
}

TEST_P(Api, VisitSeesEveryBlockOnceAndStopsWhenAsked) {
    std::vector<rmhandle_t> blocks;
    for (size_t i = 0; i < 20; i++)
        blocks.push_back(rmheap_malloc(heap_, 10 * i));
    std::vector<rmhandle_t> seen;
    auto visit = [](void *context, const rm_block_info *info) {
        static_cast<std::vector<rmhandle_t> *>(context)->push_back(info->handle);
        return 0;
    };
    EXPECT_EQ(0, rmheap_visit(heap_, visit, &seen));
    EXPECT_EQ(20u, seen.size());
    for (rmhandle_t block : blocks)
        EXPECT_EQ(1, std::count(seen.begin(), seen.end(), block));
    EXPECT_EQ(5, rmheap_visit(
                     heap_, [](void *, const rm_block_info *) { return 5; }, nullptr));
}

INSTANTIATE_TEST_SUITE_P(In, Api, testing::Values(GROWING, FIXED), support::api_profile_name);

} // namespace
