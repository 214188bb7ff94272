// SPDX-License-Identifier: Apache-2.0
// Calls over a real channel, both ends on one thread, with time that the test makes: the checks of the
// receiving side first, then how calls end.
#include "dataplane/call/call_core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dataplane/call/trace_context.h"
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

// --- What the receiver refuses and drops

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

// --- Forged responses

TEST(ResponseTest, ResponseOfAnotherPeerIsDropped) {
  CallPair pair;
  TestHost thief;
  auto [to_thief, from_thief] = Join(pair.caller, thief);
  pair.callee.handler = nullptr;
  Ended ended;
  std::array<std::byte, 8> response{};
  ASSERT_EQ(pair.Start(pair.Spec("x", response, ended)), StartState::kStarted);
  pair.callee.Turn();
  for (uint32_t id = 0; id < 200; ++id) {
    from_thief->channel->TrySend({.request_id = id, .kind = MessageKind::kResponse}, BytesOf("stolen"),
                                 Lane::kReply);
    from_thief->channel->Publish();
    pair.caller.Turn();
  }
  EXPECT_EQ(ended.count, 0);
  EXPECT_EQ(pair.caller.core.counters().responses_unexpected, 200u);
  EXPECT_EQ(response[0], std::byte{0});
  pair.callee.Answer(pair.callee.held.front(), StatusCode::kOk, "true");
  pair.Turn();
  EXPECT_EQ(ended.response, "true");
}

TEST(ResponseTest, SecondResponseIsDropped) {
  CallPair pair;
  pair.callee.handler = nullptr;
  Ended ended;
  std::array<std::byte, 8> response{};
  ASSERT_EQ(pair.Start(pair.Spec("x", response, ended)), StartState::kStarted);
  pair.callee.Turn();
  const uint32_t id = pair.callee.held.front().incoming.request_id;
  for (const char* text : {"one", "two"}) {
    pair.in->channel->TrySend({.request_id = id, .kind = MessageKind::kResponse}, BytesOf(text),
                              Lane::kReply);
  }
  pair.in->channel->Publish();
  pair.caller.Turn();
  EXPECT_EQ(ended.count, 1);
  EXPECT_EQ(ended.response, "one");
  EXPECT_EQ(pair.caller.core.counters().responses_unexpected, 1u);
}

// A hostile peer begins a response, then one for which there is no memory: the call is over, and what the
// first one still brings must not be written to the caller's buffer, which is the caller's again.
TEST(ResponseTest, NothingIsWrittenToTheBufferOfACallWhoseSecondResponseBrokeOff) {
  ByteBudget budget(500'000);
  CallPair pair({}, {.budget = &budget});
  pair.callee.handler = nullptr;
  Ended ended;
  std::vector<std::byte> response(300'000);
  ASSERT_EQ(pair.Start(pair.Spec("x", response, ended)), StartState::kStarted);
  pair.callee.Turn();
  const MessageHeader header{.request_id = pair.callee.held.front().incoming.request_id,
                             .kind = MessageKind::kResponse};
  Channel& channel = *pair.in->channel;
  const std::string payload(300'000, 'x');
  SendStream first, second;
  for (SendStream* stream : {&first, &second}) {
    ASSERT_TRUE(channel.TryStart(*stream, header, BytesOf(payload), Lane::kReply, NowNs()));
    ASSERT_TRUE(channel.producer().PushChunk(*stream));
    channel.Publish();
    pair.caller.Turn();
  }
  ASSERT_EQ(ended.count, 1);
  EXPECT_EQ(ended.code, StatusCode::kUnavailable);
  EXPECT_EQ(response[0], std::byte{'x'}) << "a part of the first one had come";
  std::fill(response.begin(), response.end(), std::byte{0});
  while (channel.producer().PushChunk(first)) {
  }
  channel.Publish();
  pair.caller.Turn();
  EXPECT_EQ(ended.count, 1);
  EXPECT_EQ(std::count(response.begin(), response.end(), std::byte{0}), 300'000);
  EXPECT_EQ(pair.out->outstanding, 0u);
}

TEST(ResponseTest, UnknownStatusCodeBecomesUnknown) {
  CallPair pair;
  pair.callee.handler = nullptr;
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec("x", {}, ended)), StartState::kStarted);
  pair.callee.Turn();
  const uint32_t id = pair.callee.held.front().incoming.request_id;
  pair.in->channel->TrySend({.request_id = id, .caller_index = 999, .kind = MessageKind::kResponse},
                            BytesOf("?"), Lane::kReply);
  pair.in->channel->Publish();
  pair.caller.Turn();
  EXPECT_EQ(ended.code, StatusCode::kUnknown);
}

TEST(ResponseTest, ResponseLongerThanItsBufferFailsWithBothSizes) {
  CallPair pair;
  Ended ended;
  std::array<std::byte, 10> response;
  ASSERT_EQ(pair.Start(pair.Spec("eleven byte", response, ended)), StartState::kStarted);
  pair.Turn();
  EXPECT_EQ(ended.code, StatusCode::kResourceExhausted);
  EXPECT_NE(ended.text.find("11"), std::string::npos) << ended.text;
  EXPECT_NE(ended.text.find("10"), std::string::npos) << ended.text;
  EXPECT_EQ(pair.caller.core.counters().responses_too_large, 1u);
  EXPECT_EQ(pair.caller.core.calls_in_flight(), 0u);
}

// --- How calls go and end

TEST(CallTest, EveryBoundarySizeComesBackUnchanged) {
  CallPair pair;
  std::vector<std::byte> response(1 << 21);
  for (const std::size_t bytes :
       {0u, 1u, 26u, 64u, 96u, 97u, 1024u, 4096u, 65535u, 65536u, 65537u, 200'000u, 1u << 20}) {
    const std::string request = Pattern(bytes, bytes);
    Ended ended;
    ASSERT_EQ(pair.Start(pair.Spec(request, response, ended)), StartState::kStarted) << bytes;
    for (int i = 0; i < 1000 && ended.count == 0; ++i) pair.Turn();
    ASSERT_EQ(ended.code, StatusCode::kOk) << bytes << " " << ended.text;
    ASSERT_TRUE(ended.response == request) << bytes;
  }
  EXPECT_EQ(pair.caller.core.calls_in_flight(), 0u);
  EXPECT_FALSE(pair.caller.core.Busy());
  EXPECT_FALSE(pair.callee.core.Busy());
}

TEST(CallTest, LongestMessageGoesAndOneByteMoreIsRefused) {
  CallPair pair;
  const uint32_t limit = kMessageBytesMaxDefault;
  std::string request = Pattern(1, limit);
  std::vector<std::byte> response(limit);
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec(request, response, ended)), StartState::kStarted);
  for (int i = 0; i < 10'000 && ended.count == 0; ++i) pair.Turn();
  ASSERT_EQ(ended.code, StatusCode::kOk) << ended.text;
  EXPECT_TRUE(ended.response == request);
  request.push_back('x');
  EXPECT_EQ(pair.Start(pair.Spec(request, response, ended)), StartState::kFailed);
  EXPECT_EQ(pair.caller.core.start_error().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(pair.caller.core.start_error().message().find("16777217"), std::string::npos);
  EXPECT_NE(pair.caller.core.start_error().message().find("16777216"), std::string::npos);
}

TEST(CallTest, ResponseLongerThanMessagesMayBeIsAnErrorAtTheCaller) {
  CallPair pair;
  pair.callee.handler = [](TestHost& host, const TestHost::Request& request) {
    host.Answer(request, StatusCode::kOk, std::string(kMessageBytesMaxDefault + 1, 'x'));
  };
  Ended ended;
  std::vector<std::byte> response(64);
  ASSERT_EQ(pair.Start(pair.Spec("x", response, ended)), StartState::kStarted);
  pair.Turn(3);
  EXPECT_EQ(ended.code, StatusCode::kResourceExhausted);
  EXPECT_NE(ended.text.find("16777217"), std::string::npos) << ended.text;
}

TEST(CallTest, SmallCallsPassALargeOne) {
  CallPair pair;
  const std::string large = Pattern(3, 8 << 20);
  std::vector<std::byte> large_response(8 << 20);
  Ended large_ended;
  ASSERT_EQ(pair.Start(pair.Spec(large, large_response, large_ended)), StartState::kStarted);
  int small_done = 0;
  for (int i = 0; i < 5; ++i) {
    Ended ended;
    std::array<std::byte, 8> response;
    ASSERT_EQ(pair.Start(pair.Spec("small", response, ended)), StartState::kStarted);
    for (int turn = 0; turn < 10 && ended.count == 0; ++turn) pair.Turn();
    ASSERT_EQ(ended.response, "small");
    small_done += large_ended.count == 0;
  }
  EXPECT_EQ(small_done, 5);
  for (int i = 0; i < 10'000 && large_ended.count == 0; ++i) pair.Turn();
  EXPECT_TRUE(large_ended.response == large);
}

TEST(CallTest, StatusAndTextOfTheFunctionArrive) {
  CallPair pair({}, {}, Policy{.retries = 0});
  for (int code = 1; code <= 16; ++code) {
    pair.callee.handler = [&](TestHost& host, const TestHost::Request& request) {
      host.Answer(request, static_cast<StatusCode>(code), absl::StrCat("because ", code));
    };
    Ended ended;
    ASSERT_EQ(pair.Start(pair.Spec("x", {}, ended)), StartState::kStarted);
    pair.Turn();
    EXPECT_EQ(static_cast<int>(ended.code), code);
    EXPECT_EQ(ended.text, absl::StrCat("because ", code));
    EXPECT_FALSE(ended.not_executed);
  }
}

TEST(CallTest, TraceContextTravelsAndTheBodyStaysWhole) {
  CallPair pair;
  const TraceContext trace =
      *TraceContext::FromTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  for (const std::size_t bytes : {0u, 5u, 70u, 71u, 5000u, 300'000u}) {
    const std::string body = Pattern(bytes, bytes);
    std::string seen;
    pair.callee.handler = [&](TestHost& host, const TestHost::Request& request) {
      EXPECT_EQ(request.incoming.flags & kFlagTrace, kFlagTrace);
      seen = request.payload;
      host.Answer(request, StatusCode::kOk, "");
    };
    Ended ended;
    CallSpec spec = pair.Spec(body, {}, ended);
    spec.request.prefix = trace.wire();
    ASSERT_EQ(pair.Start(spec), StartState::kStarted);
    for (int i = 0; i < 100 && ended.count == 0; ++i) pair.Turn();
    ASSERT_EQ(seen.size(), kTraceBytes + bytes);
    EXPECT_EQ(TraceContext::FromWire(BytesOf(seen).first<kTraceBytes>()), trace);
    EXPECT_TRUE(seen.substr(kTraceBytes) == body);
  }
}

TEST(CallTest, DeadlineComesFromThePolicyAndTravels) {
  CallPair pair({}, {}, Policy{.timeout_ns = 123 * kNsPerMs});
  pair.callee.handler = nullptr;
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec("x", {}, ended)), StartState::kStarted);
  pair.callee.Turn();
  ASSERT_EQ(pair.callee.held.size(), 1u);
  EXPECT_EQ(pair.callee.held.front().incoming.deadline_ns, pair.caller.now_ns + 123 * kNsPerMs);
}

TEST(CallTest, DeadlineEndsTheCallAndCancelsTheWork) {
  CallPair pair;
  pair.callee.handler = nullptr;
  Ended ended;
  std::array<std::byte, 8> response{};
  CallSpec spec = pair.Spec("x", response, ended);
  spec.deadline_ns = pair.caller.now_ns + 5 * kNsPerMs;
  ASSERT_EQ(pair.Start(spec), StartState::kStarted);
  pair.Turn();
  const TestHost::Request held = pair.callee.held.front();
  pair.AtTime(spec.deadline_ns + 2 * kNsPerMs);
  pair.Turn(2);
  EXPECT_EQ(ended.code, StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(ended.not_executed);
  EXPECT_EQ(pair.callee.cancelled, std::vector<uint32_t>{held.incoming.request_id});
  // The late answer finds nobody, and no memory of the caller's.
  pair.callee.Answer(held, StatusCode::kOk, "late");
  pair.Turn();
  EXPECT_EQ(ended.count, 1);
  EXPECT_EQ(response[0], std::byte{0});
  EXPECT_EQ(pair.caller.core.counters().responses_unexpected, 1u);
}

TEST(CallTest, CancelEndsTheCallOnce) {
  CallPair pair;
  pair.callee.handler = nullptr;
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec("x", {}, ended)), StartState::kStarted);
  pair.Turn();
  EXPECT_TRUE(pair.caller.core.Cancel(pair.handle));
  EXPECT_FALSE(pair.caller.core.Cancel(pair.handle));
  pair.Turn();
  EXPECT_EQ(ended.count, 1);
  EXPECT_EQ(ended.code, StatusCode::kCancelled);
  EXPECT_EQ(pair.callee.cancelled.size(), 1u);
}

TEST(CallTest, DeadlineInTheMiddleOfALargeResponseGivesTheBufferBack) {
  CallPair pair;
  pair.callee.handler = [](TestHost& host, const TestHost::Request& request) {
    host.Answer(request, StatusCode::kOk, Pattern(5, 4 << 20));
  };
  Ended ended;
  auto response = std::make_unique<std::vector<std::byte>>(4 << 20);
  CallSpec spec = pair.Spec("x", *response, ended);
  spec.deadline_ns = pair.caller.now_ns + kNsPerMs;
  ASSERT_EQ(pair.Start(spec), StartState::kStarted);
  pair.Turn(2);
  ASSERT_EQ(ended.count, 0);  // Some of it has come.
  pair.caller.now_ns += 10 * kNsPerMs;
  pair.caller.core.Advance(pair.caller.now_ns);
  ASSERT_EQ(ended.code, StatusCode::kDeadlineExceeded);
  response.reset();  // The address sanitizer watches what comes.
  pair.Turn(100);
  EXPECT_EQ(ended.count, 1);
  // The channel is as good as before.
  pair.callee.handler = [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
  Ended next;
  std::array<std::byte, 8> small;
  ASSERT_EQ(pair.Start(pair.Spec("after", small, next)), StartState::kStarted);
  pair.Turn(5);
  EXPECT_EQ(next.response, "after");
}

TEST(CallTest, DeadlineInTheMiddleOfALargeRequestGivesTheBufferBack) {
  CallPair pair;
  auto request = std::make_unique<std::string>(Pattern(6, 4 << 20));
  Ended ended;
  CallSpec spec = pair.Spec(*request, {}, ended);
  spec.deadline_ns = pair.caller.now_ns + kNsPerMs;
  ASSERT_EQ(pair.Start(spec), StartState::kStarted);
  pair.Turn();
  pair.caller.now_ns += 10 * kNsPerMs;
  pair.caller.core.Advance(pair.caller.now_ns);
  ASSERT_EQ(ended.code, StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(ended.not_executed);
  request.reset();
  pair.Turn(20);
  EXPECT_EQ(pair.callee.aborted, 1);
  EXPECT_EQ(pair.function->limit.calls(), 0u);
  EXPECT_TRUE(pair.callee.seen.empty());
}

TEST(CallTest, FullRingGivesNoRoomAndKeepsNothing) {
  CallPair pair;
  std::vector<Ended> ended(2000);
  std::size_t started = 0;
  while (started < ended.size()) {
    if (pair.Start(pair.Spec("x", {}, ended[started])) != StartState::kStarted) break;
    ++started;
  }
  ASSERT_LT(started, ended.size());
  EXPECT_EQ(pair.caller.core.calls_in_flight(), started);
  EXPECT_GE(pair.caller.core.counters().ring_full, 1u);
  pair.Settle();
  for (std::size_t i = 0; i < started; ++i) EXPECT_EQ(ended[i].count, 1);
  Ended next;
  EXPECT_EQ(pair.Start(pair.Spec("x", {}, next)), StartState::kStarted);
}

TEST(CallTest, FullTableGivesNoRoom) {
  CallPair pair({.calls_max = 2});
  pair.callee.handler = nullptr;
  std::array<Ended, 3> ended;
  EXPECT_EQ(pair.Start(pair.Spec("x", {}, ended[0])), StartState::kStarted);
  EXPECT_EQ(pair.Start(pair.Spec("x", {}, ended[1])), StartState::kStarted);
  EXPECT_EQ(pair.Start(pair.Spec("x", {}, ended[2])), StartState::kNoRoom);
}

// The caller floods and does not read: replies take their reserved room, then wait in the bounded backlog,
// and arrive when it reads again.
TEST(CallTest, RepliesWaitForAConsumerThatStopsReading) {
  CallPair pair({.calls_max = 2000, .reply_backlog_max = 2000});
  std::vector<Ended> ended(2000);
  std::array<std::byte, 64> response;
  std::size_t started = 0;
  for (int round = 0; round < 10'000 && started < ended.size(); ++round) {
    if (pair.Start(pair.Spec("ping", response, ended[started])) == StartState::kStarted) ++started;
    pair.callee.Turn();
  }
  ASSERT_EQ(started, ended.size());
  EXPECT_GT(pair.callee.core.counters().responses_backlogged, 100u);
  EXPECT_EQ(pair.callee.core.counters().responses_dropped, 0u);
  pair.Settle();
  for (const Ended& each : ended) ASSERT_EQ(each.code, StatusCode::kOk);
}

TEST(CallTest, BacklogOfRepliesIsBounded) {
  CallPair pair({.calls_max = 2000, .reply_backlog_max = 10});
  std::vector<Ended> ended(2000);
  std::size_t started = 0;
  for (int round = 0; round < 10'000 && started < ended.size(); ++round) {
    if (pair.Start(pair.Spec("ping", {}, ended[started])) == StartState::kStarted) ++started;
    pair.callee.Turn();
  }
  EXPECT_EQ(pair.in->reply_jobs, 10u);
  EXPECT_GT(pair.callee.core.counters().responses_dropped, 0u);
}

// --- Retries, and the death of peers

// One caller with routes to two callees.
struct Fork {
  explicit Fork(const Policy& policy) {
    for (int i = 0; i < 2; ++i) {
      auto [out, in] = Join(caller, callees[i], {}, "a", absl::StrCat("b", i));
      outs[i] = out;
      callees[i].core.Serve("test/echo", nullptr);
      callees[i].core.SetServePolicy("test/echo", policy);
      callees[i].core.SetAccess(*in, {{1, "test/caller", FunctionIdOf("test/echo")}});
      callees[i].handler = [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
    }
    route = &caller.core.Route("test/caller", "test/echo");
    caller.core.SetRoute(*route, {{outs[0]->index, 1, 1}, {outs[1]->index, 1, 1}}, policy, StatusCode::kOk,
                         "");
  }
  void Start(Ended& ended, std::span<std::byte> response) {
    CallSpec spec;
    spec.request = std::as_bytes(std::span("ping", sizeof("ping") - 1));
    spec.response = response;
    spec.done = Ended::Done;
    spec.context = &ended;
    CallHandle handle;
    ASSERT_EQ(caller.core.Start(*route, spec, caller.now_ns, &handle), StartState::kStarted);
    caller.core.Publish();
  }
  void Turn(int turns = 1) {
    for (int i = 0; i < turns; ++i) {
      for (TestHost& callee : callees) callee.Turn();
      caller.Turn();
    }
  }
  std::size_t Executed() const { return callees[0].seen.size() + callees[1].seen.size(); }

  TestHost caller;
  TestHost callees[2];
  Link* outs[2];
  RouteEntry* route;
};

TEST(RetryTest, RefusedCallRunsOnceAtTheOtherHost) {
  Fork fork(Policy{.retries = 1});
  fork.callees[0].core.StopServing(fork.callees[0].core.Function(FunctionIdOf("test/echo")));
  std::array<std::byte, 8> response;
  for (int i = 0; i < 100; ++i) {
    Ended ended;
    fork.Start(ended, response);
    fork.Turn(4);
    ASSERT_EQ(ended.code, StatusCode::kOk) << ended.text;
  }
  EXPECT_EQ(fork.callees[1].seen.size(), 100u);
  EXPECT_TRUE(fork.callees[0].seen.empty());
  EXPECT_EQ(fork.caller.core.counters().retries, fork.callees[0].core.counters().refused_absent);
  EXPECT_GT(fork.caller.core.counters().retries, 20u);
}

TEST(RetryTest, EndsWithTheLastErrorWhenAllRefuse) {
  Fork fork(Policy{.retries = 3});
  for (TestHost& callee : fork.callees) {
    callee.core.StopServing(callee.core.Function(FunctionIdOf("test/echo")));
  }
  Ended ended;
  fork.Start(ended, {});
  fork.Turn(10);
  EXPECT_EQ(ended.count, 1);
  EXPECT_EQ(ended.code, StatusCode::kUnavailable);
  EXPECT_EQ(fork.caller.core.counters().retries, 3u);
}

TEST(RetryTest, DeadPeerFailsWhatItHoldsAndLeavesTheSet) {
  Fork fork(Policy{.retries = 5});
  for (TestHost& callee : fork.callees) callee.handler = nullptr;
  std::vector<Ended> ended(20);
  std::array<std::byte, 8> response;
  for (Ended& each : ended) fork.Start(each, response);
  fork.Turn();
  const std::size_t lost = fork.callees[0].held.size();
  ASSERT_GT(lost, 0u);
  fork.caller.core.CloseLink(*fork.outs[0], StatusCode::kUnavailable, "host b0 is gone");
  std::size_t failed = 0;
  for (const Ended& each : ended) failed += each.code == StatusCode::kUnavailable;
  EXPECT_EQ(failed, lost);
  EXPECT_EQ(fork.caller.core.counters().calls_lost_to_peer, lost);
  // The others go on, and new ones go elsewhere.
  for (const TestHost::Request& request : fork.callees[1].held) fork.callees[1].Echo(request);
  fork.callees[1].handler = [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
  for (int i = 0; i < 20; ++i) {
    Ended next;
    fork.Start(next, response);
    fork.Turn(2);
    ASSERT_EQ(next.code, StatusCode::kOk);
  }
  EXPECT_EQ(fork.callees[0].held.size(), lost);
  for (const Ended& each : ended) EXPECT_EQ(each.count, 1);
}

TEST(RetryTest, IdempotentCallsMoveToTheOtherHostWhenAPeerDies) {
  Fork fork(Policy{.retries = 2, .idempotent = true});
  fork.callees[0].handler = nullptr;
  std::vector<Ended> ended(20);
  std::array<std::byte, 8> response;
  for (Ended& each : ended) fork.Start(each, response);
  fork.Turn();
  fork.caller.core.CloseLink(*fork.outs[0], StatusCode::kUnavailable, "host b0 is gone");
  for (int i = 0; i < 3; ++i) {
    fork.callees[1].Turn();
    fork.caller.Turn();
  }
  for (const Ended& each : ended) EXPECT_EQ(each.code, StatusCode::kOk);
}

TEST(RetryTest, LastPeerGoneFailsFurtherCallsWithItsReason) {
  CallPair pair;
  pair.caller.core.CloseLink(*pair.out, StatusCode::kUnavailable, "host b is gone");
  Ended ended;
  EXPECT_EQ(pair.Start(pair.Spec("x", {}, ended)), StartState::kFailed);
  EXPECT_EQ(pair.caller.core.start_error(), absl::UnavailableError("host b is gone"));
}

TEST(RetryTest, ReplyToAPeerThatIsGoneIsDropped) {
  CallPair pair;
  pair.callee.handler = nullptr;
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec("x", {}, ended)), StartState::kStarted);
  pair.Turn();
  pair.callee.core.CloseLink(*pair.in, StatusCode::kUnavailable, "gone");
  // Another peer takes the slot; the old call's answer must not reach it.
  TestHost other;
  auto [other_out, other_in] = Join(other, pair.callee);
  ASSERT_EQ(other_in->index, pair.in->index);
  pair.callee.Answer(pair.callee.held.front(), StatusCode::kOk, "old");
  pair.callee.core.Publish();
  other.Turn();
  EXPECT_EQ(other.core.counters().responses_received, 0u);
  EXPECT_EQ(pair.callee.core.counters().responses_dropped, 1u);
  EXPECT_EQ(pair.function->limit.calls(), 0u);
}

TEST(RetryTest, StartWithoutRouteTellsTheReason) {
  TestHost host;
  RouteEntry& route = host.core.Route("web/front", "vision/scale");
  host.core.SetRoute(route, {}, {}, StatusCode::kPermissionDenied,
                     "web/front may not call vision/scale: no rule");
  Ended ended;
  CallSpec spec;
  spec.done = Ended::Done;
  spec.context = &ended;
  CallHandle handle;
  EXPECT_EQ(host.core.Start(route, spec, 1, &handle), StartState::kFailed);
  EXPECT_EQ(host.core.start_error(),
            absl::PermissionDeniedError("web/front may not call vision/scale: no rule"));
  EXPECT_EQ(host.core.counters().no_route, 1u);
}

// --- One-way

TEST(OneWayTest, ArrivesOnceInOrderAndUnanswered) {
  CallPair pair;
  std::vector<std::string> seen;
  pair.callee.handler = [&](TestHost& host, const TestHost::Request& request) {
    EXPECT_TRUE(request.incoming.one_way());
    seen.push_back(request.payload);
    host.Answer(request, StatusCode::kOk, "nobody wants this");
  };
  CallSpec spec;
  bool in_parts = false;
  for (int i = 0; i < 1000; ++i) {
    const std::string message = absl::StrCat(i);
    spec.request = BytesOf(message);
    while (pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts) ==
           StartState::kNoRoom) {
      pair.caller.core.Publish();
      pair.Turn();
    }
  }
  pair.caller.core.Publish();
  pair.Settle();
  ASSERT_EQ(seen.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], absl::StrCat(i));
  EXPECT_EQ(pair.caller.core.counters().responses_received, 0u);
  EXPECT_EQ(pair.caller.core.counters().one_way_sent, 1000u);
  EXPECT_EQ(pair.callee.core.counters().one_way_received, 1000u);
  EXPECT_EQ(pair.function->limit.calls(), 0u);
}

// Takes runs whole, as libweft does, and runs them at once.
struct RunHost : TestHost {
  std::byte* OnRunBegin(const MessageRun& run) {
    block.resize(run.bytes + 1);
    return block.data();
  }
  void OnRun(const Incoming& first, const MessageRun& run, std::byte* payload) {
    ++runs;
    Incoming incoming = first;
    for (uint32_t i = 0; i < run.count; ++i, ++incoming.request_id) {
      ++seen[incoming.request_id];
      texts.emplace_back(reinterpret_cast<const char*>(payload), run.lengths[i]);
      payload += RunStride(run.lengths[i]);
      core.EndOneWay(incoming);
    }
  }
  int TakeRuns(Link& link) {
    LinkSink<RunHost> sink(core, *this, link);
    return link.channel->Poll(sink, 32);
  }
  std::vector<std::byte> block;
  std::vector<std::string> texts;
  int runs = 0;
};

struct RunPair {
  explicit RunPair(const Policy& policy = {}) {
    std::tie(out, in) = Join(caller, callee);
    function = &callee.core.Serve("test/echo", nullptr);
    callee.core.SetServePolicy("test/echo", policy);
    callee.core.SetAccess(*in, {{kTestCaller, "test/caller", FunctionIdOf("test/echo")}});
    route = &caller.core.Route("test/caller", "test/echo");
    caller.core.SetRoute(*route, {{.link = out->index, .weight = 1, .caller_index = kTestCaller}}, policy,
                         StatusCode::kOk, "");
    callee.handler = [](TestHost& host, const TestHost::Request& request) {
      host.Answer(request, StatusCode::kOk, "");
    };
    for (int i = 0; i < 20; ++i) texts.push_back(absl::StrCat("message ", i));
    for (const std::string& text : texts) messages.push_back(BytesOf(text));
  }
  StartState Send(uint64_t deadline_ns, uint32_t* sent) {
    return caller.core.SendRun(*route, messages, deadline_ns, sent);
  }
  RunHost caller, callee;
  Link* out;
  Link* in;
  LocalFunction* function;
  RouteEntry* route;
  std::vector<std::string> texts;
  std::vector<std::span<const std::byte>> messages;
};

TEST(RunTest, IsAdmittedWholeAndEachMessageRunsOnce) {
  RunPair pair;
  uint32_t sent = 0;
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(pair.Send(2 * kNsPerSecond, &sent), StartState::kStarted);
    ASSERT_EQ(sent, 20u);
    pair.callee.TakeRuns(*pair.in);
  }
  EXPECT_EQ(pair.callee.runs, 50);
  ASSERT_EQ(pair.callee.texts.size(), 1000u);
  for (std::size_t i = 0; i < 1000; ++i) EXPECT_EQ(pair.callee.texts[i], pair.texts[i % 20]);
  for (const auto& [id, times] : pair.callee.seen) EXPECT_EQ(times, 1) << id;
  const CallCounters& counters = pair.callee.core.counters();
  EXPECT_EQ(pair.caller.core.counters().one_way_sent, 1000u);
  EXPECT_EQ(pair.caller.core.counters().requests_sent, 1000u);
  EXPECT_EQ(counters.requests_received, 1000u);
  EXPECT_EQ(counters.requests_admitted, 1000u);
  EXPECT_EQ(counters.one_way_received, 1000u);
  EXPECT_EQ(pair.function->admitted, 1000u);
  EXPECT_EQ(pair.function->limit.calls(), 0u);
  EXPECT_EQ(pair.callee.core.incoming_in_flight(), 0u);
}

// What cannot be admitted whole is looked at message by message: each gets its own refusal.
TEST(RunTest, MessagesOfARunThatFailsACheckAreJudgedOneByOne) {
  uint32_t sent = 0;
  {
    RunPair pair(Policy{.calls_per_second_max = 1});
    ASSERT_EQ(pair.Send(2 * kNsPerSecond, &sent), StartState::kStarted);
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
    EXPECT_EQ(pair.callee.core.counters().requests_received, 20u);
    EXPECT_EQ(pair.callee.core.counters().requests_admitted, 1u);
    EXPECT_EQ(pair.callee.core.counters().refused_rate, 19u);
  }
  {
    RunPair pair(Policy{.concurrent_calls_max = 5});
    pair.callee.handler = nullptr;  // Held.
    ASSERT_EQ(pair.Send(2 * kNsPerSecond, &sent), StartState::kStarted);
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
    EXPECT_EQ(pair.callee.held.size(), 5u);
    EXPECT_EQ(pair.callee.core.counters().refused_concurrency, 15u);
  }
  {
    RunPair pair;
    ASSERT_EQ(pair.Send(kNsPerSecond / 2, &sent), StartState::kStarted);
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
    EXPECT_EQ(pair.callee.core.counters().dropped_expired, 20u);
  }
  {
    RunPair pair;
    pair.callee.core.SetAccess(*pair.in, {});
    ASSERT_EQ(pair.Send(2 * kNsPerSecond, &sent), StartState::kStarted);
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
    EXPECT_EQ(pair.callee.core.counters().refused_caller, 20u);
    EXPECT_EQ(pair.callee.runs, 0);
  }
}

// A peer that sends a run again, or one that reaches back, runs nothing twice.
TEST(RunTest, IdsOfARunAreTakenOnce) {
  RunPair pair;
  MessageHeader first{.function_id = pair.function->id.value,
                      .deadline_ns = 2 * kNsPerSecond,
                      .request_id = 10,
                      .caller_index = kTestCaller,
                      .kind = MessageKind::kOneWay};
  for (const uint32_t id : {10u, 10u, 25u, 28u}) {
    first.request_id = id;
    ASSERT_EQ(pair.out->channel->TrySendRun(first, pair.messages, Lane::kRequest), 20u);
    pair.out->channel->Publish();
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
  }
  // 10 to 29; none again; of 25 to 44 those above 29; of 28 to 47 those above 44.
  for (uint32_t id = 10; id < 48; ++id) EXPECT_EQ(pair.callee.seen[id], 1) << id;
  EXPECT_EQ(pair.callee.core.counters().requests_admitted, 38u);
  EXPECT_EQ(pair.callee.core.counters().dropped_duplicate, 42u);
}

TEST(OneWayTest, LongMessageGoesInPartsAndTellsItsEnd) {
  CallPair pair;
  std::string seen;
  pair.callee.handler = [&](TestHost& host, const TestHost::Request& request) {
    seen = request.payload;
    host.Answer(request, StatusCode::kOk, "");
  };
  const std::string message = Pattern(9, 3 << 20);
  Ended ended;
  CallSpec spec = pair.Spec(message, {}, ended);
  bool in_parts = false;
  ASSERT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts),
            StartState::kStarted);
  EXPECT_TRUE(in_parts);
  for (int i = 0; i < 1000 && ended.count == 0; ++i) pair.Turn();
  pair.Turn(5);
  EXPECT_EQ(ended.code, StatusCode::kOk);
  EXPECT_TRUE(seen == message);
}

// Nobody would learn how long its payload has to stay.
TEST(OneWayTest, LongMessageWithoutACallbackIsNotBegun) {
  CallPair pair;
  const std::string message = Pattern(9, 3 << 20);
  CallSpec spec;
  spec.request = BytesOf(message);
  bool in_parts = false;
  EXPECT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts),
            StartState::kNoRoom);
  EXPECT_FALSE(in_parts);
  EXPECT_FALSE(pair.caller.core.HasJobs());
  pair.Turn(5);
  EXPECT_EQ(pair.callee.core.counters().requests_received, 0u);
}

TEST(OneWayTest, RefusedOneWayIsCountedNotAnswered) {
  CallPair pair;
  pair.callee.core.SetAccess(*pair.in, {});
  CallSpec spec;
  spec.request = std::as_bytes(std::span("x", sizeof("x") - 1));
  bool in_parts = false;
  ASSERT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts),
            StartState::kStarted);
  pair.caller.core.Publish();
  pair.Turn();
  EXPECT_EQ(pair.callee.core.counters().refused_caller, 1u);
  EXPECT_EQ(pair.caller.core.counters().responses_received, 0u);
}

}  // namespace
}  // namespace weft
