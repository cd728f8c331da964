// Threads on the malloc facade: blocks freed by others, threads that end, forks in the middle of it all.
#include "support/child.hpp"
#include "support/fork_options.hpp"
#include "support/malloc_calls.hpp"
#include "support/threads.hpp"

#include <cstring>
#include <set>

#include <pthread.h>

extern "C" {
#include "malloc/facade.h"
}

using support::Random;
using support::run_child;
using support::thread_operations;

namespace {

struct Parcel {
    unsigned char *place;
    size_t size;
    unsigned char byte;
};

Parcel make_parcel(Random &random) {
    size_t size = random.below(16) == 0 ? 1 + random.below(40000) : 1 + random.below(700);
    Parcel parcel = {static_cast<unsigned char *>(jeff_malloc(size)), size,
                     static_cast<unsigned char>(random.below(256))};
    EXPECT_NE(nullptr, parcel.place);
    std::memset(parcel.place, parcel.byte, size);
    return parcel;
}

bool open_parcel(const Parcel &parcel) {
    bool right = true;
    for (size_t i = 0; i < parcel.size; i++)
        right = right && parcel.place[i] == parcel.byte;
    jeff_free(parcel.place);
    return right;
}

// Parcels on their way from thread to thread. Without memory of its own: after a fork with threads only the
// facade may allocate in the child.
class Mail {
  public:
    bool send(const Parcel &parcel) {
        std::lock_guard<std::mutex> guard(mutex_);
        if (count_ == most)
            return false;
        parcels_[(first_ + count_++) % most] = parcel;
        return true;
    }
    bool receive(Parcel *ret_parcel) {
        std::lock_guard<std::mutex> guard(mutex_);
        if (count_ == 0)
            return false;
        *ret_parcel = parcels_[first_++ % most];
        count_--;
        return true;
    }

  private:
    static constexpr size_t most = 4096;
    std::mutex mutex_;
    Parcel parcels_[most];
    size_t first_ = 0, count_ = 0;
};

void exchange(Mail &mine, Mail &others, uint64_t seed, size_t operations) {
    Random random(seed);
    Parcel parcel;
    for (size_t i = 0; i < operations; i++) {
        if (random.below(2) == 0) {
            parcel = make_parcel(random);
            if (!others.send(parcel) && !open_parcel(parcel))
                ADD_FAILURE() << "contents changed at once";
        } else if (mine.receive(&parcel) && !open_parcel(parcel)) {
            ADD_FAILURE() << "contents changed on the way";
        }
    }
}

void drain(Mail &mail) {
    Parcel parcel;
    while (mail.receive(&parcel))
        EXPECT_TRUE(open_parcel(parcel));
}

TEST(MallocThreads, BlocksFreedByAnotherThreadAreWhole) {
    Mail mails[4];
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 4; i++)
        threads.emplace_back([&mails, i] {
            exchange(mails[i], mails[(i + 1) % 4], i + 1, thread_operations(100000));
        });
    for (std::thread &thread : threads)
        thread.join();
    for (Mail &mail : mails)
        drain(mail);
}

TEST(MallocThreads, WhatAnotherThreadFreesIsUsedAgain) {
    constexpr size_t count = 20000;
    size_t spans = 0;
    for (int round = 0; round < 30; round++) {
        std::vector<void *> blocks;
        for (size_t i = 0; i < count; i++)
            blocks.push_back(jeff_malloc(200));
        std::thread([&blocks] {
            for (void *block : blocks)
                jeff_free(block);
        }).join();
        if (round == 2)
            spans = jf_malloc.span_count;
    }
    EXPECT_LE(jf_malloc.span_count, spans + spans / 4);
}

TEST(MallocThreads, WhatAnotherThreadFreesComesByParcels) {
    constexpr size_t count = 1000;
    constexpr size_t size = 96;
    jeff_malloc_trim(0);
    const size_t *mail = &jf_cache_get()->mailbox.cells;
    ASSERT_EQ(*mail, 0u);
    auto figures = [] {
        struct jeff_malloc_figures taken;
        taken.struct_size = sizeof taken;
        jeff_malloc_take_figures(&taken);
        return taken;
    };
    std::vector<void *> blocks(count);
    for (void *&block : blocks)
        block = jeff_malloc(size);
    struct jeff_malloc_figures before = figures();
    std::thread([&blocks] {
        for (void *block : blocks)
            jeff_free(block);
    }).join();
    size_t waiting = *mail;
    EXPECT_GE(waiting, count * 3 / 4);
    EXPECT_EQ(jf_malloc.orphanage->mailbox.cells, 0u);
    EXPECT_LE(figures().blocks, before.blocks - count + 20) << "what waits is no block";
    std::set<void *> freed(blocks.begin(), blocks.end());
    size_t again = 0;
    for (void *&block : blocks) {
        block = jeff_malloc(size);
        again += freed.count(block);
        std::memset(block, 1, size);
    }
    EXPECT_GE(again, waiting);
    EXPECT_EQ(*mail, 0u);
    EXPECT_EQ(std::set<void *>(blocks.begin(), blocks.end()).size(), count);
    std::thread([&blocks] {
        for (void *block : blocks)
            jeff_free(block);
    }).join();
    EXPECT_NE(*mail, 0u);
    jeff_malloc_trim(0);
    EXPECT_EQ(*mail, 0u) << "trimming sends all home";
}

uintptr_t unit_of(const void *pointer) {
    return reinterpret_cast<uintptr_t>(pointer) >> JF_UNIT_SHIFT;
}

// Else two threads would write to one line, of the blocks or of what is noted about them, from then on.
TEST(MallocThreads, BlocksOfAnotherThreadsSpansAreNotHandedOut) {
    constexpr size_t count = 500;
    constexpr size_t size = 208;
    std::vector<void *> blocks(count);
    std::set<uintptr_t> units;
    for (void *&block : blocks) {
        block = jeff_malloc(size);
        units.insert(unit_of(block));
    }
    std::thread([&blocks, &units] {
        size_t mixed = 0;
        for (size_t round = 0; round < 10; round++) {
            for (void *&block : blocks) {
                if (round % 2 == 0)
                    jeff_free(block);
                else
                    jeff_free_sized(block, size);
                block = jeff_malloc(size);
                mixed += units.count(unit_of(block));
            }
        }
        EXPECT_EQ(mixed, 0u);
    }).join();
    for (void *block : blocks)
        jeff_free(block);
}

// The owner, which allocates nothing meanwhile, is not sent more than it may have use for.
TEST(MallocThreads, WhoReplacesAllBlocksOfAnotherThreadDoesNotDoubleThem) {
    constexpr size_t count = 100000;
    constexpr size_t size = 400;
    std::vector<void *> blocks(count);
    for (void *&block : blocks)
        block = jeff_malloc(size);
    size_t units = jf_malloc.used_units;
    std::thread([&blocks] {
        for (void *&block : blocks) {
            jeff_free(block);
            block = jeff_malloc(size);
        }
    }).join();
    EXPECT_LE((jf_malloc.used_units - units) << JF_UNIT_SHIFT, size_t{2} << 20);
    for (void *block : blocks)
        jeff_free(block);
}

// Of several owners in turn.
TEST(MallocThreads, BlocksOfManyThreadsGoToTheirOwners) {
    constexpr size_t owners = 3;
    constexpr size_t count = 300;
    constexpr size_t size = 144;
    std::vector<void *> blocks(owners * count);
    std::atomic<size_t> ready{0};
    std::atomic<bool> freed{false};
    std::atomic<size_t> mails{0};
    std::vector<std::thread> threads;
    for (size_t i = 0; i < owners; i++)
        threads.emplace_back([&, i] {
            for (size_t j = 0; j < count; j++)
                blocks[j * owners + i] = jeff_malloc(size);
            ready++;
            while (!freed)
                std::this_thread::yield();
            mails += jf_cache_get()->mailbox.cells;
        });
    while (ready != owners)
        std::this_thread::yield();
    for (void *block : blocks)
        jeff_free(block);
    freed = true;
    for (std::thread &thread : threads)
        thread.join();
    EXPECT_GE(mails, owners * count * 3 / 4);
}

TEST(MallocThreads, MemoryOfEndedThreadsIsUsedAgain) {
    size_t spans = 0;
    std::vector<void *> kept;
    for (size_t round = 0; round < thread_operations(10000); round++) {
        std::thread([&kept, round] {
            void *blocks[40];
            for (size_t i = 0; i < 40; i++) {
                blocks[i] = jeff_malloc(16 + 40 * i);
                std::memset(blocks[i], 1, 16 + 40 * i);
            }
            for (void *block : blocks)
                jeff_free(block);
            if (round % 100 == 0)
                kept.push_back(jeff_malloc(100));
        }).join();
        if (round == 100)
            spans = jf_malloc.span_count;
    }
    EXPECT_LE(jf_malloc.span_count, spans + 10);
    for (void *block : kept)
        jeff_free(block);
}

TEST(MallocThreads, TheNextThreadGoesOnWhereOneHasEnded) {
    void *first = nullptr;
    void *second = nullptr;
    std::thread([&first] { jeff_free(first = jeff_malloc(777)); }).join();
    std::thread([&second] { jeff_free(second = jeff_malloc(777)); }).join();
    EXPECT_EQ(first, second);
}

TEST(MallocThreads, WhatAnEndedThreadLeftIsTakenBeforeFreshMemory) {
    constexpr size_t count = 20000;
    jeff_malloc_trim(0);
    std::vector<void *> kept;
    std::thread([&kept] {
        std::vector<void *> blocks;
        for (size_t i = 0; i < count; i++)
            blocks.push_back(jeff_malloc(300));
        for (size_t i = 0; i < count; i++)
            if (i % 50 == 0)
                kept.push_back(blocks[i]); /* so that no span is empty */
            else
                jeff_free(blocks[i]);
    }).join();
    size_t spans = jf_malloc.span_count;
    size_t units = jf_malloc.used_units;
    for (size_t i = 0; i < count - kept.size() - 300; i++) {
        kept.push_back(jeff_malloc(300));
        ASSERT_NE(kept.back(), nullptr);
    }
    EXPECT_LE(jf_malloc.span_count, spans + 2);
    EXPECT_LE(jf_malloc.used_units, units + 2);
    for (void *block : kept)
        jeff_free(block);
}

TEST(MallocThreads, TrimmingGivesBackWhatEndedThreadsLeft) {
    jeff_malloc_trim(0);
    size_t spans = jf_malloc.span_count;
    for (int i = 0; i < 3; i++)
        std::thread([] {
            std::vector<void *> blocks;
            for (size_t size = 16; size < 8000; size += 16)
                blocks.push_back(jeff_malloc(size));
            for (void *block : blocks)
                jeff_free(block);
        }).join();
    jeff_malloc_trim(0);
    EXPECT_LE(jf_malloc.span_count, spans);
}

pthread_key_t late_key;

// Called again and again by the C library, up to its limit, after the facade's own destructor too.
void late_destructor(void *value) {
    void *block = jeff_malloc(100);
    EXPECT_NE(nullptr, block);
    std::memset(block, 1, 100);
    jeff_free(block);
    jeff_free(value);
    pthread_setspecific(late_key, jeff_malloc(2000));
}

TEST(MallocThreads, DestructorsAfterTheFacadesOwnMayAllocateAndFree) {
    if (JF_TEST_SANITIZED)
        GTEST_SKIP() << "the sanitizer has left the thread before";
    jeff_free(jeff_malloc(1)); /* the facade's own key is older */
    ASSERT_EQ(0, pthread_key_create(&late_key, late_destructor));
    for (int i = 0; i < 100; i++)
        std::thread([] {
            pthread_setspecific(late_key, jeff_malloc(50));
            jeff_free(jeff_malloc(50));
        }).join();
    pthread_key_delete(late_key);
}

TEST(MallocThreads, AForkedChildGoesOnAllocating) {
    std::atomic<bool> stop{false};
    Mail mails[3];
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 3; i++)
        threads.emplace_back([&, i] {
            for (uint64_t round = 0; !stop; round++)
                exchange(mails[i], mails[(i + 1) % 3], round * 3 + i, 1000);
        });
    for (uint64_t i = 0; i < thread_operations(25); i++) {
        run_child([i] {
            static Mail mail;
            exchange(mail, mail, i, 2000);
            drain(mail);
            if (!JF_TEST_SANITIZED)
                std::thread([i] { exchange(mail, mail, i, 500); }).join();
            drain(mail);
            jeff_malloc_trim(0);
        });
    }
    stop = true;
    for (std::thread &thread : threads)
        thread.join();
    for (Mail &mail : mails)
        drain(mail);
}

TEST(MallocThreads, AForkedChildFreesWhatTheParentsThreadsGot) {
    std::vector<Parcel> parcels;
    std::thread([&parcels] {
        Random random(5);
        for (int i = 0; i < 5000; i++)
            parcels.push_back(make_parcel(random));
    }).join();
    run_child([&parcels] {
        for (const Parcel &parcel : parcels)
            CHILD_EXPECT(open_parcel(parcel));
    });
    for (const Parcel &parcel : parcels)
        EXPECT_TRUE(open_parcel(parcel));
}

} // namespace
