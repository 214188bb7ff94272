// SPDX-License-Identifier: Apache-2.0
// What a node says of itself in a real etcd, and how it goes.
#include "control/source/etcd/etcd_presence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tests/support/etcd.h"
#include "tests/support/turns.h"

namespace weft::control {
namespace {

using testing::HasSubstr;

const char kNode[] = "/weft/live/nodes/n1";
const char kEndpoint[] = "/weft/live/endpoints/n1/h1/v/f";

std::vector<api::Endpoint> EndpointsOf(const std::vector<std::string>& functions) {
  std::vector<api::Endpoint> endpoints;
  for (const std::string& function : functions) {
    api::Endpoint& endpoint = endpoints.emplace_back();
    endpoint.set_function(function);
    endpoint.set_node("n1");
    endpoint.set_host("h1");
  }
  return endpoints;
}

// One weft-control.
struct Node {
  Node(const std::string& url, const std::string& address, EtcdPresenceOptions options = {}) {
    http = *HttpClient::Create();
    options.etcd.endpoints = {url};
    options.address = address;
    options.lease_s = 2;
    presence = std::make_unique<EtcdPresence>(options, http.get());
  }
  void Turn() {
    presence->OnTime(NowNs());
    http->OnTime(NowNs());
    std::vector<pollfd> entries;
    http->AddPollEntries(&entries);
    poll(entries.data(), entries.size(), 1);
    http->OnEvents(entries);
    for (const std::string& note : presence->TakeNotes()) absl::StrAppend(&notes, note, "\n");
  }
  template <typename Done>
  bool RunUntil(Done&& done, uint64_t timeout_ns = 20 * kNsPerSecond) {
    return test::TurnUntil([&] { Turn(); }, done, timeout_ns);
  }

  std::unique_ptr<HttpClient> http;
  std::unique_ptr<EtcdPresence> presence;
  std::string notes;
};

class EtcdPresenceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::Etcd::Installed()) GTEST_SKIP() << "no etcd on this machine";
    etcd_.emplace();
  }
  std::optional<test::Etcd> etcd_;
};

TEST_F(EtcdPresenceTest, ANodeAndItsFunctionsComeAndGo) {
  Node node(etcd_->url(), "10.0.0.1:4810");
  node.presence->Say("n1", EndpointsOf({"v/f"}));
  ASSERT_TRUE(node.RunUntil([&] { return node.presence->published(); }));
  EXPECT_EQ(etcd_->Get(kNode), R"({"address":"10.0.0.1:4810"})");
  EXPECT_EQ(etcd_->Get(kEndpoint), "{}");
  node.presence->Say("n1", EndpointsOf({"v/g"}));
  ASSERT_TRUE(node.RunUntil([&] { return node.presence->published(); }));
  EXPECT_EQ(etcd_->Get(kEndpoint), "");
  EXPECT_EQ(etcd_->Get("/weft/live/endpoints/n1/h1/v/g"), "{}");
  // Kept alive beyond its lease of 2 s, and gone with it.
  node.RunUntil([] { return false; }, 3 * kNsPerSecond);
  EXPECT_NE(etcd_->Get(kNode), "");
  node.presence.reset();
  EXPECT_TRUE(test::Eventually([&] { return etcd_->Get(kNode).empty(); }));
  EXPECT_EQ(etcd_->Get("/weft/live/endpoints/n1/h1/v/g"), "");
}

TEST_F(EtcdPresenceTest, MoreThanATransactionHoldsIsSaid) {
  Node node(etcd_->url(), "10.0.0.1:4810");
  std::vector<std::string> functions;
  for (int i = 0; i < 250; ++i) functions.push_back(absl::StrCat("v/f", i));
  node.presence->Say("n1", EndpointsOf(functions));
  ASSERT_TRUE(node.RunUntil([&] { return node.presence->published(); }));
  EXPECT_EQ(etcd_->Get("/weft/live/endpoints/n1/h1/v/f249"), "{}");
  node.presence->Say("n1", {});
  ASSERT_TRUE(node.RunUntil([&] { return node.presence->published(); }));
  EXPECT_EQ(etcd_->Get("/weft/live/endpoints/n1/h1/v/f249"), "");
}

// etcd keeps each turn, and every node of the mesh takes it.
TEST_F(EtcdPresenceTest, AHostThatServesAndWithdrawsInALoopIsSlowedDownAlone) {
  EtcdPresenceOptions options;
  options.withdrawals_max = 10;
  Node node(etcd_->url(), "10.0.0.1:4810", options);
  node.presence->Say("n1", EndpointsOf({"v/f"}));
  ASSERT_TRUE(node.RunUntil([&] { return node.presence->published(); }));
  constexpr int kTurns = 100;
  int published = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    // Ever new names: they would pile up where only withdrawals are slow.
    node.presence->Say("n1", EndpointsOf({absl::StrCat("v/f", turn)}));
    for (int i = 0; i < 20 && !node.presence->published(); ++i) node.Turn();
    published += node.presence->published() ? 1 : 0;
  }
  EXPECT_LT(published, kTurns / 2) << "ten, and one a second";
  int standing = 0;
  for (int i = 0; i < kTurns; ++i) {
    standing += etcd_->Get(absl::StrCat("/weft/live/endpoints/n1/h1/v/f", i)).empty() ? 0 : 1;
  }
  EXPECT_LE(standing, 2);
  EXPECT_THAT(node.notes, HasSubstr("functions of host h1 are withdrawn in a loop"));
  // Others are told of as ever, and it is, too, in the end.
  std::vector<api::Endpoint> all = EndpointsOf({"v/last"});
  all.push_back(all.back());
  all.back().set_host("h2");
  node.presence->Say("n1", all);
  EXPECT_TRUE(node.RunUntil([&] { return !etcd_->Get("/weft/live/endpoints/n1/h2/v/last").empty(); }));
  EXPECT_TRUE(node.RunUntil([&] { return node.presence->published(); }));
  EXPECT_EQ(etcd_->Get("/weft/live/endpoints/n1/h1/v/last"), "{}");
}

// A tenant whose hosts are pods names them itself.
TEST_F(EtcdPresenceTest, PodsThatComeUnderEverNewNamesAreSlowedDownTogether) {
  EtcdPresenceOptions options;
  options.withdrawals_max = 10;
  Node node(etcd_->url(), "10.0.0.1:4810", options);
  constexpr int kTurns = 100;
  const auto pod = [](int turn) { return absl::StrFormat("%08x-0000-4000-8000-000000000000", turn); };
  int published = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    std::vector<api::Endpoint> endpoints = EndpointsOf({"v/f"});
    endpoints[0].set_host(pod(turn));
    node.presence->Say("n1", endpoints);
    if (turn == 0) {
      ASSERT_TRUE(node.RunUntil([&] { return node.presence->published(); }));
    }
    for (int i = 0; i < 20 && !node.presence->published(); ++i) node.Turn();
    published += node.presence->published() ? 1 : 0;
  }
  EXPECT_LT(published, kTurns / 2) << "ten, and one a second";
  EXPECT_THAT(node.notes, HasSubstr("functions of pods in namespace v are withdrawn in a loop"));
  // Pods that serve other functions, and hosts that weftd's settings name, are told of as ever.
  std::vector<api::Endpoint> all = EndpointsOf({"v/named", "other/f"});
  all[1].set_host(pod(kTurns));
  node.presence->Say("n1", all);
  EXPECT_TRUE(node.RunUntil([&] {
    return !etcd_->Get("/weft/live/endpoints/n1/h1/v/named").empty() &&
           !etcd_->Get(absl::StrCat("/weft/live/endpoints/n1/", pod(kTurns), "/other/f")).empty();
  }));
}

TEST_F(EtcdPresenceTest, OfTwoNodesThatClaimOneNameTheSecondWaits) {
  Node first(etcd_->url(), "10.0.0.1:4810");
  first.presence->Say("n1", EndpointsOf({"v/f"}));
  ASSERT_TRUE(first.RunUntil([&] { return first.presence->published(); }));
  Node second(etcd_->url(), "10.0.0.2:4810");
  second.presence->Say("n1", EndpointsOf({"v/other"}));
  ASSERT_TRUE(second.RunUntil([&] {
    first.Turn();
    return !second.presence->problem().empty();
  }));
  EXPECT_THAT(second.presence->problem(), HasSubstr("node n1 is claimed by 10.0.0.1:4810"));
  EXPECT_EQ(etcd_->Get("/weft/live/endpoints/n1/h1/v/other"), "");
  first.presence.reset();  // Dies
  EXPECT_TRUE(second.RunUntil([&] { return second.presence->published(); }));
  EXPECT_EQ(etcd_->Get(kNode), R"({"address":"10.0.0.2:4810"})");
}

TEST_F(EtcdPresenceTest, ARestartTakesItsOwnNameOver) {
  Node before(etcd_->url(), "10.0.0.1:4810");
  before.presence->Say("n1", EndpointsOf({"v/f", "v/old"}));
  ASSERT_TRUE(before.RunUntil([&] { return before.presence->published(); }));
  before.presence.reset();
  Node after(etcd_->url(), "10.0.0.1:4810");
  after.presence->Say("n1", EndpointsOf({"v/f"}));
  ASSERT_TRUE(after.RunUntil([&] { return after.presence->published(); }, kNsPerSecond));
  // What the earlier run said alone goes with its lease.
  EXPECT_TRUE(after.RunUntil([&] { return etcd_->Get("/weft/live/endpoints/n1/h1/v/old").empty(); }));
  EXPECT_EQ(etcd_->Get(kEndpoint), "{}");
}

TEST_F(EtcdPresenceTest, AfterTheLossOfItsLeaseEverythingIsSaidAnew) {
  Node node(etcd_->url(), "10.0.0.1:4810");
  node.presence->Say("n1", EndpointsOf({"v/f"}));
  ASSERT_TRUE(node.RunUntil([&] { return node.presence->published(); }));
  etcd_->Kill();
  etcd_->Forget();
  etcd_->Start();
  ASSERT_TRUE(node.RunUntil([&] { return !etcd_->Get(kEndpoint).empty(); }));
  EXPECT_EQ(etcd_->Get(kNode), R"({"address":"10.0.0.1:4810"})");
  EXPECT_THAT(node.notes, HasSubstr("saying everything anew"));
}

}  // namespace
}  // namespace weft::control
