// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_state.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/source/kubernetes/kube_endpoints.h"

namespace weft::control {
namespace {

constexpr std::size_t kRefusedMax = 10'000;

bool IsRoute(KubeKind kind) { return kind == KubeKind::kHttpRoute || kind == KubeKind::kGrpcRoute; }

}  // namespace

bool KubeState::Put(KubeKind kind, KubeItem item) {
  bool news = false;
  if (item.problem.empty()) {
    if (!refused_.empty()) refused_.erase(absl::StrCat(KubeKindName(kind), " ", item.key));
  } else if (const std::string name = absl::StrCat(KubeKindName(kind), " ", item.key);
             refused_.contains(name) || refused_.size() < kRefusedMax) {
    std::string& why = refused_[name];
    std::string now = absl::StrCat(name, ": ", item.problem);
    news = why != now;
    why = std::move(now);
  }
  Objects& objects = ObjectsOf(kind);
  const auto found = objects.find(item.key);
  const uint64_t list = lists_[static_cast<std::size_t>(kind)];
  if (!item.object.has_value()) {
    if (found != objects.end()) found->second.SaidIn(list);
    return news;
  }
  if (found == objects.end()) {
    const std::string key = item.key;
    objects.emplace(std::move(item.key), Held{*std::move(item.object), list});
    NoteChange(kind, key);
    if (IsRoute(kind)) touched_routes_.emplace(kind, key);
    return news;
  }
  found->second.SaidIn(list);
  // Nodes in particular are written every few seconds with nothing new in them.
  const bool same = found->second.object == *item.object;
  if (!same && kind == KubeKind::kSlice) CountSlice(item.key, std::get<KubeSlice>(found->second.object), -1);
  found->second.object = *std::move(item.object);
  if (!same) NoteChange(kind, item.key);
  // Its status may be another one.
  if (IsRoute(kind)) touched_routes_.emplace(kind, item.key);
  return news;
}

void KubeState::NoteChange(KubeKind kind, const std::string& key) {
  changed_ = true;
  routing_stale_ |= kind == KubeKind::kService || IsOfGatewayApi(kind);
  switch (kind) {
    case KubeKind::kNode:
      changed_nodes_.insert(key);
      addresses_stale_ = true;
      // Their endpoints may be on another node now.
      for (const auto& [service, slices] : without_node_) changed_services_.insert(service);
      return;
    case KubeKind::kSlice: {
      const auto slice = ObjectsOf(kind).find(key);
      if (slice != ObjectsOf(kind).end()) CountSlice(key, std::get<KubeSlice>(slice->second.object), 1);
      return;
    }
    case KubeKind::kService:
    case KubeKind::kPolicy:
      changed_services_.insert(key);
      return;
    default:  // What of the Gateway API follows is seen when routes are found anew.
      return;
  }
}

void KubeState::CountSlice(const std::string& key, const KubeSlice& slice, int by) {
  if (slice.service.empty()) return;
  endpoints_ = by > 0 ? endpoints_ + slice.endpoints.size() : endpoints_ - slice.endpoints.size();
  changed_services_.insert(slice.service);
  std::set<std::string>& slices = slices_of_[slice.service];
  if (by > 0) {
    slices.insert(key);
  } else {
    slices.erase(key);
  }
  if (slices.empty()) slices_of_.erase(slice.service);
  bool without_node = false;
  for (const KubeEndpoint& endpoint : slice.endpoints) {
    without_node |= endpoint.node.empty();
    if (endpoint.node.empty() || endpoint.zone.empty()) continue;
    std::map<std::string, int>& zones = zones_[endpoint.node];
    const std::string before = zones.empty() ? "" : zones.begin()->first;
    if ((zones[endpoint.zone] += by) == 0) zones.erase(endpoint.zone);
    if (before != (zones.empty() ? "" : zones.begin()->first)) changed_nodes_.insert(endpoint.node);
    if (zones.empty()) zones_.erase(endpoint.node);
  }
  if (without_node && (without_node_[slice.service] += by) == 0) without_node_.erase(slice.service);
}

void KubeState::Erase(KubeKind kind, const std::string& key) {
  refused_.erase(absl::StrCat(KubeKindName(kind), " ", key));
  const auto found = ObjectsOf(kind).find(key);
  if (found == ObjectsOf(kind).end()) return;
  if (kind == KubeKind::kSlice) CountSlice(key, std::get<KubeSlice>(found->second.object), -1);
  ObjectsOf(kind).erase(found);
  NoteChange(kind, key);
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
  std::size_t kept = 0;
  for (auto& [key, held] : ObjectsOf(kind)) {
    if (held.list == list) continue;
    held.kept |= keep;
    if (keep) ++kept;
    if (!held.kept) gone.push_back(key);
  }
  for (const std::string& key : gone) Erase(kind, key);
  return kept;
}

const KubeRoute* KubeState::FindRoute(KubeKind kind, const std::string& key) const {
  const auto found = ObjectsOf(kind).find(key);
  return found == ObjectsOf(kind).end() ? nullptr : std::get_if<KubeRoute>(&found->second.object);
}

const KubeRouting& KubeState::Routing() {
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
  objects.service = [this](const std::string& name) { return FindService(name); };
  const std::map<std::string, KubeSplit> before = std::exchange(routing_, RouteServices(objects)).splits;
  ++routings_;
  split_to_.clear();
  for (const auto& [function, split] : routing_.splits) {
    const auto old = before.find(function);
    if (old == before.end() || old->second != split) changed_services_.insert(function);
    for (const KubeBackend& backend : split.backends) split_to_[backend.service].insert(function);
  }
  for (const auto& [function, split] : before) {
    if (!routing_.splits.contains(function)) changed_services_.insert(function);
  }
  return routing_;
}

const KubeService* KubeState::FindService(const std::string& name) const {
  const auto found = ObjectsOf(KubeKind::kService).find(name);
  return found == ObjectsOf(KubeKind::kService).end() ? nullptr
                                                      : &std::get<KubeService>(found->second.object);
}

const KubeAddresses& KubeState::Addresses() {
  if (!std::exchange(addresses_stale_, false)) return addresses_;
  addresses_ = {};
  for (const auto& [name, held] : ObjectsOf(KubeKind::kNode)) {
    addresses_.Add(name, std::get<KubeNode>(held.object));
  }
  return addresses_;
}

std::set<std::string> KubeState::ChangedFunctions() {
  Routing();  // May name more of them.
  std::set<std::string> functions = std::exchange(changed_services_, {});
  for (const std::string& service : std::vector<std::string>(functions.begin(), functions.end())) {
    const auto split = split_to_.find(service);
    if (split != split_to_.end()) functions.insert(split->second.begin(), split->second.end());
  }
  return functions;
}

std::vector<EntryPtr> KubeState::NodeNow(const std::string& name) {
  api::Node node;
  node.set_name(name);
  const auto found = ObjectsOf(KubeKind::kNode).find(name);
  if (found == ObjectsOf(KubeKind::kNode).end()) {
    if (name != kKubeOutside || outside_.empty()) return {};
    return {MakeEntry(node, true)};
  }
  const auto& known = std::get<KubeNode>(found->second.object);
  if (!known.ip.empty()) node.set_address(KubeAddressOf(known.ip, port_));
  // A zone that the node does not say is that of its endpoints.
  const auto zones = zones_.find(name);
  node.set_zone(!known.zone.empty() || zones == zones_.end() ? known.zone : zones->second.begin()->first);
  return {MakeEntry(node, true)};
}

std::vector<EntryPtr> KubeState::FunctionNow(const std::string& name) {
  const auto found = routing_.splits.find(name);
  const KubeSplit* const split = found == routing_.splits.end() ? nullptr : &found->second;
  KubeSlicesOf slices;
  const auto add_slices = [this, &slices](const std::string& service) {
    const auto keys = slices_of_.find(service);
    if (keys == slices_of_.end() || slices.contains(service)) return;
    for (const std::string& key : keys->second) {
      slices[service].push_back(&std::get<KubeSlice>(ObjectsOf(KubeKind::kSlice).at(key).object));
    }
  };
  std::vector<EntryPtr> said = DeclarationOf(name, split);
  KubeEndpointWriter endpoints(
      slices, [this](const std::string& service) { return FindService(service); }, Addresses(), &said);
  if (split == nullptr) {
    add_slices(name);
    endpoints.AddService(name);
  } else {
    for (const KubeBackend& backend : split->backends) add_slices(backend.service);
    endpoints.AddSplit(name, *split);
  }
  if (endpoints.outside()) {
    outside_.insert(name);
  } else {
    outside_.erase(name);
  }
  return said;
}

std::vector<EntryPtr> KubeState::DeclarationOf(const std::string& name, const KubeSplit* split) const {
  const auto policy = ObjectsOf(KubeKind::kPolicy).find(name);
  const bool has_policy = policy != ObjectsOf(KubeKind::kPolicy).end();
  const KubeService* const service = FindService(name);
  if (!has_policy && (service == nullptr || service->external)) return {};
  api::Function function;
  if (has_policy) function = std::get<KubePolicy>(policy->second.object).function;
  function.set_name(name);
  if (split != nullptr && split->timeout_ns != 0) {
    function.mutable_policy()->set_timeout_ns(split->timeout_ns);
  }
  // Shares are of all calls, not of those that stay near.
  if (split != nullptr && split->backends.size() > 1) function.mutable_policy()->set_any_locality(true);
  return {MakeEntry(function, true, {}, 0)};
}

void KubeState::Say(const std::string& name, const std::vector<EntryPtr>& now, SaidOf* said_of,
                    SourceOffer* offer) {
  static const std::vector<EntryPtr> kNothing;
  std::vector<EntryPtr> said;
  const auto before = said_of->find(name);
  AppendDifference(before == said_of->end() ? kNothing : before->second, now, &said, offer);
  if (!said.empty()) {
    said_of->insert_or_assign(name, std::move(said));
  } else if (before != said_of->end()) {
    said_of->erase(before);
  }
}

std::size_t KubeState::ExpectedEntries() const {
  const auto count = [this](KubeKind kind) {
    return ObjectsOf(kind).size() + more_[static_cast<std::size_t>(kind)];
  };
  const std::size_t slices = ObjectsOf(KubeKind::kSlice).size();
  if (slices == 0) return 0;
  return count(KubeKind::kNode) + count(KubeKind::kService) + endpoints_ * count(KubeKind::kSlice) / slices;
}

SourceOffer KubeState::Prepare(const std::string& origin, std::size_t functions_max) {
  SourceOffer offer;
  offer.origin = origin;
  offer.open = true;
  offer.whole = !std::exchange(prepared_, true);
  offer.expected = ExpectedEntries();
  // Endpoints come after their nodes, which would have them looked at again.
  for (const std::string& name : std::exchange(changed_nodes_, {})) {
    Say(name, NodeNow(name), &said_of_nodes_, &offer);
  }
  for (; functions_max > 0 && !changed_services_.empty(); --functions_max) {
    const std::string name = std::move(changed_services_.extract(changed_services_.begin()).value());
    Say(name, FunctionNow(name), &said_of_functions_, &offer);
  }
  Say(kKubeOutside, NodeNow(kKubeOutside), &said_of_nodes_, &offer);
  return offer;
}

SourceOffer KubeState::PrepareAll(const std::string& origin) {
  changed_services_ = ChangedFunctions();
  return Prepare(origin, changed_services_.size());
}

SourceOffer KubeState::TakeOffer(const std::string& origin) {
  SourceOffer offer = PrepareAll(origin);
  changed_ = false;
  if (std::exchange(told_, true)) {
    // It says what events deleted, or lists, of which EndList() is asked.
    offer.allow_shrink = true;
    return offer;
  }
  // What an earlier run was told may be more than the server has now, as after a restored disk.
  offer.whole = true;
  offer.said.clear();
  offer.unsaid.clear();
  for (const SaidOf* said_of : {&said_of_functions_, &said_of_nodes_}) {
    for (const auto& [name, said] : *said_of) offer.said.insert(offer.said.end(), said.begin(), said.end());
  }
  return offer;
}

}  // namespace weft::control
