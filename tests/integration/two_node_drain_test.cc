// SPDX-License-Identifier: Apache-2.0
// A host that is drained while callers on another node use it: two nodes as they ship, under load.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/load_run.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

constexpr int kTagFar = 1;
constexpr int kTagNear = 2;

class TwoNodeDrainTest : public TwoNodeTest {
 protected:
  void SetUp() override {
    Start();
    if (IsSkipped()) return;
    // A call that fails once has failed: nothing is tried again elsewhere.
    SetMesh(absl::StrCat("version: 1\nnodes:\n- {name: n1, address: \"", VethPair::kNearAddress,
                         ":4810\", call_as: [app]}\n- {name: n2, address: \"", VethPair::kFarAddress,
                         ":4810\", call_as: [app]}\nfunctions:\n"
                         "- {name: app/echo, timeout: 1s, retries: 0, locality: any}\nendpoints:\n"
                         "- {function: app/echo, node: n1, host: b}\n"
                         "- {function: app/echo, node: n2, host: a}\n"));
  }
  // Both nodes know both ways.
  void WaitBothWays() {
    WaitReachable();
    ASSERT_TRUE(near_->WaitForCtl({"explain", "app", "app/echo"}, "node n2")) << Logs();
    ASSERT_TRUE(far_->WaitForCtl({"explain", "app", "app/echo"}, "node n1")) << Logs();
  }
};

TEST_F(TwoNodeDrainTest, CallersOnTheOtherNodeGoElsewhereWithoutAFailedCall) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process far_server = far_run.StartServer("a", kUidA, kTagFar);
  Process near_server = near_run.StartServer("b", kUidB, kTagNear);
  WaitBothWays();
  Process client = near_run.StartClient(4, 2000);
  ASSERT_TRUE(Eventually([&] { return far_run.Totals().executions > 100; })) << Logs();
  const auto drained = far_->Ctl({"drain", "a"});
  EXPECT_EQ(drained.exit_code, 0) << drained.output << drained.error << Logs();
  EXPECT_EQ(far_server.Wait(absl::Seconds(10)), 0);
  ASSERT_TRUE(near_->WaitForCtl({"explain", "app", "app/echo"}, "node n2 host a: drained")) << Logs();
  // Gone it stays avoided, until it is back.
  const uint64_t before = far_run.Totals().executions;
  far_server = far_run.StartServer("a", kUidA, kTagFar);
  EXPECT_TRUE(Eventually([&] { return far_run.Totals().executions > before + 100; })) << Logs();
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
}

// Each call takes longer than any time for which a host that is drained waits for more.
TEST_F(TwoNodeDrainTest, CallsThatTakeLongAreAnsweredFirst) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process far_server = far_run.StartServer("a", kUidA, kTagFar, {"--work-us", "200000"});
  Process near_server = near_run.StartServer("b", kUidB, kTagNear);
  WaitBothWays();
  Process client = near_run.StartClient(3, 8);
  ASSERT_TRUE(Eventually([&] { return far_run.Totals().executions > 2; })) << Logs();
  const auto drained = far_->Ctl({"drain", "a"});
  EXPECT_EQ(drained.exit_code, 0) << drained.output << drained.error << Logs();
  EXPECT_EQ(far_server.Wait(absl::Seconds(10)), 0);
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
}

TEST_F(TwoNodeDrainTest, TheLastOneOfAllNodesKeepsServing) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process far_server = far_run.StartServer("a", kUidA, kTagFar);
  Process near_server = near_run.StartServer("b", kUidB, kTagNear);
  WaitBothWays();
  ASSERT_EQ(far_->Ctl({"drain", "a"}).exit_code, 0) << Logs();
  ASSERT_TRUE(near_->WaitForCtl({"explain", "app", "app/echo"}, "node n2 host a: drained")) << Logs();
  const auto last = near_->Ctl({"drain", "b"});
  EXPECT_EQ(last.exit_code, 1) << last.output << Logs();
  EXPECT_NE(last.output.find("no other host is ready"), std::string::npos) << last.output;
  Process client = near_run.StartClient(0.5, 500);
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  // Once there is another it goes.
  far_server = far_run.StartServer("a", kUidA, kTagFar);
  EXPECT_EQ(near_server.Wait(absl::Seconds(10)), 0) << Logs();
}

}  // namespace
}  // namespace weft::test
