// SPDX-License-Identifier: Apache-2.0
// What one peer claims of a core, and what others get there all the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/dataplane/transport/claim_fixture.h"

namespace weft::transport {
namespace {

TEST_F(ClaimTest, PeerThatAnnouncesAndSendsNothingKeepsNobodyElseFromGrants) {
  StartThree(SmallConfig());
  for (int i = 0; i < 60; ++i) ASSERT_EQ(Call(50'000, i), SendResult::kOk);
  RunThree(1'000'000, NoData);
  ASSERT_EQ(CallFromC(2'000'000), SendResult::kOk);
  RunThree(100'000'000, NoData);
  const auto events = Events(*b_);
  EXPECT_EQ(events.size(), 1u);
}

// Each segment is progress. The messages are shorter than that of the other, so they are granted to first.
TEST_F(ClaimTest, PeerThatSendsSlowlyWhatItWasGrantedKeepsNobodyElseFromGrants) {
  StartThree(SmallConfig());
  for (int i = 0; i < 4; ++i) ASSERT_EQ(Call(800'000, i), SendResult::kOk);
  const auto trickle = [this](int segments) {
    for (int i = 0; i < segments; ++i) {
      RunThree(3'000'000, [sent = false](const std::string& wire) mutable {
        return NoData(wire) || !std::exchange(sent, true);
      });
    }
  };
  trickle(2);
  ASSERT_GT(b_->granted_bytes(), b_->config().granted_bytes_max * 3 / 4);
  ASSERT_EQ(CallFromC(1'000'000), SendResult::kOk);
  trickle(20);
  EXPECT_EQ(Events(*b_).size(), 1u);
  RunThree(100'000'000, All);
  EXPECT_EQ(Events(*b_).size(), 4u);
}

// Its grants would have b mark what it sends to others, too, and these grant b less and less.
TEST_F(ClaimTest, PeerThatGrantsMuchAndTakesNothingKeepsNoGrantsOfOthers) {
  Config generous = SmallConfig();
  generous.granted_bytes_max = generous.granted_bytes_per_peer_max = 32'000'000;
  StartThree(SmallConfig(), generous);
  c_->SetTenantLimit({1}, 64u << 20);
  ASSERT_TRUE(c_->SetFunction(kEcho, {1}).ok());
  const auto send = [this](PeerIndex peer) {
    const std::vector<uint8_t> payload(4'000'000, 7);
    SendOptions options;
    options.peer = peer;
    options.function = kEcho;
    ASSERT_EQ(b_->TrySend(options, {}, Bytes(payload), now_ns_, nullptr), SendResult::kOk);
  };
  reaches_a_ = NoData;
  send(to_a_);
  RunThree(1'000'000, All);
  uint32_t most = 0;
  for (int message = 0; message < 4; ++message) {
    send(b_to_c_);
    most = 0;
    for (int i = 0; i < 20'000 && !c_->HasEvent(); ++i) {
      RunThree(5'000, All);
      most = std::max(most, c_->granted_bytes());
    }
    const std::vector<Event> events = Events(*c_);
    ASSERT_EQ(events.size(), 1u);
    c_->Release(events[0]);
  }
  // Its own grants that b does not use at once are what it lowers them for.
  EXPECT_GT(most, c_->config().congested_bytes);
}

TEST_F(ClaimTest, TenantWithoutMemoryKeepsNobodyElseFromGrants) {
  StartThree(SmallConfig());
  AnnounceToATenantWithoutMemory();
  ASSERT_EQ(CallFromC(2'000'000), SendResult::kOk);
  RunThree(15'000'000, NoData);
  EXPECT_EQ(Events(*b_).size(), 1u);
}

TEST_F(ClaimTest, MessagesThatFindNoMemoryDoNotKeepThePoolFromOthers) {
  StartThree(SmallConfig());
  AnnounceToATenantWithoutMemory();
  ASSERT_EQ(b_->messages_in(), 60u);
  // Rejected after 20 ms, all but the one that has the memory, within a few ticks of 2 ms.
  RunThree(27'000'000, NoData);
  EXPECT_LE(b_->messages_in(), 1u);
}

// Of one long message the whole is asked for, again and again.
TEST_F(ClaimTest, ResendAskedForAgainAtOnceIsNotFollowedAgain) {
  Start(SmallConfig());
  const SealSecret secret = SecretFrom(4242);
  const uint32_t id = a_->InstallReceiveKey(to_b_, 1, secret);
  SealKey key;
  key.Install(secret);
  CallHandle call;
  ASSERT_EQ(Call(39'000, 0, false, &call), SendResult::kOk);
  for (int i = 0; i < 20; ++i) Pump(*a_, port_a_, now_ns_);
  const uint64_t segments = (39'000 + a_->segment_bytes() - 1) / a_->segment_bytes();
  uint64_t counter = 1'000;
  const auto ask = [&] {
    std::string wire(16 + sizeof(ResendFrame) + 16, '\0');
    auto* const bytes = reinterpret_cast<uint8_t*>(wire.data());
    const weft_packet_header header{WEFT_PACKET_VERSION_AND_SUITE, 1, 0, __builtin_bswap32(id),
                                    __builtin_bswap64(++counter)};
    std::memcpy(bytes, &header, sizeof(header));
    FrameWriter writer(bytes + 16, sizeof(ResendFrame));
    writer.Resend(MessageKind::kRequest, call.id, 0, 39'000);
    key.Seal(counter, bytes, bytes + 16, sizeof(ResendFrame));
    a_->HandleDatagram(bytes, wire.size(), now_ns_);
    for (int i = 0; i < 20; ++i) Pump(*a_, port_a_, now_ns_);
  };
  ask();
  EXPECT_EQ(a_->counters().segments_resent, segments);
  now_ns_ += 1'000'000;
  ask();
  EXPECT_EQ(a_->counters().segments_resent, segments);
  now_ns_ += 9'000'000;
  ask();
  EXPECT_EQ(a_->counters().segments_resent, 2 * segments);
}

// A sender of other settings, or of ill will.
TEST_F(ClaimTest, MessageThatCameUnaskedTakesThePlaceOfNoMoreGrantsThanItMay) {
  Config generous = SmallConfig();
  generous.unscheduled_bytes_max = generous.bandwidth_delay_bytes = 2'000'000;
  StartThree(SmallConfig(), generous);
  RunThree(100'000, All);
  ASSERT_EQ(Call(390'000), SendResult::kOk);
  RunThree(100'000, FirstOnly());
  ASSERT_EQ(CallFromC(4'000'000), SendResult::kOk);
  EXPECT_GT(MostGranted(2'000'000), 300'000u);
}

TEST_F(ClaimTest, MessagesThatCameUnaskedAndStoppedHoldBackNoGrants) {
  StartThree(SmallConfig());
  for (int i = 0; i < 12; ++i) {
    ASSERT_EQ(Call(39'000, i), SendResult::kOk);
    RunThree(20'000, FirstOnly());
  }
  RunThree(10'000'000, Nothing);
  // Who has stopped is looked for every 2 ms, while somebody waits for grants.
  for (int i = 0; i < 3; ++i) ASSERT_EQ(CallFromC(16'000'000), SendResult::kOk);
  EXPECT_LT(MostGranted(1'000'000), 200'000u);
  EXPECT_GT(MostGranted(9'000'000), 300'000u);
}

// Messages of a's that are begun and of which no more comes than their first segments, while a answers all
// else.
class UnfinishedTest : public ClaimTest {
 protected:
  static constexpr uint64_t kPatienceNs = 100'000'000;
  static Config Patient(uint32_t records = 512) {
    Config config = SmallConfig();
    config.messages_in_max = config.messages_out_max = records;
    config.unfinished_ns = kPatienceNs;
    return config;
  }
  // What is full, a first segment here, and what is short, as an ACK is.
  static bool NoRest(const std::string& wire) { return wire.size() < 300 || wire.size() > 1'000; }
  // The next full one too, of any message.
  static Filter NoDataButOne() {
    return [passed = false](const std::string& wire) mutable {
      return NoData(wire) || !std::exchange(passed, true);
    };
  }
  uint32_t TwoSegments() const { return a_->segment_bytes() + 500; }
  int Ended(Core& core, absl::StatusCode code, bool maybe_executed = false) {
    int count = 0;
    for (const Event& event : Events(core)) {
      core.Release(event);
      EXPECT_EQ(event.kind, EventKind::kCompleted);
      count += event.code == code && event.maybe_executed == maybe_executed;
    }
    return count;
  }
};

TEST_F(UnfinishedTest, TheirPeerGetsAsManyRecordsAsAreLeftForOthers) {
  StartThree(Patient(64), SmallConfig());
  for (int i = 0; i < 64; ++i) ASSERT_EQ(Call(TwoSegments(), i), SendResult::kOk);
  RunThree(5'000'000, NoRest);
  EXPECT_EQ(b_->messages_in(), 32u);
  EXPECT_EQ(Ended(*a_, absl::StatusCode::kResourceExhausted), 32);
  ASSERT_EQ(CallFromC(100), SendResult::kOk);
  RunThree(1'000'000, NoRest);
  EXPECT_EQ(EchoAll(*b_), 1);
  // Once they are given up, as many again.
  RunThree(2 * kPatienceNs, NoRest);
  EXPECT_EQ(Ended(*a_, absl::StatusCode::kDeadlineExceeded), 32);
  for (int i = 0; i < 64; ++i) ASSERT_EQ(Call(10, i), SendResult::kOk);
  RunThree(5'000'000, All);
  EXPECT_EQ(b_->messages_in(), 32u);
}

TEST_F(UnfinishedTest, SoItDoesOfCallsThatAreBeingExecutedUntilTheyAreAnswered) {
  StartThree(Patient(64), SmallConfig());
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 64; ++i) ASSERT_EQ(Call(10, i), SendResult::kOk);
    RunThree(1'000'000, All);
    EXPECT_EQ(Ended(*a_, absl::StatusCode::kResourceExhausted), 32);
    EXPECT_EQ(b_->messages_out(), 32u);
    EXPECT_EQ(EchoAll(*b_), 32);
    RunThree(1'000'000, All);
    EXPECT_EQ(b_->messages_out(), 0u);
    EXPECT_EQ(EchoAll(*a_), 0);  // Their answers.
  }
}

TEST_F(UnfinishedTest, TheyAreGivenUpThoughTheyAreAskedFor) {
  StartThree(Patient(), SmallConfig());
  for (int i = 0; i < 64; ++i) ASSERT_EQ(Call(TwoSegments(), i), SendResult::kOk);
  RunThree(kPatienceNs - 10'000'000, NoRest);
  EXPECT_EQ(b_->messages_in(), 64u);
  RunThree(50'000'000, NoRest);
  EXPECT_EQ(b_->messages_in(), 0u);
  EXPECT_EQ(b_->messages_out(), 0u);
  EXPECT_EQ(b_->UseOf({1}).used_bytes, 0u);
  EXPECT_EQ(Ended(*a_, absl::StatusCode::kDeadlineExceeded), 64);
  EXPECT_EQ(b_->counters().messages_given_up, 64u);
  EXPECT_EQ(b_->counters().drops[WEFT_DROP_NO_ROOM], 0u);
  EXPECT_EQ(a_->messages_out(), 0u);
  // What was given up is not begun anew by what arrives of it late, and the slot serves the next.
  RunThree(1'000'000, All);
  EXPECT_TRUE(Events(*b_).empty());
  ASSERT_EQ(Call(TwoSegments()), SendResult::kOk);
  RunThree(1'000'000, All);
  EXPECT_EQ(Events(*b_).size(), 1u);
}

// No sender of ours announces what fits into one segment.
TEST_F(UnfinishedTest, AnAnnouncementOfASingleSegmentIsGivenUpToo) {
  Start(Patient());
  const SealSecret secret = SecretFrom(4242);
  const uint32_t id = b_->InstallReceiveKey(to_a_, 1, secret);
  SealKey key;
  key.Install(secret);
  const uint64_t counter = a_->CounterOf(to_b_) + 20;
  constexpr std::size_t kFrameBytes = sizeof(DataFrame) + sizeof(DataTarget);
  uint8_t wire[16 + kFrameBytes + 16] = {};
  const weft_packet_header header{WEFT_PACKET_VERSION_AND_SUITE, 1, 0, __builtin_bswap32(id),
                                  __builtin_bswap64(counter)};
  std::memcpy(wire, &header, sizeof(header));
  FrameWriter writer(wire + 16, kFrameBytes);
  const DataTarget target{kEcho.value, 0, 0};
  writer.Data(MessageKind::kRequest, 0, {{}, 100, MessageId(1, 0), 0, 1'200, 0}, &target, nullptr, 0);
  key.Seal(counter, wire, wire + 16, kFrameBytes);
  b_->HandleDatagram(wire, sizeof(wire), now_ns_);
  ASSERT_EQ(b_->messages_in(), 1u);
  RunFor(2 * kPatienceNs);
  EXPECT_EQ(b_->messages_in(), 0u);
  EXPECT_EQ(b_->UseOf({1}).used_bytes, 0u);
  EXPECT_EQ(b_->StateOf(to_a_), PeerState::kUp);
}

TEST_F(UnfinishedTest, OneWhoseOwnTimeIsOverIsGivenUpThen) {
  StartThree(Patient(), SmallConfig());
  const std::vector<uint8_t> payload(TwoSegments(), 7);
  SendOptions options;
  options.peer = to_b_;
  options.function = kEcho;
  options.timeout_ns = 30'000'000;
  ASSERT_EQ(a_->TrySend(options, {}, Bytes(payload), now_ns_, nullptr), SendResult::kOk);
  RunThree(25'000'000, NoRest);
  EXPECT_EQ(b_->messages_in(), 1u);
  RunThree(20'000'000, NoRest);
  EXPECT_EQ(b_->messages_in(), 0u);
  EXPECT_EQ(Ended(*a_, absl::StatusCode::kDeadlineExceeded), 1);
}

TEST_F(UnfinishedTest, OneThatComesSlowlyIsTaken) {
  StartThree(Patient(), SmallConfig());
  ASSERT_EQ(Call(5 * a_->segment_bytes()), SendResult::kOk);
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(Events(*b_).empty());
    RunThree(kPatienceNs * 6 / 10, NoDataButOne());
  }
  EXPECT_EQ(Events(*b_).size(), 1u);
}

TEST_F(UnfinishedTest, TimeInWhichTheReceiverDidNotLookIsNotHeldAgainstTheSender) {
  StartThree(Patient(), SmallConfig());
  ASSERT_EQ(Call(TwoSegments()), SendResult::kOk);
  RunThree(kPatienceNs / 2, NoRest);
  now_ns_ += 20 * kPatienceNs;
  RunThree(20'000'000, All);
  EXPECT_EQ(Events(*b_).size(), 1u);
}

// b grants one message at a time, and the first, which is shorter, comes a segment each 2 ms.
TEST_F(UnfinishedTest, OneThatWaitsForGrantsIsNotGivenUp) {
  Config config = Patient();
  config.granted_messages_max = 1;
  config.probe_ns = 10'000'000;       // Twice that without a segment would let the next have its turn,
  config.late_ns = ~uint64_t{0} / 2;  // and a sender that is late too.
  StartThree(config, SmallConfig());
  ASSERT_EQ(Call(200'000), SendResult::kOk);
  RunThree(100'000, NoData);
  ASSERT_EQ(Call(210'000), SendResult::kOk);
  for (uint64_t ns = 0; ns < 3 * kPatienceNs / 2; ns += 2'000'000) RunThree(2'000'000, NoDataButOne());
  EXPECT_FALSE(b_->HasEvent());
  for (int i = 0; i < 10'000 && !b_->HasEvent(); ++i) RunThree(5'000, All);
  // Its time begins only now that it is granted.
  RunThree(15'000'000, NoData);
  EXPECT_EQ(Events(*b_).size(), 1u);
  RunThree(50'000'000, All);
  EXPECT_EQ(Events(*b_).size(), 1u);
  EXPECT_TRUE(Events(*a_).empty());
}

TEST_F(UnfinishedTest, MemoryThatTheyHoldIsNoMoreThanIsLeftForOthers) {
  StartThree(Patient(), SmallConfig());
  b_->SetTenantLimit({1}, 4 * 2'048);  // Four of them.
  for (int i = 0; i < 4; ++i) ASSERT_EQ(Call(TwoSegments(), i), SendResult::kOk);
  RunThree(1'000'000, NoRest);
  EXPECT_EQ(Ended(*a_, absl::StatusCode::kResourceExhausted), 2);
  ASSERT_EQ(CallFromC(TwoSegments()), SendResult::kOk);
  RunThree(1'000'000, NoRest);
  const std::vector<Event> events = Events(*b_);
  ASSERT_EQ(events.size(), 1u);
  b_->Release(events[0]);
  RunThree(2 * kPatienceNs, NoRest);
  EXPECT_EQ(b_->UseOf({1}).used_bytes, 0u);
  EXPECT_EQ(b_->UseOf({1}).unfinished_bytes, 0u);
  // Counted back in full: as much finds room again.
  EXPECT_EQ(Ended(*a_, absl::StatusCode::kDeadlineExceeded), 2);
  for (int i = 0; i < 4; ++i) ASSERT_EQ(Call(TwoSegments(), i), SendResult::kOk);
  RunThree(1'000'000, NoRest);
  EXPECT_EQ(Ended(*a_, absl::StatusCode::kResourceExhausted), 2);
}

TEST_F(UnfinishedTest, AnAnswerThatDoesNotComeEndsItsCall) {
  Start(Patient());
  ASSERT_EQ(Call(10), SendResult::kOk);
  Run();
  const std::vector<Event> events = Events(*b_);
  ASSERT_EQ(events.size(), 1u);
  const std::vector<uint8_t> answer(TwoSegments(), 7);
  eat_ = [](uint64_t path, const std::string& wire) { return path == kPathToA && !NoRest(wire); };
  ASSERT_EQ(b_->TryRespond(events[0].handle, absl::StatusCode::kOk, Bytes(answer), {}, now_ns_),
            SendResult::kOk);
  b_->Release(events[0]);
  RunFor(kPatienceNs - 10'000'000);
  EXPECT_TRUE(Events(*a_).empty());
  RunFor(30'000'000);
  EXPECT_EQ(Ended(*a_, absl::StatusCode::kDeadlineExceeded, true), 1);
  EXPECT_EQ(a_->messages_in(), 0u);
  EXPECT_EQ(b_->messages_out(), 0u);
}

}  // namespace
}  // namespace weft::transport
