// SPDX-License-Identifier: Apache-2.0
// Peers and their sessions: keys, rotation, death, return.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/transport/core.h"

namespace weft::transport {
absl::StatusOr<PeerIndex> Core::AddPeer(uint64_t path) {
  for (uint32_t i = 0; i < config_.peers_max; ++i) {
    if (peers_[i] != nullptr && peers_[i]->state != PeerState::kUnused) continue;
    if (peers_[i] == nullptr) peers_[i] = std::make_unique<Peer>(config_);
    peers_[i]->path = path;
    SetDatagramBytes({i}, config_.datagram_bytes_max);
    SetState(*peers_[i], PeerState::kDown);
    return PeerIndex{i};
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("this engine has its ", config_.peers_max, " peers already, and no place for one more"));
}

void Core::SetDatagramBytes(PeerIndex index, uint32_t bytes) {
  Peer& peer = *peers_[index.value];
  peer.datagram_bytes_max = std::clamp(bytes, kDatagramBytesLeast, config_.datagram_bytes_max);
  const uint32_t before = std::exchange(peer.segment_bytes, SegmentBytesFor(peer.datagram_bytes_max));
  if (peer.segment_bytes >= before) return;
  const auto too_long = [this, &peer](uint32_t out) {
    return out != kNone && std::min<uint32_t>(out_[out].segment_bytes, out_[out].bytes) > peer.segment_bytes;
  };
  for (uint32_t slot = peer.waiting_calls.front(), next = kNone; slot != kNone; slot = next) {
    next = peer.waiting_calls.Next(peer.calls.data(), slot);
    const CallSlot& call = peer.calls[slot];
    if (!too_long(call.out)) continue;
    const OutMessage& message = out_[call.out];
    const uint64_t id = message.id;
    EndCall(peer, slot, absl::StatusCode::kUnavailable, false, message.next_segment == message.segments);
    TellOver(index.value, id);
  }
  for (uint32_t slot = 0; slot < config_.slots_per_peer; ++slot) {
    const ServedSlot& served = peer.served[slot];
    if (served.state == ServedState::kResponding && too_long(served.out))
      RejectServed(index.value, slot, absl::StatusCode::kUnavailable);
  }
}

void Core::RemovePeer(PeerIndex index, uint64_t now_ns) {
  Peer& peer = *peers_[index.value];
  EndEverything(index.value, true);
  // Everything but the counters of keys and sessions, which go on for whoever takes the place.
  SetState(peer, PeerState::kUnused);
  peer.send_key.Clear();
  peer.send_key_id = 0;
}

void Core::BeginSession(PeerIndex index, uint64_t session, uint64_t now_ns) {
  Peer& peer = *peers_[index.value];
  EndEverything(index.value, true);
  SetDatagramBytes(index, config_.datagram_bytes_max);
  SetState(peer, PeerState::kDown);
  peer.session = session;
  peer.send_key.Clear();
  peer.send_key_id = 0;
  peer.heard_ns = now_ns;
}

uint32_t Core::InstallReceiveKey(PeerIndex index, uint8_t epoch, const SealSecret& secret) {
  Peer& peer = *peers_[index.value];
  uint32_t& id = peer.receive_key_ids[epoch % 2];
  if (id != 0) keys_.Release(id);
  id = keys_.Reserve(index.value, epoch);
  if (id != 0) SetReceiveSecret(id, secret);
  return id;
}

void Core::SetReceiveSecret(uint32_t key_id, const SealSecret& secret) {
  if (ReceiveKey* const key = keys_.Find(key_id); key != nullptr)
    key->key.Install(secret, config_.seal_backend);
}

void Core::RetireReceiveKey(PeerIndex index, uint8_t epoch) {
  uint32_t& id = peers_[index.value]->receive_key_ids[epoch % 2];
  if (const ReceiveKey* const key = keys_.Find(id); key == nullptr || key->epoch != epoch) return;
  keys_.Release(id);
  id = 0;
}

void Core::InstallSendKey(PeerIndex index, uint8_t epoch, uint32_t key_id, uint16_t worker_hint,
                          const SealSecret& secret) {
  Peer& peer = *peers_[index.value];
  peer.send_key.Install(secret, config_.seal_backend);
  peer.send_key_id = key_id;
  weft_packet_header header{WEFT_PACKET_VERSION_AND_SUITE,
                            static_cast<uint8_t>(epoch & WEFT_PACKET_EPOCH_MASK),
                            __builtin_bswap16(worker_hint), __builtin_bswap32(key_id), 0};
  std::memcpy(&peer.header_begin, &header, sizeof(peer.header_begin));
  if (peer.state == PeerState::kDead) {
    // Its process has just agreed on this key: it is asked at once whether packets reach it too.
    peer.ping_due = true;
    MakeUrgent(index.value);
  }
  if (peer.state != PeerState::kDown) return;
  SetState(peer, PeerState::kUp);
  // The peer may have had its key first: what it sent has been taken, and is answered now.
  MakeUrgent(index.value);
  timers_.ArmAtLatest(index.value, std::min(peer.query_due_ns, peer.ack_due_ns));
  ReleaseBlocked(peer);
}

void Core::SetState(Peer& peer, PeerState state) {
  peer.state = state;
  ++state_changes_;
}

void Core::ClosePeer(PeerIndex index, uint64_t now_ns) {
  Peer& peer = *peers_[index.value];
  if (peer.state != PeerState::kUp) return;
  EndEverything(index.value, true);
  SetState(peer, PeerState::kDown);
  peer.close_due = true;
  MakeUrgent(index.value);
}

void Core::DeclareDead(PeerIndex index, uint64_t now_ns) {
  Peer& peer = *peers_[index.value];
  if (peer.state != PeerState::kUp) return;
  ++counters_.peer_deaths;
  EndEverything(index.value, false);
  SetState(peer, PeerState::kDead);
  peer.revive_due_ns = now_ns + config_.revive_ns;
  timers_.ArmAtLatest(index.value, peer.revive_due_ns);
}

// A packet of the same session came from a peer that had been given up. What was outstanding has been failed;
// its slots remember, so nothing is executed twice.
void Core::Revive(uint32_t index, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  SetState(peer, PeerState::kUp);
  peer.revive_due_ns = kNever;
  peer.progress_ns = now_ns;
  peer.probes = 0;
  peer.brake.Reset();
}

// Fails the calls of this side with UNAVAILABLE, drops what the peer was sending and forgets what is in
// flight. Where only the peer's answers have ceased, its slots keep their records, and requests being
// executed go on.
void Core::EndEverything(uint32_t index, bool session_ends) {
  Peer& peer = *peers_[index];
  while (!peer.log.empty()) peer.log.Take(peer.log.oldest(), [](const SentFrame&) {});
  for (uint32_t slot = peer.waiting_calls.front(); slot != kNone; slot = peer.waiting_calls.front()) {
    const CallSlot& call = peer.calls[slot];
    const bool whole = call.out == kNone || out_[call.out].next_segment == out_[call.out].segments;
    EndCall(peer, slot, absl::StatusCode::kUnavailable, false, whole);
  }
  for (uint32_t slot = 0; slot < config_.slots_per_peer; ++slot) {
    ServedSlot& served = peer.served[slot];
    if (session_ends) {
      TellCancelled(index, slot);
      RetireServed(index, slot);
      served = ServedSlot{};
    } else if (served.state == ServedState::kReceiving || served.state == ServedState::kResponding) {
      RetireServed(index, slot);
      served.state = ServedState::kRejected;
      served.code = static_cast<uint16_t>(absl::StatusCode::kUnavailable);
    }
  }
  peer.notice_count = 0;
  while (!peer.over_untold.empty()) peer.over_untold.Remove(peer.calls.data(), peer.over_untold.front());
  peer.ack_pending = 0;
  peer.ack_due_ns = kNever;
  peer.loss_due_ns = kNever;
  peer.query_due_ns = kNever;
  peer.revive_due_ns = kNever;
  peer.probe_counter = kNoCounter;
  peer.loss_below = 0;
  peer.probes = 0;
  peer.ping_due = false;
  peer.close_due = false;
  peer.share_bytes = ~uint32_t{0};
  if (!session_ends) return;
  peer.brake.Reset();
  peer.received.Reset();
  ++peer.session_count;
  for (uint32_t& id : peer.receive_key_ids) {
    if (id != 0) keys_.Release(id);
    id = 0;
  }
}

}  // namespace weft::transport
