// The short ways of rmmalloc and rmfree in a process with one heap: each test in a child process, whose first
// heap it makes.
#include "support/child.hpp"
#include "support/heaps.hpp"

#include <jeff/pool.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <thread>
#include <vector>

namespace {

using support::status_of_child;

class Fast : public testing::Test {
  protected:
    void SetUp() override {
        if (JF_MARK_ACTIVE)
            GTEST_SKIP() << "a debugger watches: no bins";
        if (getenv("JEFF_CHECK") != nullptr || getenv("JEFF_SCRAMBLE") != nullptr)
            GTEST_SKIP() << "a heap that is checked has none either";
    }
};

// A block of the default heap; the calling thread may take the short ways then.
rmhandle_t first_block() {
    rmmalloc(24);
    return rmmalloc(24);
}

jf_thread *thread_of(rmhandle_t handle) {
    return jf_thread_get(reinterpret_cast<jf_heap *>(rmheap_of(handle))->u.grow.window);
}

// What the thread keeps at hand: the bin that it would be in.
size_t kept_bin(rmhandle_t of_heap) {
    return thread_of(of_heap)->kept_bin;
}

unsigned in_bin(rmhandle_t of_heap, size_t size) {
    const jf_heap *heap = reinterpret_cast<jf_heap *>(rmheap_of(of_heap));
    return *jf_bins_at(&jf_thread_share(thread_of(of_heap), heap)->bins, jf_bins_of_size(size));
}

// A block out of a bin, which has been in use before.
rmhandle_t reused_block(size_t size) {
    for (int i = 0; i < JF_RING_SIZE; i++)
        rmfree(rmmalloc(size));
    return rmmalloc(size);
}

TEST_F(Fast, ABlockThatIsFreedAtOnceIsTheNextToBeGivenOut) {
    EXPECT_EQ(status_of_child([] {
                  rmhandle_t other = first_block();
                  rmhandle_t handle = reused_block(100);
                  void *address = rmlock(handle);
                  rmunlock(handle);
                  for (size_t size = 92; size <= 104; size++) { // of the same stride
                      rmfree(handle);
                      CHILD_EXPECT(kept_bin(other) == jf_bins_of_size(100));
                      CHILD_EXPECT(rmheap_of(handle) == nullptr);
                      CHILD_EXPECT(rmcheck(nullptr) == 0);
                      rmhandle_t next = rmmalloc(size);
                      CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE);
                      CHILD_EXPECT(rmlock(next) == address);
                      rmunlock(next);
                      CHILD_EXPECT(next != handle && rmsize(next) == size);
                      CHILD_EXPECT(rmcheck(nullptr) == 0);
                      handle = next;
                  }
                  return 0;
              }),
              0);
}

TEST_F(Fast, ABlockAtHandGivesWayToTheNextOfAnotherSize) {
    EXPECT_EQ(status_of_child([] {
                  rmhandle_t other = first_block();
                  rmfree(reused_block(100));
                  rmfree(reused_block(200));
                  CHILD_EXPECT(kept_bin(other) == jf_bins_of_size(200));
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  rmhandle_t handle = rmmalloc(100);
                  CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE);
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  rmfree(handle);
                  CHILD_EXPECT(kept_bin(other) == jf_bins_of_size(100));
                  rmcompact(0);
                  CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE);
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  return 0;
              }),
              0);
}

TEST_F(Fast, OnlyABlockAsItWasGivenOutIsKeptAtHand) {
    EXPECT_EQ(status_of_child([] {
                  rmhandle_t other = first_block();
                  rmhandle_t handle = reused_block(200);
                  CHILD_EXPECT(rmrealloc(handle, 20) == 0); // shrinks in place
                  rmfree(handle);
                  CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE ||
                               kept_bin(other) == jf_bins_of_size(20));
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  handle = reused_block(200);
                  CHILD_EXPECT(rmrealloc(handle, 200000) == 0);
                  rmfree(handle);
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  rmfree(reused_block(4)); // the least stride
                  CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE);
                  CHILD_EXPECT(rmmalloc(SIZE_MAX - 5) == nullptr);
                  rmfree(nullptr);
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  return 0;
              }),
              0);
}

// Sizes whose sum with header and rounding overflows.
TEST_F(Fast, SizesThatOverflowAreRefused) {
    auto refused = [] {
        for (size_t less = 0; less < 64; less++)
            if (rmmalloc(SIZE_MAX - less) != nullptr)
                return false;
        return rmcheck(nullptr) == 0;
    };
    EXPECT_EQ(status_of_child([&] {
                  CHILD_EXPECT(refused());
                  first_block();
                  CHILD_EXPECT(refused()); // no block was given out of a bin
                  rmhandle_t handle = reused_block(4);
                  CHILD_EXPECT(refused()); // the last one is in use
                  rmfree(handle);
                  CHILD_EXPECT(refused());
                  rmfree(reused_block(100));
                  CHILD_EXPECT(refused()); // one is at hand
                  return 0;
              }),
              0);
}

uintptr_t address_of(rmhandle_t handle) {
    auto address = reinterpret_cast<uintptr_t>(rmlock(handle));
    rmunlock(handle);
    return address;
}

// It may become a large block, and later another large one may lie where it was: then its entry would be as it was when
// the block was given out.
TEST_F(Fast, ABlockAtAMultipleOfAUnitIsNotGivenOutAgain) {
    EXPECT_EQ(status_of_child([] {
                  std::vector<rmhandle_t> handles(42000);
                  for (rmhandle_t &handle : handles)
                      handle = rmmalloc(100);
                  auto found = std::find_if(handles.begin(), handles.end(), [](rmhandle_t handle) {
                      return address_of(handle) % JF_UNIT_SIZE == 0;
                  });
                  CHILD_EXPECT(found != handles.end());
                  uintptr_t place = address_of(*found);
                  reused_block(300);
                  for (int i = 0; i < JF_RING_SIZE - 1; i++)
                      rmfree(rmmalloc(500));
                  rmfree(*found); // the last of a full ring
                  CHILD_EXPECT(address_of(rmmalloc(100)) != place);
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  return 0;
              }),
              0);
}

TEST_F(Fast, ABlockAtHandIsFreed) {
    rmhandle_t handle = nullptr;
    EXPECT_DEATH(
        {
            first_block();
            handle = reused_block(100);
            rmfree(handle);
            rmfree(handle);
        },
        "rmfree.*freed");
    EXPECT_DEATH(
        {
            first_block();
            handle = reused_block(100);
            rmlock(handle);
            rmfree(handle);
        },
        "rmfree.*locked");
}

// Those who lock through stale handles add to the count of the entry for a moment.
TEST_F(Fast, ABlockThatWasGivenOutBesideMistakenLocksIsNotFreedWhileItIsLocked) {
    EXPECT_DEATH(
        {
            std::thread([] {}).join();
            first_block();
            rmhandle_t handle = reused_block(100);
            std::vector<rmhandle_t> others(2 * JF_RING_SIZE);
            for (rmhandle_t &other : others)
                other = rmmalloc(300);
            reused_block(200); // that is the last one now
            rmfree(handle);
            for (rmhandle_t other : others)
                rmfree(other);
            jf_space &space = thread_of(rmmalloc(24))->window->space;
            jf_word *entry = jf_space_entry(&space, jf_handle_index(&space, handle));
            jf_word_fetch_add(entry, 2 * JF_ENTRY_COUNT_ONE);
            handle = rmmalloc(100);
            jf_word_fetch_add(entry, jf_word{0} - 2 * JF_ENTRY_COUNT_ONE);
            if (jf_space_entry(&space, jf_handle_index(&space, handle)) != entry)
                _exit(0); // not the one that was meant
            rmlock(handle);
            rmlock(handle);
            rmfree(handle);
        },
        "rmfree.*locked");
}

// What another thread does to the block that was given out last.
TEST_F(Fast, AnotherThreadMayEndOrChangeTheBlockGivenOutLast) {
    auto on_another = [](auto &&work) { std::thread(work).join(); };
    EXPECT_EQ(status_of_child([&] {
                  rmhandle_t other = first_block();
                  on_another([] {});
                  rmhandle_t handle = reused_block(100);
                  rmhandle_t theirs = nullptr;
                  on_another([&] {
                      rmfree(handle);
                      for (int i = 0; i < 2 * JF_RING_SIZE; i++)
                          rmfree(rmmalloc(100));
                      theirs = rmmalloc(200);
                  });
                  rmhandle_t next = rmmalloc(100);
                  CHILD_EXPECT(next != handle && rmsize(next) == 100);
                  on_another([&] { CHILD_EXPECT(rmrealloc(next, 1500) == 0); });
                  rmfree(next);
                  CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE);
                  rmhandle_t more = reused_block(100);
                  on_another([&] { rmcompact(0); });
                  rmfree(more);
                  CHILD_EXPECT(kept_bin(other) == jf_bins_of_size(100));
                  on_another([&] { rmcompact(0); });
                  CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE);
                  CHILD_EXPECT(rmsize(rmmalloc(100)) == 100 && rmsize(theirs) == 200);
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  return 0;
              }),
              0);
    EXPECT_DEATH(
        {
            first_block();
            rmhandle_t handle = reused_block(100);
            on_another([&] { rmfree(handle); });
            rmfree(handle);
        },
        "rmfree.*freed");
}

TEST_F(Fast, BlocksThatABinDoesNotTakeGoElsewhere) {
    EXPECT_EQ(status_of_child([] {
                  rmhandle_t kept = first_block();
                  for (size_t size : {24u, 1000u, 5000u}) {
                      std::set<rmhandle_t> handles;
                      for (int i = 0; i < 200; i++)
                          handles.insert(rmmalloc(size));
                      CHILD_EXPECT(handles.size() == 200);
                      for (rmhandle_t handle : handles)
                          rmfree(handle);
                      CHILD_EXPECT(in_bin(kept, 24) <= JF_BIN_BLOCKS);
                      CHILD_EXPECT(rmcheck(nullptr) == 0);
                  }
                  return 0;
              }),
              0);
}

TEST_F(Fast, AnEntryWhoseGenerationComesRoundLeavesTheBin) {
    EXPECT_EQ(status_of_child([] {
                  rmhandle_t other = first_block();
                  rmhandle_t handle = reused_block(100);
                  for (int i = 0; i < 2 * JF_GENERATION_MAX; i++) {
                      rmfree(handle);
                      CHILD_EXPECT(rmheap_of(handle) == nullptr);
                      handle = rmmalloc(100);
                      CHILD_EXPECT(rmsize(handle) == 100);
                  }
                  rmfree(handle);
                  CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE ||
                               kept_bin(other) == jf_bins_of_size(100));
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  return 0;
              }),
              0);
}

TEST_F(Fast, OtherHeapsAndPoolsEndIt) {
    auto ended = [](bool pool) {
        rmhandle_t other = first_block();
        rmhandle_t handle = reused_block(100);
        if (pool)
            CHILD_EXPECT(rmpool_create(nullptr, 64, 0, nullptr) != nullptr);
        else
            CHILD_EXPECT(rmheap_create(nullptr) != nullptr);
        rmfree(handle);
        CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE);
        for (int i = 0; i < 2000; i++) // so that the thread is in want of a region
            rmmalloc(1000);
        rmfree(reused_block(100));
        CHILD_EXPECT(kept_bin(other) == JF_KEPT_NONE);
        CHILD_EXPECT(rmcheck(nullptr) == 0);
        return 0;
    };
    EXPECT_EQ(status_of_child([&] { return ended(false); }), 0);
    EXPECT_EQ(status_of_child([&] { return ended(true); }), 0);
}

} // namespace
