// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/core_sharing.h"

#include <gtest/gtest.h>

#include "dataplane/base/clock.h"

namespace weft {
namespace {

constexpr uint64_t kSliceNs = 3 * kNsPerMs;

TEST(CoreSharingTest, YieldsAtEachPollUntilTheCoreIsItsOwnAgain) {
  CoreSharing sharing;
  EXPECT_FALSE(sharing.yields_each_poll());
  const uint64_t now_ns = NowNs();
  EXPECT_EQ(sharing.Yielded(now_ns, now_ns + 500), 0u);
  EXPECT_FALSE(sharing.yields_each_poll());
  EXPECT_EQ(sharing.Yielded(now_ns, now_ns + 20 * kNsPerUs), 20 * kNsPerUs);
  EXPECT_TRUE(sharing.yields_each_poll());
  // What gives the core back within microseconds polls as well: to poll on costs little.
  EXPECT_TRUE(sharing.MayPoll());
  for (uint32_t i = 0; i < CoreSharing::kQuickYields; ++i) {
    EXPECT_TRUE(sharing.yields_each_poll());
    EXPECT_EQ(sharing.Yielded(now_ns, now_ns + 500), 0u);
  }
  EXPECT_FALSE(sharing.yields_each_poll());
}

TEST(CoreSharingTest, DoesNotPollForAWhileWhereAnotherThreadComputes) {
  CoreSharing sharing;
  uint64_t now_ns = NowNs() + kNsPerSecond;  // A yield that ends in a second, so that the pause lasts.
  EXPECT_EQ(sharing.Yielded(now_ns - kSliceNs, now_ns), kSliceNs);
  EXPECT_FALSE(sharing.MayPoll());
}

TEST(CoreSharingTest, PausesForTwiceAsLongEachTimeThatItMeetsOneAgain) {
  CoreSharing sharing;
  uint64_t now_ns = NowNs() - 1000 * kNsPerSecond;
  uint64_t pause_ns = CoreSharing::kPauseNsMin;
  for (int round = 0; round < 12; ++round) {
    now_ns += kSliceNs;
    sharing.Yielded(now_ns - kSliceNs, now_ns);
    EXPECT_EQ(sharing.paused_until_ns(), now_ns + pause_ns) << round;
    now_ns += pause_ns;
    pause_ns = std::min(2 * pause_ns, CoreSharing::kPauseNsMax);
  }
  EXPECT_TRUE(sharing.MayPoll());  // All of that is long over.
}

// Whether the same one is met again shows by what lies between, and not by time: a thread that sleeps does
// not meet it.
TEST(CoreSharingTest, PausesBrieflyForOneThatItMeetsAfterPollingInPeace) {
  CoreSharing sharing;
  uint64_t now_ns = NowNs();
  for (int round = 0; round < 5; ++round) {
    now_ns += kSliceNs;
    sharing.Yielded(now_ns - kSliceNs, now_ns);
    EXPECT_EQ(sharing.paused_until_ns(), now_ns + CoreSharing::kPauseNsMin) << round;
    for (uint32_t i = 0; i < CoreSharing::kCalmYields; ++i) {
      now_ns += i % 2 == 0 ? 300 : 20 * kNsPerUs;  // At times to another that polls.
      sharing.Yielded(now_ns - (i % 2 == 0 ? 300 : 20 * kNsPerUs), now_ns);
    }
  }
  // One yield less is not enough.
  now_ns += kSliceNs;
  sharing.Yielded(now_ns - kSliceNs, now_ns);
  for (uint32_t i = 0; i + 1 < CoreSharing::kCalmYields; ++i) sharing.Yielded(now_ns - 300, now_ns);
  now_ns += kSliceNs;
  sharing.Yielded(now_ns - kSliceNs, now_ns);
  EXPECT_EQ(sharing.paused_until_ns(), now_ns + 2 * CoreSharing::kPauseNsMin);
}

}  // namespace
}  // namespace weft
