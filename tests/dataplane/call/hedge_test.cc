// SPDX-License-Identifier: Apache-2.0
// Hedged calls over real channels to several hosts, on one thread.
#include <gtest/gtest.h>

#include <string>

#include "tests/dataplane/call/fan.h"

namespace weft {
namespace {

using absl::StatusCode;

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

TEST(HedgeTest, WhatIsNoLongerDeclaredIdempotentIsNotSentAgain) {
  for (const bool idempotent : {true, false}) {
    Fan fan(kHedging, 2);
    fan.Warm();
    for (auto& callee : fan.callees) callee->handler = nullptr;
    fan.Start();
    Policy policy = kHedging;
    policy.idempotent = idempotent;
    policy.outlier_failures = idempotent ? 0 : 5;  // There is something to learn all the same.
    const std::span<const Target> targets = fan.route->targets.targets();
    fan.caller.core.SetRoute(*fan.route, {targets.begin(), targets.end()}, policy, StatusCode::kOk, "");
    for (int i = 0; i < 10; ++i) fan.Start();  // Each earns for the budget.
    fan.SetTime(NowNs() + 50 * kNsPerMs);
    fan.Settle();
    EXPECT_EQ(fan.caller.core.counters().hedges != 0, idempotent);
  }
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
