// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/clock.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace weft {
namespace {

TEST(TickClockTest, FollowsTheMonotonicClock) {
  TickClock clock;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t before = NowNs();
    const uint64_t ticked = clock.NowNs();
    const uint64_t after = NowNs();
    // 20 us of slack: 6 ppm over the first 10 ms plus a calibration on a noisy machine.
    EXPECT_GE(ticked + 20 * kNsPerUs, before);
    EXPECT_LE(ticked, after + 20 * kNsPerUs);
  }
}

// As an idle thread does, which sleeps for hours; the system's clock is steered meanwhile.
TEST(TickClockTest, IsRightAtTheFirstReadAfterALongSleep) {
  TickClock clock(TicksPerSecond() * 1.2);
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  const uint64_t before = NowNs();
  const uint64_t ticked = clock.NowNs();
  EXPECT_GE(ticked + 20 * kNsPerUs, before);
  EXPECT_LE(ticked, NowNs() + 20 * kNsPerUs);
}

}  // namespace
}  // namespace weft
