// SPDX-License-Identifier: Apache-2.0
// Which node a certificate is of.
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"
#include "dataplane/identity/credentials.h"
#include "dataplane/identity/openssl.h"

namespace weft::identity {
namespace {

// SPIFFE's own limit for a whole id.
constexpr std::size_t kUriBytesMax = 2048;
constexpr std::size_t kTrustDomainBytesMax = 255;

absl::Status NoNode(absl::string_view why) { return absl::InvalidArgumentError(why); }

}  // namespace

absl::Status CheckTrustDomain(absl::string_view domain) {
  bool good = !domain.empty() && domain.size() <= kTrustDomainBytesMax;
  for (const char c : domain) {
    good = good && (absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '.' || c == '-' || c == '_');
  }
  if (good) return absl::OkStatus();
  return NoNode(absl::StrCat("trust domain \"", domain.substr(0, kTrustDomainBytesMax),
                             "\" must be 1 to 255 of a-z, 0-9, '.', '-' and '_'"));
}

absl::StatusOr<NodeId> NodeId::Parse(absl::string_view uri) {
  const auto error = [&] {
    return NoNode(absl::StrCat("\"", uri.substr(0, 300), "\" is not spiffe://<trust domain>/node/<name>"));
  };
  absl::string_view rest = uri;
  if (uri.size() > kUriBytesMax || !absl::ConsumePrefix(&rest, "spiffe://")) return error();
  const std::size_t slash = rest.find('/');
  if (slash == absl::string_view::npos) return error();
  NodeId id;
  id.trust_domain = std::string(rest.substr(0, slash));
  rest.remove_prefix(slash);
  if (!absl::ConsumePrefix(&rest, "/node/")) return error();
  id.name = std::string(rest);
  if (!CheckTrustDomain(id.trust_domain).ok() || !CheckLabel(id.name, "node").ok()) return error();
  return id;
}

std::string NodeId::ToString() const { return absl::StrCat("spiffe://", trust_domain, "/node/", name); }

absl::StatusOr<NodeId> NodeIdOf(const X509& certificate) {
  X509* const x509 = const_cast<X509*>(&certificate);  // OpenSSL caches the extensions in it.
  if (X509_check_ca(x509) != 0) return NoNode("a CA's certificate, not a node's");
  if ((X509_get_key_usage(x509) & KU_DIGITAL_SIGNATURE) == 0) return NoNode("its key may not sign");
  const uint32_t extended = X509_get_extended_key_usage(x509);
  if ((extended & XKU_SSL_SERVER) == 0 || (extended & XKU_SSL_CLIENT) == 0) {
    return NoNode("its key may not serve as both TLS server and client");
  }
  int critical = 0;
  const GeneralNamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(x509, NID_subject_alt_name, &critical, nullptr)));
  if (names == nullptr) {
    return NoNode(critical == -2 ? "several subject alternative names" : "no subject alternative name");
  }
  absl::StatusOr<NodeId> id = NoNode("no URI among its subject alternative names");
  int uris = 0;
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    if (++uris > 1) return NoNode("more than one URI among its subject alternative names");
    // The length counts, so a NUL within is part of the text and makes it invalid.
    const ASN1_IA5STRING* const uri = name->d.uniformResourceIdentifier;
    id = NodeId::Parse(absl::string_view(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                                         static_cast<std::size_t>(ASN1_STRING_length(uri))));
  }
  return id;
}

absl::StatusOr<NodeId> NodeIdOfPem(const std::string& pem) {
  const X509Ptr certificate(PEM_read_bio_X509(BioOf(pem).get(), nullptr, nullptr, nullptr));
  if (certificate != nullptr) return NodeIdOf(*certificate);
  ERR_clear_error();
  return NoNode("no certificate");
}

}  // namespace weft::identity
