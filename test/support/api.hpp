// Heaps of either profile for tests of the public calls as a whole.
#pragma once

#include <gtest/gtest.h>

#include <jeff/jeff.h>

#include <cstring>
#include <string>
#include <vector>

namespace support {

inline rm_options options_with_check(unsigned level) {
    rm_options options;
    rmoptions_init(&options);
    options.check = level;
    return options;
}

// Both profiles, at the check level that looks at everything after every call.
enum ApiProfile { GROWING, FIXED };

inline std::string api_profile_name(const testing::TestParamInfo<ApiProfile> &profile) {
    return profile.param == GROWING ? "Growing" : "Fixed";
}

class Api : public testing::TestWithParam<ApiProfile> {
  protected:
    Api() {
        start(options_with_check(2));
    }
    ~Api() override {
        rmheap_destroy(heap_);
    }

    void start(const rm_options &options) {
        if (heap_ != nullptr)
            rmheap_destroy(heap_);
        rm_options limited = options;
        if (GetParam() == GROWING)
            limited.limit = 8 << 20;
        heap_ = GetParam() == GROWING ? rmheap_create(&limited)
                                      : rmheap_create_in(buffer_.data(), buffer_.size(), &options);
    }

    static std::string read(rmhandle_t block, size_t size) {
        std::string text(static_cast<const char *>(rmlock(block)), size);
        rmunlock(block);
        return text;
    }
    static void write(rmhandle_t block, char character, size_t size) {
        std::memset(rmlock(block), character, size);
        rmunlock(block);
    }

    // Blocks of `size` bytes until there is no memory.
    std::vector<rmhandle_t> fill(size_t size) {
        std::vector<rmhandle_t> blocks;
        while (rmhandle_t block = rmheap_malloc(heap_, size))
            blocks.push_back(block);
        return blocks;
    }

    std::vector<char> buffer_ = std::vector<char>(1 << 20);
    rmheap_t heap_ = nullptr;
};

} // namespace support
