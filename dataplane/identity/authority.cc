// SPDX-License-Identifier: Apache-2.0
#include "dataplane/identity/authority.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"
#include "dataplane/identity/credentials.h"

namespace weft::identity {
namespace {

using BignumPtr = std::unique_ptr<BIGNUM, OpensslDeleter<BN_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, OpensslDeleter<X509_EXTENSION_free>>;
using TimePtr = std::unique_ptr<ASN1_TIME, OpensslDeleter<ASN1_TIME_free>>;
using CrlPtr = std::unique_ptr<X509_CRL, OpensslDeleter<X509_CRL_free>>;

absl::Status Failed(absl::string_view what) {
  return absl::InternalError(absl::StrCat(what, ": ", TakeOpensslError()));
}

std::string BytesOf(BIO* bio) {
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<std::size_t>(bytes));
}

PemPair PemOf(X509* certificate, EVP_PKEY* key) {
  const BioPtr first(BIO_new(BIO_s_mem()));
  const BioPtr second(BIO_new(BIO_s_secmem()));
  PEM_write_bio_X509(first.get(), certificate);
  PEM_write_bio_PrivateKey(second.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return {BytesOf(first.get()), BytesOf(second.get())};
}

// 127 random bits: positive, and never the same again.
bool SetSerial(X509* certificate) {
  const BignumPtr number(BN_new());
  return BN_rand(number.get(), 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

// SPIFFE identities come as one value of a list; what could end an entry of the list is no part of one.
absl::StatusOr<std::string> SubjectAlternativeNames(const std::vector<std::string>& uris) {
  std::string names;
  for (const std::string& uri : uris) {
    if (uri.find_first_of(",\n\r") != std::string::npos)
      return absl::InvalidArgumentError("URI with a comma");
    absl::StrAppend(&names, names.empty() ? "" : ",", "URI:", uri);
  }
  return names;
}

struct Template {
  std::string common_name;
  std::vector<std::string> uris;
  bool authority = false;
};

// `issuer` null: signed by its own key.
absl::StatusOr<X509Ptr> MakeCertificate(const Template& what, const Validity& validity, EVP_PKEY* key,
                                        X509* issuer, EVP_PKEY* issuer_key) {
  WEFT_ASSIGN_OR_RETURN(const std::string names, SubjectAlternativeNames(what.uris));
  X509Ptr certificate(X509_new());
  X509* const x509 = certificate.get();
  if (x509 == nullptr || !SetSerial(x509) || X509_set_version(x509, X509_VERSION_3) != 1 ||
      X509_set_pubkey(x509, key) != 1 ||
      ASN1_TIME_set(X509_getm_notBefore(x509), validity.not_before_s) == nullptr ||
      ASN1_TIME_set(X509_getm_notAfter(x509), validity.not_after_s) == nullptr) {
    return Failed("make a certificate");
  }
  X509_NAME* const subject = X509_get_subject_name(x509);
  X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>("weft"), -1,
                             -1, 0);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(what.common_name.c_str()), -1, -1, 0);
  X509* const signer = issuer == nullptr ? x509 : issuer;
  X509_set_issuer_name(x509, X509_get_subject_name(signer));
  const bool extended =
      AddExtension(x509, signer, NID_basic_constraints,
                   what.authority ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE") &&
      AddExtension(x509, signer, NID_key_usage,
                   what.authority ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature") &&
      (what.authority || AddExtension(x509, signer, NID_ext_key_usage, "serverAuth,clientAuth")) &&
      AddExtension(x509, signer, NID_subject_key_identifier, "hash") &&
      AddExtension(x509, signer, NID_authority_key_identifier, "keyid:always") &&
      (names.empty() || AddExtension(x509, signer, NID_subject_alt_name, names));
  if (!extended || X509_sign(x509, issuer_key, EVP_sha256()) == 0) return Failed("sign a certificate");
  return certificate;
}

absl::StatusOr<KeyPtr> MakeKey() {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (key == nullptr) return Failed("make a key");
  return key;
}

// Copies what another list of the same CA revokes.
absl::Status AddRevoked(const std::string& pem, EVP_PKEY* key, X509_CRL* crl) {
  const CrlPtr earlier(PEM_read_bio_X509_CRL(BioOf(pem).get(), nullptr, nullptr, nullptr));
  if (earlier == nullptr || X509_CRL_verify(earlier.get(), key) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError("the revocation list is not of this CA");
  }
  STACK_OF(X509_REVOKED)* const revoked = X509_CRL_get_REVOKED(earlier.get());
  for (int i = 0; i < sk_X509_REVOKED_num(revoked); ++i) {
    X509_REVOKED* const copy = X509_REVOKED_dup(sk_X509_REVOKED_value(revoked, i));
    if (copy == nullptr || X509_CRL_add0_revoked(crl, copy) != 1) return Failed("copy a revocation list");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Authority> Authority::Make(const std::string& trust_domain, const Validity& validity) {
  WEFT_RETURN_IF_ERROR(CheckTrustDomain(trust_domain));
  Authority authority;
  authority.trust_domain_ = trust_domain;
  WEFT_ASSIGN_OR_RETURN(authority.key_, MakeKey());
  // Lists are found by the CA's name: two CAs in one bundle, as when one follows the other, are not called
  // the same.
  std::array<unsigned char, 8> own_name;
  if (RAND_bytes(own_name.data(), static_cast<int>(own_name.size())) != 1) return Failed("name a CA");
  Template what;
  what.common_name =
      absl::StrCat("weft development CA ",
                   absl::BytesToHexString({reinterpret_cast<const char*>(own_name.data()), own_name.size()}));
  what.uris = {absl::StrCat("spiffe://", trust_domain)};
  what.authority = true;
  EVP_PKEY* const key = authority.key_.get();
  WEFT_ASSIGN_OR_RETURN(authority.certificate_, MakeCertificate(what, validity, key, nullptr, key));
  return authority;
}

absl::StatusOr<Authority> Authority::FromPem(const PemPair& pem) {
  Authority authority;
  authority.certificate_.reset(PEM_read_bio_X509(BioOf(pem.certificate).get(), nullptr, nullptr, nullptr));
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  authority.key_.reset(PEM_read_bio_PrivateKey(BioOf(pem.key).get(), nullptr, no_passphrase, nullptr));
  ERR_clear_error();
  if (authority.certificate_ == nullptr) return absl::InvalidArgumentError("no certificate");
  if (authority.key_ == nullptr) return absl::InvalidArgumentError("no usable private key");
  X509* const x509 = authority.certificate_.get();
  if (X509_check_private_key(x509, authority.key_.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError("the key is not the certificate's");
  }
  if (X509_check_ca(x509) != 1) return absl::InvalidArgumentError("the certificate is no CA's");
  const GeneralNamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(x509, NID_subject_alt_name, nullptr, nullptr)));
  if (sk_GENERAL_NAME_num(names.get()) == 1 && sk_GENERAL_NAME_value(names.get(), 0)->type == GEN_URI) {
    const ASN1_IA5STRING* const uri = sk_GENERAL_NAME_value(names.get(), 0)->d.uniformResourceIdentifier;
    absl::string_view domain(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                             static_cast<std::size_t>(ASN1_STRING_length(uri)));
    if (absl::ConsumePrefix(&domain, "spiffe://")) authority.trust_domain_ = std::string(domain);
  }
  if (!CheckTrustDomain(authority.trust_domain_).ok()) {
    return absl::InvalidArgumentError("the certificate does not name a trust domain");
  }
  return authority;
}

PemPair Authority::ToPem() const { return PemOf(certificate_.get(), key_.get()); }
int64_t Authority::expires_unix_s() const { return NotAfter(certificate_.get()); }

absl::StatusOr<PemPair> Authority::IssueNode(const std::string& name, const Validity& validity) const {
  WEFT_RETURN_IF_ERROR(CheckLabel(name, "node"));
  return Issue({NodeId{trust_domain_, name}.ToString()}, validity);
}

absl::StatusOr<PemPair> Authority::Issue(const std::vector<std::string>& uris,
                                         const Validity& validity) const {
  WEFT_ASSIGN_OR_RETURN(const KeyPtr key, MakeKey());
  Template what;
  what.common_name = "weft node";
  what.uris = uris;
  Validity within = validity;
  within.not_after_s = std::min(within.not_after_s, expires_unix_s());
  WEFT_ASSIGN_OR_RETURN(const X509Ptr certificate,
                        MakeCertificate(what, within, key.get(), certificate_.get(), key_.get()));
  return PemOf(certificate.get(), key.get());
}

absl::StatusOr<std::string> Authority::Revoke(const std::vector<std::string>& certificates_pem,
                                              const Validity& validity,
                                              const std::string& earlier_pem) const {
  const CrlPtr crl(X509_CRL_new());
  const TimePtr from(ASN1_TIME_set(nullptr, validity.not_before_s));
  const TimePtr until(ASN1_TIME_set(nullptr, validity.not_after_s));
  if (crl == nullptr || X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) != 1 ||
      X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(certificate_.get())) != 1 ||
      X509_CRL_set1_lastUpdate(crl.get(), from.get()) != 1 ||
      X509_CRL_set1_nextUpdate(crl.get(), until.get()) != 1) {
    return Failed("make a revocation list");
  }
  if (!earlier_pem.empty()) WEFT_RETURN_IF_ERROR(AddRevoked(earlier_pem, key_.get(), crl.get()));
  for (const std::string& pem : certificates_pem) {
    const X509Ptr certificate(PEM_read_bio_X509(BioOf(pem).get(), nullptr, nullptr, nullptr));
    if (certificate == nullptr) return absl::InvalidArgumentError("no certificate");
    if (X509_verify(certificate.get(), key_.get()) != 1) {
      ERR_clear_error();
      return absl::InvalidArgumentError("the certificate is not of this CA");
    }
    X509_REVOKED* known = nullptr;
    if (X509_CRL_get0_by_cert(crl.get(), &known, certificate.get()) != 0) continue;
    X509_REVOKED* const revoked = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(revoked, X509_get_serialNumber(certificate.get()));
    X509_REVOKED_set_revocationDate(revoked, from.get());
    X509_CRL_add0_revoked(crl.get(), revoked);  // Owns it now.
  }
  X509_CRL_sort(crl.get());
  if (X509_CRL_sign(crl.get(), key_.get(), EVP_sha256()) == 0) return Failed("sign a revocation list");
  const BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_CRL(bio.get(), crl.get());
  return BytesOf(bio.get());
}

}  // namespace weft::identity
