// Every kind of misuse in both profiles: without a callback one line and the end of the process, with one
// the call has no effect and the heap is whole.
#include <gtest/gtest.h>

#include <jeff/jeff.h>

#include <cstring>
#include <string>
#include <vector>

namespace {

struct Report {
    rm_misuse_kind kind;
    std::string call;
    rmhandle_t handle;
    rmheap_t heap;
    std::string message;
};

int go_on(void *context, const rm_misuse *misuse) {
    static_cast<std::vector<Report> *>(context)->push_back(
        {misuse->kind, misuse->call, misuse->handle, misuse->heap, misuse->message});
    return 1;
}

enum Profile { GROWING, FIXED, DEFAULT_GROWING, DEFAULT_FIXED };

std::string profile_name(const testing::TestParamInfo<Profile> &info) {
    static const char *const names[] = {"Growing", "Fixed", "DefaultGrowing", "DefaultFixed"};
    return names[info.param];
}

// What a case needs: a heap, and a block in it with known contents.
class Misuse : public testing::TestWithParam<Profile> {
  protected:
    void SetUp() override {
        testing::FLAGS_gtest_death_test_style = "fast";
        buffer_.resize(256 << 10);
        start(false);
    }
    void TearDown() override {
        finish();
    }

    void finish() {
        if (is_default())
            rmdestroy();
        else
            rmheap_destroy(heap_);
    }

    bool is_default() const {
        return GetParam() == DEFAULT_GROWING || GetParam() == DEFAULT_FIXED;
    }

    void start(bool with_callback) {
        rm_options options;
        rmoptions_init(&options);
        options.context = &reports_;
        options.misuse = with_callback ? go_on : nullptr;
        options.check = 0;
        heap_ = nullptr;
        // the default heap's callback is also asked where the heap cannot be told
        ASSERT_EQ(0, rmconfigure(&options));
        if (GetParam() == DEFAULT_FIXED) {
            ASSERT_EQ(0, rminit(buffer_.data(), buffer_.size()));
        }
        if (GetParam() == GROWING)
            heap_ = rmheap_create(&options);
        if (GetParam() == FIXED)
            heap_ = rmheap_create_in(buffer_.data(), buffer_.size(), &options);
        block_ = rmheap_malloc(heap_, 100);
        ASSERT_NE(nullptr, block_);
        std::memset(rmlock(block_), 0x5c, 100);
        rmunlock(block_);
    }

    // From here on misuse is noted and the program goes on.
    void restart_with_callback() {
        finish();
        start(true);
    }

    rmhandle_t freed() {
        rmhandle_t handle = rmheap_malloc(heap_, 40);
        rmfree(handle);
        return handle;
    }

    static uintptr_t entry_of(rmhandle_t handle) {
        return reinterpret_cast<uintptr_t>(handle) & ((uintptr_t{1} << 52) - 1);
    }

    // Whose entry has been used `times` times since, which must be below 4095.
    rmhandle_t freed_long_ago(int times) {
        rmhandle_t handle = freed();
        int reused = 0;
        for (int i = 0; i < 5000000 && reused < times; i++) {
            rmhandle_t next = rmheap_malloc(heap_, 40);
            EXPECT_NE(handle, next);
            reused += entry_of(next) == entry_of(handle);
            rmfree(next);
        }
        EXPECT_EQ(times, reused);
        return handle;
    }

    rmhandle_t locked_to_the_most() {
        rmhandle_t handle = rmheap_malloc(heap_, 24);
        for (int i = 0; i < RM_LOCKS_MAX; i++)
            EXPECT_NE(nullptr, rmlock(handle));
        return handle;
    }

    void expect_report(rm_misuse_kind kind, const char *call, rmhandle_t handle) {
        ASSERT_EQ(1u, reports_.size()) << call;
        EXPECT_EQ(kind, reports_[0].kind) << reports_[0].message;
        EXPECT_EQ(call, reports_[0].call);
        EXPECT_EQ(handle, reports_[0].handle) << call;
        EXPECT_EQ(0u, reports_[0].message.find("jeff: " + std::string(call) + ": "))
            << reports_[0].message;
        EXPECT_EQ(std::string::npos, reports_[0].message.find('\n'));
        reports_.clear();
        expect_whole();
    }

    void expect_whole() {
        rm_fault fault;
        EXPECT_EQ(0, rmheap_check(heap_, &fault)) << fault.name << ": " << fault.text;
        const char *bytes = static_cast<const char *>(rmlock(block_));
        ASSERT_NE(nullptr, bytes);
        EXPECT_EQ(std::string(100, 0x5c), std::string(bytes, 100));
        rmunlock(block_);
        EXPECT_EQ(100u, rmsize(block_));
        EXPECT_TRUE(reports_.empty());
    }

    static rmhandle_t foreign() {
        static uint64_t not_an_entry[4];
        return reinterpret_cast<rmhandle_t>(not_an_entry);
    }

    rmheap_t heap_ = nullptr;
    rmhandle_t block_ = nullptr;
    std::vector<char> buffer_;
    std::vector<Report> reports_;
};

class MisuseDeath : public Misuse {};

TEST_P(MisuseDeath, DoubleFree) {
    rmhandle_t handle = freed();
    EXPECT_DEATH(rmfree(handle),
                 "^jeff: rmfree: stale handle 0x[0-9a-f]{16} \\(heap 0x[0-9a-f]{16}, "
                 "generation [0-9]+, entry now [0-9]+\\): the block was freed before");
}

TEST_P(MisuseDeath, StaleHandleInEveryCall) {
    rmhandle_t handle = freed();
    EXPECT_DEATH(rmlock(handle), "^jeff: rmlock: stale handle 0x");
    EXPECT_DEATH(rmtrylock(handle), "^jeff: rmtrylock: stale handle 0x");
    EXPECT_DEATH(rmlock_long(handle), "^jeff: rmlock_long: stale handle 0x");
    EXPECT_DEATH(rmunlock(handle), "^jeff: rmunlock: stale handle 0x");
    EXPECT_DEATH(rmweaklock(handle), "^jeff: rmweaklock: stale handle 0x");
    EXPECT_DEATH(rmsize(handle), "^jeff: rmsize: stale handle 0x");
    EXPECT_DEATH(rmrealloc(handle, 10), "^jeff: rmrealloc: stale handle 0x");
    EXPECT_DEATH(rmpurgeable(handle, 1), "^jeff: rmpurgeable: stale handle 0x");
    EXPECT_DEATH((rmread_begin(), rmderef(handle)), "^jeff: rmderef: stale handle 0x");
}

TEST_P(MisuseDeath, StaleHandleAfterItsEntryWasReusedManyTimes) {
    rmhandle_t handle = freed_long_ago(4000);
    EXPECT_DEATH(rmlock(handle), "^jeff: rmlock: stale handle 0x");
    EXPECT_DEATH(rmfree(handle), "^jeff: rmfree: stale handle 0x");
}

TEST_P(MisuseDeath, UnlockWithoutLock) {
    EXPECT_DEATH(rmunlock(block_),
                 "^jeff: rmunlock: handle 0x[0-9a-f]{16} \\(heap 0x[0-9a-f]{16}\\): "
                 "the block is not locked");
}

TEST_P(MisuseDeath, FreeWhileLocked) {
    rmlock(block_);
    rmlock(block_);
    EXPECT_DEATH(rmfree(block_), "^jeff: rmfree: handle 0x[0-9a-f]{16} \\(heap 0x[0-9a-f]{16}, "
                                 "2 locks\\): the block is locked");
    rmunlock(block_);
    rmunlock(block_);
}

TEST_P(MisuseDeath, MoreLocksThanCanBeCounted) {
    rmhandle_t handle = locked_to_the_most();
    EXPECT_DEATH(rmlock(handle), "^jeff: rmlock: handle 0x[0-9a-f]{16} \\(heap 0x[0-9a-f]{16}, "
                                 "2048 locks\\): too many locks at a time");
    for (int i = 0; i < RM_LOCKS_MAX; i++)
        rmunlock(handle);
}

TEST_P(MisuseDeath, ForeignHandle) {
    EXPECT_DEATH(rmlock(foreign()),
                 "^jeff: rmlock: foreign handle 0x[0-9a-f]{16}: no heap gave it out");
    EXPECT_DEATH(rmfree(foreign()),
                 "^jeff: rmfree: foreign handle 0x[0-9a-f]{16}: no heap gave it out");
}

TEST_P(MisuseDeath, NullHandle) {
    EXPECT_DEATH(rmlock(nullptr), "^jeff: rmlock: NULL handle: a block is needed here");
    EXPECT_DEATH(rmunlock(nullptr), "^jeff: rmunlock: NULL handle");
    EXPECT_DEATH(rmsize(nullptr), "^jeff: rmsize: NULL handle");
    EXPECT_DEATH(rmrealloc(nullptr, 8), "^jeff: rmrealloc: NULL handle");
}

TEST_P(MisuseDeath, ReadSectionThatIsNotOpen) {
    EXPECT_DEATH(rmread_end(), "^jeff: rmread_end: read section: none is open");
}

TEST_P(Misuse, FreeOfNullIsNone) {
    restart_with_callback();
    rmfree(nullptr);
    expect_whole();
}

TEST_P(Misuse, DoubleFreeHasNoEffect) {
    restart_with_callback();
    rmhandle_t handle = freed();
    rmfree(handle);
    expect_report(RM_MISUSE_STALE_HANDLE, "rmfree", handle);
}

TEST_P(Misuse, StaleHandleHasNoEffectInAnyCall) {
    restart_with_callback();
    rmhandle_t handle = freed();
    EXPECT_EQ(nullptr, rmlock(handle));
    expect_report(RM_MISUSE_STALE_HANDLE, "rmlock", handle);
    EXPECT_EQ(nullptr, rmtrylock(handle));
    expect_report(RM_MISUSE_STALE_HANDLE, "rmtrylock", handle);
    EXPECT_EQ(nullptr, rmlock_long(handle));
    expect_report(RM_MISUSE_STALE_HANDLE, "rmlock_long", handle);
    rmunlock(handle);
    expect_report(RM_MISUSE_STALE_HANDLE, "rmunlock", handle);
    EXPECT_EQ(nullptr, rmweaklock(handle));
    expect_report(RM_MISUSE_STALE_HANDLE, "rmweaklock", handle);
    EXPECT_EQ(0u, rmsize(handle));
    expect_report(RM_MISUSE_STALE_HANDLE, "rmsize", handle);
    EXPECT_EQ(-1, rmrealloc(handle, 10));
    expect_report(RM_MISUSE_STALE_HANDLE, "rmrealloc", handle);
    EXPECT_EQ(-1, rmpurgeable(handle, 1));
    expect_report(RM_MISUSE_STALE_HANDLE, "rmpurgeable", handle);
    rmread_begin();
    EXPECT_EQ(nullptr, rmderef(handle));
    rmread_end();
    expect_report(RM_MISUSE_STALE_HANDLE, "rmderef", handle);
}

TEST_P(Misuse, StaleHandleIsFoundAfterThousandsOfReuses) {
    restart_with_callback();
    rmhandle_t handle = freed_long_ago(3000);
    EXPECT_EQ(nullptr, rmlock(handle));
    expect_report(RM_MISUSE_STALE_HANDLE, "rmlock", handle);
    rmfree(handle);
    expect_report(RM_MISUSE_STALE_HANDLE, "rmfree", handle);
}

TEST_P(Misuse, StaleHandleDoesNotReachTheNextBlockOfItsEntry) {
    restart_with_callback();
    rmhandle_t handle = freed();
    std::vector<rmhandle_t> others;
    for (int i = 0; i < 500; i++)
        others.push_back(rmheap_malloc(heap_, 40));
    for (rmhandle_t other : others)
        EXPECT_NE(handle, other);
    rmunlock(handle);
    expect_report(RM_MISUSE_STALE_HANDLE, "rmunlock", handle);
    rmfree(handle);
    expect_report(RM_MISUSE_STALE_HANDLE, "rmfree", handle);
    for (rmhandle_t other : others) {
        EXPECT_NE(nullptr, rmlock(other));
        rmunlock(other);
        rmfree(other);
    }
    expect_whole();
}

TEST_P(Misuse, UnlockWithoutLockHasNoEffect) {
    restart_with_callback();
    rmunlock(block_);
    expect_report(RM_MISUSE_UNLOCK_UNLOCKED, "rmunlock", block_);
    rmlock(block_);
    rmunlock(block_);
    rmunlock(block_);
    expect_report(RM_MISUSE_UNLOCK_UNLOCKED, "rmunlock", block_);
}

TEST_P(Misuse, FreeWhileLockedHasNoEffect) {
    restart_with_callback();
    void *address = rmlock(block_);
    rmfree(block_);
    expect_report(RM_MISUSE_FREE_LOCKED, "rmfree", block_);
    EXPECT_EQ(address, rmlock(block_));
    rmunlock(block_);
    rmunlock(block_);
    rmunlock(block_);
    expect_report(RM_MISUSE_UNLOCK_UNLOCKED, "rmunlock", block_);
}

TEST_P(Misuse, LockTooManyHasNoEffect) {
    restart_with_callback();
    rmhandle_t handle = locked_to_the_most();
    EXPECT_EQ(nullptr, rmlock(handle));
    expect_report(RM_MISUSE_LOCK_OVERFLOW, "rmlock", handle);
    EXPECT_EQ(nullptr, rmtrylock(handle));
    expect_report(RM_MISUSE_LOCK_OVERFLOW, "rmtrylock", handle);
    for (int i = 0; i < RM_LOCKS_MAX; i++)
        rmunlock(handle);
    expect_whole();
    rmunlock(handle);
    expect_report(RM_MISUSE_UNLOCK_UNLOCKED, "rmunlock", handle);
    rmfree(handle);
    expect_whole();
}

TEST_P(Misuse, ForeignHandleHasNoEffectInAnyCall) {
    if (!is_default())
        return; /* the default heap's callback is the one that is asked */
    restart_with_callback();
    rmhandle_t real = block_;
    const uintptr_t bits = reinterpret_cast<uintptr_t>(real);
    for (uintptr_t value : {reinterpret_cast<uintptr_t>(foreign()), uintptr_t{8}, uintptr_t{1},
                            ~uintptr_t{0}, ~uintptr_t{7}, bits + 1, bits | uintptr_t{1} << 50}) {
        rmhandle_t handle = reinterpret_cast<rmhandle_t>(value);
        EXPECT_EQ(nullptr, rmlock(handle));
        expect_report(RM_MISUSE_FOREIGN_HANDLE, "rmlock", handle);
        rmunlock(handle);
        expect_report(RM_MISUSE_FOREIGN_HANDLE, "rmunlock", handle);
        EXPECT_EQ(nullptr, rmtrylock(handle));
        expect_report(RM_MISUSE_FOREIGN_HANDLE, "rmtrylock", handle);
        EXPECT_EQ(nullptr, rmweaklock(handle));
        expect_report(RM_MISUSE_FOREIGN_HANDLE, "rmweaklock", handle);
        EXPECT_EQ(0u, rmsize(handle));
        expect_report(RM_MISUSE_FOREIGN_HANDLE, "rmsize", handle);
        EXPECT_EQ(-1, rmrealloc(handle, 8));
        expect_report(RM_MISUSE_FOREIGN_HANDLE, "rmrealloc", handle);
        EXPECT_EQ(-1, rmpurgeable(handle, 3));
        expect_report(RM_MISUSE_FOREIGN_HANDLE, "rmpurgeable", handle);
        rmread_begin();
        EXPECT_EQ(nullptr, rmderef(handle));
        rmread_end();
        expect_report(RM_MISUSE_FOREIGN_HANDLE, "rmderef", handle);
        rmfree(handle);
        expect_report(RM_MISUSE_FOREIGN_HANDLE, "rmfree", handle);
        EXPECT_EQ(nullptr, rmheap_of(handle));
        EXPECT_EQ(0, rmweak_valid(handle, &handle));
    }
    expect_whole();
}

// Random values, most of them close to the table, where they are aligned and name some word or other.
TEST_P(Misuse, RandomHandleNeverHarmsTheHeap) {
    if (!is_default())
        return;
    restart_with_callback();
    const uintptr_t bits = reinterpret_cast<uintptr_t>(block_);
    uint64_t random = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uintptr_t value = bits ^ (random & (i % 2 == 0 ? 0xfff0000000003fffu : 0xffffffu));
        if (value == bits)
            continue;
        rmhandle_t handle = reinterpret_cast<rmhandle_t>(value);
        EXPECT_EQ(nullptr, rmlock(handle)) << i;
        ASSERT_EQ(1u, reports_.size()) << i;
        rmunlock(handle);
        rmfree(handle);
        ASSERT_EQ(3u, reports_.size()) << i;
        reports_.clear();
    }
    expect_whole();
}

TEST_P(Misuse, NullHandleHasNoEffect) {
    if (!is_default())
        return;
    restart_with_callback();
    EXPECT_EQ(nullptr, rmlock(nullptr));
    expect_report(RM_MISUSE_NULL_HANDLE, "rmlock", nullptr);
    EXPECT_EQ(nullptr, rmtrylock(nullptr));
    expect_report(RM_MISUSE_NULL_HANDLE, "rmtrylock", nullptr);
    EXPECT_EQ(nullptr, rmlock_long(nullptr));
    expect_report(RM_MISUSE_NULL_HANDLE, "rmlock_long", nullptr);
    rmunlock(nullptr);
    expect_report(RM_MISUSE_NULL_HANDLE, "rmunlock", nullptr);
    EXPECT_EQ(nullptr, rmweaklock(nullptr));
    expect_report(RM_MISUSE_NULL_HANDLE, "rmweaklock", nullptr);
    EXPECT_EQ(0u, rmsize(nullptr));
    expect_report(RM_MISUSE_NULL_HANDLE, "rmsize", nullptr);
    EXPECT_EQ(-1, rmrealloc(nullptr, 8));
    expect_report(RM_MISUSE_NULL_HANDLE, "rmrealloc", nullptr);
    EXPECT_EQ(-1, rmpurgeable(nullptr, 3));
    expect_report(RM_MISUSE_NULL_HANDLE, "rmpurgeable", nullptr);
}

TEST_P(Misuse, EndOfNoReadSectionHasNoEffect) {
    if (!is_default())
        return;
    restart_with_callback();
    rmread_begin();
    rmread_begin();
    rmread_end();
    rmread_end();
    expect_whole();
    rmread_end();
    expect_report(RM_MISUSE_READ_SECTION, "rmread_end", nullptr);
    rmread_begin();
    EXPECT_NE(nullptr, rmderef(block_));
    rmread_end();
    expect_whole();
}

TEST_P(Misuse, ReportNamesTheHeapWhereItCanBeTold) {
    restart_with_callback();
    rmunlock(block_);
    ASSERT_EQ(1u, reports_.size());
    EXPECT_EQ(rmheap_of(block_), reports_[0].heap);
    EXPECT_NE(nullptr, reports_[0].heap);
}

// The table of a fixed heap shrinks; it still tells what it once gave out.
TEST_P(Misuse, HandleIsStaleAfterTheTableShrank) {
    restart_with_callback();
    std::vector<rmhandle_t> handles;
    while (handles.size() < 100)
        handles.push_back(rmheap_malloc(heap_, 20));
    for (rmhandle_t handle : handles)
        rmfree(handle);
    for (rmhandle_t handle : handles) {
        rmfree(handle);
        expect_report(RM_MISUSE_STALE_HANDLE, "rmfree", handle);
    }
}

INSTANTIATE_TEST_SUITE_P(In, Misuse,
                         testing::Values(GROWING, FIXED, DEFAULT_GROWING, DEFAULT_FIXED),
                         profile_name);
INSTANTIATE_TEST_SUITE_P(In, MisuseDeath,
                         testing::Values(GROWING, FIXED, DEFAULT_GROWING, DEFAULT_FIXED),
                         profile_name);

} // namespace
