// SPDX-License-Identifier: Apache-2.0
// Two nodes as they ship: weftd in two network namespaces joined by a veth pair, weft-control and hosts on
// each, TLS between the agents, packets over UDP. Deaths, revocation and forgery under load.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/integration/load_run.h"
#include "tests/integration/two_node_fixture.h"
#include "tests/support/network.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

// All that passes an interface, searched for texts.
class Capture {
 public:
  Capture(const NetworkNamespace& where, std::vector<std::string> texts) : texts_(std::move(texts)) {
    const InNamespace inside(where);
    fd_ = UniqueFd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    EXPECT_TRUE(fd_.valid());
    const timeval wait{0, 20'000};
    EXPECT_EQ(setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), 0);
    thread_ = std::thread([this] {
      std::string packet(65536, '\0');
      while (!stop_.load()) {
        const ssize_t bytes = recv(fd_.get(), packet.data(), packet.size(), 0);
        if (bytes <= 0) continue;
        ++packets_;
        const absl::string_view whole(packet.data(), static_cast<std::size_t>(bytes));
        for (const std::string& text : texts_) found_ += absl::StrContains(whole, text) ? 1 : 0;
      }
    });
  }
  ~Capture() { Stop(); }
  void Stop() {
    stop_.store(true);
    if (thread_.joinable()) thread_.join();
  }
  int packets() const { return packets_; }
  int found() const { return found_; }

 private:
  const std::vector<std::string> texts_;
  UniqueFd fd_;
  std::atomic<bool> stop_{false};
  std::atomic<int> packets_{0};
  std::atomic<int> found_{0};
  std::thread thread_;
};

TEST_F(TwoNodeTest, CallsGoBothWaysAndTheWireShowsCiphertextOnly) {
  near_->SetMesh(
      absl::StrCat("version: 1\nnodes:\n- {name: n1, address: \"10.77.0.1:4810\", call_as: [app]}\n"
                   "- {name: n2, address: \"10.77.0.2:4810\", call_as: [app]}\n",
                   kFunctions, "- {name: app/back}\nendpoints:\n- {function: app/echo, node: n2, host: a}\n",
                   "- {function: app/back, node: n1, host: b}\n"));
  far_->SetMesh(ReadFile(near_->path("mesh.yaml")));
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  Process back =
      near_->Start("weft-test-echo", {"--name", "b", "--serve", "app/back", "--tag", "2"}, kUidB, "back.log");
  ASSERT_TRUE(back.WaitForOutput("serving", absl::Seconds(20))) << back.Output();
  WaitReachable();
  Process client = near_run.StartClient(2, 2000);
  const nlohmann::json there = near_run.Finish(client);
  EXPECT_EQ(there["ok"], there["started"]) << there << Logs();
  EXPECT_GT(there["ok"], 3000);
  Process caller = far_->Start(
      "weft-test-load", {"--function", "app/back", "--seconds", "1", "--rate", "2000", "--name", "caller"},
      kUidCaller, "load.back.log");
  const nlohmann::json back_again = far_run.Finish(caller);
  EXPECT_EQ(back_again["ok"], back_again["started"]) << back_again << Logs();

  const std::string secret = "the quick brown fox jumps over the lazy dog";
  Capture capture(veth_->near(), {secret, "app/echo"});
  const Ran ran = near_->Ctl({"call", "app/echo", "--as", "app", secret});
  EXPECT_THAT(ran.error, HasSubstr("DATA_LOSS")) << "the server knows its requests by their pattern";
  capture.Stop();
  EXPECT_GT(capture.packets(), 0);
  EXPECT_EQ(capture.found(), 0);
  const std::string status = near_->Ctl({"status"}).output;
  EXPECT_THAT(status, HasSubstr("packet_port"));
  EXPECT_THAT(status, HasSubstr("10.77.0.1:4810"));
  EXPECT_THAT(status, HasSubstr("datagrams_in"));
}

// From the first packet on: certificates, names and keys are as little to be read as what is called.
class WiretapTest : public TwoNodeTest {
 protected:
  void SetUp() override {
    if (!Prepare()) GTEST_SKIP() << "needs root: two namespaces, several users";
    capture_ = std::make_unique<Capture>(
        veth_->near(), std::vector<std::string>{"two-node.test", "spiffe://", "app/echo", kSecret});
    // The tap works: this it finds.
    check_ = std::make_unique<Capture>(veth_->near(), std::vector<std::string>{"in the clear"});
    near_ = MakeNode("n1", veth_->near(), VethPair::kNearAddress);
    far_ = MakeNode("n2", veth_->far(), VethPair::kFarAddress);
    SetMesh(CommonMesh());
    for (Mesh* node : {near_.get(), far_.get()}) {
      node->StartAgent();
      node->StartControl();
    }
  }
  static constexpr char kSecret[] = "the quick brown fox jumps over the lazy dog";
  std::unique_ptr<Capture> capture_;
  std::unique_ptr<Capture> check_;
};

TEST_F(WiretapTest, NeitherNamesNorCallsAreOnTheWireFromTheFirstPacketOn) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  for (int i = 0; i < 5; ++i)
    EXPECT_THAT(near_->Ctl({"call", "app/echo", "--as", "app", kSecret}).error, HasSubstr("DATA_LOSS"));
  {
    const InNamespace inside(veth_->near());
    const UniqueFd plain(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(9);
    inet_pton(AF_INET, VethPair::kFarAddress, &to.sin_addr);
    const std::string text = "this is in the clear";
    EXPECT_EQ(sendto(plain.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof(to)),
              static_cast<ssize_t>(text.size()));
  }
  EXPECT_TRUE(Eventually([&] { return check_->found() > 0; }));
  capture_->Stop();
  EXPECT_GT(capture_->packets(), 20);
  EXPECT_EQ(capture_->found(), 0);
}

TEST_F(TwoNodeTest, AHostThatIsKilledFailsItsCallsAndServesAgain) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  Process client = near_run.StartClient(6, 1000);
  for (int i = 0; i < 3; ++i) {
    absl::SleepFor(absl::Milliseconds(700));
    server.Kill();
    absl::SleepFor(absl::Milliseconds(300));
    server = far_run.StartServer("a", kUidA, 1);
  }
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["wrong"], 0);
  EXPECT_GT(result["ok"], 3000) << result;
  for (const auto& [code, count] : result["codes"].items()) EXPECT_EQ(code, "UNAVAILABLE") << result;
  // At once: far below the timeout of 1 s.
  EXPECT_LT(result["failed_max_ns"], 500'000'000) << result;
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
  EXPECT_TRUE(Answers(*near_));
}

TEST_F(TwoNodeTest, AnAgentThatIsKilledFailsCallsThereAndIsFoundAgain) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  Process client = near_run.StartClient(6, 1000);
  for (int i = 0; i < 3; ++i) {
    absl::SleepFor(absl::Milliseconds(500));
    far_->agent().Signal(SIGKILL);
    absl::SleepFor(absl::Milliseconds(200));
    far_->StartAgent();
    absl::SleepFor(absl::Milliseconds(800));
  }
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["wrong"], 0);
  EXPECT_GT(result["ok"], 2000) << result << Logs();
  for (const auto& [code, count] : result["codes"].items()) EXPECT_EQ(code, "UNAVAILABLE") << result;
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
  EXPECT_TRUE(Answers(*near_)) << Logs();
}

TEST_F(TwoNodeTest, ControlThatIsKilledChangesNothing) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  Process client = near_run.StartClient(2, 1000);
  near_->control().Kill();
  far_->control().Kill();
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result;
}

TEST_F(TwoNodeTest, WhereTheNearHostIsKilledTheFarOneServesAndTrafficReturns) {
  SetMesh(absl::StrCat("version: 1\nnodes:\n- {name: n1, address: \"", VethPair::kNearAddress,
                       ":4810\", zone: z, call_as: [app]}\n- {name: n2, address: \"", VethPair::kFarAddress,
                       ":4810\", zone: z, call_as: [app]}\nfunctions:\n- {name: app/echo, idempotent: true, "
                       "retries: 3, outlier: {failures: 5}}\nendpoints:\n"
                       "- {function: app/echo, node: n1, host: b}\n"
                       "- {function: app/echo, node: n2, host: a}\n"));
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process far_server = far_run.StartServer("a", kUidA, 1);
  Process near_server = near_run.StartServer("b", kUidB, 2);
  WaitReachable();
  ASSERT_TRUE(near_->WaitForCtl({"explain", "app", "app/echo"}, "node n2, in this zone")) << Logs();
  Process before = near_run.StartClient(0.5, 1000);
  const nlohmann::json near_only = near_run.Finish(before);
  EXPECT_EQ(near_only["tags"]["2"]["ok"], near_only["started"]) << near_only << Logs();
  Process client = near_run.StartClient(4, 1000);
  absl::SleepFor(absl::Milliseconds(500));
  near_server.Kill();
  absl::SleepFor(absl::Seconds(1));
  near_server = near_run.StartServer("b", kUidB, 2);
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  ASSERT_TRUE(result["tags"].contains("1") && result["tags"].contains("2")) << result;
  EXPECT_GT(result["tags"]["1"]["ok"], 500) << result;
  EXPECT_LT(result["tags"]["2"]["first_start_ns"], result["tags"]["1"]["first_start_ns"]) << result;
  EXPECT_GT(result["tags"]["2"]["last_start_ns"], result["tags"]["1"]["last_start_ns"]) << "it has returned";
}

TEST_F(TwoNodeTest, ACallerThatTheOtherNodeDoesNotKnowIsRefused) {
  // The control of n2 does not let n1 call as app; n1's own does.
  far_->SetMesh(CommonMesh("zone: z"));
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  EXPECT_TRUE(far_->WaitForCtl({"get", "nodes"}, " z "));
  Process client = near_run.StartClient(1, 200);
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], 0) << result;
  EXPECT_EQ(result["codes"]["PERMISSION_DENIED"], result["started"]) << result;
  EXPECT_EQ(far_run.Totals().executed, 0u);
  EXPECT_THAT(far_->Ctl({"status"}).output, HasSubstr("engine_refused_caller"));
  EXPECT_THAT(
      near_->Ctl({"call", "app/echo", "--as", "app", "x"}).error,
      HasSubstr("caller app may not call app/echo from node n1: it has no endpoint there, and `call_as` of "
                "that node does not name it"));
  EXPECT_EQ(CounterOf(*near_, "engine:n1", "uid"), kAgentUid);
  // Where its own control does not say so either, it is known here what will come of a call.
  EXPECT_EQ(near_->Ctl({"explain", "app", "app/echo"}).exit_code, 0);
  near_->SetMesh(CommonMesh("zone: z"));
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, " z ")) << Logs();
  const Ran explained = near_->Ctl({"explain", "app", "app/echo"});
  EXPECT_EQ(explained.exit_code, 1);
  EXPECT_THAT(explained.output, HasSubstr("other nodes refuse it: `call_as` of node n1 does not name app"));
  EXPECT_THAT(near_->Ctl({"explain", "app/front", "app/echo"}).output,
              HasSubstr("no source places app/front on node n1"));
}

TEST_F(TwoNodeTest, WhatFailsOnTheOtherNodeIsSaidToFailThere) {
  WaitReachable();
  EXPECT_THAT(near_->Ctl({"call", "app/echo", "--as", "app", "x"}).error,
              HasSubstr("UNAVAILABLE: node n2: no host of app/echo is ready: host a: not attached"));
  // The node engine is listed among the hosts, and is none.
  const Ran drained = near_->Ctl({"drain", "engine:n1"});
  EXPECT_EQ(drained.exit_code, 1);
  EXPECT_THAT(drained.error, HasSubstr("engine:n1 is no host but the node engine"));
  EXPECT_THAT(near_->Ctl({"get", "hosts"}).output, testing::Not(HasSubstr("draining")));
}

TEST_F(TwoNodeTest, WhyANodeHasNoKeysIsToldWithIt) {
  WaitReachable();
  EXPECT_THAT(near_->agent().Output(), HasSubstr("node n2 is reachable"));
  const std::string mesh = CommonMesh();
  const std::string none = absl::StrReplaceAll(mesh, {{"address: \"10.77.0.2:4810\", ", ""}});
  near_->SetMesh(none);
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "no source says its address")) << Logs();
  EXPECT_TRUE(near_->agent().WaitForOutput("node n2 is not reachable any more", absl::Seconds(10))) << Logs();
  EXPECT_TRUE(far_->WaitForCtl({"get", "nodes"}, "unknown_node: the peer says so")) << Logs();
}

TEST_F(TwoNodeTest, ARevokedRuleHoldsForCallsFromTheOtherNode) {
  const std::string allowed =
      absl::StrCat(CommonMesh("call_as: [app, other]"), "allow:\n- {from: other/*, to: app/echo}\n");
  SetMesh(allowed);
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  Process client = near_run.StartClient(3, 1000, {}, "stranger", kUidStranger);
  absl::SleepFor(absl::Milliseconds(800));
  far_->SetMesh(CommonMesh("call_as: [app, other], zone: z"));
  ASSERT_TRUE(far_->WaitForCtl({"get", "nodes"}, " z "));
  const uint64_t executed = far_run.Totals().executed;
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_GT(result["ok"], 300) << result;
  EXPECT_GT(result["codes"]["PERMISSION_DENIED"], 300) << result;
  EXPECT_EQ(result["codes"].size(), 1u) << result;
  // Once the generation is acknowledged, nothing more runs. The look at it may be a few calls late, not
  // early.
  EXPECT_LE(far_run.Totals().executed, executed + 5);
}

class HalfSteeredTwoNodeTest : public SteeredTwoNodeTest {
 protected:
  HalfSteeredTwoNodeTest() { unnamed_ = "n1"; }
};

// What n1's kernel would send as one, and the veth would hand over uncut.
TEST_F(HalfSteeredTwoNodeTest, ALongMessageFromANodeByUdpReachesOneByAfXdp) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  EXPECT_TRUE(far_->WaitForCtl({"status"}, "af_xdp weft0")) << Logs();
  EXPECT_THAT(near_->Ctl({"status"}).output, HasSubstr("io_uring"));
  EXPECT_TRUE(Answers(*near_)) << Logs();
  const std::string file = files_ / "long";
  WriteFile(file, std::string(500'000, 'x'));
  for (int i = 0; i < 10; ++i) {
    // The server knows its requests, and that this is none.
    EXPECT_THAT(near_->Ctl({"call", "app/echo", "--as", "app", "--file", file}).error, HasSubstr("DATA_LOSS"))
        << Logs();
  }
  EXPECT_THAT(far_->Ctl({"status", "-o", "json"}).output, testing::Not(HasSubstr("dropped_too_long")));
}

// What also runs on Debian's stock kernel, in a machine so slow that load and time mean nothing there.
TEST_F(SteeredTwoNodeTest, ACallGoesThereAndBackByAfXdp) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  for (Mesh* node : {near_.get(), far_.get()})
    EXPECT_TRUE(node->WaitForCtl({"status"}, "af_xdp weft0")) << Logs();
  EXPECT_TRUE(Answers(*near_)) << Logs();
}

// weftd has CAP_NET_RAW and CAP_IPC_LOCK, weft-control CAP_BPF and CAP_NET_ADMIN, hosts nothing.
TEST_F(SteeredTwoNodeTest, CallsGoByAfXdpAndSurviveTheDeathOfBothDaemons) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  EXPECT_THAT(near_->Ctl({"status"}).output, HasSubstr("af_xdp")) << Logs();
  Process client = near_run.StartClient(2, 2000);
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  std::printf("p50 %.1f us, p99 %.1f us\n", static_cast<double>(result["p50_ns"]) / 1e3,
              static_cast<double>(result["p99_ns"]) / 1e3);
  near_->control().Kill();
  far_->control().Kill();
  Process without = near_run.StartClient(1, 1000);
  const nlohmann::json flowing = near_run.Finish(without);
  EXPECT_EQ(flowing["ok"], flowing["started"]) << flowing;
  near_->StartControl();
  far_->StartControl();
  far_->agent().Kill();
  far_->StartAgent();
  EXPECT_TRUE(Answers(*near_)) << Logs();
  WaitReachable();
  EXPECT_THAT(far_->Ctl({"status"}).output, HasSubstr("af_xdp")) << Logs();
}

}  // namespace
}  // namespace weft::test
