// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_state.h"

#include <arpa/inet.h>

#include <algorithm>
#include <set>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace weft::control {
namespace {

constexpr std::size_t kRefusedMax = 10'000;
// The node of what Kubernetes knows by its address alone.
constexpr char kOutside[] = "outside";

std::string AddressOf(const std::string& ip, uint32_t port) {
  return ip.find(':') != std::string::npos ? absl::StrCat("[", ip, "]:", port) : absl::StrCat(ip, ":", port);
}

// Empty where `ip` is no address.
std::string BytesOf(const std::string& ip) {
  char bytes[sizeof(in6_addr)];
  if (inet_pton(AF_INET, ip.c_str(), bytes) == 1) return std::string(bytes, sizeof(in_addr));
  if (inet_pton(AF_INET6, ip.c_str(), bytes) == 1) return std::string(bytes, sizeof(in6_addr));
  return "";
}

// The host of an endpoint: the pod, or where there is none a label made of the address.
std::string HostOf(const KubeEndpoint& endpoint) {
  return !endpoint.pod.empty() ? endpoint.pod
                               : absl::StrCat("ip-", absl::BytesToHexString(BytesOf(endpoint.ip)));
}

}  // namespace

// Which node an address is of, for slices that do not say: by the node's own, or the range of its pods.
class KubeAddresses {
 public:
  void Add(const std::string& node, const KubeNode& of) {
    if (!of.ip.empty()) AddRange(BytesOf(of.ip), BytesOf(of.ip).size() * 8, node);
    for (const std::string& cidr : of.pod_cidrs) {
      const std::size_t slash = cidr.find('/');
      std::size_t bits = 0;
      if (slash == std::string::npos || !absl::SimpleAtoi(cidr.substr(slash + 1), &bits)) continue;
      AddRange(BytesOf(cidr.substr(0, slash)), bits, node);
    }
  }
  // Empty: of none
  std::string NodeOf(const std::string& ip) const {
    const std::string bytes = BytesOf(ip);
    for (auto bits = lengths_.rbegin(); bits != lengths_.rend(); ++bits) {
      if (*bits > bytes.size() * 8) continue;
      const auto node = nodes_.find(KeyOf(bytes, *bits));
      if (node != nodes_.end()) return node->second;
    }
    return "";
  }

 private:
  static std::string KeyOf(std::string bytes, std::size_t bits) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const std::size_t rest = bits > i * 8 ? std::min<std::size_t>(8, bits - i * 8) : 0;
      bytes[i] = static_cast<char>(static_cast<uint8_t>(bytes[i]) & (0xff00u >> rest));
    }
    return absl::StrCat(bytes, "/", bits);
  }
  void AddRange(const std::string& bytes, std::size_t bits, const std::string& node) {
    if (bytes.empty() || bits > bytes.size() * 8) return;
    lengths_.insert(bits);
    nodes_.emplace(KeyOf(bytes, bits), node);
  }

  std::set<std::size_t> lengths_;  // Of the prefixes, in bits
  absl::flat_hash_map<std::string, std::string> nodes_;
};

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
    changed_ = true;
    return news;
  }
  found->second.list = list;
  // Nodes in particular are written every few seconds with nothing new in them.
  if (found->second.object == *item.object) return news;
  found->second.object = *std::move(item.object);
  changed_ = true;
  return news;
}

void KubeState::Erase(KubeKind kind, const std::string& key) {
  refused_.erase(absl::StrCat(KubeKindName(kind), " ", key));
  changed_ |= ObjectsOf(kind).erase(key) != 0;
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

SourceMesh KubeState::MeshNow(const std::string& origin) const {
  SourceMesh mesh;
  mesh.origin = origin;
  mesh.open = true;
  mesh.allow_shrink = true;  // Shrinking by accident is what EndList() is asked about.
  KubeAddresses addresses;
  // Zones that nodes do not say are those of their endpoints.
  absl::flat_hash_map<std::string, std::string> zones;
  std::map<std::string, std::vector<const KubeSlice*>> of_services;
  for (const auto& [key, held] : ObjectsOf(KubeKind::kSlice)) {
    const auto& slice = std::get<KubeSlice>(held.object);
    if (slice.service.empty()) continue;
    of_services[slice.service].push_back(&slice);
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
    if (!known.ip.empty()) node.set_address(AddressOf(known.ip, port_));
    node.set_zone(known.zone.empty() ? zones[name] : known.zone);
  }
  bool outside = false;
  for (const auto& [name, slices] : of_services) AddService(name, slices, &mesh, addresses, &outside);
  // Before the Services: the first that is implied stands.
  for (const auto& [name, held] : ObjectsOf(KubeKind::kPolicy)) {
    mesh.functions.push_back({std::get<KubePolicy>(held.object).function, Where{}, true});
  }
  for (const auto& [name, held] : ObjectsOf(KubeKind::kService)) {
    if (ObjectsOf(KubeKind::kPolicy).contains(name)) continue;
    if (std::get<KubeService>(held.object).external) continue;
    Said<api::Function>& function = mesh.functions.emplace_back();
    function.implied = true;
    function.value.set_name(name);
  }
  if (outside && !ObjectsOf(KubeKind::kNode).contains(kOutside)) add_node(kOutside);
  return mesh;
}

void KubeState::AddService(const std::string& name, const std::vector<const KubeSlice*>& slices,
                           SourceMesh* mesh, const KubeAddresses& addresses, bool* outside) const {
  const auto service = ObjectsOf(KubeKind::kService).find(name);
  if (service == ObjectsOf(KubeKind::kService).end()) return;
  const auto& known = std::get<KubeService>(service->second.object);
  if (known.external) return;
  const bool has_first_family = std::any_of(slices.begin(), slices.end(), [&known](const KubeSlice* slice) {
    return slice->ipv6 == known.ipv6 && !slice->endpoints.empty();
  });
  // A pod stands in a slice of each family, and in two slices while it moves between them: the best counts.
  struct Best {
    int rank = -1;
    const KubeSlice* slice = nullptr;
    const KubeEndpoint* endpoint = nullptr;
  };
  std::map<std::string, Best> hosts;
  for (const KubeSlice* slice : slices) {
    if (!slice->weft && slice->port == 0) continue;
    const bool first_family = slice->ipv6 == known.ipv6;
    for (const KubeEndpoint& endpoint : slice->endpoints) {
      // Whose second address it is cannot be told.
      if (endpoint.pod.empty() && !first_family && has_first_family) continue;
      const int rank = (slice->weft ? 4 : 0) + (endpoint.draining ? 0 : 2) + (first_family ? 1 : 0);
      Best& best = hosts[HostOf(endpoint)];
      if (rank > best.rank) best = {rank, slice, &endpoint};
    }
  }
  for (const auto& [host, best] : hosts) {
    const bool weft = best.slice->weft;
    std::string node =
        best.endpoint->node.empty() ? addresses.NodeOf(best.endpoint->ip) : best.endpoint->node;
    if (node.empty()) {
      if (weft) continue;  // Its pod is on no node yet.
      node = kOutside;
      *outside = true;
    }
    Said<api::Endpoint>& said = mesh->endpoints.emplace_back();
    said.implied = true;
    api::Endpoint& endpoint = said.value;
    endpoint.set_function(name);
    endpoint.set_node(node);
    endpoint.set_host(host);
    endpoint.set_weight(100);
    endpoint.set_state(best.endpoint->draining ? api::ENDPOINT_DRAINING : api::ENDPOINT_READY);
    if (!weft) endpoint.set_http(AddressOf(best.endpoint->ip, best.slice->port));
  }
}

}  // namespace weft::control
