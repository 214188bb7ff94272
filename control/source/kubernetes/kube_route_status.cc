// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_route_status.h"

#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "dataplane/base/text.h"

namespace weft::control {
namespace {

using nlohmann::json;

constexpr std::size_t kMessageBytesMax = 1'000;

// Of what another writer made of it: an empty one where it is no text.
std::string TextAt(const json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

const json* Find(const json& list, const char* key, const std::string& text) {
  if (!list.is_array()) return nullptr;
  for (const json& each : list) {
    if (TextAt(each, key) == text) return &each;
  }
  return nullptr;
}

json ConditionOf(const KubeCondition& wanted, const KubeRoute& route, const json* old,
                 absl::string_view now) {
  const std::string status = wanted.is ? "True" : "False";
  const std::string since = old == nullptr ? "" : TextAt(*old, "lastTransitionTime");
  const bool turns = since.empty() || TextAt(*old, "status") != status;
  return {{"type", wanted.type},
          {"status", status},
          {"reason", wanted.reason},
          {"message", std::string(Utf8Prefix(wanted.message, kMessageBytesMax))},
          {"observedGeneration", route.generation},
          {"lastTransitionTime", turns ? std::string(now) : since}};
}

// weft's own entry for `wanted`; `old`: what it is now, null where there is none.
json EntryOf(const KubeParentStatus& wanted, const KubeRoute& route, const json* old, absl::string_view now) {
  static const std::set<std::string> kOurs = {"Accepted", "PartiallyInvalid", "ResolvedRefs"};
  const json none = json::array();
  const json* conditions = &none;
  if (old != nullptr && old->contains("conditions")) conditions = &(*old)["conditions"];
  json all = json::array();
  for (const KubeCondition& each : wanted.conditions) {
    all.push_back(ConditionOf(each, route, Find(*conditions, "type", each.type), now));
  }
  // Those that somebody else put there stay.
  for (const json& each : *conditions) {
    if (each.is_object() && !kOurs.contains(TextAt(each, "type"))) all.push_back(each);
  }
  return {{"parentRef", json::parse(wanted.parent, nullptr, false)},
          {"controllerName", std::string(kKubeController)},
          {"conditions", all}};
}

}  // namespace

std::optional<std::string> RouteStatusPatch(const KubeRoute& route,
                                            const std::vector<KubeParentStatus>& wanted,
                                            absl::string_view now) {
  json old = json::parse(route.status_parents, nullptr, false);
  if (!old.is_array()) old = json::array();
  // Each stays in its place: of two controllers that put theirs last, neither would ever be content.
  json parents = json::array();
  std::set<const KubeParentStatus*> said;
  for (const json& each : old) {
    if (TextAt(each, "controllerName") != kKubeController) {
      parents.push_back(each);
      continue;
    }
    const std::string parent = each.contains("parentRef") ? each["parentRef"].dump() : "";
    for (const KubeParentStatus& one : wanted) {
      if (one.parent != parent || !said.insert(&one).second) continue;
      parents.push_back(EntryOf(one, route, &each, now));
    }
  }
  for (const KubeParentStatus& one : wanted) {
    if (said.insert(&one).second) parents.push_back(EntryOf(one, route, nullptr, now));
  }
  if (parents == old) return std::nullopt;
  const json patch = {{"metadata", {{"resourceVersion", route.version}}}, {"status", {{"parents", parents}}}};
  return patch.dump(-1, ' ', false, json::error_handler_t::replace);
}

void KubeRouteStatuses::Update(KubeState* state, KubeStatusWriter* writer, uint64_t now_ns) {
  const KubeRouting& routing = state->Routing();
  std::set<KubeState::RouteKey> due = state->TakeTouchedRoutes();
  if (routings_ != state->routings()) {
    routings_ = state->routings();
    for (const auto& [key, statuses] : routing.statuses) {
      const auto known = wanted_.find(key);
      if (known != wanted_.end() && known->second == statuses) continue;
      due.insert(key);
      Note(key, statuses);
    }
    wanted_ = routing.statuses;
  }
  for (const KubeState::RouteKey& key : due) Say(key, *state, writer, now_ns);
}

void KubeRouteStatuses::Say(const KubeState::RouteKey& key, const KubeState& state, KubeStatusWriter* writer,
                            uint64_t now_ns) {
  const KubeRoute* const route = state.FindRoute(key.first, key.second);
  const auto wanted = wanted_.find(key);
  if (route == nullptr || wanted == wanted_.end()) return writer->Forget(key.first, key.second);
  const std::string now = absl::FormatTime("%Y-%m-%d%ET%H:%M:%SZ", absl::Now(), absl::UTCTimeZone());
  std::optional<std::string> patch = RouteStatusPatch(*route, wanted->second, now);
  if (!patch.has_value()) return writer->Forget(key.first, key.second);
  writer->Take(key.first, key.second, *std::move(patch), now_ns);
}

void KubeRouteStatuses::Note(const KubeState::RouteKey& key, const std::vector<KubeParentStatus>& statuses) {
  for (const KubeParentStatus& status : statuses) {
    for (const KubeCondition& condition : status.conditions) {
      if (condition.message.empty()) continue;
      notes_.push_back(absl::StrCat("kubernetes: ", KubeKindName(key.first), " ", key.second, ": ",
                                    condition.type, "=", condition.is ? "True" : "False", " (",
                                    condition.reason,
                                    "): ", Utf8Prefix(condition.message, kMessageBytesMax)));
    }
  }
}

}  // namespace weft::control
