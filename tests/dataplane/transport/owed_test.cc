// SPDX-License-Identifier: Apache-2.0
// Long answers that wait for a peer which does not ask for them.
#include <gtest/gtest.h>

#include <vector>

#include "tests/dataplane/transport/claim_fixture.h"

namespace weft::transport {
namespace {

// A tenant of b's with memory for four long answers, which a has called for, and which wait for a's grants.
class OwedTest : public ClaimTest {
 protected:
  static constexpr uint32_t kAnswerBytes = 900'000;

  void OweFourAnswers(uint64_t patience_ns, uint32_t pace_percent) {
    Config patient = SmallConfig(), mean = SmallConfig();
    patient.unfinished_ns = patience_ns;
    mean.link_bits_per_second = 100'000'000;
    mean.grant_pace_percent = pace_percent;
    StartThree(patient, mean);
    b_->SetTenantLimit({1}, 4u * (1u << 20) + 65'536);
    for (int i = 0; i < 4; ++i) ASSERT_EQ(Call(64, i), SendResult::kOk);
    RunThree(1'000'000, All);
    const auto requests = Events(*b_);
    ASSERT_EQ(requests.size(), 4u);
    for (const Event& request : requests) {
      b_->Release(request);
      ASSERT_EQ(Answer(request.handle), SendResult::kOk);
    }
    ASSERT_EQ(CallFromC(64), SendResult::kOk);
    RunThree(1'000'000, All);
    const auto events = Events(*b_);
    ASSERT_EQ(events.size(), 1u);
    b_->Release(events[0]);
    from_c_ = events[0].handle;
  }
  SendResult Answer(const CallHandle& request) {
    return b_->TryRespond(request, absl::StatusCode::kOk, {}, Bytes(payload_), now_ns_);
  }
  // As b's owner does: what finds no room is tried again at each turn.
  bool AnswerCWithin(uint64_t ns) {
    for (const uint64_t end = now_ns_ + ns; now_ns_ < end;) {
      if (Answer(from_c_) == SendResult::kOk) return true;
      RunThree(1'000'000, All);
    }
    return false;
  }

  const std::vector<uint8_t> payload_ = std::vector<uint8_t>(kAnswerBytes, 7);
  CallHandle from_c_;
};

TEST_F(OwedTest, AnswersThatTheirPeerDoesNotAskForMakeRoomForThoseOfOthers) {
  OweFourAnswers(100'000'000, 1);
  EXPECT_FALSE(AnswerCWithin(90'000'000));
  EXPECT_TRUE(AnswerCWithin(20'000'000));
  RunThree(50'000'000, All);
  const auto answered = Events(*c_);
  ASSERT_EQ(answered.size(), 1u);
  EXPECT_EQ(answered[0].payload_bytes, kAnswerBytes);
  EXPECT_GE(b_->counters().answers_given_up, 1u);
  const auto ended = Events(*a_);
  ASSERT_EQ(ended.size(), b_->counters().answers_given_up);
  for (const Event& event : ended) {
    EXPECT_EQ(event.code, absl::StatusCode::kUnavailable);
    EXPECT_TRUE(event.maybe_executed);
  }
}

TEST_F(OwedTest, AnswersThatTheirPeerDoesNotAskForStayWhileThereIsRoom) {
  OweFourAnswers(100'000'000, 1);
  RunThree(500'000'000, All);
  EXPECT_EQ(b_->counters().answers_given_up, 0u);
}

TEST_F(OwedTest, AnswersThatTheirPeerAsksForMakeNoRoom) {
  OweFourAnswers(1'000'000'000, 50);
  EXPECT_TRUE(AnswerCWithin(900'000'000));
  RunThree(900'000'000, All);
  EXPECT_EQ(b_->counters().answers_given_up, 0u);
  const auto ended = Events(*a_);
  EXPECT_EQ(ended.size(), 4u);
  for (const Event& event : ended) EXPECT_EQ(event.payload_bytes, kAnswerBytes);
}

}  // namespace
}  // namespace weft::transport
