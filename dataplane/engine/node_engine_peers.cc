// SPDX-License-Identifier: Apache-2.0
// Peers of the node engine: their sessions, ways and keys, as the link between agents tells of them.
#include <algorithm>
#include <utility>

#include "dataplane/base/status.h"
#include "dataplane/engine/node_engine.h"

namespace weft::engine {

NodeEngine::Peer& NodeEngine::PeerOf(const std::string& node) {
  const auto [found, is_new] = peers_.try_emplace(node);
  Peer& peer = found->second;
  if (!is_new) return peer;
  peer.node = node;
  peer.call_shares = Shares(options_.tenant_limits.size());
  peer.name = node.substr(0, node.find(':'));
  return peer;
}

NodeEngine::Peer* NodeEngine::PeerIn(const std::string& node, uint64_t session) {
  const auto found = peers_.find(node);
  if (found == peers_.end() || found->second.session != session || session == 0) return nullptr;
  return &found->second;
}

NodeEngine::Peer* NodeEngine::PeerAt(transport::PeerIndex index) { return peers_by_index_[index.value]; }

absl::Status NodeEngine::MoveSession(const std::string& node, uint64_t session, const std::string& address) {
  Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return absl::OkStatus();
  return SetPath(*peer, address, transport::kDatagramBytesLeast);
}

void NodeEngine::SetPathBytes(const std::string& node, uint64_t session, uint32_t datagram_bytes) {
  Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return;
  peer->narrow_bytes = datagram_bytes < peer->usual_bytes ? datagram_bytes : 0;
  transport_->SetDatagramBytes(peer->index, datagram_bytes);
  // The port may have refused a way that carried too little for anything.
  if (peer->path == kNoPath) (void)SetPath(*peer, peer->address, transport::kDatagramBytesLeast);
}

// Where the port had no room for a way there before, it may have now.
absl::Status NodeEngine::SetPath(Peer& peer, const std::string& address, std::size_t bytes_least) {
  peer.address = address;
  if (peer.path != kNoPath) return options_.paths.set(peer.path, address, bytes_least);
  WEFT_ASSIGN_OR_RETURN(peer.path, options_.paths.add(address, bytes_least));
  transport_->MovePeer(peer.index, peer.path);
  return absl::OkStatus();
}

bool NodeEngine::Reaches(const std::string& node) const {
  const auto found = peers_.find(node);
  return found != peers_.end() && found->second.added &&
         transport_->StateOf(found->second.index) == transport::PeerState::kUp;
}

absl::Status NodeEngine::BeginSession(const std::string& node, uint64_t session, const std::string& address,
                                      uint32_t datagram_bytes) {
  const uint32_t own = options_.transport.datagram_bytes_max;
  const uint32_t usual = datagram_bytes == 0 ? own : std::min(own, datagram_bytes);
  Peer& peer = PeerOf(node);
  if (peer.added) {
    WEFT_RETURN_IF_ERROR(SetPath(peer, address, usual));
  } else {
    WEFT_ASSIGN_OR_RETURN(peer.path, options_.paths.add(address, usual));
    absl::StatusOr<transport::PeerIndex> index = transport_->AddPeer(peer.path);
    if (!index.ok()) {
      options_.paths.remove(peer.path);
      return index.status();
    }
    peer.index = *index;
    peer.added = true;
    peers_by_index_[peer.index.value] = &peer;
  }
  peer.session = session;
  peer.address = address;
  peer.usual_bytes = usual;
  peer.narrow_bytes = 0;
  for (int which : {0, 1}) ForgetReceiveId(peer, which);
  transport_->BeginSession(peer.index, session, NowNs());
  transport_->SetDatagramBytes(peer.index, usual);
  return absl::OkStatus();
}

uint32_t NodeEngine::InstallReceiveKey(const std::string& node, uint64_t session, uint8_t epoch,
                                       const transport::SealSecret& secret) {
  Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return 0;
  const int which = epoch % 2;
  ForgetReceiveId(*peer, which);
  const uint32_t id = transport_->InstallReceiveKey(peer->index, epoch, secret);
  if (id == 0) return 0;
  if (options_.gate.allow && !options_.gate.allow(id).ok() && !AllowAgain(id)) {
    transport_->RetireReceiveKey(peer->index, epoch);
    return 0;
  }
  peer->receive_ids[which] = id;
  peer->receive_epochs[which] = epoch;
  return id;
}

// What stands in front of the port may hold its place for a key that has ended by another peer's CLOSE.
bool NodeEngine::AllowAgain(uint32_t id) {
  for (auto& [node, peer] : peers_) {
    for (int which : {0, 1}) {
      if (!transport_->HasReceiveKey(peer.receive_ids[which])) ForgetReceiveId(peer, which);
    }
  }
  return options_.gate.allow(id).ok();
}

void NodeEngine::ForgetReceiveId(Peer& peer, int which) {
  const uint32_t id = std::exchange(peer.receive_ids[which], 0);
  if (id != 0 && options_.gate.forget) options_.gate.forget(id);
}

absl::flat_hash_set<uint32_t> NodeEngine::ReceiveIds() const {
  absl::flat_hash_set<uint32_t> ids;
  for (const auto& [node, peer] : peers_) {
    for (const uint32_t id : peer.receive_ids) {
      if (transport_->HasReceiveKey(id)) ids.insert(id);
    }
  }
  return ids;
}

absl::Status NodeEngine::SetGate(KeyGate gate) {
  options_.gate = std::move(gate);
  absl::Status first;
  for (const uint32_t id : ReceiveIds()) first.Update(options_.gate.allow(id));
  return first;
}

absl::Status NodeEngine::ChangeWays(const std::function<void()>& change) {
  for (auto& [node, peer] : peers_) {
    if (peer.added && peer.path != kNoPath) options_.paths.remove(peer.path);
  }
  change();
  absl::Status first;
  for (auto& [node, peer] : peers_) {
    if (!peer.added) continue;
    // A session goes on over a path that has narrowed, see SetPathBytes, whatever port takes it.
    const absl::StatusOr<uint64_t> path = options_.paths.add(peer.address, transport::kDatagramBytesLeast);
    first.Update(path.status());
    peer.path = path.ok() ? *path : kNoPath;
    transport_->MovePeer(peer.index, peer.path);
  }
  return first;
}

void NodeEngine::InstallSendKey(const std::string& node, uint64_t session, uint8_t epoch, uint32_t key_id,
                                uint16_t worker_hint, const transport::SealSecret& secret) {
  const Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return;
  transport_->InstallSendKey(peer->index, epoch, key_id, worker_hint, secret);
}

void NodeEngine::RetireReceiveKey(const std::string& node, uint64_t session, uint8_t epoch) {
  Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return;
  if (peer->receive_epochs[epoch % 2] == epoch) ForgetReceiveId(*peer, epoch % 2);
  transport_->RetireReceiveKey(peer->index, epoch);
}

void NodeEngine::DeclareDead(const std::string& node, uint64_t session) {
  if (const Peer* const peer = PeerIn(node, session)) transport_->DeclareDead(peer->index, NowNs());
}

void NodeEngine::EndSession(const std::string& node, uint64_t session) {
  Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return;
  peer->session = 0;
  for (int which : {0, 1}) ForgetReceiveId(*peer, which);
  // With its keys: what it is to hear of the end it hears over its connection. Its place and its path are for
  // whoever comes next; many names come and go in the life of a node.
  transport_->RemovePeer(peer->index, NowNs());
  if (peer->path != kNoPath) options_.paths.remove(peer->path);
  peers_by_index_[peer->index.value] = nullptr;
  peer->added = false;
}

void NodeEngine::CloseAll() {
  for (auto& [node, peer] : peers_) {
    if (peer.added) transport_->ClosePeer(peer.index, NowNs());
  }
}

// Tells the agent which nodes can be reached, where that has changed.
void NodeEngine::ReportNodes(bool all) {
  states_told_ = transport_->state_changes();
  for (auto& [node, peer] : peers_) {
    if (peer.name != node) continue;  // No calls leave for it.
    const bool up = peer.added && transport_->StateOf(peer.index) == transport::PeerState::kUp;
    if (up == peer.reported_up && !(all && up)) continue;
    if (!session_->attached()) return;
    peer.reported_up = up;
    session_->SendNodeReport(node, up);
  }
}

// Lets go of what is known of nodes that have left: nodes come and go for as long as this one runs. First the
// names of their callers and of callers that chose them, which no table has any more, then the records of the
// nodes that no name stands for, no call is under way to, and that the agent does not take for reachable.
// Costs by the records that there are, and is due again when there are twice as many.
void NodeEngine::ForgetGone() {
  absl::flat_hash_set<const std::string*> callers;
  absl::flat_hash_set<const Peer*> needed;
  for (const Outbound& outbound : outbound_) {
    if (outbound.state == Outbound::State::kFree) continue;
    callers.insert(outbound.incoming.caller);
    needed.insert(outbound.peer);
  }
  core_.ForgetCallers(&callers);
  absl::erase_if(vias_, [&callers](const auto& entry) { return !callers.contains(entry.first); });
  for (const auto& [caller, via] : vias_) needed.insert(via.peer);
  const auto gone = [&needed](const Peer& peer) {
    return !peer.added && !peer.reported_up && !needed.contains(&peer);
  };
  // Others may call by the pairs that it made known; idle ones make way as before.
  for (auto& [names, pair] : pairs_) {
    if (pair.peer != nullptr && gone(*pair.peer)) pair.peer = nullptr;
  }
  std::erase_if(peers_, [&gone](const auto& entry) { return gone(entry.second); });
  forget_at_ = std::max(kRecordsMin, 2 * records());
}

void NodeEngine::OnPeerKeys(const api::PeerKeys& keys) {
  transport::SealSecret secret;
  if (keys.key().size() == secret.key.size() && keys.iv().size() == secret.iv.size()) {
    std::copy(keys.key().begin(), keys.key().end(), secret.key.begin());
    std::copy(keys.iv().begin(), keys.iv().end(), secret.iv.begin());
  }
  const auto epoch = static_cast<uint8_t>(keys.epoch());
  switch (keys.what()) {
    case api::PeerKeys::BEGIN:
      // Where it cannot be reached there will be no key for it either, and the agent hears of that.
      (void)BeginSession(keys.peer(), keys.session(), keys.address(), keys.datagram_bytes());
      return;
    case api::PeerKeys::RECEIVE: {
      api::PeerKeyId answer;
      answer.set_peer(keys.peer());
      answer.set_session(keys.session());
      answer.set_epoch(keys.epoch());
      answer.set_key_id(InstallReceiveKey(keys.peer(), keys.session(), epoch, secret));
      return session_->SendPeerKeyId(answer);
    }
    case api::PeerKeys::SEND:
      return InstallSendKey(keys.peer(), keys.session(), epoch, keys.key_id(),
                            static_cast<uint16_t>(keys.worker_hint()), secret);
    case api::PeerKeys::RETIRE:
      return RetireReceiveKey(keys.peer(), keys.session(), epoch);
    case api::PeerKeys::DEAD:
      return DeclareDead(keys.peer(), keys.session());
    case api::PeerKeys::MOVE:
      (void)MoveSession(keys.peer(), keys.session(), keys.address());
      return;
    case api::PeerKeys::PATH:
      return SetPathBytes(keys.peer(), keys.session(), keys.datagram_bytes());
    case api::PeerKeys::END:
      return EndSession(keys.peer(), keys.session());
    default:
      return;
  }
}

}  // namespace weft::engine
