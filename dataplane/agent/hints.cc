// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/hints.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"

namespace weft::agent {
namespace {

// What cannot be read hints nothing.
api::Hints HintsOf(const api::Endpoint& endpoint) {
  api::Hints hints;
  if (!hints.ParseFromString(endpoint.hints())) hints.Clear();
  return hints;
}

bool Holds(const google::protobuf::RepeatedPtrField<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

Hints::Hints(const Model& model, const std::string& function, std::string node, std::string zone)
    : node_(std::move(node)), zone_(std::move(zone)) {
  std::size_t ready = 0, with_nodes = 0, with_zones = 0;
  bool for_node = false, for_zone = false;
  for (auto it = model.endpoints().lower_bound({function, "", ""});
       it != model.endpoints().end() && it->first.function == function; ++it) {
    const api::Endpoint& endpoint = it->second;
    if (endpoint.state() != api::ENDPOINT_READY || !endpoint.http().empty() || !endpoint.refuse().empty())
      continue;
    ++ready;
    if (endpoint.hints().empty()) continue;
    const api::Hints hints = HintsOf(endpoint);
    with_nodes += hints.nodes().empty() ? 0 : 1;
    with_zones += hints.zones().empty() ? 0 : 1;
    for_node |= Holds(hints.nodes(), node_);
    for_zone |= Holds(hints.zones(), zone_);
  }
  some_ = with_nodes + with_zones != 0;
  if (!some_) return;
  all_ = with_nodes == ready || with_zones == ready;
  const auto policy = model.functions().find(function);
  any_locality_ = policy != model.functions().end() && policy->second.policy().any_locality();
  by_node_ = !any_locality_ && with_nodes == ready && for_node;
  by_zone_ = !any_locality_ && with_zones == ready && for_zone;
}

std::optional<Distance> Hints::DistanceOf(const api::Endpoint& endpoint) const {
  if (!count()) return std::nullopt;
  const api::Hints hints = HintsOf(endpoint);
  if (by_node_ && Holds(hints.nodes(), node_)) return kSameNode;
  if (!by_zone_) return std::nullopt;
  return Holds(hints.zones(), zone_) ? kSameZone : kElsewhere;
}

std::string Hints::Note() const {
  if (!some_) return "";
  const std::string node = absl::StrCat("node ", node_);
  const std::string zone = absl::StrCat("zone ", zone_);
  if (count()) {
    return absl::StrCat("hints for ", by_node_ ? node : "", by_node_ && by_zone_ ? " and " : "",
                        by_zone_ ? zone : "", " are followed");
  }
  return absl::StrCat("hints are not followed: ",
                      any_locality_   ? "the function's locality is `any`"
                      : !all_         ? "not every ready endpoint has some"
                      : zone_.empty() ? absl::StrCat("none is for ", node, ", which has no zone")
                                      : absl::StrCat("none is for ", zone));
}

}  // namespace weft::agent
