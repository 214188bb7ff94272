// SPDX-License-Identifier: Apache-2.0
// Two nodes as they ship, on a wire that loses one packet in a hundred and reorders one in twenty, TLS
// between the agents included. Built for the emulated machine with Debian's kernel, whose modules hold netem.
#include <gtest/gtest.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/numbers.h"
#include "tests/integration/load_run.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

class LossyWireTest : public TwoNodeTest {
 protected:
  void SetUp() override {
    if (!Prepare()) GTEST_SKIP() << "needs root: two namespaces, several users";
    for (const NetworkNamespace* end : {&veth_->near(), &veth_->far()}) {
      // Each packet takes a millisecond, but one in twenty goes at once and overtakes those before it.
      end->Run({"/sbin/tc", "qdisc", "add", "dev", VethPair::kInterface, "root", "netem", "delay", "1ms",
                "loss", "1%", "reorder", "5%"});
    }
    near_ = MakeNode("n1", veth_->near(), VethPair::kNearAddress);
    far_ = MakeNode("n2", veth_->far(), VethPair::kFarAddress);
    SetMesh(CommonMesh());
    for (Mesh* node : {near_.get(), far_.get()}) {
      node->StartAgent();
      node->StartControl();
    }
  }

  // Packets that netem has dropped at the near end.
  int Dropped() {
    const InNamespace inside(veth_->near());
    const std::string told =
        test::Run({"/sbin/tc", "-s", "qdisc", "show", "dev", VethPair::kInterface}).output;
    const std::size_t at = told.find("dropped ");
    int dropped = 0;
    if (at == std::string::npos) return 0;
    EXPECT_TRUE(absl::SimpleAtoi(told.substr(at + 8, told.find(',', at) - at - 8), &dropped)) << told;
    return dropped;
  }
};

TEST_F(LossyWireTest, LossAndReorderingLoseNoCallAndRunNoneTwice) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  Process client = near_run.StartClient(3, 40, {"--bytes", "6000", "--timeout-ms", "10000"});
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  EXPECT_EQ(result["started"], 120);
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
  EXPECT_GT(Dropped(), 3);
  std::printf("%d packets lost one way; p50 %.1f ms, p99 %.1f ms\n", Dropped(),
              result["p50_ns"].get<double>() / 1e6, result["p99_ns"].get<double>() / 1e6);
}

}  // namespace
}  // namespace weft::test
