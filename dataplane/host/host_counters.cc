// SPDX-License-Identifier: Apache-2.0
// What weft-host counts, as it tells the agent.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/api/function_stats.h"
#include "dataplane/host/host_program.h"

namespace weft::host {

void HostProgram::AddCounters(const std::function<void(absl::string_view, uint64_t)>& add) {
  FunctionCounters sum;
  for (const std::unique_ptr<Function>& function : host_->functions()) {
    const FunctionCounters& one = function->counters();
    sum.calls += one.calls;
    sum.plain_calls += one.plain_calls;
    sum.direct_calls += one.direct_calls;
    sum.faults += one.faults;
    sum.time_limits += one.time_limits;
    sum.demotions += one.demotions;
    sum.resets += one.resets;
    sum.resets_on_path += one.resets_on_path;
    sum.queued += one.queued;
    sum.refused += one.refused;
  }
  add("guest_calls", sum.calls);
  add("guest_plain_calls", sum.plain_calls);
  add("guest_direct_calls", sum.direct_calls);
  add("guest_faults", sum.faults);
  add("guest_time_limits", sum.time_limits);
  add("guest_demotions", sum.demotions);
  add("resets", sum.resets);
  add("resets_on_path", sum.resets_on_path);
  add("guest_queued", sum.queued);
  add("guest_refused", sum.refused);
  add("guest_log_dropped", log_dropped_);
}

// One that leaves and the one in its place are told together.
std::vector<api::FunctionStats> HostProgram::Functions() {
  std::map<absl::string_view, api::FunctionStats> by_name;
  for (const std::unique_ptr<Function>& function : host_->functions()) {
    const FunctionCounters& counters = function->counters();
    uint64_t instances = 0;
    const uint64_t memory_bytes = function->MemoryBytes(&instances);
    api::FunctionStats one;
    one.set_calls(counters.calls);
    one.set_failures(counters.failures);
    one.set_bytes_in(counters.bytes_in);
    one.set_bytes_out(counters.bytes_out);
    one.set_handler_ns(counters.time.ns());
    one.set_memory_bytes(memory_bytes);
    one.set_instances(instances);
    api::AddFunctionStats(one, &by_name[function->name()]);
  }
  std::vector<api::FunctionStats> all;
  for (auto& [name, stats] : by_name) {
    stats.set_function(std::string(name));
    all.push_back(std::move(stats));
  }
  return all;
}

}  // namespace weft::host
