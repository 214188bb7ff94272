// SPDX-License-Identifier: Apache-2.0
#include "control/source/etcd/etcd_keys.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

// False where `parts` are not those of a key of this kind.
bool Named(absl::string_view kind, const std::vector<std::string>& parts, MeshObject* object) {
  if (kind == "nodes" && parts.size() == 1) {
    object->emplace<api::Node>().set_name(parts[0]);
  } else if (kind == "functions" && parts.size() == 2) {
    object->emplace<api::Function>().set_name(absl::StrCat(parts[0], "/", parts[1]));
  } else if (kind == "endpoints" && parts.size() == 4) {
    auto& endpoint = object->emplace<api::Endpoint>();
    endpoint.set_node(parts[0]);
    endpoint.set_host(parts[1]);
    endpoint.set_function(absl::StrCat(parts[2], "/", parts[3]));
  } else if (kind == "allow" && parts.size() == 4) {
    auto& allow = object->emplace<api::Allow>();
    allow.set_from(absl::StrCat(parts[0], "/", parts[1]));
    allow.set_to(absl::StrCat(parts[2], "/", parts[3]));
  } else {
    return false;
  }
  return true;
}

std::string Below(const api::Node& node) { return absl::StrCat("nodes/", node.name()); }
std::string Below(const api::Function& function) { return absl::StrCat("functions/", function.name()); }
std::string Below(const api::Endpoint& endpoint) {
  return absl::StrCat("endpoints/", endpoint.node(), "/", endpoint.host(), "/", endpoint.function());
}
std::string Below(const api::Allow& allow) { return absl::StrCat("allow/", allow.from(), "/", allow.to()); }

}  // namespace

absl::StatusOr<EtcdName> ParseEtcdKey(absl::string_view key) {
  EtcdName name;
  name.live = absl::ConsumePrefix(&key, "live/");
  std::vector<std::string> parts = absl::StrSplit(key, '/');
  const std::string kind = parts.front();
  parts.erase(parts.begin());
  const bool may_live = kind == "nodes" || kind == "endpoints";
  if (!Named(kind, parts, &name.object) || (name.live && !may_live)) {
    return absl::InvalidArgumentError("is no key of a node, function, endpoint or rule");
  }
  WEFT_RETURN_IF_ERROR(CheckObjectNames(name.object));
  return name;
}

std::string EtcdKeyOf(const MeshObject& object, bool live) {
  return absl::StrCat(live ? "live/" : "",
                      std::visit([](const auto& value) { return Below(value); }, object));
}

std::string EtcdPrefixEnd(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');  // To the end of all keys.
  prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

}  // namespace weft::control
