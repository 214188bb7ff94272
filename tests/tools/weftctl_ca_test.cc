// SPDX-License-Identifier: Apache-2.0
// `weftctl ca` as a program: what it writes is what an agent takes, and it overwrites nothing unasked.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <string>
#include <vector>

#include "dataplane/identity/authority.h"
#include "dataplane/identity/credentials.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::ctl {
namespace {

using testing::HasSubstr;

class WeftctlCaTest : public testing::Test {
 protected:
  test::Ran Ca(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {WEFT_BIN_DIR "/weftctl", "ca"});
    return test::Run(arguments);
  }
  mode_t ModeOf(const std::string& path) {
    struct stat status;
    return stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
  }

  test::TemporaryDirectory directory_;
  const std::string ca_ = directory_ / "ca";
};

TEST_F(WeftctlCaTest, WhatItIssuesAnAgentTakes) {
  const test::Ran init = Ca({"init", ca_, "--trust-domain", "dev.example"});
  ASSERT_EQ(init.exit_code, 0) << init.error;
  EXPECT_THAT(init.output, HasSubstr("spiffe://dev.example"));
  const test::Ran issue = Ca({"issue", ca_, "n1", "--days", "3", "--out", directory_.path()});
  ASSERT_EQ(issue.exit_code, 0) << issue.error;
  EXPECT_THAT(issue.output, HasSubstr("spiffe://dev.example/node/n1"));
  EXPECT_EQ(ModeOf(ca_ + "/ca-key.pem"), 0600u);
  EXPECT_EQ(ModeOf(directory_ / "n1-key.pem"), 0600u);
  const auto loaded = identity::Credentials::Load(
      {directory_ / "n1.pem", directory_ / "n1-key.pem", ca_ + "/ca.pem"}, time(nullptr));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->id().ToString(), "spiffe://dev.example/node/n1");
  EXPECT_LE((*loaded)->expires_unix_s(), time(nullptr) + 3 * 86'400);
  EXPECT_GT((*loaded)->expires_unix_s(), time(nullptr) + 2 * 86'400);
}

TEST_F(WeftctlCaTest, ACaThatIsNotThereIsToldWithWhatMakesOneAndHalfOfOneIsNot) {
  EXPECT_EQ(Ca({"issue", ca_, "n1"}).error,
            "weftctl: ca issue " + ca_ + " n1: NOT_FOUND: open " + ca_ +
                "/ca.pem: No such file or directory (`weftctl ca init` makes a CA)\n");
  ASSERT_EQ(Ca({"init", ca_, "--trust-domain", "dev.example"}).exit_code, 0);
  ASSERT_EQ(unlink((ca_ + "/ca-key.pem").c_str()), 0);
  EXPECT_EQ(Ca({"issue", ca_, "n1"}).error, "weftctl: ca issue " + ca_ + " n1: NOT_FOUND: open " + ca_ +
                                                "/ca-key.pem: No such file or directory\n");
}

TEST_F(WeftctlCaTest, NothingIsOverwrittenUnasked) {
  ASSERT_EQ(Ca({"init", ca_, "--trust-domain", "dev.example"}).exit_code, 0);
  const std::string certificate = test::ReadFile(ca_ + "/ca.pem");
  const test::Ran again = Ca({"init", ca_, "--trust-domain", "dev.example"});
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.error, HasSubstr("ca-key.pem exists, and is not overwritten"));
  EXPECT_EQ(test::ReadFile(ca_ + "/ca.pem"), certificate);
  // The key is lost: no half of a new CA is left behind.
  unlink((ca_ + "/ca-key.pem").c_str());
  EXPECT_EQ(Ca({"init", ca_, "--trust-domain", "dev.example"}).exit_code, 1);
  EXPECT_EQ(ModeOf(ca_ + "/ca-key.pem"), 0u);
  unlink((ca_ + "/ca.pem").c_str());
  ASSERT_EQ(Ca({"init", ca_, "--trust-domain", "dev.example"}).exit_code, 0);

  ASSERT_EQ(Ca({"issue", ca_, "n1"}).exit_code, 0);
  const std::string first = test::ReadFile(ca_ + "/n1.pem");
  EXPECT_EQ(Ca({"issue", ca_, "n1"}).exit_code, 1);
  EXPECT_EQ(test::ReadFile(ca_ + "/n1.pem"), first);
  const test::Ran replaced = Ca({"issue", ca_, "n1", "--replace"});
  EXPECT_EQ(replaced.exit_code, 0) << replaced.error;
  EXPECT_NE(test::ReadFile(ca_ + "/n1.pem"), first);
  EXPECT_EQ(ModeOf(ca_ + "/n1-key.pem"), 0600u);
  EXPECT_TRUE(
      identity::Credentials::Load({ca_ + "/n1.pem", ca_ + "/n1-key.pem", ca_ + "/ca.pem"}, time(nullptr))
          .ok());
}

TEST_F(WeftctlCaTest, NoNodesFilesTakeThePlaceOfAnothersKey) {
  ASSERT_EQ(Ca({"init", ca_, "--trust-domain", "dev.example"}).exit_code, 0);
  ASSERT_EQ(Ca({"issue", ca_, "a"}).exit_code, 0);
  const std::string key = test::ReadFile(ca_ + "/a-key.pem");
  const test::Ran refused = Ca({"issue", ca_, "a-key", "--replace"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.error, HasSubstr("a-key.pem is the name of a key's file"));
  EXPECT_EQ(test::ReadFile(ca_ + "/a-key.pem"), key);
}

TEST_F(WeftctlCaTest, WhatIsRevokedNoAgentTakesAndTheOthersStay) {
  ASSERT_EQ(Ca({"init", ca_, "--trust-domain", "dev.example"}).exit_code, 0);
  for (const char* const node : {"n1", "n2", "n3"}) ASSERT_EQ(Ca({"issue", ca_, node}).exit_code, 0);
  const auto load = [this](const std::string& node) {
    return identity::Credentials::Load(
               {ca_ + "/" + node + ".pem", ca_ + "/" + node + "-key.pem", ca_ + "/ca.pem"}, time(nullptr))
        .status();
  };
  const test::Ran first = Ca({"revoke", ca_, "n1"});
  ASSERT_EQ(first.exit_code, 0) << first.error;
  EXPECT_THAT(std::string(load("n1").message()), HasSubstr("revoked"));
  EXPECT_TRUE(load("n2").ok());
  // A second one, by a file elsewhere, is added to the first; the same one again changes nothing.
  ASSERT_EQ(rename((ca_ + "/n2.pem").c_str(), (directory_ / "old.pem").c_str()), 0);
  for (int i = 0; i < 2; ++i) {
    const test::Ran second = Ca({"revoke", ca_, "n2", "--certificate", directory_ / "old.pem"});
    EXPECT_EQ(second.exit_code, 0) << second.error;
  }
  ASSERT_EQ(rename((directory_ / "old.pem").c_str(), (ca_ + "/n2.pem").c_str()), 0);
  EXPECT_THAT(std::string(load("n1").message()), HasSubstr("revoked"));
  EXPECT_THAT(std::string(load("n2").message()), HasSubstr("revoked"));
  EXPECT_TRUE(load("n3").ok());
  // The CA goes on: it issues, and a new certificate of a revoked node is another.
  ASSERT_EQ(Ca({"issue", ca_, "n1", "--replace"}).exit_code, 0);
  EXPECT_TRUE(load("n1").ok()) << load("n1");
  // What is not its own it does not revoke.
  const std::string other = directory_ / "other";
  ASSERT_EQ(Ca({"init", other, "--trust-domain", "dev.example"}).exit_code, 0);
  ASSERT_EQ(Ca({"issue", other, "n1"}).exit_code, 0);
  const test::Ran foreign = Ca({"revoke", ca_, "n1", "--certificate", other + "/n1.pem"});
  EXPECT_EQ(foreign.exit_code, 1);
  EXPECT_THAT(foreign.error, HasSubstr("not of this CA"));
  // Nor another node's by mistake.
  const test::Ran mistaken = Ca({"revoke", ca_, "n1", "--certificate", ca_ + "/n3.pem"});
  EXPECT_EQ(mistaken.exit_code, 1);
  EXPECT_THAT(mistaken.error, HasSubstr("is the certificate of node n3, not of n1"));
  EXPECT_TRUE(load("n3").ok());
  EXPECT_EQ(Ca({"revoke", ca_}).exit_code, 2);
}

// As while one CA follows another, whose list has become too long.
TEST_F(WeftctlCaTest, TwoCasWithListsStandInOneBundle) {
  const std::string next = directory_ / "next";
  for (const std::string& ca : {ca_, next}) {
    ASSERT_EQ(Ca({"init", ca, "--trust-domain", "dev.example"}).exit_code, 0);
    for (const char* node : {"n1", "n2"}) ASSERT_EQ(Ca({"issue", ca, node}).exit_code, 0);
    ASSERT_EQ(Ca({"revoke", ca, "n2"}).exit_code, 0);
  }
  test::WriteFile(directory_ / "both.pem",
                  test::ReadFile(ca_ + "/ca.pem") + test::ReadFile(next + "/ca.pem"));
  for (const std::string& ca : {ca_, next}) {
    const auto load = [&](const std::string& node) {
      const std::string stem = ca + "/" + node;
      return identity::Credentials::Load({stem + ".pem", stem + "-key.pem", directory_ / "both.pem"},
                                         time(nullptr))
          .status();
    };
    EXPECT_TRUE(load("n1").ok()) << load("n1");
    EXPECT_THAT(std::string(load("n2").message()), HasSubstr("revoked"));
  }
}

// Longer than a page or two: every revocation stays, and the next one is added.
TEST_F(WeftctlCaTest, ALongListGoesOn) {
  ASSERT_EQ(Ca({"init", ca_, "--trust-domain", "dev.example"}).exit_code, 0);
  const auto authority =
      identity::Authority::FromPem({test::ReadFile(ca_ + "/ca.pem"), test::ReadFile(ca_ + "/ca-key.pem")});
  ASSERT_TRUE(authority.ok()) << authority.status();
  const identity::Validity validity{time(nullptr) - 60, time(nullptr) + 86'400};
  std::vector<std::string> certificates;
  for (int i = 0; i < 2'000; ++i) certificates.push_back(authority->IssueNode("n", validity)->certificate);
  const std::string list = authority->Revoke(certificates, validity, "").value();
  ASSERT_GT(list.size(), 64u * 1024);
  test::WriteFile(ca_ + "/ca.pem", authority->ToPem().certificate + list);
  ASSERT_EQ(Ca({"issue", ca_, "n1"}).exit_code, 0);
  const test::Ran revoke = Ca({"revoke", ca_, "n1"});
  ASSERT_EQ(revoke.exit_code, 0) << revoke.error;
  const auto load = [&] {
    return identity::Credentials::Load({ca_ + "/n1.pem", ca_ + "/n1-key.pem", ca_ + "/ca.pem"}, time(nullptr))
        .status();
  };
  EXPECT_THAT(std::string(load().message()), HasSubstr("revoked"));
  EXPECT_GT(test::ReadFile(ca_ + "/ca.pem").size(), authority->ToPem().certificate.size() + list.size());
}

TEST_F(WeftctlCaTest, WhatCannotBeIsRefusedClearly) {
  EXPECT_EQ(Ca({}).exit_code, 2);
  EXPECT_EQ(Ca({"init", ca_}).exit_code, 2);
  EXPECT_EQ(Ca({"issue", ca_}).exit_code, 2);
  EXPECT_EQ(Ca({"init", ca_, "--trust-domain", "d", "--days", "0"}).exit_code, 2);
  const test::Ran domain = Ca({"init", ca_, "--trust-domain", "Bad Domain"});
  EXPECT_EQ(domain.exit_code, 1);
  EXPECT_THAT(domain.error, HasSubstr("trust domain \"Bad Domain\""));
  const test::Ran missing = Ca({"issue", ca_, "n1"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.error, HasSubstr("weftctl ca init"));
  ASSERT_EQ(Ca({"init", ca_, "--trust-domain", "dev.example"}).exit_code, 0);
  EXPECT_THAT(Ca({"issue", ca_, "Bad Node"}).error, HasSubstr("Bad Node"));
  EXPECT_THAT(Ca({"issue", ca_, "ca", "--replace"}).error, HasSubstr("CA's files"));
  test::WriteFile(ca_ + "/ca.pem", "nonsense");
  EXPECT_THAT(Ca({"issue", ca_, "n1"}).error, HasSubstr("ca.pem: no certificate"));
}

}  // namespace
}  // namespace weft::ctl
