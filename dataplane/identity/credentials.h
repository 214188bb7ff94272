// SPDX-License-Identifier: Apache-2.0
// Who this node is and whom it believes: its X.509 SVID with key and the bundle of CAs, from files. A
// Credentials object never changes; CredentialFiles loads a new one when the files change, all three or none.
// Used by key_exchange.h on its thread.
#ifndef WEFT_DATAPLANE_IDENTITY_CREDENTIALS_H_
#define WEFT_DATAPLANE_IDENTITY_CREDENTIALS_H_

#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/identity/refusal.h"

namespace weft::identity {

// spiffe://<trust domain>/node/<name>
struct NodeId {
  std::string trust_domain;
  std::string name;

  static absl::StatusOr<NodeId> Parse(absl::string_view uri);
  std::string ToString() const;
  friend bool operator==(const NodeId&, const NodeId&) = default;
};

// OK for a trust domain: 1 to 255 of a-z, 0-9, '.', '-', '_'. The error quotes it.
absl::Status CheckTrustDomain(absl::string_view domain);

// The identity that a leaf certificate names: exactly one URI, no CA, allowed to sign. INVALID_ARGUMENT says
// what is wrong with it. Says nothing about its chain.
absl::StatusOr<NodeId> NodeIdOf(const X509& certificate);
// The same of the first certificate in PEM.
absl::StatusOr<NodeId> NodeIdOfPem(const std::string& pem);

// What is read of one file at the most: a chain or a bundle of some hundred certificates, 19,000 revocations.
inline constexpr int64_t kPemFileBytesMax = 1 << 20;

struct CredentialPaths {
  std::string certificate;  // PEM: the leaf, then intermediates.
  std::string key;          // PEM, not readable by others.
  std::string ca;           // PEM: CAs that are believed; certificate revocation lists may stand among them.
};

// What verification of a peer found.
struct Verdict {
  Refusal refusal = Refusal::kNone;
  std::string why;  // In words, where refused.
  NodeId id;        // Where not.
};

class Credentials {
 public:
  // Reads and checks the files: the key belongs to the certificate, which chains to the bundle, is valid at
  // `unix_s` and names a node. Errors name file and cause. Blocks on the disk.
  static absl::StatusOr<std::shared_ptr<const Credentials>> Load(const CredentialPaths& paths,
                                                                 int64_t unix_s);
  ~Credentials();
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;

  const NodeId& id() const { return id_; }
  // When the own certificate, or the first of its chain, ceases to be valid, in seconds of the Unix epoch.
  int64_t expires_unix_s() const { return expires_unix_s_; }

  // A TLS 1.3 object for one connection, owned by the caller. The handshake fails where the peer shows no
  // certificate or one that Verify refuses at `unix_s`. `*verdict` is set when it has shown one; it and these
  // credentials outlive the handshake. Null: no memory.
  SSL* NewTls(bool dialer, int64_t unix_s, Verdict* verdict) const;
  // Whether `leaf` with the helping `chain` (may be null) is a node of this trust domain at `unix_s`.
  Verdict Verify(X509* leaf, STACK_OF(X509) * chain, int64_t unix_s) const;

 private:
  struct Handshake;  // What the verification of one connection needs to know.

  Credentials();
  static int VerifyInHandshake(X509_STORE_CTX* context, void* self);

  SSL_CTX* context_ = nullptr;
  X509_STORE* store_ = nullptr;
  NodeId id_;
  int64_t expires_unix_s_ = 0;
};

// Notices changes by stat and loads what changed.
class CredentialFiles {
 public:
  explicit CredentialFiles(CredentialPaths paths) : paths_(std::move(paths)) {}

  // OK with a value: newly loaded. OK with null: nothing has changed. Error: they changed and are not good
  // together; told once a change, and what was loaded before stays in force. Blocks on the disk.
  absl::StatusOr<std::shared_ptr<const Credentials>> Poll(int64_t unix_s);
  const CredentialPaths& paths() const { return paths_; }

 private:
  struct Stamp {
    uint64_t device = 0, inode = 0, size = 0;
    int64_t modified_ns = -1, changed_ns = -1;
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };
  std::array<Stamp, 3> Stamps() const;

  CredentialPaths paths_;
  std::optional<std::array<Stamp, 3>> stamps_;  // Of the last load; nothing before the first.
  bool failed_ = false;                         // The last load did.
};

}  // namespace weft::identity

#endif  // WEFT_DATAPLANE_IDENTITY_CREDENTIALS_H_
