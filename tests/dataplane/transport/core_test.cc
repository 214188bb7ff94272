// SPDX-License-Identifier: Apache-2.0
#include "dataplane/transport/core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/dataplane/transport/core_fixture.h"

namespace weft::transport {
namespace {

using CoreTest = TwoCores;

TEST_F(CoreTest, CallsOfEverySizeAreAnsweredWithTheirOwnBytes) {
  Start(SmallConfig());
  uint64_t user = 1;
  for (uint32_t bytes :
       {0u, 1u, 64u, 1399u, 1400u, 1401u, 40'000u, 40'001u, 90'000u, 1'000'000u, 16u << 20}) {
    ASSERT_EQ(Call(bytes, user), SendResult::kOk) << bytes;
    bool done = false;
    for (int i = 0; i < 4000 && !done; ++i) {
      Run(50);
      EchoAll(*b_);
      for (const Event& event : Events(*a_)) {
        EXPECT_EQ(event.kind, EventKind::kCompleted);
        EXPECT_EQ(event.code, absl::StatusCode::kOk);
        EXPECT_EQ(event.user, user);
        EXPECT_TRUE(PayloadIs(event, bytes, user)) << bytes;
        a_->Release(event);
        done = true;
      }
    }
    EXPECT_TRUE(done) << bytes;
    ++user;
  }
  RunFor(20'000'000);
  EXPECT_EQ(a_->memory_used_bytes(), 0u);
  EXPECT_EQ(b_->memory_used_bytes(), 0u);
  EXPECT_EQ(a_->messages_out() + a_->messages_in() + b_->messages_out() + b_->messages_in(), 0u);
  EXPECT_EQ(a_->counters().packets_lost + b_->counters().packets_lost, 0u) << "nothing was lost on this wire";
  EXPECT_EQ(a_->counters().frames_duplicate + b_->counters().frames_duplicate, 0u);
}

// An operator reads it beside the node's name.
TEST(CoreLimitsTest, WhatIsOneTooManyIsRefusedByWhatThereIs) {
  Config config;
  config.peers_max = config.functions_max = 2;
  const std::unique_ptr<Core> core = *Core::Create(config);
  for (uint32_t i = 1; i <= 2; ++i) {
    ASSERT_TRUE(core->AddPeer(i).ok());
    ASSERT_TRUE(core->SetFunction(FunctionId{i}, {0}).ok());
  }
  EXPECT_EQ(core->AddPeer(3).status(),
            absl::ResourceExhaustedError("this engine has its 2 peers already, and no place for one more"));
  EXPECT_EQ(core->SetFunction(FunctionId{3}, {0}),
            absl::ResourceExhaustedError("this engine has its 2 functions already"));
}

TEST_F(CoreTest, OneWayMessageIsDeliveredOnceAndItsSenderIsTold) {
  Start(SmallConfig());
  ASSERT_EQ(Call(300, 5, true), SendResult::kOk);
  ASSERT_EQ(Call(50'000, 6, true), SendResult::kOk);
  Run();
  const auto arrived = Events(*b_);
  ASSERT_EQ(arrived.size(), 2u);
  EXPECT_EQ(arrived[0].kind, EventKind::kOneWay);
  EXPECT_TRUE(PayloadIs(arrived[0], 300, 5));
  EXPECT_TRUE(PayloadIs(arrived[1], 50'000, 6));
  for (const Event& event : arrived) b_->Release(event);
  RunFor(5'000'000);
  const auto told = Events(*a_);
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].code, absl::StatusCode::kOk);
}

// Its receiver may have one grant of it under way, and neither loses nor waits for anything.
TEST_F(CoreTest, MessageOfLargerSegmentsThanItsReceiversIsGrantedToItsEnd) {
  Config receiver = SmallConfig();
  receiver.granted_bytes_max = 20'000;
  receiver.grant_quantum_segments = 4;
  receiver.granted_bytes_per_peer_max = 4 * receiver.datagram_bytes_max;
  for (const uint32_t datagram_bytes : {1'252u, 1'472u, 1'900u, 3'470u, 8'972u}) {
    Config sender = SmallConfig();
    sender.datagram_bytes_max = datagram_bytes;
    Start(sender, receiver);
    ASSERT_EQ(Call(1'000'000, 1, true), SendResult::kOk);
    Run();
    const std::vector<Event> events = Events(*b_);
    ASSERT_EQ(events.size(), 1u) << datagram_bytes;
    EXPECT_TRUE(PayloadIs(events[0], 1'000'000, 1));
    b_->Release(events[0]);
  }
}

TEST_F(CoreTest, SenderThatKeepsUpIsGrantedMoreBeforeItHasSentTheLastGrant) {
  const Config config = SmallConfig();
  Start(config);
  std::vector<uint32_t> granted;  // And not received, as each datagram leaves.
  eat_ = [&](uint64_t path, const std::string&) {
    if (path == kPathToB) granted.push_back(b_->granted_bytes());
    return false;
  };
  ASSERT_EQ(Call(16'000'000, 1, true), SendResult::kOk);
  Run();
  ASSERT_EQ(Events(*b_).size(), 1u);
  // In the second half, when a receiver that thought the sender slow would have come to do so.
  const auto half = granted.begin() + static_cast<std::ptrdiff_t>(granted.size() / 2);
  EXPECT_GT(*std::max_element(half, granted.end()), config.granted_bytes_max / 2);
}

TEST_F(CoreTest, TooLargeAndUnknownAndUnreadMessagesAreRefusedNotKept) {
  Config config = SmallConfig();
  config.messages_in_max = 8;
  Start(SmallConfig(), config);
  EXPECT_EQ(Call(kMessageBytesMax + 1), SendResult::kTooLarge);
  SendOptions options;
  options.peer = to_b_;
  options.function = FunctionIdOf("test/nobody");
  ASSERT_EQ(a_->TrySend(options, {}, {}, now_ns_, nullptr), SendResult::kOk);
  for (int i = 0; i < 12; ++i) ASSERT_EQ(Call(10, 100 + i), SendResult::kOk);
  Run();
  int not_found = 0, exhausted = 0;
  for (const Event& event : Events(*a_)) {
    not_found += event.code == absl::StatusCode::kNotFound;
    exhausted += event.code == absl::StatusCode::kResourceExhausted;
    EXPECT_FALSE(event.maybe_executed);
  }
  EXPECT_EQ(not_found, 1);
  EXPECT_EQ(b_->counters().functions_unknown, 1u);
  EXPECT_EQ(b_->counters().drops[WEFT_DROP_NO_ROOM], 8u);
  EXPECT_EQ(exhausted, 8) << "of a pool of eight a peer gets as many as are left over";
}

TEST_F(CoreTest, TenantsLimitBoundsWhatItsMessagesHold) {
  Start(SmallConfig());
  b_->SetTenantLimit({1}, 100'000);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(Call(30'000, i), SendResult::kOk);
  Run();
  EXPECT_LE(b_->UseOf({1}).peak_bytes, 100'000u);
  int refused = 0;
  for (const Event& event : Events(*a_)) refused += event.code == absl::StatusCode::kResourceExhausted;
  EXPECT_EQ(refused, 7) << "three blocks of 32 KiB fit";
  a_->SetTenantLimit({0}, 10'000);
  EXPECT_EQ(Call(20'000), SendResult::kFull);
}

TEST_F(CoreTest, ResponseAboveTheReservedRoomIsTakenOnlyWhereTheTenantHasMemory) {
  Start(SmallConfig());
  for (const bool room : {true, false}) {
    a_->SetTenantLimit({0}, room ? 1u << 20 : 4096);
    ASSERT_EQ(Call(10, 1), SendResult::kOk);
    Run();
    for (const Event& event : Events(*b_)) {
      const std::string answer(20'000, 'x');
      b_->TryRespond(event.handle, absl::StatusCode::kOk, {},
                     Bytes(reinterpret_cast<const uint8_t*>(answer.data()), answer.size()), now_ns_);
      b_->Release(event);
    }
    RunFor(5'000'000);
    const auto ended = Events(*a_);
    ASSERT_EQ(ended.size(), 1u);
    EXPECT_EQ(ended[0].code, room ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ended[0].maybe_executed, true);
    a_->Release(ended[0]);
  }
  RunFor(5'000'000);
  EXPECT_EQ(b_->memory_used_bytes(), 0u);
}

TEST_F(CoreTest, SmallMessagesThatAreReadyShareADatagramAndNoneWaits) {
  Start(SmallConfig());
  for (int i = 0; i < 8; ++i) ASSERT_EQ(Call(64, i), SendResult::kOk);
  const uint64_t before = a_->counters().datagrams_out;
  Pump(*a_, port_a_, now_ns_);
  EXPECT_EQ(a_->counters().datagrams_out - before, 1u);
  ASSERT_EQ(Call(64, 9), SendResult::kOk);
  Pump(*a_, port_a_, now_ns_);
  EXPECT_EQ(a_->counters().datagrams_out - before, 2u) << "a lone message leaves at once";
  Run();
  EXPECT_EQ(EchoAll(*b_), 9);
}

TEST_F(CoreTest, CancelEndsTheCallAtOnceAndTellsTheCallee) {
  Start(SmallConfig());
  CallHandle handle;
  ASSERT_EQ(Call(10, 1, false, &handle), SendResult::kOk);
  Run();
  const auto requests = Events(*b_);
  ASSERT_EQ(requests.size(), 1u);
  a_->Cancel(handle, now_ns_);
  const auto ended = Events(*a_);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].code, absl::StatusCode::kCancelled);
  Run();
  const auto told = Events(*b_);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].kind, EventKind::kCancelled);
  EXPECT_EQ(told[0].handle.id, requests[0].handle.id);
  EXPECT_EQ(b_->TryRespond(requests[0].handle, absl::StatusCode::kOk, {}, {}, now_ns_), SendResult::kStale);
  b_->Release(requests[0]);
}

TEST_F(CoreTest, EveryOneOfManyCallsCancelledAtOnceIsToldToTheCallee) {
  Config config = SmallConfig();
  config.slots_per_peer = 256;
  Start(config);
  std::vector<CallHandle> handles(200);
  for (CallHandle& handle : handles) ASSERT_EQ(Call(10, 1, false, &handle), SendResult::kOk);
  Run();
  auto requests = Events(*b_);
  ASSERT_EQ(requests.size(), handles.size());
  for (const CallHandle& handle : handles) a_->Cancel(handle, now_ns_);
  EXPECT_EQ(Events(*a_).size(), handles.size());
  // Some slots are used anew before their last call's end could be told.
  for (int i = 0; i < 20; ++i) ASSERT_EQ(Call(10, 2), SendResult::kOk);
  RunFor(1'000'000);
  std::size_t cancelled = 0, begun = 0;
  for (const Event& event : Events(*b_)) {
    event.kind == EventKind::kCancelled ? ++cancelled : ++begun;
    if (event.kind == EventKind::kRequest) requests.push_back(event);
  }
  EXPECT_EQ(cancelled, handles.size());
  EXPECT_EQ(begun, 20u);
  for (const Event& event : requests) b_->Release(event);
}

// Nobody waits for them, so nobody would ask.
TEST_F(CoreTest, LargeAnswersToManyCallsCancelledAtOnceAreNotKept) {
  Config config = SmallConfig();
  config.slots_per_peer = 256;
  Start(config);
  std::vector<CallHandle> handles(150);
  for (CallHandle& handle : handles) ASSERT_EQ(Call(10, 1, false, &handle), SendResult::kOk);
  Run();
  const std::vector<uint8_t> answer(100'000, 1);
  for (const Event& event : Events(*b_)) {
    ASSERT_EQ(b_->TryRespond(event.handle, absl::StatusCode::kOk, Bytes(answer), {}, now_ns_),
              SendResult::kOk);
    b_->Release(event);
  }
  for (const CallHandle& handle : handles) a_->Cancel(handle, now_ns_);
  EXPECT_EQ(Events(*a_).size(), handles.size());
  EXPECT_GT(b_->memory_used_bytes(), 150u * 100'000);
  RunFor(5'000'000);
  EXPECT_EQ(b_->messages_out(), 0u);
  EXPECT_EQ(b_->memory_used_bytes(), 0u);
}

// A peer whose slots are all in use cannot have more executed by beginning them anew.
TEST_F(CoreTest, LargeAnswerToACallThatWasCancelledBeforeItCameIsNotKept) {
  Start(SmallConfig());
  std::string request;
  eat_ = [&request](uint64_t path, const std::string& wire) {
    const bool first = path == kPathToB && request.empty();
    if (first) request = wire;
    return first;
  };
  CallHandle handle;
  ASSERT_EQ(Call(10, 0, false, &handle), SendResult::kOk);
  Run();
  a_->Cancel(handle, now_ns_);
  EXPECT_EQ(Events(*a_).size(), 1u);
  RunFor(1'000'000);
  // The cancellation has overtaken the request, which is executed for nobody.
  port_b_.Deliver(reinterpret_cast<const uint8_t*>(request.data()), request.size());
  Run();
  const auto requests = Events(*b_);
  ASSERT_EQ(requests.size(), 1u);
  const std::vector<uint8_t> answer(100'000, 1);
  ASSERT_EQ(b_->TryRespond(requests[0].handle, absl::StatusCode::kOk, Bytes(answer), {}, now_ns_),
            SendResult::kOk);
  b_->Release(requests[0]);
  RunFor(5'000'000);
  EXPECT_EQ(b_->messages_out(), 0u);
  EXPECT_EQ(b_->memory_used_bytes(), 0u);
}

TEST_F(CoreTest, SlotThatIsUsedAnewCancelsWhatIsStillExecutedForIt) {
  Start(SmallConfig());
  std::vector<Event> executing;
  for (int round = 0; round < 200; ++round) {
    CallHandle handle;
    ASSERT_EQ(Call(10, 1, false, &handle), SendResult::kOk);
    Run();
    const auto events = Events(*b_);
    ASSERT_EQ(events.size(), round == 0 ? 1u : 2u);
    if (round > 0) {
      EXPECT_EQ(events[0].kind, EventKind::kCancelled);
      EXPECT_EQ(events[0].handle.id, executing.back().handle.id);
      EXPECT_EQ(events[0].handle.session, executing.back().handle.session);
      EXPECT_EQ(b_->TryRespond(executing.back().handle, absl::StatusCode::kOk, {}, {}, now_ns_),
                SendResult::kStale);
      b_->Release(executing.back());
    }
    EXPECT_EQ(events.back().kind, EventKind::kRequest);
    executing.push_back(events.back());
    // Nobody waits any more, and the callee does not hear of it: the packet is lost.
    eat_ = [](uint64_t, const std::string&) { return true; };
    a_->Cancel(handle, now_ns_);
    (void)Events(*a_);
    Run();
    eat_ = {};
  }
  EXPECT_EQ(SlotOf(executing.front().handle.id), SlotOf(executing.back().handle.id)) << "one slot in all";
}

TEST_F(CoreTest, EndOfASessionCancelsWhatIsExecutedForIt) {
  Start(SmallConfig());
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Call(10, 1), SendResult::kOk);
  Run();
  const auto requests = Events(*b_);
  ASSERT_EQ(requests.size(), 3u);
  Session(2);
  const auto told = Events(*b_);
  ASSERT_EQ(told.size(), 3u);
  for (const Event& event : told) {
    EXPECT_EQ(event.kind, EventKind::kCancelled);
    EXPECT_EQ(event.handle.session, requests[0].handle.session);
  }
  for (const Event& event : requests) b_->Release(event);
}

TEST_F(CoreTest, TimeLeftTravelsWithTheRequest) {
  Start(SmallConfig());
  SendOptions options;
  options.peer = to_b_;
  options.function = kEcho;
  options.timeout_ns = 5'000'000;
  ASSERT_EQ(a_->TrySend(options, {}, {}, now_ns_, nullptr), SendResult::kOk);
  now_ns_ += 1'000'000;
  Run();
  const auto requests = Events(*b_);
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].timeout_ns, 4'000'000u);
}

TEST_F(CoreTest, TimeThatALongRequestTakesToComeIsGoneForItsCallee) {
  Start(SmallConfig());
  const std::vector<uint8_t> payload(4'000'000, 1);
  SendOptions options;
  options.peer = to_b_;
  options.function = kEcho;
  const uint64_t began_ns = now_ns_;
  for (const uint64_t timeout_ns : {100'000'000, 100'000}) {
    options.timeout_ns = timeout_ns;
    ASSERT_EQ(a_->TrySend(options, {}, Bytes(payload), now_ns_, nullptr), SendResult::kOk);
  }
  std::vector<Event> requests;
  for (int round = 0; round < 10'000 && requests.size() < 2; ++round) {
    Run(1);
    for (const Event& event : Events(*b_)) {
      const uint64_t took_ns = now_ns_ - began_ns;
      ASSERT_GT(took_ns, 200'000u);
      requests.push_back(event);
      if (event.timeout_ns == 1) continue;
      // But for the way of the first frame.
      EXPECT_NEAR(static_cast<double>(event.timeout_ns), static_cast<double>(100'000'000 - took_ns), 20'000);
    }
  }
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(std::min(requests[0].timeout_ns, requests[1].timeout_ns), 1u);  // Nothing is left.
  for (const Event& event : requests) b_->Release(event);
}

TEST_F(CoreTest, ClockThatStepsBackTakesNoTimeFromARequestOfManySegments) {
  Start(SmallConfig());
  const std::vector<uint8_t> payload(3'000, 1);
  SendOptions options;
  options.peer = to_b_;
  options.function = kEcho;
  options.timeout_ns = 100'000'000;
  ASSERT_EQ(a_->TrySend(options, {}, Bytes(payload), now_ns_, nullptr), SendResult::kOk);
  std::string last;
  eat_ = [&](uint64_t, const std::string& wire) { return wire_.size() > 1 && (last = wire, true); };
  Run(3);
  ASSERT_FALSE(last.empty());
  ASSERT_TRUE(Events(*b_).empty());
  eat_ = {};
  now_ns_ -= 50'000;
  for (const std::string& wire : std::vector<std::string>(wire_))
    port_b_.Deliver(reinterpret_cast<const uint8_t*>(wire.data()), wire.size());
  Pump(*b_, port_b_, now_ns_);
  const std::vector<Event> requests = Events(*b_);
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].timeout_ns, 100'000'000u);
  b_->Release(requests[0]);
}

TEST_F(CoreTest, KeysRotateUnderLoadWithoutALostPacket) {
  Start(SmallConfig());
  int answered = 0;
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 8; ++i) ASSERT_EQ(Call(100, i), SendResult::kOk);
    // Between sending and receiving: packets under the old key are on the wire when the new one is installed.
    Pump(*a_, port_a_, now_ns_);
    if (round % 4 == 3) Rotate(static_cast<uint8_t>(1 + round / 4), 77);
    Run();
    EchoAll(*b_);
    Run();
    for (const Event& event : Events(*a_)) {
      answered += event.code == absl::StatusCode::kOk;
      a_->Release(event);
    }
  }
  EXPECT_EQ(answered, 320);
  EXPECT_EQ(a_->counters().packets_lost, 0u);
}

TEST_F(CoreTest, WireShowsOnlyCiphertext) {
  Start(SmallConfig());
  const std::string secret = "a sentence that nobody on the wire may read";
  SendOptions options;
  options.peer = to_b_;
  options.function = kEcho;
  ASSERT_EQ(a_->TrySend(options, {}, Bytes(reinterpret_cast<const uint8_t*>(secret.data()), secret.size()),
                        now_ns_, nullptr),
            SendResult::kOk);
  Run();
  EXPECT_EQ(EchoAll(*b_), 1);
  Run();
  ASSERT_GE(wire_.size(), 2u);
  for (const std::string& datagram : wire_) EXPECT_EQ(datagram.find(secret.substr(0, 8)), std::string::npos);
}

TEST_F(CoreTest, PacedLinkIsHandedNoMoreThanItCarries) {
  Config config = SmallConfig();
  config.link_bits_per_second = 1'000'000'000;  // A bit a nanosecond.
  Start(config);
  uint64_t bits = 0, most_ahead = 0;
  eat_ = [&](uint64_t path, const std::string& wire) {
    if (path == kPathToB) bits += (wire.size() + config.wire_overhead_bytes) * 8;
    return false;
  };
  ASSERT_EQ(Call(500'000, 0, true), SendResult::kOk);
  const uint64_t begin_ns = now_ns_;
  std::vector<Event> arrived;
  for (; arrived.empty() && now_ns_ < begin_ns + 20'000'000; now_ns_ += 1'000) {
    Pump(*a_, port_a_, now_ns_);
    Carry(port_a_, port_b_);
    Pump(*b_, port_b_, now_ns_);
    Carry(port_b_, port_a_);
    const uint64_t carried = now_ns_ - begin_ns;
    most_ahead = std::max(most_ahead, bits > carried ? bits - carried : 0);
    arrived = Events(*b_);
  }
  ASSERT_EQ(arrived.size(), 1u);
  b_->Release(arrived[0]);
  EXPECT_GE(now_ns_ - begin_ns, 3'900'000u) << "500 KB take 4 ms";
  EXPECT_LE(most_ahead, config.pacing_slack_ns + 3 * 1'600 * 8) << "the slack, and a few datagrams";
}

}  // namespace
}  // namespace weft::transport
