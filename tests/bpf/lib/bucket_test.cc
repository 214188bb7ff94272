// SPDX-License-Identifier: Apache-2.0
#include "bpf/lib/bucket.h"

#include <gtest/gtest.h>

namespace weft::test {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kStart = 1'000'000 * kMs;

weft_steer_key Key(uint64_t packets_per_second, uint64_t burst_packets) {
  weft_steer_key key{};
  key.packets_per_second = packets_per_second;
  key.burst_packets = burst_packets;
  key.full_ns =
      packets_per_second == 0 ? ~uint64_t{0} : burst_packets * WEFT_NS_PER_SECOND / packets_per_second;
  return key;
}

// Packets taken of `offered` at `now_ns`; `looks` counts reads of the clock.
uint64_t Offer(weft_steer_key* key, uint64_t now_ns, uint64_t offered, uint64_t* looks) {
  uint64_t taken = 0;
  for (uint64_t i = 0; i < offered; ++i) {
    if (weft_bucket_take(key)) {
      ++taken;
      continue;
    }
    ++*looks;
    if (weft_bucket_refill(key, now_ns) && weft_bucket_take(key)) ++taken;
  }
  return taken;
}

TEST(BucketTest, AnEmptyBucketGivesNothing) {
  weft_steer_key key = Key(1000, 64);
  EXPECT_FALSE(weft_bucket_take(&key));
  EXPECT_EQ(key.taken, 0u);
}

TEST(BucketTest, ARateOfZeroEarnsNothingEver) {
  weft_steer_key key = Key(0, 64);
  EXPECT_FALSE(weft_bucket_refill(&key, kStart));
  EXPECT_FALSE(weft_bucket_refill(&key, kStart + 3'600'000 * kMs));
}

TEST(BucketTest, AClockThatStandsOrGoesBackEarnsNothing) {
  weft_steer_key key = Key(1'000'000, 10'000);
  ASSERT_TRUE(weft_bucket_refill(&key, kStart));
  key.taken = key.limit;
  EXPECT_FALSE(weft_bucket_refill(&key, kStart));
  EXPECT_FALSE(weft_bucket_refill(&key, kStart - 4 * kMs));
  EXPECT_EQ(key.limit, 10'000u);
}

TEST(BucketTest, TheFirstLookFillsItWhole) {
  weft_steer_key key = Key(1'000'000, 10'000);
  uint64_t looks = 0;
  EXPECT_EQ(Offer(&key, kStart, 20'000, &looks), 10'000u);
}

TEST(BucketTest, TheClockIsReadOncePerRefillWhileItGivesTokens) {
  weft_steer_key key = Key(1'000'000, 10'000);
  uint64_t looks = 0;
  EXPECT_EQ(Offer(&key, kStart, 10'000, &looks), 10'000u);
  EXPECT_EQ(looks, 1u);
}

TEST(BucketTest, OverTimeItGivesTheRateAndNoMore) {
  for (const uint64_t tick_ns : {1 * kMs, 4 * kMs, 10 * kMs}) {
    for (const uint64_t rate : {uint64_t{100}, uint64_t{1'234}, uint64_t{99'991}, uint64_t{14'880'952}}) {
      const uint64_t burst = std::max<uint64_t>(64, rate / 100);
      weft_steer_key key = Key(rate, burst);
      uint64_t looks = 0, taken = 0;
      const uint64_t ticks = 2'000 * kMs / tick_ns;
      for (uint64_t i = 0; i < ticks; ++i) {
        taken += Offer(&key, kStart + i * tick_ns, 2 * rate * tick_ns / 1'000'000'000 + 2, &looks);
      }
      SCOPED_TRACE(testing::Message() << "rate " << rate << ", tick " << tick_ns);
      // Two seconds' worth, the first burst, and rounding.
      EXPECT_LE(taken, 2 * rate + burst + 2);
      EXPECT_GE(taken, 2 * rate * (ticks - 1) / ticks - 2);
    }
  }
}

TEST(BucketTest, WhatIsLessThanATokenIsNotLost) {
  weft_steer_key key = Key(100, 64);  // A token every 10 ms.
  uint64_t looks = 0;
  Offer(&key, kStart, 64, &looks);
  uint64_t taken = 0;
  for (uint64_t ms = 4; ms <= 1000; ms += 4) taken += Offer(&key, kStart + ms * kMs, 5, &looks);
  EXPECT_EQ(taken, 100u);
}

TEST(BucketTest, AfterALongPauseItHoldsOneBurstAndWhatWasLeft) {
  weft_steer_key key = Key(1'000'000, 10'000);
  uint64_t looks = 0;
  EXPECT_EQ(Offer(&key, kStart, 3'000, &looks), 3'000u);
  EXPECT_EQ(Offer(&key, kStart + 3'600'000 * kMs, 100'000, &looks), 17'000u);
}

TEST(BucketTest, ASlowKeyEarnsNoMoreThanABurstInAnHour) {
  weft_steer_key key = Key(1, 64);
  uint64_t looks = 0;
  EXPECT_EQ(Offer(&key, kStart + 3'600'000 * kMs, 1'000, &looks), 64u);
}

TEST(BucketTest, TheHighestRateDoesNotOverflow) {
  weft_steer_key key = Key(10'000'000'000, 100'000'000);
  ASSERT_TRUE(weft_bucket_refill(&key, kStart));
  EXPECT_EQ(key.limit, 100'000'000u);
  key.taken = key.limit;
  ASSERT_TRUE(weft_bucket_refill(&key, kStart + 4 * kMs));
  EXPECT_EQ(key.limit - key.taken, 40'000'000u);
}

}  // namespace
}  // namespace weft::test
