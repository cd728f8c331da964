// Lines of text put together without stdio.
#include <gtest/gtest.h>

#include <string>

extern "C" {
#include "base/line.h"
}

namespace {

class Line : public testing::Test {
  protected:
    Line() {
        jf_line_start(&line_);
    }
    std::string text() const {
        return line_.text;
    }

    jf_line line_;
};

TEST_F(Line, StartsEmpty) {
    EXPECT_EQ("", text());
}

TEST_F(Line, JoinsTextsAndNumbers) {
    jf_line_add(&line_, "a ");
    jf_line_add_number(&line_, 0);
    jf_line_add(&line_, nullptr);
    jf_line_add(&line_, " b ");
    jf_line_add_number(&line_, UINT64_MAX);
    EXPECT_EQ("a 0 b 18446744073709551615", text());
}

TEST_F(Line, WritesAllDigitsOfAnAddress) {
    jf_line_add_address(&line_, 0x12abcdef);
    EXPECT_EQ(std::string("0x") + std::string(sizeof(void *) * 2 - 8, '0') + "12abcdef", text());
}

TEST_F(Line, TakesNoMoreThanThePartAskedFor) {
    jf_line_add_part(&line_, "abcdef", 4);
    jf_line_add_part(&line_, "xy", 4);
    EXPECT_EQ("abcdxy", text());
}

TEST_F(Line, CutsOffWhatDoesNotFit) {
    std::string longer(JF_LINE_MAX + 50, 'x');
    jf_line_add(&line_, longer.c_str());
    jf_line_add_number(&line_, 7);
    EXPECT_EQ(std::string(JF_LINE_MAX - 1, 'x'), text());
}

} // namespace
