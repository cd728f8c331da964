// The list of read sections, and whether all threads have been outside theirs.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

extern "C" {
#include "handle/readers.h"
}

namespace {

class Readers : public testing::TestWithParam<bool> {
  protected:
    Readers() {
        jf_readers_init(&readers_);
        if (GetParam() && !jf_os_fence_prepare())
            fence_ = false;
    }

    bool quiet(const rm_reader *own = nullptr) {
        return jf_readers_quiet(&readers_, own, fence_);
    }

    static void open(rm_reader &reader) {
        reader.depth++;
        __atomic_store_n(&reader.sequence, reader.sequence | 1, __ATOMIC_SEQ_CST);
    }
    static void close(rm_reader &reader) {
        reader.depth--;
        __atomic_store_n(&reader.sequence, (reader.sequence | 1) + 1, __ATOMIC_SEQ_CST);
    }

    struct Section {
        rm_reader reader = {};
        jf_reader_node node = {};
    };
    void add(Section &section) {
        jf_readers_add(&readers_, &section.node, &section.reader);
    }
    void remove(Section &section) {
        jf_readers_remove(&readers_, &section.node);
    }

    jf_readers readers_;
    bool fence_ = GetParam();
};

TEST_P(Readers, AreQuietWhenThereAreNone) {
    EXPECT_TRUE(quiet());
    EXPECT_EQ(0u, readers_.any);
}

TEST_P(Readers, AreQuietWhenAllAreOutside) {
    Section one, two;
    add(one);
    add(two);
    EXPECT_TRUE(quiet());
    open(one.reader);
    close(one.reader);
    EXPECT_TRUE(quiet());
}

TEST_P(Readers, AreNotQuietWhileOneIsInside) {
    Section one, two, three;
    add(one);
    add(two);
    add(three);
    for (Section *section : {&one, &two, &three}) {
        open(section->reader);
        EXPECT_FALSE(quiet());
        close(section->reader);
        EXPECT_TRUE(quiet());
    }
}

TEST_P(Readers, AreNotQuietForAThreadInItsOwnSection) {
    rm_reader own = {};
    open(own);
    EXPECT_FALSE(quiet(&own));
    close(own);
    EXPECT_TRUE(quiet(&own));
}

TEST_P(Readers, AreForgottenOnceTakenOut) {
    Section one, two, three;
    for (Section *section : {&one, &two, &three}) {
        add(*section);
        open(section->reader);
    }
    remove(two); /* in the middle, last, first */
    EXPECT_FALSE(quiet());
    remove(one);
    EXPECT_FALSE(quiet());
    remove(three);
    EXPECT_TRUE(quiet());
    EXPECT_EQ(nullptr, readers_.first);
}

TEST_P(Readers, AreQuietWhenASectionEndsAndAnotherBegins) {
    Section section;
    add(section);
    std::atomic<bool> stop{false};
    std::thread reader([&] {
        while (!stop.load()) {
            open(section.reader);
            close(section.reader);
        }
    });
    bool seen = false;
    for (int i = 0; i < 100000 && !seen; i++)
        seen = quiet();
    stop = true;
    reader.join();
    EXPECT_TRUE(seen);
}

TEST_P(Readers, ListIsWholeAfterManyCameAndWentAtOnce) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([this] {
            for (int i = 0; i < 3000; i++) {
                Section one, two;
                add(one);
                add(two);
                remove(one);
                remove(two);
            }
        });
    // it does not know whether they are quiet while it does not get at the list, but now and then it does
    bool seen = false;
    for (int i = 0; i < 300 || (i < 100000 && !seen); i++)
        seen |= quiet();
    for (std::thread &thread : threads)
        thread.join();
    EXPECT_TRUE(seen);
    EXPECT_TRUE(quiet());
    EXPECT_EQ(nullptr, readers_.first);
}

TEST_P(Readers, OnlyTheCallingThreadIsLeftAfterFork) {
    Section gone, own;
    add(gone);
    add(own);
    open(gone.reader);
    jf_readers_fork_child(&readers_, &own.node);
    EXPECT_EQ(&own.node, readers_.first);
    EXPECT_TRUE(quiet());
    open(own.reader);
    EXPECT_FALSE(quiet());
    jf_readers_fork_child(&readers_, nullptr);
    EXPECT_EQ(nullptr, readers_.first);
}

INSTANTIATE_TEST_SUITE_P(FencedBy, Readers, testing::Values(false, true),
                         [](const testing::TestParamInfo<bool> &fence) {
                             return fence.param ? "TheSystem" : "Themselves";
                         });

// The promise itself: blocks that were marked before the question and found unmarked by no reader are not
// in use when the answer is yes. The reader stands for rmderef: it uses what it finds unmarked.
TEST(ReadersPromise, NobodyUsesWhatWasMarkedBefore) {
    if (!jf_os_fence_prepare())
        GTEST_SKIP() << "the system has no fence on all threads";
    jf_readers readers;
    jf_readers_init(&readers);
    static uint32_t marked, in_use;
    rm_reader reader = {};
    jf_reader_node node = {};
    std::atomic<bool> stop{false}, ready{false};
    std::thread thread([&] {
        jf_readers_add(&readers, &node, &reader);
        ready = true;
        while (!stop.load(std::memory_order_relaxed)) {
            __atomic_store_n(&reader.sequence, reader.sequence | 1, __ATOMIC_RELAXED);
            __atomic_signal_fence(__ATOMIC_SEQ_CST);
            if (__atomic_load_n(&marked, __ATOMIC_ACQUIRE) == 0) {
                for (int use = 0; use < 50; use++)
                    __atomic_store_n(&in_use, 1, __ATOMIC_RELAXED);
                __atomic_store_n(&in_use, 0, __ATOMIC_RELAXED);
            }
            __atomic_signal_fence(__ATOMIC_SEQ_CST);
            __atomic_store_n(&reader.sequence, (reader.sequence | 1) + 1, __ATOMIC_RELEASE);
        }
    });
    while (!ready.load())
        std::this_thread::yield();
    int yes = 0;
    uint32_t used = 0;
    for (int i = 0; i < 50000; i++) {
        __atomic_store_n(&marked, 1, __ATOMIC_SEQ_CST);
        if (jf_readers_quiet(&readers, nullptr, true)) {
            yes++;
            for (int look = 0; look < 50; look++)
                used |= __atomic_load_n(&in_use, __ATOMIC_RELAXED);
        }
        __atomic_store_n(&marked, 0, __ATOMIC_SEQ_CST);
    }
    stop = true;
    thread.join();
    EXPECT_EQ(0u, used);
    EXPECT_GT(yes, 0);
}

} // namespace
