/* The least that a compaction by sliding can cost: blocks whose header names their entry, one packed word
 * per entry, one pass in address order that copies the live blocks down and sets their entries. No locks,
 * no threads, no budget, memory that is there already: the reference for Jeff's compactor.
 *
 *   header  63..32 entry index | 31..1 stride / 2 | 0 live
 */
#ifndef JEFF_BENCH_BARE_HEAP_H
#define JEFF_BENCH_BARE_HEAP_H

#include "workloads.h"

namespace bench {

class BareHeap {
  public:
    /* `count` blocks of `stride` bytes, header included, their entries in random order or in that of the blocks; so
     * many of a hundred are dead. */
    BareHeap(size_t count, size_t stride, uint64_t seed, size_t dead_percent = 50,
             bool shuffled = true)
        : memory_(count * stride + AHEAD_LINES), entries_(count), end_(count * stride) {
        Random random(seed);
        for (size_t i = 0; i < count; i++)
            entries_[i] = i;
        if (shuffled)
            random.shuffle(entries_.begin(), entries_.end());
        Array<uint64_t> order(count);
        memcpy(order.data(), entries_.data(), count * sizeof(uint64_t));
        for (size_t i = 0; i < count; i++) {
            uint64_t live = random.below(100) >= dead_percent;
            char *block = memory_.data() + i * stride;
            memset(block, 0x5a, stride);
            store(block, order[i] << 32 | stride | live);
            entries_[order[i]] = reinterpret_cast<uint64_t>(block);
            live_ += live;
        }
    }

    size_t live() const {
        return live_;
    }

    /* Slides all live blocks down; returns the bytes they take. */
    size_t compact() {
        slide<false>(0);
        return static_cast<size_t>(to_ - memory_.data());
    }

    /* The same until the thread's CPU time has come to `deadline`; whether it is done. */
    bool compact_until(uint64_t deadline) {
        return slide<true>(deadline);
    }

  private:
    enum { AHEAD_LINES = 4096, AHEAD_ENTRIES = 2048, LINE = 64, BLOCKS_AT_A_TIME = 32 };

    template <bool timed> bool slide(uint64_t deadline) {
        char *to = to_;
        const char *end = memory_.data() + end_;
        const char *ahead = ahead_, *at = at_;
        for (unsigned count = 0; at < end; count++) {
            if (timed && count % BLOCKS_AT_A_TIME == 0 && cpu_ns() >= deadline)
                break;
            for (; ahead < at + AHEAD_ENTRIES && ahead < end; ahead += stride_of(load(ahead)))
                prefetch_for(ahead);
            uint64_t header = load(at);
            size_t stride = stride_of(header);
            if ((header & 1) != 0) {
                copy(to, at, stride);
                entries_[header >> 32] = reinterpret_cast<uint64_t>(to);
                to += stride;
            }
            at += stride;
        }
        to_ = to, at_ = at, ahead_ = ahead;
        return at == end;
    }

    static uint64_t load(const char *at) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        return word;
    }

    static void store(char *at, uint64_t word) {
        memcpy(at, &word, sizeof word);
    }

    static size_t stride_of(uint64_t header) {
        return static_cast<uint32_t>(header) & ~1u;
    }

    /* Lines of the block that lies as far ahead again, and the entry of this one. */
    void prefetch_for(const char *at) const {
        uint64_t header = load(at);
        if ((header & 1) != 0)
            __builtin_prefetch(&entries_[header >> 32], 1);
        for (size_t line = 0; line < stride_of(header); line += LINE)
            __builtin_prefetch(at + (AHEAD_LINES - AHEAD_ENTRIES) + line);
    }

    static void copy(char *to, const char *from, size_t size) {
        if (to + size <= from)
            memcpy(to, from, size);
        else if (to != from)
            memmove(to, from, size);
    }

    Mapping memory_;
    Array<uint64_t> entries_;
    size_t end_;
    size_t live_ = 0;
    char *to_ = memory_.data();
    const char *at_ = memory_.data(), *ahead_ = memory_.data(); /* how far the slide has come */
};

/* Nanoseconds that a plain memmove of `size` bytes takes, `size` bytes down, in memory that is there. */
inline double memmove_ns(size_t size) {
    Mapping memory(2 * size);
    memset(memory.data(), 0x5a, memory.size());
    uint64_t start = cpu_ns();
    memmove(memory.data(), memory.data() + size, size);
    return static_cast<double>(cpu_ns() - start);
}

} // namespace bench

#endif
