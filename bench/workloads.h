/* The workloads that the benchmark programs share, each the same sequence of calls at every run, and for
 * every allocator that they are handed as a store:
 *
 *   struct Store {
 *       using Block = ...;
 *       Block allocate(size_t size);            // written to all over, so that its memory is there
 *       void release(Block block);
 *       void idle();                            // the program has a millisecond to spare
 *   };
 */
#ifndef JEFF_BENCH_WORKLOADS_H
#define JEFF_BENCH_WORKLOADS_H

#include "process.h"

#include <algorithm>
#include <cstring>
#include <jeff/jeff.h>
#include <stdexcept>
#include <utility>

namespace bench {

/* Sequence of pseudo-random numbers (Steele, Lea, Flood: "Fast splittable pseudorandom number
 * generators", OOPSLA 2014: SplitMix64). */
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}

    uint64_t next() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }

    size_t below(size_t count) {
        return static_cast<size_t>(static_cast<Product>(next()) * count >> 64);
    }

    size_t between(size_t low, size_t high) {
        return low + below(high - low + 1);
    }

    template <class T> void shuffle(T *begin, T *end) {
        for (size_t left = static_cast<size_t>(end - begin); left > 1; left--)
            std::swap(begin[left - 1], begin[below(left)]);
    }

  private:
    __extension__ typedef unsigned __int128 Product;
    uint64_t state_;
};

/* ------------------------------------------------------------------------------------ sizes */

/* The small-object mix that Compact-fit was measured with (Craciunas et al., USENIX ATC 2008). */
inline size_t mixed_size(Random &random) {
    static const struct {
        unsigned draws;
        size_t low, high;
    } mix[] = {{10, 1, 15},    {98, 16, 31},   {4325, 32, 63},  {18, 64, 127},  {11, 128, 255},
               {13, 256, 511}, {5, 512, 1023}, {8, 1024, 2047}, {6, 2048, 4095}};
    size_t draw = random.below(4494);
    const auto *range = mix;
    while (draw >= range->draws)
        draw -= range++->draws;
    return random.between(range->low, range->high);
}

inline size_t replaced_size(Random &random) {
    return random.between(16, 512);
}

inline size_t spread_size(Random &random) {
    return random.between(16, 1024);
}

/* ------------------------------------------------------------------------------------ ideal packing */

/* What the live blocks would take if they lay end to end: each with its 8-byte header rounded up to 16
 * bytes, and 8 bytes for every entry that the table had at its peak, since handles cannot move. */
class Ideal {
  public:
    void add(size_t size) {
        requested_ += size;
        packed_ += rounded(size);
        if (++blocks_ > peak_blocks_)
            peak_blocks_ = blocks_;
        if (bytes() > peak_)
            peak_ = bytes();
    }

    void remove(size_t size) {
        requested_ -= size;
        packed_ -= rounded(size);
        blocks_--;
    }

    static size_t rounded(size_t size) {
        return (size + 8 + 15) & ~static_cast<size_t>(15);
    }
    size_t blocks() const {
        return blocks_;
    }
    size_t requested() const {
        return requested_;
    }
    size_t packed() const {
        return packed_;
    }
    size_t bytes() const {
        return packed_ + 8 * peak_blocks_;
    }
    size_t peak() const {
        return peak_;
    }

  private:
    size_t blocks_ = 0, peak_blocks_ = 0, requested_ = 0, packed_ = 0, peak_ = 0;
};

/* ------------------------------------------------------------------------------------ stores */

struct JeffStore {
    using Block = rmhandle_t;
    rmheap_t heap = nullptr;
    uint32_t slice_us = 0; /* for idle */

    Block allocate(size_t size) {
        Block block = rmheap_malloc(heap, size);
        if (block == nullptr)
            throw std::runtime_error("rmmalloc: no memory");
        memset(rmlock(block), 0x5a, size);
        rmunlock(block);
        return block;
    }

    void release(Block block) {
        rmfree(block);
    }

    void idle() {
        if (slice_us != 0)
            rmheap_compact_us(heap, slice_us, nullptr);
    }
};

struct MallocStore {
    using Block = void *;
    void *(*malloc)(size_t size) = nullptr;
    void (*free)(void *block) = nullptr;
    void *(*realloc)(void *block, size_t size) = nullptr;

    Block allocate(size_t size) {
        Block block = malloc(size);
        if (block == nullptr)
            throw std::runtime_error("malloc: no memory");
        memset(block, 0x5a, size);
        return block;
    }

    void release(Block block) {
        free(block);
    }
    void idle() {}
};

/* ------------------------------------------------------------------------------------ live blocks */

/* The blocks that a workload has in use, in no order; calls idle after every 5000 operations. */
template <class Store> class Live {
  public:
    struct Item {
        typename Store::Block block;
        uint32_t size;
        uint32_t number; /* of the allocation */
    };

    Live(Store &store, size_t most) : store_(store), items_(most) {}

    size_t count() const {
        return count_;
    }
    const Item &operator[](size_t index) const {
        return items_[index];
    }
    const Ideal &ideal() const {
        return ideal_;
    }

    void add(size_t size) {
        items_[count_++] = make(size);
        operation();
    }

    void remove(size_t index) {
        drop(items_[index]);
        items_[index] = items_[--count_];
        operation();
    }

    void replace(size_t index, size_t size) {
        drop(items_[index]);
        items_[index] = make(size);
        operation();
    }

    /* Frees `share` of all blocks, chosen at random. */
    void thin_out(Random &random, double share) {
        size_t keep = count_ - static_cast<size_t>(static_cast<double>(count_) * share);
        while (count_ > keep)
            remove(random.below(count_));
    }

  private:
    enum { OPERATIONS_A_SLICE = 5000 };

    Item make(size_t size) {
        ideal_.add(size);
        return {store_.allocate(size), static_cast<uint32_t>(size), numbers_++};
    }

    void drop(const Item &item) {
        ideal_.remove(item.size);
        store_.release(item.block);
    }

    void operation() {
        if (++operations_ % OPERATIONS_A_SLICE == 0)
            store_.idle();
    }

    Store &store_;
    Array<Item> items_;
    Ideal ideal_;
    size_t count_ = 0;
    uint32_t numbers_ = 0;
    size_t operations_ = 0;
};

/* ------------------------------------------------------------------------------------ workloads */

/* A cache with a cap on its payload that, as Redis does, evicts the oldest of five random entries. */
struct Cache {
    size_t cap;
    size_t first_count, first_size;
    size_t second_count, second_size;

    size_t most() const {
        return cap / first_size + 2;
    }

    template <class Store> void run(Live<Store> &live) const {
        Random random(1);
        insert(live, random, first_count, first_size);
        insert(live, random, second_count, second_size);
    }

  private:
    template <class Store>
    void insert(Live<Store> &live, Random &random, size_t count, size_t size) const {
        for (size_t i = 0; i < count; i++) {
            while (live.ideal().requested() + size > cap)
                live.remove(oldest_of_five(live, random));
            live.add(size);
        }
    }

    template <class Store> static size_t oldest_of_five(Live<Store> &live, Random &random) {
        size_t oldest = random.below(live.count());
        for (int i = 1; i < 5; i++) {
            size_t other = random.below(live.count());
            if (live[other].number < live[oldest].number)
                oldest = other;
        }
        return oldest;
    }
};

/* M1: the experiment that Mesh and Alaska share; R1: Redis' own. */
inline constexpr Cache cache_m1{100000000, 700000, 240, 170000, 492};
inline constexpr Cache cache_r1{100000000, 700000, 150, 170000, 300};

/* S1: a million blocks of 16 to 1024 bytes, nine tenths freed, 100 000 of 2000 bytes on top. */
struct Spread {
    static size_t most() {
        return 1000000;
    }

    template <class Store> static void fill_and_free(Live<Store> &live) {
        Random random(2);
        for (size_t i = 0; i < most(); i++)
            live.add(spread_size(random));
        live.thin_out(random, 0.9);
    }

    template <class Store> static void add_large(Live<Store> &live) {
        for (size_t i = 0; i < 100000; i++)
            live.add(2000);
    }
};

/* `count` blocks, replaced at random `replaced` times; then `dead` of them freed. */
struct Churn {
    size_t count;
    size_t replaced;
    double dead;
    size_t (*size)(Random &random);

    size_t most() const {
        return count;
    }

    template <class Store> void run(Live<Store> &live) const {
        Random random(3);
        for (size_t i = 0; i < count; i++)
            live.add(size(random));
        for (size_t i = 0; i < replaced; i++)
            live.replace(random.below(count), size(random));
        live.thin_out(random, dead);
    }
};

/* C1: Compact-fit's mix, long in use, then half of it freed. */
inline constexpr Churn mix_c1{1000000, 3000000, 0.5, mixed_size};

/* ------------------------------------------------------------------------------------ heaps of handles */

/* `count` blocks of `size` bytes that lie in memory in another order than their handles. Blocks are made
 * small and then grown in random order: the handle stays, the block gets a new place. */
inline void fill_shuffled(rmheap_t heap, Array<rmhandle_t> &handles, size_t size, uint64_t seed) {
    for (rmhandle_t &handle : handles)
        if ((handle = rmheap_malloc(heap, 1)) == nullptr)
            throw std::runtime_error("rmmalloc: no memory");
    Random(seed).shuffle(handles.begin(), handles.end());
    for (rmhandle_t handle : handles)
        if (rmrealloc(handle, size) != 0)
            throw std::runtime_error("rmrealloc: no memory");
    for (rmhandle_t handle : handles) {
        memset(rmlock(handle), 0x5a, size);
        rmunlock(handle);
    }
    rmheap_compact(heap, 0);
}

/* Frees every handle of [0, count) that the coin says; returns how many stay, at the array's front. */
inline size_t free_half(Array<rmhandle_t> &handles, uint64_t seed) {
    Random random(seed);
    size_t kept = 0;
    for (rmhandle_t handle : handles) {
        if ((random.next() & 1) != 0)
            rmfree(handle);
        else
            handles[kept++] = handle;
    }
    return kept;
}

} // namespace bench

#endif
