// SPDX-License-Identifier: Apache-2.0
// Budgets, percentiles and ejection, each alone.
#include <gtest/gtest.h>

#include <algorithm>

#include "dataplane/base/random.h"
#include "dataplane/route/adaptive_route.h"

namespace weft {
namespace {

std::vector<Target> Targets(uint32_t count) {
  std::vector<Target> targets;
  for (uint32_t i = 0; i < count; ++i)
    targets.push_back({.link = i, .path = i, .weight = 100, .caller_index = 1});
  return targets;
}

TEST(RatioBudgetTest, ExtrasNeverExceedTheirPartOfTheCalls) {
  for (const uint32_t percent : {1u, 5u, 20u, 100u}) {
    RatioBudget budget(percent);
    uint64_t extras = 0;
    for (uint64_t call = 1; call <= 10'000; ++call) {
      budget.Earn();
      while (budget.TrySpend()) ++extras;
      ASSERT_LE(extras * 100, call * percent);
    }
    EXPECT_EQ(extras, 100 * percent);
  }
}

TEST(RatioBudgetTest, AQuietTimeSavesABoundedNumber) {
  RatioBudget budget(50);
  for (int i = 0; i < 1'000'000; ++i) budget.Earn();
  int extras = 0;
  while (budget.TrySpend()) ++extras;
  EXPECT_EQ(extras, 100);
}

TEST(LatencyQuantileTest, ItIsAtMostNinePercentTooHighAndNeverTooLow) {
  for (const uint32_t percent : {50u, 90u, 95u, 99u}) {
    Random random(percent);
    LatencyQuantile quantile(percent);
    for (int i = 0; i < 4'000; ++i) quantile.Add(1'000'000 + random.Below(1'000'000));
    const double exact = 1'000'000 + 10'000.0 * percent;
    EXPECT_GE(static_cast<double>(quantile.value_ns()), exact * 0.97) << percent;  // Of a sample.
    EXPECT_LE(static_cast<double>(quantile.value_ns()), exact * 1.13) << percent;
  }
}

TEST(LatencyQuantileTest, ItKnowsNothingAtFirstAndFollowsAChange) {
  LatencyQuantile quantile(95);
  for (uint32_t i = 0; i + 1 < LatencyQuantile::kSamplesMin; ++i) quantile.Add(50'000);
  EXPECT_EQ(quantile.value_ns(), 0u);
  for (int i = 0; i < 5'000; ++i) quantile.Add(50'000);
  EXPECT_GE(quantile.value_ns(), 50'000u);
  EXPECT_LE(quantile.value_ns(), 57'000u);
  for (int i = 0; i < 12'000; ++i) quantile.Add(5'000'000);
  EXPECT_GE(quantile.value_ns(), 5'000'000u);
  for (int i = 0; i < 12'000; ++i) quantile.Add(0);
  for (int i = 0; i < 12'000; ++i) quantile.Add(~uint64_t{0} >> 1);
  EXPECT_GT(quantile.value_ns(), 60 * kNsPerSecond);
}

TEST(OutlierTrackerTest, FailuresInARowEjectAndAProbeBringsBack) {
  OutlierTracker tracker(5, kNsPerSecond);
  tracker.SetTargets(Targets(3));
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(tracker.OnResult(1, true, 0));
  EXPECT_FALSE(tracker.OnResult(1, false, 0));  // In a row, not in all.
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(tracker.OnResult(1, true, 0));
  EXPECT_TRUE(tracker.OnResult(1, true, 0));
  EXPECT_EQ(tracker.Present().size(), 2u);
  EXPECT_FALSE(tracker.OnResult(1, false, 0));  // Of a call from before.
  EXPECT_EQ(tracker.due_ns(), kNsPerSecond);
  EXPECT_FALSE(tracker.Refresh(kNsPerSecond - 1));
  EXPECT_TRUE(tracker.Refresh(kNsPerSecond));
  ASSERT_EQ(tracker.Present().size(), 3u);
  EXPECT_EQ(tracker.Present()[1].weight, 10u);
  EXPECT_TRUE(tracker.OnResult(1, true, kNsPerSecond));  // The probe fails: away for twice as long.
  EXPECT_EQ(tracker.due_ns(), 3 * kNsPerSecond);
  EXPECT_TRUE(tracker.Refresh(3 * kNsPerSecond));
  EXPECT_TRUE(tracker.OnResult(1, false, 3 * kNsPerSecond));
  EXPECT_EQ(tracker.Present()[1].weight, 100u);
}

TEST(OutlierTrackerTest, AProbedTargetThatIsNearerGetsItsTenthAmongThoseThatServe) {
  OutlierTracker tracker(1, kNsPerSecond);
  std::vector<Target> targets = Targets(3);
  targets[0].distance = kSameNode;
  targets[1].distance = kSameZone;
  targets[2].distance = kElsewhere;
  tracker.SetTargets(targets);
  EXPECT_TRUE(tracker.OnResult(0, true, 0));
  EXPECT_TRUE(tracker.Refresh(kNsPerSecond));
  const TargetSet probing(tracker.Present());
  ASSERT_EQ(probing.near().size(), 2u);
  EXPECT_EQ(probing.near()[0].distance, kSameZone);
  EXPECT_TRUE(tracker.OnResult(0, false, kNsPerSecond));
  const TargetSet good(tracker.Present());
  ASSERT_EQ(good.near().size(), 1u);
  EXPECT_EQ(good.near()[0].link, 0u);
}

TEST(OutlierTrackerTest, NeverMoreThanHalfAreAwayWhateverHappens) {
  Random random(3);
  for (uint32_t count = 0; count <= 7; ++count) {
    OutlierTracker tracker(3, kNsPerMs);
    tracker.SetTargets(Targets(count));
    uint32_t now_count = count;
    uint32_t most = 0;
    for (uint64_t step = 0; step < 20'000; ++step) {
      const uint64_t now_ns = step * 10 * kNsPerUs;
      (void)tracker.OnResult(static_cast<uint32_t>(random.Below(8)), random.Below(4) != 0, now_ns);
      (void)tracker.Refresh(now_ns);
      if (step % 500 == 0) {
        now_count = count == 0 ? 0 : 1 + static_cast<uint32_t>(random.Below(count));
        tracker.SetTargets(Targets(now_count));
      }
      ASSERT_LE(tracker.ejected() * 2, now_count);
      ASSERT_EQ(tracker.Present().size() + tracker.ejected(), now_count);
      most = std::max(most, tracker.ejected());
    }
    EXPECT_EQ(most, count / 2);
  }
}

TEST(TargetSetTest, FarTargetsServeOnlyWhereNoNearOneIsLeft) {
  Random random(1);
  const auto idle = [](uint32_t) { return 0u; };
  TargetSet set({{.link = 0, .path = 0, .weight = 100, .distance = kElsewhere},
                 {.link = 1, .path = 1, .weight = 1, .distance = kSameNode},
                 {.link = 2, .path = 2, .weight = 1, .distance = kSameNode},
                 {.link = 3, .path = 3, .weight = 100, .distance = kSameZone}});
  for (int i = 0; i < 100; ++i) {
    const uint32_t link = set.Choose(random, idle)->link;
    EXPECT_TRUE(link == 1 || link == 2);
    EXPECT_EQ(set.Choose(random, idle, 1)->link, 2u);
  }
  set.RemoveLink(1);
  EXPECT_EQ(set.Choose(random, idle)->link, 2u);
  EXPECT_EQ(set.Choose(random, idle, 2)->link, 3u);  // A retry goes farther rather than back.
  set.RemoveLink(2);
  EXPECT_EQ(set.Choose(random, idle)->link, 3u);
  set.RemoveLink(3);
  EXPECT_EQ(set.Choose(random, idle, 0)->link, 0u);
}

}  // namespace
}  // namespace weft
