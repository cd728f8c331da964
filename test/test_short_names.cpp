// The original spelling.
#include <gtest/gtest.h>

#include <jeff/short_names.h>

#include <cstring>

namespace {

TEST(ShortNames, AreTheSameCalls) {
    handle_t block = rmmalloc(6);
    char *text = static_cast<char *>(::lock(block));
    ASSERT_NE(nullptr, text);
    std::memcpy(text, "moves", 6);
    EXPECT_EQ(block, rmhandle_of(text));
    ::unlock(block);
    EXPECT_EQ(nullptr, rmhandle_of(text));
    const void *weak = weaklock(block);
    EXPECT_EQ(1, rmweak_valid(block, weak));
    EXPECT_EQ(RM_COMPACT_DONE, compact(0));
    EXPECT_STREQ("moves", static_cast<const char *>(::lock(block)));
    ::unlock(block);
    rmfree(block);
    rmdestroy();
}

TEST(ShortNames, CompactTakesMilliseconds) {
    EXPECT_EQ(RM_COMPACT_DONE, compact(UINT32_MAX));
}

} // namespace
