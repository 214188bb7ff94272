// SPDX-License-Identifier: Apache-2.0
// What each source says, and the one mesh that follows from all of them. A source is one file, or one watch
// of an orchestrator. Merging is where everything is checked that takes more than one line to see:
// duplicates, names that nothing declares, wire ids that collide. Pure; any thread.
#ifndef WEFT_CONTROL_MODEL_MERGE_H_
#define WEFT_CONTROL_MODEL_MERGE_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "control/model/mesh_state.h"
#include "dataplane/base/function_id.h"

namespace weft::control {

// Line and column from 1; 0 where the source has no such thing.
struct Where {
  int line = 0;
  int column = 0;
};

template <typename T>
struct Said {
  T value;
  Where where;
  // It follows from something else, such as a node's own report: whatever a source says outright of the same
  // name stands, and of two such the first.
  bool implied = false;
};

// All that one source says now.
struct SourceMesh {
  std::string origin;  // The file's path: what errors name.
  std::vector<Said<api::Node>> nodes;
  std::vector<Said<api::Function>> functions;
  std::vector<Said<api::Endpoint>> endpoints;
  std::vector<Said<api::Allow>> allow;
  bool allow_shrink = false;  // It may take back everything that it said before.
  // Its objects come and go one by one: an endpoint on a node that nobody names waits for the node, and a
  // function that nobody names has the default policy. Elsewhere both are errors.
  bool open = false;
  bool incomplete =
      false;  // Something was left out because it could not be read: good for finding errors only.

  bool SaysNothing() const {
    return nodes.empty() && functions.empty() && endpoints.empty() && allow.empty();
  }
};

struct MeshError {
  std::string origin;
  Where where;
  std::string key;  // As in "endpoints[3]"
  std::string message;

  // "mesh.yaml:14:3: endpoints[3]: message"
  std::string ToString() const;
};

// Errors that one merge reports at most.
inline constexpr std::size_t kMergeErrorsMax = 20;

// Nodes, functions, endpoints and rules of one mesh together; the agent takes no more either.
inline constexpr std::size_t kMeshEntriesMax = 100'000;

struct Merged {
  MeshState state;  // Complete only without errors.
  std::vector<MeshError> errors;
};

using FunctionIdSource = std::function<FunctionId(absl::string_view)>;

// Merges in the order given, what is implied last; an error names the later of two that clash. `id_of` is
// FunctionIdOf but in tests, since nobody can make two names with one SHA-256 beginning.
Merged Merge(absl::Span<const SourceMesh* const> sources, const FunctionIdSource& id_of = FunctionIdOf);

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_MERGE_H_
