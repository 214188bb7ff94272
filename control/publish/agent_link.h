// SPDX-License-Identifier: Apache-2.0
// weft-control's conversation with the agent over admin.sock: a snapshot after each connect, deltas after
// that, acknowledgements back. What changes while a generation is on its way is gathered, and goes with the
// next one. Connects again by itself, with growing pauses. Nothing blocks; the daemon's loop calls OnEvents()
// and OnTime(). One thread.
#ifndef WEFT_CONTROL_PUBLISH_AGENT_LINK_H_
#define WEFT_CONTROL_PUBLISH_AGENT_LINK_H_

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "control/model/mesh_state.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/random.h"

namespace weft::control {

// What the link tells its owner, from within OnEvents(), OnTime() and SetTarget().
class AgentLinkObserver {
 public:
  virtual ~AgentLinkObserver() = default;
  virtual void OnConnected() = 0;
  virtual void OnDisconnected(const absl::Status& why) = 0;
  // The parts of `generation` are on their way; it holds the target of `revision`.
  virtual void OnSent(uint64_t generation, uint64_t revision, bool snapshot) = 0;
  // Every revision up to this one is in force.
  virtual void OnProgrammed(uint64_t revision, const api::Programmed& programmed) = 0;
  // What the hosts of the node serve of their own accord, all of it.
  virtual void OnRegistrations(const std::vector<api::Registrations::Host>& hosts) = 0;
  // What Run() has asked for has ended.
  virtual void OnRunEnded(const api::RunEnded& /*ended*/) {}
  // What Ask() has asked for: rows of functions.
  virtual void OnFunctions(const std::vector<api::Item>& /*functions*/) {}
  // The agent will not take it, or we will not send it: tried again later, and at once with another target.
  virtual void OnRefused(const std::string& reason) = 0;
};

class AgentLink {
 public:
  struct Options {
    std::string socket_path;
    uint64_t seed = 1;  // Of the pauses' jitter
  };
  enum class State { kDisconnected, kGreeting, kReady, kRefused };

  // `mesh` is what the agent should hold; it and `observer` outlive the link. `generation` is the last one
  // that any run of this control sent.
  AgentLink(Options options, uint64_t generation, const MeshState* mesh, AgentLinkObserver* observer);

  // The mesh is another one now, by `changes`; `revision` rises with each call. Nothing is sent before the
  // first one. Sent at once where the agent listens and holds what was sent before.
  void SetTarget(absl::Span<const EntryChange> changes, uint64_t revision);

  // Has a module run once; false where the agent does not listen. OnRunEnded() follows, unless
  // OnDisconnected() or OnRefused() comes first: then nobody knows.
  bool Run(const api::RunOnce& run);

  // Asks for what these functions' calls came to on this node; OnFunctions() follows, unless the connection
  // goes. False where the agent does not listen.
  bool Ask(const std::vector<std::string>& functions);

  int fd() const { return socket_.get(); }  // -1: none
  short poll_events() const;
  void OnEvents(short revents, uint64_t now_ns);
  uint64_t wake_ns() const { return retry_at_ns_; }  // CLOCK_MONOTONIC; 0: never
  void OnTime(uint64_t now_ns);

  State state() const { return state_; }
  const std::string& node() const { return node_; }  // As the agent told; empty: not yet
  uint64_t generation() const { return generation_; }
  uint64_t acknowledged() const { return acknowledged_; }

 private:
  struct Unacknowledged {
    uint64_t generation;
    uint64_t revision;
  };

  bool SendNow(const api::AdminRequest& request);
  void Connect(uint64_t now_ns);
  void Disconnect(const absl::Status& why, uint64_t now_ns);
  void Refuse(const std::string& reason, uint64_t now_ns);
  void Close();
  void Receive(int messages_max, uint64_t now_ns);
  void Take(const api::AdminReply& reply, uint64_t now_ns);
  void BeginGeneration(uint64_t now_ns);
  std::vector<EntryChange> TakeUnsent();
  void TakeBack();
  void Flush(uint64_t now_ns);

  Options options_;
  AgentLinkObserver* observer_;
  Random random_;
  State state_ = State::kDisconnected;
  UniqueFd socket_;
  uint64_t retry_at_ns_ = 1;  // At once
  uint64_t pause_ns_ = 0;

  const MeshState* mesh_;
  uint64_t target_revision_ = 0;  // 0: none yet
  bool known_ = false;            // What the agent holds once it has read all: the mesh of `sent_revision_`.
  uint64_t sent_revision_ = 0;
  // What of that mesh is another one now: each by an entry that has its key, with what was sent of it.
  absl::flat_hash_map<EntryPtr, EntryPtr, EntryHash, EntryEq> unsent_;
  std::deque<std::string> outgoing_;  // Parts of one generation, runs and questions
  std::deque<Unacknowledged> unacknowledged_;

  std::vector<api::Registrations::Host> hosts_;  // Of registrations that come in several packets
  std::vector<api::Item> functions_;             // Of an answer that comes in several packets
  std::string node_;
  uint64_t generation_;
  uint64_t acknowledged_ = 0;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_PUBLISH_AGENT_LINK_H_
