// SPDX-License-Identifier: Apache-2.0
// Two nodes that know each other from a real etcd alone: no file names a node, a host or a function.
#include "tests/support/etcd.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/identity/authority.h"
#include "tests/integration/load_run.h"
#include "tests/support/network.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

constexpr int kDefaultLeaseSeconds = 5;
// What the bounds of callability and of the data plane's judgement are meant to be; the figures are printed,
// and held to a multiple, since other tests may run beside.
constexpr double kCallableMs = 50;
constexpr double kMovedMs = 200;
const std::vector<std::string> kExplain = {"explain", "app", "app/echo"};

double MsBetween(uint64_t from_ns, uint64_t to_ns) {
  return (static_cast<double>(to_ns) - static_cast<double>(from_ns)) / 1e6;
}

class EtcdTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Mesh::Privileged() || !VethPair::Privileged()) {
      GTEST_SKIP() << "needs root: two namespaces, several users";
    }
    if (!Etcd::Installed()) GTEST_SKIP() << "no etcd on this machine";
    veth_ = std::make_unique<VethPair>();
    EtcdSettings settings;
    settings.network = &veth_->near();
    settings.address = VethPair::kNearAddress;
    etcd_ = std::make_unique<Etcd>(std::move(settings));
    const int64_t now_s = time(nullptr);
    validity_ = {now_s - 60, now_s + 3600};
    absl::StatusOr<identity::Authority> authority = identity::Authority::Make("etcd.test", validity_);
    ASSERT_TRUE(authority.ok()) << authority.status();
    authority_ = std::make_unique<identity::Authority>(*std::move(authority));
    WriteFile(files_ / "ca.crt", authority_->ToPem().certificate);  // Once: nodes that run read it.
    near_ = MakeNode("n1", veth_->near(), VethPair::kNearAddress);
    far_ = MakeNode("n2", veth_->far(), VethPair::kFarAddress);
    etcd_->Put("/weft/functions/app/echo", R"({"timeout":"1s"})");
    for (Mesh* node : {near_.get(), far_.get()}) {
      node->StartAgent();
      node->StartControl();
    }
  }

  std::unique_ptr<Mesh> MakeNode(const std::string& name, const NetworkNamespace& network,
                                 const char* address, int port = 4810) {
    NodeOptions options;
    options.node = name;
    options.network = &network;
    options.settings =
        absl::StrCat("listen: ", address, ":", port, "\nidentity: {certificate: ", files_ / (name + ".crt"),
                     ", key: ", files_ / (name + ".key"), ", ca: ", files_ / "ca.crt", "}\n");
    options.control =
        absl::StrCat("version: 1\netcd:\n  endpoints: [\"", etcd_->url(), "\"]\n  publish: {address: \"",
                     address, ":", port, "\", call_as: [app]", publish_, "}\n");
    const absl::StatusOr<identity::PemPair> issued = authority_->IssueNode(name, validity_);
    EXPECT_TRUE(issued.ok()) << issued.status();
    WriteFile(files_ / (name + ".crt"), issued->certificate);
    WriteFile(files_ / (name + ".key"), issued->key);
    EXPECT_EQ(chmod((files_ / (name + ".key")).c_str(), 0600), 0);
    EXPECT_EQ(chown((files_ / (name + ".key")).c_str(), kAgentUid, kAgentUid), 0);
    return std::make_unique<Mesh>(LoadTenants(), options);
  }
  void WaitReachable() {
    EXPECT_TRUE(near_->WaitForCtl({"get", "nodes", "-o", "json"}, "\"reachable\"")) << Logs();
    EXPECT_TRUE(far_->WaitForCtl({"get", "nodes", "-o", "json"}, "\"reachable\"")) << Logs();
  }
  // Until n1 knows that n2 serves app/echo.
  bool WaitForTarget() { return near_->WaitForCtl(kExplain, "node n2 host a: reachable"); }
  std::string Logs() {
    return absl::StrCat("n1:\n", near_->agent().Output(), near_->control().Output(), "\nn2:\n",
                        far_->agent().Output(), far_->control().Output(), "\n",
                        near_->Ctl({"get", "nodes"}).output);
  }

  std::string publish_ = ", lease: 2s";  // Further settings of what each node says of itself
  TemporaryDirectory files_;
  identity::Validity validity_;
  std::unique_ptr<identity::Authority> authority_;
  std::unique_ptr<VethPair> veth_;
  std::unique_ptr<Etcd> etcd_;
  std::unique_ptr<Mesh> near_;
  std::unique_ptr<Mesh> far_;
};

TEST_F(EtcdTest, AFunctionStartedOnOneNodeIsCalledFromTheOther) {
  WaitReachable();
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  // Asks for it each millisecond: its first call that is answered tells since when the function is callable.
  const std::string starts = near_->path("starts");
  WriteFile(starts, "");
  ASSERT_EQ(chmod(starts.c_str(), 0666), 0);
  Process early = near_run.StartClient(0.1, 1000, {"--await", "--starts", starts, "--first-id", "100000"});
  absl::SleepFor(absl::Milliseconds(300));
  const uint64_t start_ns = NowNs();
  Process server = far_run.StartServer("a", kUidA, 1);
  unsigned long long attached_ns = 0;
  ASSERT_EQ(std::sscanf(server.Output().c_str(), "serving since %llu", &attached_ns), 1) << server.Output();
  ASSERT_TRUE(WaitForTarget()) << Logs();
  near_run.Finish(early);
  const std::vector<LoadStart> answered = ReadStarts(starts);
  ASSERT_FALSE(answered.empty()) << early.Output() << Logs();
  const double after_ms = MsBetween(attached_ns, answered.front().started_ns);
  std::printf("called from the other node %.1f ms after the server's attachment, %.1f ms after its start\n",
              after_ms, MsBetween(start_ns, answered.front().started_ns));
  EXPECT_LT(after_ms, 10 * kCallableMs);
  Process client = near_run.StartClient(1, 1000, {"--first-id", "200000"});
  EXPECT_TRUE(Eventually([&] {
    return absl::StrContains(near_->Ctl({"get", "routes", "-o", "json"}).output,
                             R"json("endpoint_said_by": "n2/a: etcd:/weft/ (by the node itself)")json");
  })) << near_->Ctl({"get", "routes", "-o", "json"}).output;
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_GT(result["ok"], 500) << result << Logs();
  EXPECT_EQ(result["ok"], result["started"]) << result;
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
}

// A third node, which shares the near one's namespace and serves the function as well, in another zone.
class EtcdThreeNodesTest : public EtcdTest {
 protected:
  EtcdThreeNodesTest() { publish_ = ", zone: z1"; }  // And the default lease.
  void StartThird() {
    publish_ = ", zone: z2";
    third_ = MakeNode("n3", veth_->near(), VethPair::kNearAddress, 4811);
    third_->StartAgent();
    third_->StartControl();
  }
  // As a machine that lost its power: no word of the ends of its connections reaches anybody.
  void KillFar(Process& server) {
    veth_->far().Run({"/sbin/ip", "address", "del", absl::StrCat(VethPair::kFarAddress, "/24"), "dev",
                      VethPair::kInterface});
    for (Process* process : {&far_->control(), &far_->agent(), &server}) process->Kill();
  }

  std::unique_ptr<Mesh> third_;
};

TEST_F(EtcdThreeNodesTest, ADeadNodesTrafficMovesAtOnceAndItsRoutesGoWithTheDefaultLease) {
  StartThird();
  WaitReachable();
  LoadRun far_run(*far_);
  LoadRun third_run(*third_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 2);
  Process other = third_run.StartServer("a", kUidA, 3);
  ASSERT_TRUE(WaitForTarget()) << Logs();
  ASSERT_TRUE(near_->WaitForCtl(kExplain, "node n3 host a: reachable")) << Logs();
  EXPECT_EQ(etcd_->Get("/weft/live/endpoints/n2/a/app/echo"), "{}");
  const std::string starts = near_->path("starts");
  WriteFile(starts, "");
  ASSERT_EQ(chmod(starts.c_str(), 0666), 0);
  Process client = near_run.StartClient(2.5, 1000, {"--starts", starts});
  absl::SleepFor(absl::Milliseconds(700));
  const uint64_t killed_ns = NowNs();
  KillFar(server);
  EXPECT_TRUE(Eventually([&] { return !absl::StrContains(near_->Ctl({"get", "nodes"}).output, "n2"); },
                         absl::Seconds(20)))
      << Logs();
  const std::optional<ProgrammedChange> change = NewestChange(near_->run_dir());
  ASSERT_TRUE(change.has_value());
  EXPECT_FALSE(absl::StrContains(near_->Ctl(kExplain).output, "node n2"));
  EXPECT_TRUE(absl::StrContains(near_->Ctl(kExplain).output, "node n3 host a: reachable")) << Logs();
  const double gone_ms = MsBetween(killed_ns, change->programmed_ns);

  const nlohmann::json result = near_run.Finish(client);
  const std::vector<LoadStart> answered = ReadStarts(starts);
  const auto moved =
      std::find_if(answered.begin(), answered.end(), [](const LoadStart& call) { return call.tag == 3; });
  ASSERT_NE(moved, answered.end()) << result << Logs();
  EXPECT_EQ(answered.front().tag, 2u);  // The nearer one, as long as it lived.
  const double moved_ms = MsBetween(killed_ns, moved->started_ns);
  const auto failed = result["started"].get<uint64_t>() - result["ok"].get<uint64_t>();
  std::printf(
      "traffic moved %.0f ms after the node's death, %u calls failed; its routes were gone after "
      "%.0f ms, at a lease of %d s\n",
      moved_ms, static_cast<unsigned>(failed), gone_ms, kDefaultLeaseSeconds);
  EXPECT_LT(moved_ms, 5 * kMovedMs);
  // Of those that began since none failed.
  EXPECT_EQ(static_cast<std::ptrdiff_t>(result["started"].get<uint32_t>() - moved->id),
            answered.end() - moved);
  EXPECT_LT(gone_ms, 2 * 1000 * (kDefaultLeaseSeconds + 1));
  // And back, by itself.
  veth_->far().Run({"/sbin/ip", "address", "add", absl::StrCat(VethPair::kFarAddress, "/24"), "dev",
                    VethPair::kInterface});
  far_->StartAgent();
  far_->StartControl();
  WaitReachable();
  EXPECT_NE(access(near_->path("mesh.yaml").c_str(), F_OK), 0);
}

TEST_F(EtcdTest, CallsGoOnWithoutEtcdAndAcrossItsRestart) {
  WaitReachable();
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  ASSERT_TRUE(WaitForTarget()) << Logs();
  Process client = near_run.StartClient(6, 1000);
  absl::SleepFor(absl::Milliseconds(300));
  etcd_->Kill();
  absl::SleepFor(absl::Seconds(3));  // Longer than the leases
  etcd_->Start();
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
  EXPECT_TRUE(Eventually([&] { return etcd_->Get("/weft/live/endpoints/n2/a/app/echo") == "{}"; }));
}

// weft-control's, by two hours between the nodes. weftd's certificates are another matter: they say when they
// hold.
TEST_F(EtcdTest, ClocksThatDifferTakeNothingAway) {
  WaitReachable();
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  ASSERT_TRUE(WaitForTarget()) << Logs();
  const auto restart_skewed = [](Mesh& node, const char* seconds) {
    node.control().Kill();
    setenv("WEFT_TEST_SKEW_S", seconds, 1);
    setenv("LD_PRELOAD", Program("weft-skewed-clock.so").c_str(), 1);
    node.StartControl();
    unsetenv("LD_PRELOAD");
    unsetenv("WEFT_TEST_SKEW_S");
  };
  Process client = near_run.StartClient(4.5, 1000);
  restart_skewed(*near_, "3600");
  restart_skewed(*far_, "-3600");
  ASSERT_TRUE(near_->control().WaitForOutput("connected to the agent", absl::Seconds(20)));
  ASSERT_TRUE(far_->control().WaitForOutput("connected to the agent", absl::Seconds(20)));
  const auto hour = [](Mesh& node) { return node.control().Output().substr(0, 13); };
  EXPECT_NE(hour(*near_), hour(*far_));                   // They do differ.
  const nlohmann::json result = near_run.Finish(client);  // Longer than two leases
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  EXPECT_EQ(etcd_->Get("/weft/live/endpoints/n2/a/app/echo"), "{}");
  server.Kill();
  EXPECT_TRUE(Eventually([&] { return etcd_->Get("/weft/live/endpoints/n2/a/app/echo").empty(); }));
  EXPECT_TRUE(Eventually([&] { return !absl::StrContains(near_->Ctl(kExplain).output, "node n2"); }));
}

TEST_F(EtcdTest, TheSourceIsSeenInTheStatus) {
  WaitReachable();
  EXPECT_TRUE(near_->WaitForCtl({"status"}, "published")) << near_->Ctl({"status"}).output;
  const std::string status = near_->Ctl({"status"}).output;
  EXPECT_THAT(status, HasSubstr(absl::StrCat("etcd ", etcd_->url(), " /weft/")));
  EXPECT_THAT(status, HasSubstr("synced"));
  etcd_->Kill();
  EXPECT_TRUE(near_->WaitForCtl({"status"}, "not synced"));
}

}  // namespace
}  // namespace weft::test
