// SPDX-License-Identifier: Apache-2.0
// Concurrency and rate limits with time that the test makes.
#include "dataplane/route/limits.h"

#include <gtest/gtest.h>

#include "dataplane/base/random.h"

namespace weft {
namespace {

TEST(ConcurrencyLimitTest, RefusesAboveItsMaximumAndAdmitsAfterALeave) {
  ConcurrencyLimit limit(2);
  EXPECT_TRUE(limit.TryEnter());
  EXPECT_TRUE(limit.TryEnter());
  EXPECT_FALSE(limit.TryEnter());
  EXPECT_EQ(limit.calls(), 2u);
  limit.Leave();
  EXPECT_TRUE(limit.TryEnter());
}

TEST(ConcurrencyLimitTest, LoweredMaximumLetsRunningCallsEnd) {
  ConcurrencyLimit limit(3);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(limit.TryEnter());
  limit.set_calls_max(1);
  limit.Leave();
  EXPECT_FALSE(limit.TryEnter());
  limit.Leave();
  limit.Leave();
  EXPECT_TRUE(limit.TryEnter());
}

TEST(ConcurrencyLimitDeathTest, LeaveWithoutEnterAborts) {
  ConcurrencyLimit limit(1);
  EXPECT_DEATH(limit.Leave(), "check failed");
}

TEST(CallRateTest, NoLimitTakesAll) {
  CallRate rate;
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(rate.TryTake(1));
}

TEST(CallRateTest, OneASecondMeansOneAtOnce) {
  CallRate rate(1);
  const uint64_t start_ns = 123 * kNsPerSecond;
  EXPECT_TRUE(rate.TryTake(start_ns));
  EXPECT_FALSE(rate.TryTake(start_ns));
  EXPECT_FALSE(rate.TryTake(start_ns + kNsPerSecond - 1));
  EXPECT_TRUE(rate.TryTake(start_ns + kNsPerSecond));
  EXPECT_FALSE(rate.TryTake(start_ns + kNsPerSecond));
}

// For any arrivals: within any window, no more pass than the rate and the bucket allow; and a caller that is
// always ready gets its full rate.
TEST(CallRateTest, FloodGetsItsRateAndOneBucket) {
  for (const uint32_t per_second : {1u, 3u, 10u, 999u, 10'000u, 1'000'000u, 40'000'000u}) {
    CallRate rate(per_second);
    Random random(per_second);
    uint64_t now_ns = 77 * kNsPerSecond;
    const uint64_t end_ns = now_ns + 2 * kNsPerSecond;
    const uint64_t step_ns = std::max<uint64_t>(1, kNsPerSecond / per_second / 4);
    uint64_t passed = 0;
    // A flood: several attempts per interval; bounded for the fast rates.
    for (int i = 0; i < 4'000'000 && now_ns < end_ns; ++i) {
      passed += rate.TryTake(now_ns);
      now_ns += random.Below(2 * step_ns);
    }
    const double seconds = static_cast<double>(now_ns - 77 * kNsPerSecond) / kNsPerSecond;
    const double bucket = std::max(1.0, per_second / 10.0);
    EXPECT_LE(static_cast<double>(passed), per_second * seconds * 1.005 + bucket + 1) << per_second;
    // A bucket of one call loses what passes between its refill and the next attempt: a quarter interval
    // here.
    const double share = bucket > 1 ? 0.95 : 0.75;
    EXPECT_GE(static_cast<double>(passed), per_second * seconds * share - 1) << per_second;
  }
}

TEST(CallRateTest, UnusedTimeFillsNoMoreThanTheBucket) {
  CallRate rate(100);  // A bucket of 10
  uint64_t now_ns = kNsPerSecond;
  rate.TryTake(now_ns);
  now_ns += 3600 * kNsPerSecond;
  int passed = 0;
  while (rate.TryTake(now_ns)) ++passed;
  EXPECT_EQ(passed, 10);
}

TEST(CallRateTest, TimeThatStepsBackRefillsNothing) {
  CallRate rate(1);
  EXPECT_TRUE(rate.TryTake(10 * kNsPerSecond));
  EXPECT_FALSE(rate.TryTake(5 * kNsPerSecond));
  EXPECT_FALSE(rate.TryTake(10 * kNsPerSecond));
}

}  // namespace
}  // namespace weft
