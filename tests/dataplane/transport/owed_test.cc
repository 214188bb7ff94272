// SPDX-License-Identifier: Apache-2.0
// Answers that wait for a peer which does not take them.
#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "tests/dataplane/transport/claim_fixture.h"

namespace weft::transport {
namespace {

// A tenant of b's with memory for four answers, which a has called for and does not take.
class OwedTest : public ClaimTest {
 protected:
  static constexpr uint64_t kPatienceNs = 100'000'000;
  static constexpr uint32_t kLong = 900'000, kUnasked = 30'000;

  static Config Patient(uint64_t patience_ns = kPatienceNs) {
    Config config = SmallConfig();
    config.unfinished_ns = patience_ns;
    return config;
  }
  // Grants so much of 100 Mb/s.
  static Config GrantsPercent(uint32_t percent) {
    Config config = SmallConfig();
    config.link_bits_per_second = 100'000'000;
    config.grant_pace_percent = percent;
    return config;
  }

  void OweFourAnswers(const Config& b, const Config& a, uint32_t bytes = kLong) {
    StartThree(b, a);
    payload_.assign(bytes, 7);
    const uint64_t block = std::bit_ceil(bytes);
    b_->SetTenantLimit({1}, 4 * block + block / 16);
    for (int i = 0; i < 4; ++i) ASSERT_EQ(Call(64, i), SendResult::kOk);
    RunThree(1'000'000, All);
    const auto requests = Events(*b_);
    ASSERT_EQ(requests.size(), 4u);
    for (const Event& request : requests) {
      b_->Release(request);
      ASSERT_EQ(Answer(request.handle), SendResult::kOk);
    }
    CallC(kEcho);
  }
  void CallC(FunctionId function) {
    ASSERT_EQ(CallFromC(64, function), SendResult::kOk);
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
  void ExpectRoomAfterPatience() {
    EXPECT_FALSE(AnswerCWithin(kPatienceNs * 9 / 10));
    EXPECT_TRUE(AnswerCWithin(kPatienceNs / 5));
    RunThree(50'000'000, All);
    const auto answered = Events(*c_);
    ASSERT_EQ(answered.size(), 1u);
    EXPECT_EQ(answered[0].payload_bytes, payload_.size());
    EXPECT_GE(b_->counters().answers_given_up, 1u);
  }

  std::vector<uint8_t> payload_;
  CallHandle from_c_;
};

TEST_F(OwedTest, AnswersThatTheirPeerDoesNotAskForMakeRoomForThoseOfOthers) {
  OweFourAnswers(Patient(), GrantsPercent(1));
  ExpectRoomAfterPatience();
  const auto ended = Events(*a_);
  ASSERT_EQ(ended.size(), b_->counters().answers_given_up);
  for (const Event& event : ended) {
    EXPECT_EQ(event.code, absl::StatusCode::kUnavailable);
    EXPECT_TRUE(event.maybe_executed);
  }
}

// It lives: it acknowledges all that is short.
TEST_F(OwedTest, AnswersThatTheirPeerAsksForAndDoesNotTakeMakeRoom) {
  reaches_a_ = NoData;
  OweFourAnswers(Patient(), SmallConfig());
  ExpectRoomAfterPatience();
}

TEST_F(OwedTest, AnswersThatNeedNotBeAskedForAndAreNotTakenMakeRoom) {
  reaches_a_ = NoData;
  OweFourAnswers(Patient(), SmallConfig(), kUnasked);
  ExpectRoomAfterPatience();
}

TEST_F(OwedTest, AnswersThatTheirPeerDoesNotAskForStayWhileThereIsRoom) {
  OweFourAnswers(Patient(), GrantsPercent(1));
  RunThree(500'000'000, All);
  EXPECT_EQ(b_->counters().answers_given_up, 0u);
}

TEST_F(OwedTest, AnswersStayWhereOnlyAnotherTenantsMemoryIsShort) {
  OweFourAnswers(Patient(), GrantsPercent(1));
  const FunctionId other = FunctionIdOf("test/other");
  ASSERT_TRUE(b_->SetFunction(other, {2}).ok());
  b_->SetTenantLimit({2}, 1u << 16);
  CallC(other);
  EXPECT_FALSE(AnswerCWithin(5 * kPatienceNs));
  EXPECT_EQ(b_->counters().answers_given_up, 0u);
}

TEST_F(OwedTest, AnswersThatTheirPeerTakesMakeNoRoom) {
  OweFourAnswers(Patient(1'000'000'000), GrantsPercent(50));
  EXPECT_TRUE(AnswerCWithin(900'000'000));
  RunThree(900'000'000, All);
  EXPECT_EQ(b_->counters().answers_given_up, 0u);
  const auto ended = Events(*a_);
  EXPECT_EQ(ended.size(), 4u);
  for (const Event& event : ended) EXPECT_EQ(event.payload_bytes, kLong);
}

}  // namespace
}  // namespace weft::transport
