// SPDX-License-Identifier: Apache-2.0
// NodeLink: lanes, from what the key exchange says to the engines at their ends. The first workers of a node
// are its weftd's own engines; the others are inside hosts and are spoken to through the registry. To an
// engine the worker of another node is a peer named "node/host" where it is inside a host there, "node" where
// it is the one that this engine's calls go to, and "node:3" where calls come from it only: who each may
// speak for is in the agent's table under the name before the colon.
//
// Of weftd's own engines each speaks to as few as will do: the i-th of this node to the j-th of that where
// one number is the other modulo how many there are. So both ends know which lanes there are, each engine
// has one to call by, and with as many workers on both sides packets stay on their queue. The engine inside a
// host speaks to one of them, too, by its id.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/node_link.h"
#include "spdlog/spdlog.h"

namespace weft::agent {
namespace {

// Which of a node's own engines a worker is, and of how many.
struct Rank {
  std::size_t rank = 0;
  std::size_t count = 0;
};

Rank RankOf(const identity::Worker& worker, const std::vector<identity::Worker>& all) {
  Rank rank;
  for (const identity::Worker& one : all) {
    if (!one.host.empty()) continue;
    if (one.id == worker.id) rank.rank = rank.count;
    ++rank.count;
  }
  return rank;
}

// What the worker `local` here knows the worker of `node` by, which is one of `all` there.
std::string LabelOf(const std::string& node, uint16_t local, const identity::Worker& worker,
                    const std::vector<identity::Worker>& all) {
  if (!worker.host.empty()) return absl::StrCat(node, "/", worker.host);
  const Rank remote = RankOf(worker, all);
  return local % remote.count == remote.rank ? node : absl::StrCat(node, ":", remote.rank);
}

// What an engine knows a lane's session by: another one for each pair of workers, so that a worker that takes
// a gone one's place is never taken for it.
uint64_t LaneSession(uint64_t session, identity::Lane lane) {
  return session ^ (uint64_t{lane.local_worker} << 48 | uint64_t{lane.remote_worker} << 32);
}

const identity::Worker* Find(const std::vector<identity::Worker>& workers, uint16_t id) {
  const auto found = std::find_if(workers.begin(), workers.end(),
                                  [id](const identity::Worker& worker) { return worker.id == id; });
  return found == workers.end() ? nullptr : &*found;
}

transport::SealSecret SealSecretOf(const identity::PacketSecret& secret) { return {secret.key, secret.iv}; }

void SetSecret(const identity::PacketSecret& secret, api::PeerKeys* keys) {
  keys->set_key(std::string(secret.key.begin(), secret.key.end()));
  keys->set_iv(std::string(secret.iv.begin(), secret.iv.end()));
}

}  // namespace

// Each node's lines have a bucket of their own, whichever of its workers they are of: it can say what makes
// one as often as it tells of its workers. Only nodes that there are have one; what is said of one that has
// just gone is of the common one.
bool NodeLink::MayLog(const std::string& peer) {
  const std::string node = peer.substr(0, peer.find_first_of(":/"));
  return (peers_.contains(node) ? peer_logs_[node] : log_limit_).Allow(NowNs());
}

void NodeLink::ToLane(uint16_t local, api::PeerKeys keys) {
  if (!IsOwn(local)) return door_->Post({local, std::move(keys), absl::OkStatus()});
  if (keys.what() != api::PeerKeys::BEGIN && keys.what() != api::PeerKeys::MOVE) {
    return ToEngine(local, [keys = std::move(keys)](engine::NodeEngine& engine) { engine.OnPeerKeys(keys); });
  }
  ToEngine(local, [this, keys = std::move(keys)](engine::NodeEngine& engine) {
    const absl::Status done =
        keys.what() == api::PeerKeys::BEGIN
            ? engine.BeginSession(keys.peer(), keys.session(), keys.address(), keys.datagram_bytes())
            : engine.MoveSession(keys.peer(), keys.session(), keys.address());
    if (done.ok()) return;
    ToKeys([this, peer = keys.peer(), why = std::string(done.message()), line = done.ToString()] {
      if (MayLog(peer)) spdlog::error("node {}: {}", peer, line);
      // A peer's further workers, as "n2:1" and "n2/host", are told of in the log alone.
      if (sessions_.contains(peer)) packet_problems_[peer] = why;
    });
  });
}

// The smaller of both nodes' `mtu` counts, from the first datagram on.
uint32_t NodeLink::UsualBytes(const identity::Worker& remote) const {
  return std::min(DatagramBytesMax(config_, !remote.address.ipv6), remote.datagram_bytes_max);
}

// To every engine here, or to one, what concerns its lane with that worker of the peer.
void NodeLink::TellLanes(const identity::SessionInfo& session, const identity::Worker& remote,
                         api::PeerKeys::What what, int only_local, uint32_t datagram_bytes) {
  api::PeerKeys keys;
  keys.set_what(what);
  keys.set_datagram_bytes(std::min(datagram_bytes, UsualBytes(remote)));
  keys.set_address(remote.address.ToString());
  const auto tell = [&](uint16_t local) {
    if (only_local >= 0 && only_local != local) return;
    if (!Joins(local, remote, session.workers)) return;
    keys.set_peer(LabelOf(session.peer, local, remote, session.workers));
    keys.set_session(LaneSession(session.session, {local, remote.id}));
    ToLane(local, keys);
  };
  for (uint16_t local = 0; local < workers_; ++local) tell(local);
  for (const auto& [local, inside] : inside_) tell(local);
}

// Whether there is a lane between the two; `all` are the workers there.
bool NodeLink::Joins(uint16_t local, const identity::Worker& remote,
                     const std::vector<identity::Worker>& all) const {
  if (!remote.host.empty()) {
    // What DPDK carries never comes to the kernel's sockets, which engines inside hosts have.
    if (!IsOwn(local)) return true;
    return config_.packet_port != AgentConfig::PacketPort::kDpdk && remote.id % workers_ == local;
  }
  const Rank there = RankOf(remote, all);
  return local % there.count == there.rank || (IsOwn(local) && there.rank % workers_ == local);
}

// Whether both workers that the lane joins are still there, in the session that it is of.
bool NodeLink::Stands(const identity::LaneKey& key) const {
  const auto session = sessions_.find(key.peer);
  return session != sessions_.end() && session->second.session == key.session &&
         Find(session->second.workers, key.lane.remote_worker) != nullptr;
}

// Ids of lanes that have ended, which the engines inside hosts may name again for others.
void NodeLink::ForgetGoneIds() {
  for (auto& [worker, inside] : inside_) {
    std::erase_if(inside.given_ids, [this](const auto& entry) { return !Stands(entry.second); });
  }
}

api::PeerKeys NodeLink::KeysFor(const identity::LaneKey& key, api::PeerKeys::What what) const {
  api::PeerKeys keys;
  keys.set_what(what);
  const auto session = sessions_.find(key.peer);
  const identity::Worker* const remote =
      session == sessions_.end() ? nullptr : Find(session->second.workers, key.lane.remote_worker);
  // A lane that went a moment ago has no name any more, and no peer has the empty one.
  if (remote != nullptr)
    keys.set_peer(LabelOf(key.peer, key.lane.local_worker, *remote, session->second.workers));
  keys.set_session(LaneSession(key.session, key.lane));
  keys.set_epoch(key.epoch);
  return keys;
}

void NodeLink::OnSessionUp(const identity::SessionInfo& session) {
  if (session.workers.empty()) return;
  if (MayLog(session.peer)) {
    spdlog::info("node {} is a peer, its packets go to {}", session.peer,
                 session.workers[0].address.ToString());
  }
  sessions_[session.peer] = session;
  door_->PostDrains(DrainMail{session.peer, false, !session.takes_drains, {}});
  packet_problems_.erase(session.peer);
  path_bytes_[session.peer] = 0;
  for (const identity::Worker& remote : session.workers) TellLanes(session, remote, api::PeerKeys::BEGIN);
}

// Workers inside of hosts come and go, and the peer's address may have changed.
void NodeLink::OnWorkers(const identity::SessionInfo& session) {
  const auto known = sessions_.find(session.peer);
  if (known == sessions_.end()) return;
  const std::vector<identity::Worker> before = std::exchange(known->second.workers, session.workers);
  identity::SessionInfo was = session;
  was.workers = before;
  for (const identity::Worker& old : before) {
    if (Find(session.workers, old.id) == nullptr) TellLanes(was, old, api::PeerKeys::END);
  }
  ForgetGoneIds();
  path_bytes_[session.peer] = 0;
  for (const identity::Worker& now : session.workers) {
    const identity::Worker* const old = Find(before, now.id);
    if (old == nullptr) {
      TellLanes(session, now, api::PeerKeys::BEGIN);
    } else if (!(old->address == now.address)) {
      packet_problems_.erase(session.peer);
      TellLanes(session, now, api::PeerKeys::MOVE);
    }
  }
}

void NodeLink::OnReceiveKeyWanted(const identity::LaneKey& key, const identity::PacketSecret& secret) {
  const auto session = sessions_.find(key.peer);
  const identity::Worker* const remote =
      session == sessions_.end() ? nullptr : Find(session->second.workers, key.lane.remote_worker);
  const uint16_t local = key.lane.local_worker;
  if (remote != nullptr && !Joins(local, *remote, session->second.workers)) return keys_->DeclineLane(key);
  api::PeerKeys keys = KeysFor(key, api::PeerKeys::RECEIVE);
  if (!IsOwn(local)) {
    const auto inside = inside_.find(local);
    if (inside == inside_.end()) return;
    const std::string answer = AnswerKey(keys.peer(), keys.session(), keys.epoch());
    inside->second.unanswered[answer] = key;
    inside->second.asked.emplace_back(NowNs(), answer);
    SetSecret(secret, &keys);
    return ToLane(local, std::move(keys));
  }
  // A lane to a host elsewhere is never worth the connection, which carries all others as well.
  const bool can_do_without = remote != nullptr && !remote->host.empty();
  ToEngine(local, [this, key, keys = std::move(keys), secret, can_do_without](engine::NodeEngine& engine) {
    const uint32_t id =
        engine.InstallReceiveKey(keys.peer(), keys.session(), key.epoch, SealSecretOf(secret));
    const bool decline = id == 0 && can_do_without;
    ToKeys([this, key, id, decline] { decline ? keys_->DeclineLane(key) : keys_->SetReceiveKeyId(key, id); });
  });
}

void NodeLink::OnSendKey(const identity::LaneKey& key, uint32_t key_id, uint16_t worker_hint,
                         const identity::PacketSecret& secret) {
  api::PeerKeys keys = KeysFor(key, api::PeerKeys::SEND);
  keys.set_key_id(key_id);
  keys.set_worker_hint(worker_hint);
  SetSecret(secret, &keys);
  ToLane(key.lane.local_worker, std::move(keys));
}

void NodeLink::OnRetireReceiveKey(const identity::LaneKey& key) {
  ToLane(key.lane.local_worker, KeysFor(key, api::PeerKeys::RETIRE));
  if (const auto inside = inside_.find(key.lane.local_worker); inside != inside_.end()) {
    std::erase_if(inside->second.given_ids, [&](const auto& entry) { return entry.second == key; });
  }
}

void NodeLink::OnConnectionLost(const std::string& peer, uint64_t session) {
  if (MayLog(peer)) spdlog::warn("node {}: its connection is lost", peer);
  const auto known = sessions_.find(peer);
  if (known == sessions_.end() || known->second.session != session) return;
  // Its agent is gone, most likely; what runs inside its hosts has a life of its own.
  for (const identity::Worker& remote : known->second.workers) {
    if (remote.host.empty()) TellLanes(known->second, remote, api::PeerKeys::DEAD);
  }
}

void NodeLink::OnSessionDown(const std::string& peer, uint64_t session, identity::Refusal reason) {
  if (MayLog(peer))
    spdlog::warn("node {} is no peer any more: {}", peer, std::string(identity::ToString(reason)));
  const auto known = sessions_.find(peer);
  if (known == sessions_.end() || known->second.session != session) return;
  for (const identity::Worker& remote : known->second.workers)
    TellLanes(known->second, remote, api::PeerKeys::END);
  sessions_.erase(known);
  door_->PostDrains(DrainMail{peer, true, false, {}});
  packet_problems_.erase(peer);
  path_bytes_.erase(peer);
  path_problems_.erase(peer);
  ForgetGoneIds();
}

}  // namespace weft::agent
