// What a program knows about its blocks: contents, sizes, locks, addresses of locked blocks. Random programs
// compare the heap with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <jeff/jeff.h>

namespace support {

// Random numbers that are the same on every machine (splitmix64); or, for a fuzzer, choices read from bytes
// that somebody else made up.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    // below, chance and size take from `choices` as many bytes as their bound needs, and give 0 when all
    // are spent.
    Random(const uint8_t *choices, size_t size) : state_(0), choices_(choices), left_(size) {}
    uint64_t next();
    uint64_t below(uint64_t bound) {
        return choices_ != nullptr ? chosen(bound) % bound : next() % bound;
    }
    // Whether there were choices, and none is left.
    bool spent() const {
        return choices_ != nullptr && left_ == 0;
    }
    bool chance(unsigned of_thousand) {
        return below(1000) < of_thousand;
    }
    // Mostly small: every power of two up to `most` is equally likely.
    size_t size(size_t most);

  private:
    uint64_t chosen(uint64_t bound);

    uint64_t state_;
    const uint8_t *choices_ = nullptr;
    size_t left_ = 0;
};

// Contents that depend on a seed and on the place of every byte.
void fill_pattern(void *memory, size_t size, uint64_t seed);
// Whether bytes [from, to) are as fill_pattern made them.
bool has_pattern(const void *memory, size_t from, size_t to, uint64_t seed);

struct ModelBlock {
    rmhandle_t handle;
    unsigned heap; // index of its heap
    size_t size;
    size_t alignment;
    uint64_t seed; // of its contents
    size_t filled; // bytes from the start that are known
    unsigned locks;
    const void *address; // while locked
    int priority;        // purge
    bool purged;
};

// Blocks in no order, those that are locked known apart from the others.
class Model {
  public:
    size_t count() const {
        return blocks_.size();
    }
    size_t locked_count() const {
        return locked_.size();
    }
    ModelBlock &at(size_t index) {
        return blocks_[index];
    }
    // Any block, a locked one, one that is not locked; SIZE_MAX when there is none (or none was met).
    size_t any(Random &random) const;
    size_t any_locked(Random &random) const;
    size_t any_unlocked(Random &random) const;

    void add(const ModelBlock &block);
    void remove(size_t index);
    void count_lock(size_t index, const void *address);
    void count_unlock(size_t index);
    void resized(size_t index, size_t size);
    void set_purged(size_t index);

    // Bytes asked for in the blocks of a heap.
    size_t requested(unsigned heap) const {
        return requested_[heap];
    }
    // Blocks with memory.
    size_t blocks(unsigned heap) const {
        return live_[heap];
    }
    void drop_heap(unsigned heap);

  private:
    void account(const ModelBlock &block, int sign);

    std::vector<ModelBlock> blocks_;
    std::vector<size_t> locked_;    // indexes of locked blocks
    std::vector<size_t> in_locked_; // for every block, its place there
    std::vector<size_t> requested_ = std::vector<size_t>(16);
    std::vector<size_t> live_ = std::vector<size_t>(16);
};

} // namespace support
