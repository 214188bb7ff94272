// SPDX-License-Identifier: Apache-2.0
// weft-control between its borders: takes what its sources say, keeps the model, has it programmed, saves it,
// and says how it stands. The daemon's loop drives it; tests drive it with real sources and an agent of their
// own. One thread.
#ifndef WEFT_CONTROL_DAEMON_CONTROLLER_H_
#define WEFT_CONTROL_DAEMON_CONTROLLER_H_

#include <poll.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/daemon/record.h"
#include "control/model/model.h"
#include "control/publish/agent_link.h"
#include "control/publish/state_file.h"
#include "control/source/etcd/etcd_presence.h"
#include "control/source/etcd/etcd_source.h"
#include "control/source/file_source.h"
#include "control/source/http_client.h"
#include "control/source/kubernetes/kube_source.h"
#include "control/source/propeller/propeller_source.h"
#include "control/source/propeller/propeller_worker.h"
#include "control/source/source.h"
#include "dataplane/api/admin.pb.h"

namespace weft::control {

struct ControllerOptions {
  std::string source;  // File or directory; empty: none
  std::string admin_socket;
  std::string state_dir;
  bool allow_shrink = false;
  std::optional<EtcdOptions> etcd;
  std::optional<EtcdPresenceOptions> presence;  // Only with etcd
  std::optional<PropellerOptions> propeller;
  uid_t agent_uid = 0;  // Who opens the modules of a Propeller worker
  std::optional<KubeOptions> kubernetes = std::nullopt;
};

class Controller : private AgentLinkObserver {
 public:
  // Restores the last good state, then reads the files. Errors name the path at fault.
  static absl::StatusOr<std::unique_ptr<Controller>> Create(ControllerOptions options);
  ~Controller() override;

  // The descriptors to poll, appended to `entries`; OnEvents() takes the same entries with their revents.
  void AddPollEntries(std::vector<pollfd>* entries) const;
  void OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns);
  // CLOCK_MONOTONIC time at which OnTime() wants to be called; 0: never.
  uint64_t wake_ns() const;
  void OnTime(uint64_t now_ns);

  // Rows for `weftctl status`: control itself, its sources, its last changes.
  api::QueryReply Status() const;
  // Rows for `weftctl get changes`: the oldest of those behind revision `after`, as many as one reply holds.
  api::QueryReply Changes(uint64_t after) const;
  // Rows for `weftctl explain` and `get routes`: which source said what of a call.
  api::QueryReply SaidOf(const std::string& caller, const std::string& callee) const;
  std::string Metrics() const;  // In Prometheus' text format
  std::string Summary() const;  // One line, for systemd

  const Model& model() const { return model_; }
  const AgentLink& link() const { return *link_; }
  const Record& record() const { return record_; }

 private:
  explicit Controller(ControllerOptions options);

  // A source, and the last change that it made.
  struct Watched {
    std::unique_ptr<Source> source;
    uint64_t revision = 0;    // 0: none yet
    uint64_t generation = 0;  // That took it to the agent; 0: not yet.
    // From the start until its first word was in the model, and until the agent had it; 0: not yet.
    uint64_t first_ns = 0;
    uint64_t first_programmed_ns = 0;
  };

  absl::Status Start();
  absl::Status StartPropeller(uint64_t seed);
  void Restore();
  // The first complete reading of all files: what is not there any more was removed while nobody watched.
  void TakeFirstScan(std::vector<SourceChange> changes);
  void TakeChanges(std::vector<SourceChange> changes);
  void TakeRuns();
  // Returns the origin.
  std::string Offer(SourceChange change);
  // `origins`: of what was offered since the last time.
  void Evaluate(const std::string& cause, uint64_t event_ns, const std::vector<std::string>& origins);
  bool TellErrors(const std::vector<std::string>& errors);
  void LogNotes();
  // Has the state on disk follow: soon, and no more often than it is worth.
  void SaveSoon();
  uint64_t NextSaveNs() const;  // 0: none yet
  void Save();
  static void TellSaveError(const absl::Status& error);
  std::string DescribeSources() const;
  void AddSourceRows(api::QueryReply* reply) const;

  // AgentLinkObserver
  void OnConnected() override;
  void OnDisconnected(const absl::Status& why) override;
  void OnSent(uint64_t generation, uint64_t revision, bool snapshot) override;
  void OnProgrammed(uint64_t revision, const api::Programmed& programmed) override;
  void OnRegistrations(const std::vector<api::Registrations::Host>& hosts) override;
  void OnRunEnded(const api::RunEnded& ended) override;
  void OnFunctions(const std::vector<api::Item>& functions) override;
  void OnRefused(const std::string& reason) override;

  ControllerOptions options_;
  Model model_;
  Record record_;
  uint64_t revision_ = 0;
  uint64_t refusals_ = 0;
  std::string last_problem_;               // Of the link, while it lasts; logged once.
  std::set<std::string> standing_errors_;  // Of what is held back, since the last event.
  uint64_t save_at_ns_ = 0;                // Not 0: the state on disk is older than the model.
  uint64_t saved_at_ns_ = 0;
  bool trim_ = false;  // A large change is on its way.
  uint64_t first_generation_ = 0;
  uint64_t start_ns_ = 0;
  std::unique_ptr<StateWriter> writer_;
  std::unique_ptr<HttpClient> http_;
  std::vector<Watched> sources_;
  std::unique_ptr<EtcdPresence> presence_;
  std::unique_ptr<AgentLink> link_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_DAEMON_CONTROLLER_H_
