// SPDX-License-Identifier: Apache-2.0
// The routing policy over two nodes as they ship: app/echo on hosts a and b of the near node and on host a of
// the far one, all equally near to the caller, which is on the near node. The far one answers late or fails.
// Figures of time are of the machine: those that count are told beside the same run without the policy.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/integration/load_run.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;

constexpr int kTagA = 1, kTagB = 2, kTagFar = 3;

class TwoNodePolicyTest : public TwoNodeTest {
 protected:
  void SetUp() override {
    TwoNodeTest::SetUp();
    if (IsSkipped()) return;
    far_run_.emplace(*far_);
    near_run_.emplace(*near_);
  }

  // Has app/echo behave as `policy` says, with these weights; an endpoint of weight 0 is left out.
  void SetPolicy(const std::string& policy, int a = 100, int b = 100, int far = 100) {
    const std::string zone = absl::StrCat("policy", ++policies_);
    std::string yaml = absl::StrCat(
        "version: 1\nnodes:\n- {name: n1, address: \"", VethPair::kNearAddress, ":4810\", zone: ", zone,
        ", call_as: [app]}\n- {name: n2, address: \"", VethPair::kFarAddress, ":4810\", call_as: [app]}\n",
        "functions:\n- {name: app/echo, timeout: 5s, locality: any", policy, "}\nendpoints:\n");
    const auto add = [&yaml](const char* node, const char* host, int weight) {
      if (weight == 0) return;
      absl::StrAppend(&yaml, "- {function: app/echo, node: ", node, ", host: ", host, ", weight: ", weight,
                      "}\n");
    };
    add("n1", "a", a);
    add("n1", "b", b);
    add("n2", "a", far);
    SetMesh(yaml);
    for (Mesh* node : {near_.get(), far_.get()})
      ASSERT_TRUE(node->WaitForCtl({"get", "nodes"}, absl::StrCat(" ", zone, " "))) << Logs();
  }
  // The caller's node knows the way to the far endpoint.
  void WaitFarRoute() {
    WaitReachable();
    ASSERT_TRUE(near_->WaitForCtl({"explain", "app", "app/echo"}, "node n2")) << Logs();
  }

  Process StartCalls(double seconds, int rate, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--first-id", absl::StrCat(clients_++ * 100'000)});
    return near_run_->StartClient(seconds, rate, std::move(more));
  }
  json Calls(double seconds, int rate, std::vector<std::string> more = {}) {
    Process client = StartCalls(seconds, rate, std::move(more));
    return near_run_->Finish(client);
  }
  // One after the other, so that where each goes depends on nothing but the draw.
  json CallsInTurn(int calls) { return Calls(1, calls, {"--in-turn"}); }

  uint64_t Near() const { return near_run_->Totals().executions; }
  uint64_t Far() const { return far_run_->Totals().executions; }
  uint64_t Executions() const { return Near() + Far(); }

  std::optional<LoadRun> far_run_;
  std::optional<LoadRun> near_run_;
  int policies_ = 0;
  int clients_ = 0;
};

double Ms(const json& ns) { return ns.get<double>() / 1e6; }

TEST_F(TwoNodePolicyTest, HedgesLowerTheTailFivefoldForSixPercentOfExecutions) {
  constexpr int kCalls = 3'000;
  Process a = near_run_->StartServer("a", kUidA, kTagA);
  Process b = near_run_->StartServer("b", kUidB, kTagB);
  Process far = far_run_->StartServer("a", kUidA, kTagFar, {"--late-every", "20", "--late-ms", "20"});
  SetPolicy("");
  WaitFarRoute();
  uint64_t before = Executions();
  const json plain = CallsInTurn(kCalls);
  EXPECT_EQ(plain["ok"], kCalls) << plain << Logs();
  EXPECT_EQ(Executions() - before, static_cast<uint64_t>(kCalls));
  EXPECT_GE(Ms(plain["p99_ns"]), 20) << "one in sixty is late";

  SetPolicy(", idempotent: true, hedge: {percentile: 95}");
  // A machine with other things to do can lengthen any run; hedges that do nothing help in none.
  double ratio = 0;
  for (int run = 0; run < 5 && ratio < 5; ++run) {
    before = Executions();
    const json hedged = CallsInTurn(kCalls);
    const uint64_t executions = Executions() - before;
    EXPECT_EQ(hedged["ok"], kCalls) << hedged << Logs();
    EXPECT_GT(executions, static_cast<uint64_t>(kCalls));
    EXPECT_LE(executions, kCalls * 106u / 100);
    ratio = Ms(plain["p99_ns"]) / Ms(hedged["p99_ns"]);
    std::printf("p99 %.2f ms, hedged %.2f ms (%.1f x), executions %.3f x calls\n", Ms(plain["p99_ns"]),
                Ms(hedged["p99_ns"]), ratio, static_cast<double>(executions) / kCalls);
  }
  EXPECT_GE(ratio, 5);
}

TEST_F(TwoNodePolicyTest, WhatIsNotDeclaredIdempotentCannotBeHedged) {
  SetPolicy("");
  const std::string mesh = ReadFile(near_->path("mesh.yaml"));
  near_->SetMesh(absl::StrReplaceAll(mesh, {{"locality: any", "locality: any, hedge: {percentile: 95}"}}));
  EXPECT_TRUE(near_->control().WaitForOutput("a hedge runs a call twice", absl::Seconds(10)))
      << near_->control().Output();
}

// Half of the calls want a hedge, since all targets are slow by turns; one in twenty gets one.
TEST_F(TwoNodePolicyTest, WhereAllTargetsAreSlowHedgesStopAtTheirBudget) {
  const std::vector<std::string> slow = {"--late-every", "1", "--late-ms", "16", "--late-ms-min", "1"};
  Process a = near_run_->StartServer("a", kUidA, kTagA, slow);
  Process b = near_run_->StartServer("b", kUidB, kTagB, slow);
  Process far = far_run_->StartServer("a", kUidA, kTagFar, slow);
  SetPolicy(", idempotent: true, hedge: {percentile: 50}");
  WaitFarRoute();
  const uint64_t before = Executions();
  const json result = Calls(1.5, 1000);
  const uint64_t calls = result["started"];
  EXPECT_EQ(result["ok"], calls) << result << Logs();
  const uint64_t hedges = result["counters"]["hedges"];
  std::printf("%lu calls, %lu hedges, %lu executions\n", calls, hedges, Executions() - before);
  EXPECT_GE(hedges, calls * 4 / 100);
  EXPECT_LE(hedges, calls * 5 / 100);
  EXPECT_LE(Executions() - before, calls * 105 / 100);
}

TEST_F(TwoNodePolicyTest, ATargetThatFailsIsEjectedAndReturnsAndAttemptsKeepToTheirBudget) {
  Process a = near_run_->StartServer("a", kUidA, kTagA, {"--fail", "--well"});
  Process b = near_run_->StartServer("b", kUidB, kTagB, {"--fail", "--well"});
  Process far = far_run_->StartServer("a", kUidA, kTagFar, {"--fail"});
  SetPolicy(", idempotent: true, retries: 5, retry_budget: 20, outlier: {failures: 5, eject: 200ms}");
  WaitFarRoute();
  // Five failures, and one of each probe: after 0.2, 0.6, 1.4, 3 s.
  Process client = StartCalls(60, 1000);
  EXPECT_TRUE(Eventually([&] { return Far() >= 6; })) << Logs();
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_LE(Far(), 10u);
  far.Signal(SIGUSR1);
  const uint64_t failures = Far();
  EXPECT_TRUE(Eventually([&] { return Far() > failures + 200; })) << "it has returned";
  client.Signal(SIGTERM);
  const json mended = near_run_->Finish(client);
  // The first calls have no retry saved up yet.
  EXPECT_LE(mended["started"].get<int>() - mended["ok"].get<int>(), 5) << mended << Logs();
  EXPECT_GT(mended["tags"][absl::StrCat(kTagFar)]["ok"], 200) << mended;

  // Two of three fail: no more than one is left alone, so the other goes on failing its share, or that of a
  // probe. Were both away, a dozen calls would fail.
  a.Signal(SIGUSR1);
  b.Signal(SIGUSR1);
  uint64_t before = Near();
  const json two = Calls(0.5, 2000);
  const uint64_t tried = Near() - before;
  EXPECT_GE(tried, two["started"].get<uint64_t>() / 10) << two;
  EXPECT_GT(two["tags"][absl::StrCat(kTagFar)]["ok"], 0) << two;

  // All fail: calls still go out, and retries keep to a fifth of the calls.
  far.Signal(SIGUSR1);
  before = Executions();
  const json all = Calls(0.5, 2000);
  const uint64_t calls = all["started"];
  const uint64_t attempts = Executions() - before;
  std::printf(
      "failures before the mend %lu; two of three fail: %lu tries of %lu calls; all fail: %.3f attempts "
      "a call\n",
      failures, tried, two["started"].get<uint64_t>(),
      static_cast<double>(attempts) / static_cast<double>(calls));
  EXPECT_EQ(all["ok"], 0) << all;
  EXPECT_LE(attempts, calls * 120 / 100);
  EXPECT_GE(attempts, calls * 115 / 100);
}

TEST_F(TwoNodePolicyTest, ASplitOfNinetyToTenSendsATenthToTheFarNode) {
  constexpr int kCalls = 10'000;
  Process b = near_run_->StartServer("b", kUidB, kTagB);
  Process far = far_run_->StartServer("a", kUidA, kTagFar);
  SetPolicy("", 0, 900, 100);
  WaitFarRoute();
  const json result = CallsInTurn(kCalls);
  EXPECT_EQ(result["ok"], kCalls) << result << Logs();
  const uint64_t away = Far();
  std::printf("%lu of %d calls went to the far node\n", away, kCalls);
  EXPECT_GE(away, kCalls * 9u / 100);
  EXPECT_LE(away, kCalls * 11u / 100);
}

}  // namespace
}  // namespace weft::test
