// SPDX-License-Identifier: Apache-2.0
// Certificates of this node and of peers over time: renewed, expired, no longer believed.
#include "absl/strings/str_cat.h"
#include "dataplane/identity/exchange.h"

namespace weft::identity {

void Exchange::LookAtFiles() {
  absl::StatusOr<std::shared_ptr<const Credentials>> loaded = files_.Poll(UnixTime());
  if (loaded.ok() && *loaded == nullptr) return;
  if (loaded.ok() && (*loaded)->id() != credentials_->id()) {
    loaded = absl::InvalidArgumentError(absl::StrCat(files_.paths().certificate, " is of ",
                                                     (*loaded)->id().ToString(), ", this is ",
                                                     credentials_->id().ToString()));
  }
  if (!loaded.ok()) {
    ++counters_.reload_errors;
    return observer_->OnCredentials(loaded.status());
  }
  ++counters_.reloads;
  credentials_ = *std::move(loaded);
  expired_told_ = false;
  observer_->OnCredentials(absl::OkStatus());
  // Peers whose chain is no longer believed go at once; the others get to see the new certificate.
  std::vector<std::pair<ConnectionId, Verdict>> refused;
  for (const auto& [id, connection] : connections_) {
    if (!connection->established) continue;
    Verdict verdict = connection->stream.VerifyAgain(*credentials_, UnixTime());
    if (verdict.refusal != Refusal::kNone) refused.emplace_back(id, std::move(verdict));
  }
  for (const auto& [id, verdict] : refused) {
    const bool expired = verdict.refusal == Refusal::kExpired;
    Drop(id, expired ? Refusal::kExpired : Refusal::kRevoked, verdict.why, true);
  }
  for (auto& [name, peer] : peers_) {
    if (peer.removed) continue;
    peer.backoff_ns = options_.backoff_min_ns;
    if (peer.connection == 0) {
      peer.dial_due_ns = now_ns_;
      // Nothing vouches for a peer that has not shown a certificate to the new bundle.
      if (peer.session != 0) EndSession(peer, Refusal::kRevoked);
    } else {
      Renew(peer);
    }
  }
}

// The peer is to see this node's new certificate, before the connection ends with the old one.
void Exchange::Renew(Peer& peer) {
  if (!peer.leader_here) return SendTo(peer, Ask{Wish::kDialAnew});
  peer.renew = true;
  peer.dial_due_ns = now_ns_ + 1 + random_.Below(options_.keepalive_ns);
}

void Exchange::CheckValidity() {
  const int64_t unix_s = UnixTime();
  const bool expired = unix_s >= credentials_->expires_unix_s();
  for (auto& [name, peer] : peers_) {
    if (peer.session == 0 || (!expired && unix_s < peer.expires_unix_s)) continue;
    if (peer.connection != 0) {
      Drop(peer.connection, Refusal::kExpired, expired ? "this node's certificate" : "the peer's certificate",
           true);
    }
    EndSession(peer, Refusal::kExpired);
  }
  if (expired && !expired_told_) {
    expired_told_ = true;
    observer_->OnCredentials(absl::FailedPreconditionError(
        absl::StrCat(files_.paths().certificate, " has expired: no other node is reached")));
  }
}

}  // namespace weft::identity
