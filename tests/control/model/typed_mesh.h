// SPDX-License-Identifier: Apache-2.0
// What is in force in a mesh, as messages by name: what tests compare, and what an agent holds.
#ifndef WEFT_TESTS_CONTROL_MODEL_TYPED_MESH_H_
#define WEFT_TESTS_CONTROL_MODEL_TYPED_MESH_H_

#include <compare>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "control/model/mesh_state.h"

namespace weft::control {

struct EndpointName {
  std::string function;
  std::string node;
  std::string host;
  friend auto operator<=>(const EndpointName&, const EndpointName&) = default;
};

struct TypedMesh {
  std::map<std::string, api::Node> nodes;
  std::map<std::string, api::Function> functions;
  std::map<EndpointName, api::Endpoint> endpoints;
  std::set<std::pair<std::string, std::string>> allow;

  bool empty() const { return nodes.empty() && functions.empty() && endpoints.empty() && allow.empty(); }
  void Add(const api::Endpoint& endpoint) {
    endpoints[{endpoint.function(), endpoint.node(), endpoint.host()}] = endpoint;
  }
};

inline MeshState CompactOf(const TypedMesh& mesh) {
  MeshState state;
  for (const auto& [name, node] : mesh.nodes) state.Put(MakeEntry(node));
  for (const auto& [name, function] : mesh.functions) state.Put(MakeEntry(function));
  for (const auto& [name, endpoint] : mesh.endpoints) state.Put(MakeEntry(endpoint));
  for (const auto& [from, to] : mesh.allow) {
    api::Allow allow;
    allow.set_from(from);
    allow.set_to(to);
    state.Put(MakeEntry(allow));
  }
  return state;
}

inline TypedMesh TypedOf(const MeshState& state) {
  TypedMesh mesh;
  for (const EntryPtr& entry : state) {
    const std::string name(entry->key().names[0]);
    if (entry->kind == EntryKind::kNode) mesh.nodes[name] = MessageOf<api::Node>(*entry);
    if (entry->kind == EntryKind::kFunction) mesh.functions[name] = MessageOf<api::Function>(*entry);
    if (entry->kind == EntryKind::kEndpoint) mesh.Add(MessageOf<api::Endpoint>(*entry));
    if (entry->kind == EntryKind::kAllow) mesh.allow.emplace(name, entry->key().names[1]);
  }
  return mesh;
}

// What makes `to` of `from`.
inline std::vector<EntryChange> ChangesOf(const MeshState& from, const MeshState& to) {
  std::vector<EntryChange> changes;
  for (const EntryPtr& entry : to) {
    EntryPtr before = from.Find(entry->key());
    if (!SameValue(before, entry)) changes.push_back({std::move(before), entry});
  }
  for (const EntryPtr& entry : from) {
    if (!to.Contains(entry->key())) changes.push_back({entry, nullptr});
  }
  return changes;
}

inline bool Same(const MeshState& a, const MeshState& b) {
  return a.size() == b.size() && ChangesOf(a, b).empty();
}

inline bool operator==(const TypedMesh& a, const TypedMesh& b) { return Same(CompactOf(a), CompactOf(b)); }

// Applies the parts of one generation as an agent does. `parts` is whole: its last one says so.
inline void ApplyProgram(absl::Span<const api::Program> parts, TypedMesh* mesh) {
  if (!parts.empty() && parts.front().snapshot()) *mesh = {};
  for (const api::Program& part : parts) {
    for (const api::Node& node : part.upsert().nodes()) mesh->nodes[node.name()] = node;
    for (const api::Function& function : part.upsert().functions()) {
      mesh->functions[function.name()] = function;
    }
    for (const api::Endpoint& endpoint : part.upsert().endpoints()) mesh->Add(endpoint);
    for (const api::Allow& allow : part.upsert().allow()) mesh->allow.emplace(allow.from(), allow.to());
  }
  for (const api::Program& part : parts) {
    for (const api::Endpoint& endpoint : part.delete_endpoints()) {
      mesh->endpoints.erase({endpoint.function(), endpoint.node(), endpoint.host()});
    }
    for (const api::Allow& allow : part.delete_allow()) mesh->allow.erase({allow.from(), allow.to()});
    for (const std::string& name : part.delete_functions()) mesh->functions.erase(name);
    for (const std::string& name : part.delete_nodes()) mesh->nodes.erase(name);
  }
}

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_MODEL_TYPED_MESH_H_
