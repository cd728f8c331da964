// The short ways of rmmalloc and rmfree in a process with one heap: each test in a child process, whose first
// heap it makes.
#include "support/child.hpp"
#include "support/heaps.hpp"

#include <jeff/pool.h>

#include <cstdlib>
#include <set>
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

bool is_near(rmhandle_t handle) {
    return thread_of(handle)->near_share != nullptr;
}

unsigned in_bin(rmhandle_t of_heap, size_t size) {
    const jf_heap *heap = reinterpret_cast<jf_heap *>(rmheap_of(of_heap));
    return jf_thread_share(thread_of(of_heap), heap)->bins.of[jf_bins_of_size(size)].count;
}

TEST_F(Fast, ABlockThatIsFreedIsTheNextToBeGivenOutWhileTheHeapIsSmall) {
    EXPECT_EQ(status_of_child([] {
                  rmhandle_t kept = first_block();
                  CHILD_EXPECT(is_near(kept));
                  rmhandle_t handle = rmmalloc(100);
                  void *address = rmlock(handle);
                  rmunlock(handle);
                  rmfree(handle);
                  CHILD_EXPECT(in_bin(kept, 100) == 1);
                  rmhandle_t next = rmmalloc(97);
                  CHILD_EXPECT(rmlock(next) == address);
                  CHILD_EXPECT(next != handle && rmsize(next) == 97);
                  CHILD_EXPECT(rmheap_of(handle) == nullptr);
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  return 0;
              }),
              0);
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
                  rmhandle_t kept = first_block();
                  rmhandle_t first = rmmalloc(100);
                  rmfree(first);
                  for (int i = 0; i < JF_GENERATION_MAX; i++)
                      rmfree(rmmalloc(100));
                  CHILD_EXPECT(in_bin(kept, 100) == 0);
                  CHILD_EXPECT(rmcheck(nullptr) == 0);
                  return 0;
              }),
              0);
}

TEST_F(Fast, AHeapThatHasGrownUsesTheRing) {
    EXPECT_EQ(status_of_child([] {
                  rmhandle_t kept = first_block();
                  for (int i = 0; i < 2 * JF_NEAR_BYTES / 1024; i++)
                      rmmalloc(1024);
                  CHILD_EXPECT(!is_near(kept));
                  rmfree(rmmalloc(100));
                  CHILD_EXPECT(in_bin(kept, 100) == 0);
                  return 0;
              }),
              0);
}

TEST_F(Fast, OtherHeapsAndPoolsEndIt) {
    EXPECT_EQ(status_of_child([] {
                  rmhandle_t kept = first_block();
                  CHILD_EXPECT(rmheap_create(nullptr) != nullptr);
                  CHILD_EXPECT(!is_near(kept));
                  return 0;
              }),
              0);
    EXPECT_EQ(status_of_child([] {
                  rmhandle_t kept = first_block();
                  CHILD_EXPECT(rmpool_create(nullptr, 64, 0, nullptr) != nullptr);
                  CHILD_EXPECT(!is_near(kept));
                  for (int i = 0; i < 2000; i++)
                      rmmalloc(1000);
                  CHILD_EXPECT(!is_near(kept));
                  return 0;
              }),
              0);
}

} // namespace
