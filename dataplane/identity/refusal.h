// SPDX-License-Identifier: Apache-2.0
// Why the key exchange refused or ended a connection. The names are what `weftctl status` shows, as
// tls_refused_<name>; a number is never given another meaning, since the peer is told it in BYE.
#ifndef WEFT_DATAPLANE_IDENTITY_REFUSAL_H_
#define WEFT_DATAPLANE_IDENTITY_REFUSAL_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace weft::identity {

// X(name, number, text)
#define WEFT_TLS_REFUSALS(X)                                                               \
  X(kNone, 0, "none")                                                                      \
  X(kGarbage, 1, "garbage")                        /* What came is not TLS 1.3. */         \
  X(kNoCertificate, 2, "no_certificate")           /* The client showed none. */           \
  X(kForeign, 3, "foreign_certificate")            /* No chain to a CA of the bundle. */   \
  X(kExpired, 4, "expired")                        /* Or not valid yet. */                 \
  X(kRevoked, 5, "revoked")                        /* Valid once, and no longer. */        \
  X(kNotSpiffe, 6, "not_a_node_identity")          /* Not one spiffe://D/node/NAME. */     \
  X(kWrongTrustDomain, 7, "wrong_trust_domain")    /* */                                   \
  X(kNameMismatch, 8, "name_mismatch")             /* Another node than the dialled one */ \
  X(kUnknownNode, 9, "unknown_node")               /* A node that no source names. */      \
  X(kSlowHandshake, 10, "slow_handshake")          /* Not finished in time. */             \
  X(kTooManyUnfinished, 11, "too_many_unfinished") /* The oldest makes room. */            \
  X(kProtocol, 12, "protocol")                     /* A message breaks the rules. */       \
  X(kVersion, 13, "version")                       /* No common protocol version. */       \
  X(kDuplicate, 14, "duplicate")                   /* A better connection stands. */       \
  X(kReplaced, 15, "replaced")                     /* By a newer connection; no fault. */  \
  X(kNeverReads, 16, "never_reads")                /* What is to be sent piles up. */      \
  X(kSilent, 17, "silent")                         /* Nothing heard for too long. */       \
  X(kStalled, 18, "stalled")                       /* Keys of an epoch not agreed. */      \
  X(kClosed, 19, "closed")                         /* By the peer or the network. */       \
  X(kLeft, 20, "left")                             /* The peer's process ends. */          \
  X(kRestarted, 21, "restarted")                   /* The peer's process is a new one. */  \
  X(kRemoved, 22, "removed")                       /* No longer a peer here. */            \
  X(kNoRoom, 23, "no_room")                        /* No key id was left. */               \
  X(kUnreachable, 24, "unreachable")               /* Dialling failed. */

enum class Refusal : uint8_t {
#define WEFT_TLS_REFUSAL_ENUM(name, number, text) name = number,
  WEFT_TLS_REFUSALS(WEFT_TLS_REFUSAL_ENUM)
#undef WEFT_TLS_REFUSAL_ENUM
};
inline constexpr std::size_t kRefusals = 25;

inline absl::string_view ToString(Refusal refusal) {
  switch (refusal) {
#define WEFT_TLS_REFUSAL_CASE(name, number, text) \
  case Refusal::name:                             \
    return text;
    WEFT_TLS_REFUSALS(WEFT_TLS_REFUSAL_CASE)
#undef WEFT_TLS_REFUSAL_CASE
  }
  return "unknown";
}

using RefusalCounts = std::array<uint64_t, kRefusals>;

}  // namespace weft::identity

#endif  // WEFT_DATAPLANE_IDENTITY_REFUSAL_H_
