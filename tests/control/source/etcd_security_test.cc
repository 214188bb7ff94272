// SPDX-License-Identifier: Apache-2.0
// Source and presence against a real etcd behind TLS, with users whose tokens run out, and in a cluster whose
// leader goes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/control/source/etcd_loop.h"
#include "tests/support/etcd.h"
#include "tests/support/tls_files.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class EtcdSecurityTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::Etcd::Installed()) GTEST_SKIP() << "no etcd on this machine";
  }
  static EtcdOptions OptionsFor(const test::Etcd& etcd, const std::string& user = "") {
    EtcdOptions options;
    options.endpoints = {etcd.url()};
    options.user = user;
    options.password = user;
    return options;
  }
};

TEST_F(EtcdSecurityTest, OnlyTheRightCertificatesOpenATlsConnection) {
  const test::TlsAuthority authority;
  const test::TlsAuthority stranger;
  test::EtcdSettings settings;
  settings.server = authority.Issue("server");
  settings.client = authority.Issue("client");
  test::Etcd etcd(settings);
  etcd.Put("/weft/nodes/n1", "{}");
  const auto problem_with = [&](const TlsFiles& tls) {
    EtcdOptions options = OptionsFor(etcd);
    options.tls = tls;
    EtcdLoop loop(options);
    EXPECT_TRUE(loop.RunUntil([&] { return !loop.source().Health().problem.empty(); }));
    EXPECT_FALSE(loop.source().Health().synced);
    return loop.source().Health().problem;
  };
  const TlsFiles good = authority.Issue("weft");
  EXPECT_THAT(problem_with({"", "", ""}), HasSubstr("certificate"));
  EXPECT_THAT(problem_with({stranger.path("ca.crt"), good.certificate, good.key}), HasSubstr("certificate"));
  EXPECT_THAT(problem_with({good.ca, "", ""}), HasSubstr(etcd.url()));
  const TlsFiles other = stranger.Issue("weft");
  EXPECT_THAT(problem_with({good.ca, other.certificate, other.key}), HasSubstr(etcd.url()));

  EtcdOptions options = OptionsFor(etcd);
  options.tls = good;
  EtcdLoop loop(options);
  ASSERT_TRUE(loop.RunUntilNodes({"n1"})) << loop.source().Health().problem;
  loop.presence().Say("n7", {});
  EXPECT_TRUE(loop.RunUntilNodes({"n1", "n7"}));
  EXPECT_TRUE(loop.RunUntil([&] { return loop.presence().published(); }));
}

TEST_F(EtcdSecurityTest, TokensThatRunOutAreRenewedUnseen) {
  test::EtcdSettings settings;
  settings.arguments = {"--auth-token-ttl=1"};
  test::Etcd etcd(settings);
  etcd.Put("/weft/nodes/n1", "{}");
  etcd.EnableUsers();
  EtcdLoop loop(OptionsFor(etcd, "weft"), 5);  // Kept alive every 1.7 s
  loop.presence().Say("n7", {});
  ASSERT_TRUE(loop.RunUntilNodes({"n1", "n7"})) << loop.source().Health().problem;
  loop.RunFor(5 * kNsPerSecond / 2);
  EXPECT_TRUE(loop.source().Health().synced);
  EXPECT_TRUE(loop.presence().published());
  EXPECT_EQ(loop.notes(), "");
  // A watch that must begin anew long after its token ran out.
  etcd.Signal(SIGSTOP);
  ASSERT_TRUE(loop.RunUntil([&] { return !loop.source().Health().synced; }));
  etcd.Signal(SIGCONT);
  etcd.LoginAs("root", "root");
  etcd.Put("/weft/nodes/n2", "{}");
  EXPECT_TRUE(loop.RunUntilNodes({"n1", "n2", "n7"})) << loop.source().Health().problem << loop.notes();
}

TEST_F(EtcdSecurityTest, SignedTokensOfAnOlderRuleBookAreRenewed) {
  const test::TlsAuthority keys;
  const auto openssl = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "/usr/bin/openssl");
    ASSERT_EQ(test::Run(arguments).exit_code, 0);
  };
  openssl({"genrsa", "-out", keys.path("jwt.key"), "2048"});
  openssl({"rsa", "-in", keys.path("jwt.key"), "-pubout", "-out", keys.path("jwt.pub")});
  test::EtcdSettings settings;
  settings.arguments = {absl::StrCat("--auth-token=jwt,pub-key=", keys.path("jwt.pub"),
                                     ",priv-key=", keys.path("jwt.key"), ",sign-method=RS256,ttl=2s")};
  test::Etcd etcd(settings);
  etcd.Put("/weft/nodes/n1", "{}");
  etcd.EnableUsers();
  EtcdLoop loop(OptionsFor(etcd, "weft"));
  loop.presence().Say("n7", {});
  ASSERT_TRUE(loop.RunUntilNodes({"n1", "n7"})) << loop.source().Health().problem;
  // Every change of users and roles makes all tokens of before old, though they have not run out.
  ASSERT_TRUE(etcd.Ask("/v3/auth/user/add", R"({"name":"third","password":"x"})").ok());
  loop.RunFor(5 * kNsPerSecond / 2);
  EXPECT_TRUE(loop.source().Health().synced) << loop.source().Health().problem;
  EXPECT_TRUE(loop.presence().published()) << loop.presence().problem();
  EXPECT_EQ(loop.notes(), "");
  etcd.Put("/weft/nodes/n2", "{}");
  EXPECT_TRUE(loop.RunUntilNodes({"n1", "n2", "n7"})) << loop.source().Health().problem;
}

TEST_F(EtcdSecurityTest, AUserWithoutTheRightOrWithAnotherPasswordIsTold) {
  test::Etcd etcd;
  etcd.Put("/weft/nodes/n1", "{}");
  etcd.EnableUsers();
  EtcdOptions options = OptionsFor(etcd, "weft");
  options.prefix = "/other/";
  EtcdLoop outside(options);
  ASSERT_TRUE(outside.RunUntil([&] { return !outside.source().Health().problem.empty(); }));
  EXPECT_THAT(outside.source().Health().problem, HasSubstr("permission denied"));
  EtcdLoop nobody(OptionsFor(etcd));
  ASSERT_TRUE(nobody.RunUntil([&] { return !nobody.source().Health().problem.empty(); }));
  EXPECT_THAT(nobody.source().Health().problem, HasSubstr("user name is empty"));
  // The password changes while all is well: what was taken stays in force, and the cause is told.
  EtcdLoop loop(OptionsFor(etcd, "weft"));
  ASSERT_TRUE(loop.RunUntilNodes({"n1"}));
  ASSERT_TRUE(etcd.Ask("/v3/auth/user/changepw", R"({"name":"weft","password":"new"})").ok());
  ASSERT_TRUE(loop.RunUntil([&] { return !loop.source().Health().synced; }));
  EXPECT_TRUE(loop.RunUntil([&] {
    return absl::StrContains(loop.source().Health().problem, "authentication failed");
  })) << loop.source().Health().problem;
  EXPECT_THAT(loop.nodes(), ElementsAre("n1"));
}

TEST_F(EtcdSecurityTest, ALeaderThatGoesAndAMemberWithoutOneCostNothing) {
  test::EtcdCluster cluster;
  EtcdOptions options;
  const std::size_t leader = cluster.Leader();
  const std::size_t follower = (leader + 1) % cluster.size();
  const std::size_t third = (leader + 2) % cluster.size();
  // The member that is watched is first the leader itself.
  for (const std::size_t index : {leader, follower, third})
    options.endpoints.push_back(cluster.urls()[index]);
  cluster.member(leader).Put("/weft/nodes/n1", "{}");
  EtcdLoop loop(options);
  loop.presence().Say("n7", {});
  ASSERT_TRUE(loop.RunUntilNodes({"n1", "n7"}));
  cluster.member(leader).Kill();
  cluster.member(follower).WaitUntilUp();  // Another leads.
  cluster.member(follower).Put("/weft/nodes/n2", "{}");
  ASSERT_TRUE(loop.RunUntilNodes({"n1", "n2", "n7"})) << loop.source().Health().problem;
  EXPECT_TRUE(loop.RunUntil([&] { return loop.presence().published(); }));
  // Without a majority nobody leads: reads from what is left would be old, so it is not in step.
  cluster.member(third).Signal(SIGSTOP);
  ASSERT_TRUE(loop.RunUntil([&] { return !loop.source().Health().synced; }));
  EXPECT_THAT(loop.nodes(), ElementsAre("n1", "n2", "n7"));
  cluster.member(third).Signal(SIGCONT);
  cluster.member(leader).Start();
  cluster.member(follower).WaitUntilUp();
  cluster.member(follower).Put("/weft/nodes/n3", "{}");
  EXPECT_TRUE(loop.RunUntil([&] {
    return loop.source().Health().synced && loop.presence().published() && loop.nodes().size() == 4;
  })) << loop.source().Health().problem
      << loop.notes();
  EXPECT_THAT(loop.notes(), Not(HasSubstr("keeping")));
}

// A follower: a leader that goes has all leases extended.
TEST_F(EtcdSecurityTest, AMemberThatHangsTakesNoNodeOutOfTheMesh) {
  test::EtcdCluster cluster;
  const std::size_t leader = cluster.Leader();
  const std::size_t follower = (leader + 1) % cluster.size();
  EtcdOptions options;
  for (std::size_t i = 0; i < cluster.size(); ++i) {
    options.endpoints.push_back(cluster.urls()[(follower + i) % cluster.size()]);
  }
  constexpr uint64_t kLeaseS = 3;
  EtcdLoop loop(options, kLeaseS);
  api::Endpoint endpoint;
  endpoint.set_node("n7");
  endpoint.set_host("h");
  endpoint.set_function("v/f");
  loop.presence().Say("n7", {});
  ASSERT_TRUE(loop.RunUntil([&] { return loop.presence().published(); }));
  options.endpoints = {cluster.urls()[leader]};
  EtcdLoop watcher(options);
  ASSERT_TRUE(watcher.RunUntilNodes({"n7"}));
  cluster.member(follower).Signal(SIGSTOP);
  loop.presence().Say("n7", {endpoint});  // Waits for the member as well.
  // Until the lease would have run out, and etcd would have noticed.
  const uint64_t end_ns = NowNs() + (kLeaseS + 1) * kNsPerSecond;
  watcher.RunUntil([&] {
    loop.Turn();
    return NowNs() > end_ns;
  });
  EXPECT_EQ(watcher.fewest(), 1u) << loop.notes();
  EXPECT_TRUE(loop.presence().published()) << loop.notes();
  EXPECT_EQ(cluster.member(leader).Get("/weft/live/endpoints/n7/h/v/f"), "{}");
  EXPECT_EQ(loop.presence().problem(), "");
  cluster.member(follower).Signal(SIGCONT);
}

}  // namespace
}  // namespace weft::control
