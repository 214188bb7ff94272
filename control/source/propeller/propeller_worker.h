// SPDX-License-Identifier: Apache-2.0
// Takes part in Propeller as a proplet: registers this node with the manager, says that it lives, takes
// starts and stops, and turns each start into a placement on one host of the node, whose module is fetched
// and written to disk here. What it runs is told to the manager, and, on a topic of weft's own, to the other
// weft nodes. What it was given survives its restart. One thread, beside its MQTT client's.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_WORKER_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_WORKER_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/propeller/chunked_modules.h"
#include "control/source/propeller/function_caller.h"
#include "control/source/propeller/module_store.h"
#include "control/source/propeller/mqtt_client.h"
#include "control/source/propeller/propeller_metrics.h"
#include "control/source/propeller/propeller_tasks.h"
#include "control/source/source.h"

namespace weft::control {

struct PropellerWorkerOptions {
  MqttOptions mqtt;  // Its topics and its will are made of the rest.
  std::string base_topic;
  std::string ns = "propeller";  // Tasks are functions of it.
  std::string host;              // That runs them
  std::string proplet;           // Id at the manager; empty: the node's name
  std::string run_dir;           // Of the agent, for calls
  std::string state_dir;         // Tasks and modules are kept in a directory within.
  uid_t agent_uid = 0;           // Who opens the modules
};

class PropellerWorker final : public Source {
 public:
  // As often as Propeller's own worker.
  static constexpr uint64_t kBeatNs = 10 * kNsPerSecond;
  // After which a registry that sent no part of a module is asked for it again: what was said while its own
  // connection was away is lost.
  static constexpr uint64_t kAskAgainNs = 2 * kNsPerSecond;
  // Between two tries to make an MQTT client, as where its certificate cannot be read.
  static constexpr uint64_t kConnectAgainNs = kNsPerSecond;

  // Takes up what an earlier run was given.
  static absl::StatusOr<std::unique_ptr<PropellerWorker>> Create(PropellerWorkerOptions options);

  // Source
  void AddPollEntries(std::vector<pollfd>* entries) const override;
  std::vector<SourceChange> OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) override;
  uint64_t wake_ns() const override;
  std::vector<SourceChange> OnTime(uint64_t now_ns) override;
  bool Owns(absl::string_view origin) const override { return origin == origin_; }
  bool ReadsAtStart() const override { return false; }
  void OnAgent(const std::string& node) override;
  void OnProgrammed(const MeshState& mesh, const std::vector<std::string>& failed, bool all) override;
  void OnAgentLost() override;
  std::vector<api::RunOnce> TakeRuns() override { return std::exchange(runs_, {}); }
  void OnRunEnded(const api::RunEnded& ended) override;
  std::vector<std::string> TakeAsked() override { return std::exchange(asked_, {}); }
  void OnFunctions(const std::vector<api::Item>& functions) override;
  std::vector<std::string> TakeNotes() override { return std::exchange(notes_, {}); }
  std::string Name() const override { return origin_; }
  std::string Describe() const override;
  SourceHealth Health() const override;

 private:
  PropellerWorker(PropellerWorkerOptions options, ModuleStore modules);

  void LoadTasks(uint64_t now_ns);
  bool SaveTasks();
  void TakeEvent(const MqttEvent& event);
  void TakeMessage(const MqttEvent& event);
  void Start(PropellerCommand start);
  void TakeChunk(PropellerCommand chunk);
  bool Serves(absl::string_view module, const std::string& sha256);
  void SweepRuns();
  void StartCalls();
  void Connect();
  void AskRegistry();
  void AskAgain();
  void Begin();
  void Beat();
  void Lost(const std::string& why);
  void Note(const std::string& what);
  void Say(const std::string& topic, const std::string& payload, bool retain = false);
  void SayReport(const PropellerTasks::Report& report);
  std::vector<SourceChange> TakeChanges();

  PropellerWorkerOptions options_;
  std::string origin_;
  ModuleStore modules_;
  PropellerTasks tasks_;
  ChunkedModules chunks_;
  std::unique_ptr<MqttClient> mqtt_;  // Null until the node's name is known, and one could be made
  uint64_t connect_at_ns_ = 0;        // Of the next try to make one; 0: none
  std::string node_;
  std::string proplet_;

  bool subscribed_ = false;
  bool spoken_ = false;
  bool created_ = false;  // The manager was told of this process.
  bool due_ = false;      // Something changed outside of OnEvents() and OnTime().
  uint64_t beat_at_ns_ = 0;
  uint64_t ask_at_ns_ = 0;                       // 0: no module is waited for.
  std::vector<PropellerTasks::Report> reports_;  // Until there is a connection

  PropellerMetrics metrics_;
  std::vector<std::string> asked_;  // Functions whose counters are wanted of the agent

  std::set<std::string> run_modules_;       // That are run once, not yet removed
  std::vector<api::RunOnce> runs_;          // To be handed to the agent
  std::unique_ptr<FunctionCaller> caller_;  // Since the first invocation of a function

  uint64_t now_ns_ = 0;
  uint64_t event_ns_ = 0;  // Of the oldest message since the last change; 0: none
  uint64_t events_ = 0;
  uint64_t last_event_ns_ = 0;
  uint64_t errors_ = 0;
  uint64_t lost_ns_ = 0;
  std::string problem_;
  std::string last_note_;
  std::vector<std::string> notes_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_WORKER_H_
