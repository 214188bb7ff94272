// SPDX-License-Identifier: Apache-2.0
// PropellerState: the proplets, and those among them that are weft's workers.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "control/source/propeller/propeller_state.h"
#include "dataplane/base/function_id.h"

namespace weft::control {
namespace {

constexpr std::size_t kWorkerFunctionsMax = 1'000;

}  // namespace

void PropellerState::Runs(const PropellerMessage& message, uint64_t now_ns) {
  Worker worker{message.node, message.host, {}};
  absl::Status status = absl::OkStatus();
  if (!worker.node.empty()) status = CheckLabel(worker.node, "node");
  if (status.ok() && !worker.node.empty()) status = CheckLabel(worker.host, "host");
  for (const PropellerPlacement& each : message.placements) {
    if (status.ok()) status = CheckFunctionName(absl::StrCat(ns_, "/", each.name));
    worker.functions[each.name] |= each.ready;
  }
  if (status.ok() && worker.functions.size() > kWorkerFunctionsMax) {
    status = absl::ResourceExhaustedError(absl::StrCat("more than ", kWorkerFunctionsMax, " functions"));
  }
  if (status.ok() && !HasRoomFor(message.proplet, worker)) {
    status = absl::ResourceExhaustedError(absl::StrCat("more than ", kTasksMax, " functions of all workers"));
  }
  if (!status.ok()) {
    Refuse(message.proplet, absl::StrCat("worker ", message.proplet, ": ", status.message()));
    return;
  }
  refused_.erase(message.proplet);
  if (worker.node.empty()) {
    all_changed_ |= workers_.erase(message.proplet) != 0;
    return;
  }
  Saw(message.proplet, now_ns);
  if (!proplets_.contains(message.proplet)) return;
  // One that left without a farewell and began anew has another id, and what it says now is all that it runs.
  all_changed_ |= std::erase_if(workers_, [&](const auto& entry) {
                    return entry.first != message.proplet && entry.second.node == worker.node &&
                           entry.second.host == worker.host;
                  }) != 0;
  Worker& known = workers_[message.proplet];
  all_changed_ |= known != worker;
  known = std::move(worker);
}

// One that says the same again, as each does with its beats, has its room.
bool PropellerState::HasRoomFor(const std::string& proplet, const Worker& worker) const {
  const auto known = workers_.find(proplet);
  if (known != workers_.end() && known->second.functions.size() >= worker.functions.size()) return true;
  std::size_t functions = worker.functions.size();
  for (const auto& [id, each] : workers_) functions += id == proplet ? 0 : each.functions.size();
  return functions <= kTasksMax;
}

void PropellerState::AddWorkers(SourceMesh* mesh) const {
  for (const auto& [id, worker] : workers_) {
    const auto proplet = proplets_.find(id);
    if (worker.node == node_ || proplet == proplets_.end() || proplet->second.dead) continue;
    for (const auto& [name, ready] : worker.functions) {
      Said<api::Endpoint> endpoint;
      endpoint.value.set_function(absl::StrCat(ns_, "/", name));
      endpoint.value.set_node(worker.node);
      endpoint.value.set_host(worker.host);
      endpoint.value.set_weight(100);
      if (!ready) endpoint.value.set_state(api::ENDPOINT_DRAINING);
      endpoint.implied = true;
      mesh->endpoints.push_back(std::move(endpoint));
    }
  }
}

void PropellerState::Saw(const std::string& id, uint64_t now_ns) {
  if (const absl::Status status = CheckLabel(id, "proplet"); !status.ok()) {
    Refuse(id, absl::StrCat("proplet ", status.message()));
    return;
  }
  if (!proplets_.contains(id) && !HasRoomForProplet(now_ns)) {
    Refuse(id, absl::StrCat("proplet ", id, ": more than ", kPropletsMax, " proplets"));
    return;
  }
  const auto [proplet, fresh] = proplets_.try_emplace(id);
  proplet->second.seen_ns = now_ns;
  if (fresh || proplet->second.dead) {
    all_changed_ = true;
    const uint64_t at_ns = now_ns + kSilenceNsMax;
    silence_at_ns_ = silence_at_ns_ == 0 ? at_ns : std::min(silence_at_ns_, at_ns);
  }
  proplet->second.dead = false;
  wants_list_ |= fresh && proplet->second.ip.empty();  // It was created before we listened.
}

bool PropellerState::HasRoomForProplet(uint64_t now_ns) {
  if (proplets_.size() >= forget_at_) ForgetGone(now_ns, kForgetNs, kForgetWorkerNs);
  if (proplets_.size() < kPropletsMax) return true;
  // Looks at all of them: not for each that comes.
  if (now_ns < make_room_at_ns_) return false;
  make_room_at_ns_ = now_ns + kNsPerSecond;
  ForgetGone(now_ns, 0, kForgetNs);
  return proplets_.size() < kPropletsMax;
}

void PropellerState::ForgetGone(uint64_t now_ns, uint64_t quiet_ns, uint64_t worker_quiet_ns) {
  std::set<absl::string_view> needed;
  for (const auto& [id, task] : tasks_) {
    for (const auto& [proplet, replica] : task.replicas) needed.insert(proplet);
  }
  // Dead ones are not said to serve: nothing changes with them.
  std::erase_if(workers_, [&](const auto& entry) {
    const auto proplet = proplets_.find(entry.first);
    return proplet == proplets_.end() ||
           (proplet->second.dead && now_ns >= proplet->second.seen_ns + worker_quiet_ns);
  });
  std::erase_if(proplets_, [&](const auto& entry) {
    const auto& [id, proplet] = entry;
    return proplet.dead && now_ns >= proplet.seen_ns + quiet_ns && !needed.contains(id) &&
           !workers_.contains(id);
  });
  forget_at_ = std::max(kForgetAtMin, 2 * proplets_.size());
}

}  // namespace weft::control
