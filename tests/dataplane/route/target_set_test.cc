// SPDX-License-Identifier: Apache-2.0
// The distribution of TargetSet's choices, with a seeded source: shares by weight, avoidance of loaded hosts.
#include "dataplane/route/target_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

namespace weft {
namespace {

uint32_t NoLoad(uint32_t) { return 0; }

std::map<uint32_t, int> Draw(const TargetSet& set, int draws, uint64_t seed = 7) {
  Random random(seed);
  std::map<uint32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[set.Choose(random, NoLoad)->link];
  return counts;
}

TEST(TargetSetTest, EmptySetChoosesNothing) {
  TargetSet set;
  Random random(1);
  EXPECT_EQ(set.Choose(random, NoLoad), nullptr);
  EXPECT_EQ(TargetSet(std::vector<Target>{}).Choose(random, NoLoad), nullptr);
}

TEST(TargetSetTest, SingleTargetIsAlwaysChosenEvenIfAvoided) {
  TargetSet set({{.link = 3, .path = 3, .weight = 5, .caller_index = 9}});
  Random random(1);
  const Target* target = set.Choose(random, NoLoad, 3);
  ASSERT_NE(target, nullptr);
  EXPECT_EQ(target->link, 3u);
  EXPECT_EQ(target->caller_index, 9);
}

TEST(TargetSetTest, IdleSetSplitsByWeight) {
  constexpr int kDraws = 400'000;
  const std::vector<std::vector<uint32_t>> tables = {
      {1, 1}, {1, 3}, {100, 1}, {1, 1000}, {10, 20, 30, 40}, {1000, 1, 1, 1000, 500}, {7, 7, 7, 7, 7, 7, 7}};
  for (const std::vector<uint32_t>& weights : tables) {
    std::vector<Target> targets;
    double total = 0;
    for (uint32_t i = 0; i < weights.size(); ++i) {
      targets.push_back({.link = i, .path = i, .weight = weights[i]});
      total += weights[i];
    }
    std::map<uint32_t, int> counts = Draw(TargetSet(targets), kDraws);
    for (uint32_t i = 0; i < weights.size(); ++i) {
      const double share = weights[i] / total;
      // Five standard deviations of the binomial, and one draw of rounding.
      const double bound = 5 * std::sqrt(kDraws * share * (1 - share)) + 1;
      EXPECT_NEAR(counts[i], kDraws * share, bound) << "target " << i << " of weight " << weights[i];
    }
  }
}

TEST(TargetSetTest, WeightsOutOfRangeAreClamped) {
  TargetSet set({{.link = 0, .path = 0, .weight = 0}, {.link = 1, .path = 1, .weight = 5'000'000}});
  EXPECT_EQ(set.targets()[0].weight, 1u);
  EXPECT_EQ(set.targets()[1].weight, kWeightMax);
}

// A closed loop of many calls in flight: every call goes where Choose says and the oldest one ends. With
// equal weights the loads must stay close together; blind random choice would spread as the square root.
TEST(TargetSetTest, OutstandingCallsStayBalanced) {
  constexpr int kTargets = 8;
  std::vector<Target> targets;
  for (uint32_t i = 0; i < kTargets; ++i) targets.push_back({.link = i, .path = i, .weight = 100});
  TargetSet set(targets);
  Random random(42);
  std::vector<uint32_t> load(kTargets);
  uint32_t highest = 0;
  for (int i = 0; i < 100'000; ++i) {
    ++load[set.Choose(random, [&](uint32_t link) { return load[link]; })->link];
    if (i >= 800) {  // 100 a target are under way; a random one of them ends.
      for (;;) {
        const uint32_t ends = static_cast<uint32_t>(random.Below(kTargets));
        if (load[ends] == 0) continue;
        --load[ends];
        break;
      }
      highest = std::max(highest, *std::max_element(load.begin(), load.end()));
    }
  }
  EXPECT_LT(highest, 100u + 20u);
}

TEST(TargetSetTest, LoadIsComparedPerWeight) {
  // Link 0 can carry ten times as much: with 5 outstanding it is still the emptier of the two.
  TargetSet set({{.link = 0, .path = 0, .weight = 1000}, {.link = 1, .path = 1, .weight = 100}});
  Random random(5);
  auto load = [](uint32_t link) { return link == 0 ? 5u : 1u; };
  std::map<uint32_t, int> counts;
  for (int i = 0; i < 10'000; ++i) ++counts[set.Choose(random, load)->link];
  // Link 1 is taken only where both draws hit it: (1/11)^2.
  EXPECT_NEAR(counts[1], 10'000 / 121.0, 60);
}

TEST(TargetSetTest, StuckTargetGetsOnlyWhatDrawsItTwice) {
  TargetSet set({{.link = 0, .path = 0, .weight = 1},
                 {.link = 1, .path = 1, .weight = 1},
                 {.link = 2, .path = 2, .weight = 1}});
  Random random(5);
  auto load = [](uint32_t link) { return link == 1 ? 1000u : 0u; };
  int stuck = 0;
  for (int i = 0; i < 90'000; ++i) stuck += set.Choose(random, load)->link == 1;
  EXPECT_NEAR(stuck, 10'000, 600);
}

TEST(TargetSetTest, AvoidedLinkIsChosenOnlyWithoutAlternative) {
  TargetSet set({{.link = 0, .path = 0, .weight = 1000}, {.link = 1, .path = 1, .weight = 1}});
  Random random(5);
  for (int i = 0; i < 10'000; ++i) EXPECT_EQ(set.Choose(random, NoLoad, 0)->link, 1u);
  TargetSet same({{.link = 4, .path = 4, .weight = 1}, {.link = 4, .path = 4, .weight = 1}});
  EXPECT_EQ(same.Choose(random, NoLoad, 4)->link, 4u);
}

TEST(TargetSetTest, RemovedLinkIsNeverChosenAgain) {
  TargetSet set({{.link = 0, .path = 0, .weight = 1},
                 {.link = 1, .path = 1, .weight = 9},
                 {.link = 2, .path = 2, .weight = 1}});
  set.RemoveLink(1);
  std::map<uint32_t, int> counts = Draw(set, 100'000);
  EXPECT_EQ(counts[1], 0);
  EXPECT_NEAR(counts[0], 50'000, 1'000);
  set.RemoveLink(0);
  set.RemoveLink(2);
  EXPECT_TRUE(set.empty());
}

}  // namespace
}  // namespace weft
