// SPDX-License-Identifier: Apache-2.0
// Two steered nodes under load while faults of all kinds follow each other at random, several at a time. The
// seed of their order is WEFT_STORM_SEED, 1 by default; WEFT_STORM_ROUNDS, of 5 s each, makes a soak of it.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/integration/load_run.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  uint64_t value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

class NodeStormTest : public SteeredTwoNodeTest {
 protected:
  static constexpr double kRoundSeconds = 5;
  static constexpr int kRate = 500;  // Calls a second.
  static constexpr int kFaultsPerRound = 6;

  void SetUp() override {
    SteeredTwoNodeTest::SetUp();
    if (IsSkipped()) return;
    far_run_ = std::make_unique<LoadRun>(*far_);
    server_ = std::make_unique<Process>(StartServer());
    WaitReachable();
  }

  Process StartServer() {
    if (engine_inside_) return far_run_->StartGuestHost("a", kUidA, 1, {"--engine", "inside"});
    return far_run_->StartServer("a", kUidA, 1);
  }
  // Both kinds of server know their requests by their pattern, and say so.
  bool ServesAgain() {
    return Eventually([&] {
      return absl::StrContains(near_->Ctl({"call", "app/echo", "--as", "app", "of no pattern"}).error,
                               "DATA_LOSS");
    });
  }
  void Storm();

  // `from` to `to`, ms.
  void Sleep(int from, int to) {
    absl::SleepFor(absl::Milliseconds(std::uniform_int_distribution<int>(from, to)(random_)));
  }
  Mesh& EitherNode() { return random_() % 2 == 0 ? *near_ : *far_; }

  void KillServer() {
    server_->Kill();
    Sleep(0, 200);
    *server_ = StartServer();
  }
  void KillAgent() {
    Mesh& node = EitherNode();
    node.agent().Kill();
    Sleep(0, 300);
    node.StartAgent();
  }
  void StopAgent() {
    Mesh& node = EitherNode();
    node.agent().Signal(SIGSTOP);
    Sleep(10, 700);
    node.agent().Signal(SIGCONT);
  }
  void KillControl() {
    Mesh& node = EitherNode();
    node.control().Kill();
    Sleep(0, 300);
    node.StartControl();
  }
  void AttachAnew() {
    Mesh& node = EitherNode();
    ASSERT_TRUE(
        node.control().WaitForOutput("steer on ", absl::Seconds(20)));  // There is something to detach.
    node.control().Kill();
    node.RunControl({"--steer-detach", VethPair::kInterface});
    Sleep(0, 300);
    node.StartControl();
  }
  void TakeTheInterfaceDown() {
    const NetworkNamespace& network = random_() % 2 == 0 ? veth_->near() : veth_->far();
    network.Run({"/sbin/ip", "link", "set", VethPair::kInterface, "down"});
    Sleep(10, 500);
    network.Run({"/sbin/ip", "link", "set", VethPair::kInterface, "up"});
  }
  void RenewACertificate() { Issue(random_() % 2 == 0 ? "n1" : "n2", validity_); }
  void WithdrawAndDeclare() {
    const std::string declared = CommonMesh();
    SetMesh(declared.substr(0, declared.find("endpoints:")));
    Sleep(0, 300);
    SetMesh(declared);
  }

  struct Fault {
    const char* name;
    void (NodeStormTest::*cause)();
  };
  static constexpr Fault kFaults[] = {
      {"server killed", &NodeStormTest::KillServer},
      {"agent killed", &NodeStormTest::KillAgent},
      {"agent stopped", &NodeStormTest::StopAgent},
      {"control killed", &NodeStormTest::KillControl},
      {"steer attached anew", &NodeStormTest::AttachAnew},
      {"interface down", &NodeStormTest::TakeTheInterfaceDown},
      {"certificate renewed", &NodeStormTest::RenewACertificate},
      {"endpoint withdrawn", &NodeStormTest::WithdrawAndDeclare},
  };

  // Resident memory (KiB) and open descriptors of a process, for the log of a soak.
  static std::string SizeOf(Process& process) {
    const std::string proc = absl::StrCat("/proc/", process.pid());
    std::string resident = "?";
    for (const std::string& line :
         std::vector<std::string>(absl::StrSplit(ReadFile(proc + "/status"), '\n'))) {
      if (absl::StartsWith(line, "VmRSS:"))
        resident = std::string(absl::StripAsciiWhitespace(line.substr(6)));
    }
    const auto descriptors = std::distance(std::filesystem::directory_iterator(proc + "/fd"), {});
    return absl::StrCat(resident, " ", descriptors, " descriptors");
  }

  std::mt19937_64 random_;
  std::unique_ptr<LoadRun> far_run_;
  std::unique_ptr<Process> server_;
};

class InsideStormTest : public NodeStormTest {
 protected:
  InsideStormTest() { engine_inside_ = true; }
};

void NodeStormTest::Storm() {
  const uint64_t seed = FromEnvironment("WEFT_STORM_SEED", 1);
  const uint64_t rounds = FromEnvironment("WEFT_STORM_ROUNDS", 1);
  random_.seed(seed);
  std::printf("WEFT_STORM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  LoadRun near_run(*near_);
  if (engine_inside_) near_run.WithoutLedger();  // Guests cannot write it.
  std::string history;
  uint64_t first_id = 0;
  for (uint64_t round = 0; round < rounds && !HasFailure(); ++round) {
    Process client = near_run.StartClient(kRoundSeconds, kRate, {"--first-id", absl::StrCat(first_id)});
    first_id += static_cast<uint64_t>(kRoundSeconds * kRate);
    history = absl::StrCat("seed ", seed, ", round ", round, ":");
    for (int i = 0; i < kFaultsPerRound; ++i) {
      const Fault& fault = kFaults[random_() % std::size(kFaults)];
      absl::StrAppend(&history, " ", fault.name, ",");
      (this->*fault.cause)();
      Sleep(0, 300);
    }
    const nlohmann::json result = near_run.Finish(client);
    EXPECT_EQ(result["wrong"], 0) << history << result;
    EXPECT_GT(result["started"], 0) << history << result;
    for (const auto& [code, count] : result["codes"].items()) {
      EXPECT_TRUE(code == "UNAVAILABLE" || code == "DEADLINE_EXCEEDED" || code == "NOT_FOUND")
          << history << result;
    }
    EXPECT_EQ(far_run_->Totals().executed_twice, 0u) << history;
    EXPECT_TRUE(ServesAgain()) << history << Logs();
    std::printf("%s ok %d of %d, n1 %s, n2 %s\n", history.c_str(), result["ok"].get<int>(),
                result["started"].get<int>(), SizeOf(near_->agent()).c_str(), SizeOf(far_->agent()).c_str());
    std::fflush(stdout);
  }
}

TEST_F(NodeStormTest, WhateverFailsCallsEndSoundAndFlowAgain) { Storm(); }
TEST_F(InsideStormTest, WhateverFailsCallsEndSoundAndFlowAgain) { Storm(); }

}  // namespace
}  // namespace weft::test
