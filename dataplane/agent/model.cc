// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/model.h"

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

}  // namespace

absl::Status CheckCallerName(absl::string_view name) {
  if (absl::StrContains(name, '/')) return CheckFunctionName(name);
  return CheckLabel(name, "namespace");
}

absl::Status Model::ApplyUpserts(const api::Mesh& mesh) {
  for (const api::Node& node : mesh.nodes()) {
    WEFT_RETURN_IF_ERROR(CheckNode(node));
    nodes_[node.name()] = node;
  }
  for (const api::Function& function : mesh.functions()) {
    WEFT_RETURN_IF_ERROR(CheckFunctionName(function.name()));
    functions_[function.name()] = function;
  }
  for (const api::Endpoint& endpoint : mesh.endpoints()) {
    WEFT_RETURN_IF_ERROR(CheckEndpoint(endpoint));
    api::Endpoint& held = endpoints_[{endpoint.function(), endpoint.node(), endpoint.host()}];
    held = endpoint;
    if (held.weight() == 0) held.set_weight(100);
  }
  for (const api::Allow& rule : mesh.allow()) {
    WEFT_RETURN_IF_ERROR(CheckRuleSide(rule.from()));
    WEFT_RETURN_IF_ERROR(CheckRuleSide(rule.to()));
    allow_.emplace(rule.from(), rule.to());
  }
  if (nodes_.size() + functions_.size() + endpoints_.size() + allow_.size() > kModelEntriesMax) {
    return absl::ResourceExhaustedError(absl::StrCat("a mesh of more than ", kModelEntriesMax, " entries"));
  }
  return absl::OkStatus();
}

absl::Status Model::Apply(const api::Program& part) {
  for (const std::string& name : part.delete_nodes()) nodes_.erase(name);
  for (const std::string& name : part.delete_functions()) functions_.erase(name);
  for (const api::Endpoint& key : part.delete_endpoints()) {
    endpoints_.erase({key.function(), key.node(), key.host()});
  }
  for (const api::Allow& rule : part.delete_allow()) allow_.erase({rule.from(), rule.to()});
  return ApplyUpserts(part.upsert());
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

api::Program Model::ToSnapshot() const {
  api::Program snapshot;
  snapshot.set_generation(generation_);
  snapshot.set_snapshot(true);
  snapshot.set_last(true);
  api::Mesh& mesh = *snapshot.mutable_upsert();
  for (const auto& [name, node] : nodes_) *mesh.add_nodes() = node;
  for (const auto& [name, function] : functions_) *mesh.add_functions() = function;
  for (const auto& [key, endpoint] : endpoints_) *mesh.add_endpoints() = endpoint;
  for (const auto& [from, to] : allow_) {
    api::Allow& rule = *mesh.add_allow();
    rule.set_from(from);
    rule.set_to(to);
  }
  return snapshot;
}

}  // namespace weft::agent
