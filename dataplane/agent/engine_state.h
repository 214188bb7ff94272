// SPDX-License-Identifier: Apache-2.0
// What the round engine knows: sessions of hosts, what they hold, and the channels between them. Plain data,
// owned by the Engine and read by the planner and the views. Owner thread only.
#ifndef WEFT_DATAPLANE_AGENT_ENGINE_STATE_H_
#define WEFT_DATAPLANE_AGENT_ENGINE_STATE_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/config/agent_config.h"

namespace weft::agent {

class Model;

// Never given twice in the life of an agent; 0 is no session.
using SessionId = uint64_t;
// The two in either order are one key.
inline std::pair<SessionId, SessionId> PairOf(SessionId a, SessionId b) { return std::minmax(a, b); }
// 16 random bytes, made by the agent.
using ChannelId = std::string;
inline constexpr std::size_t kChannelIdBytes = 16;
// What the sessions of node engines go by begins so; no label holds a colon.
inline constexpr char kEnginePrefix[] = "engine:";

// What the session of weftd's own engine goes by that is worker `worker`: "engine:n1", "engine:n1:1".
inline std::string EngineName(const std::string& node, uint16_t worker) {
  return worker == 0 ? absl::StrCat(kEnginePrefix, node) : absl::StrCat(kEnginePrefix, node, ":", worker);
}

// A function that control placed on a host.
struct Placement {
  enum class State { kLoading, kReady, kFailed };
  State state = State::kLoading;
  std::string path;         // Of the module that was sent last.
  std::string sha256;       // Empty where a host brought the function along and no hash is known.
  bool serves_old = false;  // While kLoading or kFailed: an earlier module of this function still serves.
  bool leaving = false;     // Unplace was sent; the host has not reported GONE.
  std::string error;        // For kFailed

  bool serves() const { return !leaving && (state == State::kReady || serves_old); }
};

using Call = std::pair<std::string, std::string>;  // Caller and callee by name.

struct Subscription {
  uint64_t callee_id = 0;
  bool sent = false;
  api::Route route;  // As sent last, without its generation.
};

struct Session {
  SessionId id = 0;
  std::string host;  // A client's name is made by the agent.
  bool is_client = false;
  bool takes_route_lists = false;
  bool is_engine = false;   // A node engine, which speaks for the functions of other nodes:
  SessionId inside_of = 0;  // weftd's own, or the one inside of this host, which speaks to that alone.
  SessionId inside = 0;     // The engine inside of this host.
  // Of an engine: which worker of this node it is. Of another session: to which of weftd's own it was dealt.
  uint16_t worker = 0;
  std::string call_as;  // Namespace that it may call as; may be empty.
  const Tenant* tenant = nullptr;
  std::string version;
  std::set<std::string> registered;             // Functions that it serves of its own accord.
  std::map<std::string, Placement> placements;  // By function
  std::map<Call, Subscription> subscriptions;
  std::map<SessionId, ChannelId> channels;      // By peer
  std::map<std::string, std::string> policies;  // ServePolicy as sent last, by function, serialised.
  uint64_t serial_sent = 0;
  uint64_t serial_applied = 0;
  uint64_t told = 0;      // Messages and routes that it is not known to have applied.
  bool draining = false;  // By the operator
  bool drain_sent = false;
  bool drained = false;
  uint64_t asked_changes = 0;  // How often a subscription came or went.
  // Of an engine: what it was told last, of which model and of which of its host's subscriptions, and whether
  // it may still hold what that does not name.
  uint64_t told_members = 0;
  uint64_t told_asked = 0;
  bool told_keep = false;
  std::set<std::string> nodes_up;  // Of an engine: as EngineState::nodes_up, what it alone can reach.

  bool Serves(const std::string& function) const {
    if (registered.contains(function)) return true;
    const auto found = placements.find(function);
    return found != placements.end() && found->second.serves();
  }
  // Also while it loads or finishes its calls.
  bool Holds(const std::string& function) const {
    return registered.contains(function) || placements.contains(function);
  }
  bool MayCallAs(const std::string& caller) const {
    return (!call_as.empty() && caller == call_as) || Holds(caller);
  }
};

// What the peer may call at this end of a channel, as the host was told.
struct AccessEntry {
  std::string caller;
  std::set<uint64_t> callee_ids;
  bool inherited = false;  // Told by the host after a restart; its caller has not subscribed yet.
};

struct ChannelEnd {
  SessionId session = 0;
  bool memory = false;                     // The host has handed its side over.
  std::map<uint32_t, AccessEntry> access;  // By caller index
  uint32_t index_max = 0;                  // Highest that was ever given here.
  bool tell = false;                       // Send the table even where it does not change.
  uint64_t charged_bytes = 0;

  // Upper bound of what the table takes in a message.
  std::size_t TableBytes() const {
    std::size_t bytes = 0;
    for (const auto& [index, entry] : access) bytes += entry.caller.size() + 16 + 8 * entry.callee_ids.size();
    return bytes;
  }
};

struct Channel {
  ChannelId id;
  std::array<ChannelEnd, 2> ends;
  bool open = false;  // Both ends were handed to both hosts.
  uint32_t arena_bytes = 0;
  uint64_t asked_ns = 0;         // When the memory was asked for.
  uint64_t unused_since_ns = 0;  // 0: in use.

  bool memory_complete() const { return ends[0].memory && ends[1].memory; }
  int EndOf(SessionId session) const { return ends[0].session == session ? 0 : 1; }
  SessionId PeerOf(SessionId session) const { return ends[1 - EndOf(session)].session; }
};

// A channel that one re-attached host holds and whose other end has not come back yet.
struct Provisional {
  SessionId session = 0;
  api::HeldChannel held;
};

// What the processes of one user hold together, against TenantLimits.
struct Usage {
  uint32_t hosts = 0;
  uint32_t functions = 0;
  uint32_t channels = 0;
  uint64_t bytes = 0;
  std::size_t subscriptions = 0;
};

// What two nodes say to each other of hosts that are drained, or were and have not come back.
struct PeerDrains {
  std::map<std::string, uint64_t> draining;  // The speaker's own that still serve, with the drain's number,
  std::set<std::string> gone;                // and that have ended and not come back.
  std::map<std::string, uint64_t> left;  // The listener's, to which no call of the speaker's is under way,
  std::set<std::string> needed;          // and those that it has no other host for.
  bool deaf = false;                     // The speaker's agent is of a version that does not know drains.
  friend bool operator==(const PeerDrains&, const PeerDrains&) = default;
};

struct EngineState {
  std::map<SessionId, Session> sessions;
  std::map<std::string, SessionId> by_host;
  std::map<ChannelId, Channel> channels;
  std::map<ChannelId, Provisional> provisional;
  std::map<const Tenant*, Usage> usage;
  // Sessions that serve a function of their own accord: Session::registered the other way round.
  std::map<std::string, std::set<SessionId>> registered_at;
  // Sessions that calls of a function are routed to, as of the last round that changed routes.
  std::map<std::string, std::set<SessionId>> routed;
  // The sessions of weftd's own node engines, by worker, the first of them, or 0, and what they can reach
  // together: nodes, and as "node/host" the engines inside hosts there.
  std::map<uint16_t, SessionId> engines;
  SessionId engine = 0;
  std::set<std::string> nodes_up;
  // Other nodes whose agents this one is connected to, and what they said last.
  std::map<std::string, PeerDrains> peers;
  // Hosts of this node that the operator has drained, until one of their name attaches anew.
  std::set<std::string> drained;

  bool DrainsElsewhere(const std::string& node, const std::string& host) const {
    const auto found = peers.find(node);
    return found != peers.end() && found->second.draining.contains(host);
  }
  bool GoneElsewhere(const std::string& node, const std::string& host) const {
    const auto found = peers.find(node);
    return found != peers.end() && found->second.gone.contains(host);
  }
  // No other node's calls go to a host of this one that is being drained.
  bool AllLeft(const Session& session) const {
    return std::all_of(peers.begin(), peers.end(), [&session](const auto& peer) {
      const auto left = peer.second.left.find(session.host);
      return left != peer.second.left.end() && left->second == session.id;
    });
  }
  Session* Find(SessionId id) {
    const auto found = sessions.find(id);
    return found == sessions.end() ? nullptr : &found->second;
  }
  void Unregister(const std::string& function, SessionId id) {
    const auto found = registered_at.find(function);
    if (found == registered_at.end()) return;
    found->second.erase(id);
    if (found->second.empty()) registered_at.erase(found);
  }
  const Session* Find(SessionId id) const { return const_cast<EngineState*>(this)->Find(id); }
  const Session* FindHost(const std::string& host) const {
    const auto found = by_host.find(host);
    return found == by_host.end() ? nullptr : Find(found->second);
  }
  // The engine by which calls of `session` leave for `end`, which is in nodes_up: the one that it was dealt
  // to, where that reaches it.
  SessionId EngineTo(const Session& session, const std::string& end) const {
    const auto reaches = [&](SessionId id) {
      const Session* const engine_session = Find(id);
      return engine_session != nullptr && engine_session->nodes_up.contains(end);
    };
    const auto dealt = engines.find(session.worker);
    if (dealt != engines.end() && reaches(dealt->second)) return dealt->second;
    for (const auto& [worker, id] : engines) {
      if (reaches(id)) return id;
    }
    return engine;
  }
  Channel* FindChannel(const ChannelId& id) {
    const auto found = channels.find(id);
    return found == channels.end() ? nullptr : &found->second;
  }
  // The channel that joins two sessions, or nullptr.
  Channel* Between(SessionId a, SessionId b) {
    const Session* session = Find(a);
    if (session == nullptr) return nullptr;
    const auto found = session->channels.find(b);
    return found == session->channels.end() ? nullptr : FindChannel(found->second);
  }
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_ENGINE_STATE_H_
