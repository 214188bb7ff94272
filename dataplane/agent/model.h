// SPDX-License-Identifier: Apache-2.0
// The mesh as programmed by control: what the agent holds of nodes, functions, endpoints and rules, one
// generation of it. Pure data; a new generation is a changed copy, so that a round of the engine keeps the
// one it began with. Owner thread only.
#ifndef WEFT_DATAPLANE_AGENT_MODEL_H_
#define WEFT_DATAPLANE_AGENT_MODEL_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/api/mesh.pb.h"

namespace weft::agent {

// Bounds of what control may program, so that a mistake there cannot exhaust the agent.
inline constexpr std::size_t kModelEntriesMax = 100'000;
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
  uint64_t generation() const { return generation_; }
  const std::map<std::string, api::Node>& nodes() const { return nodes_; }
  const std::map<std::string, api::Function>& functions() const { return functions_; }
  const std::map<EndpointKey, api::Endpoint>& endpoints() const { return endpoints_; }
  const std::set<std::pair<std::string, std::string>>& allow() const { return allow_; }

  // Takes one part of a generation in. INVALID_ARGUMENT names what is wrong with it; the model is then half
  // changed and of no more use. A snapshot's parts go into an empty model.
  absl::Status Apply(const api::Program& part);
  void set_generation(uint64_t generation) { generation_ = generation; }

  // Whether `caller`, a function or a namespace, may call `callee`. Within a namespace always; else by a
  // rule.
  bool Allows(absl::string_view caller, absl::string_view callee) const;

  // The whole as the one part of a snapshot: what routes.pb holds.
  api::Program ToSnapshot() const;

 private:
  absl::Status ApplyUpserts(const api::Mesh& mesh);

  uint64_t generation_ = 0;
  std::map<std::string, api::Node> nodes_;
  std::map<std::string, api::Function> functions_;
  std::map<EndpointKey, api::Endpoint> endpoints_;
  std::set<std::pair<std::string, std::string>> allow_;
};

// OK for a function's name or a namespace: what may stand for a caller.
absl::Status CheckCallerName(absl::string_view name);

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_MODEL_H_
