// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_route_json.h"

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "control/source/kubernetes/kube_element.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

using simdjson::dom::element;

constexpr uint64_t kWeightMax = 1'000'000;
constexpr absl::Duration kTimeoutMax = absl::Hours(1);

// The same text for the same JSON, whatever the order of its keys.
std::string Normalized(const element& from) {
  const nlohmann::json json = nlohmann::json::parse(simdjson::minify(from), nullptr, false);
  return json.is_discarded() ? "" : json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Absent and null are the same. Error where it is something else than T.
template <typename T>
absl::Status ReadOf(const element& from, const char* key, T* value) {
  element found;
  if (from[key].get(found) != simdjson::SUCCESS || found.is_null()) return absl::OkStatus();
  if (found.get(*value) == simdjson::SUCCESS) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(key, ": is of a wrong type"));
}

absl::Status ReadText(const element& from, const char* key, std::string* text) {
  std::string_view view(*text);
  WEFT_RETURN_IF_ERROR(ReadOf(from, key, &view));
  *text = std::string(view);
  return absl::OkStatus();
}

absl::Status ReadUint(const element& from, const char* key, uint64_t max, uint32_t* number) {
  uint64_t value = *number;
  const absl::Status status = ReadOf(from, key, &value);
  if (!status.ok() || value > max) {
    return absl::InvalidArgumentError(absl::StrCat(key, ": is no number from 0 to ", max));
  }
  *number = static_cast<uint32_t>(value);
  return absl::OkStatus();
}

// Calls each(element) for what the list at `key` holds; an error is told with its place.
template <typename Each>
absl::Status ReadList(const element& from, const char* key, Each&& each) {
  simdjson::dom::array list;
  WEFT_RETURN_IF_ERROR(ReadOf(from, key, &list));
  element found;
  if (from[key].get(found) != simdjson::SUCCESS || found.is_null()) return absl::OkStatus();
  std::size_t index = 0;
  for (const element one : list) {
    absl::Status status = one.is_object() ? each(one) : absl::InvalidArgumentError("is no object");
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(key, "[", index, "]: ", status.message()));
    }
    ++index;
  }
  return absl::OkStatus();
}

// Whether there is nothing there that says anything.
bool IsEmpty(const element& value) {
  simdjson::dom::array list;
  simdjson::dom::object object;
  if (value.get(list) == simdjson::SUCCESS) return list.size() == 0;
  if (value.get(object) == simdjson::SUCCESS) return object.size() == 0;
  return value.is_null();
}

// The first key of `from` that says something and is not one of `known`; empty: none.
std::string KeyBeside(const element& from, std::initializer_list<std::string_view> known) {
  simdjson::dom::object object;
  if (from.get(object) != simdjson::SUCCESS) return "";
  for (const auto& field : object) {
    bool is_known = false;
    for (const std::string_view name : known) is_known |= field.key == name;
    if (!is_known && !IsEmpty(field.value)) return std::string(field.key);
  }
  return "";
}

absl::Status ReadParent(const element& from, const std::string& ns, KubeRoute* route) {
  std::string group(kGatewayGroup), kind = "Gateway";
  KubeParentRef parent;
  parent.ns = ns;
  WEFT_RETURN_IF_ERROR(ReadText(from, "group", &group));
  WEFT_RETURN_IF_ERROR(ReadText(from, "kind", &kind));
  if (!group.empty() || kind != "Service") return absl::OkStatus();
  WEFT_RETURN_IF_ERROR(ReadText(from, "namespace", &parent.ns));
  WEFT_RETURN_IF_ERROR(ReadText(from, "name", &parent.name));
  WEFT_RETURN_IF_ERROR(ReadText(from, "sectionName", &parent.section));
  WEFT_RETURN_IF_ERROR(ReadUint(from, "port", kPortMax, &parent.port));
  WEFT_RETURN_IF_ERROR(CheckFunctionName(absl::StrCat(parent.ns, "/", parent.name)));
  parent.json = Normalized(from);
  route->parents.push_back(std::move(parent));
  return absl::OkStatus();
}

absl::Status ReadBackend(const element& from, const std::string& ns, KubeRule* rule) {
  std::string group, kind = "Service";
  KubeBackendRef backend;
  backend.ns = ns;
  WEFT_RETURN_IF_ERROR(ReadText(from, "group", &group));
  WEFT_RETURN_IF_ERROR(ReadText(from, "kind", &kind));
  if (!group.empty() || kind != "Service") backend.other_kind = absl::StrCat(group, "/", kind);
  WEFT_RETURN_IF_ERROR(ReadText(from, "namespace", &backend.ns));
  WEFT_RETURN_IF_ERROR(ReadText(from, "name", &backend.name));
  WEFT_RETURN_IF_ERROR(ReadUint(from, "port", kPortMax, &backend.port));
  WEFT_RETURN_IF_ERROR(ReadUint(from, "weight", kWeightMax, &backend.weight));
  if (backend.other_kind.empty()) {
    WEFT_RETURN_IF_ERROR(CheckFunctionName(absl::StrCat(backend.ns, "/", backend.name)));
  }
  const std::string other = KeyBeside(from, {"group", "kind", "namespace", "name", "port", "weight"});
  if (!other.empty() && rule->unsupported.empty()) {
    rule->unsupported = absl::StrCat("backendRefs[", rule->backends.size(), "].", other);
  }
  rule->backends.push_back(std::move(backend));
  return absl::OkStatus();
}

// Why not all calls match it; empty: they do.
std::string NarrowsBy(const element& match) {
  std::string other = KeyBeside(match, {"path"});
  if (!other.empty()) return other;
  element path;
  if (match["path"].get(path) != simdjson::SUCCESS || IsEmpty(path)) return "";
  const std::string type = TextOf(path["type"]);
  const std::string value = TextOf(path["value"]);
  const bool all = (type.empty() || type == "PathPrefix") && (value.empty() || value == "/");
  return all ? "" : "path";
}

// What a FunctionPolicy may say too, and the Gateway API's durations are written alike: "1h30m", "250ms".
absl::Status ReadTimeouts(const element& from, KubeRule* rule) {
  element timeouts;
  if (from["timeouts"].get(timeouts) != simdjson::SUCCESS || IsEmpty(timeouts)) return absl::OkStatus();
  const std::string other = KeyBeside(timeouts, {"request"});
  if (!other.empty() && rule->unsupported.empty()) rule->unsupported = absl::StrCat("timeouts.", other);
  std::string text;
  WEFT_RETURN_IF_ERROR(ReadText(timeouts, "request", &text));
  if (text.empty()) return absl::OkStatus();
  absl::Duration timeout;
  if (!absl::ParseDuration(text, &timeout) || timeout < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("timeouts.request: \"", text, "\" is no duration"));
  }
  // 0 is none at all, and a call of weft's always has one.
  if (timeout < absl::Microseconds(1) || timeout > kTimeoutMax) {
    if (rule->unsupported.empty()) rule->unsupported = absl::StrCat("timeouts.request of ", text);
    return absl::OkStatus();
  }
  rule->timeout_ns = static_cast<uint64_t>(absl::ToInt64Nanoseconds(timeout));
  return absl::OkStatus();
}

absl::Status ReadRule(const element& from, const std::string& ns, KubeRoute* route) {
  KubeRule& rule = route->rules.emplace_back();
  // Any one of several matches is enough.
  bool all = false;
  std::string narrows;
  std::size_t index = 0;
  WEFT_RETURN_IF_ERROR(ReadList(from, "matches", [&](const element& match) {
    const std::string by = NarrowsBy(match);
    all |= by.empty();
    if (narrows.empty()) narrows = absl::StrCat("matches[", index, "].", by);
    ++index;
    return absl::OkStatus();
  }));
  if (index != 0 && !all) rule.unsupported = narrows;
  const std::string other = KeyBeside(from, {"name", "matches", "backendRefs", "timeouts"});
  if (!other.empty() && rule.unsupported.empty()) rule.unsupported = other;
  WEFT_RETURN_IF_ERROR(ReadTimeouts(from, &rule));
  return ReadList(from, "backendRefs",
                  [&](const element& backend) { return ReadBackend(backend, ns, &rule); });
}

}  // namespace

absl::Status ReadKubeRoute(const element& from, const std::string& ns, KubeRoute* route) {
  route->created = TextOf(from["metadata"]["creationTimestamp"]);
  route->version = TextOf(from["metadata"]["resourceVersion"]);
  if (from["metadata"]["generation"].get(route->generation) != simdjson::SUCCESS) route->generation = 0;
  element part;
  if (from["status"]["parents"].get(part) == simdjson::SUCCESS) route->status_parents = Normalized(part);
  if (from["spec"].get(part) != simdjson::SUCCESS || !part.is_object()) {
    return absl::InvalidArgumentError("spec: is no object");
  }
  absl::Status status =
      ReadList(part, "parentRefs", [&](const element& parent) { return ReadParent(parent, ns, route); });
  if (status.ok()) {
    status = ReadList(part, "rules", [&](const element& rule) { return ReadRule(rule, ns, route); });
  }
  return status.ok() ? status : absl::InvalidArgumentError(absl::StrCat("spec.", status.message()));
}

absl::Status ReadKubeGrant(const element& from, KubeGrant* grant) {
  element spec;
  if (from["spec"].get(spec) != simdjson::SUCCESS || !spec.is_object()) {
    return absl::InvalidArgumentError("spec: is no object");
  }
  absl::Status status = ReadList(spec, "from", [&](const element& one) {
    std::string group;
    KubeGrant::From read;
    WEFT_RETURN_IF_ERROR(ReadText(one, "group", &group));
    WEFT_RETURN_IF_ERROR(ReadText(one, "kind", &read.kind));
    WEFT_RETURN_IF_ERROR(ReadText(one, "namespace", &read.ns));
    if (group == kGatewayGroup) grant->from.push_back(std::move(read));
    return absl::OkStatus();
  });
  if (status.ok()) {
    status = ReadList(spec, "to", [&](const element& one) {
      std::string group, kind, name;
      WEFT_RETURN_IF_ERROR(ReadText(one, "group", &group));
      WEFT_RETURN_IF_ERROR(ReadText(one, "kind", &kind));
      WEFT_RETURN_IF_ERROR(ReadText(one, "name", &name));
      if (group.empty() && kind == "Service") grant->to.push_back(std::move(name));
      return absl::OkStatus();
    });
  }
  return status.ok() ? status : absl::InvalidArgumentError(absl::StrCat("spec.", status.message()));
}

}  // namespace weft::control
