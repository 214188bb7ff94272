// SPDX-License-Identifier: Apache-2.0
// How calls go and end, over a real channel, both ends on one thread, with time that the test makes.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dataplane/call/trace_context.h"
#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

using absl::StatusCode;

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

}  // namespace
}  // namespace weft
