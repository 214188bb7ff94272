// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "dataplane/base/random.h"
#include "dataplane/config/yaml.h"

namespace weft {
namespace {

TEST(DurationTest, BadTextIsRefused) {
  for (absl::string_view text : {"", "5", "ms", "-1s", "+1s", "1 s", " 1s", "1s ", ".5s", "1.s", "1.5.5s",
                                 "1e3s", "0.5ns", "1S", "1sec", "9999999999999999999s", "9223372037s"}) {
    EXPECT_FALSE(ParseDurationNs(text).ok()) << text;
  }
}

TEST(DurationTest, EachUnitScales) {
  EXPECT_EQ(*ParseDurationNs("7ns"), 7u);
  EXPECT_EQ(*ParseDurationNs("7us"), 7'000u);
  EXPECT_EQ(*ParseDurationNs("250ms"), 250'000'000u);
  EXPECT_EQ(*ParseDurationNs("1.5s"), 1'500'000'000u);
  EXPECT_EQ(*ParseDurationNs("2m"), 120'000'000'000u);
  EXPECT_EQ(*ParseDurationNs("1h"), 3'600'000'000'000u);
  EXPECT_EQ(*ParseDurationNs("0s"), 0u);
}

TEST(SizeTest, BadTextIsRefused) {
  for (absl::string_view text :
       {"", "KiB", "1KB", "1K", "1k", "1 KiB", "-1", "0.3KiB", "1.5", "99999999999GiB"}) {
    EXPECT_FALSE(ParseBytes(text).ok()) << text;
  }
}

TEST(SizeTest, EachUnitScales) {
  EXPECT_EQ(*ParseBytes("4096"), 4096u);
  EXPECT_EQ(*ParseBytes("64KiB"), 65'536u);
  EXPECT_EQ(*ParseBytes("1.5MiB"), 1'572'864u);
  EXPECT_EQ(*ParseBytes("2GiB"), uint64_t{2} << 30);
}

TEST(UnitsTest, WhatIsFormattedParsesBack) {
  Random random(1);
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t value = random.Next() >> (1 + random.Below(60));
    const absl::StatusOr<uint64_t> ns = ParseDurationNs(FormatDurationNs(value));
    if (value < 1'000'000'000'000'000'000) {  // Longer texts than 18 digits are refused by design.
      ASSERT_TRUE(ns.ok()) << value;
      EXPECT_EQ(*ns, value);
      EXPECT_EQ(*ParseBytes(FormatBytes(value)), value);
    }
  }
}

}  // namespace
}  // namespace weft
