// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_endpoints.h"

#include <arpa/inet.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "control/source/mesh_object.h"

namespace weft::control {
namespace {

// Empty where `ip` is no address.
std::string BytesOf(const std::string& ip) {
  char bytes[sizeof(in6_addr)];
  if (inet_pton(AF_INET, ip.c_str(), bytes) == 1) return std::string(bytes, sizeof(in_addr));
  if (inet_pton(AF_INET6, ip.c_str(), bytes) == 1) return std::string(bytes, sizeof(in6_addr));
  return "";
}

std::string KeyOf(std::string bytes, std::size_t bits) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::size_t rest = bits > i * 8 ? std::min<std::size_t>(8, bits - i * 8) : 0;
    bytes[i] = static_cast<char>(static_cast<uint8_t>(bytes[i]) & (0xff00u >> rest));
  }
  return absl::StrCat(bytes, "/", bits);
}

// The host of an endpoint: the pod, or where there is none a label made of the address.
std::string HostOf(const KubeEndpoint& endpoint) {
  return !endpoint.pod.empty() ? endpoint.pod
                               : absl::StrCat("ip-", absl::BytesToHexString(BytesOf(endpoint.ip)));
}

}  // namespace

std::string KubeAddressOf(const std::string& ip, uint32_t port) {
  return ip.find(':') != std::string::npos ? absl::StrCat("[", ip, "]:", port) : absl::StrCat(ip, ":", port);
}

void KubeAddresses::Add(const std::string& node, const KubeNode& of) {
  if (!of.ip.empty()) AddRange(BytesOf(of.ip), BytesOf(of.ip).size() * 8, node);
  for (const std::string& cidr : of.pod_cidrs) {
    const std::size_t slash = cidr.find('/');
    std::size_t bits = 0;
    if (slash == std::string::npos || !absl::SimpleAtoi(cidr.substr(slash + 1), &bits)) continue;
    AddRange(BytesOf(cidr.substr(0, slash)), bits, node);
  }
}

std::string KubeAddresses::NodeOf(const std::string& ip) const {
  const std::string bytes = BytesOf(ip);
  for (auto bits = lengths_.rbegin(); bits != lengths_.rend(); ++bits) {
    if (*bits > bytes.size() * 8) continue;
    const auto node = nodes_.find(KeyOf(bytes, *bits));
    if (node != nodes_.end()) return node->second;
  }
  return "";
}

void KubeAddresses::AddRange(const std::string& bytes, std::size_t bits, const std::string& node) {
  if (bytes.empty() || bits > bytes.size() * 8) return;
  lengths_.insert(bits);
  nodes_.emplace(KeyOf(bytes, bits), node);
}

KubeEndpointWriter::Hosts KubeEndpointWriter::HostsOf(const std::string& name) const {
  const KubeService* const service = find_(name);
  const auto found = slices_.find(name);
  if (service == nullptr || service->external || found == slices_.end()) return {};
  const std::vector<const KubeSlice*>& slices = found->second;
  const bool has_first_family = std::any_of(slices.begin(), slices.end(), [service](const KubeSlice* slice) {
    return slice->ipv6 == service->ipv6 && !slice->endpoints.empty();
  });
  // A pod stands in a slice of each family, and in two slices while it moves between them: the best counts.
  Hosts hosts;
  for (const KubeSlice* slice : slices) {
    if (!slice->weft && slice->port == 0) continue;
    const bool first_family = slice->ipv6 == service->ipv6;
    for (const KubeEndpoint& endpoint : slice->endpoints) {
      // Whose second address it is cannot be told.
      if (endpoint.pod.empty() && !first_family && has_first_family) continue;
      const int rank = (slice->weft ? 4 : 0) + (endpoint.draining ? 0 : 2) + (first_family ? 1 : 0);
      hosts.emplace_back(HostOf(endpoint), KubeHost{slice, &endpoint, rank, hosts.size()});
    }
  }
  std::sort(hosts.begin(), hosts.end(), [](const auto& a, const auto& b) {
    if (const int order = a.first.compare(b.first); order != 0) return order < 0;
    return a.second.rank != b.second.rank ? a.second.rank > b.second.rank : a.second.place < b.second.place;
  });
  const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
  hosts.erase(std::unique(hosts.begin(), hosts.end(), same), hosts.end());
  return hosts;
}

void KubeEndpointWriter::AddService(const std::string& function) {
  for (const auto& [host, at] : HostsOf(function)) Add(function, host, at, kWeightDefault);
}

void KubeEndpointWriter::Add(const std::string& function, const std::string& host, const KubeHost& at,
                             uint32_t weight) {
  const bool weft = at.slice->weft;
  std::string node = at.endpoint->node.empty() ? addresses_.NodeOf(at.endpoint->ip) : at.endpoint->node;
  if (node.empty()) {
    if (weft) return;  // Its pod is on no node yet.
    node = kKubeOutside;
    outside_ = true;
  }
  endpoint_.Clear();
  endpoint_.set_function(function);
  endpoint_.set_node(node);
  endpoint_.set_host(host);
  endpoint_.set_weight(weight);
  endpoint_.set_state(at.endpoint->draining ? api::ENDPOINT_DRAINING : api::ENDPOINT_READY);
  if (at.endpoint->hints != 0) endpoint_.set_hints(at.slice->hints[at.endpoint->hints - 1]);
  if (!weft) endpoint_.set_http(KubeAddressOf(at.endpoint->ip, at.slice->port));
  Say();
}

void KubeEndpointWriter::Say() { said_->push_back(MakeEntry(endpoint_, true, {}, index_++)); }

void KubeEndpointWriter::AddRefusal(const std::string& function, const std::string& host,
                                    const std::string& why, uint32_t weight) {
  endpoint_.Clear();
  endpoint_.set_function(function);
  endpoint_.set_node(kKubeOutside);
  endpoint_.set_host(host);
  endpoint_.set_weight(weight);
  endpoint_.set_refuse(why);
  outside_ = true;
  Say();
}

void KubeEndpointWriter::AddSplit(const std::string& function, const KubeSplit& split) {
  std::vector<Hosts> hosts;
  std::vector<std::pair<uint32_t, std::size_t>> counts;
  for (const KubeBackend& backend : split.backends) {
    hosts.push_back(backend.problem.empty() ? HostsOf(backend.service) : Hosts());
    // Those that drain take calls where nobody else is left, and count only then.
    const auto ready = static_cast<std::size_t>(
        std::count_if(hosts.back().begin(), hosts.back().end(),
                      [](const auto& host) { return !host.second.endpoint->draining; }));
    // One that has none has its part too: that of the calls that fail.
    counts.emplace_back(backend.weight, std::max<std::size_t>(1, ready != 0 ? ready : hosts.back().size()));
  }
  const std::vector<std::vector<uint32_t>> shares = ShareWeights(counts);
  // A pod may be behind several of them, and get the share of each.
  std::map<std::string, std::pair<KubeHost, uint64_t>> all;
  uint64_t most = kEndpointWeightMax;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    std::size_t next = 0;
    for (const auto& [host, at] : hosts[i]) {
      const bool counted = shares[i].size() == hosts[i].size() || !at.endpoint->draining;
      const uint32_t weight = counted ? shares[i][next++] : 1;
      if (weight == 0) continue;
      auto& [held, sum] = all[host];
      held = at;
      sum += weight;
      most = std::max(most, sum);
    }
  }
  const auto scaled = [most](uint64_t weight) {
    return static_cast<uint32_t>(std::max<uint64_t>(1, (weight * kEndpointWeightMax + most / 2) / most));
  };
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    if (!hosts[i].empty()) continue;
    const KubeBackend& backend = split.backends[i];
    const std::string why = backend.problem.empty()
                                ? absl::StrCat("Service ", backend.service, " has no endpoint")
                                : backend.problem;
    AddRefusal(function, absl::StrCat("backend-", i), absl::StrCat(split.said_by, ": ", why),
               scaled(shares[i].front()));
  }
  if (split.backends.empty()) {
    AddRefusal(function, "backend", absl::StrCat(split.said_by, ": names no backend with a weight"),
               kWeightDefault);
  }
  for (const auto& [host, at] : all) Add(function, host, at.first, scaled(at.second));
}

}  // namespace weft::control
