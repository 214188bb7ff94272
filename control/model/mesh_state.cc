// SPDX-License-Identifier: Apache-2.0
#include "control/model/mesh_state.h"

#include <utility>

namespace weft::control {
namespace {

// Equality of messages without maps or unknown fields, whose encoding is therefore unique.
template <typename Message>
bool Same(const Message& a, const Message& b) {
  return a.ByteSizeLong() == b.ByteSizeLong() && a.SerializeAsString() == b.SerializeAsString();
}

template <typename Map>
bool SameMaps(const Map& a, const Map& b) {
  if (a.size() != b.size()) return false;
  for (auto i = a.begin(), j = b.begin(); i != a.end(); ++i, ++j) {
    if (i->first != j->first || !Same(i->second, j->second)) return false;
  }
  return true;
}

api::Endpoint ToMessage(const EndpointKey& key) {
  api::Endpoint endpoint;
  endpoint.set_function(key.function);
  endpoint.set_node(key.node);
  endpoint.set_host(key.host);
  return endpoint;
}

api::Allow ToMessage(const AllowKey& key) {
  api::Allow allow;
  allow.set_from(key.from);
  allow.set_to(key.to);
  return allow;
}

// Spreads items over parts of bounded size.
class Packer {
 public:
  Packer(uint64_t generation, bool snapshot) : generation_(generation), snapshot_(snapshot) {}

  // The part that takes the next item of `bytes`.
  api::Program& Room(std::size_t bytes) {
    // Tags and lengths of the item and of the messages around it: at most 6 bytes each, two deep.
    bytes += 12;
    if (parts_.empty() || used_ + bytes > kProgramPartBytesMax) {
      parts_.emplace_back();
      parts_.back().set_generation(generation_);
      parts_.back().set_snapshot(snapshot_);
      used_ = 32;
    }
    used_ += bytes;
    return parts_.back();
  }

  std::vector<api::Program> Finish() {
    if (!parts_.empty()) parts_.back().set_last(true);
    return std::move(parts_);
  }

 private:
  uint64_t generation_;
  bool snapshot_;
  std::size_t used_ = 0;
  std::vector<api::Program> parts_;
};

// Calls add(value) for what is new or different in `to`.
template <typename Map, typename Add>
void EachAdded(const Map& from, const Map& to, Add&& add) {
  for (const auto& [key, value] : to) {
    const auto old = from.find(key);
    if (old == from.end() || !Same(old->second, value)) add(value);
  }
}

// Calls remove(key) for what `to` has no more.
template <typename Map, typename Remove>
void EachRemoved(const Map& from, const Map& to, Remove&& remove) {
  for (const auto& [key, value] : from) {
    if (!to.contains(key)) remove(key);
  }
}

void PackAdditions(const MeshState& from, const MeshState& to, Packer* packer) {
  EachAdded(from.nodes, to.nodes, [&](const api::Node& node) {
    *packer->Room(node.ByteSizeLong()).mutable_upsert()->add_nodes() = node;
  });
  EachAdded(from.functions, to.functions, [&](const api::Function& function) {
    *packer->Room(function.ByteSizeLong()).mutable_upsert()->add_functions() = function;
  });
  EachAdded(from.endpoints, to.endpoints, [&](const api::Endpoint& endpoint) {
    *packer->Room(endpoint.ByteSizeLong()).mutable_upsert()->add_endpoints() = endpoint;
  });
  for (const AllowKey& key : to.allow) {
    if (from.allow.contains(key)) continue;
    const api::Allow allow = ToMessage(key);
    *packer->Room(allow.ByteSizeLong()).mutable_upsert()->add_allow() = allow;
  }
}

void PackDeletions(const MeshState& from, const MeshState& to, Packer* packer) {
  EachRemoved(from.endpoints, to.endpoints, [&](const EndpointKey& key) {
    const api::Endpoint endpoint = ToMessage(key);
    *packer->Room(endpoint.ByteSizeLong()).add_delete_endpoints() = endpoint;
  });
  for (const AllowKey& key : from.allow) {
    if (to.allow.contains(key)) continue;
    const api::Allow allow = ToMessage(key);
    *packer->Room(allow.ByteSizeLong()).add_delete_allow() = allow;
  }
  EachRemoved(from.functions, to.functions,
              [&](const std::string& name) { packer->Room(name.size()).add_delete_functions(name); });
  EachRemoved(from.nodes, to.nodes,
              [&](const std::string& name) { packer->Room(name.size()).add_delete_nodes(name); });
}

}  // namespace

EndpointKey KeyOf(const api::Endpoint& endpoint) {
  return {endpoint.function(), endpoint.node(), endpoint.host()};
}

AllowKey KeyOf(const api::Allow& allow) { return {allow.from(), allow.to()}; }

bool operator==(const MeshState& a, const MeshState& b) {
  return a.allow == b.allow && SameMaps(a.nodes, b.nodes) && SameMaps(a.functions, b.functions) &&
         SameMaps(a.endpoints, b.endpoints);
}

std::vector<api::Program> MakeSnapshot(const MeshState& to, uint64_t generation) {
  Packer packer(generation, true);
  packer.Room(0);  // An empty state is one part, too.
  PackAdditions(MeshState{}, to, &packer);
  return packer.Finish();
}

std::vector<api::Program> MakeDelta(const MeshState& from, const MeshState& to, uint64_t generation) {
  Packer packer(generation, false);
  PackAdditions(from, to, &packer);
  PackDeletions(from, to, &packer);
  return packer.Finish();
}

void ApplyProgram(absl::Span<const api::Program> parts, MeshState* state) {
  if (!parts.empty() && parts.front().snapshot()) *state = {};
  for (const api::Program& part : parts) {
    for (const api::Node& node : part.upsert().nodes()) state->nodes[node.name()] = node;
    for (const api::Function& function : part.upsert().functions()) {
      state->functions[function.name()] = function;
    }
    for (const api::Endpoint& endpoint : part.upsert().endpoints()) {
      state->endpoints[KeyOf(endpoint)] = endpoint;
    }
    for (const api::Allow& allow : part.upsert().allow()) state->allow.insert(KeyOf(allow));
  }
  for (const api::Program& part : parts) {
    for (const api::Endpoint& endpoint : part.delete_endpoints()) state->endpoints.erase(KeyOf(endpoint));
    for (const api::Allow& allow : part.delete_allow()) state->allow.erase(KeyOf(allow));
    for (const std::string& name : part.delete_functions()) state->functions.erase(name);
    for (const std::string& name : part.delete_nodes()) state->nodes.erase(name);
  }
}

}  // namespace weft::control
