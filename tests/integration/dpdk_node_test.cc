// SPDX-License-Identifier: Apache-2.0
// Two nodes whose packets go by DPDK: weftd as it ships, over a memif between the two agents.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

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
}  // namespace
}  // namespace weft::test
