// SPDX-License-Identifier: Apache-2.0
#include "control/source/mesh_object.h"

#include <cstddef>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/ip_address.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"
#include "dataplane/config/yaml.h"

namespace weft::control {
namespace {

// Longer than any name of a host; the agent refuses a whole generation for one that is longer still.
constexpr std::size_t kHostBytesMax = 255;

void Put(nlohmann::json* json, const char* key, uint64_t value) {
  if (value != 0) (*json)[key] = value;
}
void PutDuration(nlohmann::json* json, const char* key, uint64_t ns) {
  if (ns != 0) (*json)[key] = FormatDurationNs(ns);
}
void PutBytes(nlohmann::json* json, const char* key, uint64_t bytes) {
  if (bytes != 0) (*json)[key] = FormatBytes(bytes);
}
void PutMap(nlohmann::json* json, const char* key, nlohmann::json map) {
  if (!map.empty()) (*json)[key] = std::move(map);
}

nlohmann::json JsonOf(const api::Node& node) {
  nlohmann::json json = nlohmann::json::object();
  if (!node.address().empty()) json["address"] = node.address();
  if (!node.zone().empty()) json["zone"] = node.zone();
  for (const std::string& ns : node.call_as()) json["call_as"].push_back(ns);
  return json;
}

nlohmann::json JsonOf(const api::Function& function) {
  nlohmann::json json = nlohmann::json::object();
  const api::Policy& policy = function.policy();
  if (policy.idempotent()) json["idempotent"] = true;
  if (policy.any_locality()) json["locality"] = "any";
  if (function.state() == api::INSTANCE_KEEP) json["state"] = "keep";
  PutDuration(&json, "timeout", policy.timeout_ns());
  if (policy.has_retries()) json["retries"] = policy.retries();
  Put(&json, "retry_budget", policy.retry_budget_percent());
  nlohmann::json hedge = nlohmann::json::object();
  Put(&hedge, "percentile", policy.hedge_percentile());
  Put(&hedge, "budget", policy.hedge_budget_percent());
  PutMap(&json, "hedge", std::move(hedge));
  nlohmann::json outlier = nlohmann::json::object();
  Put(&outlier, "failures", policy.outlier_failures());
  PutDuration(&outlier, "eject", policy.outlier_eject_ns());
  PutMap(&json, "outlier", std::move(outlier));
  nlohmann::json limits = nlohmann::json::object();
  Put(&limits, "concurrent_calls", policy.concurrent_calls_max());
  Put(&limits, "calls_per_second", policy.calls_per_second_max());
  PutBytes(&limits, "memory", function.guest_limits().memory_bytes_max());
  PutBytes(&limits, "stack", function.guest_limits().stack_bytes_max());
  PutDuration(&limits, "run_time", function.guest_limits().run_ns_max());
  PutMap(&json, "limits", std::move(limits));
  return json;
}

nlohmann::json JsonOf(const api::Endpoint& endpoint) {
  nlohmann::json json = nlohmann::json::object();
  if (endpoint.weight() != 0 && endpoint.weight() != kWeightDefault) json["weight"] = endpoint.weight();
  if (endpoint.state() == api::ENDPOINT_DRAINING) json["state"] = "draining";
  api::Hints hints;
  hints.ParseFromString(endpoint.hints());
  for (const std::string& zone : hints.zones()) json["zones"].push_back(zone);
  if (!endpoint.module().empty()) {
    json["module"] = endpoint.module();
    json["sha256"] = absl::BytesToHexString(endpoint.sha256());
  }
  return json;
}

nlohmann::json JsonOf(const api::Allow& /*allow*/) { return nlohmann::json::object(); }

using Names = std::vector<std::pair<const char*, std::string>>;
Names NamesOf(const api::Node& node) { return {{"name", node.name()}}; }
Names NamesOf(const api::Function& function) { return {{"name", function.name()}}; }
Names NamesOf(const api::Endpoint& endpoint) {
  return {{"function", endpoint.function()}, {"node", endpoint.node()}, {"host", endpoint.host()}};
}
Names NamesOf(const api::Allow& allow) { return {{"from", allow.from()}, {"to", allow.to()}}; }

// Names and paths may hold any byte; what is no UTF-8 is replaced, not thrown at.
std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// One element of a list: each value is JSON, which is YAML too.
template <typename T>
std::string YamlOf(const T& value) {
  std::string yaml;
  for (const auto& [key, name] : NamesOf(value)) {
    absl::StrAppend(&yaml, yaml.empty() ? "  - " : "    ", key, ": ", ControlsEscaped(Dump(name)), "\n");
  }
  const nlohmann::json fields = JsonOf(value);
  for (const auto& [key, field] : fields.items())
    absl::StrAppend(&yaml, "    ", key, ": ", ControlsEscaped(Dump(field)), "\n");
  return yaml;
}

}  // namespace

absl::Status CheckPattern(absl::string_view pattern) {
  if (!absl::ConsumeSuffix(&pattern, "/*")) return CheckFunctionName(pattern);
  return CheckLabel(pattern, "namespace");
}

absl::Status CheckAddress(absl::string_view address) {
  const std::size_t colon = address.rfind(':');
  const absl::string_view host = address.substr(0, colon == absl::string_view::npos ? 0 : colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (host.size() > kHostBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a host of ", host.size(), " bytes; at most ", kHostBytesMax));
  }
  uint32_t port = 0;
  if (host.empty() || (!bracketed && host.find(':') != absl::string_view::npos) ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port == 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is no HOST:PORT, as in 10.0.0.7:4810 or [fd00::7]:4810"));
  }
  return absl::OkStatus();
}

absl::Status CheckNodeAddress(absl::string_view address) {
  WEFT_RETURN_IF_ERROR(CheckAddress(address));
  const absl::string_view host = address.substr(0, address.rfind(':'));
  if (IsNoNodesAddress(host) || host == "0.0.0.0" || host == "[::]") {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", host, "\" is the address of no node: a multicast, broadcast, link-local or unspecified one"));
  }
  if (IsIpAddress(host)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("\"", host, "\" is no IP address, as in 10.0.0.7 or [fd00::7]; agents look no names up"));
}

absl::Status CheckObjectNames(const MeshObject& object) {
  if (const auto* node = std::get_if<api::Node>(&object)) return CheckLabel(node->name(), "node");
  if (const auto* function = std::get_if<api::Function>(&object)) return CheckFunctionName(function->name());
  if (const auto* allow = std::get_if<api::Allow>(&object)) {
    WEFT_RETURN_IF_ERROR(CheckPattern(allow->from()));
    return CheckPattern(allow->to());
  }
  const auto& endpoint = std::get<api::Endpoint>(object);
  WEFT_RETURN_IF_ERROR(CheckFunctionName(endpoint.function()));
  WEFT_RETURN_IF_ERROR(CheckLabel(endpoint.node(), "node"));
  return CheckLabel(endpoint.host(), "host");
}

EntryPtr EntryOfObject(const MeshObject& object, bool implied) {
  return std::visit([implied](const auto& value) { return MakeEntry(value, implied); }, object);
}

void AddObject(const MeshObject& object, bool implied, SourceMesh* mesh) {
  if (const auto* node = std::get_if<api::Node>(&object)) mesh->nodes.push_back({*node, {}, implied});
  if (const auto* function = std::get_if<api::Function>(&object)) {
    mesh->functions.push_back({*function, {}, implied});
  }
  if (const auto* endpoint = std::get_if<api::Endpoint>(&object)) {
    mesh->endpoints.push_back({*endpoint, {}, implied});
  }
  if (const auto* allow = std::get_if<api::Allow>(&object)) mesh->allow.push_back({*allow, {}, implied});
}

std::string ObjectJson(const MeshObject& object) {
  return std::visit([](const auto& value) { return Dump(JsonOf(value)); }, object);
}

std::string ObjectsYaml(const std::vector<MeshObject>& objects) {
  constexpr const char* kLists[] = {"nodes", "functions", "endpoints", "allow"};
  static_assert(std::variant_size_v<MeshObject> == std::size(kLists));
  std::string yaml = "version: 1\n";
  for (std::size_t kind = 0; kind < std::size(kLists); ++kind) {
    bool first = true;
    for (const MeshObject& object : objects) {
      if (object.index() != kind) continue;
      if (std::exchange(first, false)) absl::StrAppend(&yaml, kLists[kind], ":\n");
      yaml += std::visit([](const auto& value) { return YamlOf(value); }, object);
    }
  }
  return yaml;
}

}  // namespace weft::control
