// SPDX-License-Identifier: Apache-2.0
// Hedged calls, budgets and ejection over real channels to several hosts, on one thread.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

using absl::StatusCode;

constexpr Policy kHedging{
    .timeout_ns = 10 * kNsPerSecond, .idempotent = true, .hedge_percentile = 95, .hedge_budget_percent = 50};

// A caller and some hosts that serve one function.
class Fan {
 public:
  struct Call {
    Ended ended;
    std::vector<std::byte> response;
    CallHandle handle;
  };

  Fan(const Policy& policy, int hosts) {
    std::vector<Target> targets;
    for (int i = 0; i < hosts; ++i) {
      callees.push_back(std::make_unique<TestHost>());
      TestHost& callee = *callees.back();
      const auto [out, in] = Join(caller, callee);
      callee.core.Serve("test/echo", nullptr);
      callee.core.SetAccess(*in, {{kTestCaller, "test/caller", FunctionIdOf("test/echo")}});
      callee.handler = Echoing();
      targets.push_back({.link = out->index, .weight = 100, .caller_index = kTestCaller});
    }
    route = &caller.core.Route("test/caller", "test/echo");
    caller.core.SetRoute(*route, targets, policy, StatusCode::kOk, "");
    SetTime(NowNs());
  }

  static TestHost::Handler Echoing() {
    return [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
  }
  static TestHost::Handler Failing(StatusCode code) {
    return [code](TestHost& host, const TestHost::Request& request) { host.Answer(request, code, "no"); };
  }
  void SetTime(uint64_t now_ns) {
    caller.now_ns = now_ns;
    for (auto& callee : callees) callee->now_ns = now_ns;
  }
  // Until nothing comes any more. A turn publishes at its end, so one without messages is not the last.
  void Settle() {
    for (int idle = 0; idle < 2; ++idle) {
      int moved = caller.Turn();
      for (auto& callee : callees) moved += callee->Turn();
      if (moved != 0) idle = -1;
    }
  }
  // With `now_ns` and `deadline_ns` as a loop other than this one might give them.
  Call& Start(uint64_t now_ns = 0, uint64_t deadline_ns = 0) {
    calls.push_back(std::make_unique<Call>());
    Call& call = *calls.back();
    call.response.resize(response_bytes);
    CallSpec spec;
    spec.deadline_ns = deadline_ns;
    spec.request = BytesOf(request);
    spec.response = call.response;
    spec.done = Ended::Done;
    spec.context = &call.ended;
    EXPECT_EQ(caller.core.Start(*route, spec, now_ns != 0 ? now_ns : caller.now_ns, &call.handle),
              StartState::kStarted);
    return call;
  }
  void Warm() {
    for (int i = 0; i < 300; ++i) {
      Start();
      Settle();
    }
    calls.clear();
  }
  // All hosts keep what they get from now on. One call is sent, and hedged; returns who got it first, and
  // who second.
  Call& StartHedged(int* first, int* second) {
    for (auto& callee : callees) callee->handler = nullptr;
    Call& call = Start();
    Settle();
    *first = Holder(-1);
    SetTime(caller.now_ns + 50 * kNsPerMs);
    Settle();
    *second = Holder(*first);
    EXPECT_NE(*first, -1);
    EXPECT_NE(*second, -1);
    return call;
  }
  int Holder(int but) const {
    for (int i = 0; i < static_cast<int>(callees.size()); ++i) {
      if (i != but && !callees[static_cast<std::size_t>(i)]->held.empty()) return i;
    }
    return -1;
  }
  void Answer(int host, StatusCode code = StatusCode::kOk) {
    TestHost& callee = *callees[static_cast<std::size_t>(host)];
    const TestHost::Request held = callee.held.front();
    callee.held.pop_front();
    callee.Answer(held, code, held.payload);
    Settle();
  }
  std::size_t Executions() const {
    std::size_t sum = 0;
    for (const auto& callee : callees) sum += callee->seen.size();
    return sum;
  }
  void ExpectNothingLeft() {
    EXPECT_EQ(caller.core.calls_in_flight(), 0u);
    EXPECT_FALSE(caller.core.Busy());
    for (uint32_t i = 0; i < caller.core.links_count(); ++i) {
      EXPECT_EQ(caller.core.Outstanding(*caller.core.link(i)), 0u);
    }
  }

  TestHost caller;
  std::vector<std::unique_ptr<TestHost>> callees;
  RouteEntry* route = nullptr;
  std::vector<std::unique_ptr<Call>> calls;
  std::string request = "hello";
  std::size_t response_bytes = 64;
};

TEST(HedgeTest, TheSecondAnswersWhileTheFirstIsSilentAndTheFirstIsCancelled) {
  Fan fan(kHedging, 3);
  fan.Warm();
  int first, second;
  Fan::Call& call = fan.StartHedged(&first, &second);
  EXPECT_EQ(fan.caller.core.counters().hedges, 1u);
  EXPECT_EQ(call.ended.count, 0);
  fan.Answer(second);
  EXPECT_EQ(call.ended.count, 1);
  EXPECT_EQ(call.ended.code, StatusCode::kOk);
  EXPECT_EQ(call.ended.response, "hello");
  EXPECT_EQ(fan.callees[static_cast<std::size_t>(first)]->cancelled.size(), 1u);
  EXPECT_FALSE(fan.caller.core.Cancel(call.handle));
  fan.Answer(first);  // Late: nobody waits for it.
  EXPECT_EQ(call.ended.count, 1);
  EXPECT_EQ(fan.caller.core.counters().responses_unexpected, 1u);
  fan.ExpectNothingLeft();
}

TEST(HedgeTest, TheFirstMayStillWin) {
  Fan fan(kHedging, 3);
  fan.Warm();
  int first, second;
  Fan::Call& call = fan.StartHedged(&first, &second);
  fan.Answer(first);
  EXPECT_EQ(call.ended.count, 1);
  EXPECT_EQ(fan.callees[static_cast<std::size_t>(second)]->cancelled.size(), 1u);
  fan.ExpectNothingLeft();
}

TEST(HedgeTest, TheFailureOfOneIsNotTheCallsWhileTheOtherIsUnderWay) {
  for (const bool first_fails : {true, false}) {
    Fan fan(kHedging, 2);
    fan.Warm();
    int first, second;
    Fan::Call& call = fan.StartHedged(&first, &second);
    fan.Answer(first_fails ? first : second, StatusCode::kInternal);
    EXPECT_EQ(call.ended.count, 0);
    fan.Answer(first_fails ? second : first);
    EXPECT_EQ(call.ended.count, 1);
    EXPECT_EQ(call.ended.code, StatusCode::kOk);
    fan.ExpectNothingLeft();
  }
}

TEST(HedgeTest, WhereBothFailTheCallFailsOnce) {
  for (const bool first_fails_first : {true, false}) {
    Fan fan(kHedging, 2);
    fan.Warm();
    int first, second;
    Fan::Call& call = fan.StartHedged(&first, &second);
    fan.Answer(first_fails_first ? first : second, StatusCode::kInternal);
    fan.Answer(first_fails_first ? second : first, StatusCode::kNotFound);
    EXPECT_EQ(call.ended.count, 1);
    EXPECT_EQ(call.ended.code, StatusCode::kNotFound);
    fan.ExpectNothingLeft();
  }
}

TEST(HedgeTest, DeadlineAndCancellationEndBoth) {
  for (const bool one_has_failed : {false, true}) {
    for (const bool cancel : {false, true}) {
      Fan fan(kHedging, 2);
      fan.Warm();
      int first, second;
      Fan::Call& call = fan.StartHedged(&first, &second);
      if (one_has_failed) fan.Answer(first, StatusCode::kInternal);
      if (cancel) {
        EXPECT_TRUE(fan.caller.core.Cancel(call.handle));
      } else {
        fan.SetTime(fan.caller.now_ns + 11 * kNsPerSecond);
      }
      fan.Settle();
      EXPECT_EQ(call.ended.count, 1);
      EXPECT_EQ(call.ended.code, cancel ? StatusCode::kCancelled : StatusCode::kDeadlineExceeded);
      EXPECT_EQ(fan.callees[static_cast<std::size_t>(second)]->cancelled.size(), 1u);
      fan.ExpectNothingLeft();
    }
  }
}

// Guests' calls date their deadline before, and give it for the time as well.
TEST(HedgeTest, TheDelayCountsFromTheRealTimeOfTheCall) {
  Fan fan(kHedging, 2);
  fan.Warm();
  for (auto& callee : fan.callees) callee->handler = nullptr;
  const uint64_t deadline_ns = NowNs() + 10 * kNsPerSecond;
  fan.Start(deadline_ns, deadline_ns);
  fan.Settle();
  EXPECT_EQ(fan.caller.core.counters().hedges, 0u);
  fan.SetTime(NowNs() + 50 * kNsPerMs);
  fan.Settle();
  EXPECT_EQ(fan.caller.core.counters().hedges, 1u);
}

// One answers while the other's answer comes in parts: it is dropped, and does not come again, so the call
// must not wait for it once the other has broken off.
TEST(HedgeTest, AnAnswerThatWasDroppedIsNotWaitedFor) {
  for (const bool first_begins : {true, false}) {
    Fan fan(kHedging, 2);
    fan.Warm();
    fan.response_bytes = 300'000;
    int first, second;
    Fan::Call& call = fan.StartHedged(&first, &second);
    TestHost& slow = *fan.callees[static_cast<std::size_t>(first_begins ? first : second)];
    Channel& channel = *slow.core.link(0)->channel;
    const MessageHeader header{.request_id = slow.held.front().incoming.request_id,
                               .kind = MessageKind::kResponse};
    const std::string payload(300'000, 'x');
    SendStream stream;
    ASSERT_TRUE(channel.TryStart(stream, header, BytesOf(payload), Lane::kReply, NowNs()));
    ASSERT_TRUE(channel.producer().PushChunk(stream));
    channel.Publish();
    fan.Settle();
    fan.Answer(first_begins ? second : first);
    EXPECT_EQ(fan.caller.core.counters().responses_unexpected, 1u);
    EXPECT_EQ(call.ended.count, 0);
    channel.Abort(stream);
    channel.Publish();
    fan.Settle();
    EXPECT_EQ(call.ended.count, 1);
    EXPECT_EQ(call.ended.code, StatusCode::kUnavailable);
    fan.ExpectNothingLeft();
  }
}

TEST(HedgeTest, TheDeathOfOneHostLeavesTheCallToTheOther) {
  for (const bool first_dies : {true, false}) {
    Fan fan(kHedging, 2);
    fan.Warm();
    int first, second;
    Fan::Call& call = fan.StartHedged(&first, &second);
    const int dies = first_dies ? first : second;
    fan.caller.core.CloseLink(*fan.caller.core.link(static_cast<uint32_t>(dies)), StatusCode::kUnavailable,
                              "died");
    EXPECT_EQ(call.ended.count, 0);
    fan.Answer(first_dies ? second : first);
    EXPECT_EQ(call.ended.count, 1);
    EXPECT_EQ(call.ended.code, StatusCode::kOk);
    fan.ExpectNothingLeft();
  }
}

TEST(HedgeTest, WhatIsNotDeclaredIdempotentRunsOnce) {
  Policy policy = kHedging;
  policy.idempotent = false;
  Fan fan(policy, 3);
  fan.Warm();
  for (auto& callee : fan.callees) callee->handler = nullptr;
  fan.Start();
  fan.Settle();
  fan.SetTime(fan.caller.now_ns + kNsPerSecond);
  fan.Settle();
  EXPECT_EQ(fan.Executions(), 301u);
  EXPECT_EQ(fan.caller.core.counters().hedges, 0u);
}

TEST(HedgeTest, WhereAllAreSlowHedgesStopAtTheBudget) {
  Policy policy = kHedging;
  policy.hedge_budget_percent = 5;
  Fan fan(policy, 3);
  fan.Warm();
  for (auto& callee : fan.callees) callee->handler = nullptr;
  for (int i = 0; i < 1'000; ++i) {
    fan.Start();
    fan.Settle();
    fan.SetTime(fan.caller.now_ns + 3 * kNsPerMs);
    fan.Settle();
    for (int host = fan.Holder(-1); host != -1; host = fan.Holder(-1)) fan.Answer(host);
  }
  EXPECT_GT(fan.caller.core.counters().hedges, 10u);
  EXPECT_LE(fan.Executions(), 1'300u * 105 / 100);
  fan.ExpectNothingLeft();
}

TEST(OutlierTest, AHostThatFailsEveryCallIsLeftAloneWithinTen) {
  Fan fan({.outlier_failures = 5}, 3);
  fan.callees[1]->handler = Fan::Failing(StatusCode::kInternal);
  for (int i = 0; i < 1'000; ++i) {
    fan.Start();
    fan.Settle();
  }
  EXPECT_EQ(fan.callees[1]->seen.size(), 5u);
  EXPECT_EQ(fan.route->targets.targets().size(), 2u);
  EXPECT_EQ(fan.caller.core.counters().ejections, 1u);
  // The other hosts' channels close: the last one left is used, good or not.
  for (const uint32_t link : {0u, 2u}) {
    fan.caller.core.CloseLink(*fan.caller.core.link(link), StatusCode::kUnavailable, "died");
  }
  EXPECT_EQ(fan.route->targets.targets().size(), 1u);
  fan.callees[1]->handler = Fan::Echoing();
  Fan::Call& call = fan.Start();
  fan.Settle();
  EXPECT_EQ(call.ended.code, StatusCode::kOk);
}

TEST(OutlierTest, ItReturnsAfterAProbe) {
  Fan fan({.outlier_failures = 3, .outlier_eject_ns = kNsPerMs}, 2);
  fan.callees[0]->handler = Fan::Failing(StatusCode::kUnavailable);
  while (fan.route->targets.targets().size() == 2) {
    fan.Start();
    fan.Settle();
  }
  fan.callees[0]->handler = Fan::Echoing();
  const std::size_t before = fan.callees[0]->seen.size();
  // Real time, since the end of a call is dated by it; bounded by calls.
  for (int i = 0; i < 2'000'000 && fan.callees[0]->seen.size() < before + 100; ++i) {
    fan.Start();
    fan.Settle();
    fan.calls.clear();
  }
  EXPECT_GE(fan.callees[0]->seen.size(), before + 100);
}

TEST(RetryBudgetTest, AttemptsKeepToTheBudgetWhereAllFail) {
  Fan fan({.retries = 5, .idempotent = true, .retry_budget_percent = 20}, 3);
  for (auto& callee : fan.callees) callee->handler = Fan::Failing(StatusCode::kUnavailable);
  for (int i = 0; i < 1'000; ++i) {
    fan.Start();
    fan.Settle();
  }
  EXPECT_EQ(fan.caller.core.counters().requests_sent, 1'200u);
  EXPECT_EQ(fan.caller.core.counters().calls_failed, 1'000u);
}

// Requests that go out in parts are calls like any other: they earn for the budget, and their failures count.
TEST(RetryBudgetTest, LargeCallsEarnAsWell) {
  Fan fan({.retries = 5, .idempotent = true, .retry_budget_percent = 20}, 3);
  fan.request.resize(100'000);
  for (auto& callee : fan.callees) callee->handler = Fan::Failing(StatusCode::kUnavailable);
  for (int i = 0; i < 100; ++i) {
    fan.Start();
    fan.Settle();
  }
  EXPECT_EQ(fan.caller.core.counters().requests_sent, 120u);
  EXPECT_EQ(fan.caller.core.counters().calls_failed, 100u);
}

TEST(OutlierTest, FailuresOfLargeCallsCount) {
  Fan fan({.outlier_failures = 5}, 3);
  fan.request.resize(100'000);
  fan.response_bytes = 100'000;
  fan.callees[1]->handler = Fan::Failing(StatusCode::kInternal);
  for (int i = 0; i < 100; ++i) {
    fan.Start();
    fan.Settle();
  }
  EXPECT_EQ(fan.callees[1]->seen.size(), 5u);
  fan.ExpectNothingLeft();
}

// Whatever comes in whatever order: every call ends once, and nothing is left behind.
TEST(HedgeTest, EveryCallEndsOnceUnderRandomAnswersDeathsAndDeadlines) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Random random(seed);
    Policy policy = kHedging;
    policy.timeout_ns = 40 * kNsPerMs;
    policy.outlier_failures = 4;
    policy.retry_budget_percent = 50;
    Fan fan(policy, 4);
    fan.Warm();
    for (auto& callee : fan.callees) callee->handler = nullptr;
    for (int step = 0; step < 600; ++step) {
      const uint64_t what = random.Below(100);
      const int host = static_cast<int>(random.Below(4));
      if (what < 35 && !fan.route->targets.empty()) {
        fan.Start();
        if (random.Below(2) == 0) fan.Settle();
      } else if (what < 80) {
        if (fan.callees[static_cast<std::size_t>(host)]->held.empty()) continue;
        fan.Answer(host, random.Below(3) == 0 ? StatusCode::kUnavailable : StatusCode::kOk);
      } else if (what < 90) {
        fan.SetTime(fan.caller.now_ns + random.Below(10) * kNsPerMs);
        fan.Settle();
      } else if (what < 95 && !fan.calls.empty()) {
        (void)fan.caller.core.Cancel(fan.calls[random.Below(fan.calls.size())]->handle);
      } else if (what == 99 && step > 300) {
        Link* const link = fan.caller.core.link(static_cast<uint32_t>(host));
        if (link->channel) fan.caller.core.CloseLink(*link, StatusCode::kUnavailable, "died");
      }
    }
    fan.SetTime(fan.caller.now_ns + kNsPerSecond);
    fan.Settle();
    for (const auto& call : fan.calls) ASSERT_EQ(call->ended.count, 1) << seed;
    fan.ExpectNothingLeft();
  }
}

}  // namespace
}  // namespace weft
