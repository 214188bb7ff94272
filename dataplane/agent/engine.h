// SPDX-License-Identifier: Apache-2.0
// The round engine of weftd: what hosts, control and the operator say goes in, what to tell each session
// comes out. Pure: it has no sockets, no descriptors and no clock of its own.
//
// Rounds. Whatever changes marks the state dirty. One round at a time brings every session from what it was
// told to what is wanted, in phases, each of which waits until the sessions that it told something have
// applied it:
//   open    the channels that new targets need; both hosts hand over their memory
//   grow    receivers' tables of permitted callers, so that no call arrives ahead of its permission
//   route   callers' target sets
//   shrink  tables and channels that nothing may use any more, placements that nothing routes to
// A session that has not answered a phase within kAnswerNs is cut off. A generation is acknowledged when a
// round that knew of it has ended and the placements that it asked for are ready or have failed.
//
// The owner calls inputs, then Advance(), then carries out TakeOutputs() in order. Owner thread only.
#ifndef WEFT_DATAPLANE_AGENT_ENGINE_H_
#define WEFT_DATAPLANE_AGENT_ENGINE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dataplane/agent/engine_state.h"
#include "dataplane/agent/model.h"
#include "dataplane/agent/plan.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/base/clock.h"

namespace weft::agent {

// What a host has to answer a phase of a round before it is cut off, and for each message and each route that
// it has to apply before, up to kSubscriptionsMax: with as many routes as it may have 510 ms.
inline constexpr uint64_t kAnswerNs = 100 * kNsPerMs;
inline constexpr uint64_t kAnswerEachNs = 25'000;
// After this part of it, hosts that the later phases of the round will touch are asked too, so that two that
// hang cost one wait and not two.
inline constexpr uint64_t kAnswerProbeNs = 20 * kNsPerMs;
// What a placement may take before its generation is acknowledged without it.
inline constexpr uint64_t kPlacementNs = 10 * kNsPerSecond;
// Hosts re-attach within 200 ms of a new agent's start, those that it refuses at first within 500. What no
// second end claims until this long after it is closed, a little before the second that hosts may count on.
inline constexpr uint64_t kSettleNs = 900 * kNsPerMs;
// A channel that nothing routes over any more is kept this long: functions move back.
inline constexpr uint64_t kIdleChannelNs = 30 * kNsPerSecond;
// Functions that one round looks at without looking at all.
inline constexpr std::size_t kChangedFunctionsMax = 1'000;
// Remembered function ids: forgotten all at once when there are more.
inline constexpr std::size_t kFunctionIdsMax = 100'000;
// After a channel was closed by an end, the pair waits this long for the next; doubled at each closing within
// kReopenForgetNs, up to kReopenMaxNs.
inline constexpr uint64_t kReopenMinNs = 1 * kNsPerMs;
inline constexpr uint64_t kReopenMaxNs = 256 * kNsPerMs;
inline constexpr uint64_t kReopenForgetNs = 10 * kNsPerSecond;
// Of one session: callers times callees that it asked for.
inline constexpr std::size_t kSubscriptionsMax = 16 * 1024;
// And of all sessions of one tenant: each is about 1 KB here, and is looked at in every round.
inline constexpr std::size_t kTenantSubscriptionsMax = 8 * kSubscriptionsMax;
// A table of permitted callers has to fit one message, with room to spare.
inline constexpr std::size_t kAccessBytesMax = 56 * 1024;
// So has the list of channels that a re-attaching host may keep: 3,000 of 18 bytes.
inline constexpr int kKeepChannelsMax = 3000;
// So has the list of what failed in a generation, 100 of 500 bytes, beside 100 names of hosts that were cut
// off.
inline constexpr int kFailuresMax = 100;
// And so has a route, whose targets name a host and an end elsewhere, of up to 134 and 127 bytes. The last
// ones are left out.
inline constexpr int kTargetsMax = 400;
inline constexpr std::size_t kRouteBytesMax = 56 * 1024;
// As have several of them.
inline constexpr std::size_t kRouteListBytesMax = 56 * 1024;
// Indices fit the 16 bits of a request's header; a channel that used them up is closed and made anew.
inline constexpr uint32_t kCallerIndexMax = 65'535;

struct EngineOptions {
  std::string node;
  std::function<ChannelId()> new_channel_id;
  // Index of the tenant that owns a host's name; by which the node engine charges what other nodes send.
  std::function<uint32_t(const std::string& host)> tenant_of_host;
  std::function<uint32_t(const Tenant*)> index_of_tenant;
  uint64_t start_ns = 0;
  uint64_t message_bytes_max = 16 * 1024 * 1024;
};

// What the owner has to do.
struct Output {
  enum class Kind {
    kSend,          // `message` to session `to`, with the descriptors that `attach` names.
    kCutOff,        // Close session `to`'s socket; the engine has forgotten the session.
    kChannelGone,   // Nothing more will be attached from `channel`.
    kAcknowledged,  // `programmed` to whoever programmed it; write `model` to disk.
    kDrained,       // Session `to`, on whose name an operator waits, has finished its calls.
  };
  enum class Attach { kNone, kChannelPeer, kModule };

  Kind kind = Kind::kSend;
  SessionId to = 0;
  api::ToHost message;
  Attach attach = Attach::kNone;
  ChannelId channel;  // kChannelPeer: send the memory of end 1 - `end` and the doorbell of `end`.
  int end = 0;
  std::string module;  // kModule: path to open.
  std::string reason;  // kCutOff
  api::Programmed programmed;
  std::shared_ptr<const Model> model;
};

struct AttachRequest {
  SessionId session = 0;
  const Tenant* tenant = nullptr;  // Outlives the engine.
  std::string host;                // Already checked against the tenant; a client's was made up.
  bool is_client = false;
  bool is_engine = false;   // On a connection that weftd made itself, never claimed by a peer.
  SessionId inside_of = 0;  // Of an engine: the host that was given that connection; 0: weftd.
  uint16_t worker = 0;      // Of an engine.
  std::string call_as;
  api::Hello hello;  // Names already checked for their form.
};

class Engine {
 public:
  explicit Engine(EngineOptions options);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Takes the mesh of a former agent, before anybody attaches.
  void Restore(Model model);

  // Inputs. An error refuses the message: it names the reason, nothing was changed, and the owner cuts the
  // session off (Detach) where the message was not merely unlucky.
  absl::Status Attach(const AttachRequest& request, uint64_t now_ns);
  // The session is gone: closed, dead or refused. Its peers hear of it at once. Unknown sessions are ignored.
  void Detach(SessionId session, absl::string_view reason, uint64_t now_ns);
  absl::Status Report(SessionId session, const api::FunctionReport& report);
  // A Subscribe that may not be answers itself with a Route that says why; an error is one beyond all limits.
  absl::Status Subscribe(SessionId session, const api::Subscribe& subscribe);
  absl::Status Unsubscribe(SessionId session, const api::Unsubscribe& unsubscribe);
  // Whether `session` owes the memory of `channel`: its arena size then, else an error.
  absl::StatusOr<uint32_t> ExpectedArena(SessionId session, const ChannelId& channel) const;
  // The memory of ExpectedArena() has arrived and was found good.
  absl::Status MemoryArrived(SessionId session, const ChannelId& channel);
  absl::Status ChannelClosed(SessionId session, const api::ChannelClosed& closed, uint64_t now_ns);
  absl::Status Applied(SessionId session, uint64_t serial);
  absl::Status HostDrained(SessionId session);
  absl::Status ReportNode(SessionId session, const api::NodeReport& report);
  // A placement could not even be handed over: the module does not open.
  void PlacementFailed(SessionId session, const std::string& function, const std::string& error);

  // A part of a generation from control's session `from`. FAILED_PRECONDITION where it is older than what is
  // held.
  absl::Status Program(SessionId from, const api::Program& part, uint64_t now_ns);
  // The control session is gone: its unfinished generation is forgotten.
  void ForgetProgrammer(SessionId from) { staging_.erase(from); }
  // Starts to drain a host. NOT_FOUND where none of that name is attached.
  absl::Status DrainHost(const std::string& host);
  // Why calls still go to a host that is being drained, by function; nothing where they have other hosts, and
  // it only waits for other nodes to go there.
  std::map<std::string, std::string> WhatHolds(const Session& session) const;
  // Another node's agent is connected and says this of drains, in place of what it said before; or it has
  // gone.
  void PeerSays(const std::string& peer, PeerDrains says);
  void PeerGone(const std::string& peer);
  // A node engine has no call under way any more of those that it was asked for.
  absl::Status EndsLeft(SessionId session, uint64_t number);
  // What each of them is to be told, as of the last round.
  const std::map<std::string, PeerDrains>& drains_to_tell() const { return drains_to_tell_; }

  // The owner lost `ns` of the time until now: it was off the CPU, and perhaps with it the whole machine.
  // Hosts that it waits for get that time anew, as do those that have yet to come back.
  void Excuse(uint64_t ns, uint64_t now_ns);
  // Runs rounds as far as they go without an answer.
  void Advance(uint64_t now_ns);
  // When to call Advance() again where nothing comes in; UINT64_MAX: never.
  uint64_t NextDeadlineNs() const;
  std::vector<Output> TakeOutputs();

  const Model& model() const { return *model_; }
  std::shared_ptr<const Model> shared_model() const { return model_; }
  const EngineState& state() const { return state_; }
  // What the last round set out to bring about.
  const Plan& plan() const { return plan_; }
  const std::string& node() const { return options_.node; }
  // How many engines this node has, among which hosts are dealt; before the first attaches.
  void set_workers(uint16_t workers) { workers_ = workers; }
  // Placements that generations wait for.
  OpenPlacements OpenNow() const;
  uint64_t acknowledged_generation() const { return acknowledged_; }
  uint64_t rounds() const { return rounds_; }
  // So many endpoints were looked at so far for other nodes' drains: the work of a round, for tests.
  uint64_t endpoints_looked_at() const { return endpoints_looked_at_; }
  // Requests by callers of another's name, which were answered and counted.
  uint64_t forged_callers() const { return forged_callers_; }
  // Routes that engines inside hosts asked for to functions that are not at their host.
  uint64_t foreign_functions() const { return foreign_functions_; }
  // True once since the last call where hosts or what they registered have changed.
  bool TakeRegistrationsChanged() { return std::exchange(registrations_changed_, false); }

 private:
  enum class Phase { kIdle, kOpen, kGrow, kRoute, kShrink };

  // A generation that is not acknowledged yet.
  struct Pending {
    uint64_t generation = 0;
    uint64_t deadline_ns = 0;
    std::map<EndpointKey, std::string> asks;  // Placements by key, with their SHA-256
    std::set<std::string> cut_off;
    bool settled = false;  // As of the plan of the round that runs.
    std::vector<std::string> failed;
  };
  struct Waited {
    uint64_t serial = 0;
    uint64_t since_ns = 0;
    uint64_t told = 0;  // As Session::told, up to this serial.
    uint64_t due_ns() const {
      return since_ns + kAnswerNs + std::min<uint64_t>(told, kSubscriptionsMax) * kAnswerEachNs;
    }
  };
  // The list of routes that was begun last, as an index of outputs_.
  struct RouteBatch {
    SessionId to = 0;
    std::size_t output = 0;
    std::size_t bytes = 0;
  };
  struct Reopen {
    uint64_t closed_ns = 0;
    uint64_t wait_ns = 0;
    std::string reason;
  };

  // Something has changed that any route may depend on: the next round looks at all.
  void Touch() { dirty_ = unplaced_ = whole_ = true; }

  // engine.cc: sessions and what they say.
  absl::Status CheckAttach(const AttachRequest& request) const;
  void Admit(const AttachRequest& request, uint64_t now_ns);
  absl::Status AddRegistration(Session& session, const std::string& function);
  void Release(Session& session, const std::string& function);
  absl::Status CountSubscription(Session& session);
  api::ToHost& Send(Session& session);
  api::ToHost& SendAndWait(Session& session);
  void SendRoute(Session& session, const api::Route& route, uint64_t generation, bool wait,
                 RouteBatch* batch);

  // engine_channels.cc
  void OpenChannel(Session& a, Session& b, uint64_t now_ns, std::string* why_not);
  void CloseChannel(const ChannelId& id, absl::StatusCode code, absl::string_view reason, SessionId except,
                    uint64_t now_ns);
  void WithdrawTargets(Session& caller, const ChannelId& id, absl::string_view reason);
  bool Charge(const Tenant* tenant, uint64_t bytes);
  void HandOver(Channel& channel);
  void SendAccess(Channel& channel, int end, bool wait);
  static uint32_t PermittedIndex(const Channel& channel, int end, const std::string& caller,
                                 uint64_t callee_id);
  uint32_t IndexFor(Channel& channel, int end, const std::string& caller);
  void GrowAccess();
  void GrowFor(SessionId caller_id, const Call& call, const PlanTarget& target);
  struct ShrinkTables;
  uint64_t IdOf(const std::string& function);
  ShrinkTables MakeShrinkTables(uint64_t now_ns);
  const std::map<uint64_t, std::string>& HeldBy(const Session& session, ShrinkTables& tables);
  bool ShrinkEnd(Channel& channel, int end, ShrinkTables& tables);
  void ShrinkChannels(uint64_t now_ns);

  // engine_reattach.cc
  void AdoptChannels(Session& session, const api::Hello& hello, uint64_t now_ns, api::Welcome* welcome);
  absl::Status AdoptChannel(const Provisional& first, const Provisional& second);
  void CloseAtHolder(const Provisional& provisional, absl::string_view reason);
  void EndSettling(uint64_t now_ns);

  // engine_rounds.cc
  void BeginRound(uint64_t now_ns);
  // Calls visit(key, route) for each route that the plan of this round has made.
  template <typename Visit>
  void EachFreshRoute(Visit&& visit) const {
    if (plan_.whole) {
      for (const auto& [key, route] : plan_.routes) visit(key, route);
      return;
    }
    for (const RouteKey& key : plan_.fresh_routes) {
      if (const auto found = plan_.routes.find(key); found != plan_.routes.end()) visit(key, found->second);
    }
  }
  void OpenForPlan(uint64_t now_ns);
  bool OpeningsPending() const;
  void EnterPhase(Phase phase, uint64_t now_ns);
  bool PhaseDone() const;
  void CutOffSilent(uint64_t now_ns);
  void Probe();
  void SendRoutes();
  api::Route BuildRoute(const Session& session, const Call& call, const PlanRoute& plan);
  void CommitRouted();
  void EndRound(uint64_t now_ns);
  void CutOff(SessionId session, const std::string& reason, uint64_t now_ns);
  void WantChannel(Session& caller, SessionId target, uint64_t now_ns);
  bool Holding(uint64_t now_ns) const { return !state_.provisional.empty() && now_ns < settle_until_ns_; }

  // engine_nodes.cc
  void AddEngine(SessionId id, uint16_t worker);
  void RemoveEngine(Session& session);
  void Reached(const std::string& node);
  void Lost(const std::string& node);
  uint16_t LeastDealt(bool is_client) const;
  void SendNodeTables(bool keep);
  void SendNodeTable(Session& engine, bool keep);

  // engine_placement.cc
  void Commit(Model model, const Pending& pending, uint64_t now_ns);
  void TakeModel(std::shared_ptr<const Model> model);
  void Place();
  void PlaceOne(Session& session, const api::Endpoint& endpoint);
  void Unplace();
  void SendPolicies();
  void SendPolicy(Session& session, const std::string& function);
  void UnplaceAt(Session& session, const std::vector<std::string>& functions);
  bool JudgePending(Pending& pending, bool* absent) const;
  void SettlePending(uint64_t now_ns);
  void Acknowledge();

  // engine_drains.cc
  void SendDrains();
  void NoteDrains();
  void UpdateDrains();
  using Ends = std::map<std::string, std::set<uint64_t>>;  // Functions by end
  void FindDrainedFunctions();
  Ends RoutedToDrainers();
  bool CallsHaveLeft(const std::string& peer, const std::string& host, uint64_t drain, const Ends& routed);

  EngineOptions options_;
  uint64_t settle_until_ns_;
  bool provisional_done_ = false;
  std::shared_ptr<const Model> model_;
  EngineState state_;
  std::vector<Output> outputs_;

  LocalEndpoints local_;  // Of model_, those of this node
  bool dirty_ = false;    // A round has to run.
  bool whole_ = true;     // It has to look at all, not only at:
  std::set<std::string> changed_functions_;
  bool starved_ = false;         // A table had no room for a caller of this round: the next one tries again.
  bool planned_openly_ = false;  // The last plan had placements to wait for.
  uint64_t members_ = 1;         // Grows with each change of what node engines are told of a model.
  bool unplaced_ = false;        // Hosts may have to be asked to load something.
  Phase phase_ = Phase::kIdle;
  Plan plan_;
  uint64_t plan_members_ = 0;  // `members_` of its model
  uint64_t phase_began_ns_ = 0;
  bool probed_ = false;
  std::map<SessionId, Waited> waiting_;  // Who has yet to apply what before the phase is done.
  std::map<std::pair<SessionId, SessionId>, std::string>
      unopened_;                                              // Why a pair has no channel in this round.
  std::map<std::pair<SessionId, SessionId>, Reopen> reopen_;  // By ordered pair
  std::map<std::string, uint64_t> function_ids_;              // Remembered hashes
  uint64_t retry_ns_ = UINT64_MAX;  // When a pair in reopen_ may have a channel again.
  uint64_t now_ns_ = 0;             // Of the input or Advance() that runs.

  struct Staged {
    Model model;
    Pending pending;
    uint64_t generation = 0;
  };
  // Asks node engines whether calls are still under way to a host that another node drains.
  struct Leave {
    uint64_t drain = 0;  // That node's number of it.
    Ends ends;           // What routes do not lead to any more.
    uint64_t number = 0;
    std::set<SessionId> unanswered;
  };
  PeerDrains planned_own_;  // `draining` and `gone` of this node, as plan_ knows them,
  std::map<std::string, std::map<std::string, uint64_t>> planned_drains_;  // and other nodes'.
  // What has an endpoint on each of those hosts, by node and host, as of the plan.
  std::map<std::pair<std::string, std::string>, std::set<std::string>> drained_functions_;
  uint64_t endpoints_looked_at_ = 0;
  std::map<std::pair<std::string, std::string>, Leave> leaves_;  // By node and host
  uint64_t last_leave_ = 0;
  std::map<std::string, PeerDrains> drains_to_tell_;
  std::map<SessionId, Staged> staging_;
  std::vector<Pending> pending_;
  uint64_t acknowledged_ = 0;
  uint64_t rounds_ = 0;
  uint16_t workers_ = 1;
  uint64_t forged_callers_ = 0;
  uint64_t foreign_functions_ = 0;
  bool registrations_changed_ = false;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_ENGINE_H_
