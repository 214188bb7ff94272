// SPDX-License-Identifier: Apache-2.0
// What leaves first, how much of it is under way, and what of it is sent again.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/dataplane/transport/core_fixture.h"

namespace weft::transport {
namespace {

class FlowTest : public TwoCores {
 protected:
  // Runs until both of two one-way messages have arrived, and returns their sizes in that order.
  std::vector<uint32_t> SizesAsTheyArrive() {
    std::vector<uint32_t> sizes;
    for (int round = 0; round < 20'000 && sizes.size() < 2; ++round) {
      Run(1);
      for (const Event& event : Events(*b_)) {
        sizes.push_back(event.payload_bytes);
        b_->Release(event);
      }
    }
    return sizes;
  }
};

// The sender could send both: it is the receiver that asks for the shorter one first.
TEST_F(FlowTest, GrantsGoToTheMessageWithTheLeastToCome) {
  Config receiver = SmallConfig();
  receiver.granted_bytes_max = 20'000;
  Start(SmallConfig(), receiver);
  ASSERT_EQ(Call(2'000'000, 1, true), SendResult::kOk);
  Run(20);
  ASSERT_GT(b_->granted_bytes(), 0u);
  ASSERT_EQ(Call(200'000, 2, true), SendResult::kOk);
  EXPECT_EQ(SizesAsTheyArrive(), (std::vector<uint32_t>{200'000, 2'000'000}));
}

// None of them needs a grant.
TEST_F(FlowTest, TheMessageWithTheLeastLeftIsSentFirst) {
  Config config = SmallConfig();
  config.coalesce = false;
  Start(config);
  ASSERT_EQ(Call(39'000, 1, true), SendResult::kOk);
  ASSERT_EQ(Call(3'000, 2, true), SendResult::kOk);
  EXPECT_EQ(SizesAsTheyArrive(), (std::vector<uint32_t>{3'000, 39'000}));
}

TEST_F(FlowTest, WhereThePathGrowsSlowLessIsUnderWay) {
  Start(SmallConfig());
  uint64_t bytes = 0;
  eat_ = [&](uint64_t path, const std::string& wire) {
    if (path == kPathToB) bytes += wire.size();
    return false;
  };
  ASSERT_EQ(Call(1'000'000, 1, true), SendResult::kOk);
  Run();
  ASSERT_EQ(Call(16'000'000, 2, true), SendResult::kOk);
  // A round trip of 10 us has become one of 1 ms.
  std::vector<uint64_t> sent;
  for (int round = 0; round < 200; ++round) {
    bytes = 0;
    Run(1, 500'000);
    sent.push_back(bytes);
  }
  const uint64_t at_first = *std::max_element(sent.begin(), sent.begin() + 10);
  EXPECT_GT(at_first, 40'000u);
  EXPECT_LT(*std::max_element(sent.end() - 50, sent.end()), at_first / 7);
}

// As one does that leads through other networks: that is no queue of these two.
TEST(DelayBrakeTest, ALongWayThatVariesIsNotSlowedDown) {
  DelayBrake brake({});
  const uint32_t at_first = brake.window_bytes();
  for (uint64_t i = 0; i < 1'000; ++i)
    brake.OnSample((i % 2 == 0 ? 20 : 24) * 1'000'000, (i + 1) * 20'000'000);
  EXPECT_EQ(brake.window_bytes(), at_first);
  for (uint64_t i = 1'000; i < 1'100; ++i) brake.OnSample(40'000'000, (i + 1) * 20'000'000);
  EXPECT_LT(brake.window_bytes(), at_first / 8);
}

TEST_F(FlowTest, OfALongMessageOnlyWhatIsLostIsSentAgain) {
  Start(SmallConfig());
  int seen = 0;
  eat_ = [&](uint64_t path, const std::string& wire) {
    return path == kPathToB && wire.size() > 1'000 && (++seen == 100 || seen == 300 || seen == 301);
  };
  ASSERT_EQ(Call(1'000'000, 1, true), SendResult::kOk);
  RunFor(50'000'000);
  const std::vector<Event> events = Events(*b_);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(PayloadIs(events[0], 1'000'000, 1));
  b_->Release(events[0]);
  EXPECT_EQ(a_->counters().segments_resent, 3u);
}

}  // namespace
}  // namespace weft::transport
