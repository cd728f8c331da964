// The slow paths on entries, on a table of a few words that belongs to no heap.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

extern "C" {
#include "heap/heap.h"
}

namespace {

constexpr uintptr_t base = 0x10000000;
constexpr uint64_t offset = 0x12340;
constexpr unsigned generation = 9;
constexpr uint32_t index = 3;

class Access : public testing::Test {
  protected:
    Access() {
        space_.base = base;
        space_.limit = base + (uintptr_t{1} << 40);
        space_.table = reinterpret_cast<uintptr_t>(&words_[0]);
        space_.table_end = reinterpret_cast<uintptr_t>(&words_[8]);
        handle_ = jf_handle_make(&space_, index, generation);
        stale_ = jf_handle_make(&space_, index, generation - 1);
    }

    static jf_word make(unsigned count, enum jf_entry_state state,
                        unsigned of_generation = generation, uint64_t address = offset) {
        return jf_word{count} * JF_ENTRY_COUNT_ONE | jf_word{of_generation} << 40 |
               jf_entry_low(address, state);
    }

    void set(unsigned count, enum jf_entry_state state) {
        words_[index] = make(count, state);
    }
    jf_word word() const {
        return words_[index];
    }

    jf_access lock(rmhandle_t handle, bool may_wait = true) {
        pointer_ = nullptr;
        return jf_access_lock(&space_, nullptr, index, handle, may_wait, &pointer_);
    }
    jf_access unlock(rmhandle_t handle) {
        return jf_access_unlock(&space_, index, handle);
    }
    jf_access deref(rmhandle_t handle) {
        pointer_ = nullptr;
        return jf_access_deref(&space_, nullptr, index, handle, &pointer_);
    }
    jf_access peek(rmhandle_t handle) {
        pointer_ = nullptr;
        return jf_access_peek(&space_, index, handle, &pointer_);
    }
    jf_access free(rmhandle_t handle) {
        return jf_access_free(&space_, index, handle, &before_);
    }
    jf_access claim(rmhandle_t handle) {
        return jf_access_claim(&space_, index, handle, &before_);
    }

    // Makes the block LIVE again from another thread, some time after the call has begun to wait.
    template <class Call> jf_access while_resized(Call call) {
        set(0, JF_ENTRY_RESIZING);
        std::thread resizer([this] {
            for (int i = 0; i < 1000; i++)
                std::this_thread::yield();
            jf_word_fetch_xor(&words_[index], JF_ENTRY_RESIZING ^ JF_ENTRY_LIVE);
        });
        jf_access access = call();
        resizer.join();
        return access;
    }

    void *const address_ = reinterpret_cast<void *>(base + offset);
    jf_space space_ = {};
    jf_word words_[8] = {};
    rmhandle_t handle_;
    rmhandle_t stale_;
    void *pointer_ = nullptr;
    jf_word before_ = 0;
};

TEST_F(Access, LockCountsAndGivesTheAddress) {
    set(0, JF_ENTRY_LIVE);
    EXPECT_EQ(JF_ACCESS_OK, lock(handle_));
    EXPECT_EQ(address_, pointer_);
    EXPECT_EQ(JF_ACCESS_OK, lock(handle_));
    EXPECT_EQ(make(2, JF_ENTRY_LIVE), word());
    EXPECT_EQ(JF_ACCESS_OK, unlock(handle_));
    EXPECT_EQ(JF_ACCESS_OK, unlock(handle_));
    EXPECT_EQ(make(0, JF_ENTRY_LIVE), word());
}

TEST_F(Access, LockGivesUpAMoveUnderWay) {
    set(0, JF_ENTRY_MOVING);
    EXPECT_EQ(JF_ACCESS_OK, lock(handle_));
    EXPECT_EQ(address_, pointer_);
    EXPECT_EQ(make(1, JF_ENTRY_LIVE), word());
}

TEST_F(Access, LocksUpToTheMostAndNoFurther) {
    set(0, JF_ENTRY_LIVE);
    for (int i = 0; i < RM_LOCKS_MAX; i++)
        ASSERT_EQ(JF_ACCESS_OK, lock(handle_)) << i;
    EXPECT_EQ(JF_ACCESS_OVERFLOW, lock(handle_));
    EXPECT_EQ(nullptr, pointer_);
    EXPECT_EQ(make(RM_LOCKS_MAX, JF_ENTRY_LIVE), word());
    for (int i = 0; i < RM_LOCKS_MAX; i++)
        ASSERT_EQ(JF_ACCESS_OK, unlock(handle_)) << i;
    EXPECT_EQ(make(0, JF_ENTRY_LIVE), word());
}

TEST_F(Access, StaleHandleChangesNothingInAnyState) {
    for (enum jf_entry_state state : {JF_ENTRY_FREE, JF_ENTRY_LIVE, JF_ENTRY_MOVING,
                                      JF_ENTRY_RESIZING, JF_ENTRY_PURGED, JF_ENTRY_PENDING}) {
        set(1, state);
        EXPECT_EQ(JF_ACCESS_STALE, lock(stale_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, unlock(stale_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, deref(stale_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, peek(stale_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, free(stale_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, claim(stale_)) << state;
        EXPECT_EQ(make(1, state), word()) << state;
    }
}

TEST_F(Access, EntryWithoutABlockIsStaleWhateverItsGeneration) {
    for (enum jf_entry_state state : {JF_ENTRY_FREE, JF_ENTRY_PENDING}) {
        set(0, state);
        EXPECT_EQ(JF_ACCESS_STALE, lock(handle_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, unlock(handle_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, deref(handle_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, peek(handle_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, free(handle_)) << state;
        EXPECT_EQ(JF_ACCESS_STALE, claim(handle_)) << state;
        EXPECT_EQ(make(0, state), word()) << state;
    }
}

TEST_F(Access, PurgedBlockHasNoAddress) {
    set(0, JF_ENTRY_PURGED);
    EXPECT_EQ(JF_ACCESS_PURGED, lock(handle_));
    EXPECT_EQ(JF_ACCESS_PURGED, deref(handle_));
    EXPECT_EQ(JF_ACCESS_PURGED, peek(handle_));
    EXPECT_EQ(nullptr, pointer_);
    EXPECT_EQ(make(0, JF_ENTRY_PURGED), word());
}

TEST_F(Access, LockThatMayNotWaitLeavesAResizedBlockAlone) {
    set(0, JF_ENTRY_RESIZING);
    EXPECT_EQ(JF_ACCESS_WOULD_WAIT, lock(handle_, false));
    EXPECT_EQ(make(0, JF_ENTRY_RESIZING), word());
}

TEST_F(Access, WaitsForTheResizerToBeDone) {
    EXPECT_EQ(JF_ACCESS_OK, while_resized([this] { return lock(handle_); }));
    EXPECT_EQ(make(1, JF_ENTRY_LIVE), word());
    EXPECT_EQ(JF_ACCESS_OK, while_resized([this] { return deref(handle_); }));
    EXPECT_EQ(JF_ACCESS_OK, while_resized([this] { return peek(handle_); }));
    EXPECT_EQ(JF_ACCESS_OK, while_resized([this] { return claim(handle_); }));
    EXPECT_EQ(JF_ACCESS_OK, while_resized([this] { return free(handle_); }));
}

TEST_F(Access, UnlockOfAnUnlockedBlockIsRefused) {
    set(0, JF_ENTRY_LIVE);
    EXPECT_EQ(JF_ACCESS_NOT_LOCKED, unlock(handle_));
    EXPECT_EQ(make(0, JF_ENTRY_LIVE), word());
}

TEST_F(Access, UnlockIsRightWhileTheBlockIsResizedWhereItLies) {
    set(2, JF_ENTRY_RESIZING);
    EXPECT_EQ(JF_ACCESS_OK, unlock(handle_));
    EXPECT_EQ(make(1, JF_ENTRY_RESIZING), word());
}

TEST_F(Access, DerefTakesNoCountAndGivesUpAMove) {
    set(0, JF_ENTRY_MOVING);
    EXPECT_EQ(JF_ACCESS_OK, deref(handle_));
    EXPECT_EQ(address_, pointer_);
    EXPECT_EQ(make(0, JF_ENTRY_LIVE), word());
}

TEST_F(Access, PeekLetsAMoveGoOn) {
    set(0, JF_ENTRY_MOVING);
    EXPECT_EQ(JF_ACCESS_OK, peek(handle_));
    EXPECT_EQ(address_, pointer_);
    EXPECT_EQ(make(0, JF_ENTRY_MOVING), word());
}

TEST_F(Access, FreeMakesEveryHandleStaleAtOnce) {
    for (enum jf_entry_state state : {JF_ENTRY_LIVE, JF_ENTRY_MOVING}) {
        set(0, state);
        EXPECT_EQ(JF_ACCESS_OK, free(handle_));
        EXPECT_EQ(make(0, state), before_);
        EXPECT_EQ(make(0, JF_ENTRY_PENDING, generation + 1), word());
        EXPECT_EQ(JF_ACCESS_STALE, free(handle_));
    }
}

TEST_F(Access, FreeOfAPurgedBlockLeavesNoAddress) {
    set(0, JF_ENTRY_PURGED);
    EXPECT_EQ(JF_ACCESS_OK, free(handle_));
    EXPECT_EQ(make(0, JF_ENTRY_PURGED), before_);
    EXPECT_EQ(make(0, JF_ENTRY_PENDING, generation + 1, 0), word());
}

TEST_F(Access, FreeOfALockedBlockIsRefused) {
    set(1, JF_ENTRY_LIVE);
    EXPECT_EQ(JF_ACCESS_LOCKED, free(handle_));
    EXPECT_EQ(make(1, JF_ENTRY_LIVE), word());
}

TEST_F(Access, GenerationComesRoundToZeroAndTouchesNothingElse) {
    words_[index] = make(0, JF_ENTRY_LIVE, JF_GENERATION_MAX);
    EXPECT_EQ(JF_ACCESS_OK, free(jf_handle_make(&space_, index, JF_GENERATION_MAX)));
    EXPECT_EQ(make(0, JF_ENTRY_PENDING, 0), word());
}

TEST_F(Access, ClaimExcludesOthersAndIsGivenUpAsItWas) {
    for (enum jf_entry_state state : {JF_ENTRY_LIVE, JF_ENTRY_PURGED}) {
        set(0, state);
        EXPECT_EQ(JF_ACCESS_OK, claim(handle_));
        EXPECT_EQ(make(0, state), before_);
        EXPECT_EQ(make(0, JF_ENTRY_RESIZING), word());
        jf_access_unclaim(&space_, index, before_);
        EXPECT_EQ(make(0, state), word());
    }
}

TEST_F(Access, ClaimEndsAMove) {
    set(0, JF_ENTRY_MOVING);
    EXPECT_EQ(JF_ACCESS_OK, claim(handle_));
    jf_access_unclaim(&space_, index, before_);
    EXPECT_EQ(make(0, JF_ENTRY_LIVE), word());
}

TEST_F(Access, ClaimOfALockedBlockKeepsItsCount) {
    set(2, JF_ENTRY_LIVE);
    EXPECT_EQ(JF_ACCESS_LOCKED, claim(handle_));
    EXPECT_EQ(make(2, JF_ENTRY_RESIZING), word());
    EXPECT_EQ(JF_ACCESS_OK, unlock(handle_));
    jf_access_unclaim(&space_, index, before_);
    EXPECT_EQ(make(1, JF_ENTRY_LIVE), word());
}

// Many threads lock through a right and a stale handle while one marks the entry as moving and takes the
// mark away as a compactor would: no count is lost, no mark stays.
TEST_F(Access, CountsAreKeptAmongLockersMoversAndMistakes) {
    set(0, JF_ENTRY_LIVE);
    std::atomic<bool> stop{false};
    std::thread mover([&] {
        while (!stop.load()) {
            jf_word seen = jf_word_load(&words_[index]);
            if (jf_entry_count(seen) != 0 || jf_entry_state(seen) != JF_ENTRY_LIVE)
                continue;
            if (!jf_word_compare_swap(&words_[index], &seen, seen | JF_ENTRY_MOVING_BIT))
                continue;
            seen = jf_word_load(&words_[index]);
            while (jf_entry_state(seen) == JF_ENTRY_MOVING &&
                   !jf_word_compare_swap(&words_[index], &seen, seen & ~JF_ENTRY_MOVING_BIT))
                continue;
        }
    });
    auto work = [this] {
        for (int i = 0; i < 20000; i++) {
            void *pointer = nullptr;
            ASSERT_EQ(JF_ACCESS_OK,
                      jf_access_lock(&space_, nullptr, index, handle_, true, &pointer));
            ASSERT_EQ(JF_ENTRY_LIVE, jf_entry_state(jf_word_load(&words_[index])));
            ASSERT_EQ(JF_ACCESS_STALE,
                      jf_access_lock(&space_, nullptr, index, stale_, true, &pointer));
            ASSERT_EQ(JF_ACCESS_STALE, jf_access_unlock(&space_, index, stale_));
            ASSERT_EQ(JF_ACCESS_OK, jf_access_unlock(&space_, index, handle_));
        }
    };
    std::thread first(work);
    std::thread second(work);
    first.join();
    second.join();
    stop = true;
    mover.join();
    EXPECT_EQ(make(0, JF_ENTRY_LIVE), word());
}

} // namespace
