// A heap of either profile for tests that must hold in both.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <jeff/jeff.h>

namespace support {

enum class Profile { growing, fixed };

inline std::string profile_name(const testing::TestParamInfo<Profile> &info) {
    return info.param == Profile::growing ? "Growing" : "Fixed";
}

class ProfileHeap {
  public:
    explicit ProfileHeap(Profile profile, const rm_options *options = nullptr,
                         size_t fixed_size = 8 << 20)
        : buffer_(profile == Profile::fixed ? fixed_size : 0) {
        heap_ = profile == Profile::fixed
                    ? rmheap_create_in(buffer_.data(), buffer_.size(), options)
                    : rmheap_create(options);
        if (heap_ == nullptr)
            ADD_FAILURE() << "no heap";
    }
    ~ProfileHeap() {
        rmheap_destroy(heap_);
    }
    ProfileHeap(const ProfileHeap &) = delete;
    ProfileHeap &operator=(const ProfileHeap &) = delete;

    rmheap_t get() const {
        return heap_;
    }
    void expect_sound() const {
        rm_fault fault;
        EXPECT_EQ(0, rmheap_check(heap_, &fault)) << fault.name << ": " << fault.text;
    }
    uint64_t blocks() const {
        rm_stats stats;
        rmheap_stats(heap_, &stats);
        return stats.blocks;
    }

  private:
    std::vector<char> buffer_;
    rmheap_t heap_;
};

// In the growing profile alone: a heap with this limit; in the fixed one a buffer of that size.
inline rm_options limited_options(Profile profile, size_t limit) {
    rm_options options;
    rmoptions_init(&options);
    options.limit = profile == Profile::growing ? limit : 0;
    return options;
}

} // namespace support
