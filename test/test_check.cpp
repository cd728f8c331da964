// The checker: every rule is broken on purpose and must be named; a broken heap never breaks the checker.
#include "support/heaps.hpp"
#include "support/model.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <thread>

extern "C" {
#include "check/hold.h"
#include "check/rules.h"
}

using support::FixedHeap;
using support::GrowingHeap;
using support::Heap;

namespace {

// Changes something for as long as it lives, whatever a memory debugger has been told about it.
template <typename T> class Broken {
  public:
    Broken(T &place, T value) : place_(place) {
        jf_mark_copy(&before_, &place_, sizeof before_);
        jf_mark_copy(&place_, &value, sizeof value);
    }
    ~Broken() {
        jf_mark_copy(&place_, &before_, sizeof before_);
    }
    Broken(const Broken &) = delete;
    Broken &operator=(const Broken &) = delete;

  private:
    T &place_;
    T before_;
};

template <typename T> Broken(T &, T) -> Broken<T>;

void expect_fault(Heap &heap, int rule, const char *name) {
    EXPECT_EQ(heap.check(), rule);
    EXPECT_EQ(heap.fault.rule, rule);
    ASSERT_NE(heap.fault.name, nullptr);
    EXPECT_STREQ(heap.fault.name, name);
    EXPECT_NE(heap.fault.text, nullptr);
}

// Blocks with holes between them, in either profile.
template <typename Kind> class CheckBoth : public testing::Test {
  public:
    void SetUp() override {
        for (rmhandle_t &handle : handles)
            handle = rmheap_malloc(heap, 100);
        for (size_t i = 1; i < 64; i += 2)
            rmfree(handles[i]);
        ASSERT_EQ(heap.check(), 0);
    }
    void TearDown() override {
        EXPECT_EQ(heap.check(), 0) << heap.fault.name;
    }
    Kind heap;
    rmhandle_t handles[64];
};

struct Fixed64 : FixedHeap {
    Fixed64() : FixedHeap(64 << 10) {}
};

using Kinds = testing::Types<GrowingHeap, Fixed64>;
TYPED_TEST_SUITE(CheckBoth, Kinds, );

TYPED_TEST(CheckBoth, SoundHeapHasNoFault) {
    this->heap.fault.rule = 99;
    EXPECT_EQ(this->heap.check(), 0);
    EXPECT_EQ(this->heap.fault.rule, 0);
    EXPECT_EQ(jf_check(this->heap.get(), nullptr), 0);
}

TYPED_TEST(CheckBoth, Rule1StrideThatLeadsBeyondTheEnd) {
    jf_word *header = this->heap.header(this->handles[62]);
    Broken broken(*header, jf_mark_load(header) | jf_word{0xfffff} << 12);
    expect_fault(this->heap, 1, "header-chain");
    EXPECT_EQ(this->heap.fault.address, header);
}

TYPED_TEST(CheckBoth, Rule1StrideOfNothing) {
    jf_word *header = this->heap.header(this->handles[10]);
    Broken broken(*header, jf_mark_load(header) & ~(jf_word{0xfffff} << 12));
    expect_fault(this->heap, 1, "header-chain");
}

TYPED_TEST(CheckBoth, Rule1MoreSlackThanBytes) {
    rmhandle_t empty = rmheap_malloc(this->heap, 0);
    jf_word *header = this->heap.header(empty);
    Broken broken(*header, jf_mark_load(header) | jf_word{15} << 8);
    expect_fault(this->heap, 1, "header-chain");
}

TYPED_TEST(CheckBoth, Rule2HeaderOfNoKind) {
    jf_word *header = this->heap.header(this->handles[10]);
    for (unsigned kind = 0; kind < JF_KIND_BLOCK; kind++) {
        if (kind == JF_KIND_HOLE || kind == JF_KIND_DEAD || kind == JF_KIND_EXTENDED)
            continue;
        Broken broken(*header, jf_header_with_kind(jf_mark_load(header), kind));
        expect_fault(this->heap, 2, "header-kind");
        EXPECT_EQ(this->heap.fault.address, header);
    }
}

TYPED_TEST(CheckBoth, Rule3EntryThatPointsElsewhere) {
    jf_word *entry = this->heap.entry(this->handles[10]);
    Broken broken(*entry, *entry + 16);
    expect_fault(this->heap, 3, "entry-back");
    EXPECT_EQ(this->heap.fault.handle, this->handles[10]);
}

TYPED_TEST(CheckBoth, Rule3EntryThatDoesNotExist) {
    jf_word *header = this->heap.header(this->handles[10]);
    Broken broken(*header, jf_mark_load(header) | jf_word{0xfffffff0} << 32);
    expect_fault(this->heap, 3, "entry-back");
}

TYPED_TEST(CheckBoth, Rule3EntryThatWasPurged) {
    jf_word *entry = this->heap.entry(this->handles[10]);
    Broken broken(*entry, (*entry & ~JF_ENTRY_STATE_MASK) | JF_ENTRY_PURGED);
    expect_fault(this->heap, 3, "entry-back");
}

TYPED_TEST(CheckBoth, Rule5PayloadLessAlignedThanItsHeaderSays) {
    for (size_t i = 10; i < 14; i += 2) {
        jf_word *header = this->heap.header(this->handles[i]);
        if ((this->heap.payload(this->handles[i]) & 4095) == 0)
            continue;
        Broken broken(*header, jf_mark_load(header) | jf_word{8} << 4);
        expect_fault(this->heap, 5, "alignment");
        EXPECT_EQ(this->heap.fault.handle, this->handles[i]);
    }
}

// ------------------------------------------------------------------------------------- growing

class CheckGrowing : public CheckBoth<GrowingHeap> {};

// An entry that points to another's block, which lies where nothing else is amiss.
TEST_F(CheckGrowing, Rule4TwoEntriesForOneBlock) {
    jf_region *region = heap.region(handles[10]);
    jf_word *header = heap.header(handles[10]);
    jf_word *entry = heap.entry(handles[10]);
    jf_word share = (jf_word{1} << 32) + jf_header_stride(jf_mark_load(header));
    Broken dead(*header, jf_header_with_kind(jf_mark_load(header), JF_KIND_DEAD));
    Broken account(region->live, region->live - share);
    Broken doubled(*entry,
                   (*entry & ~JF_ENTRY_ADDRESS_MASK) | jf_entry_offset(*heap.entry(handles[12])));
    expect_fault(heap, 4, "entry-once");
    EXPECT_EQ(heap.fault.handle, handles[10]);
}

// A block's contents may look like a header that names the entry; the walk never comes there.
TEST_F(CheckGrowing, Rule4EntryThatPointsIntoABlock) {
    jf_word *header = heap.header(handles[10]);
    jf_word *entry = heap.entry(handles[10]);
    jf_word share = (jf_word{1} << 32) + jf_header_stride(jf_mark_load(header));
    jf_word *inside = heap.header(handles[12]) + 4;
    jf_mark_store(inside, jf_mark_load(header));
    Broken dead(*header, jf_header_with_kind(jf_mark_load(header), JF_KIND_DEAD));
    Broken account(heap.region(handles[10])->live, heap.region(handles[10])->live - share);
    Broken astray(*entry, (*entry & ~JF_ENTRY_ADDRESS_MASK) |
                              (reinterpret_cast<uintptr_t>(inside + 1) - heap.get()->space->base));
    expect_fault(heap, 4, "entry-once");
}

TEST_F(CheckGrowing, Rule4EntryThatPointsToNothing) {
    jf_word *header = heap.header(handles[10]);
    jf_word *entry = heap.entry(handles[10]);
    jf_word share = (jf_word{1} << 32) + jf_header_stride(jf_mark_load(header));
    Broken dead(*header, jf_header_with_kind(jf_mark_load(header), JF_KIND_DEAD));
    Broken account(heap.region(handles[10])->live, heap.region(handles[10])->live - share);
    Broken astray(*entry, *entry | (jf_word{0x7ffffff} << 13 & JF_ENTRY_ADDRESS_MASK));
    expect_fault(heap, 4, "entry-once");
}

TEST_F(CheckGrowing, Rule6RegionThatCountsWrong) {
    jf_region *region = heap.region(handles[10]);
    {
        Broken bytes(region->live, region->live + 16);
        expect_fault(heap, 6, "live-sum");
    }
    Broken blocks(region->live, region->live + (jf_word{1} << 32));
    expect_fault(heap, 6, "live-sum");
}

TEST_F(CheckGrowing, Rule7PageThatIsNotMarked) {
    jf_region *region = heap.region(handles[10]);
    size_t page = (heap.payload(handles[10]) - region->start) >> JF_PAGE_SHIFT;
    Broken unmarked(region->pages[page / 64],
                    region->pages[page / 64] & ~(uint64_t{1} << (page % 64)));
    expect_fault(heap, 7, "page-map");
}

TEST_F(CheckGrowing, Rule7PageInTheMiddleOfABlock) {
    rmhandle_t handle = rmheap_malloc(heap, 3 * JF_PAGE_SIZE);
    jf_region *region = heap.region(handle);
    size_t page = ((heap.payload(handle) - region->start) >> JF_PAGE_SHIFT) + 1;
    Broken unmarked(region->pages[page / 64],
                    region->pages[page / 64] & ~(uint64_t{1} << (page % 64)));
    expect_fault(heap, 7, "page-map");
    EXPECT_EQ(heap.fault.handle, handle);
}

TEST_F(CheckGrowing, Rule8CommittedBytesThatAreNotThere) {
    Broken more(heap.grow().committed, heap.grow().committed + JF_PAGE_SIZE);
    expect_fault(heap, 8, "committed-sum");
}

TEST_F(CheckGrowing, Rule9RegionOfAnotherState) {
    jf_region *region = heap.region(handles[10]);
    ASSERT_EQ(region->state, JF_REGION_OWNED);
    Broken state(region->state, JF_REGION_SETTLED);
    expect_fault(heap, 9, "list-place");
    EXPECT_EQ(heap.fault.address, reinterpret_cast<void *>(region->start));
}

TEST_F(CheckGrowing, Rule9RegionInTheWrongBin) {
    jf_thread *thread = jf_thread_get(heap.window());
    jf_os_mutex_lock(&heap.window()->mutex);
    jf_thread_retire(thread, heap.get());
    jf_os_mutex_unlock(&heap.window()->mutex);
    jf_region *region = heap.region(handles[10]);
    ASSERT_EQ(region->state, JF_REGION_LISTED);
    {
        Broken bin(region->bin, region->bin + 1);
        expect_fault(heap, 9, "list-place");
    }
    {
        Broken mask(heap.grow().bin_mask, uint64_t{0});
        expect_fault(heap, 9, "list-place");
    }
    {
        Broken end(heap.grow().bin_ends[region->bin], static_cast<jf_region *>(nullptr));
        expect_fault(heap, 9, "list-place");
    }
    Broken previous(region->previous, region);
    expect_fault(heap, 9, "list-place");
}

TEST_F(CheckGrowing, Rule9RegionThatIsMissing) {
    Broken lost(heap.grow().owned, static_cast<jf_region *>(nullptr));
    expect_fault(heap, 9, "list-place");
}

TEST_F(CheckGrowing, Rule9ListThatGoesRound) {
    jf_region *region = heap.region(handles[10]);
    Broken round(region->next, region);
    expect_fault(heap, 9, "list-place");
}

TEST_F(CheckGrowing, Rule11FreeEntryWithALock) {
    jf_thread_drain(jf_thread_get(heap.window()));
    jf_word *entry = heap.entry(handles[1]);
    ASSERT_EQ(jf_entry_state(*entry), JF_ENTRY_FREE);
    Broken locked(*entry, *entry + JF_ENTRY_COUNT_ONE);
    expect_fault(heap, 11, "entry-free");
}

TEST_F(CheckGrowing, Rule11ListOfFreeEntriesThatEndsEarly) {
    jf_thread_drain(jf_thread_get(heap.window()));
    uint32_t index = Heap::index_of(heap.get(), handles[1]);
    jf_table_page *page = jf_table_page_of(&heap.window()->table, index);
    ASSERT_NE(page->free, 0u);
    Broken cut(page->free, uint32_t{0});
    expect_fault(heap, 11, "entry-free");
}

TEST_F(CheckGrowing, Rule11EntryThatIsLinkedTwice) {
    jf_thread_drain(jf_thread_get(heap.window()));
    jf_word *entry = heap.entry(handles[1]);
    Broken round(*entry, (*entry & ~JF_ENTRY_ADDRESS_MASK) |
                             jf_word{Heap::index_of(heap.get(), handles[1])} << 4);
    expect_fault(heap, 11, "entry-free");
}

TEST_F(CheckGrowing, Rule11LinkToAnEntryInUse) {
    jf_thread_drain(jf_thread_get(heap.window()));
    uint32_t index = Heap::index_of(heap.get(), handles[1]);
    jf_table_page *page = jf_table_page_of(&heap.window()->table, index);
    Broken used(page->free, Heap::index_of(heap.get(), handles[10]));
    expect_fault(heap, 11, "entry-free");
}

TEST_F(CheckGrowing, Rule12LargeBlockThatNamesAnotherEntry) {
    rmhandle_t handle = rmheap_malloc(heap, 1 << 20);
    jf_large *large = heap.large(handle);
    ASSERT_NE(large, nullptr);
    EXPECT_EQ(heap.check(), 0);
    {
        Broken index(large->index, Heap::index_of(heap.get(), handles[10]));
        expect_fault(heap, 12, "large-entry");
    }
    {
        Broken entry(*heap.entry(handle), *heap.entry(handle) + 16);
        expect_fault(heap, 12, "large-entry");
        EXPECT_EQ(heap.fault.address, reinterpret_cast<void *>(large->address));
    }
    {
        Broken size(large->size, large->committed + 1);
        expect_fault(heap, 12, "large-entry");
    }
    {
        Broken count(heap.grow().large_count, size_t{2});
        expect_fault(heap, 12, "large-entry");
    }
    Broken alignment(large->align_log2, 40u);
    expect_fault(heap, 5, "alignment");
}

// In a process of its own, for this damage cannot be undone.
TEST_F(CheckGrowing, Rule13ChunkThatWasFreedTwice) {
    EXPECT_EXIT(
        {
            jf_arena *arena = heap.window()->arena;
            uintptr_t chunk = jf_arena_alloc(arena, 0, JF_CHUNK_POOL, nullptr, nullptr);
            jf_arena_free(arena, chunk, 0);
            jf_arena_free(arena, chunk, 0);
            heap.check();
            fprintf(stderr, "%d %s %s\n", heap.fault.rule, heap.fault.name, heap.fault.text);
            exit(heap.fault.rule);
        },
        testing::ExitedWithCode(13), "13 arena arena: .*");
}

TEST_F(CheckGrowing, Rule14PageThatMiscountsItsEntries) {
    uint32_t index = Heap::index_of(heap.get(), handles[10]);
    jf_table_page *page = jf_table_page_of(&heap.window()->table, index);
    {
        Broken used(page->used, static_cast<uint16_t>(page->used + 1));
        expect_fault(heap, 14, "table-page");
    }
    Broken carved(page->carved, static_cast<uint16_t>(JF_TABLE_PAGE_ENTRIES + 1));
    expect_fault(heap, 14, "table-page");
}

TEST_F(CheckGrowing, Rule16BinThatLosesOrConfusesBlocks) {
    jf_thread *thread = jf_thread_get(heap.window());
    jf_thread_empty_ring(thread);
    jf_share *share = jf_thread_share(thread, heap.get());
    size_t bin = jf_bins_of_size(100);
    if (JF_MARK_ACTIVE)
        GTEST_SKIP() << "no bins";
    uint32_t *waiting = jf_bins_at(&share->bins, bin);
    ASSERT_GT(*waiting, 2u);
    uint32_t *slot = waiting + 1;
    {
        Broken lost(*waiting, *waiting - 1);
        expect_fault(heap, 16, "bins");
    }
    {
        Broken twice(slot[0], slot[1]);
        expect_fault(heap, 16, "bins");
    }
    {
        Broken in_use(slot[0], Heap::index_of(heap.get(), handles[10]));
        expect_fault(heap, 16, "bins");
    }
    {
        Broken count(*jf_bins_at(&share->bins, bin - 1), uint32_t{1});
        jf_bins_note(&share->bins, bin - 1);
        Broken other_stride(jf_bins_at(&share->bins, bin - 1)[1], slot[0]);
        expect_fault(heap, 16, "bins");
    }
    Broken count(*waiting, uint32_t{JF_BIN_BLOCKS + 1});
    expect_fault(heap, 16, "bins");
}

TEST_F(CheckGrowing, Rule16BlockAtHandThatIsLostOrWaitsTwice) {
    jf_thread *thread = jf_thread_get(heap.window());
    jf_thread_empty_ring(thread);
    if (JF_MARK_ACTIVE)
        GTEST_SKIP() << "no bins";
    size_t bin = jf_bins_of_size(100);
    jf_share *share = jf_thread_share(thread, heap.get());
    uint32_t *waiting = jf_bins_at(&share->bins, bin);
    ASSERT_GT(*waiting, 2u);
    uint32_t index = waiting[*waiting];
    Broken entry(thread->last_entry, jf_space_entry(heap.get()->space, index));
    Broken kept(thread->kept_bin, bin);
    expect_fault(heap, 16, "bins"); // it is in the bin as well
    Broken count(*waiting, *waiting - 1);
    EXPECT_EQ(heap.check(), 0) << heap.fault.text;
    Broken other(thread->kept_bin, bin + 1);
    expect_fault(heap, 16, "bins");
}

TEST_F(CheckGrowing, WhatAThreadHasInHandIsLeftOut) {
    jf_thread *other = nullptr;
    jf_region *region = nullptr;
    std::thread([&] {
        rmhandle_t handle = rmheap_malloc(heap, 100);
        other = jf_thread_get(heap.window());
        region = heap.region(handle);
        {
            std::thread([&] {
                Broken wrong(region->live, region->live + 16);
                EXPECT_EQ(heap.check(), 6) << "seen while the thread is outside";
                Broken inside(other->inside, uint32_t{1});
                EXPECT_EQ(heap.check(), 0) << "left out while it is inside";
            }).join();
        }
        rmfree(handle);
    }).join();
}

// Whatever other threads are in the middle of, nothing is taken for a fault that is none.
TYPED_TEST(CheckBoth, FindsNothingWhileOtherThreadsWork) {
    std::atomic<bool> stop{false};
    std::atomic<unsigned> done{0};
    size_t most = this->heap.get()->fixed ? 500 : 300000;
    auto work = [&](uint64_t seed) {
        support::Random random(seed);
        std::vector<rmhandle_t> own;
        while (!stop) {
            if (own.size() < 30) {
                rmhandle_t handle = rmheap_malloc(this->heap, random.size(most));
                if (handle != nullptr)
                    own.push_back(handle);
                continue;
            }
            size_t i = random.below(own.size());
            done++;
            rmlock(own[i]);
            rmunlock(own[i]);
            if (random.chance(500)) {
                rmrealloc(own[i], random.size(most));
                continue;
            }
            rmfree(own[i]);
            own[i] = own.back();
            own.pop_back();
        }
        for (rmhandle_t handle : own)
            rmfree(handle);
    };
    std::thread one(work, 1), two(work, 2);
    for (unsigned round = 0; (done < 10000 || round < 200) && !this->HasFailure(); round++) {
        EXPECT_EQ(this->heap.check(), 0)
            << this->heap.fault.name << ' ' << this->heap.fault.address;
        struct rm_stats stats;
        rmheap_stats(this->heap, &stats);
        EXPECT_LT(stats.blocks, 200u);
        auto count = [](void *context, const struct rm_block_info *) {
            ++*static_cast<int *>(context);
            return 0;
        };
        int visited = 0;
        EXPECT_EQ(rmheap_visit(this->heap, count, &visited), 0);
        EXPECT_LT(visited, 200);
        if (round % 10 == 0)
            rmheap_compact_us(this->heap, 200, nullptr);
    }
    stop = true;
    one.join();
    two.join();
}

// ------------------------------------------------------------------------------------- fixed

class CheckFixed : public CheckBoth<Fixed64> {
  public:
    // A hole in the lower part, and the bin it is in.
    uint32_t &bin_of_hole() {
        jf_fixed &fixed = heap.fixed();
        unsigned set = fixed.low_set ^ 1;
        return fixed.bins[set][jf_bits_lowest(fixed.mask[set])];
    }
};

TEST_F(CheckFixed, Rule4TwoEntriesForOneBlock) {
    jf_word *header = heap.header(handles[10]);
    jf_word *entry = heap.entry(handles[10]);
    Broken dead(*header, jf_header_with_kind(jf_mark_load(header), JF_KIND_DEAD));
    Broken doubled(*entry,
                   (*entry & ~JF_ENTRY_ADDRESS_MASK) | jf_entry_offset(*heap.entry(handles[12])));
    expect_fault(heap, 4, "entry-once");
    EXPECT_EQ(heap.fault.handle, handles[10]);
}

TEST_F(CheckFixed, Rule4EntryThatPointsOutOfTheChain) {
    jf_word *header = heap.header(handles[10]);
    jf_word *entry = heap.entry(handles[10]);
    Broken dead(*header, jf_header_with_kind(jf_mark_load(header), JF_KIND_DEAD));
    {
        Broken below(*entry, *entry & ~JF_ENTRY_ADDRESS_MASK);
        expect_fault(heap, 4, "entry-once");
    }
    Broken above(*entry, *entry | JF_ENTRY_ADDRESS_MASK);
    expect_fault(heap, 4, "entry-once");
}

TEST_F(CheckFixed, Rule6HeapThatCountsWrong) {
    {
        Broken bytes(heap.fixed().live, heap.fixed().live + 16);
        expect_fault(heap, 6, "live-sum");
    }
    Broken blocks(heap.fixed().blocks, heap.fixed().blocks - 1);
    expect_fault(heap, 6, "live-sum");
}

TEST_F(CheckFixed, Rule10HoleThatIsInNoBin) {
    uint32_t &first = bin_of_hole();
    uint32_t second = 0;
    uintptr_t at = heap.get()->space->base + uintptr_t{first} * JF_GRAIN + JF_HEADER_SIZE;
    jf_mark_copy(&second, reinterpret_cast<char *>(at) + 8, sizeof second);
    ASSERT_NE(second, 0u);
    Broken cut(first, second);
    expect_fault(heap, 10, "hole-bins");
}

TEST_F(CheckFixed, Rule10BinThatLeadsAstray) {
    uint32_t &first = bin_of_hole();
    {
        Broken beyond(first, UINT32_MAX);
        expect_fault(heap, 10, "hole-bins");
    }
    uintptr_t block = heap.payload(handles[10]) - heap.get()->space->base;
    Broken used(first, static_cast<uint32_t>(block / JF_GRAIN - 1));
    expect_fault(heap, 10, "hole-bins");
}

TEST_F(CheckFixed, Rule10HoleInTheWrongBin) {
    jf_fixed &fixed = heap.fixed();
    unsigned set = fixed.low_set ^ 1;
    unsigned bin = jf_bits_lowest(fixed.mask[set]);
    Broken here(fixed.bins[set][bin + 1], fixed.bins[set][bin]);
    Broken there(fixed.bins[set][bin], uint32_t{0});
    Broken mask(fixed.mask[set], (fixed.mask[set] & ~(1u << bin)) | 1u << (bin + 1));
    expect_fault(heap, 10, "hole-bins");
}

TEST_F(CheckFixed, Rule10HoleOnTheWrongSideOfTheCursor) {
    Broken cursor(heap.fixed().cursor, heap.payload(handles[20]) - JF_HEADER_SIZE);
    expect_fault(heap, 10, "hole-bins");
}

TEST_F(CheckFixed, Rule10MaskThatForgetsABin) {
    Broken mask(heap.fixed().mask[heap.fixed().low_set ^ 1], uint32_t{0});
    expect_fault(heap, 10, "hole-bins");
}

TEST_F(CheckFixed, Rule10SumsAndPlacesThatAreWrong) {
    jf_fixed &fixed = heap.fixed();
    {
        Broken bytes(fixed.hole_bytes[0], fixed.hole_bytes[0] + 16);
        expect_fault(heap, 10, "hole-bins");
    }
    {
        Broken tail(fixed.tail, uintptr_t{0});
        expect_fault(heap, 10, "hole-bins");
    }
    {
        Broken lowest(fixed.lowest, jf_fixed_last(heap.get()));
        expect_fault(heap, 10, "hole-bins");
    }
    Broken cursor(fixed.cursor, fixed.cursor + JF_GRAIN);
    expect_fault(heap, 10, "hole-bins");
}

TEST_F(CheckFixed, Rule11FreeEntriesThatAreLost) {
    ASSERT_NE(heap.fixed().free_entries, 0u);
    {
        Broken cut(heap.fixed().free_entries, uint32_t{0});
        expect_fault(heap, 11, "entry-free");
    }
    {
        Broken used(heap.fixed().free_entries, Heap::index_of(heap.get(), handles[10]));
        expect_fault(heap, 11, "entry-free");
    }
    jf_word *entry = jf_space_entry(heap.get()->space, heap.fixed().free_entries);
    Broken locked(*entry, *entry + JF_ENTRY_COUNT_ONE);
    expect_fault(heap, 11, "entry-free");
}

TEST_F(CheckFixed, Rule14HeapThatMiscountsItsEntries) {
    Broken used(heap.fixed().used_entries, heap.fixed().used_entries + 1);
    expect_fault(heap, 14, "table-page");
}

// ------------------------------------------------------------------------------------- robustness

// Words at random places are replaced by random ones, by small numbers, by words from elsewhere in the
// heap; whatever the checker makes of it, it comes back and says so.
void break_at_random(Heap &heap, jf_word *first, size_t words, unsigned rounds) {
    support::Random random(7);
    unsigned found = 0;
    for (unsigned round = 0; round < rounds; round++) {
        size_t count = 1 + random.below(4);
        std::vector<std::pair<jf_word *, jf_word>> before;
        for (size_t i = 0; i < count; i++) {
            jf_word *word = first + random.below(words);
            jf_word value = random.chance(300)   ? random.next()
                            : random.chance(300) ? random.below(4096)
                                                 : jf_mark_load(first + random.below(words));
            before.emplace_back(word, jf_mark_load(word));
            jf_mark_store(word, value);
        }
        int rule = heap.check();
        EXPECT_GE(rule, 0);
        EXPECT_LT(rule, JF_RULES);
        found += rule != 0;
        for (size_t i = count; i > 0; i--)
            jf_mark_store(before[i - 1].first, before[i - 1].second);
    }
    EXPECT_GT(found, rounds / 10);
    EXPECT_EQ(heap.check(), 0) << heap.fault.name;
}

TEST_F(CheckFixed, ComesBackFromAnyDamage) {
    auto *first = reinterpret_cast<jf_word *>(heap.fixed().start);
    uintptr_t last = heap.payload(handles[62]) + 256;
    break_at_random(heap, first, (last - heap.fixed().start) / sizeof *first, 20000);
    auto *table = reinterpret_cast<jf_word *>(heap.get()->space->table);
    break_at_random(heap, table, jf_space_entries(heap.get()->space), 20000);
}

TEST_F(CheckGrowing, ComesBackFromAnyDamage) {
    const unsigned times =
        JF_TEST_SANITIZED ? 50 : 1000; // a check of all the window takes long there
    jf_region *region = heap.region(handles[0]);
    auto *first = reinterpret_cast<jf_word *>(jf_region_first(region));
    uintptr_t last = heap.payload(handles[62]) + 256;
    break_at_random(heap, first, (last - jf_region_first(region)) / sizeof *first, times);
    jf_word *entry = heap.entry(handles[0]);
    break_at_random(heap, entry, 64, times);
}

} // namespace
