// SPDX-License-Identifier: Apache-2.0
#include "dataplane/identity/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <functional>

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

TEST_F(CredentialsTest, AnEncryptedKeyIsToldToBeOne) {
  const CredentialPaths paths = world_.Issue("n1");
  const std::string plain = test::ReadFile(paths.key);
  const KeyPtr key(PEM_read_bio_PrivateKey(BioOf(plain).get(), nullptr, nullptr, nullptr));
  ASSERT_NE(key, nullptr);
  const BioPtr encrypted(BIO_new(BIO_s_mem()));
  ASSERT_EQ(PEM_write_bio_PKCS8PrivateKey(encrypted.get(), key.get(), EVP_aes_256_cbc(), "phrase", 6, nullptr,
                                          nullptr),
            1);
  char* bytes = nullptr;
  const auto count = static_cast<std::size_t>(BIO_get_mem_data(encrypted.get(), &bytes));
  test::WriteFile(paths.key, std::string(bytes, count));
  chmod(paths.key.c_str(), 0600);
  EXPECT_EQ(Complaint(paths), paths.key + ": the key is encrypted, and nobody is asked for a passphrase");
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

TEST_F(CredentialsTest, FilesThatAreMissingFromTheStartAreSaidToBe) {
  CredentialFiles files({"/nowhere/n1.crt", "/nowhere/n1.key", "/nowhere/ca.crt"});
  const auto loaded = files.Poll(world_.unix_s);
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(std::string(loaded.status().message()),
              HasSubstr("/nowhere/n1.crt: No such file or directory"));
}

TEST_F(CredentialsTest, FilesThatCouldNotBeTakenAreTriedAgainThoughTheyHaveNotChanged) {
  const CredentialPaths paths = world_.Issue("n1", nullptr, kNextYear);
  CredentialFiles files(paths);
  EXPECT_FALSE(files.Poll(world_.unix_s).ok());  // This node's clock is behind.
  EXPECT_EQ(*files.Poll(world_.unix_s), nullptr);
  const auto later = files.Poll(kNextYear.not_before_s + 1);
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_NE(*later, nullptr);
  EXPECT_EQ(*files.Poll(kNextYear.not_before_s + 1), nullptr);
}

// A certificate made by hand, since the authority makes no CA below itself. `issuer` null: by its own key.
struct Made {
  X509Ptr certificate;
  KeyPtr key;
};
Made MakeByHand(const std::string& name, bool authority, const std::string& uri, const Made* issuer) {
  Made made{X509Ptr(X509_new()), KeyPtr(EVP_EC_gen("P-256"))};
  X509* const x509 = made.certificate.get();
  X509_set_version(x509, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(x509), static_cast<long>(std::hash<std::string>()(name) >> 2));
  ASN1_TIME_set(X509_getm_notBefore(x509), kTestYear.not_before_s);
  ASN1_TIME_set(X509_getm_notAfter(x509), kTestYear.not_after_s);
  X509_set_pubkey(x509, made.key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509* const signer = issuer == nullptr ? x509 : issuer->certificate.get();
  X509_set_issuer_name(x509, X509_get_subject_name(signer));
  X509V3_CTX context;
  X509V3_set_ctx(&context, signer, x509, nullptr, nullptr, 0);
  const auto add = [&](int nid, const std::string& value) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    X509_add_ext(x509, extension, -1);
    X509_EXTENSION_free(extension);
  };
  add(NID_basic_constraints, authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
  add(NID_key_usage, authority ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
  if (!uri.empty()) add(NID_subject_alt_name, "URI:" + uri);
  X509_sign(x509, issuer == nullptr ? made.key.get() : issuer->key.get(), EVP_sha256());
  return made;
}

std::string PemOf(X509* certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), certificate);
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<std::size_t>(bytes));
}

TEST_F(CredentialsTest, ANodeOfARevokedIntermediateIsRevokedToo) {
  const Made root = MakeByHand("root", true, "", nullptr);
  const Made middle = MakeByHand("middle", true, "", &root);
  const Made leaf = MakeByHand("leaf", false, "spiffe://test.example/node/n9", &middle);
  STACK_OF(X509)* const chain = sk_X509_new_null();
  sk_X509_push(chain, middle.certificate.get());
  CredentialPaths paths = world_.Issue("own");
  const std::string bundle = test::ReadFile(paths.ca) + PemOf(root.certificate.get());
  const auto verdict = [&](const std::string& ca) {
    test::WriteFile(paths.ca, ca);
    const auto own = Credentials::Load(paths, world_.unix_s);
    EXPECT_TRUE(own.ok()) << own.status();
    return (*own)->Verify(leaf.certificate.get(), chain, world_.unix_s).refusal;
  };
  EXPECT_EQ(verdict(bundle), Refusal::kNone);
  // The root's list names the intermediate; the intermediate has none.
  X509_CRL* const crl = X509_CRL_new();
  X509_CRL_set_version(crl, X509_CRL_VERSION_2);
  X509_CRL_set_issuer_name(crl, X509_get_subject_name(root.certificate.get()));
  ASN1_TIME* const when = ASN1_TIME_set(nullptr, kTestUnixS);
  X509_CRL_set1_lastUpdate(crl, when);
  X509_CRL_set1_nextUpdate(crl, when);
  X509_REVOKED* const revoked = X509_REVOKED_new();
  X509_REVOKED_set_serialNumber(revoked, X509_get_serialNumber(middle.certificate.get()));
  X509_REVOKED_set_revocationDate(revoked, when);
  X509_CRL_add0_revoked(crl, revoked);
  ASN1_TIME_free(when);
  X509_CRL_sign(crl, root.key.get(), EVP_sha256());
  const BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_CRL(bio.get(), crl);
  X509_CRL_free(crl);
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(bio.get(), &data);
  EXPECT_EQ(verdict(bundle + std::string(data, static_cast<std::size_t>(bytes))), Refusal::kRevoked);
  sk_X509_free(chain);
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
