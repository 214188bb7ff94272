// SPDX-License-Identifier: Apache-2.0
// The registry of weftd: sockets, sessions and timers around the round engine, on one thread that never waits
// for a client. It accepts, checks who is there, takes each message apart, gives it to the engine and sends
// what comes out.
#ifndef WEFT_DATAPLANE_AGENT_SERVER_H_
#define WEFT_DATAPLANE_AGENT_SERVER_H_

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/agent/connection.h"
#include "dataplane/agent/engine.h"
#include "dataplane/agent/engine_door.h"
#include "dataplane/agent/log_limit.h"
#include "dataplane/agent/node_link.h"
#include "dataplane/agent/reaper.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/agent/store.h"
#include "dataplane/agent/views.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/notify.h"
#include "dataplane/config/agent_config.h"

namespace weft::agent {

struct ServerOptions {
  std::string run_dir = "/run/weft";
  std::string state_dir = "/var/lib/weft";
  AgentConfig config;
  UniqueFd stop;  // Run() ends when this is readable.
  Notifier notifier;
};

// What the node's engines may hold, one a worker. Its end of a channel is as large as the other, which a
// tenant pays for, and what it holds of a tenant's messages that stream in it bounds itself: so it may hold
// as much as all tenants together, and none of them can take what another needs there.
TenantLimits NodeEngineLimits(const std::vector<Tenant>& tenants, const TenantLimits& admin,
                              uint32_t workers = 1);

// Changes of what hosts serve are told to control at once, and then no more often than this.
inline constexpr uint64_t kRegistrationsPauseNs = 4 * kNsPerMs;

class Server {
 public:
  // Restores the last generation, then listens. Errors name the path or the setting at fault.
  static absl::StatusOr<std::unique_ptr<Server>> Create(ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves until `stop` is readable or epoll fails. Hosts keep running on their channels afterwards.
  absl::Status Run();

  // By which the node engine attaches. Any thread.
  EngineDoor& engine_door() { return door_; }
  // The link to other nodes, where there is one: is told of them and asked how they are. Before Run; outlives
  // it.
  void set_node_link(NodeLink* link);

 private:
  // Memories of one channel between their arrival and their handing over.
  struct Parts {
    std::array<UniqueFd, 2> memory;
    std::array<UniqueFd, 2> doorbell;
  };
  // A question of weftctl that waits for the counters of hosts.
  struct PendingQuery {
    SessionId asker = 0;
    api::Query::Kind kind = api::Query::STATUS;
    std::set<std::string> functions_only;  // Of FUNCTIONS: these; none: all.
    uint64_t deadline_ns = 0;
    std::set<SessionId> waiting;
    StatsByHost stats;
    FunctionStatsByHost functions;
  };

  explicit Server(ServerOptions options);

  // server.cc: the loop.
  uint32_t IndexOfTenant(const Tenant* tenant) const;
  uint32_t TenantOfHost(const std::string& host) const;
  absl::Status Listen();
  // In epoll's user data beside the number of a connection: its process, not its socket.
  static constexpr uint64_t kTagProcess = uint64_t{1} << 62;
  absl::Status Watch(int fd, uint64_t tag, uint32_t events);
  void SetAccepting(bool accepting);
  int TimeoutMs(uint64_t now_ns) const;
  void RunTimers(uint64_t now_ns);
  void Serve(uint64_t tag, uint32_t events);
  void UpdateInterest(Connection& connection);
  void RunEngine();
  void ExcuseLostTime(uint64_t expected_ns);
  void CutOffCrowded(uint64_t now_ns);
  void TellNodeLink();
  void CarryOut(Output output);
  void SendToHost(Output output);
  void SendTo(Connection& connection, std::string bytes, std::vector<UniqueFd> fds = {});

  // server_sessions.cc: connections and their messages.
  void Accept(bool admin);
  void AcceptEngine();
  void AcceptOne(UniqueFd socket, const PeerCredentials& peer, bool admin);
  absl::Status CheckConnection(const PeerCredentials& peer, bool admin, const Tenant** tenant) const;
  void Receive(Connection& connection);
  void Handle(SessionId id, ReceivedMessage message);
  absl::Status Take(Connection& connection, ReceivedMessage& message);
  absl::Status HandleFromHost(Connection& connection, const api::FromHost& message,
                              std::vector<UniqueFd>& fds);
  absl::Status HandleHello(Connection& connection, const api::Hello& hello);
  absl::Status HandleNodeReport(SessionId id, const api::NodeReport& report);
  absl::Status HandleMemory(Connection& connection, const std::string& id, std::vector<UniqueFd>& fds);
  void MakeWay(const std::string& host);
  void RefuseAndClose(Connection& connection, const absl::Status& why);
  void Close(SessionId id, const std::string& reason);
  void CloseAllOf(uid_t owner, const std::string& reason);
  void CloseLater(uid_t owner, UniqueFd fd) { reaper_.Close(owner, std::move(fd)); }

  // server_inside.cc: node engines inside hosts.
  void OpenInside(Connection& host);
  void CloseInside(Connection& connection, const std::string& reason);
  void CarryInsideMail();
  std::vector<api::Item> WhatHolds(const Session& session) const;
  void CarryDrainMail();
  void TellDrains();

  // server_admin.cc
  absl::Status HandleAdmin(Connection& connection, const api::AdminRequest& request);
  void Reply(SessionId id, const api::AdminReply& reply);
  void Fail(SessionId id, const absl::Status& why);
  void StartQuery(Connection& connection, const api::Query& asked);
  std::set<SessionId> WhoToAsk(const PendingQuery& query) const;
  void TakeStats(SessionId host, const api::Stats& stats);
  void FinishQuery(const PendingQuery& query);
  void ReplyItems(SessionId asker, std::vector<api::Item> items);
  void PushRegistrations(SessionId only);
  void PushChangedRegistrations();
  void Acknowledge(const Output& output);
  void StartDrain(SessionId asker, const std::string& host);
  void TellDrainState(SessionId asker, const std::string& host, const std::string& state,
                      const std::string& why);
  void TellDrained(SessionId host, const std::string& name, bool drained);
  bool MayProgram(const Connection& connection) const;

  // server_runs.cc: modules that are run once.
  static absl::StatusOr<UniqueFd> OpenModule(const std::string& path);
  absl::Status HandOnRun(SessionId asker, api::RunOnce& run);
  void StartRun(SessionId asker, api::RunOnce run);
  void TakeRunEnded(SessionId host, const api::RunEnded& told);
  void TellRunEnded(SessionId asker, api::RunEnded ended);
  void ForgetRuns(SessionId id, const std::string& reason);

  // server_status.cc
  std::vector<api::Item> NodeItems() const;
  std::string TextOfWorker(const NodeLink::WorkerState& state, uint16_t worker,
                           const StatsByHost& stats) const;
  void AddLink(const StatsByHost& stats, api::Item* item) const;
  void AddSums(const StatsByHost& stats, api::Item* item) const;
  std::vector<api::Item> StatusItems(const StatsByHost& stats) const;

  ServerOptions options_;
  Reaper reaper_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Engine> engine_;
  UniqueFd epoll_;
  UniqueFd agent_listener_;
  UniqueFd admin_listener_;
  uint64_t accept_again_ns_ = 0;        // Not 0: out of descriptors, and not accepting until then.
  bool registrations_changed_ = false;  // Since control was told,
  uint64_t registrations_next_ns_ = 0;  // and is told again then at the soonest.
  uint64_t next_watchdog_ns_ = 0;
  uint64_t ran_ns_ = 0;  // When this thread was last seen to run; at first, when hosts could first connect.
  uint64_t connections_max_ = 0;
  SessionId last_session_ = 0;
  std::map<SessionId, std::unique_ptr<Connection>> connections_;
  // Accepted ones, by user and whether on the admin socket: nobody answers for those that weftd made itself.
  std::map<std::pair<uid_t, bool>, uint32_t> connections_of_;
  std::map<ChannelId, Parts> parts_;
  std::deque<std::pair<uint64_t, SessionId>> hello_due_;  // In the order accepted
  std::set<SessionId> crowded_;                           // All that are, and some that were
  std::map<std::string, PeerDrains> drains_told_;         // To other nodes, as the link has it.
  std::multimap<SessionId, SessionId> drain_waiters_;     // By host: who waits to hear that it is drained.
  std::map<uint64_t, PendingQuery> queries_;
  uint64_t last_query_ = 0;
  std::map<std::pair<SessionId, std::string>, SessionId> runs_;  // By host and name: who asked.
  RefusalCounters refusals_;
  LogLimit log_limit_;
  // By tenant: of its hosts that come and go.
  std::map<std::string, LogLimit> tenant_logs_;
  bool MayLog(const Tenant& tenant) { return tenant_logs_[tenant.name].Allow(NowNs()); }
  uint64_t started_ns_ = 0;
  Tenant admin_tenant_;   // What sessions of weftctl call belong to.
  Tenant engine_tenant_;  // And the node engine's.
  EngineDoor door_;
  NodeLink* node_link_ = nullptr;
  std::map<uint16_t, SessionId> inside_sessions_;  // Of engines inside hosts, by worker
  std::shared_ptr<const Model> peers_told_;        // The model by which node_link_ knows its peers.
  bool stopping_ = false;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_SERVER_H_
