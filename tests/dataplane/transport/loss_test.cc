// SPDX-License-Identifier: Apache-2.0
// Bad input and faults, one at a time: what the simulator mixes is told apart here by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tests/dataplane/transport/core_fixture.h"

namespace weft::transport {
namespace {

class LossTest : public TwoCores {
 protected:
  // Makes `count` calls of `bytes`, runs, serves, and returns how many came back right.
  int CallAndServe(int count, uint32_t bytes, uint64_t run_ns) {
    for (int i = 0; i < count; ++i) EXPECT_EQ(Call(bytes, i), SendResult::kOk);
    int good = 0;
    for (const uint64_t end = now_ns_ + run_ns; now_ns_ < end;) {
      RunFor(100'000);
      served_ += EchoAll(*b_);
      for (const Event& event : Events(*a_)) {
        good += event.code == absl::StatusCode::kOk && PayloadIs(event, bytes, event.user);
        codes_.push_back(event.code);
        a_->Release(event);
      }
    }
    return good;
  }
  uint64_t DropsAtB(weft_drop_reason reason) const { return b_->counters().drops[reason]; }
  void Inject(const std::string& wire) {
    b_->HandleDatagram(reinterpret_cast<const uint8_t*>(wire.data()), wire.size(), now_ns_);
  }

  int served_ = 0;
  std::vector<absl::StatusCode> codes_;
};

TEST_F(LossTest, AThirdOfDatagramsLostEitherWayAndEachCallRunsOnce) {
  Start(SmallConfig());
  Random random(5);
  eat_ = [&](uint64_t, const std::string&) { return random.Below(3) == 0; };
  EXPECT_EQ(CallAndServe(40, 100, 500'000'000), 40);
  EXPECT_EQ(served_, 40);
  EXPECT_GT(a_->counters().packets_lost, 0u);
}

TEST_F(LossTest, LargeMessageOutlivesLoss) {
  Start(SmallConfig());
  Random random(3);
  eat_ = [&](uint64_t, const std::string&) { return random.Below(20) == 0; };
  EXPECT_EQ(CallAndServe(2, 2'000'000, 1'000'000'000), 2);
  EXPECT_EQ(served_, 2);
}

TEST_F(LossTest, LostTailIsProbedForAfterTwoMilliseconds) {
  Start(SmallConfig());
  int sent = 0;
  eat_ = [&](uint64_t, const std::string&) { return sent++ == 0; };
  ASSERT_EQ(Call(10), SendResult::kOk);
  RunFor(1'900'000);
  EXPECT_EQ(a_->counters().probes, 0u);
  RunFor(2'000'000);
  EXPECT_EQ(a_->counters().probes, 1u);
  EXPECT_EQ(a_->counters().segments_resent, 1u);
  EXPECT_EQ(EchoAll(*b_), 1);
}

// As a thread that did not run for longer than a peer is given, and has many datagrams to take before the one
// that answers.
TEST_F(LossTest, PauseOfThisSideIsNotThePeersSilence) {
  Start(SmallConfig());
  ASSERT_EQ(Call(10), SendResult::kOk);
  Pump(*a_, port_a_, now_ns_);
  Carry(port_a_, port_b_);
  now_ns_ += 300'000'000;
  for (int i = 0; i < 10; ++i) a_->Tick(now_ns_ += 1'000);
  EXPECT_EQ(a_->StateOf(to_b_), PeerState::kUp);
  EXPECT_EQ(a_->counters().probes, 1u);
  RunFor(1'000'000);
  EXPECT_EQ(EchoAll(*b_), 1);
}

// As when a thread that slept looks at the system's clock again.
TEST_F(LossTest, ClockThatStepsBackIsNoRoundTripWithoutEnd) {
  Start(SmallConfig());
  ASSERT_EQ(Call(10), SendResult::kOk);
  Pump(*a_, port_a_, now_ns_);
  now_ns_ -= 1'000'000;
  RunFor(500'000);
  ASSERT_EQ(EchoAll(*b_), 1);
  RunFor(500'000);
  int sent = 0;
  eat_ = [&](uint64_t path, const std::string&) { return path == kPathToB && sent++ == 0; };
  for (int i = 1; i <= 5; ++i) {
    ASSERT_EQ(Call(10, static_cast<uint64_t>(i)), SendResult::kOk);
    Run(2);
  }
  RunFor(1'000'000);
  EXPECT_EQ(EchoAll(*b_), 5);
}

TEST_F(LossTest, ReorderingWithoutLossResendsNothing) {
  Start(SmallConfig());
  // Every fifth datagram is held back until two others have passed it.
  std::vector<std::pair<uint64_t, std::string>> held;
  int n = 0;
  eat_ = [&](uint64_t path, const std::string& wire) {
    if (++n % 5 == 0) return held.emplace_back(path, wire), true;
    return false;
  };
  for (int i = 0; i < 30; ++i) {
    ASSERT_EQ(Call(5'000, i, true), SendResult::kOk);
    Pump(*a_, port_a_, now_ns_);
    Carry(port_a_, port_b_);
    Pump(*b_, port_b_, now_ns_ += 5'000);
    Carry(port_b_, port_a_);
    for (const auto& [path, wire] : held) {
      (path == kPathToB ? port_b_ : port_a_)
          .Deliver(reinterpret_cast<const uint8_t*>(wire.data()), wire.size());
    }
    held.clear();
  }
  Run();
  EXPECT_EQ(Events(*b_).size(), 30u);
  EXPECT_EQ(a_->counters().segments_resent, 0u);
}

TEST_F(LossTest, ForgedReplayedTruncatedAndForeignDatagramsAreCountedByReason) {
  Start(SmallConfig());
  ASSERT_EQ(Call(200), SendResult::kOk);
  Run();
  EXPECT_EQ(EchoAll(*b_), 1);
  const std::string genuine = wire_[0];
  Inject(genuine);
  EXPECT_EQ(DropsAtB(WEFT_DROP_REPLAYED), 1u);
  std::string forged = genuine;
  forged[15] = 99;  // Another counter, so that it is fresh.
  Inject(forged);
  EXPECT_EQ(DropsAtB(WEFT_DROP_BAD_TAG), 1u);
  Inject(forged.substr(0, forged.size() - 1));
  EXPECT_EQ(DropsAtB(WEFT_DROP_BAD_TAG), 2u);
  Inject(genuine.substr(0, 35));
  EXPECT_EQ(DropsAtB(WEFT_DROP_TOO_SHORT), 1u);
  Inject(std::string(10'000, 'x'));
  EXPECT_EQ(DropsAtB(WEFT_DROP_TOO_LONG), 1u);
  std::string other = genuine;
  other[0] = 0x21;
  Inject(other);
  other = genuine;
  other[1] |= 0x10;
  Inject(other);
  EXPECT_EQ(DropsAtB(WEFT_DROP_BAD_VERSION), 2u);
  other = genuine;
  other[1] ^= 1;
  Inject(other);
  EXPECT_EQ(DropsAtB(WEFT_DROP_WRONG_EPOCH), 1u);
  other = genuine;
  other[4] ^= 1;
  Inject(other);
  EXPECT_EQ(DropsAtB(WEFT_DROP_UNKNOWN_KEY), 1u);
  EXPECT_EQ(Events(*b_).size(), 0u) << "none of it was delivered";
}

TEST_F(LossTest, GoodCallsGoOnInAFloodOfForgeries) {
  Start(SmallConfig());
  ASSERT_EQ(Call(10), SendResult::kOk);
  Run();
  EXPECT_EQ(EchoAll(*b_), 1);
  const std::string genuine = wire_[0];
  Random random(9);
  uint64_t forgeries = 0;
  eat_ = [&](uint64_t path, const std::string&) {
    for (int i = 0; i < 20 && path == kPathToB; ++i, ++forgeries) {
      std::string forged = genuine;
      for (size_t at = 8; at < forged.size(); ++at) forged[at] = static_cast<char>(random.Next());
      forged[8] = forged[9] = 0;  // A counter that is not absurd.
      Inject(forged);
    }
    return false;
  };
  codes_.clear();
  Run();
  for (const Event& event : Events(*a_)) a_->Release(event);
  EXPECT_EQ(CallAndServe(60, 500, 20'000'000), 60);
  uint64_t counted = 0;
  for (int reason = WEFT_DROP_TOO_SHORT; reason < WEFT_DROP_REASON_COUNT; ++reason) {
    counted += b_->counters().drops[reason];
  }
  EXPECT_EQ(counted, forgeries);
  EXPECT_GT(forgeries, 100u);
}

// One of each kind before each good datagram.
TEST_F(LossTest, GoodCallsGoOnInAFloodOfEachKindAndEachIsCountedByItsReason) {
  Start(SmallConfig());
  ASSERT_EQ(Call(200), SendResult::kOk);
  Run();
  EXPECT_EQ(EchoAll(*b_), 1);
  for (const Event& event : Events(*a_)) a_->Release(event);
  const std::string genuine = wire_[0];
  const auto changed = [&genuine](std::size_t at, char bits) {
    std::string wire = genuine;
    wire[at] = static_cast<char>(wire[at] ^ bits);
    return wire;
  };
  // Byte 13 is of the counter, so that what differs there is fresh.
  const std::string flipped = changed(13, 1);
  const std::vector<std::pair<weft_drop_reason, std::string>> kinds = {
      {WEFT_DROP_REPLAYED, genuine},
      {WEFT_DROP_BAD_TAG, flipped},
      {WEFT_DROP_BAD_TAG, flipped.substr(0, flipped.size() - 1)},
      {WEFT_DROP_TOO_SHORT, genuine.substr(0, WEFT_PACKET_BYTES_MIN - 1)},
      {WEFT_DROP_TOO_LONG, genuine + std::string(WEFT_PACKET_BYTES_MAX, 'x')},
      {WEFT_DROP_BAD_VERSION, changed(0, 0x30)},
      {WEFT_DROP_WRONG_EPOCH, changed(1, 1)},
      {WEFT_DROP_UNKNOWN_KEY, changed(4, 1)},
  };
  uint64_t rounds = 0;
  eat_ = [&](uint64_t path, const std::string&) {
    if (path != kPathToB) return false;
    ++rounds;
    for (const auto& [reason, wire] : kinds) Inject(wire);
    return false;
  };
  EXPECT_EQ(CallAndServe(60, 500, 20'000'000), 60);
  EXPECT_EQ(served_, 60);
  EXPECT_GT(rounds, 10u);
  std::vector<uint64_t> expected(WEFT_DROP_REASON_COUNT);
  for (const auto& [reason, wire] : kinds) expected[reason] += rounds;
  for (int reason = WEFT_DROP_TOO_SHORT; reason < WEFT_DROP_REASON_COUNT; ++reason)
    EXPECT_EQ(DropsAtB(static_cast<weft_drop_reason>(reason)), expected[reason]) << reason;
}

TEST_F(LossTest, GenuineButMalformedDatagramChangesNothing) {
  Start(SmallConfig());
  // Sealed by a party that has the key: the second of its frames is not one.
  const SealSecret secret = SecretFrom(4242);
  const uint32_t id = b_->InstallReceiveKey(to_a_, 1, secret);
  SealKey key;
  key.Install(secret);
  std::string wire(16 + 64 + 16, '\0');
  auto* const bytes = reinterpret_cast<uint8_t*>(wire.data());
  const weft_packet_header header{WEFT_PACKET_VERSION_AND_SUITE, 1, 0, __builtin_bswap32(id),
                                  __builtin_bswap64(5)};
  std::memcpy(bytes, &header, sizeof(header));
  FrameWriter writer(bytes + 16, 64);
  const DataTarget target{kEcho.value, 0, 0};
  writer.Data(MessageKind::kRequest, 0, {{}, 0, MessageId(1, 0), 0, 1400, 0}, &target, nullptr, 0);
  key.Seal(5, bytes, bytes + 16, 64);
  Inject(wire);
  EXPECT_EQ(DropsAtB(WEFT_DROP_MALFORMED), 1u);
  EXPECT_EQ(Events(*b_).size(), 0u);
}

TEST_F(LossTest, SilentPeerIsDeadAfterFiveProbesAndReturnsByItself) {
  Start(SmallConfig());
  ASSERT_EQ(Call(10), SendResult::kOk);
  RunFor(1'000'000);
  eat_ = [](uint64_t, const std::string&) { return true; };
  ASSERT_EQ(Call(10, 2), SendResult::kOk);
  RunFor(200'000'000);
  EXPECT_EQ(a_->StateOf(to_b_), PeerState::kDead);
  const auto ended = Events(*a_);
  ASSERT_EQ(ended.size(), 2u);
  for (const Event& event : ended) {
    EXPECT_EQ(event.code, absl::StatusCode::kUnavailable);
    EXPECT_TRUE(event.maybe_executed);
  }
  EXPECT_EQ(Call(10), SendResult::kPeerDown) << "refused at once";
  // A partition of ten seconds ends.
  RunFor(10'000'000'000, 5'000'000);
  eat_ = nullptr;
  RunFor(200'000'000);
  EXPECT_EQ(a_->StateOf(to_b_), PeerState::kUp);
  EchoAll(*b_);
  EXPECT_EQ(CallAndServe(5, 10, 20'000'000), 5);
}

// It may be far: nobody can say yet for how long an answer is under way.
TEST_F(LossTest, APeerThatHasNeverAnsweredIsDeadAfterASecond) {
  Start(SmallConfig());
  eat_ = [](uint64_t, const std::string&) { return true; };
  ASSERT_EQ(Call(10), SendResult::kOk);
  RunFor(900'000'000);
  EXPECT_EQ(a_->StateOf(to_b_), PeerState::kUp);
  RunFor(300'000'000);
  EXPECT_EQ(a_->StateOf(to_b_), PeerState::kDead);
}

TEST_F(LossTest, APathThatNarrowsCarriesNewMessagesInSmallerDatagrams) {
  Start(SmallConfig());
  EXPECT_EQ(CallAndServe(3, 10'000, 20'000'000), 3);
  constexpr uint32_t kNarrow = 1252;
  eat_ = [](uint64_t, const std::string& wire) { return wire.size() > kNarrow; };
  for (auto [core, peer] : {std::pair(a_.get(), to_b_), std::pair(b_.get(), to_a_)})
    core->SetDatagramBytes(peer, kNarrow);
  wire_.clear();
  EXPECT_EQ(CallAndServe(40, 10'000, 50'000'000), 40);
  EXPECT_EQ(CallAndServe(60, 100, 20'000'000), 60) << "which share datagrams";
  std::size_t longest = 0;
  for (const std::string& wire : wire_) longest = std::max(longest, wire.size());
  EXPECT_GT(longest, kNarrow - 100);
  EXPECT_LE(longest, kNarrow);
  // And back, as where the interface has its MTU again; a session begins as wide as ever.
  eat_ = nullptr;
  a_->SetDatagramBytes(to_b_, 9'000);
  wire_.clear();
  EXPECT_EQ(CallAndServe(3, 10'000, 20'000'000), 3);
  for (const std::string& wire : wire_) longest = std::max(longest, wire.size());
  EXPECT_EQ(longest, a_->config().datagram_bytes_max);
}

// Else they are sent in vain until their deadlines.
TEST_F(LossTest, WhatWasCutLongerThanThePathTakesNowEndsAtOnce) {
  Start(SmallConfig());
  constexpr uint32_t kNarrow = 1252;
  eat_ = [](uint64_t, const std::string& wire) { return wire.size() > kNarrow; };
  ASSERT_EQ(Call(10'000, 1), SendResult::kOk);
  ASSERT_EQ(Call(300'000, 2), SendResult::kOk);  // Announced, and not sent.
  ASSERT_EQ(Call(100, 3), SendResult::kOk);
  RunFor(1'000'000);
  a_->SetDatagramBytes(to_b_, kNarrow);
  std::vector<Event> ended = Events(*a_);
  ASSERT_EQ(ended.size(), 2u);
  for (const Event& event : ended) EXPECT_EQ(event.code, absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ended[0].maybe_executed) << "it was sent whole";
  EXPECT_FALSE(ended[1].maybe_executed);
  // The other way: an answer.
  std::vector<Event> asked = Events(*b_);
  ASSERT_EQ(asked.size(), 1u);
  const std::string answer(10'000, 'x');
  ASSERT_EQ(b_->TryRespond(asked[0].handle, absl::StatusCode::kOk, {},
                           {reinterpret_cast<const uint8_t*>(answer.data()), answer.size()}, now_ns_),
            SendResult::kOk);
  b_->Release(asked[0]);
  RunFor(1'000'000);
  EXPECT_TRUE(Events(*a_).empty());
  b_->SetDatagramBytes(to_a_, kNarrow);
  RunFor(1'000'000);
  ended = Events(*a_);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].code, absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ended[0].maybe_executed);
  EXPECT_EQ(CallAndServe(3, 10'000, 20'000'000), 3);
}

// Else it stays dead until its next trial, as where the connection between two agents that live was made
// anew.
TEST_F(LossTest, ADeadPeerThatAgreesOnAKeyIsTriedAtOnce) {
  Start(SmallConfig());
  ASSERT_EQ(Call(10), SendResult::kOk);
  Run();
  a_->DeclareDead(to_b_, now_ns_);
  eat_ = [](uint64_t, const std::string&) { return true; };
  Rotate(1, 1);
  RunFor(1'000'000);
  EXPECT_EQ(a_->StateOf(to_b_), PeerState::kDead) << "a key alone carries no packet";
  eat_ = nullptr;
  Rotate(2, 1);
  RunFor(1'000'000);
  EXPECT_EQ(a_->StateOf(to_b_), PeerState::kUp);
}

TEST_F(LossTest, LongCallIsAskedForAndAnsweredBusyNotGivenUp) {
  Start(SmallConfig());
  ASSERT_EQ(Call(10), SendResult::kOk);
  RunFor(500'000'000);
  EXPECT_EQ(Events(*a_).size(), 0u);
  EXPECT_GT(a_->counters().resends_asked, 10u);
  EXPECT_EQ(a_->counters().peer_deaths, 0u);
  EXPECT_EQ(EchoAll(*b_), 1);
  RunFor(5'000'000);
  EXPECT_EQ(Events(*a_).size(), 1u);
}

TEST_F(LossTest, NewSessionFailsWhatWasOutstandingAndStaleHandlesNameNothing) {
  Start(SmallConfig());
  ASSERT_EQ(Call(10), SendResult::kOk);
  Run();
  const auto requests = Events(*b_);
  ASSERT_EQ(requests.size(), 1u);
  Session(2);
  const auto ended = Events(*a_);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].code, absl::StatusCode::kUnavailable);
  ASSERT_EQ(Call(10), SendResult::kOk);
  Run();
  EXPECT_EQ(b_->TryRespond(requests[0].handle, absl::StatusCode::kOk, {}, {}, now_ns_), SendResult::kStale);
  b_->Release(requests[0]);
  EXPECT_EQ(EchoAll(*b_), 1);
  // A datagram of the first session is not taken in the second.
  const uint64_t unknown = DropsAtB(WEFT_DROP_UNKNOWN_KEY);
  Inject(wire_[0]);
  EXPECT_EQ(DropsAtB(WEFT_DROP_UNKNOWN_KEY), unknown + 1);
}

TEST_F(LossTest, ClosedPeerFailsTheOthersCallsAtOnce) {
  Start(SmallConfig());
  ASSERT_EQ(Call(10), SendResult::kOk);
  Run();
  b_->ClosePeer(to_a_, now_ns_);
  Run();
  const auto ended = Events(*a_);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].code, absl::StatusCode::kUnavailable);
  EXPECT_EQ(a_->StateOf(to_b_), PeerState::kDown);
}

// An acknowledgement gives eight waiting messages their turn, since each of them will be acknowledged too.
// Where all eight are cancelled before they leave nothing is in flight that could wake the rest.
TEST_F(LossTest, TurnsOfCancelledMessagesGoToThoseThatWait) {
  Config narrow = SmallConfig();
  narrow.coalesce = false;
  narrow.brake.window_bytes_first = 2'000;
  Start(SmallConfig(), narrow);
  std::vector<CallHandle> handles(20);
  for (auto& handle : handles) ASSERT_EQ(Call(1'000, 0, false, &handle), SendResult::kOk);
  Run();
  EXPECT_EQ(EchoAll(*b_), 20);
  Pump(*b_, port_b_, now_ns_);
  Carry(port_b_, port_a_);
  Pump(*a_, port_a_, now_ns_);
  Pump(*a_, port_a_, now_ns_ += 100'000);
  EXPECT_EQ(Events(*a_).size(), 1u) << "the window lets one out";
  for (std::size_t i = 1; i <= 8; ++i) a_->Cancel(handles[i], now_ns_);
  EXPECT_EQ(Events(*a_).size(), 8u);
  Pump(*a_, port_a_, now_ns_);
  Carry(port_a_, port_b_);
  RunFor(100'000'000);
  EXPECT_EQ(Events(*a_).size(), 11u);
}

// A peer that announces all that it can and sends none of it gets descriptors, no memory, and does not stop
// others.
TEST_F(LossTest, PeerThatClaimsEverythingHoldsNoMoreThanItsTenantsLimit) {
  Config config = SmallConfig();
  config.granted_bytes_max = 100'000;
  Start(SmallConfig(), config);
  b_->SetTenantLimit({1}, 1u << 20);
  // Only announcements come through.
  eat_ = [](uint64_t path, const std::string& wire) { return path == kPathToB && wire.size() > 1000; };
  for (int i = 0; i < 40; ++i) ASSERT_EQ(Call(200'000, i), SendResult::kOk);
  RunFor(50'000'000);
  EXPECT_LE(b_->UseOf({1}).peak_bytes, 1u << 20);
  EXPECT_LE(b_->granted_bytes(), 100'000u);
}

TEST_F(LossTest, PeerWithoutMemoryCostsItsOwnMessagesOnly) {
  Config mean = SmallConfig();
  Start(SmallConfig(), mean);
  b_->SetTenantLimit({1}, 4096);  // It has no memory for what is announced, and says so.
  ASSERT_EQ(Call(200'000, 1), SendResult::kOk);
  RunFor(100'000'000);
  const auto ended = Events(*a_);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].code, absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(ended[0].maybe_executed);
  EXPECT_EQ(CallAndServe(3, 100, 10'000'000), 3);
}

// It takes what came unasked, grants once, and then nothing for most of a second.
TEST_F(LossTest, PeerThatStopsGrantingHoldsUpNothingButItsLongMessage) {
  Config mean = SmallConfig();
  mean.link_bits_per_second = 100'000'000;
  mean.grant_pace_percent = 1;
  Start(SmallConfig(), mean);
  CallHandle handle;
  ASSERT_EQ(Call(2'000'000, 1, false, &handle), SendResult::kOk);
  RunFor(20'000'000);
  EXPECT_EQ(CallAndServe(60, 100, 20'000'000), 60);
  EXPECT_EQ(served_, 60);
  EXPECT_GE(a_->UseOf({0}).used_bytes, 1'000'000u) << "it still waits";
  a_->Cancel(handle, now_ns_);
  RunFor(20'000'000);
  for (const Event& event : Events(*a_)) a_->Release(event);
  EXPECT_EQ(a_->UseOf({0}).used_bytes, 0u);
  EXPECT_EQ(b_->UseOf({1}).used_bytes, 0u);
  EXPECT_EQ(CallAndServe(3, 100, 10'000'000), 3);
}

}  // namespace
}  // namespace weft::transport
