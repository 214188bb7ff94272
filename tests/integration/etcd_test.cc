// SPDX-License-Identifier: Apache-2.0
// Two nodes that know each other from a real etcd alone: no file names a node, a host or a function.
#include "tests/support/etcd.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/identity/authority.h"
#include "tests/integration/load_run.h"
#include "tests/support/network.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

constexpr int kLeaseSeconds = 2;
const std::vector<std::string> kExplain = {"explain", "app", "app/echo"};

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
    const identity::Validity validity{now_s - 60, now_s + 3600};
    absl::StatusOr<identity::Authority> authority = identity::Authority::Make("etcd.test", validity);
    ASSERT_TRUE(authority.ok()) << authority.status();
    near_ = MakeNode("n1", veth_->near(), VethPair::kNearAddress, *authority, validity);
    far_ = MakeNode("n2", veth_->far(), VethPair::kFarAddress, *authority, validity);
    etcd_->Put("/weft/functions/app/echo", R"({"timeout":"1s"})");
    for (Mesh* node : {near_.get(), far_.get()}) {
      node->StartAgent();
      node->StartControl();
    }
  }

  std::unique_ptr<Mesh> MakeNode(const std::string& name, const NetworkNamespace& network,
                                 const char* address, const identity::Authority& authority,
                                 const identity::Validity& validity) {
    NodeOptions options;
    options.node = name;
    options.network = &network;
    options.settings =
        absl::StrCat("listen: ", address, ":4810\nidentity: {certificate: ", files_ / (name + ".crt"),
                     ", key: ", files_ / (name + ".key"), ", ca: ", files_ / "ca.crt", "}\n");
    options.control =
        absl::StrCat("version: 1\netcd:\n  endpoints: [\"", etcd_->url(), "\"]\n  publish: {address: \"",
                     address, ":4810\", call_as: [app], lease: ", kLeaseSeconds, "s}\n");
    const absl::StatusOr<identity::PemPair> issued = authority.IssueNode(name, validity);
    EXPECT_TRUE(issued.ok()) << issued.status();
    WriteFile(files_ / "ca.crt", authority.ToPem().certificate);
    WriteFile(files_ / (name + ".crt"), issued->certificate);
    WriteFile(files_ / (name + ".key"), issued->key);
    EXPECT_EQ(chmod((files_ / (name + ".key")).c_str(), 0600), 0);
    EXPECT_EQ(chown((files_ / (name + ".key")).c_str(), kAgentUid, kAgentUid), 0);
    return std::make_unique<Mesh>(LoadTenants(), options);
  }
  void WaitReachable() {
    EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, " reachable")) << Logs();
    EXPECT_TRUE(far_->WaitForCtl({"get", "nodes"}, " reachable")) << Logs();
  }
  // Until n1 knows that n2 serves app/echo.
  bool WaitForTarget() { return near_->WaitForCtl(kExplain, "node n2 host a: reachable"); }
  std::string Logs() {
    return absl::StrCat("n1:\n", near_->agent().Output(), near_->control().Output(), "\nn2:\n",
                        far_->agent().Output(), far_->control().Output(), "\n",
                        near_->Ctl({"get", "nodes"}).output);
  }

  TemporaryDirectory files_;
  std::unique_ptr<VethPair> veth_;
  std::unique_ptr<Etcd> etcd_;
  std::unique_ptr<Mesh> near_;
  std::unique_ptr<Mesh> far_;
};

TEST_F(EtcdTest, AFunctionStartedOnOneNodeIsCalledFromTheOther) {
  WaitReachable();
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  const uint64_t start_ns = NowNs();
  Process server = far_run.StartServer("a", kUidA, 1);
  ASSERT_TRUE(WaitForTarget()) << Logs();
  const std::optional<ProgrammedChange> change = NewestChange(near_->run_dir());
  ASSERT_TRUE(change.has_value());
  unsigned long long attached_ns = 0;
  ASSERT_EQ(std::sscanf(server.Output().c_str(), "serving since %llu", &attached_ns), 1) << server.Output();
  const auto since_ms = [&](uint64_t from_ns) {
    return (static_cast<double>(change->programmed_ns) - static_cast<double>(from_ns)) / 1e6;
  };
  std::printf("callable from the other node %.1f ms after the server's attachment, %.1f ms after its start\n",
              since_ms(attached_ns), since_ms(start_ns));
  Process client = near_run.StartClient(2, 1000);
  EXPECT_TRUE(Eventually([&] {
    return absl::StrContains(near_->Ctl({"get", "routes", "-o", "json"}).output,
                             R"json("endpoint_said_by": "n2/a: etcd:/weft/ (by the node itself)")json");
  })) << near_->Ctl({"get", "routes", "-o", "json"}).output;
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_GT(result["ok"], 500) << result << Logs();
  EXPECT_EQ(result["ok"], result["started"]) << result;
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
}

TEST_F(EtcdTest, ADeadNodeIsGoneWithItsLease) {
  WaitReachable();
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  ASSERT_TRUE(WaitForTarget()) << Logs();
  EXPECT_EQ(etcd_->Get("/weft/live/endpoints/n2/a/app/echo"), "{}");
  far_->control().Kill();
  far_->agent().Kill();
  server.Kill();
  const uint64_t killed_ns = NowNs();
  EXPECT_TRUE(Eventually([&] { return etcd_->Get("/weft/live/nodes/n2").empty(); }, absl::Seconds(10)));
  EXPECT_TRUE(Eventually([&] { return !absl::StrContains(near_->Ctl({"get", "nodes"}).output, "n2"); },
                         absl::Seconds(2)))
      << Logs();
  EXPECT_FALSE(absl::StrContains(near_->Ctl(kExplain).output, "node n2"));
  const std::optional<ProgrammedChange> change = NewestChange(near_->run_dir());
  ASSERT_TRUE(change.has_value());
  std::printf("gone from the other node %.0f ms after its death, at a lease of %d s\n",
              static_cast<double>(change->programmed_ns - killed_ns) / 1e6, kLeaseSeconds);
  // And back, by itself.
  far_->StartAgent();
  far_->StartControl();
  WaitReachable();
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
