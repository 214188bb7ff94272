// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_state.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/source/kubernetes/kube_endpoints.h"

namespace weft::control {
namespace {

constexpr std::size_t kRefusedMax = 10'000;

}  // namespace

bool KubeState::Put(KubeKind kind, KubeItem item) {
  const std::string name = absl::StrCat(KubeKindName(kind), " ", item.key);
  bool news = false;
  if (item.problem.empty()) {
    refused_.erase(name);
  } else if (refused_.contains(name) || refused_.size() < kRefusedMax) {
    std::string& why = refused_[name];
    std::string now = absl::StrCat(name, ": ", item.problem);
    news = why != now;
    why = std::move(now);
  }
  Objects& objects = ObjectsOf(kind);
  const auto found = objects.find(item.key);
  const uint64_t list = lists_[static_cast<std::size_t>(kind)];
  if (!item.object.has_value()) {
    if (found != objects.end()) found->second.list = list;
    return news;
  }
  if (found == objects.end()) {
    objects.emplace(std::move(item.key), Held{*std::move(item.object), list});
    NoteChange(kind);
    return news;
  }
  found->second.list = list;
  // Nodes in particular are written every few seconds with nothing new in them.
  const bool same = found->second.object == *item.object;
  found->second.object = *std::move(item.object);
  if (!same) NoteChange(kind);
  // Its status may be another one.
  if (kind == KubeKind::kHttpRoute || kind == KubeKind::kGrpcRoute) touched_routes_.emplace(kind, item.key);
  return news;
}

void KubeState::NoteChange(KubeKind kind) {
  changed_ = true;
  routing_stale_ |= kind == KubeKind::kService || IsOfGatewayApi(kind);
}

void KubeState::Erase(KubeKind kind, const std::string& key) {
  refused_.erase(absl::StrCat(KubeKindName(kind), " ", key));
  if (ObjectsOf(kind).erase(key) != 0) NoteChange(kind);
}

void KubeState::BeginList(KubeKind kind) {
  ++lists_[static_cast<std::size_t>(kind)];
  // The list tells again of those that are still there.
  const std::string prefix = absl::StrCat(KubeKindName(kind), " ");
  std::erase_if(refused_, [&prefix](const auto& each) { return absl::StartsWith(each.first, prefix); });
}

bool KubeState::ListIsEmpty(KubeKind kind) const {
  const uint64_t list = lists_[static_cast<std::size_t>(kind)];
  const Objects& objects = ObjectsOf(kind);
  return !objects.empty() && std::none_of(objects.begin(), objects.end(),
                                          [list](const auto& each) { return each.second.list == list; });
}

std::size_t KubeState::EndList(KubeKind kind, bool keep) {
  const uint64_t list = lists_[static_cast<std::size_t>(kind)];
  std::vector<std::string> gone;
  for (const auto& [key, held] : ObjectsOf(kind)) {
    if (held.list != list) gone.push_back(key);
  }
  if (keep) return gone.size();
  for (const std::string& key : gone) Erase(kind, key);
  return 0;
}

const KubeRoute* KubeState::FindRoute(KubeKind kind, const std::string& key) const {
  const auto found = ObjectsOf(kind).find(key);
  return found == ObjectsOf(kind).end() ? nullptr : std::get_if<KubeRoute>(&found->second.object);
}

const KubeRouting& KubeState::Routing() const {
  if (!std::exchange(routing_stale_, false)) return routing_;
  KubeRouteObjects objects;
  for (const auto& [key, held] : ObjectsOf(KubeKind::kHttpRoute)) {
    objects.http.emplace_back(key, &std::get<KubeRoute>(held.object));
  }
  for (const auto& [key, held] : ObjectsOf(KubeKind::kGrpcRoute)) {
    objects.grpc.emplace_back(key, &std::get<KubeRoute>(held.object));
  }
  for (const auto& [key, held] : ObjectsOf(KubeKind::kGrant)) {
    objects.grants.emplace_back(key, &std::get<KubeGrant>(held.object));
  }
  objects.service = [this](const std::string& name) -> const KubeService* {
    const auto found = ObjectsOf(KubeKind::kService).find(name);
    return found == ObjectsOf(KubeKind::kService).end() ? nullptr
                                                        : &std::get<KubeService>(found->second.object);
  };
  routing_ = RouteServices(objects);
  ++routings_;
  return routing_;
}

SourceMesh KubeState::MeshNow(const std::string& origin) const {
  SourceMesh mesh;
  mesh.origin = origin;
  mesh.open = true;
  mesh.allow_shrink = true;  // Shrinking by accident is what EndList() is asked about.
  KubeAddresses addresses;
  // Zones that nodes do not say are those of their endpoints.
  absl::flat_hash_map<std::string, std::string> zones;
  KubeSlicesOf slices;
  for (const auto& [key, held] : ObjectsOf(KubeKind::kSlice)) {
    const auto& slice = std::get<KubeSlice>(held.object);
    if (slice.service.empty()) continue;
    slices[slice.service].push_back(&slice);
    for (const KubeEndpoint& endpoint : slice.endpoints) {
      if (!endpoint.node.empty() && !endpoint.zone.empty()) zones.emplace(endpoint.node, endpoint.zone);
    }
  }
  const auto add_node = [&mesh](const std::string& name) -> api::Node& {
    Said<api::Node>& node = mesh.nodes.emplace_back();
    node.implied = true;
    node.value.set_name(name);
    return node.value;
  };
  for (const auto& [name, held] : ObjectsOf(KubeKind::kNode)) {
    const auto& known = std::get<KubeNode>(held.object);
    addresses.Add(name, known);
    api::Node& node = add_node(name);
    if (!known.ip.empty()) node.set_address(KubeAddressOf(known.ip, port_));
    node.set_zone(known.zone.empty() ? zones[name] : known.zone);
  }
  const auto find = [this](const std::string& name) -> const KubeService* {
    const auto service = ObjectsOf(KubeKind::kService).find(name);
    return service == ObjectsOf(KubeKind::kService).end() ? nullptr
                                                          : &std::get<KubeService>(service->second.object);
  };
  KubeEndpointWriter endpoints(slices, find, addresses, &mesh);
  const std::map<std::string, KubeSplit>& splits = Routing().splits;
  for (const auto& [name, of_service] : slices) {
    if (!splits.contains(name)) endpoints.AddService(name);
  }
  for (const auto& [name, split] : splits) endpoints.AddSplit(name, split);
  AddFunctions(&mesh);
  if (endpoints.outside() && !ObjectsOf(KubeKind::kNode).contains(kKubeOutside)) add_node(kKubeOutside);
  return mesh;
}

void KubeState::AddFunctions(SourceMesh* mesh) const {
  const std::map<std::string, KubeSplit>& splits = Routing().splits;
  const auto add = [&](const std::string& name) -> api::Function& {
    Said<api::Function>& function = mesh->functions.emplace_back();
    function.implied = true;
    function.value.set_name(name);
    return function.value;
  };
  const auto finish = [&splits](api::Function& function) {
    const auto split = splits.find(function.name());
    // Shares are of all calls, not of those that stay near.
    if (split != splits.end() && split->second.backends.size() > 1) {
      function.mutable_policy()->set_any_locality(true);
    }
  };
  // Before the Services: the first that is implied stands.
  for (const auto& [name, held] : ObjectsOf(KubeKind::kPolicy)) {
    api::Function& function = add(name);
    function = std::get<KubePolicy>(held.object).function;
    finish(function);
  }
  for (const auto& [name, held] : ObjectsOf(KubeKind::kService)) {
    if (ObjectsOf(KubeKind::kPolicy).contains(name)) continue;
    if (std::get<KubeService>(held.object).external) continue;
    finish(add(name));
  }
}

}  // namespace weft::control
