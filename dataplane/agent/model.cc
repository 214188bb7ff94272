// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/model.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"

namespace weft::agent {
namespace {

// namespace/name or namespace/*
absl::Status CheckRuleSide(absl::string_view side) {
  if (absl::EndsWith(side, "/*")) return CheckLabel(side.substr(0, side.size() - 2), "namespace");
  return CheckFunctionName(side);
}

absl::Status CheckNode(const api::Node& node) {
  WEFT_RETURN_IF_ERROR(CheckLabel(node.name(), "node"));
  if (node.address().size() > kAddressBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("node ", node.name(), ": an address of ", node.address().size(), " bytes"));
  }
  return absl::OkStatus();
}

absl::Status CheckEndpoint(const api::Endpoint& endpoint) {
  WEFT_RETURN_IF_ERROR(CheckFunctionName(endpoint.function()));
  WEFT_RETURN_IF_ERROR(CheckLabel(endpoint.node(), "node"));
  WEFT_RETURN_IF_ERROR(CheckLabel(endpoint.host(), "host"));
  if (endpoint.module().empty() != endpoint.sha256().empty() ||
      (!endpoint.sha256().empty() && endpoint.sha256().size() != sizeof(Sha256))) {
    return absl::InvalidArgumentError(absl::StrCat("endpoint of ", endpoint.function(), " on host ",
                                                   endpoint.host(),
                                                   ": needs a module and its 32 byte SHA-256, or neither"));
  }
  if (endpoint.weight() > 1000) {
    return absl::InvalidArgumentError(absl::StrCat("endpoint of ", endpoint.function(), " on host ",
                                                   endpoint.host(), ": weight ", endpoint.weight(),
                                                   " is above 1000"));
  }
  return absl::OkStatus();
}

// About 64 KiB of endpoints.
constexpr std::size_t kPartEntries = 512;

api::Allow RuleOf(const std::string& from, const std::string& to) {
  api::Allow rule;
  rule.set_from(from);
  rule.set_to(to);
  return rule;
}

}  // namespace

absl::Status CheckCallerName(absl::string_view name) {
  if (absl::StrContains(name, '/')) return CheckFunctionName(name);
  return CheckLabel(name, "namespace");
}

absl::Status Model::ApplyUpserts(const api::Mesh& mesh) {
  for (const api::Node& node : mesh.nodes()) {
    WEFT_RETURN_IF_ERROR(CheckNode(node));
    nodes_.Put(node.name(), node);
  }
  for (const api::Function& function : mesh.functions()) {
    WEFT_RETURN_IF_ERROR(CheckFunctionName(function.name()));
    functions_.Put(function.name(), function);
  }
  for (const api::Endpoint& endpoint : mesh.endpoints()) {
    WEFT_RETURN_IF_ERROR(CheckEndpoint(endpoint));
    api::Endpoint held = endpoint;
    if (held.weight() == 0) held.set_weight(100);
    endpoints_.Put({endpoint.function(), endpoint.node(), endpoint.host()}, std::move(held));
  }
  for (const api::Allow& rule : mesh.allow()) {
    WEFT_RETURN_IF_ERROR(CheckRuleSide(rule.from()));
    WEFT_RETURN_IF_ERROR(CheckRuleSide(rule.to()));
    // One that is put again would look like a change.
    if (!allow_.contains({rule.from(), rule.to()})) allow_.Put({rule.from(), rule.to()}, {});
  }
  return absl::OkStatus();
}

absl::Status Model::Apply(const api::Program& part) {
  for (const std::string& name : part.delete_nodes()) nodes_.Erase(name);
  for (const std::string& name : part.delete_functions()) functions_.Erase(name);
  for (const api::Endpoint& key : part.delete_endpoints()) {
    endpoints_.Erase({key.function(), key.node(), key.host()});
  }
  for (const api::Allow& rule : part.delete_allow()) allow_.Erase({rule.from(), rule.to()});
  WEFT_RETURN_IF_ERROR(ApplyUpserts(part.upsert()));
  // What is new comes first, and what goes perhaps in a later part: only the whole must hold.
  const std::size_t entries_max = part.last() ? kModelEntriesMax : 2 * kModelEntriesMax;
  if (nodes_.size() + functions_.size() + endpoints_.size() + allow_.size() > entries_max) {
    return absl::ResourceExhaustedError(absl::StrCat("a mesh of more than ", kModelEntriesMax, " entries"));
  }
  return absl::OkStatus();
}

bool Model::Allows(absl::string_view caller, absl::string_view callee) const {
  if (NamespaceOf(caller) == NamespaceOf(callee)) return true;
  const std::string from_all = absl::StrCat(NamespaceOf(caller), "/*");
  const std::string to_all = absl::StrCat(NamespaceOf(callee), "/*");
  const std::string from(caller);
  const std::string to(callee);
  return allow_.contains({from, to}) || allow_.contains({from, to_all}) || allow_.contains({from_all, to}) ||
         allow_.contains({from_all, to_all});
}

void Model::EachSnapshotPart(const std::function<void(const api::Program&)>& take) const {
  api::Program part;
  part.set_generation(generation_);
  part.set_snapshot(true);
  part.set_last(true);
  std::size_t entries = 0;
  const auto next = [&] {
    if (++entries % kPartEntries != 0) return;
    take(part);
    part.Clear();
  };
  for (const auto& [name, node] : nodes_) {
    *part.mutable_upsert()->add_nodes() = node;
    next();
  }
  for (const auto& [name, function] : functions_) {
    *part.mutable_upsert()->add_functions() = function;
    next();
  }
  for (const auto& [key, endpoint] : endpoints_) {
    *part.mutable_upsert()->add_endpoints() = endpoint;
    next();
  }
  for (const auto& [rule, allowed] : allow_) {
    *part.mutable_upsert()->add_allow() = RuleOf(rule.first, rule.second);
    next();
  }
  take(part);
}

std::optional<api::Program> Model::DeltaFrom(const Model& before, std::size_t entries_max) const {
  api::Program delta;
  delta.set_generation(generation_);
  delta.set_last(true);
  std::size_t entries = 0;
  Nodes::EachDifference(before.nodes_, nodes_,
                        [&](const std::string& name, const api::Node*, const api::Node* node) {
                          if (++entries > entries_max) return;
                          if (node == nullptr) {
                            delta.add_delete_nodes(name);
                          } else {
                            *delta.mutable_upsert()->add_nodes() = *node;
                          }
                        });
  Functions::EachDifference(
      before.functions_, functions_,
      [&](const std::string& name, const api::Function*, const api::Function* function) {
        if (++entries > entries_max) return;
        if (function == nullptr) {
          delta.add_delete_functions(name);
        } else {
          *delta.mutable_upsert()->add_functions() = *function;
        }
      });
  Endpoints::EachDifference(before.endpoints_, endpoints_,
                            [&](const EndpointKey& key, const api::Endpoint*, const api::Endpoint* endpoint) {
                              if (++entries > entries_max) return;
                              if (endpoint != nullptr) {
                                *delta.mutable_upsert()->add_endpoints() = *endpoint;
                                return;
                              }
                              api::Endpoint& gone = *delta.add_delete_endpoints();
                              gone.set_function(key.function);
                              gone.set_node(key.node);
                              gone.set_host(key.host);
                            });
  Rules::EachDifference(before.allow_, allow_, [&](const auto& rule, const Allowed*, const Allowed* allowed) {
    if (++entries > entries_max) return;
    *(allowed != nullptr ? delta.mutable_upsert()->add_allow() : delta.add_delete_allow()) =
        RuleOf(rule.first, rule.second);
  });
  if (entries > entries_max) return std::nullopt;
  return delta;
}

}  // namespace weft::agent
