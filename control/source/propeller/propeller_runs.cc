// SPDX-License-Identifier: Apache-2.0
// Tasks whose modules are run once: handed over, and what became of them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/source/propeller/module_store.h"
#include "control/source/propeller/propeller_tasks.h"
#include "dataplane/api/run_once.h"

namespace weft::control {
namespace {

// No start by the same id has the same name for its run, before a restart of this process or after: hosts may
// still be at the runs of the former one.
std::string RunOf(const std::string& task, uint64_t order, uint64_t since_ns) {
  return absl::StrCat(task, "#", order, "#", since_ns);
}

}  // namespace

std::vector<api::RunOnce> PropellerTasks::TakeRuns(
    const std::function<std::string(const std::string&)>& path_of) {
  std::vector<api::RunOnce> runs;
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    Task& task = it->second;
    if (task.phase != Phase::kToRun) {
      ++it;
      continue;
    }
    api::RunOnce run = std::exchange(task.run, {});
    run.set_run(RunOf(it->first, task.order, task.since_ns));
    run.mutable_function()->set_name(FunctionOf(task));
    run.set_host(host_);
    run.set_module(path_of(task.sha256));
    run.set_sha256(BytesOfHex(task.sha256));
    run.set_entry(task.name);
    if (const absl::Status good = CheckRunOnce(run); !good.ok()) {
      it = FailAt(it, std::string(good.message()));
      continue;
    }
    task.phase = Phase::kRunning;
    runs.push_back(std::move(run));
    ++it;
  }
  return runs;
}

void PropellerTasks::Ended(const api::RunEnded& ended) {
  const auto found = std::find_if(tasks_.begin(), tasks_.end(), [&](const auto& task) {
    const auto& [id, each] = task;
    return each.phase == Phase::kRunning && RunOf(id, each.order, each.since_ns) == ended.run();
  });
  if (found == tasks_.end()) return;  // It was stopped.
  Tell(found->first, ended.error(), ended.result());
  tasks_.erase(found);
  changed_ = true;
}

void PropellerTasks::LoseRuns(const std::string& why) {
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    it = it->second.phase == Phase::kRunning ? FailAt(it, why) : std::next(it);
  }
}

void PropellerTasks::DropRuns(const std::string& why) {
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    it = it->second.phase == Phase::kToRun ? FailAt(it, why) : std::next(it);
  }
}

}  // namespace weft::control
