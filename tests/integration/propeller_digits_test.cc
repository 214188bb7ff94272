// SPDX-License-Identifier: Apache-2.0
// The digits example on two nodes that are workers of Propeller: placed by its messages, and moved by them
// while calls run.
#include <gtest/gtest.h>

#include <cstdio>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/integration/two_node_fixture.h"
#include "tests/support/propeller_manager.h"

namespace weft::test {
namespace {

class PropellerDigitsTest : public TwoNodeTest {
 protected:
  void SetUp() override {
    if (!Mosquitto::Installed()) GTEST_SKIP() << "no mosquitto on this machine";
    if (!Prepare()) GTEST_SKIP() << "needs root: two namespaces, several users";
    broker_.emplace(veth_->near(), VethPair::kNearAddress);
    manager_.emplace(*broker_, &veth_->near());
    // Only the nodes and the policy stand in a file; what runs where comes from Propeller.
    WriteFile(files_ / "mesh.yaml",
              absl::StrCat("version: 1\nnodes:\n- {name: n1, address: \"", VethPair::kNearAddress,
                           ":4810\", call_as: [vision]}\n- {name: n2, address: \"", VethPair::kFarAddress,
                           ":4810\"}\nfunctions:\n- {name: vision/scale, timeout: 5s}\n- {name: ",
                           "vision/classify, timeout: 5s}\n- {name: vision/tally, timeout: 5s}\n"));
    control_ = absl::StrCat("version: 1\nfiles: ", files_ / "mesh.yaml", "\n",
                            manager_->Settings("  namespace: vision\n  worker: true\n  host: a\n"));
    tenants_ = {{"vision", kUidA, {"a"}, {"vision/*"}, "", ""}};
    near_ = MakeNode("n1", veth_->near(), VethPair::kNearAddress);
    far_ = MakeNode("n2", veth_->far(), VethPair::kFarAddress);
    for (Mesh* node : {near_.get(), far_.get()}) {
      node->StartAgent();
      node->StartControl({"--agent-user", absl::StrCat(kAgentUid)});
    }
    near_host_.emplace(near_->StartHost("a", kUidA));
    far_host_.emplace(far_->StartHost("a", kUidA));
    WaitReachable();
    for (const char* proplet : {"n1", "n2"}) {
      ASSERT_TRUE(manager_->Hears("control/proplet/create", absl::StrCat(R"("proplet_id":")", proplet)))
          << AllLogs();
    }
  }
  std::string AllLogs() {
    return absl::StrCat(Logs(), near_->control().Output(), far_->control().Output(), manager_->Log());
  }
  // As a manager would: the task, and then that it runs.
  void Place(const std::string& task, const std::string& function, const std::string& node) {
    manager_->Start(task, function, node, ReadFile(absl::StrCat(WEFT_GUEST_DIR, "/", function, ".wasm")));
    ASSERT_TRUE(manager_->Hears(
        "control/proplet/results",
        absl::StrCat(R"({"error":null,"proplet_id":")", node, R"(","results":"","task_id":")", task, "\"}")))
        << AllLogs();
  }

  void WaitUntilTheChainAnswers() {
    Ran check;
    EXPECT_TRUE(Eventually([&] {
      check = test::Run({Program("digits-client"), "check", "--run-dir", near_->run_dir()});
      return check.exit_code == 0;
    })) << check.output
        << AllLogs();
  }
  // Calls of the chain at a steady rate, from n1.
  Process StartLoad() {
    return near_->Start("digits-client", {"load", "--rate", "500", "--seconds", "4"}, 0, "digits.log");
  }

  std::optional<Mosquitto> broker_;
  std::optional<PropellerManager> manager_;
  std::optional<Process> near_host_, far_host_;
};

TEST_F(PropellerDigitsTest, TheChainIsPlacedAndMovedByMessagesWithoutAFailedCall) {
  struct Function {
    const char* name;
    bool far;
    int moves = 0;
    std::string task() const { return absl::StrCat(name, "-", moves); }
    const char* node() const { return far ? "n2" : "n1"; }
  };
  Function functions[] = {{"scale", false}, {"classify", true}, {"tally", false}};
  for (const Function& each : functions) Place(each.task(), each.name, each.node());
  WaitUntilTheChainAnswers();
  Process client = StartLoad();
  int moves = 0;
  while (client.Running() || moves < 3) {
    Function& moved = functions[moves++ % 3];
    const std::string old_task = moved.task();
    moved.far = !moved.far;
    ++moved.moves;
    ASSERT_NO_FATAL_FAILURE(Place(moved.task(), moved.name, moved.node()));
    manager_->Stop(old_task);
  }
  EXPECT_EQ(client.Wait(absl::Seconds(20)), 0) << client.Output() << AllLogs();
  std::printf("%d moves\n%s", moves, client.Output().c_str());
  // What was left is gone from each node, and the chain works as it stands.
  for (const Function& each : functions) {
    Mesh& former = each.far ? *near_ : *far_;
    EXPECT_TRUE(Eventually([&] {
      return former.Ctl({"get", "hosts", "-o", "json"}).output.find(absl::StrCat("vision/", each.name)) ==
             std::string::npos;
    })) << each.name
        << former.Ctl({"get", "hosts", "-o", "json"}).output;
  }
  WaitUntilTheChainAnswers();
}

TEST_F(PropellerDigitsTest, WorkersAndBrokerAreKilledWhileCallsRunAndNoneFails) {
  Place("scale-0", "scale", "n1");
  Place("classify-0", "classify", "n2");
  Place("tally-0", "tally", "n1");
  WaitUntilTheChainAnswers();
  Process client = StartLoad();
  for (Mesh* node : {far_.get(), near_.get()}) {
    node->control().Kill();
    ASSERT_TRUE(manager_->Hears("control/proplet/alive", "offline")) << AllLogs();
    node->StartControl({"--agent-user", absl::StrCat(kAgentUid)});
    ASSERT_TRUE(manager_->Hears("control/proplet/create", "weft")) << AllLogs();
  }
  broker_->Kill();
  const auto said = [&](const char* node) { return manager_->Heard(absl::StrCat("weft/", node), "ready"); };
  const std::size_t near_before = said("n1"), far_before = said("n2");
  broker_->Start();
  // Both say again what they run, as they are there to be told.
  ASSERT_TRUE(Eventually([&] { return said("n1") > near_before && said("n2") > far_before; })) << AllLogs();
  ASSERT_NO_FATAL_FAILURE(Place("classify-1", "classify", "n1"));
  manager_->Stop("classify-0");
  EXPECT_TRUE(manager_->Hears("weft/n2", R"("ready":false)")) << AllLogs();
  EXPECT_EQ(client.Wait(absl::Seconds(20)), 0) << client.Output() << AllLogs();
  WaitUntilTheChainAnswers();
}

}  // namespace
}  // namespace weft::test
