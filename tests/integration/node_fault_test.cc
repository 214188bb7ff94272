// SPDX-License-Identifier: Apache-2.0
// What befalls two nodes and the wire between them while they run: addresses, certificates, keys, the wire.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/integration/load_run.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class FollowTest : public TwoNodeTest {
 protected:
  void SetUp() override {
    if (!Prepare()) GTEST_SKIP() << "needs root: two namespaces, several users";
    near_ = MakeNode("n1", veth_->near(), VethPair::kNearAddress);
    far_ = MakeNode("n2", veth_->far(), "0.0.0.0");  // Where it is, its peers see.
    SetMesh(CommonMesh());
    for (Mesh* node : {near_.get(), far_.get()}) {
      node->StartAgent();
      node->StartControl();
    }
  }
};

TEST_F(FollowTest, APeerWhoseAddressChangesIsFollowedWithinItsSession) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  // Of another prefix, so that the kernel does not take it for a secondary of the one that goes.
  veth_->far().Run({"/sbin/ip", "address", "add", "10.77.0.3/16", "dev", VethPair::kInterface});
  veth_->far().Run({"/sbin/ip", "address", "del", "10.77.0.2/24", "dev", VethPair::kInterface});
  SetMesh(CommonMesh("call_as: [app]", "10.77.0.3"));
  EXPECT_TRUE(Answers(*near_)) << Logs();
  EXPECT_THAT(Logs(), Not(HasSubstr("is no peer any more"))) << "the session went on";
}

}  // namespace
}  // namespace weft::test
