// SPDX-License-Identifier: Apache-2.0
// Tasks whose modules are run once, and invocations: runs of latent ones, and calls of those that serve;
// handed over, and what became of them.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
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

// In place of one of the same name.
void SetVariable(const std::string& variable, api::RunOnce* run) {
  const absl::string_view name = absl::string_view(variable).substr(0, variable.find('=') + 1);
  for (std::string& each : *run->mutable_env()) {
    if (!absl::StartsWith(each, name)) continue;
    each = variable;
    return;
  }
  run->add_env(variable);
}

// One is the request as it is; of several it is the list of them, so that none is taken apart at the wrong
// place.
std::string PayloadOf(const std::vector<std::string>& inputs) {
  if (inputs.empty()) return "";
  return inputs.size() == 1
             ? inputs[0]
             : nlohmann::json(inputs).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

absl::Status PropellerTasks::SetInputs(const std::vector<std::string>& inputs, api::RunOnce* run) {
  run->clear_inputs();
  for (const std::string& input : inputs) {
    int64_t number = 0;
    uint64_t large = 0;
    if (!absl::SimpleAtoi(input, &number)) {
      if (!absl::SimpleAtoi(input, &large))
        return absl::InvalidArgumentError("inputs: holds what is no integer");
      number = static_cast<int64_t>(large);  // The same bits
    }
    run->add_inputs(number);
  }
  return absl::OkStatus();
}

void PropellerTasks::FillRun(const std::string& id, const Task& task, uint64_t order, uint64_t now_ns,
                             api::RunOnce* run) const {
  run->set_run(RunOf(id, order, now_ns));
  run->mutable_function()->set_name(FunctionOf(task));
  run->set_host(host_);
  run->set_sha256(BytesOfHex(task.sha256));
  run->set_entry(task.name);
}

std::vector<api::RunOnce> PropellerTasks::TakeRuns(
    const std::function<std::string(const std::string&)>& path_of) {
  std::vector<api::RunOnce> runs = std::exchange(invoked_, {});
  for (api::RunOnce& run : runs) run.set_module(path_of(run.module()));
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    Task& task = it->second;
    if (task.phase != Phase::kToRun) {
      ++it;
      continue;
    }
    api::RunOnce run = std::exchange(task.run, {});
    FillRun(it->first, task, task.order, task.since_ns, &run);
    run.set_module(path_of(task.sha256));
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

bool PropellerTasks::HeardBefore(const PropellerCommand& invoke) {
  if (invoke.invocation.empty()) return false;
  const std::string name = absl::StrCat(invoke.task, "#", invoke.invocation);
  if (!heard_.insert(name).second) return true;
  heard_in_order_.push_back(name);
  if (heard_in_order_.size() > kHeardMax) {
    heard_.erase(heard_in_order_.front());
    heard_in_order_.pop_front();
  }
  return false;
}

void PropellerTasks::Invoke(const PropellerCommand& invoke, uint64_t now_ns) {
  if (HeardBefore(invoke)) return;
  const absl::Status status = NewInvocation(invoke, now_ns);
  if (status.ok()) return;
  Report report = ReportOf(invoke.task, std::string(status.message()));
  report.invoked = true;
  report.invocation = invoke.invocation;
  Tell(std::move(report));
}

absl::Status PropellerTasks::NewInvocation(const PropellerCommand& invoke, uint64_t now_ns) {
  const auto found = tasks_.find(invoke.task);
  if (found == tasks_.end() || found->second.phase == Phase::kFetching) {
    // Propeller's manager starts it anew where it reads these words.
    return absl::NotFoundError(absl::StrCat("task ", invoke.task, " has not been precompiled here"));
  }
  const Task& task = found->second;
  if (RunsOnce(task) && task.phase != Phase::kLatent)
    return absl::FailedPreconditionError("it is no latent task");
  if (!invoke.refusal.empty()) return absl::InvalidArgumentError(invoke.refusal);
  if (invocations_.size() + called_.size() >= kInvocationsMax) {
    return absl::ResourceExhaustedError(absl::StrCat("it has ", kInvocationsMax, " invocations already"));
  }
  Report report = ReportOf(invoke.task, "");
  report.invoked = true;
  report.invocation = invoke.invocation;
  if (!RunsOnce(task)) return NewCall(invoke, task, std::move(report));
  api::RunOnce run = task.run;
  if (!invoke.inputs.empty()) {
    if (absl::Status good = SetInputs(invoke.inputs, &run); !good.ok()) return good;
  }
  for (const std::string& variable : invoke.env) SetVariable(variable, &run);
  FillRun(found->first, task, ++orders_, now_ns, &run);
  run.set_module(task.sha256);
  if (absl::Status good = CheckRunOnce(run); !good.ok()) return good;
  invocations_.emplace(run.run(), std::move(report));
  invoked_.push_back(std::move(run));
  return absl::OkStatus();
}

absl::Status PropellerTasks::NewCall(const PropellerCommand& invoke, const Task& task, Report report) {
  if (task.phase != Phase::kReady)
    return absl::UnavailableError("it comes or goes: it is not to be called now");
  if (!invoke.env.empty() || !invoke.args.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(invoke.env.empty() ? "cli_args" : "env",
                                                   ": a function of weft takes none, only a request"));
  }
  FunctionCall call;
  call.id = absl::StrCat(invoke.task, "#", ++orders_);
  call.function = FunctionOf(task);
  call.payload = PayloadOf(invoke.inputs);
  if (call.payload.size() > kPayloadBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("inputs: have more than ", kPayloadBytesMax, " bytes"));
  }
  called_.emplace(call.id, std::move(report));
  to_call_.push_back(std::move(call));
  return absl::OkStatus();
}

void PropellerTasks::CallEnded(const FunctionCallEnded& ended) {
  auto called = called_.extract(ended.id);
  if (called.empty()) return;
  Report& report = called.mapped();
  if (ended.status.ok()) {
    report.results = ended.reply;
  } else {
    report.error = absl::StrCat(absl::StatusCodeToString(ended.status.code()), ": ", ended.status.message());
  }
  Tell(std::move(report));
}

void PropellerTasks::Ended(const api::RunEnded& ended) {
  if (auto invoked = invocations_.extract(ended.run()); !invoked.empty()) {
    Report& report = invoked.mapped();
    report.error = ended.error();
    report.results = ended.result();
    return Tell(std::move(report));
  }
  const auto found = std::find_if(tasks_.begin(), tasks_.end(), [&](const auto& task) {
    const auto& [id, each] = task;
    return each.phase == Phase::kRunning && RunOf(id, each.order, each.since_ns) == ended.run();
  });
  if (found == tasks_.end()) return;  // It was stopped.
  Report report = ReportOf(found->first, ended.error());
  report.results = ended.result();
  if (found->second.monitored) {
    report.usage = {ended.cpu_ns(), ended.elapsed_ns(), ended.memory_bytes(), ended.elapsed_ns(), {}};
  }
  Tell(std::move(report));
  tasks_.erase(found);
  changed_ = true;
}

void PropellerTasks::LoseRuns(const std::string& why) {
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    it = it->second.phase == Phase::kRunning ? FailAt(it, why) : std::next(it);
  }
  for (auto& [run, report] : std::exchange(invocations_, {})) {
    Report lost = report;
    lost.error = why;
    Tell(std::move(lost));
  }
  invoked_.clear();
}

void PropellerTasks::DropRuns(const std::string& why) {
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    it = it->second.phase == Phase::kToRun ? FailAt(it, why) : std::next(it);
  }
}

}  // namespace weft::control
