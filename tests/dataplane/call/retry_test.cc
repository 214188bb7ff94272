// SPDX-License-Identifier: Apache-2.0
// Further tries, and the death of peers.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

using absl::StatusCode;

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
    caller.core.SetRoute(
        *route, {{.link = outs[0]->index, .caller_index = 1}, {.link = outs[1]->index, .caller_index = 1}},
        policy, StatusCode::kOk, "");
  }
  void Start(Ended& ended, std::span<std::byte> response, absl::string_view request = "ping") {
    CallSpec spec;
    spec.request = std::as_bytes(std::span(request.data(), request.size()));
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

// Longer than what a ring takes before its reader comes: the refusal finds it on its way.
TEST(RetryTest, RefusedCallWithALongRequestRunsOnceAtTheOtherHost) {
  Fork fork(Policy{.retries = 1});
  fork.callees[0].core.StopServing(fork.callees[0].core.Function(FunctionIdOf("test/echo")));
  const std::string request = Pattern(1, 3 << 20);
  std::vector<std::byte> response(request.size());
  for (int i = 0; i < 20; ++i) {
    Ended ended;
    fork.Start(ended, response, request);
    for (int turn = 0; turn < 1000 && ended.count == 0; ++turn) fork.Turn();
    ASSERT_EQ(ended.code, StatusCode::kOk) << ended.text;
    ASSERT_TRUE(ended.response == request);
  }
  EXPECT_EQ(fork.callees[1].seen.size(), 20u);
  EXPECT_TRUE(fork.callees[0].seen.empty());
  EXPECT_GT(fork.caller.core.counters().retries, 0u);
  EXPECT_EQ(fork.caller.core.counters().responses_unexpected, 0u);
  EXPECT_FALSE(fork.caller.core.HasJobs());
  EXPECT_EQ(fork.caller.core.counters().channels_poisoned, 0u);
}

TEST(RetryTest, RefusalOfALongRequestEndsItsCallBeforeAllOfItIsSent) {
  CallPair pair({}, {}, Policy{.retries = 0});
  pair.callee.core.SetAccess(*pair.in, {});
  const std::string request = Pattern(1, 16 << 20);
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec(request, {}, ended)), StartState::kStarted);
  for (int turn = 0; turn < 1000 && ended.count == 0; ++turn) pair.Turn();
  EXPECT_EQ(ended.code, StatusCode::kPermissionDenied);
  EXPECT_TRUE(ended.not_executed);
  EXPECT_EQ(pair.caller.core.counters().requests_sent, 0u);
  EXPECT_EQ(pair.caller.core.Outstanding(*pair.out), 0u);
  EXPECT_FALSE(pair.caller.core.HasJobs());
  // The channel goes on.
  pair.callee.core.SetAccess(*pair.in, {{kTestCaller, "test/caller", FunctionIdOf("test/echo")}});
  std::array<std::byte, 8> response;
  Ended next;
  ASSERT_EQ(pair.Start(pair.Spec("ping", response, next)), StartState::kStarted);
  pair.Turn(2);
  EXPECT_EQ(next.response, "ping");
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

struct Canceller {
  static void Done(void* context, const CallOutcome& outcome) {
    auto& self = *static_cast<Canceller*>(context);
    Ended::Done(&self.ended, outcome);
    self.cancelled = self.core->Cancel(self.other);
  }
  CallCore* core;
  CallHandle other;
  Ended ended;
  bool cancelled = false;
};

TEST(RetryTest, TheEndOfACallThatWaitsMayCancelAnotherThatDoes) {
  CallPair pair({}, {}, Policy{.retries = 1});
  pair.callee.core.StopServing(*pair.function);
  Canceller canceller{.core = &pair.caller.core, .other = {}, .ended = {}};
  Ended other;
  CallSpec spec = pair.Spec("x", {}, canceller.ended);
  spec.done = Canceller::Done;
  spec.context = &canceller;
  ASSERT_EQ(pair.Start(spec), StartState::kStarted);
  ASSERT_EQ(pair.Start(pair.Spec("x", {}, other)), StartState::kStarted);
  canceller.other = pair.handle;
  // Where only this very host is left, calls that were refused wait.
  pair.caller.core.SetRoute(*pair.route, {{.link = kLocalLink, .weight = 1}}, Policy{.retries = 1},
                            StatusCode::kOk, "");
  pair.Turn(3);
  ASSERT_EQ(canceller.ended.count + other.count, 0);
  ASSERT_TRUE(pair.caller.core.HasJobs());
  pair.caller.core.SetRoute(*pair.route, {}, Policy{.retries = 1}, StatusCode::kUnavailable, "none left");
  pair.Turn();
  EXPECT_EQ(canceller.ended.code, StatusCode::kUnavailable);
  EXPECT_TRUE(canceller.cancelled);
  EXPECT_EQ(other.code, StatusCode::kCancelled);
  EXPECT_FALSE(pair.caller.core.HasJobs());
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

}  // namespace
}  // namespace weft
