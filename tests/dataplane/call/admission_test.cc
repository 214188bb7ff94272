// SPDX-License-Identifier: Apache-2.0
// What the receiving side refuses and drops, over a real channel, both ends on one thread, with time that the
// test makes: requests that a peer forges, that come too late or too often, and that it may not send.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

using absl::StatusCode;

// A request as a peer that keeps to no rule would write it.
void Forge(CallPair& pair, MessageHeader header, const std::string& payload = "forged") {
  ASSERT_TRUE(pair.out->channel->TrySend(header, BytesOf(payload), Lane::kRequest));
  pair.out->channel->Publish();
}

MessageHeader GoodHeader(uint32_t request_id) {
  return {.function_id = FunctionIdOf("test/echo").value,
          .deadline_ns = 0,
          .request_id = request_id,
          .caller_index = kTestCaller,
          .kind = MessageKind::kRequest};
}

TEST(AdmissionTest, ForgedCallerIndexIsRefusedAndCounted) {
  CallPair pair;
  for (const uint16_t index : {0, 4, 6, 65535}) {
    MessageHeader header = GoodHeader(100 + index);
    header.caller_index = index;
    Forge(pair, header);
    pair.Turn();
  }
  EXPECT_EQ(pair.callee.core.counters().refused_caller, 4u);
  EXPECT_EQ(pair.callee.core.counters().requests_admitted, 0u);
  // Each was answered, to nobody.
  EXPECT_EQ(pair.caller.core.counters().responses_unexpected, 4u);
}

TEST(AdmissionTest, ForgedFunctionIdIsRefusedAndCounted) {
  CallPair pair;
  pair.callee.core.Serve("test/secret", nullptr);
  MessageHeader header = GoodHeader(1);
  header.function_id = FunctionIdOf("test/secret").value;
  Forge(pair, header);
  header.request_id = 2;
  header.function_id = 0;
  Forge(pair, header);
  pair.Turn();
  EXPECT_EQ(pair.callee.core.counters().refused_function, 2u);
  EXPECT_EQ(pair.callee.core.counters().requests_admitted, 0u);
}

TEST(AdmissionTest, RefusalNamesCallerAndCallee) {
  CallPair pair;
  pair.callee.core.Serve("test/secret", nullptr);
  RouteEntry& secret = pair.caller.core.Route("test/caller", "test/secret");
  pair.caller.core.SetRoute(secret, {{.link = pair.out->index, .weight = 1, .caller_index = kTestCaller}}, {},
                            StatusCode::kOk, "");
  Ended ended;
  CallHandle handle;
  ASSERT_EQ(pair.caller.core.Start(secret, pair.Spec("x", {}, ended), pair.caller.now_ns, &handle),
            StartState::kStarted);
  pair.caller.core.Publish();
  pair.Turn();
  EXPECT_EQ(ended.code, StatusCode::kPermissionDenied);
  EXPECT_TRUE(ended.not_executed);
  EXPECT_NE(ended.text.find("test/caller"), std::string::npos) << ended.text;
  EXPECT_NE(ended.text.find("test/secret"), std::string::npos) << ended.text;
}

TEST(AdmissionTest, RequestIdIsTakenOnce) {
  CallPair pair;
  for (const uint32_t id : {70'007u, 70'007u, 70'003u, 70'008u, 70'008u, 70'009u, 70'007u, 4'474u}) {
    Forge(pair, GoodHeader(id));
  }
  pair.Turn();
  // Taken: 70,007 to 70,009; the last one lies just within the window behind them.
  EXPECT_EQ(pair.callee.seen.size(), 3u);
  for (const auto& [id, count] : pair.callee.seen) EXPECT_EQ(count, 1) << id;
  EXPECT_EQ(pair.callee.core.counters().dropped_duplicate, 5u);
  EXPECT_EQ(pair.callee.core.counters().requests_received, 8u);
}

TEST(AdmissionTest, FirstIdOfALinkMayBeAny) {
  for (const uint32_t first : {0u, 1u, 0x80000000u, 0xfffffff0u}) {
    CallPair pair;
    for (const uint32_t id : {first, first, first + 1}) Forge(pair, GoodHeader(id));
    pair.Turn();
    EXPECT_EQ(pair.callee.seen.size(), 2u) << first;
    EXPECT_EQ(pair.callee.core.counters().dropped_duplicate, 1u) << first;
  }
}

// Ids count a caller's calls on all its channels, so one that was idle for long finds them far ahead.
TEST(AdmissionTest, LinkThatWasIdleForMostIdsTakesWhatComesThen) {
  for (const uint32_t idle : {0x7fffffffu, 0x80000000u, 0xc0000000u, ~uint32_t{0} - kIdsBehind}) {
    CallPair pair;
    for (const uint32_t id : {5u, 5u + idle, 5u + idle, 6u + idle}) Forge(pair, GoodHeader(id));
    pair.Turn();
    EXPECT_EQ(pair.callee.seen.size(), 3u) << idle;
    EXPECT_EQ(pair.callee.core.counters().dropped_duplicate, 1u) << idle;
  }
}

// A hostile peer: two requests in parts with one id would share a record, and the flags that were checked of
// one would be those of the other.
TEST(AdmissionTest, IdOfARequestInPartsIsNotTakenAgainWhileItComes) {
  for (const bool others_between : {false, true}) {
    CallPair pair;
    std::vector<MessageKind> kinds;
    pair.callee.handler = [&](TestHost& host, const TestHost::Request& request) {
      EXPECT_EQ(request.incoming.flags, 0);
      kinds.push_back(request.incoming.kind);
      host.Answer(request, StatusCode::kOk, "");
    };
    Channel& channel = *pair.out->channel;
    const std::string payload = Pattern(1, 200'000);
    SendStream first, second;
    ASSERT_TRUE(channel.TryStart(first, GoodHeader(100), BytesOf(payload), Lane::kRequest, NowNs()));
    ASSERT_TRUE(channel.producer().PushChunk(first));
    channel.Publish();
    pair.callee.Turn();
    // Away, so that the window has nothing against the id any more.
    if (others_between) Forge(pair, GoodHeader(100 + 2 * kIdsBehind));
    MessageHeader again = GoodHeader(100);
    again.kind = MessageKind::kOneWay;
    again.flags = kFlagTrace;
    ASSERT_TRUE(channel.TryStart(second, again, BytesOf(payload), Lane::kRequest, NowNs()));
    ASSERT_TRUE(channel.producer().PushChunk(second));
    channel.Publish();
    pair.callee.Turn();
    EXPECT_EQ(pair.callee.core.counters().dropped_duplicate, 1u);
    for (SendStream* stream : {&first, &second}) {
      while (channel.producer().PushChunk(*stream)) {
      }
      channel.Publish();
    }
    pair.callee.Turn();
    EXPECT_EQ(kinds, std::vector<MessageKind>(others_between ? 2 : 1, MessageKind::kRequest));
    EXPECT_EQ(pair.callee.core.incoming_in_flight(), 0u);
  }
}

TEST(AdmissionTest, RequestIdsMayWrap) {
  CallPair pair;
  for (const uint32_t id : {0x7ffffff0u, 0xffffffe0u, 0xffffffffu, 0u, 1u, 0xffffffffu})
    Forge(pair, GoodHeader(id));
  pair.Turn();
  EXPECT_EQ(pair.callee.seen.size(), 5u);
  EXPECT_EQ(pair.callee.core.counters().dropped_duplicate, 1u);
}

TEST(AdmissionTest, ExpiredRequestIsDroppedAndCounted) {
  CallPair pair;
  Ended ended;
  std::array<std::byte, 8> response;
  CallSpec spec = pair.Spec("x", response, ended);
  spec.deadline_ns = pair.caller.now_ns + 1000;
  ASSERT_EQ(pair.Start(spec), StartState::kStarted);
  pair.AtTime(pair.caller.now_ns + 1000);
  pair.Turn();
  EXPECT_EQ(pair.callee.core.counters().dropped_expired, 1u);
  EXPECT_TRUE(pair.callee.seen.empty());
  EXPECT_EQ(ended.count, 0);
  pair.AtTime(pair.caller.now_ns + 10 * kNsPerMs);
  pair.Turn();
  EXPECT_EQ(ended.code, StatusCode::kDeadlineExceeded);
}

TEST(AdmissionTest, FunctionThatIsGoneIsUnavailableAndNotExecuted) {
  CallPair pair({}, {}, Policy{.retries = 0});
  pair.callee.core.StopServing(*pair.function);
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec("x", {}, ended)), StartState::kStarted);
  pair.Turn();
  EXPECT_EQ(ended.code, StatusCode::kUnavailable);
  EXPECT_TRUE(ended.not_executed);
  EXPECT_EQ(pair.callee.core.counters().refused_absent, 1u);
}

TEST(AdmissionTest, ConcurrencyAboveTheLimitIsRefusedAtOnce) {
  CallPair pair({}, {}, Policy{.retries = 0, .concurrent_calls_max = 2});
  pair.callee.handler = nullptr;  // Held
  std::array<Ended, 3> ended;
  for (Ended& each : ended) ASSERT_EQ(pair.Start(pair.Spec("x", {}, each)), StartState::kStarted);
  pair.Turn();
  EXPECT_EQ(ended[2].code, StatusCode::kResourceExhausted);
  EXPECT_TRUE(ended[2].not_executed);
  EXPECT_EQ(pair.callee.core.counters().refused_concurrency, 1u);
  // One that ends makes room for one.
  pair.callee.Answer(pair.callee.held.front(), StatusCode::kOk, "");
  Ended next;
  ASSERT_EQ(pair.Start(pair.Spec("x", {}, next)), StartState::kStarted);
  pair.Turn();
  EXPECT_EQ(ended[0].count, 1);
  EXPECT_EQ(next.count, 0);
  EXPECT_EQ(pair.callee.held.size(), 3u);
}

TEST(AdmissionTest, RateOfACallerIsLimitedOverAllItsChannels) {
  CallPair pair({}, {}, Policy{.retries = 0, .calls_per_second_max = 20});  // A bucket of 2
  TestHost second;
  auto [out, in] = Join(second, pair.callee);
  pair.callee.core.SetAccess(*in, {{9, "test/caller", FunctionIdOf("test/echo")}});
  RouteEntry& route = second.core.Route("test/caller", "test/echo");
  second.core.SetRoute(route, {{.link = out->index, .weight = 1, .caller_index = 9}}, Policy{.retries = 0},
                       StatusCode::kOk, "");
  std::array<Ended, 3> ended;
  std::array<std::byte, 8> response;
  ASSERT_EQ(pair.Start(pair.Spec("x", response, ended[0])), StartState::kStarted);
  pair.Turn();
  CallHandle handle;
  for (int i = 1; i < 3; ++i) {
    second.core.Start(route, pair.Spec("x", response, ended[static_cast<std::size_t>(i)]), second.now_ns,
                      &handle);
    second.core.Publish();
    pair.callee.Turn();
    second.Turn();
  }
  EXPECT_EQ(ended[0].code, StatusCode::kOk);
  EXPECT_EQ(ended[1].code, StatusCode::kOk);
  EXPECT_EQ(ended[2].code, StatusCode::kResourceExhausted);
  EXPECT_EQ(pair.callee.core.counters().refused_rate, 1u);
  // Time refills it.
  pair.AtTime(pair.caller.now_ns + 60 * kNsPerMs);
  Ended later;
  ASSERT_EQ(pair.Start(pair.Spec("x", response, later)), StartState::kStarted);
  pair.Turn();
  EXPECT_EQ(later.code, StatusCode::kOk);
}

TEST(AdmissionTest, LoopWithoutRoomRefusesWithResourceExhausted) {
  CallPair pair({}, {}, Policy{.retries = 0});
  pair.callee.refuse_requests = true;
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec("x", {}, ended)), StartState::kStarted);
  pair.Turn();
  EXPECT_EQ(ended.code, StatusCode::kResourceExhausted);
  EXPECT_TRUE(ended.not_executed);
  EXPECT_EQ(pair.callee.core.counters().refused_room, 1u);
  EXPECT_EQ(pair.callee.core.incoming_in_flight(), 0u);
  EXPECT_EQ(pair.function->limit.calls(), 0u);
}

TEST(AdmissionTest, RevokedCallerIsRefusedFromThenOn) {
  CallPair pair;
  Ended before;
  std::array<std::byte, 8> response;
  ASSERT_EQ(pair.Start(pair.Spec("x", response, before)), StartState::kStarted);
  pair.Turn();
  EXPECT_EQ(before.code, StatusCode::kOk);
  pair.callee.core.SetAccess(*pair.in, {});
  Ended after;
  ASSERT_EQ(pair.Start(pair.Spec("x", response, after)), StartState::kStarted);
  pair.Turn();
  EXPECT_EQ(after.code, StatusCode::kPermissionDenied);
  EXPECT_EQ(pair.callee.core.counters().requests_admitted, 1u);
}

TEST(AdmissionTest, TraceFlagWithoutItsBytesIsRefused) {
  CallPair pair;
  MessageHeader header = GoodHeader(1);
  header.flags = kFlagTrace;
  Forge(pair, header, std::string(kTraceBytes - 1, 'x'));
  pair.Turn();
  EXPECT_EQ(pair.callee.core.counters().refused_malformed, 1u);
  EXPECT_EQ(pair.callee.core.counters().requests_admitted, 0u);
}

// Random headers: whatever a peer writes, nothing that the table does not grant runs, nothing runs twice, and
// every message is counted exactly once.
TEST(AdmissionTest, ForgedHeadersNeverRunWhatIsNotGranted) {
  CallPair pair({.reply_backlog_max = 64}, {}, Policy{.concurrent_calls_max = 100});
  pair.callee.core.Serve("test/secret", nullptr);
  pair.callee.handler = [](TestHost& host, const TestHost::Request& request) {
    ASSERT_EQ(request.incoming.function->name, "test/echo");
    ASSERT_EQ(*request.incoming.caller, "test/caller");
    host.Echo(request);
  };
  Random random(11);
  const uint64_t ids[] = {FunctionIdOf("test/echo").value, FunctionIdOf("test/secret").value, 0, 77};
  int sent = 0;
  for (int i = 0; i < 30'000; ++i) {
    MessageHeader header;
    header.function_id = random.Below(8) == 0 ? random.Next() : ids[random.Below(4)];
    header.deadline_ns = random.Below(3) == 0 ? random.Below(2 * kNsPerSecond) : 0;
    header.request_id =
        random.Below(4) == 0 ? static_cast<uint32_t>(random.Next()) : static_cast<uint32_t>(i);
    header.caller_index = static_cast<uint16_t>(random.Below(3) == 0 ? random.Next() : kTestCaller);
    header.kind = random.Below(2) == 0 ? MessageKind::kRequest : MessageKind::kOneWay;
    header.flags = static_cast<uint8_t>(random.Below(4) == 0 ? random.Next() : 0);
    sent += pair.out->channel->TrySend(header, BytesOf(Pattern(7, random.Below(200))), Lane::kRequest);
    if (i % 16 == 0) {
      pair.out->channel->Publish();
      pair.Turn(2);
    }
  }
  pair.out->channel->Publish();
  pair.Settle();
  const CallCounters& c = pair.callee.core.counters();
  EXPECT_GT(sent, 20'000);
  EXPECT_GT(c.requests_admitted, 500u);
  EXPECT_EQ(c.requests_received, static_cast<uint64_t>(sent));
  EXPECT_EQ(c.requests_received, c.requests_admitted + c.dropped_duplicate + c.dropped_expired +
                                     c.refused_caller + c.refused_function + c.refused_absent +
                                     c.refused_malformed + c.refused_concurrency + c.refused_rate +
                                     c.refused_room);
  EXPECT_EQ(pair.function->limit.calls(), 0u);
  for (const auto& [id, count] : pair.callee.seen) ASSERT_EQ(count, 1) << id;
}

TEST(AdmissionTest, FunctionsThatComeAndGoLeaveNothingBehind) {
  CallPair pair;
  CallCore& core = pair.callee.core;
  Policy limited;
  limited.concurrent_calls_max = 7;
  core.SetServePolicy("test/promised", limited);  // Told before it is served.
  LocalFunction& kept = core.Function(FunctionIdOf("test/kept"));
  kept.held = 1;
  for (int i = 0; i < 5'000; ++i) {
    const std::string name = absl::StrCat("test/task", i);
    LocalFunction& task = core.Serve(name, nullptr);
    core.SetServePolicy(name, {});
    core.SetAccess(*pair.in, {{kTestCaller, "test/caller", FunctionIdOf("test/echo")},
                              {kTestCaller, "test/caller", FunctionIdOf(name)}});
    core.StopServing(task);
  }
  EXPECT_LE(core.functions_kept(), CallCore::kForgetMin);
  EXPECT_EQ(core.Function(FunctionIdOf("test/promised")).limit.calls_max(), 7u);
  EXPECT_EQ(&core.Function(FunctionIdOf("test/kept")), &kept);
  std::array<std::byte, 64> response;
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec("still here", response, ended)), StartState::kStarted);
  for (int i = 0; i < 10 && ended.count == 0; ++i) pair.Turn();
  EXPECT_EQ(ended.response, "still here");
}

}  // namespace
}  // namespace weft
