// SPDX-License-Identifier: Apache-2.0
// What a whole mesh is at one moment, as weft-control would have it, and the messages that take an agent from
// one such state to another. Pure values; any thread.
#ifndef WEFT_CONTROL_MODEL_MESH_STATE_H_
#define WEFT_CONTROL_MODEL_MESH_STATE_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/types/span.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/api/mesh.pb.h"

namespace weft::control {

struct EndpointKey {
  std::string function;
  std::string node;
  std::string host;
  friend auto operator<=>(const EndpointKey&, const EndpointKey&) = default;
};

struct AllowKey {
  std::string from;
  std::string to;
  friend auto operator<=>(const AllowKey&, const AllowKey&) = default;
};

EndpointKey KeyOf(const api::Endpoint& endpoint);
AllowKey KeyOf(const api::Allow& allow);

// Ordered, so that equal states make equal messages and files.
struct MeshState {
  absl::btree_map<std::string, api::Node> nodes;
  absl::btree_map<std::string, api::Function> functions;
  absl::btree_map<EndpointKey, api::Endpoint> endpoints;
  absl::btree_set<AllowKey> allow;

  bool empty() const { return nodes.empty() && functions.empty() && endpoints.empty() && allow.empty(); }
  friend bool operator==(const MeshState& a, const MeshState& b);
};

// The most bytes of one part: below the limit of a packet on the admin socket by more than its envelope.
inline constexpr std::size_t kProgramPartBytesMax = 60 * 1024;

// The parts, in order, that make `to` of whatever the agent holds. At least one.
std::vector<api::Program> MakeSnapshot(const MeshState& to, uint64_t generation);

// The parts that make `to` of `from`; all additions precede all deletions. Empty where the states are equal.
std::vector<api::Program> MakeDelta(const MeshState& from, const MeshState& to, uint64_t generation);

// Applies the parts of one generation as an agent does. `parts` is whole: its last one says so.
void ApplyProgram(absl::Span<const api::Program> parts, MeshState* state);

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_MESH_STATE_H_
