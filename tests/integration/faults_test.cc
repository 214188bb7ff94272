// SPDX-License-Identifier: Apache-2.0
// Deaths and stops of every process of a node, under load. What must hold each time: a call runs at most
// once, a success was executed and answered with its own bytes, and only calls that were in flight at a dead
// host fail.
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "tests/integration/load_run.h"

namespace weft::test {
namespace {

using nlohmann::json;

// Low enough for a dev build with both cores shared by five processes, high enough that each kill meets calls
// in flight.
constexpr int kRate = 5000;

class FaultsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Mesh::Privileged()) GTEST_SKIP() << "needs root: each host runs as a user of its own";
    mesh_.StartAgent();
  }

  // No call twice, none wrong, no success without execution.
  void ExpectSound(const json& result) {
    EXPECT_EQ(result["wrong"], 0);
    const Ledger::Totals totals = run_.Totals();
    EXPECT_EQ(totals.executed_twice, 0u);
    EXPECT_EQ(totals.ok_not_executed, 0u);
  }
  void ExpectAllSucceeded(const json& result) {
    ExpectSound(result);
    EXPECT_GT(result["started"], 0);
    EXPECT_EQ(result["ok"], result["started"]) << result.dump(1);
  }
  // Failures are of calls that were in flight at a host when it died, and say so.
  void ExpectOnlyUnavailable(const json& result, int failures_max) {
    ExpectSound(result);
    int failed = 0;
    for (const auto& [code, count] : result["codes"].items()) {
      EXPECT_EQ(code, "UNAVAILABLE") << result.dump(1);
      failed += count.get<int>();
    }
    EXPECT_LE(failed, failures_max) << result.dump(1);
    EXPECT_EQ(result["ok"].get<int>() + failed, result["started"].get<int>());
    std::printf("failed in flight: %d of %d, the slowest after %.2f ms\n", failed,
                result["started"].get<int>(), result["failed_max_ns"].get<double>() / 1e6);
  }

  Mesh mesh_{LoadTenants()};
  LoadRun run_{mesh_};
};

TEST_F(FaultsTest, CalleeHostKilledInALoopFailsOnlyWhatWasInFlightThere) {
  Process a = run_.StartServer("a", kUidA, 1);
  Process b = run_.StartServer("b", kUidB, 2);
  Process client = run_.StartClient(5, kRate);
  for (int round = 0; round < 5; ++round) {
    absl::SleepFor(absl::Milliseconds(300));
    Process& victim = round % 2 == 0 ? a : b;
    victim.Kill();
    absl::SleepFor(absl::Milliseconds(200));
    victim = round % 2 == 0 ? run_.StartServer("a", kUidA, 1) : run_.StartServer("b", kUidB, 2);
  }
  // Each death may meet what one channel holds: 48 requests in the ring, and those being served.
  ExpectOnlyUnavailable(run_.Finish(client), 5 * 64);
}

TEST_F(FaultsTest, GuestHostKilledInALoopFailsOnlyWhatWasInFlightThere) {
  run_.WithoutLedger();
  Process a = run_.StartGuestHost("a", kUidA, 1);
  Process b = run_.StartGuestHost("b", kUidB, 2);
  Process client = run_.StartClient(6, kRate);
  for (int round = 0; round < 5; ++round) {
    absl::SleepFor(absl::Milliseconds(300));
    Process& victim = round % 2 == 0 ? a : b;
    victim.Kill();
    absl::SleepFor(absl::Milliseconds(200));
    victim = round % 2 == 0 ? run_.StartGuestHost("a", kUidA, 1) : run_.StartGuestHost("b", kUidB, 2);
  }
  ExpectOnlyUnavailable(run_.Finish(client), 5 * 64);
}

TEST_F(FaultsTest, CalleeHostKilledWhileTheAgentIsStopped) {
  Process a = run_.StartServer("a", kUidA, 1);
  Process b = run_.StartServer("b", kUidB, 2);
  Process client = run_.StartClient(3, kRate);
  absl::SleepFor(absl::Milliseconds(500));
  mesh_.agent().Signal(SIGSTOP);
  a.Kill();
  absl::SleepFor(absl::Seconds(1));
  mesh_.agent().Signal(SIGCONT);
  ExpectOnlyUnavailable(run_.Finish(client), 64);
}

TEST_F(FaultsTest, CalleeHostKilledWhileTheAgentIsDead) {
  Process a = run_.StartServer("a", kUidA, 1);
  Process b = run_.StartServer("b", kUidB, 2);
  Process client = run_.StartClient(3, kRate);
  absl::SleepFor(absl::Milliseconds(500));
  mesh_.agent().Kill();
  a.Kill();
  absl::SleepFor(absl::Milliseconds(500));
  mesh_.StartAgent();
  ExpectOnlyUnavailable(run_.Finish(client), 64);
}

TEST_F(FaultsTest, AgentKilledAndRestartedInALoopFailsNoCall) {
  Process a = run_.StartServer("a", kUidA, 1);
  Process b = run_.StartServer("b", kUidB, 2);
  Process client = run_.StartClient(6, kRate);
  for (int round = 0; round < 5; ++round) {
    absl::SleepFor(absl::Milliseconds(300));
    mesh_.agent().Kill();
    absl::SleepFor(absl::Milliseconds(200));
    mesh_.StartAgent();
    ASSERT_TRUE(mesh_.WaitForHost("caller")) << mesh_.Ctl({"get", "hosts"}).output;
    ASSERT_TRUE(mesh_.WaitForHost("b"));
  }
  ExpectAllSucceeded(run_.Finish(client));
  // Everybody attached again: a new caller finds both.
  Process again = run_.StartClient(1, kRate, {"--first-id", "1000000"}, "caller2");
  const json result = run_.Finish(again);
  ExpectAllSucceeded(result);
  EXPECT_EQ(result["tags"].size(), 2u) << result.dump(1);
}

TEST_F(FaultsTest, ControlKilledInALoopChangesNothing) {
  mesh_.SetMesh(
      "version: 1\nnodes: [{name: n1}]\nfunctions: [{name: app/echo}]\nendpoints:\n"
      "  - {function: app/echo, node: n1, host: a}\n  - {function: app/echo, node: n1, host: b}\n");
  mesh_.StartControl();
  Process a = run_.StartServer("a", kUidA, 1);
  Process b = run_.StartServer("b", kUidB, 2);
  Process client = run_.StartClient(4, kRate);
  for (int round = 0; round < 5; ++round) {
    absl::SleepFor(absl::Milliseconds(300));
    mesh_.control().Kill();
    absl::SleepFor(absl::Milliseconds(100));
    mesh_.StartControl();
  }
  ExpectAllSucceeded(run_.Finish(client));
}

TEST_F(FaultsTest, CallerHostKilledInALoopLeavesOthersAlone) {
  Process a = run_.StartServer("a", kUidA, 1);
  Process steady = run_.StartClient(5, kRate / 2);
  for (int round = 0; round < 5; ++round) {
    Process victim =
        run_.StartClient(60, kRate / 2, {"--first-id", std::to_string(500'000 * (round + 1))}, "caller2");
    absl::SleepFor(absl::Milliseconds(300));
    victim.Kill();
  }
  const json result = run_.Finish(steady);
  ExpectAllSucceeded(result);
  EXPECT_TRUE(a.Running()) << a.Output();
}

TEST_F(FaultsTest, StoppedCalleeLetsDeadlinesFireAndTheOtherHostServes) {
  Process a = run_.StartServer("a", kUidA, 1);
  Process b = run_.StartServer("b", kUidB, 2);
  Process client = run_.StartClient(4, kRate, {"--timeout-ms", "200"});
  absl::SleepFor(absl::Milliseconds(500));
  a.Signal(SIGSTOP);
  absl::SleepFor(absl::Seconds(1));
  a.Signal(SIGCONT);
  const json result = run_.Finish(client);
  ExpectSound(result);
  for (const auto& [code, count] : result["codes"].items()) {
    EXPECT_TRUE(code == "DEADLINE_EXCEEDED" || code == "UNAVAILABLE") << result.dump(1);
  }
  // Least outstanding leads calls away from the stopped host: what fails is what was bound for it.
  EXPECT_GT(result["ok"].get<double>(), 0.9 * result["started"].get<double>()) << result.dump(1);
  EXPECT_GT(result["tags"]["1"]["last_start_ns"], result["tags"]["1"]["first_start_ns"]);
}

}  // namespace
}  // namespace weft::test
