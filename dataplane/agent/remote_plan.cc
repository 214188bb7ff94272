// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/remote_plan.h"

#include "absl/strings/str_cat.h"

namespace weft::agent {
namespace {

std::string ZoneOf(const Model& model, const std::string& node) {
  const auto found = model.nodes().find(node);
  return found == model.nodes().end() ? "" : found->second.zone();
}

}  // namespace

RemotePlan::RemotePlan(const Model& model, const EngineState& state, const std::string& self,
                       const Session* host)
    : model_(model), zone_(ZoneOf(model, self)) {
  const Session* const inside = host == nullptr ? nullptr : state.Find(host->inside);
  if (inside != nullptr) ways_.push_back({inside->id, &inside->nodes_up});
  if (state.engine != 0) ways_.push_back({state.engine, &state.nodes_up});
}

bool RemotePlan::Add(const EndpointKey& key, const api::Endpoint& endpoint) {
  const bool draining = endpoint.state() == api::ENDPOINT_DRAINING;
  for (const Way& way : ways_) {
    // The engine inside its host there, where it has one, or else its node's.
    for (const std::string& end : {absl::StrCat(key.node, "/", key.host), key.node}) {
      if (!way.up->contains(end)) continue;
      (draining ? draining_ : ready_)[{way.engine, end}] += endpoint.weight();
      return true;
    }
  }
  return false;
}

void RemotePlan::Choose(FunctionPlan* plan) const {
  plan->remote = Targets(plan->none_ready && ready_.empty() ? draining_ : ready_);
  plan->leaves = plan->none_ready && !ready_.empty();
}

std::vector<PlanTarget> RemotePlan::Targets(const Weights& ends) const {
  std::vector<PlanTarget> targets;
  for (const auto& [end, weight] : ends) {
    const std::string node = end.second.substr(0, end.second.find('/'));
    const bool same_zone = !zone_.empty() && ZoneOf(model_, node) == zone_;
    targets.push_back({end.first, weight, end.second, same_zone ? kSameZone : kElsewhere});
  }
  return targets;
}

}  // namespace weft::agent
