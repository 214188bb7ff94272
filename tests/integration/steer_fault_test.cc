// SPDX-License-Identifier: Apache-2.0
// Two steered nodes whose XDP program, maps or interface come, go and change under them. Packets go by AF_XDP
// again as soon as they can, and no key id is forgotten on the way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "dataplane/base/clock.h"
#include "tests/integration/load_run.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

class SteerFaultTest : public SteeredTwoNodeTest {
 protected:
  // Times that the agent has said which packet port it chose, and that it is this one.
  static int Chosen(Mesh& node, const std::string& port) {
    return static_cast<int>(
        std::vector<absl::string_view>(
            absl::StrSplit(node.agent().Output(), absl::StrCat("packet port ", port, " at")))
            .size() -
        1);
  }
  bool Becomes(Mesh& node, const std::string& port, int times) {
    return Eventually([&] { return Chosen(node, port) >= times; });
  }
};

TEST_F(SteerFaultTest, AnAgentStartedWhileControlIsAwayGoesOverToAfXdpWhenItIsBack) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  // The program stays, and drops what comes under keys that it does not know: those of the new agent.
  far_->control().Kill();
  far_->agent().Kill();
  far_->StartAgent();
  ASSERT_TRUE(Becomes(*far_, "io_uring", 1) || Becomes(*far_, "udp", 1)) << Logs();
  EXPECT_THAT(far_->Ctl({"status", "-o", "json"}).output, HasSubstr("af_xdp: no"));
  EXPECT_TRUE(far_->WaitForCtl({"check"}, "drops what comes under new keys until it is back")) << Logs();
  far_->StartControl();
  EXPECT_TRUE(Answers(*near_)) << Logs();
  EXPECT_TRUE(Becomes(*far_, "af_xdp", 1)) << Logs();
  EXPECT_THAT(far_->Ctl({"status"}).output, HasSubstr("af_xdp"));
}

// Attached anew by a weft-control that the agent hears of within a second only, with no key in its table.
TEST_F(SteerFaultTest, ATableMadeAnewFailsNoCallAndTakesKeysInUseAndThoseToCome) {
  SetMesh(absl::StrReplaceAll(CommonMesh(), {{"timeout: 1s", "timeout: 1s, retries: 0"}}));
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  Process client = near_run.StartClient(7, 500);
  for (int round = 0; round < 3; ++round) {
    far_->control().Kill();
    far_->RunControl({"--steer-detach", VethPair::kInterface});
    far_->StartControl();
    ASSERT_TRUE(Becomes(*far_, "af_xdp", 2 + round)) << Logs();
  }
  // New keys: a renewed certificate is shown on a new connection, which begins an epoch.
  Issue("n2", validity_);
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "epoch 1", absl::Seconds(10))) << Logs();
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["wrong"], 0) << result;
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  EXPECT_GT(result["ok"], 1500) << result;
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
  EXPECT_TRUE(Answers(*near_)) << Logs();
  EXPECT_THAT(far_->agent().Output(), testing::Not(HasSubstr("back on the kernel's")));
}

TEST_F(SteerFaultTest, AProgramThatWasDetachedAndAttachedAnewKnowsTheKeys) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  far_->control().Kill();
  far_->RunControl({"--steer-detach", VethPair::kInterface});
  EXPECT_TRUE(Answers(*near_)) << "by the kernel's UDP socket\n" << Logs();
  far_->StartControl();
  ASSERT_TRUE(Becomes(*far_, "af_xdp", 2)) << Logs();
  EXPECT_TRUE(Answers(*near_)) << Logs();
  // Taken by the new program under a key id of the same session, so not by the kernel.
  EXPECT_TRUE(Eventually([&] {
    const std::string row = far_->Ctl({"status", "-o", "json"}).output;
    return absl::StrContains(row, "\"taken\": ") && !absl::StrContains(row, "\"taken\": 0");
  })) << far_->Ctl({"status", "-o", "json"}).output;
}

TEST_F(SteerFaultTest, AnInterfaceThatIsDeletedAndComesBackIsUsedAgain) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  veth_->Unplug();
  for (Mesh* node : {near_.get(), far_.get()}) {
    EXPECT_TRUE(Eventually([&] { return absl::StrContains(node->agent().Output(), "weft0 was deleted"); }))
        << Logs();
  }
  veth_->Plug();
  for (Mesh* node : {near_.get(), far_.get()}) EXPECT_TRUE(Becomes(*node, "af_xdp", 2)) << Logs();
  EXPECT_TRUE(Answers(*near_)) << Logs();
}

TEST_F(SteerFaultTest, AnInterfaceThatGoesDownAndUpIsUsedAgain) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  Process client = near_run.StartClient(4, 500);
  absl::SleepFor(absl::Milliseconds(500));
  veth_->near().Run({"/sbin/ip", "link", "set", VethPair::kInterface, "down"});
  absl::SleepFor(absl::Seconds(1));
  veth_->near().Run({"/sbin/ip", "link", "set", VethPair::kInterface, "up"});
  EXPECT_TRUE(Answers(*near_)) << Logs();
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["wrong"], 0) << result;
  EXPECT_GT(result["ok"], 200) << result;
  for (const auto& [code, count] : result["codes"].items())
    EXPECT_THAT(code, testing::AnyOf("UNAVAILABLE", "DEADLINE_EXCEEDED")) << result;
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
  EXPECT_THAT(near_->Ctl({"status"}).output, HasSubstr("af_xdp"));
}

class UnnamedInterfaceTest : public SteerFaultTest {
 protected:
  UnnamedInterfaceTest() { unnamed_ = "n2"; }
};

// docs/steer.md: nobody has said which keys are live, so the program drops none.
TEST_F(UnnamedInterfaceTest, ANodeThatIsSteeredUnawaresIsCalledByTheKernelAndSaysSo) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  EXPECT_TRUE(Answers(*near_)) << Logs();
  EXPECT_THAT(far_->Ctl({"status"}).output, HasSubstr("left to the kernel"));
  const Ran ran = far_->Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.output, HasSubstr("the program on weft0 knows no key of this node and leaves the packets"));
}

// The table that an agent has filled, and then an agent whose settings do not name the interface any more:
// the program drops all that is for it.
TEST_F(SteerFaultTest, ANodeThatIsSteeredUnawaresAfterItWasAwareIsSaidToBeOnBothSides) {
  WaitReachable();
  EXPECT_TRUE(far_->WaitForCtl({"status"}, "dropped"));
  far_->agent().Kill();
  far_->control().Kill();
  const std::string settings = ReadFile(far_->path("weftd.yaml"));
  WriteFile(far_->path("weftd.yaml"), absl::StrReplaceAll(settings, {{"interface: weft0\n", ""}}));
  far_->StartAgent();
  far_->StartControl();
  EXPECT_TRUE(Eventually([&] {
    near_->Ctl({"call", "app/echo", "--as", "app", "--timeout", "200ms", "x"});  // Only calls find it out.
    return absl::StrContains(near_->Ctl({"get", "nodes"}).output,
                             "its keys stand, but its UDP packets are not answered");
  })) << Logs();
  EXPECT_THAT(near_->Ctl({"check"}).output, HasSubstr("n2: its keys stand, but"));
}

TEST_F(SteerFaultTest, WithoutThePrivilegeForAfXdpItFallsBackLoudly) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  far_->agent().Kill();
  far_->StartAgent("ipc_lock");
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(far_->agent().Output(), "CAP_NET_RAW is needed"); }))
      << Logs();
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(far_->agent().Output(), "warning packet port"); }))
      << Logs();
  EXPECT_TRUE(far_->WaitForCtl({"status", "-o", "json"}, "CAP_NET_RAW is needed")) << Logs();
  EXPECT_TRUE(far_->WaitForCtl({"check"}, "CAP_NET_RAW is needed")) << Logs();
  // The program lets its keys through to the kernel's socket.
  EXPECT_TRUE(Answers(*near_)) << Logs();
}

std::size_t OpenFiles(pid_t pid) {
  std::error_code error;
  const std::filesystem::directory_iterator files(absl::StrCat("/proc/", pid, "/fd"), error);
  return static_cast<std::size_t>(std::distance(files, {}));
}

// Each daemon, and a host, of either side by turns, under load. Recovery is printed; bench and reports judge.
TEST_F(SteerFaultTest, KillsByTurnsFailNoCallElsewhereAndLeaveNothingBehind) {
  SetMesh(
      absl::StrCat("version: 1\nnodes:\n- {name: n1, address: \"10.77.0.1:4810\", call_as: [app]}\n"
                   "- {name: n2, address: \"10.77.0.2:4810\", call_as: [app]}\n",
                   kFunctions, "- {name: app/near}\nendpoints:\n",
                   "- {function: app/echo, node: n2, host: a}\n- {function: app/near, node: n1, host: b}\n"));
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  Process near_server =
      near_->Start("weft-test-echo", {"--name", "b", "--serve", "app/near", "--tag", "2"}, kUidB, "near.log");
  ASSERT_TRUE(near_server.WaitForOutput("serving", absl::Seconds(20))) << near_server.Output();
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  WriteFile(near_->path("starts"), "");
  ASSERT_EQ(chmod(near_->path("starts").c_str(), 0666), 0);
  Process elsewhere = near_->Start(
      "weft-test-load", {"--function", "app/near", "--seconds", "9", "--rate", "500", "--name", "caller2"},
      kUidCaller, "load.near.log");
  ASSERT_TRUE(elsewhere.WaitForOutput("calling", absl::Seconds(20))) << elsewhere.Output();
  Process client = near_run.StartClient(9, 500, {"--starts", near_->path("starts")});
  const std::size_t files = OpenFiles(near_->agent().pid());
  std::vector<std::pair<std::string, uint64_t>> restarted;
  const auto kill = [&](const std::string& what, Process& process, const std::function<void()>& start) {
    process.Kill();
    absl::SleepFor(absl::Milliseconds(100));
    start();
    restarted.emplace_back(what, NowNs());
    absl::SleepFor(absl::Milliseconds(500));
  };
  for (int round = 0; round < 2; ++round) {
    kill("host of n2", server, [&] { server = far_run.StartServer("a", kUidA, 1); });
    kill("weftd of n2", far_->agent(), [&] { far_->StartAgent(); });
    kill("weft-control of n2", far_->control(), [&] { far_->StartControl(); });
    kill("weft-control of n1", near_->control(), [&] { near_->StartControl(); });
  }
  EXPECT_TRUE(Answers(*near_)) << Logs();
  EXPECT_TRUE(Eventually([&] { return OpenFiles(near_->agent().pid()) <= files; }))
      << OpenFiles(near_->agent().pid()) << " descriptors, " << files << " before";
  kill("weftd of n1", near_->agent(), [&] { near_->StartAgent(); });
  EXPECT_TRUE(Answers(*near_)) << Logs();
  const nlohmann::json near_result = near_run.Finish(elsewhere);
  EXPECT_EQ(near_result["ok"], near_result["started"]) << near_result << Logs();
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["wrong"], 0);
  EXPECT_GT(result["ok"], 1000) << result;
  for (const auto& [code, count] : result["codes"].items()) EXPECT_EQ(code, "UNAVAILABLE") << result;
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
  const std::vector<LoadStart> starts = ReadStarts(near_->path("starts"));
  for (const auto& [what, at_ns] : restarted) {
    const auto first = std::find_if(starts.begin(), starts.end(),
                                    [at = at_ns](const LoadStart& start) { return start.started_ns >= at; });
    if (first != starts.end())
      std::printf("%s: calls succeed %.1f ms after its start\n", what.c_str(),
                  static_cast<double>(first->started_ns - at_ns) / 1e6);
  }
  for (Mesh* node : {near_.get(), far_.get()}) {
    node->agent().Kill();
    node->control().Kill();
    node->RunControl({"--steer-detach", VethPair::kInterface});
    for (const auto& entry : std::filesystem::directory_iterator(node->run_dir() + "/bpf"))
      EXPECT_THAT(entry.path().filename().string(), testing::Not(testing::StartsWith("steer"))) << "pinned";
  }
}

}  // namespace
}  // namespace weft::test
