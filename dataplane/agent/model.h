// SPDX-License-Identifier: Apache-2.0
// The mesh as programmed by control: what the agent holds of nodes, functions, endpoints and rules, one
// generation of it. Pure data; a new generation is a changed copy, which shares what has not changed, so that
// a round of the engine keeps the one it began with. Changed and copied by the owner thread only; one that
// nobody changes any more may be read by any.
#ifndef WEFT_DATAPLANE_AGENT_MODEL_H_
#define WEFT_DATAPLANE_AGENT_MODEL_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/agent/cow_map.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/api/mesh.pb.h"

namespace weft::agent {

// Bounds of what control may program, so that a mistake there cannot exhaust the agent.
inline constexpr std::size_t kModelEntriesMax = 250'000;
// A table of nodes is told in messages: one of 60 KB would end the node engine's connection each time.
inline constexpr std::size_t kAddressBytesMax = 300;

struct EndpointKey {
  std::string function;
  std::string node;
  std::string host;
  friend auto operator<=>(const EndpointKey&, const EndpointKey&) = default;
};

class Model {
 public:
  using Nodes = CowMap<std::string, api::Node>;
  using Functions = CowMap<std::string, api::Function>;
  using Endpoints = CowMap<EndpointKey, api::Endpoint>;
  struct Allowed {};
  using Rules = CowMap<std::pair<std::string, std::string>, Allowed>;  // By from and to

  uint64_t generation() const { return generation_; }
  const Nodes& nodes() const { return nodes_; }
  const Functions& functions() const { return functions_; }
  const Endpoints& endpoints() const { return endpoints_; }
  const Rules& allow() const { return allow_; }

  // Takes one part of a generation in. INVALID_ARGUMENT names what is wrong with it; the model is then half
  // changed and of no more use. A snapshot's parts go into an empty model.
  absl::Status Apply(const api::Program& part);
  void set_generation(uint64_t generation) { generation_ = generation; }

  // Whether `caller`, a function or a namespace, may call `callee`. Within a namespace always; else by a
  // rule.
  bool Allows(absl::string_view caller, absl::string_view callee) const;

  // Calls take(part) with the whole as a snapshot, in parts of some 64 KiB: one part's bytes behind the
  // other's are those of one message with all of it.
  void EachSnapshotPart(const std::function<void(const api::Program&)>& take) const;
  // What makes this model of `before`, as one part; nothing where more than `entries_max` entries differ.
  std::optional<api::Program> DeltaFrom(const Model& before, std::size_t entries_max) const;

 private:
  absl::Status ApplyUpserts(const api::Mesh& mesh);

  uint64_t generation_ = 0;
  Nodes nodes_;
  Functions functions_;
  Endpoints endpoints_;
  Rules allow_;
};

// OK for a function's name or a namespace: what may stand for a caller.
absl::Status CheckCallerName(absl::string_view name);

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_MODEL_H_
