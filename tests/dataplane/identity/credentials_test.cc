// SPDX-License-Identifier: Apache-2.0
#include "dataplane/identity/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include "tests/dataplane/identity/test_node.h"

namespace weft::identity {
namespace {

using ::testing::HasSubstr;

constexpr Validity kLastYear{kTestUnixS - 2 * 365 * 86'400, kTestUnixS - 86'400};
constexpr Validity kNextYear{kTestUnixS + 86'400, kTestUnixS + 300 * 86'400};

X509Ptr CertificateOf(const PemPair& pair) {
  return X509Ptr(PEM_read_bio_X509(BioOf(pair.certificate).get(), nullptr, nullptr, nullptr));
}

class CredentialsTest : public testing::Test {
 protected:
  std::string Complaint(const CredentialPaths& paths) {
    const auto loaded = Credentials::Load(paths, world_.unix_s);
    return loaded.ok() ? "good" : std::string(loaded.status().message());
  }
  Verdict VerdictOn(const absl::StatusOr<PemPair>& pair) {
    EXPECT_TRUE(pair.ok()) << pair.status();
    const auto own = Credentials::Load(world_.Issue("own"), world_.unix_s);
    EXPECT_TRUE(own.ok()) << own.status();
    return (*own)->Verify(CertificateOf(*pair).get(), nullptr, world_.unix_s);
  }

  TestWorld world_;
};

TEST_F(CredentialsTest, WhatTheAuthorityIssuesIsLoaded) {
  const auto loaded = Credentials::Load(world_.Issue("n1"), world_.unix_s);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->id().ToString(), "spiffe://test.example/node/n1");
  EXPECT_EQ((*loaded)->expires_unix_s(), kTestYear.not_after_s);
}

TEST_F(CredentialsTest, FilesThatAreNotGoodTogetherAreRefusedByName) {
  CredentialPaths paths = world_.Issue("n1");
  const CredentialPaths other = world_.Issue("n2");
  EXPECT_THAT(Complaint({paths.certificate, other.key, paths.ca}), HasSubstr("is not the key of"));
  EXPECT_THAT(Complaint({paths.certificate, paths.key, paths.certificate}), HasSubstr("no CA's"));
  EXPECT_THAT(Complaint({paths.ca, paths.key, paths.ca}), HasSubstr("is not the key of"));
  EXPECT_THAT(Complaint({paths.certificate, paths.key, paths.ca + "x"}), HasSubstr("No such file"));
  EXPECT_THAT(Complaint({paths.certificate, paths.key, "/dev/null"}), HasSubstr("is not a file"));
  EXPECT_THAT(Complaint({paths.certificate, paths.certificate, paths.ca}), HasSubstr("open to everybody"));
  chmod(paths.key.c_str(), 0644);
  EXPECT_THAT(Complaint(paths), HasSubstr("open to everybody (mode 0644)"));
  chmod(paths.key.c_str(), 0600);
  const Authority foreign = std::move(*Authority::Make("test.example", kTestYear));
  test::WriteFile(paths.ca, foreign.ToPem().certificate);
  EXPECT_THAT(Complaint(paths), HasSubstr("unable to get local issuer certificate"));
  EXPECT_THAT(Complaint(world_.Issue("n1", nullptr, kLastYear)), HasSubstr("expired"));
  EXPECT_THAT(Complaint(world_.Issue("n1", nullptr, kNextYear)), HasSubstr("not yet valid"));
  EXPECT_EQ(Complaint(world_.Issue("n1")), "good");
}

TEST_F(CredentialsTest, AFileCutOffAnywhereIsNotLoaded) {
  const CredentialPaths paths = world_.Issue("n1");
  for (const std::string& path : {paths.certificate, paths.key, paths.ca}) {
    const std::string whole = test::ReadFile(path);
    // The last byte is a newline, which nothing misses.
    for (std::size_t cut = 0; cut + 1 < whole.size(); cut += 37) {
      test::WriteFile(path, whole.substr(0, cut));
      chmod(path.c_str(), 0600);
      EXPECT_NE(Complaint(paths), "good") << path << " at " << cut;
    }
    test::WriteFile(path, whole);
    chmod(path.c_str(), 0600);
  }
  EXPECT_EQ(Complaint(paths), "good");
}

TEST_F(CredentialsTest, APeerIsANodeOfTheTrustDomainOrIsRefusedByName) {
  EXPECT_EQ(VerdictOn(world_.authority.IssueNode("n7", kTestYear)).id.name, "n7");
  const auto uris = [&](std::vector<std::string> list) {
    return VerdictOn(world_.authority.Issue(list, kTestYear)).refusal;
  };
  EXPECT_EQ(uris({}), Refusal::kNotSpiffe);
  EXPECT_EQ(uris({"spiffe://test.example/node/a", "spiffe://test.example/node/b"}), Refusal::kNotSpiffe);
  EXPECT_EQ(uris({"spiffe://test.example/node/a/b"}), Refusal::kNotSpiffe);
  EXPECT_EQ(uris({"spiffe://test.example/host/a"}), Refusal::kNotSpiffe);
  EXPECT_EQ(uris({"https://test.example/node/a"}), Refusal::kNotSpiffe);
  EXPECT_EQ(uris({"spiffe://test.example/node/"}), Refusal::kNotSpiffe);
  EXPECT_EQ(uris({"spiffe://TEST.example/node/a"}), Refusal::kNotSpiffe);
  EXPECT_EQ(uris({"spiffe://other.example/node/a"}), Refusal::kWrongTrustDomain);
  const Authority foreign = std::move(*Authority::Make("test.example", kTestYear));
  EXPECT_EQ(VerdictOn(foreign.IssueNode("n7", kTestYear)).refusal, Refusal::kForeign);
  EXPECT_EQ(VerdictOn(world_.authority.IssueNode("n7", kLastYear)).refusal, Refusal::kExpired);
  EXPECT_EQ(VerdictOn(world_.authority.IssueNode("n7", kNextYear)).refusal, Refusal::kExpired);
  EXPECT_EQ(VerdictOn(PemPair(world_.authority.ToPem())).refusal, Refusal::kNotSpiffe);
}

TEST_F(CredentialsTest, WhatTheBundleRevokesIsRefusedAndAnOldListStillCounts) {
  const auto good = world_.authority.IssueNode("good", kTestYear);
  const auto bad = world_.authority.IssueNode("bad", kTestYear);
  const auto list = world_.authority.Revoke({bad->certificate}, kLastYear);
  ASSERT_TRUE(list.ok()) << list.status();
  const CredentialPaths paths = world_.Issue("own");
  test::WriteFile(paths.ca, world_.authority.ToPem().certificate + *list);
  const auto own = Credentials::Load(paths, world_.unix_s);
  ASSERT_TRUE(own.ok()) << own.status();
  EXPECT_EQ((*own)->Verify(CertificateOf(*good).get(), nullptr, world_.unix_s).refusal, Refusal::kNone);
  EXPECT_EQ((*own)->Verify(CertificateOf(*bad).get(), nullptr, world_.unix_s).refusal, Refusal::kRevoked);
}

TEST_F(CredentialsTest, AHalfWrittenPairKeepsTheOldOneAndIsToldOnce) {
  const CredentialPaths paths = world_.Issue("n1");
  CredentialFiles files(paths);
  ASSERT_TRUE(files.Poll(world_.unix_s).ok());
  EXPECT_EQ(*files.Poll(world_.unix_s), nullptr);  // Nothing has changed.
  const auto renewed = world_.authority.IssueNode("n1", kTestYear);
  test::WriteFile(paths.certificate, renewed->certificate);
  const auto half = files.Poll(world_.unix_s);
  ASSERT_FALSE(half.ok());
  EXPECT_THAT(std::string(half.status().message()), HasSubstr("is not the key of"));
  const auto again = files.Poll(world_.unix_s);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, nullptr);
  test::WriteFile(paths.key, renewed->key);
  chmod(paths.key.c_str(), 0600);
  const auto whole = files.Poll(world_.unix_s);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_NE(*whole, nullptr);
}

TEST(AuthorityTest, ItComesBackFromItsFilesAndRefusesWhatIsNone) {
  const Authority made = std::move(*Authority::Make("a.example", kTestYear));
  const auto read = Authority::FromPem(made.ToPem());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->trust_domain(), "a.example");
  const auto node = made.IssueNode("n1", {kTestUnixS, kTestUnixS + 20 * 365 * 86'400LL});
  ASSERT_TRUE(node.ok());
  EXPECT_FALSE(Authority::FromPem(*node).ok());
  EXPECT_FALSE(Authority::FromPem({made.ToPem().certificate, node->key}).ok());
  EXPECT_FALSE(made.IssueNode("No Name", kTestYear).ok());
  EXPECT_FALSE(Authority::Make("Not.Lower", kTestYear).ok());
}

}  // namespace
}  // namespace weft::identity
