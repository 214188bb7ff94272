// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/propeller_tasks.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/source/propeller/module_store.h"
#include "dataplane/api/run_once.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/text.h"

namespace weft::control {
namespace {

// What an id begins with that drains while a start by the same id comes: no label begins so.
constexpr char kFormer[] = "~";
// Errors may quote what came.
constexpr std::size_t kErrorBytesMax = 500;

}  // namespace

std::string PropellerTasks::FunctionOf(const Task& task) const { return absl::StrCat(ns_, "/", task.name); }

PropellerTasks::Report PropellerTasks::ReportOf(const std::string& task, const std::string& error) {
  Report report;
  report.task = task;
  report.error = error;
  return report;
}

void PropellerTasks::Tell(Report report) {
  if (reports_.size() >= kReportsMax) return;
  report.error = std::string(Utf8Prefix(report.error, kErrorBytesMax));
  reports_.push_back(std::move(report));
}

PropellerTasks::Tasks::iterator PropellerTasks::FailAt(Tasks::iterator task, const std::string& error) {
  Tell(task->first, error);
  changed_ = true;
  return tasks_.erase(task);
}

bool PropellerTasks::Start(const PropellerCommand& start, uint64_t now_ns) {
  const auto found = tasks_.find(start.task);
  if (found != tasks_.end() && found->second.phase != Phase::kDraining) {
    // Said again, or heard again. Who asks may not know yet that it runs.
    if (found->second.phase == Phase::kReady) Tell(start.task, "");
    return false;
  }
  absl::Status status = CheckLabel(start.task, "task");
  if (status.ok()) status = CheckFunctionName(absl::StrCat(ns_, "/", start.name));
  if (status.ok() && !start.refusal.empty()) status = absl::UnimplementedError(start.refusal);
  if (status.ok() && tasks_.size() >= kTasksMax) {
    status = absl::ResourceExhaustedError(absl::StrCat("this node has ", kTasksMax, " tasks already"));
  }
  api::RunOnce run;
  if (status.ok()) {
    for (const std::string& arg : start.args) run.add_args(arg);
    for (const std::string& variable : start.env) run.add_env(variable);
    status = SetInputs(start.inputs, &run);
    if (status.ok()) status = CheckRunGiven(run);
  }
  if (!status.ok()) {
    Tell(start.task, std::string(status.message()));
    return false;
  }
  if (found != tasks_.end()) {
    tasks_.insert_or_assign(kFormer + start.task, found->second);
    tasks_.erase(found);
  }
  Task& task = tasks_[start.task];
  task.name = start.name;
  task.image = start.image;
  task.order = ++orders_;
  task.since_ns = now_ns;
  task.arguments = start.HasArguments();
  task.latent = start.latent;
  task.monitored = start.monitored;
  task.interval_ns = start.interval_ns;
  task.run = std::move(run);
  changed_ = true;
  return true;
}

void PropellerTasks::Module(const std::string& image, const std::string& sha256, bool serves,
                            uint64_t now_ns) {
  std::vector<std::string> waiting;
  for (const auto& [id, task] : tasks_) {
    if (task.phase == Phase::kFetching && task.image == image) waiting.push_back(id);
  }
  for (const std::string& id : waiting) ModuleOf(id, sha256, serves, now_ns);
}

void PropellerTasks::ModuleOf(const std::string& id, const std::string& sha256, bool serves,
                              uint64_t now_ns) {
  const auto found = tasks_.find(id);
  if (found == tasks_.end() || found->second.phase != Phase::kFetching) return;
  Task& task = found->second;
  // Nothing of a function's caller reaches it but its request; what would be ignored is refused.
  if (serves && task.arguments) {
    const char* what = task.run.env_size() != 0 ? "env" : task.run.args_size() != 0 ? "cli_args" : "inputs";
    FailAt(found, absl::StrCat(what, ": a function of weft takes none, callers send requests"));
    return;
  }
  task.image.clear();
  task.sha256 = sha256;
  task.phase = serves ? Phase::kPlacing : task.latent ? Phase::kLatent : Phase::kToRun;
  task.since_ns = now_ns;
  changed_ = true;
  if (!serves) return;
  for (auto next = tasks_.begin(); next != tasks_.end();) {
    const auto other = next++;  // It may go.
    const auto& [other_id, each] = *other;
    if (other == found || each.name != task.name || each.sha256.empty() || RunsOnce(each)) continue;
    if (each.sha256 == sha256) {
      task.placed |= each.placed;
      continue;
    }
    if (each.order > task.order && each.phase != Phase::kDraining) {
      FailAt(found, absl::StrCat("task ", other_id, " of the same name is newer"));
      return;
    }
    if (each.phase == Phase::kPlacing) {
      FailAt(other, absl::StrCat("task ", id, " of the same name is newer"));
    }
  }
  // Those the agent is to place anew, should they be wanted again.
  for (auto& [other_id, each] : tasks_) {
    if (each.name == task.name && each.sha256 != sha256) each.placed = false;
  }
}

void PropellerTasks::Stop(const std::string& id, uint64_t now_ns) {
  const auto found = tasks_.find(id);
  if (found == tasks_.end() || found->second.phase == Phase::kDraining) return;
  changed_ = true;
  const bool goes_on = std::any_of(tasks_.begin(), tasks_.end(), [&](const auto& other) {
    const Task& each = other.second;
    return other.first != id && each.name == found->second.name &&
           (each.phase == Phase::kPlacing || each.phase == Phase::kReady);
  });
  // What is run once goes on to its end at the host, and nobody is told of that.
  if (goes_on || found->second.phase == Phase::kFetching || RunsOnce(found->second)) {
    tasks_.erase(found);
    return;
  }
  found->second.served = found->second.placed || found->second.phase == Phase::kReady;
  found->second.phase = Phase::kDraining;
  found->second.since_ns = now_ns;
}

void PropellerTasks::Fail(const std::string& id, const std::string& error) {
  if (const auto found = tasks_.find(id); found != tasks_.end()) FailAt(found, error);
}

void PropellerTasks::FailImage(const std::string& image, const std::string& error) {
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    const bool waits = it->second.phase == Phase::kFetching && it->second.image == image;
    it = waits ? FailAt(it, error) : std::next(it);
  }
}

void PropellerTasks::WaitAnew(uint64_t now_ns) {
  for (auto& [id, task] : tasks_) {
    if (task.phase == Phase::kFetching) task.since_ns = now_ns;
  }
}

void PropellerTasks::OnProgrammed(const std::string& node, const MeshState& mesh,
                                  const std::vector<std::string>& failed, bool all, uint64_t now_ns) {
  // The agent names so many failures and counts the rest.
  const bool complete = failed.empty() || !absl::StartsWith(failed.back(), "and ");
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    Task& task = it->second;
    // Also one that is ready or drains: where it is started again while its endpoint stands, the agent says
    // nothing more of it.
    if (task.sha256.empty() || RunsOnce(task)) {
      ++it;
      continue;
    }
    const bool placing = task.phase == Phase::kPlacing;
    const bool drains = task.phase == Phase::kDraining;
    const std::string what = absl::StrCat(FunctionOf(task), " on host ", host_, ": ");
    const auto failure = std::find_if(failed.begin(), failed.end(),
                                      [&](const std::string& each) { return absl::StartsWith(each, what); });
    if (failure != failed.end()) {
      if (placing) {
        it = FailAt(it, *failure);
      } else if (drains && !task.served) {
        // Nothing of it is there to drain, and a start by its module is to be tried anew.
        changed_ = true;
        it = tasks_.erase(it);
      } else {
        ++it;
      }
      continue;
    }
    if (all && complete) {
      const EntryPtr endpoint = mesh.Find(EndpointKey(FunctionOf(task), node, host_));
      task.placed =
          endpoint != nullptr && MessageOf<api::Endpoint>(*endpoint).sha256() == BytesOfHex(task.sha256);
      task.served |= drains && task.placed;
      if (!task.placed && placing) {
        it = FailAt(it, absl::StrCat(what, "what stands in the mesh is not this module (weftctl status)"));
        continue;
      }
    }
    ++it;
  }
  OnTime(now_ns);
}

uint64_t PropellerTasks::DueNs(const Task& task) const {
  switch (task.phase) {
    case Phase::kFetching:
      return task.since_ns + kPatienceNs;
    case Phase::kPlacing:
      return task.since_ns + (task.placed ? kSettleNs : kPatienceNs);
    case Phase::kDraining:
      return task.since_ns + kDrainNs;
    case Phase::kReady:
    case Phase::kLatent:
    case Phase::kToRun:
    case Phase::kRunning:  // The agent tells of its end in any case, or is gone.
      break;
  }
  return 0;
}

void PropellerTasks::OnTime(uint64_t now_ns) {
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    Task& task = it->second;
    const uint64_t due_ns = DueNs(task);
    if (due_ns == 0 || now_ns < due_ns) {
      ++it;
    } else if (task.phase == Phase::kFetching) {
      it = FailAt(it, absl::StrCat("its module, ", task.image, ", did not come whole from the registry"));
    } else if (task.phase == Phase::kDraining) {
      it = tasks_.erase(it);
      changed_ = true;
    } else if (!task.placed) {
      it = FailAt(it, "the agent of this node did not take it in time");
    } else {
      task.phase = Phase::kReady;
      changed_ = true;
      Tell(it->first, "");
      ++it;
    }
  }
}

uint64_t PropellerTasks::wake_ns() const {
  uint64_t wake_ns = 0;
  for (const auto& [id, task] : tasks_) {
    const uint64_t due_ns = DueNs(task);
    if (due_ns != 0 && (wake_ns == 0 || due_ns < wake_ns)) wake_ns = due_ns;
  }
  return wake_ns;
}

std::set<std::string> PropellerTasks::Images() const {
  std::set<std::string> images;
  for (const auto& [id, task] : tasks_) {
    if (task.phase == Phase::kFetching && !task.image.empty()) images.insert(task.image);
  }
  return images;
}

std::set<std::string> PropellerTasks::Modules() const {
  std::set<std::string> modules;
  for (const auto& [id, task] : tasks_) {
    if (!task.sha256.empty()) modules.insert(task.sha256);
  }
  return modules;
}

std::vector<PropellerPlacement> PropellerTasks::Placements() const {
  std::vector<PropellerPlacement> placements;
  for (const auto& [id, task] : tasks_) {
    if (task.sha256.empty() || RunsOnce(task)) continue;
    placements.push_back({id, task.name, task.phase == Phase::kReady});
  }
  return placements;
}

std::vector<PropellerMeasured> PropellerTasks::Measured() const {
  std::vector<PropellerMeasured> measured;
  for (const auto& [id, task] : tasks_) {
    if (task.phase == Phase::kReady && task.monitored)
      measured.push_back({id, FunctionOf(task), task.interval_ns});
  }
  return measured;
}

std::vector<const PropellerTasks::Task*> PropellerTasks::InOrder() const {
  std::vector<const Task*> tasks;
  for (const auto& [id, task] : tasks_) tasks.push_back(&task);
  std::sort(tasks.begin(), tasks.end(), [](const Task* a, const Task* b) { return a->order < b->order; });
  return tasks;
}

std::vector<api::Endpoint> PropellerTasks::Endpoints(
    const std::string& node, const std::function<std::string(const std::string&)>& path_of) const {
  struct Chosen {
    const Task* task = nullptr;
    bool ready = false;
  };
  std::map<std::string, Chosen> functions;
  for (const Task* task : InOrder()) {
    if (task->sha256.empty() || RunsOnce(*task)) continue;
    Chosen& chosen = functions[FunctionOf(*task)];
    chosen.ready |= task->phase == Phase::kReady;
    const bool worse =
        chosen.task != nullptr && chosen.task->phase != Phase::kDraining && task->phase == Phase::kDraining;
    if (!worse) chosen.task = task;
  }
  std::vector<api::Endpoint> endpoints;
  for (const auto& [function, chosen] : functions) {
    api::Endpoint& endpoint = endpoints.emplace_back();
    endpoint.set_function(function);
    endpoint.set_node(node);
    endpoint.set_host(host_);
    endpoint.set_weight(100);
    endpoint.set_module(path_of(chosen.task->sha256));
    endpoint.set_sha256(BytesOfHex(chosen.task->sha256));
    endpoint.set_state(chosen.ready ? api::ENDPOINT_READY : api::ENDPOINT_DRAINING);
  }
  return endpoints;
}

}  // namespace weft::control
