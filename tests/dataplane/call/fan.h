// SPDX-License-Identifier: Apache-2.0
// A caller and several hosts that serve one function, over real channels, on one thread. For tests.
#ifndef WEFT_TESTS_DATAPLANE_CALL_FAN_H_
#define WEFT_TESTS_DATAPLANE_CALL_FAN_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/dataplane/call/call_pair.h"

namespace weft {

inline constexpr Policy kHedging{
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
    caller.core.SetRoute(*route, targets, policy, absl::StatusCode::kOk, "");
    SetTime(NowNs());
  }

  static TestHost::Handler Echoing() {
    return [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
  }
  static TestHost::Handler Failing(absl::StatusCode code) {
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
  void Answer(int host, absl::StatusCode code = absl::StatusCode::kOk) {
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

}  // namespace weft

#endif  // WEFT_TESTS_DATAPLANE_CALL_FAN_H_
