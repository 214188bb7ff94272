// SPDX-License-Identifier: Apache-2.0
// Sessions: lanes, epochs and the messages that agree on them.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/identity/exchange.h"

namespace weft::identity {
namespace {

constexpr char kKeyLabel[] = "EXPORTER-weft-packet-key";
// Hosts with workers come and go, and are drained; each message costs the engine keys and the log a line, or
// the agent a round. More than any node has reason to send.
constexpr uint32_t kChangesMax = 256;
// Of workers that came, went or moved: each costs every engine here keys, and those inside hosts messages by
// the registry, which has one thread. All that a node can have come and go 16 times.
constexpr uint32_t kWorkerChangesMax = 512;
constexpr uint64_t kChangesWindowNs = kNsPerSecond;

template <typename T>
void Append(std::string* out, T value) {
  for (int shift = (static_cast<int>(sizeof(T)) - 1) * 8; shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(value >> shift & 0xff));
  }
}

// Workers of one list that are not, as they are, in the other; of both. At most 2 * kWorkersMax.
uint32_t ChangesBetween(const std::vector<Worker>& before, const std::vector<Worker>& now) {
  const auto missing = [](const std::vector<Worker>& some, const std::vector<Worker>& others) {
    return std::count_if(some.begin(), some.end(), [&others](const Worker& worker) {
      return std::find(others.begin(), others.end(), worker) == others.end();
    });
  };
  return static_cast<uint32_t>(missing(before, now) + missing(now, before));
}

}  // namespace

// The connection may be gone afterwards.
void Exchange::Take(Connection& connection, const Message& message) {
  const auto refuse = [&](const std::string& why) { Drop(connection.id, Refusal::kProtocol, why, true); };
  if (const auto* const bye = std::get_if<Bye>(&message)) {
    // The peer's reason becomes this side's; it needs no answer.
    return Drop(connection.id, bye->reason, "the peer says so", false);
  }
  if (const auto* const hello = std::get_if<Hello>(&message)) return TakeHello(connection, *hello);
  if (!connection.established) return refuse("a message before HELLO");
  connection.heard_ns = now_ns_;
  Peer* const peer = Find(connection.peer);
  if (peer == nullptr) return;  // Removed just now; Step ends it.
  if (const auto* const keys = std::get_if<Keys>(&message)) {
    if (!TakeKeys(*peer, *keys)) return refuse("KEYS of an epoch to come");
  } else if (const auto* const rotate = std::get_if<RotateTo>(&message)) {
    if (!TakeRotate(*peer, rotate->epoch)) return refuse("a rotation out of turn");
  } else if (const auto* const switched = std::get_if<Switched>(&message)) {
    if (!TakeSwitched(*peer, switched->epoch)) return refuse("SWITCHED to an epoch to come");
  } else if (const auto* const workers = std::get_if<Workers>(&message)) {
    if (!TakeWorkers(*peer, connection, *workers)) return refuse("WORKERS too often, or one that had gone");
  } else if (const auto* const drains = std::get_if<Drains>(&message)) {
    if (!MayChange(connection)) return refuse("DRAINS too often");
    observer_->OnDrains(peer->name, *drains);
  } else if (const auto* const ask = std::get_if<Ask>(&message)) {
    if (!peer->leader_here) return refuse("a wish to one that follows");
    if (ask->wish == Wish::kRotate) peer->rotate_wanted = true;
    if (ask->wish == Wish::kDialAnew && peer->dialling == 0) {
      peer->renew = true;
      peer->dial_due_ns = now_ns_;
    }
  }
}

bool Exchange::MayChange(Connection& connection, uint32_t workers) const {
  if (now_ns_ >= connection.changes_since_ns + kChangesWindowNs) {
    connection.changes_since_ns = now_ns_;
    connection.changes = 0;
    connection.worker_changes = 0;
  }
  connection.worker_changes += workers;
  return ++connection.changes <= kChangesMax && connection.worker_changes <= kWorkerChangesMax;
}

void Exchange::SetDrains(std::map<std::string, Drains> to_peers) {
  drains_to_ = std::move(to_peers);
  Defer();
}

void Exchange::TellDrains(Peer& peer) {
  const auto found = connections_.find(peer.connection);
  if (found == connections_.end() || !found->second->takes_drains) return;
  Connection& connection = *found->second;
  const auto own = drains_to_.find(peer.name);
  const bool news = own != drains_to_.end() && own->second != connection.drains_told;
  connection.drains_untold = news && now_ns_ < connection.drains_due_ns;
  if (!news || connection.drains_untold) return;
  connection.drains_told = own->second;
  connection.drains_due_ns = now_ns_ + kChangesPauseNs;
  SendTo(peer, own->second);
}

bool Exchange::TakeWorkers(Peer& peer, Connection& connection, const Workers& message) {
  std::vector<Worker> workers = Located(message.workers, connection.remote);
  if (!MayChange(connection, ChangesBetween(peer.workers, workers))) return false;
  // Its lane would get the key of this epoch a second time, with a replay window that has seen nothing.
  for (const Worker& worker : message.workers) {
    if (peer.workers_gone.contains(worker.id)) return false;
  }
  for (const Worker& old : peer.workers) {
    const bool stays = std::any_of(message.workers.begin(), message.workers.end(),
                                   [&old](const Worker& worker) { return worker.id == old.id; });
    if (!stays) peer.workers_gone.insert(old.id);
  }
  peer.workers = std::move(workers);
  observer_->OnWorkers(InfoOf(peer));
  UpdateLanes(peer, false);
  return true;
}

void Exchange::BeginSession(Peer& peer, uint64_t session, std::vector<Worker> workers) {
  ++counters_.sessions;
  peer.session = session;
  peer.workers = std::move(workers);
  peer.lanes.clear();
  peer.rotate_wanted = false;
  observer_->OnSessionUp(InfoOf(peer));
  BeginEpoch(peer, 0);
}

void Exchange::EndSession(Peer& peer, Refusal reason) {
  const uint64_t session = std::exchange(peer.session, 0);
  peer.lanes.clear();
  peer.workers.clear();
  peer.epoch = 0;
  peer.complete = false;
  peer.retire_due_ns = 0;
  if (session != 0) observer_->OnSessionDown(peer.name, session, reason);
}

void Exchange::BeginEpoch(Peer& peer, uint32_t epoch) {
  peer.epoch = epoch;
  peer.epoch_begun_ns = now_ns_;
  peer.complete = false;
  peer.peer_switched = false;
  peer.retired = epoch == 0;
  peer.retire_due_ns = 0;
  peer.rotate_wanted = false;
  peer.workers_gone.clear();
  UpdateLanes(peer, true);
}

// Lanes join each worker here with each of the peer's. A new one begins with the present epoch, and nothing
// waits for it: workers that came one after the other, each slow, would hold the epoch up without end.
void Exchange::UpdateLanes(Peer& peer, bool epoch_begins) {
  std::map<Lane, LaneState> lanes;
  for (const Worker& local : workers_) {
    for (const Worker& remote : peer.workers) {
      const Lane lane{local.id, remote.id};
      const auto found = peer.lanes.find(lane);
      LaneState& state = lanes[lane];
      state.late = true;
      if (found != peer.lanes.end()) state = found->second;
      if (epoch_begins) state.late = false;
    }
  }
  peer.lanes = std::move(lanes);
  AskForKeys(peer);
  CheckComplete(peer);
}

void Exchange::AskForKeys(Peer& peer) {
  const auto connection = connections_.find(peer.connection);
  if (connection == connections_.end()) return;
  const uint64_t epoch = uint64_t{peer.epoch} + 1;
  for (auto& [lane, state] : peer.lanes) {
    if (state.asked == epoch) continue;
    state.asked = epoch;
    state.key_id = 0;
    state.declined = false;
    observer_->OnReceiveKeyWanted(KeyOf(peer, lane, peer.epoch),
                                  SecretOf(peer, *connection->second, lane, true));
  }
}

// The lane whose key the observer owes; nullptr: it is late.
LaneState* Exchange::Asked(const LaneKey& key) {
  Peer* const peer = Find(key.peer);
  if (peer == nullptr || peer->session != key.session || peer->connection == 0) return nullptr;
  const auto lane = peer->lanes.find(key.lane);
  if (lane == peer->lanes.end() || static_cast<uint8_t>(peer->epoch) != key.epoch) return nullptr;
  LaneState& state = lane->second;
  return state.asked != uint64_t{peer->epoch} + 1 || state.offered == state.asked ? nullptr : &state;
}

void Exchange::SetReceiveKeyId(const LaneKey& key, uint32_t key_id) {
  LaneState* const state = Asked(key);
  if (state == nullptr) return;
  state->key_id = key_id;
  // No id: the connection is given up at the key timeout, and tried again.
  if (key_id != 0) Defer();
}

void Exchange::DeclineLane(const LaneKey& key) {
  LaneState* const state = Asked(key);
  if (state == nullptr) return;
  state->declined = true;
  Defer();
}

void Exchange::SendOffers(Peer& peer) {
  Keys keys;
  keys.epoch = peer.epoch;
  for (auto& [lane, state] : peer.lanes) {
    if ((state.key_id == 0 && !state.declined) || keys.entries.size() == kKeysMax) continue;
    state.declined = false;
    KeyEntry entry;
    entry.receiver = lane.local_worker;
    entry.sender = lane.remote_worker;
    entry.key_id = std::exchange(state.key_id, 0);
    for (const Worker& worker : workers_) {
      if (worker.id == lane.local_worker) entry.hint = worker.hint;
    }
    keys.entries.push_back(entry);
    state.offered = state.asked;
  }
  if (keys.entries.empty()) return;
  SendTo(peer, keys);
  if (peer.connection != 0) CheckComplete(peer);
}

bool Exchange::TakeKeys(Peer& peer, const Keys& keys) {
  // Of the epoch before: sent before the peer heard of this one, which it answers as well.
  if (keys.epoch < peer.epoch) return true;
  if (keys.epoch > peer.epoch) return false;
  const Connection& connection = *connections_.at(peer.connection);
  const uint64_t epoch = uint64_t{keys.epoch} + 1;
  for (const KeyEntry& entry : keys.entries) {
    const auto lane = peer.lanes.find(Lane{entry.sender, entry.receiver});
    // A worker that has gone meanwhile; or the same key twice, which is never installed again.
    if (lane == peer.lanes.end() || lane->second.taken == epoch) continue;
    lane->second.taken = epoch;
    if (entry.key_id == 0) continue;  // It takes no packets there.
    observer_->OnSendKey(KeyOf(peer, lane->first, peer.epoch), entry.key_id, entry.hint,
                         SecretOf(peer, connection, lane->first, false));
  }
  CheckComplete(peer);
  return true;
}

void Exchange::CheckComplete(Peer& peer) {
  if (peer.complete || peer.connection == 0) return;
  const uint64_t epoch = uint64_t{peer.epoch} + 1;
  for (const auto& [lane, state] : peer.lanes) {
    if (!state.late && (state.offered != epoch || state.taken != epoch)) return;
  }
  peer.complete = true;
  ++counters_.epochs;
  SendTo(peer, Switched{peer.epoch});
  if (peer.peer_switched && !peer.retired) peer.retire_due_ns = now_ns_ + options_.retire_ns;
}

bool Exchange::TakeSwitched(Peer& peer, uint32_t epoch) {
  if (epoch > peer.epoch) return false;
  if (epoch < peer.epoch) return true;
  peer.peer_switched = true;
  if (peer.complete && !peer.retired) peer.retire_due_ns = now_ns_ + options_.retire_ns;
  return true;
}

bool Exchange::TakeRotate(Peer& peer, uint32_t epoch) {
  if (peer.leader_here || !peer.complete || epoch != peer.epoch + 1) return false;
  // The leader has retired the keys of the last epoch, retire_ns after both had those of this one; this side
  // may be a moment behind. One that has not would have all keys made anew as fast as they are told.
  if (!peer.retired && now_ns_ < peer.epoch_begun_ns + options_.retire_ns / 2) return false;
  if (!peer.retired) RetireLast(peer);
  BeginEpoch(peer, epoch);
  return true;
}

void Exchange::RetireLast(Peer& peer) {
  peer.retire_due_ns = 0;
  peer.retired = true;
  for (const auto& [lane, state] : peer.lanes)
    observer_->OnRetireReceiveKey(KeyOf(peer, lane, peer.epoch - 1));
}

bool Exchange::MayRotate(const Peer& peer) const {
  return peer.leader_here && peer.complete && peer.peer_switched && peer.retired && peer.dialling == 0;
}

// The context names everything that tells one key from another, so that no two ever agree.
PacketSecret Exchange::SecretOf(const Peer& peer, const Connection& connection, Lane lane,
                                bool receiving) const {
  const bool dialer_sends = connection.stream.dialer() != receiving;
  std::string context;
  Append(&context, static_cast<uint8_t>(kProtocolVersion));
  Append(&context, static_cast<uint8_t>(dialer_sends ? 1 : 2));
  Append(&context, peer.session);
  Append(&context, peer.epoch);
  Append(&context, receiving ? lane.remote_worker : lane.local_worker);  // Sends.
  Append(&context, receiving ? lane.local_worker : lane.remote_worker);  // Receives.
  PacketSecret secret;
  uint8_t bytes[sizeof(secret.key) + sizeof(secret.iv)];
  connection.stream.Export(kKeyLabel, context, bytes, sizeof(bytes));
  std::memcpy(secret.key.data(), bytes, secret.key.size());
  std::memcpy(secret.iv.data(), bytes + secret.key.size(), secret.iv.size());
  OPENSSL_cleanse(bytes, sizeof(bytes));
  return secret;
}

LaneKey Exchange::KeyOf(const Peer& peer, Lane lane, uint32_t epoch) const {
  return LaneKey{peer.name, peer.session, lane, static_cast<uint8_t>(epoch)};
}

// A worker that names no address is where the connection's other end is.
std::vector<Worker> Exchange::Located(std::vector<Worker> workers, const Endpoint& remote) {
  for (Worker& worker : workers) {
    if (!worker.address.unspecified()) continue;
    worker.address.ipv6 = remote.ipv6;
    worker.address.address = remote.address;
  }
  return workers;
}

SessionInfo Exchange::InfoOf(const Peer& peer) const {
  const auto connection = connections_.find(peer.connection);
  return SessionInfo{peer.name, peer.session, peer.workers,
                     connection != connections_.end() && connection->second->takes_drains};
}

// May drop the connection, with what that means for the peer.
void Exchange::SendTo(Peer& peer, const Message& message) {
  const auto found = connections_.find(peer.connection);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  connection.keepalive_due_ns = now_ns_ + options_.keepalive_ns;
  if (!connection.stream.Send(message)) {
    return Drop(connection.id, Refusal::kNeverReads, "what is to be sent piles up", false);
  }
  // One that is closed has, perhaps, said why: Serve, which its end wakes, takes that first.
  (void)connection.stream.Flush();
  UpdateInterest(connection);
}

}  // namespace weft::identity
