// What the facade makes of the process's pages: huge ones where a block holds whole ones, and few mappings however
// many blocks there are.
#include "support/child.hpp"
#include "support/malloc_calls.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include "api.h"
#include "malloc/facade.h"
}

namespace {

using support::hide;

constexpr size_t mib = size_t{1} << 20;
constexpr size_t mappings_most = 65530; // vm.max_map_count as systems set it

struct Mappings {
    size_t count = 0;
    size_t huge_kib = 0;    // in huge pages, of the window
    size_t allowed_kib = 0; // where they are allowed
};

bool is_in_window(uintptr_t address) {
    return address - jf_malloc.base < jf_malloc_units() << JF_UNIT_SHIFT;
}

Mappings read_mappings() {
    Mappings mappings;
    FILE *file = std::fopen("/proc/self/smaps", "r");
    EXPECT_NE(file, nullptr);
    char line[1024];
    bool ours = false;
    size_t size = 0;
    while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr) {
        unsigned long first;
        unsigned long end;
        size_t kib;
        if (std::sscanf(line, "%lx-%lx ", &first, &end) == 2) {
            mappings.count++;
            ours = is_in_window(first);
            size = (end - first) / 1024;
        } else if (ours && std::sscanf(line, "AnonHugePages: %zu kB", &kib) == 1) {
            mappings.huge_kib += kib;
        } else if (ours && std::strncmp(line, "VmFlags:", 8) == 0 &&
                   std::strstr(line, " hg") != nullptr) {
            mappings.allowed_kib += size;
        }
    }
    if (file != nullptr)
        std::fclose(file);
    return mappings;
}

bool system_has_huge_pages() {
    FILE *file = std::fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    char text[100] = "";
    bool read = file != nullptr && std::fgets(text, sizeof text, file) != nullptr;
    if (file != nullptr)
        std::fclose(file);
    return read && std::strstr(text, "[never]") == nullptr;
}

class HugePages : public testing::Test {
  protected:
    void SetUp() override {
        jeff_free(hide(jeff_malloc(1)));
        if (!system_has_huge_pages())
            GTEST_SKIP() << "the system has none";
        if (!jf_malloc.huge_pages)
            GTEST_SKIP() << "the environment wants none";
        jeff_malloc_trim(0);
        before = read_mappings();
        if (before.allowed_kib != 0)
            GTEST_SKIP() << "something else has asked for them";
    }
    Mappings before;
};

TEST_F(HugePages, ALargeBlockMayHaveThemAndNoOtherAfterIt) {
    char *block = hide(static_cast<char *>(jeff_malloc(11 * mib)));
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(read_mappings().allowed_kib, 10 * 1024u) << "whole ones, none beyond the block";
    EXPECT_EQ(read_mappings().huge_kib, before.huge_kib) << "none before it is written to";
    std::memset(block, 1, 11 * mib);
    jeff_free(block);
    EXPECT_EQ(read_mappings().allowed_kib, 0u);
    EXPECT_EQ(read_mappings().count, before.count);
}

TEST_F(HugePages, ASmallerBlockHasNone) {
    char *block = hide(static_cast<char *>(jeff_malloc(3 * mib)));
    EXPECT_EQ(read_mappings().allowed_kib, 0u);
    jeff_free(block);
}

TEST_F(HugePages, AGrowingBlockKeepsItsContentsAndGetsMore) {
    size_t size = 5 * mib;
    auto *block = static_cast<unsigned char *>(jeff_malloc(size));
    std::memset(block, 0, size);
    for (size_t i = 0; i < size; i += 4096)
        block[i] = static_cast<unsigned char>(i / 4096 % 251);
    for (int step = 0; step < 30; step++) {
        size_t larger = size + size / 8 + 50000;
        block = static_cast<unsigned char *>(jeff_realloc(block, larger));
        ASSERT_NE(block, nullptr);
        for (size_t i = (size + 4095) / 4096 * 4096; i < larger; i += 4096)
            block[i] = static_cast<unsigned char>(i / 4096 % 251);
        size = larger;
    }
    for (size_t i = 0; i < size; i += 4096)
        ASSERT_EQ(block[i], i / 4096 % 251) << i;
    EXPECT_GT(read_mappings().allowed_kib, size / 1024 / 2);
    block = static_cast<unsigned char *>(jeff_realloc(block, 6 * mib));
    for (size_t i = 0; i < 6 * mib; i += 4096)
        ASSERT_EQ(block[i], i / 4096 % 251) << i;
    jeff_free(block);
    EXPECT_EQ(read_mappings().allowed_kib, 0u);
    jeff_malloc_trim(0);
    EXPECT_LE(read_mappings().count, before.count + 2);
}

TEST_F(HugePages, WhatAFreedBlockHeldReadsAsZeroFromCalloc) {
    for (int round = 0; round < 3; round++) {
        char *block = hide(static_cast<char *>(jeff_calloc(9, mib)));
        for (size_t i = 0; i < 9 * mib; i += 512)
            ASSERT_EQ(block[i], 0);
        std::memset(block, 1, 9 * mib);
        jeff_free(block);
        if (round == 1)
            jeff_malloc_trim(0);
    }
}

// --- fresh pages

size_t resident_pages(const char *block, size_t size) {
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    std::vector<unsigned char> resident(size / page);
    EXPECT_EQ(mincore(const_cast<char *>(block), size, resident.data()), 0);
    size_t count = 0;
    for (unsigned char one : resident)
        count += one & 1;
    return count;
}

TEST(FreshPages, CallocDoesNotTouchThem) {
    if (JF_TEST_SANITIZED)
        GTEST_SKIP() << "a sanitizer looks at what is given out";
    jeff_free(hide(jeff_malloc(1)));
    jeff_malloc_trim(0);
    for (size_t size : {mib / 2, 3 * mib, 100 * mib}) {
        char *block = hide(static_cast<char *>(jeff_calloc(size / 64, 64)));
        ASSERT_NE(block, nullptr);
        EXPECT_LE(resident_pages(block, size), 1u) << size;
        block[size / 2] = 1;
        EXPECT_LE(resident_pages(block, size), 512u) << "a page, or a huge one";
        jeff_free(block);
        jeff_malloc_trim(0);
    }
}

// Cells of spans: whole pages of fresh ones.
TEST(FreshPages, CallocDoesNotTouchThoseOfCells) {
    if (JF_TEST_SANITIZED)
        GTEST_SKIP() << "a sanitizer looks at what is given out";
    jeff_free(hide(jeff_malloc(1)));
    jeff_malloc_trim(0);
    constexpr size_t size = 128 * 1024;
    char *blocks[8];
    size_t touched = 0;
    for (char *&block : blocks) {
        block = hide(static_cast<char *>(jeff_calloc(1, size)));
        ASSERT_NE(block, nullptr);
        touched += resident_pages(block, size);
    }
    EXPECT_LE(touched, 8u);
    for (char *block : blocks)
        jeff_free(block);
}

// --- free units

std::vector<char *> blocks_of_8_kib(size_t count) {
    std::vector<char *> blocks(count);
    for (char *&block : blocks) {
        block = static_cast<char *>(jeff_malloc(8192));
        block[0] = 1;
    }
    return blocks;
}

TEST(FreeUnits, KeepMemoryForAWhileAndThenGiveItBack) {
    constexpr size_t segment = 128; // blocks of 8 KiB
    constexpr size_t count = 32 * segment;
    constexpr size_t most = 64 + 128;
    jeff_free(hide(jeff_malloc(1)));
    jeff_malloc_trim(0);
    std::vector<char *> blocks = blocks_of_8_kib(count);
    for (size_t i = 0; i < count; i++)
        if (i % (segment / 2) != 0)
            jeff_free(blocks[i]);
    EXPECT_GT(jf_malloc.dirty_units, 64u) << "young ones stay";
    EXPECT_LE(jf_malloc.dirty_units, most + jf_malloc.used_units / 16);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    for (size_t i = segment / 2; i < count; i += segment)
        jeff_free(blocks[i]);
    EXPECT_LE(jf_malloc.dirty_units, 64 + count / segment) << "old, but for those freed just now";
    for (size_t i = 0; i < count; i += segment) {
        EXPECT_EQ(blocks[i][0], 1);
        jeff_free(blocks[i]);
    }
}

TEST(FreeUnits, OfAProgramThatUsesMuchHoldNoMoreThanASixteenth) {
    constexpr size_t unit = 8; // blocks of 8 KiB
    constexpr size_t count = 1024 * unit;
    jeff_malloc_trim(0);
    std::vector<char *> blocks = blocks_of_8_kib(count);
    for (size_t i = 0; i < count; i++)
        if (i / unit % 4 == 0)
            jeff_free(blocks[i]);
    EXPECT_LE(jf_malloc.dirty_units, 64 + 128 + jf_malloc.used_units / 16);
    for (size_t i = 0; i < count; i++)
        if (i / unit % 4 != 0)
            jeff_free(blocks[i]);
}

// --- the environment

// A program of its own, for the environment is read at the start.
TEST(HugePagesOption, TheEnvironmentTurnsThemOff) {
    std::string self = "/proc/self/exe";
    for (const char *value : {"0", "1"}) {
        pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            setenv("JEFF_HUGE_PAGES", value, 1);
            setenv("JF_TEST_HUGE_PAGES", value, 1);
            execl(self.c_str(), "self", "--gtest_filter=HugePagesOption.Inner",
                  static_cast<char *>(nullptr));
            _exit(1);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0) << value;
    }
}

TEST(HugePagesOption, Inner) {
    const char *value = std::getenv("JF_TEST_HUGE_PAGES");
    if (value == nullptr)
        GTEST_SKIP() << "run by the test before this";
    char *block = hide(static_cast<char *>(jeff_malloc(8 * mib)));
    size_t allowed = read_mappings().allowed_kib;
    bool wanted = value[0] == '1' && system_has_huge_pages();
    EXPECT_EQ(wanted ? 8 * 1024u : 0u, allowed);
    std::memset(block, 1, 8 * mib);
    jeff_free(block);
}

// --- vm.max_map_count

TEST(Mappings, ManyHugeBlocksNeedFew) {
    jeff_free(hide(jeff_malloc(1)));
    size_t before = read_mappings().count;
    std::vector<std::pair<char *, size_t>> blocks;
    for (size_t i = 0; i < 9000; i++) {
        // their last byte lies on a small page
        size_t size = i % 3 == 0 ? 4 * mib + i % 5 * mib + 5000 : 200000 + i % 7 * 100000;
        char *block = hide(static_cast<char *>(jeff_malloc(size)));
        ASSERT_NE(block, nullptr) << i;
        block[size - 1] = 1;
        blocks.emplace_back(block, size);
    }
    EXPECT_LT(read_mappings().count, mappings_most / 2);
    for (size_t i = 0; i < blocks.size(); i += 2)
        jeff_free(blocks[i].first);
    EXPECT_LT(read_mappings().count, mappings_most / 2);
    for (size_t i = 3; i < 1200; i += 6)
        blocks[i].first = static_cast<char *>(jeff_realloc(blocks[i].first, 10 * mib));
    EXPECT_LT(read_mappings().count, mappings_most / 2);
    for (size_t i = 1; i < blocks.size(); i += 2) {
        EXPECT_EQ(blocks[i].first[blocks[i].second - 1], 1);
        jeff_free(blocks[i].first);
    }
    jeff_malloc_trim(0);
    EXPECT_LT(read_mappings().count, before + 1000) << "pages that have moved may split some";
}

TEST(Mappings, ManySpansNeedFewWhateverIsGivenBack) {
    jeff_free(hide(jeff_malloc(1)));
    size_t before = read_mappings().count;
    std::vector<char *> blocks;
    for (size_t i = 0; i < 60000; i++) {
        blocks.push_back(static_cast<char *>(jeff_malloc(100 + i % 60 * 130)));
        blocks.back()[0] = 1;
    }
    for (size_t i = 0; i < blocks.size(); i++)
        if (i % 1000 != 0)
            jeff_free(blocks[i]);
    jeff_malloc_trim(0);
    EXPECT_LT(read_mappings().count, before + 100);
    for (size_t i = 0; i < blocks.size(); i += 1000)
        jeff_free(blocks[i]);
}

// No more huge blocks than this get huge pages: past it the others do without.
TEST(Mappings, HugePagesHaveABound) {
    if (JF_TEST_SANITIZED)
        GTEST_SKIP() << "a sanitizer has mappings of its own";
    jeff_free(hide(jeff_malloc(1)));
    std::vector<void *> blocks;
    for (size_t i = 0; i < 20000; i++) {
        blocks.push_back(jeff_malloc(4 * mib));
        ASSERT_NE(blocks.back(), nullptr) << i;
    }
    EXPECT_LT(read_mappings().count, mappings_most / 2);
    for (void *block : blocks)
        jeff_free(block);
    EXPECT_EQ(jf_malloc.huge_allowed, 0u);
}

} // namespace
