// SPDX-License-Identifier: Apache-2.0
// The tasks that Propeller's manager gave to this node, and the placements that follow. A task is fetched,
// placed and then ready; one that was stopped drains. While it comes or goes its endpoint is draining: other
// nodes learn of it meanwhile, so that they know a caller before it calls, and until it has called its last.
// Of several tasks of one name the newest gives the module. A task whose module serves no calls is run once
// instead, at most once whatever restarts: that it begins is saved before it does. An invocation runs a
// latent one, and calls one that serves; of them nothing is saved: a restart forgets them. Pure: commands,
// outcomes and time come in. One thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_TASKS_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_TASKS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "control/model/mesh_state.h"
#include "control/model/offer.h"
#include "control/source/propeller/function_caller.h"
#include "control/source/propeller/propeller_commands.h"
#include "control/source/propeller/propeller_metrics.h"
#include "dataplane/api/run.pb.h"
#include "dataplane/base/clock.h"

namespace weft::control {

class PropellerTasks {
 public:
  static constexpr std::size_t kTasksMax = 256;
  // From the start, or from the module, to the agent's word; as long as Propeller's own worker waits.
  static constexpr uint64_t kPatienceNs = 60 * kNsPerSecond;
  // What other nodes get to learn of a placement before calls go there, and after the last went there.
  static constexpr uint64_t kSettleNs = 500 * kNsPerMs;
  static constexpr uint64_t kDrainNs = 2 * kNsPerSecond;
  static constexpr std::size_t kReportsMax = 1'000;
  static constexpr std::size_t kInvocationsMax = 256;
  // Of as many invocations it is known that they were heard: a broker may say one twice.
  static constexpr std::size_t kHeardMax = 1'024;
  static constexpr std::size_t kPayloadBytesMax = std::size_t{1} << 20;

  struct Report {
    std::string task;
    std::string error;    // Empty: it runs, or has ended well.
    std::string results;  // Of one that was run once
    PropellerUsage usage;
    bool invoked = false;  // It is of an invocation:
    std::string invocation;
  };

  PropellerTasks(std::string ns, std::string host) : ns_(std::move(ns)), host_(std::move(host)) {}

  // A start. Returns whether its module is to come: by Module(), or by Fail().
  bool Start(const PropellerCommand& start, uint64_t now_ns);
  // The module of all tasks that wait for `image`, or of the task `task`. `serves`: it serves calls; else it
  // is run once.
  void Module(const std::string& image, const std::string& sha256, bool serves, uint64_t now_ns);
  void ModuleOf(const std::string& task, const std::string& sha256, bool serves, uint64_t now_ns);
  void Stop(const std::string& task, uint64_t now_ns);
  // Of a task that serves, or of a latent one that is run once. A report follows, unless it was heard before.
  void Invoke(const PropellerCommand& invoke, uint64_t now_ns);
  void Fail(const std::string& task, const std::string& error);
  // Those that still wait for `image`.
  void FailImage(const std::string& image, const std::string& error);
  // Who waits for a module waits anew: the registry was asked again.
  void WaitAnew(uint64_t now_ns);

  // What is to be run once since the last call, once it is saved that it begins; `path_of` tells where a
  // module lies. Each is answered by Ended(), or all by LoseRuns().
  std::vector<api::RunOnce> TakeRuns(const std::function<std::string(const std::string&)>& path_of);
  void Ended(const api::RunEnded& ended);
  void LoseRuns(const std::string& why);
  // That they begin could not be saved: they do not.
  void DropRuns(const std::string& why);

  // Calls of functions that were asked for since the last time. Each is answered by CallEnded().
  std::vector<FunctionCall> TakeCalls() { return std::exchange(to_call_, {}); }
  void CallEnded(const FunctionCallEnded& ended);

  // The agent's word, as Source::OnProgrammed() has it.
  void OnProgrammed(const std::string& node, const MeshState& mesh, const std::vector<std::string>& failed,
                    bool all, uint64_t now_ns);
  void OnTime(uint64_t now_ns);
  uint64_t wake_ns() const;  // CLOCK_MONOTONIC; 0: never

  // Modules that some task waits for.
  std::set<std::string> Images() const;
  // Modules that some task needs.
  std::set<std::string> Modules() const;
  std::vector<PropellerPlacement> Placements() const;
  // Those that calls go to, and whose metrics are wanted.
  std::vector<PropellerMeasured> Measured() const;
  // Endpoints on `node`; `path_of` tells where a module lies.
  std::vector<api::Endpoint> Endpoints(const std::string& node,
                                       const std::function<std::string(const std::string&)>& path_of) const;
  // Whether endpoints, or what is to be saved, may be others since the last call.
  bool TakeChanged() { return std::exchange(changed_, false); }
  std::vector<Report> TakeReports() { return std::exchange(reports_, {}); }
  std::size_t size() const { return tasks_.size(); }

  // For the next run. Load() takes the modules that `check` finds good; the other tasks have failed.
  std::string Save() const;
  absl::Status Load(absl::string_view text, const std::function<absl::Status(const std::string&)>& check,
                    uint64_t now_ns);

 private:
  enum class Phase : uint8_t { kFetching, kPlacing, kReady, kDraining, kToRun, kRunning, kLatent };
  struct Task {
    std::string name;
    std::string image;   // While it is fetched
    std::string sha256;  // Of the module; empty while it is fetched
    Phase phase = Phase::kFetching;
    bool placed = false;     // The agent says so, and no other module was to take its place since.
    bool served = false;     // Of one that drains: it was placed once.
    bool arguments = false;  // `run` holds some.
    bool latent = false;
    bool monitored = false;
    uint64_t interval_ns = 0;
    api::RunOnce run;  // Of one that is run once, what its start said. Not saved: it may hold secrets.
    uint64_t order = 0;
    uint64_t since_ns = 0;  // In this phase
  };
  using Tasks = std::map<std::string, Task>;

  void Tell(Report report);
  void Tell(const std::string& task, const std::string& error) { Tell(ReportOf(task, error)); }
  static Report ReportOf(const std::string& task, const std::string& error);
  // That it is to run, or does, is saved.
  static bool HasBegun(const Task& task) {
    return task.phase == Phase::kToRun || task.phase == Phase::kRunning;
  }
  // Its module serves no calls.
  static bool RunsOnce(const Task& task) { return HasBegun(task) || task.phase == Phase::kLatent; }
  static absl::Status SetInputs(const std::vector<std::string>& inputs, api::RunOnce* run);
  // What is the same for all runs of a task; its path is not known here.
  void FillRun(const std::string& id, const Task& task, uint64_t order, uint64_t now_ns,
               api::RunOnce* run) const;
  absl::Status NewInvocation(const PropellerCommand& invoke, uint64_t now_ns);
  absl::Status NewCall(const PropellerCommand& invoke, const Task& task, Report report);
  bool HeardBefore(const PropellerCommand& invoke);
  Tasks::iterator FailAt(Tasks::iterator task, const std::string& error);
  // When OnTime() has something to do for it.
  uint64_t DueNs(const Task& task) const;
  // Newest last
  std::vector<const Task*> InOrder() const;
  std::string FunctionOf(const Task& task) const;

  std::string ns_;
  std::string host_;
  Tasks tasks_;  // By id
  uint64_t orders_ = 0;
  bool changed_ = false;
  std::vector<Report> reports_;
  std::map<std::string, Report> invocations_;  // That run, or are to: by the names of their runs
  std::vector<api::RunOnce> invoked_;          // To be taken, each with its module's hash for a path
  std::map<std::string, Report> called_;       // Calls under way, by their names
  std::vector<FunctionCall> to_call_;
  std::set<std::string> heard_;
  std::deque<std::string> heard_in_order_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_TASKS_H_
