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

}  // namespace
}  // namespace weft
