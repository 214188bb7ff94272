// SPDX-License-Identifier: Apache-2.0
// Budgets of retries and ejection over real channels to several hosts, on one thread.
#include <gtest/gtest.h>

#include "tests/dataplane/call/fan.h"

namespace weft {
namespace {

using absl::StatusCode;

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

}  // namespace
}  // namespace weft
