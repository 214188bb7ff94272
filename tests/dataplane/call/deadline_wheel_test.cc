// SPDX-License-Identifier: Apache-2.0
#include "dataplane/call/deadline_wheel.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"

namespace weft {
namespace {

constexpr uint64_t kTickNs = uint64_t{1} << DeadlineWheel::kTickShift;

std::vector<uint32_t> Fired(DeadlineWheel& wheel, uint64_t now_ns) {
  std::vector<uint32_t> fired;
  wheel.Advance(now_ns, [&](uint32_t index) { fired.push_back(index); });
  return fired;
}

TEST(DeadlineWheelTest, FiresNeitherEarlyNorMoreThanATickLate) {
  DeadlineWheel wheel(4);
  const uint64_t start_ns = 1000 * kNsPerSecond;
  Fired(wheel, start_ns);
  wheel.Add(2, start_ns + 10 * kNsPerMs);
  EXPECT_TRUE(Fired(wheel, start_ns + 10 * kNsPerMs - 1).empty());
  EXPECT_EQ(Fired(wheel, start_ns + 10 * kNsPerMs + kTickNs), std::vector<uint32_t>{2});
  EXPECT_TRUE(Fired(wheel, start_ns + 100 * kNsPerSecond).empty());
}

TEST(DeadlineWheelTest, PassedDeadlineFiresAtTheNextTick) {
  DeadlineWheel wheel(4);
  Fired(wheel, kNsPerSecond);
  wheel.Add(0, 1);
  EXPECT_EQ(Fired(wheel, kNsPerSecond + kTickNs), std::vector<uint32_t>{0});
}

TEST(DeadlineWheelTest, RemovedNeverFires) {
  DeadlineWheel wheel(4);
  wheel.Add(1, kNsPerSecond);
  wheel.Remove(1);
  wheel.Remove(1);
  EXPECT_EQ(wheel.size(), 0u);
  EXPECT_TRUE(Fired(wheel, 10 * kNsPerSecond).empty());
  EXPECT_EQ(wheel.NextNs(), DeadlineWheel::kNever);
}

TEST(DeadlineWheelTest, FarDeadlineSurvivesTurnsOfTheWheel) {
  DeadlineWheel wheel(2);
  const uint64_t start_ns = 5 * kNsPerSecond;
  Fired(wheel, start_ns);
  wheel.Add(0, start_ns + 3600 * kNsPerSecond);
  for (uint64_t second = 1; second < 3600; second += 7) {
    ASSERT_TRUE(Fired(wheel, start_ns + second * kNsPerSecond).empty()) << second;
  }
  EXPECT_EQ(Fired(wheel, start_ns + 3601 * kNsPerSecond).size(), 1u);
}

TEST(DeadlineWheelTest, CallbackMayAddAndRemove) {
  DeadlineWheel wheel(4);
  wheel.Add(0, kTickNs);
  wheel.Add(1, kTickNs);
  std::vector<uint32_t> fired;
  wheel.Advance(10 * kTickNs, [&](uint32_t index) {
    fired.push_back(index);
    wheel.Remove(1 - index);
    wheel.Add(3, 100 * kTickNs);
  });
  EXPECT_EQ(fired.size(), 1u);
  EXPECT_EQ(wheel.size(), 1u);
  EXPECT_TRUE(wheel.Contains(3));
}

// Against a model with random deadlines, near and far, random steps of time and random removals.
TEST(DeadlineWheelTest, BehavesLikeASortedListUnderRandomUse) {
  constexpr uint32_t kIndices = 300;
  DeadlineWheel wheel(kIndices);
  Random random(9);
  std::map<uint32_t, uint64_t> model;
  uint64_t now_ns = 123 * kNsPerSecond;
  Fired(wheel, now_ns);
  for (int i = 0; i < 20'000; ++i) {
    const auto index = static_cast<uint32_t>(random.Below(kIndices));
    if (model.contains(index)) {
      if (random.Below(3) == 0) {
        wheel.Remove(index);
        model.erase(index);
      }
    } else {
      const uint64_t span_ns = random.Below(10) == 0 ? 30 * kNsPerSecond : 200 * kNsPerMs;
      model[index] = now_ns + random.Below(span_ns);
      wheel.Add(index, model[index]);
    }
    if (!model.empty()) {
      uint64_t first_ns = ~uint64_t{0};
      for (const auto& [at, deadline_ns] : model) first_ns = std::min(first_ns, deadline_ns);
      ASSERT_LE(wheel.NextNs(), std::max(first_ns, now_ns) + kTickNs);
    }
    now_ns += random.Below(random.Below(50) == 0 ? 6 * kNsPerSecond : 3 * kNsPerMs);
    wheel.Advance(now_ns, [&](uint32_t fired) {
      ASSERT_TRUE(model.contains(fired));
      ASSERT_LE(model[fired], now_ns);
      model.erase(fired);
    });
    for (const auto& [at, deadline_ns] : model) ASSERT_GT(deadline_ns + kTickNs, now_ns);
    ASSERT_EQ(wheel.size(), model.size());
  }
}

}  // namespace
}  // namespace weft
