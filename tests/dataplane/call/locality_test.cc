// SPDX-License-Identifier: Apache-2.0
// Targets that share a channel, as the nodes behind a node engine do: load, failures and weights are each
// one's own. And nearer targets that are full, failing or gone.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

using absl::StatusCode;

// A caller with one channel to a host that answers for several nodes, told apart by the caller's index.
class Nodes {
 public:
  Nodes(const Policy& policy, std::vector<uint32_t> weights, std::vector<Distance> distances = {}) {
    const auto [out, in] = Join(caller, engine);
    link = out;
    engine.core.Serve("test/echo", nullptr);
    std::vector<AccessGrant> grants;
    std::vector<Target> targets;
    for (uint32_t i = 0; i < weights.size(); ++i) {
      const std::string node = absl::StrCat("n", i);
      grants.push_back({i + 1, absl::StrCat("test/caller@", node), FunctionIdOf("test/echo")});
      targets.push_back({.link = out->index,
                         .path = caller.core.PathOf(*out, node),
                         .weight = weights[i],
                         .caller_index = static_cast<uint16_t>(i + 1),
                         .distance = distances.empty() ? kElsewhere : distances[i]});
    }
    engine.core.SetAccess(*in, grants);
    engine.handler = [this](TestHost& host, const TestHost::Request& received) {
      const std::string node = received.incoming.caller->substr(sizeof("test/caller@") - 1);
      ++executions[node];
      if (keeps) return host.held.push_back(received);
      host.Answer(received, codes.contains(node) ? codes[node] : StatusCode::kOk, node);
    };
    route = &caller.core.Route("test/caller", "test/echo");
    caller.core.SetRoute(*route, targets, policy, StatusCode::kOk, "");
    caller.now_ns = engine.now_ns = NowNs();
  }

  Ended& Start() {
    calls.push_back(std::make_unique<Call>());
    CallSpec spec;
    spec.request = BytesOf(request);
    spec.response = calls.back()->response;
    spec.done = Ended::Done;
    spec.context = &calls.back()->ended;
    CallHandle handle;
    EXPECT_EQ(caller.core.Start(*route, spec, caller.now_ns, &handle), StartState::kStarted);
    return calls.back()->ended;
  }
  Ended& Run() {
    Ended& ended = Start();
    Settle();
    return ended;
  }
  void Settle() {
    for (int idle = 0; idle < 2; ++idle) {
      if (caller.Turn() + engine.Turn() != 0) idle = -1;
    }
  }

  struct Call {
    Ended ended;
    std::array<std::byte, 64> response;
  };
  TestHost caller, engine;
  Link* link = nullptr;
  RouteEntry* route = nullptr;
  std::map<std::string, uint64_t> executions;
  std::map<std::string, StatusCode> codes;
  bool keeps = false;
  std::vector<std::unique_ptr<Call>> calls;
  const std::string request = "hello";
};

TEST(LocalityTest, NodesBehindOneChannelShareCallsByWeightAndByWhatIsUnderWayThere) {
  Nodes nodes({}, {900, 100});
  for (int i = 0; i < 10'000; ++i) nodes.Run();
  EXPECT_GE(nodes.executions["n1"], 900u);
  EXPECT_LE(nodes.executions["n1"], 1'100u);

  Nodes held({}, {100, 100});
  held.keeps = true;
  for (int i = 0; i < 400; ++i) held.Start();
  held.Settle();
  EXPECT_NEAR(static_cast<double>(held.executions["n0"]), 200, 8) << "the emptier of two is taken";
  EXPECT_EQ(held.caller.core.Outstanding(*held.link), 400u);
}

TEST(LocalityTest, APartOfTheCallsFailsWithItsReasonAndIsTriedNowhereElse) {
  Nodes nodes({.retries = 2, .idempotent = true}, {300, 100});
  const std::vector<Target> targets(nodes.route->targets.targets().begin(),
                                    nodes.route->targets.targets().end());
  const auto refuse = [&](double part) {
    nodes.caller.core.SetRoute(*nodes.route, targets, {}, StatusCode::kUnavailable, "no Service b",
                               static_cast<uint32_t>(part * 0x1p32));
  };
  const auto one = [&] {
    CallSpec spec;
    spec.request = BytesOf(nodes.request);
    spec.done = [](void*, const CallOutcome&) {};
    CallHandle handle;
    return nodes.caller.core.Start(*nodes.route, spec, nodes.caller.now_ns, &handle);
  };
  refuse(0.1);
  int failed = 0;
  for (int i = 0; i < 10'000; ++i) {
    failed += one() == StartState::kFailed ? 1 : 0;
    nodes.Settle();
  }
  EXPECT_NEAR(failed, 1'000, 150);
  EXPECT_EQ(nodes.caller.core.start_error(), absl::UnavailableError("no Service b"));
  // The others go where they went.
  const uint64_t ran = nodes.executions["n0"] + nodes.executions["n1"];
  EXPECT_EQ(ran, 10'000u - static_cast<uint64_t>(failed));
  EXPECT_NEAR(static_cast<double>(nodes.executions["n1"]), static_cast<double>(ran) / 4, 200);
  // One that finds no room was drawn: it is not, each time that it comes again.
  refuse(0.5);
  nodes.keeps = true;
  StartState state = StartState::kFailed;
  for (int i = 0; i < 10'000 && state != StartState::kNoRoom; ++i) state = one();
  for (int i = 0; i < 1'000; ++i) ASSERT_EQ(one(), StartState::kNoRoom);
  refuse(0);
  nodes.keeps = false;
  nodes.Settle();
  EXPECT_EQ(one(), StartState::kStarted);
}

TEST(LocalityTest, ARetryGoesToAnotherNodeOverTheSameChannel) {
  Nodes nodes({.retries = 1, .idempotent = true}, {100, 100, 100});
  nodes.codes["n1"] = StatusCode::kUnavailable;
  for (int i = 0; i < 300; ++i) EXPECT_EQ(nodes.Run().code, StatusCode::kOk);
  EXPECT_GT(nodes.executions["n1"], 50u);
}

TEST(LocalityTest, ANodeThatFailsEveryCallIsLeftAloneAndTheChannelIsNot) {
  Nodes nodes({.outlier_failures = 5}, {100, 100, 100});
  nodes.codes["n1"] = StatusCode::kInternal;
  for (int i = 0; i < 1'000; ++i) nodes.Run();
  EXPECT_EQ(nodes.executions["n1"], 5u);
  EXPECT_EQ(nodes.route->targets.targets().size(), 2u);
}

TEST(LocalityTest, TheNearestServesUntilItFailsAndGetsATenthForItsProbe) {
  Nodes nodes({.retries = 2, .idempotent = true, .outlier_failures = 3, .outlier_eject_ns = kNsPerMs},
              {100, 100, 100}, {kSameZone, kElsewhere, kElsewhere});
  for (int i = 0; i < 100; ++i) nodes.Run();
  EXPECT_EQ(nodes.executions["n0"], 100u);
  nodes.codes["n0"] = StatusCode::kUnavailable;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(nodes.Run().code, StatusCode::kOk);
  EXPECT_GT(nodes.executions["n1"], 10u) << "all that are equally far take part";
  EXPECT_GT(nodes.executions["n2"], 10u);
  nodes.codes.clear();
  const uint64_t before = nodes.executions["n0"];
  // Real time, by which the ends of calls are dated; bounded by calls.
  for (int i = 0; i < 2'000'000 && nodes.executions["n0"] < before + 100; ++i) {
    nodes.Run();
    nodes.calls.clear();
  }
  EXPECT_GE(nodes.executions["n0"], before + 100);
}

TEST(LocalityTest, WhatANearNodeRefusesForWantOfRoomAFarOneTakes) {
  Nodes nodes({}, {100, 100}, {kSameNode, kElsewhere});
  nodes.codes["n0"] = StatusCode::kResourceExhausted;
  nodes.engine.handler = [&](TestHost& host, const TestHost::Request& request) {
    const bool near = *request.incoming.caller == "test/caller@n0";
    ++nodes.executions[near ? "n0" : "n1"];
    host.core.Reply(request.incoming, near ? StatusCode::kResourceExhausted : StatusCode::kOk, {}, nullptr,
                    nullptr, near);
  };
  for (int i = 0; i < 100; ++i) EXPECT_EQ(nodes.Run().code, StatusCode::kOk);
  EXPECT_EQ(nodes.executions["n1"], 100u);
}

TEST(LocalityTest, AFunctionOfThisHostThatIsFullSpillsOver) {
  Nodes nodes({}, {100});
  std::vector<Target> targets(nodes.route->targets.targets().begin(), nodes.route->targets.targets().end());
  targets.push_back({.link = kLocalLink, .weight = 100, .distance = kSameProcess});
  nodes.caller.core.SetRoute(*nodes.route, targets, {}, StatusCode::kOk, "");
  LocalFunction& function = nodes.caller.core.Serve("test/echo", nullptr);
  nodes.caller.core.SetServePolicy("test/echo", {.concurrent_calls_max = 1});
  CallHandle handle;
  CallSpec spec;
  EXPECT_EQ(nodes.caller.core.Start(*nodes.route, spec, nodes.caller.now_ns, &handle), StartState::kLocal);
  ASSERT_TRUE(nodes.caller.core.AdmitLocal(function, "test/caller", 0, 0).ok());
  EXPECT_EQ(nodes.Run().code, StatusCode::kOk);
  EXPECT_EQ(nodes.executions["n0"], 1u);
  nodes.caller.core.EndLocal(function);
  EXPECT_EQ(nodes.caller.core.Start(*nodes.route, spec, nodes.caller.now_ns, &handle), StartState::kLocal);
}

TEST(LocalityTest, MessagesToAFunctionOfThisHostThatIsFullSpillOver) {
  Nodes nodes({}, {100});
  CallCore& core = nodes.caller.core;
  std::vector<Target> targets(nodes.route->targets.targets().begin(), nodes.route->targets.targets().end());
  targets.push_back({.link = kLocalLink, .weight = 100, .distance = kSameProcess});
  core.SetRoute(*nodes.route, targets, {}, StatusCode::kOk, "");
  LocalFunction& function = core.Serve("test/echo", nullptr);
  core.SetServePolicy("test/echo", {.concurrent_calls_max = 1});
  CallSpec spec;
  spec.deadline_ns = 2 * kNsPerSecond;
  const std::vector<std::span<const std::byte>> run(kRunMessagesMin);
  bool in_parts = false;
  uint32_t sent = 0;
  const auto send = [&] { return core.SendOneWay(*nodes.route, spec, nodes.caller.now_ns, &in_parts); };
  const auto send_run = [&] { return core.SendRun(*nodes.route, run, spec.deadline_ns, &sent); };
  EXPECT_EQ(send(), StartState::kLocal);
  EXPECT_EQ(send_run(), StartState::kLocal);
  ASSERT_TRUE(core.AdmitLocal(function, "test/caller", 0, 0).ok());
  EXPECT_EQ(send(), StartState::kStarted);
  EXPECT_EQ(send_run(), StartState::kStarted);
  EXPECT_EQ(core.counters().one_way_sent, 1 + run.size());
  core.EndLocal(function);
  EXPECT_EQ(send(), StartState::kLocal);
  EXPECT_EQ(send_run(), StartState::kLocal);
  // One that nobody else may have either is left to this host, which says so.
  core.SetRoute(*nodes.route, {{.link = kLocalLink, .weight = 100}}, {}, StatusCode::kOk, "");
  ASSERT_TRUE(core.AdmitLocal(function, "test/caller", 0, 0).ok());
  EXPECT_EQ(send(), StartState::kLocal);
  EXPECT_EQ(send_run(), StartState::kLocal);
}

TEST(LocalityTest, PathsOfAChannelEndWithIt) {
  Nodes nodes({}, {100, 100});
  nodes.keeps = true;
  for (int i = 0; i < 10; ++i) nodes.Start();
  const uint32_t path = nodes.caller.core.PathOf(*nodes.link, "n0");
  nodes.caller.core.CloseLink(*nodes.link, StatusCode::kUnavailable, "died");
  EXPECT_TRUE(nodes.route->targets.empty());
  EXPECT_EQ(nodes.caller.core.Outstanding(*nodes.link), 0u);
  TestHost other;
  const auto [again, in] = Join(nodes.caller, other);
  EXPECT_EQ(nodes.caller.core.Outstanding(*again), 0u);
  EXPECT_LE(nodes.caller.core.PathOf(*again, "n7"), path + 1) << "places are used again";
}

TEST(LocalityTest, PathsToNodesThatHaveLeftAreUsedAgain) {
  Nodes nodes({.outlier_failures = 1, .outlier_eject_ns = kNsPerSecond}, {100, 100});
  nodes.codes["n0"] = StatusCode::kInternal;
  while (nodes.Run().code == StatusCode::kOk) {
  }
  ASSERT_EQ(nodes.route->targets.targets().size(), 1u) << "n0 is away";
  const uint32_t ejected = nodes.caller.core.PathOf(*nodes.link, "n0");
  const auto lead = [&](RouteEntry& route, const std::string& node) {
    const uint32_t path = nodes.caller.core.PathOf(*nodes.link, node);
    nodes.caller.core.SetRoute(route, {{.link = nodes.link->index, .path = path}}, {}, StatusCode::kOk, "");
    return path;
  };
  const uint32_t routed = lead(nodes.caller.core.Route("test/caller", "test/stays"), "routed");
  RouteEntry& other = nodes.caller.core.Route("test/caller", "test/other");
  const uint32_t called = lead(other, "called");
  CallHandle handle;
  ASSERT_EQ(nodes.caller.core.Start(other, {}, nodes.caller.now_ns, &handle), StartState::kStarted);
  for (int i = 0; i < 5000; ++i) {
    const uint32_t path = lead(other, absl::StrCat("passer-by-", i));
    ASSERT_LT(path, CallCore::kPathsMin) << i;
    ASSERT_TRUE(path != ejected && path != routed && path != called) << i;
  }
  EXPECT_EQ(nodes.caller.core.Outstanding(*nodes.link), 1u);
}

}  // namespace
}  // namespace weft
