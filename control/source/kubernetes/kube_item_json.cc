// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_item_json.h"

#include <arpa/inet.h>
#include <simdjson.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/source/kubernetes/kube_element.h"
#include "control/source/kubernetes/kube_hints.h"
#include "control/source/mesh_object.h"
#include "control/source/mesh_yaml.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

using simdjson::dom::element;

absl::StatusOr<bool> BoolOf(const element& from, const char* key, bool fallback) {
  element value;
  if (from[key].get(value) != simdjson::SUCCESS || value.is_null()) return fallback;
  bool is = false;
  if (value.get(is) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(key, ": is neither true nor false"));
  }
  return is;
}

bool IsAddress(const std::string& ip, bool ipv6) {
  unsigned char bytes[sizeof(in6_addr)];
  return inet_pton(ipv6 ? AF_INET6 : AF_INET, ip.c_str(), bytes) == 1;
}

// Gathers what is wrong with one object.
class Problems {
 public:
  explicit Problems(std::string* text) : text_(text) {}
  void Add(absl::string_view what) {
    if (!text_->empty()) return;  // The first one is enough to find the object.
    *text_ = std::string(what);
  }

 private:
  std::string* text_;
};

std::string ZoneOf(std::string zone, Problems* problems) {
  if (zone.empty()) return zone;
  if (const absl::Status status = CheckLabel(zone, "zone"); !status.ok()) {
    problems->Add(status.message());
    return "";
  }
  return zone;
}

KubeObject ReadNode(const element& from, Problems* problems) {
  KubeNode node;
  node.zone = ZoneOf(TextOf(from["metadata"]["labels"]["topology.kubernetes.io/zone"]), problems);
  simdjson::dom::array list;
  if (from["status"]["addresses"].get(list) == simdjson::SUCCESS) {
    for (const element each : list) {
      if (!node.ip.empty() || TextOf(each["type"]) != "InternalIP") continue;
      const std::string ip = TextOf(each["address"]);
      if (IsAddress(ip, false) || IsAddress(ip, true)) {
        node.ip = ip;
      } else {
        problems->Add(absl::StrCat("status.addresses: \"", ip, "\" is no address"));
      }
    }
  }
  if (from["spec"]["podCIDRs"].get(list) == simdjson::SUCCESS) {
    for (const element each : list) {
      std::string_view text;
      if (each.get(text) == simdjson::SUCCESS) node.pod_cidrs.emplace_back(text);
    }
  }
  return node;
}

// How much a TCP port is the one that the function is called at: 3 a weft host's, 2 for HTTP, 1 another; 0:
// no port.
int RankOf(const element& from, uint64_t* port) {
  const std::string protocol = TextOf(from["protocol"]);
  if (!protocol.empty() && protocol != "TCP") return 0;
  if (from["port"].get(*port) != simdjson::SUCCESS || *port > kPortMax) *port = 0;
  const std::string app_protocol = TextOf(from["appProtocol"]);
  if (app_protocol == kWeftHostProtocol) return 3;
  if (*port == 0) return 0;
  const std::string name = TextOf(from["name"]);
  const bool http =
      absl::EqualsIgnoreCase(app_protocol, "http") || name == "http" || absl::StartsWith(name, "http-");
  return http ? 2 : 1;
}

KubeObject ReadService(const element& from) {
  KubeService service;
  service.external = TextOf(from["spec"]["type"]) == "ExternalName";
  service.ipv6 = TextOf(from["spec"]["ipFamilies"].at(0)) == "IPv6";
  simdjson::dom::array ports;
  if (from["spec"]["ports"].get(ports) != simdjson::SUCCESS) return service;
  int best = 0;
  for (const element each : ports) {
    uint64_t port = 0;
    const int rank = RankOf(each, &port);
    if (rank == 0 || port == 0) continue;
    if (rank > best) {
      for (KubePort& other : service.ports) other.called = false;
    }
    // The first of those that are not said to be weft's; of weft's, all.
    const bool called = rank > best || (rank == best && rank == 3);
    service.ports.push_back({TextOf(each["name"]), static_cast<uint32_t>(port), called});
    best = std::max(best, rank);
  }
  return service;
}

absl::Status ReadEndpoint(const element& from, bool ipv6, bool* serves, KubeEndpoint* endpoint) {
  if (!from.is_object()) return absl::InvalidArgumentError("is no object");
  bool ready = true, serving = true, terminating = false;
  element conditions;
  if (from["conditions"].get(conditions) == simdjson::SUCCESS && !conditions.is_null()) {
    WEFT_ASSIGN_OR_RETURN(ready, BoolOf(conditions, "ready", true));
    WEFT_ASSIGN_OR_RETURN(serving, BoolOf(conditions, "serving", true));
    WEFT_ASSIGN_OR_RETURN(terminating, BoolOf(conditions, "terminating", false));
  }
  endpoint->draining = terminating;
  *serves = terminating ? serving : ready;
  if (!*serves) return absl::OkStatus();
  // Only the first address has a meaning.
  endpoint->ip = TextOf(from["addresses"].at(0));
  if (!IsAddress(endpoint->ip, ipv6)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", endpoint->ip, "\" is no address"));
  }
  if (TextOf(from["targetRef"]["kind"]) == "Pod") endpoint->pod = TextOf(from["targetRef"]["uid"]);
  if (!endpoint->pod.empty()) WEFT_RETURN_IF_ERROR(CheckLabel(endpoint->pod, "pod"));
  endpoint->node = TextOf(from["nodeName"]);
  if (!endpoint->node.empty()) WEFT_RETURN_IF_ERROR(CheckLabel(endpoint->node, "node"));
  endpoint->zone = TextOf(from["zone"]);
  if (!CheckLabel(endpoint->zone, "zone").ok()) endpoint->zone.clear();  // Told of the node.
  return absl::OkStatus();
}

// Of several TCP ports: that of weft hosts, else the one for HTTP, else the first.
void ReadPorts(const element& from, KubeSlice* slice) {
  simdjson::dom::array ports;
  if (from["ports"].get(ports) != simdjson::SUCCESS) return;
  int best = 0;
  for (const element each : ports) {
    uint64_t port = 0;
    const int rank = RankOf(each, &port);
    slice->weft |= rank == 3;
    if (port == 0) continue;
    const int http_rank = rank == 3 ? 1 : rank;
    if (http_rank <= best) continue;
    best = http_rank;
    slice->port = static_cast<uint32_t>(port);
  }
}

absl::StatusOr<KubeObject> ReadSlice(const element& from, const std::string& ns, Problems* problems) {
  KubeSlice slice;
  const std::string service = TextOf(from["metadata"]["labels"]["kubernetes.io/service-name"]);
  if (service.empty()) return slice;
  slice.service = absl::StrCat(ns, "/", service);
  const std::string type = TextOf(from["addressType"]);
  if (type != "IPv4" && type != "IPv6") {
    return absl::UnimplementedError(absl::StrCat("addressType \"", type, "\" is not known"));
  }
  slice.ipv6 = type == "IPv6";
  ReadPorts(from, &slice);
  simdjson::dom::array endpoints;
  if (from["endpoints"].get(endpoints) != simdjson::SUCCESS) return slice;  // null: it has none.
  std::size_t index = 0;
  for (const element each : endpoints) {
    KubeEndpoint endpoint;
    bool serves = false;
    absl::Status status = ReadEndpoint(each, slice.ipv6, &serves, &endpoint);
    if (status.ok() && serves && slice.weft && endpoint.pod.empty()) {
      status = absl::InvalidArgumentError("is no pod, so that no weft-host is in it");
    }
    if (status.ok() && serves) {
      status = ReadKubeHints(each, &slice.hints, &endpoint.hints);
      slice.endpoints.push_back(std::move(endpoint));
    }
    if (!status.ok()) problems->Add(absl::StrCat("endpoints[", index, "]: ", status.message()));
    ++index;
  }
  if (slice.port == 0 && !slice.weft && !slice.endpoints.empty()) problems->Add("names no TCP port");
  return slice;
}

// Whether the status says what became of this generation.
bool IsTold(const element& from, const KubeVerdict& verdict) {
  simdjson::dom::array conditions;
  if (from["status"]["conditions"].get(conditions) != simdjson::SUCCESS) return false;
  for (const element each : conditions) {
    if (TextOf(each["type"]) != "Accepted") continue;
    int64_t generation = 0;
    return each["observedGeneration"].get(generation) == simdjson::SUCCESS &&
           generation == verdict.generation && TextOf(each["message"]) == verdict.message &&
           TextOf(each["status"]) == (verdict.good ? "True" : "False");
  }
  return false;
}

void ReadPolicy(const element& from, Problems* problems, KubeItem* item) {
  KubePolicy policy;
  element spec;
  if (from["spec"].get(spec) == simdjson::SUCCESS) policy.spec = simdjson::minify(spec);
  MeshObject object = api::Function();
  std::get<api::Function>(object).set_name(item->key);
  absl::Status status = CheckFunctionName(item->key);
  if (status.ok()) status = LoadObject(policy.spec, "spec", &object);
  KubeVerdict& verdict = item->verdict.emplace();
  verdict.good = status.ok();
  verdict.message = std::string(status.message());
  if (from["metadata"]["generation"].get(verdict.generation) != simdjson::SUCCESS) verdict.generation = 0;
  verdict.told = IsTold(from, verdict);
  if (!status.ok()) return problems->Add(status.message());
  policy.function = std::get<api::Function>(std::move(object));
  item->object = std::move(policy);
}

void ReadOfGatewayApi(KubeKind kind, const element& from, const std::string& ns, Problems* problems,
                      KubeItem* item) {
  KubeRoute route;
  KubeGrant grant;
  const bool is_grant = kind == KubeKind::kGrant;
  const absl::Status status = is_grant ? ReadKubeGrant(from, &grant) : ReadKubeRoute(from, ns, &route);
  if (!status.ok()) return problems->Add(status.message());
  if (is_grant) {
    item->object = std::move(grant);
  } else {
    item->object = std::move(route);
  }
}

}  // namespace

KubeItem ReadKubeItem(KubeKind kind, const element& from, absl::string_view place) {
  KubeItem item;
  const std::string name = TextOf(from["metadata"]["name"]);
  const std::string ns = TextOf(from["metadata"]["namespace"]);
  item.key = kind == KubeKind::kNode ? name : absl::StrCat(ns, "/", name);
  if (name.empty() || (kind != KubeKind::kNode && ns.empty())) {
    item.key = std::string(place);
    item.problem = "metadata: names no object";
    return item;
  }
  Problems problems(&item.problem);
  absl::Status status;
  if (kind == KubeKind::kNode) status = CheckLabel(name, "node");
  if (kind == KubeKind::kService) status = CheckFunctionName(item.key);
  if (!status.ok()) {
    problems.Add(status.message());
  } else if (kind == KubeKind::kNode) {
    item.object = ReadNode(from, &problems);
  } else if (kind == KubeKind::kService) {
    item.object = ReadService(from);
  } else if (kind == KubeKind::kPolicy) {
    ReadPolicy(from, &problems, &item);
  } else if (IsOfGatewayApi(kind)) {
    ReadOfGatewayApi(kind, from, ns, &problems, &item);
  } else if (absl::StatusOr<KubeObject> slice = ReadSlice(from, ns, &problems); slice.ok()) {
    item.object = *std::move(slice);
  } else {
    problems.Add(slice.status().message());
  }
  return item;
}

}  // namespace weft::control
