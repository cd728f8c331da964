// The sampled heap profile: its form, what it counts, its signal, and the report of what is still allocated.
#include <gtest/gtest.h>

#include "support/malloc_calls.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

extern "C" {
#include "malloc/profile.h"
}

namespace {

struct Totals {
    size_t live_count, live_bytes, count, bytes, rate;
};

class MallocProfile : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        path_ = testing::TempDir() + "jeff_profile_" + std::to_string(getpid());
        setenv("JEFF_PROFILE", path_.c_str(),
               1); /* read when the facade starts, with its first call */
        setenv("JEFF_PROFILE_RATE", "1024", 1);
        setenv("JEFF_PROFILE_SIGNAL", std::to_string(SIGUSR2).c_str(), 1);
        jeff_free(jeff_malloc(1));
        ASSERT_EQ(JF_MODE_PROFILE, jf_malloc.mode);
    }
    static void TearDownTestSuite() {
        jf_malloc.mode = 0; /* no file at the end of this program */
        jf_malloc.profile = nullptr;
    }
    static std::string next_name() {
        return path_ + "." + std::to_string(getpid()) + "." + std::to_string(++files_);
    }
    static std::string read(const std::string &name) {
        std::ifstream file(name);
        std::stringstream text;
        text << file.rdbuf();
        std::remove(name.c_str());
        return text.str();
    }
    static std::string write() {
        std::string name = next_name();
        jf_profile_write(false);
        return read(name);
    }
    static Totals totals(const std::string &text) {
        Totals all = {};
        EXPECT_EQ(5,
                  std::sscanf(text.c_str(), "heap profile: %zu: %zu [%zu: %zu] @ heap_v2/%zu",
                              &all.live_count, &all.live_bytes, &all.count, &all.bytes, &all.rate))
            << text;
        return all;
    }
    static std::string path_;
    static int files_;
};
std::string MallocProfile::path_;
int MallocProfile::files_;

TEST_F(MallocProfile, CountsWhatIsAllocatedAndForgetsWhatIsFreed) {
    Totals before = totals(write());
    EXPECT_EQ(1024u, before.rate);
    std::vector<void *> blocks;
    for (int i = 0; i < 1000; i++)
        blocks.push_back(jeff_malloc(5000));
    Totals after = totals(write());
    /* larger than the longest way between two samples: every one is sampled, but for lack of places */
    EXPECT_GE(after.live_count, before.live_count + 950);
    EXPECT_LE(after.live_count, before.live_count + 1000);
    EXPECT_EQ(after.live_bytes - before.live_bytes, (after.live_count - before.live_count) * 5000);
    for (void *block : blocks)
        jeff_free(block);
    Totals last = totals(write());
    EXPECT_EQ(before.live_count, last.live_count);
    EXPECT_EQ(before.live_bytes, last.live_bytes);
    EXPECT_EQ(after.count, last.count);
}

TEST_F(MallocProfile, SmallBlocksAreSampledByTheirBytes) {
    Totals before = totals(write());
    for (int i = 0; i < 100000; i++)
        jeff_free(jeff_malloc(32));
    size_t sampled = totals(write()).count - before.count;
    /* 3.2 MB, one for every 1024 bytes on average */
    EXPECT_GE(sampled, 2000u);
    EXPECT_LE(sampled, 4500u);
}

TEST_F(MallocProfile, HasStacksAndMappings) {
    void *block = jeff_malloc(100000);
    std::string text = write();
    EXPECT_NE(std::string::npos, text.find("1: 100000 [1: 100000] @ 0x"));
    EXPECT_NE(std::string::npos, text.find("\nMAPPED_LIBRARIES:\n"));
    EXPECT_NE(std::string::npos, text.find("test_malloc_profile"));
    jeff_free(block);
}

TEST_F(MallocProfile, IsWrittenAfterItsSignal) {
    std::string name = next_name();
    std::raise(SIGUSR2);
    EXPECT_NE(0, access(name.c_str(), F_OK));
    jeff_free(jeff_malloc(1));
    EXPECT_EQ(0, access(name.c_str(), F_OK));
    totals(read(name));
}

TEST_F(MallocProfile, SaysWhatIsStillAllocated) {
    void *block = jeff_malloc(200000);
    std::string name = next_name();
    testing::internal::CaptureStderr();
    jf_profile_write(true);
    std::string line = testing::internal::GetCapturedStderr();
    EXPECT_NE(std::string::npos, line.find("sampled blocks are still allocated"));
    EXPECT_NE(std::string::npos, line.find(name));
    EXPECT_GE(totals(read(name)).live_bytes, 200000u);
    jeff_free(block);
}

} // namespace
