// SPDX-License-Identifier: Apache-2.0
// Two nodes whose packets go by DPDK: weftd as it ships, over a memif between the two agents, or over
// net_af_xdp on interfaces of their own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

// Packets by DPDK over a memif between the two agents, keys over the veth pair; no privilege is needed for
// it.
class DpdkTwoNodeTest : public TwoNodeTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(chown(std::string(files_ / "").c_str(), kAgentUid, kAgentUid), 0);
    more_settings_["n1"] = Settings("server", "10.78.0.1");
    more_settings_["n2"] = Settings("client", "10.78.0.2");
    Start();
  }
  std::string Settings(const std::string& role, const std::string& address) {
    return absl::StrCat("packet_port: dpdk\ndpdk: {device: \"net_memif0,id=0,socket-abstract=no,socket=",
                        files_ / "memif.sock", ",role=", role, "\", address: \"", address, ":4810\"}\n");
  }
};

// CPU time of all threads of a process so far.
uint64_t CpuNsOf(pid_t pid) {
  uint64_t total = 0;
  for (const auto& task : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/task"))) {
    uint64_t ns = 0;
    std::ifstream(task.path() / "schedstat") >> ns;
    total += ns;
  }
  return total;
}

TEST_F(DpdkTwoNodeTest, CallsGoByMemifAndAgainAfterAnAgentWasKilled) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  Process client = near_run.StartClient(2, 2000);
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  std::printf("p50 %.1f us, p99 %.1f us\n", static_cast<double>(result["p50_ns"]) / 1e3,
              static_cast<double>(result["p99_ns"]) / 1e3);
  absl::SleepFor(absl::Milliseconds(100));
  const uint64_t before_ns = CpuNsOf(near_->agent().pid());
  absl::SleepFor(absl::Milliseconds(500));
  std::printf("idle: %.2f %% of a core\n",
              static_cast<double>(CpuNsOf(near_->agent().pid()) - before_ns) / 5e6);
  const std::string status = near_->Ctl({"status"}).output;
  EXPECT_THAT(status, HasSubstr("dpdk"));
  EXPECT_THAT(status, HasSubstr("10.78.0.1:4810"));
  EXPECT_THAT(status, HasSubstr("net_memif"));
  // The side that makes the shared memory, and the side that is given it.
  for (Mesh* const killed : {far_.get(), near_.get()}) {
    killed->agent().Kill();
    killed->StartAgent();
    EXPECT_TRUE(Answers(*near_)) << Logs();
  }
}

TEST_F(DpdkTwoNodeTest, ADeviceThatCannotBeMadeStopsTheAgentAtItsStart) {
  std::string settings = ReadFile(near_->path("weftd.yaml"));
  settings.replace(settings.find("role=server"), 11, "role=king");
  WriteFile(files_ / "bad.yaml", settings);
  const InNamespace inside(veth_->near());
  near_->agent().Kill();
  const Ran ran = test::Run({Program("weftd"), "--config", files_ / "bad.yaml", "--run-dir", near_->run_dir(),
                             "--state-dir", near_->path("agent")},
                            kAgentUid);
  EXPECT_EQ(ran.exit_code, 1) << ran.error;
  EXPECT_THAT(ran.error, HasSubstr("net_memif0,id=0"));
  EXPECT_THAT(ran.error, HasSubstr("role=king"));
}

// Packets by DPDK's own AF_XDP on a second veth pair, which the agents have to themselves; keys over the
// first.
class DpdkXdpTwoNodeTest : public TwoNodeTest {
 protected:
  static constexpr char kOwned[] = "weft1";

  void SetUp() override {
    capabilities_ = "sys_admin,net_admin,bpf,net_raw,ipc_lock";
    more_settings_["n1"] = Settings("10.78.0.1");
    more_settings_["n2"] = Settings("10.78.0.2");
    if (!Prepare()) GTEST_SKIP() << "needs root: two namespaces, several users";
    veth_->near().Run({"/sbin/ip", "link", "add", kOwned, "type", "veth", "peer", "name", kOwned, "netns",
                       veth_->far().path()});
    for (const auto& [where, address] :
         {std::pair(&veth_->near(), "10.78.0.1/24"), {&veth_->far(), "10.78.0.2/24"}}) {
      where->Run({"/sbin/ip", "address", "add", address, "dev", kOwned});
      where->Run({"/sbin/ip", "link", "set", kOwned, "up"});
    }
    StartNodes();
  }
  static std::string Settings(const std::string& address) {
    return absl::StrCat("packet_port: dpdk\ndpdk: {device: \"net_af_xdp0,iface=", kOwned, "\", address: \"",
                        address, ":4810\"}\n");
  }
  // Packets that went out by the interface: those of AF_XDP only, as the kernel has nothing to say there.
  static uint64_t SentBy(const NetworkNamespace& where) {
    const InNamespace inside(where);
    const Ran ran = test::Run({"/sbin/ip", "-s", "-j", "link", "show", kOwned});
    const nlohmann::json report = nlohmann::json::parse(ran.output, nullptr, false);
    return report.is_array() ? report[0]["stats64"]["tx"]["packets"].get<uint64_t>() : 0;
  }
};

TEST_F(DpdkXdpTwoNodeTest, CallsGoThereAndBackAndAgainAfterEitherAgentWasKilled) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  const uint64_t sent_near = SentBy(veth_->near()), sent_far = SentBy(veth_->far());
  Process client = near_run.StartClient(1, 1000);
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_GT(result["ok"], 0) << result;
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  EXPECT_GE(SentBy(veth_->near()) - sent_near, result["ok"]);
  EXPECT_GE(SentBy(veth_->far()) - sent_far, result["ok"]);
  const std::string status = near_->Ctl({"status"}).output;
  EXPECT_THAT(status, HasSubstr("net_af_xdp"));
  EXPECT_THAT(status, HasSubstr("10.78.0.1:4810"));
  for (Mesh* const killed : {far_.get(), near_.get()}) {
    killed->agent().Kill();
    killed->StartAgent();
    EXPECT_TRUE(Answers(*near_)) << Logs();
  }
}

}  // namespace
}  // namespace weft::test
