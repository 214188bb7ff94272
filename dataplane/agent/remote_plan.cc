// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/remote_plan.h"

#include <optional>

#include "absl/strings/str_cat.h"

namespace weft::agent {
namespace {

std::string ZoneOf(const Model& model, const std::string& node) {
  const auto found = model.nodes().find(node);
  return found == model.nodes().end() ? "" : found->second.zone();
}

}  // namespace

RemotePlan::RemotePlan(const Model& model, const EngineState& state, const std::string& self,
                       const std::string& function, const Session* host)
    : model_(model), state_(state), zone_(ZoneOf(model, self)), hints_(model, function, self, zone_) {
  const Session* const inside = host == nullptr ? nullptr : state.Find(host->inside);
  if (inside != nullptr) ways_.push_back({inside->id, &inside->nodes_up});
  if (state.engine != 0) ways_.push_back({state.engine, &state.nodes_up});
}

bool RemotePlan::Add(const EndpointKey& key, const api::Endpoint& endpoint) {
  if (Gone(key)) return false;
  const bool draining = Drains(key, endpoint);
  for (const Way& way : ways_) {
    // The engine inside its host there, where it has one, or else its node's.
    for (const std::string& end : {absl::StrCat(key.node, "/", key.host), key.node}) {
      if (!way.up->contains(end)) continue;
      const auto [share, fresh] = (draining ? draining_ : ready_).try_emplace({way.engine, end});
      AddTo(&share->second, fresh, key, endpoint);
      if (state_.DrainsElsewhere(key.node, key.host)) drained_.emplace(key.node, key.host);
      return true;
    }
  }
  return false;
}

void RemotePlan::AddTo(Share* share, bool fresh, const EndpointKey& key,
                       const api::Endpoint& endpoint) const {
  // Without hints all endpoints of a node are equally far.
  if (fresh || hints_.count()) {
    // Nobody hints those that drain.
    const std::optional<Distance> hinted =
        endpoint.state() == api::ENDPOINT_READY ? hints_.DistanceOf(endpoint) : std::nullopt;
    const bool same_zone = !zone_.empty() && ZoneOf(model_, key.node) == zone_;
    const Distance distance = hinted.value_or(same_zone ? kSameZone : kElsewhere);
    if (!fresh && distance > share->distance) return;
    if (fresh || distance < share->distance) *share = {distance, hinted.has_value(), 0};
  }
  share->weight += endpoint.weight();
}

void RemotePlan::Choose(FunctionPlan* plan) const {
  const bool none_left = plan->none_ready && ready_.empty();
  plan->remote = Targets(none_left ? draining_ : ready_);
  if (none_left) plan->leaned_on = drained_;
  plan->leaves = plan->none_ready && !ready_.empty();
}

std::vector<PlanTarget> RemotePlan::Targets(const Shares& ends) {
  std::vector<PlanTarget> targets;
  for (const auto& [end, share] : ends)
    targets.push_back({end.first, share.weight, end.second, share.distance, share.hinted});
  return targets;
}

}  // namespace weft::agent
