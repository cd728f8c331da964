// Random programs on pools of both kinds against a model, with scrambling, limits, and a system that refuses.
#include <gtest/gtest.h>

#include <jeff/pool.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

extern "C" {
#include "collections/pool.h"
}

#include "support/model.hpp"
#include "support/profiles.hpp"
#include "support/threads.hpp"

namespace {

using support::Profile;
using support::ProfileHeap;
using support::Random;

struct Element {
    void *pointer;     // stable pools
    rmhandle_t handle; // handle pools
    unsigned locks;
    const void *locked_at;
    uint64_t seed;
};

struct Pool {
    rmpool_t pool;
    size_t size;
    bool handles;
    bool zeroed;
    std::vector<Element> elements;
};

class Program {
  public:
    Program(rmheap_t heap, uint64_t seed, size_t most) : heap_(heap), random_(seed), most_(most) {}
    ~Program() {
        for (Pool &pool : pools_)
            end(pool);
    }
    void step() {
        if (pools_.empty() || (pools_.size() < 8 && random_.chance(5)))
            create();
        if (pools_.empty())
            return;
        Pool &pool = pools_[random_.below(pools_.size())];
        uint64_t draw = random_.below(1000);
        if (draw < 400 + growing_)
            add(pool);
        else if (draw < 850)
            remove(pool);
        else if (draw < 940)
            lock(pool);
        else if (draw < 980)
            unlock(pool);
        else if (draw < 990)
            compact(pool);
        else if (draw < 993)
            verify(pool);
        else if (draw < 995)
            growing_ = growing_ == 0 ? 100 : 0;
        else if (draw == 995 && pools_.size() > 3)
            destroy(random_.below(pools_.size()));
    }
    void verify_all() {
        for (Pool &pool : pools_)
            verify(pool);
    }
    size_t refused() const {
        return refused_;
    }

  private:
    void create() {
        static const size_t sizes[] = {1, 8, 16, 24, 40, 64, 100, 333, 4000, 20000};
        rm_pool_options options;
        rmpool_options_init(&options);
        options.flags = static_cast<unsigned>(random_.below(4));
        options.alignment = random_.chance(500) ? 0 : size_t{1} << random_.below(9);
        Pool pool{nullptr,
                  sizes[random_.below(10)],
                  (options.flags & RM_POOL_HANDLES) != 0,
                  (options.flags & RM_POOL_ZEROED) != 0,
                  {}};
        pool.pool = rmpool_create(heap_, pool.size, random_.chance(300) ? 0 : 1 + random_.size(500),
                                  &options);
        if (pool.pool != nullptr)
            pools_.push_back(pool);
        else
            refused_++;
    }
    static void *begin(const Element &element) {
        return element.handle != nullptr ? rmlock(element.handle) : element.pointer;
    }
    static void end(const Element &element) {
        if (element.handle != nullptr)
            rmunlock(element.handle);
    }
    void add(Pool &pool) {
        if (pool.elements.size() >= most_)
            return;
        Element element{};
        element.seed = ++seed_;
        if (pool.handles)
            element.handle = rmpool_alloc_handle(pool.pool);
        else
            element.pointer = rmpool_alloc(pool.pool);
        if (element.handle == nullptr && element.pointer == nullptr) {
            ASSERT_EQ(ENOMEM, errno);
            refused_++;
            return;
        }
        char *memory = static_cast<char *>(begin(element));
        for (size_t i = 0; pool.zeroed && i < pool.size; i++)
            ASSERT_EQ(0, memory[i]);
        support::fill_pattern(memory, pool.size, element.seed);
        end(element);
        pool.elements.push_back(element);
    }
    void check(const Pool &pool, const Element &element) {
        ASSERT_TRUE(support::has_pattern(begin(element), 0, pool.size, element.seed));
        end(element);
        if (element.locks != 0) {
            ASSERT_EQ(element.locked_at, rmweaklock(element.handle));
        }
    }
    void remove(Pool &pool) {
        if (pool.elements.empty())
            return;
        size_t which = random_.below(pool.elements.size());
        Element element = pool.elements[which];
        if (element.locks != 0)
            return;
        check(pool, element);
        if (!pool.handles)
            rmpool_free(pool.pool, element.pointer);
        else if (random_.chance(500))
            rmfree(element.handle);
        else
            rmpool_free_handle(pool.pool, element.handle);
        pool.elements[which] = pool.elements.back();
        pool.elements.pop_back();
    }
    void lock(Pool &pool) {
        if (!pool.handles || pool.elements.empty())
            return;
        Element &element = pool.elements[random_.below(pool.elements.size())];
        element.locked_at = rmlock(element.handle);
        element.locks++;
    }
    void unlock(Pool &pool) {
        for (Element &element : pool.elements) {
            for (; element.locks != 0; element.locks--)
                rmunlock(element.handle);
        }
    }
    void compact(Pool &pool) {
        rm_compact_status status =
            rmpool_compact(pool.pool, static_cast<uint32_t>(random_.below(3) * 50), nullptr);
        bool any_locked = false;
        for (const Element &element : pool.elements)
            any_locked |= element.locks != 0;
        if (!any_locked) {
            ASSERT_NE(RM_COMPACT_LOCKED, status);
        }
        if (pool.handles && status == RM_COMPACT_DONE) {
            rm_pool_stats stats;
            rmpool_stats(pool.pool, &stats);
            ASSERT_LE(stats.partial_blocks, 1u);
            ASSERT_EQ(pool.elements.size(), stats.elements);
        }
    }
    void verify(Pool &pool) {
        for (const Element &element : pool.elements)
            check(pool, element);
        rm_pool_stats stats;
        rmpool_stats(pool.pool, &stats);
        ASSERT_EQ(pool.elements.size(), stats.elements);
        ASSERT_GE(stats.capacity, stats.elements);
    }
    void end(Pool &pool) {
        unlock(pool);
        rmpool_destroy(pool.pool);
    }
    void destroy(size_t which) {
        end(pools_[which]);
        pools_[which] = pools_.back();
        pools_.pop_back();
    }

    rmheap_t heap_;
    Random random_;
    size_t most_;
    uint64_t seed_ = 0;
    uint64_t growing_ = 100;
    size_t refused_ = 0;
    std::vector<Pool> pools_;
};

TEST(PoolRandom, AgreesWithTheModel) {
    ProfileHeap heap(Profile::growing);
    Program program(heap.get(), 1, 3000);
    for (size_t i = 0; i < support::thread_operations(600000) && !testing::Test::HasFatalFailure();
         i++) {
        program.step();
        if (i % 3000 == 0)
            heap.expect_sound();
    }
    program.verify_all();
}

TEST(PoolRandom, AgreesWithTheModelWhenEverythingMovesAtEveryAllocation) {
    rm_options options;
    rmoptions_init(&options);
    options.check = 3;
    ProfileHeap heap(Profile::growing, &options);
    Program program(heap.get(), 2, 60);
    for (size_t i = 0; i < support::thread_operations(6000) && !testing::Test::HasFatalFailure();
         i++)
        program.step();
    program.verify_all();
}

TEST(PoolRandom, AgreesWithTheModelWhenMemoryIsScarce) {
    rm_options options = support::limited_options(Profile::growing, 1 << 20);
    ProfileHeap heap(Profile::growing, &options);
    Program program(heap.get(), 3, 10000);
    for (size_t i = 0; i < support::thread_operations(60000) && !testing::Test::HasFatalFailure();
         i++)
        program.step();
    EXPECT_GT(program.refused(), 10u);
    program.verify_all();
    heap.expect_sound();
}

TEST(PoolRandom, AgreesWithTheModelWhenTheSystemRefusesAtEveryPoint) {
    ProfileHeap heap(Profile::growing);
    jf_arena *arena = reinterpret_cast<jf_heap *>(heap.get())->u.grow.window->arena;
    Program program(heap.get(), 4, 10000);
    for (unsigned round = 0; round < 300 && !testing::Test::HasFatalFailure(); round++) {
        jf_arena_refuse(arena, 1 + round % 7, round % 2 == 1);
        for (size_t i = 0; i < 200; i++)
            program.step();
    }
    jf_arena_refuse(arena, 0, false);
    program.verify_all();
    heap.expect_sound();
}

} // namespace
