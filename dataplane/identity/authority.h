// SPDX-License-Identifier: Apache-2.0
// A certificate authority for development and tests: makes a CA of a trust domain and certificates of nodes.
// Used by `weftctl ca` and the tests; blocks for the time of a signature.
#ifndef WEFT_DATAPLANE_IDENTITY_AUTHORITY_H_
#define WEFT_DATAPLANE_IDENTITY_AUTHORITY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/identity/openssl.h"

namespace weft::identity {

// In seconds of the Unix epoch.
struct Validity {
  int64_t not_before_s = 0;
  int64_t not_after_s = 0;
};

struct PemPair {
  std::string certificate;
  std::string key;
};

class Authority {
 public:
  // A new CA, ECDSA P-256, whose certificate names the trust domain. INVALID_ARGUMENT: no such domain.
  static absl::StatusOr<Authority> Make(const std::string& trust_domain, const Validity& validity);
  // The CA of `pem`. INVALID_ARGUMENT says which part is wrong.
  static absl::StatusOr<Authority> FromPem(const PemPair& pem);

  const std::string& trust_domain() const { return trust_domain_; }
  PemPair ToPem() const;
  int64_t expires_unix_s() const;

  // A new key and the certificate of node `name`, which does not outlive the CA's.
  absl::StatusOr<PemPair> IssueNode(const std::string& name, const Validity& validity) const;
  // The same with any URIs, also wrong ones.
  absl::StatusOr<PemPair> Issue(const std::vector<std::string>& uris, const Validity& validity) const;
  // A list, in PEM, that revokes these certificates of this CA, and those of `earlier_pem`, a list of this CA
  // (empty: none). INVALID_ARGUMENT: a certificate or a list that is not this CA's.
  absl::StatusOr<std::string> Revoke(const std::vector<std::string>& certificates_pem,
                                     const Validity& validity, const std::string& earlier_pem = "") const;

 private:
  Authority() = default;

  std::string trust_domain_;
  X509Ptr certificate_;
  KeyPtr key_;
};

}  // namespace weft::identity

#endif  // WEFT_DATAPLANE_IDENTITY_AUTHORITY_H_
