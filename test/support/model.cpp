#include "support/model.hpp"

#include <cstring>

namespace support {

uint64_t Random::next() {
    uint64_t value = state_ += 0x9e3779b97f4a7c15;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
}

uint64_t Random::chosen(uint64_t bound) {
    uint64_t value = 0;
    for (uint64_t most = bound - 1; most != 0 && left_ != 0; most >>= 8, left_--)
        value = value << 8 | *choices_++;
    return value;
}

size_t Random::size(size_t most) {
    unsigned bits = 0;
    while (most >> bits > 1)
        bits++;
    size_t size = below((size_t{2} << below(bits + 1)));
    return size <= most ? size : most;
}

static uint64_t pattern_word(uint64_t seed, size_t index) {
    return (seed ^ index) * 0x9e3779b97f4a7c15 + index;
}

void fill_pattern(void *memory, size_t size, uint64_t seed) {
    auto *bytes = static_cast<unsigned char *>(memory);
    for (size_t i = 0; i * 8 < size; i++) {
        uint64_t word = pattern_word(seed, i);
        memcpy(bytes + i * 8, &word, size - i * 8 < 8 ? size - i * 8 : 8);
    }
}

bool has_pattern(const void *memory, size_t from, size_t to, uint64_t seed) {
    const auto *bytes = static_cast<const unsigned char *>(memory);
    for (size_t i = from / 8; i * 8 < to; i++) {
        uint64_t word = pattern_word(seed, i);
        size_t begin = from > i * 8 ? from - i * 8 : 0;
        size_t end = to - i * 8 < 8 ? to - i * 8 : 8;
        const auto *expected = reinterpret_cast<const unsigned char *>(&word);
        if (memcmp(bytes + i * 8 + begin, expected + begin, end - begin) != 0)
            return false;
    }
    return true;
}

size_t Model::any(Random &random) const {
    return blocks_.empty() ? SIZE_MAX : random.below(blocks_.size());
}

size_t Model::any_locked(Random &random) const {
    return locked_.empty() ? SIZE_MAX : locked_[random.below(locked_.size())];
}

size_t Model::any_unlocked(Random &random) const {
    for (int tries = 0; tries < 8 && !blocks_.empty(); tries++) {
        size_t index = random.below(blocks_.size());
        if (blocks_[index].locks == 0)
            return index;
    }
    return SIZE_MAX;
}

void Model::account(const ModelBlock &block, int sign) {
    if (block.purged)
        return;
    requested_[block.heap] += static_cast<size_t>(sign) * block.size;
    live_[block.heap] += static_cast<size_t>(sign);
}

void Model::add(const ModelBlock &block) {
    account(block, 1);
    blocks_.push_back(block);
    in_locked_.push_back(SIZE_MAX);
}

void Model::remove(size_t index) {
    account(blocks_[index], -1);
    size_t last = blocks_.size() - 1;
    if (in_locked_[last] != SIZE_MAX)
        locked_[in_locked_[last]] = index;
    blocks_[index] = blocks_[last];
    in_locked_[index] = in_locked_[last];
    blocks_.pop_back();
    in_locked_.pop_back();
}

void Model::count_lock(size_t index, const void *address) {
    ModelBlock &block = blocks_[index];
    if (block.locks++ != 0)
        return;
    block.address = address;
    in_locked_[index] = locked_.size();
    locked_.push_back(index);
}

void Model::count_unlock(size_t index) {
    ModelBlock &block = blocks_[index];
    if (--block.locks != 0)
        return;
    size_t place = in_locked_[index];
    locked_[place] = locked_.back();
    in_locked_[locked_[place]] = place;
    locked_.pop_back();
    in_locked_[index] = SIZE_MAX;
}

void Model::resized(size_t index, size_t size) {
    ModelBlock &block = blocks_[index];
    account(block, -1);
    block.size = size;
    if (block.filled > size)
        block.filled = size;
    if (block.purged) {
        block.purged = false;
        block.filled = 0;
        block.priority = 0;
    }
    account(block, 1);
}

void Model::set_purged(size_t index) {
    account(blocks_[index], -1);
    blocks_[index].purged = true;
    blocks_[index].filled = 0;
}

void Model::drop_heap(unsigned heap) {
    for (size_t i = blocks_.size(); i > 0; i--) {
        if (blocks_[i - 1].heap != heap)
            continue;
        while (blocks_[i - 1].locks != 0)
            count_unlock(i - 1);
        remove(i - 1);
    }
}

} // namespace support
