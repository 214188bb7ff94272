// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/text.h"

#include <gtest/gtest.h>

#include <string>

namespace weft {
namespace {

TEST(Utf8PrefixTest, NeverEndsWithinACharacter) {
  EXPECT_EQ(Utf8Prefix("a\xc3\xa9z", 2), "a");
  EXPECT_EQ(Utf8Prefix("a\xc3\xa9z", 3), "a\xc3\xa9");
  EXPECT_EQ(Utf8Prefix("\xe2\x82\xac\xe2\x82\xac", 5), "\xe2\x82\xac");
  EXPECT_EQ(Utf8Prefix("\xf0\x9f\xa7\xb5", 3), "");
}

TEST(Utf8PrefixTest, ShortTextStays) {
  EXPECT_EQ(Utf8Prefix("", 0), "");
  EXPECT_EQ(Utf8Prefix("caf\xc3\xa9", 5), "caf\xc3\xa9");
}

TEST(ControlBytesTest, KnowsThemInOneByteAndInTwo) {
  for (const char* text : {"\x01", "\x1b[", "\n", "\x7f"}) EXPECT_EQ(ControlBytes(text), 1u);
  EXPECT_EQ(ControlBytes("\xc2\x80"), 2u);
  EXPECT_EQ(ControlBytes("\xc2\x9f."), 2u);
  for (const char* text : {"", " ", "a\n", "\xc2\xa0", "\xc2", "\xc3\x9b", "\x9b"})
    EXPECT_EQ(ControlBytes(text), 0u);
}

TEST(ControlsEscapedTest, OnlyThoseThatJsonLeaves) {
  EXPECT_EQ(ControlsEscaped("{\n\"\x7f\xc2\x80\xc2\x9f\xc2\xa0\xc3\x9b\"}"),
            "{\n\"\\u007f\\u0080\\u009f\xc2\xa0\xc3\x9b\"}");
}

TEST(Utf8OfTest, GoodTextStays) {
  for (const char* text : {"", "caf\xc3\xa9", "\xe2\x82\xac", "\xed\x9f\xbf", "\xef\xbf\xbf",
                           "\xf0\x9f\xa7\xb5", "\xf4\x8f\xbf\xbf"})
    EXPECT_EQ(Utf8Of(text), text);
}

TEST(Utf8OfTest, WhatIsNoneBecomesQuestionMarks) {
  EXPECT_EQ(Utf8Of("caf\xe9.yaml"), "caf?.yaml");
  EXPECT_EQ(Utf8Of("\xff\x80"), "??");
  EXPECT_EQ(Utf8Of("a\xe2\x82"), "a??");                                // Cut off
  EXPECT_EQ(Utf8Of("\xc0\xaf \xe0\x80\xaf"), "?? ???");                 // Longer than it need be
  EXPECT_EQ(Utf8Of("\xed\xa0\x80"), "???");                             // Half of a pair
  EXPECT_EQ(Utf8Of("\xf4\x90\x80\x80 \xf5\x80\x80\x80"), "???? ????");  // Beyond the last one
}

}  // namespace
}  // namespace weft
