// SPDX-License-Identifier: Apache-2.0
// The one mesh that several sources make, at once and from nothing: for those who validate. Merging is where
// everything is checked that takes more than one line to see: duplicates, names that nothing declares, wire
// ids that collide (claims.h). Pure; any thread.
#ifndef WEFT_CONTROL_MODEL_MERGE_H_
#define WEFT_CONTROL_MODEL_MERGE_H_

#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "control/model/claims.h"
#include "control/model/mesh_state.h"
#include "control/model/offer.h"

namespace weft::control {

struct Merged {
  MeshState state;  // Complete only without errors.
  std::vector<MeshError> errors;
};

// Each source of another origin; of two that clash an error names the later by origin.
Merged Merge(absl::Span<const SourceMesh* const> sources, const FunctionIdSource& id_of = FunctionIdOf);

// What `offer` says otherwise than `before`, the same source's: each entry with another that has the key and
// is said no more, or with itself. Appends an error for each entry that is there twice.
struct Putting {
  EntryPtr key;
  EntryPtr after;  // Null: said no more
};
std::vector<Putting> PuttingsOf(const SourceOffer& offer, const SaidSet& before,
                                std::vector<MeshError>* errors);

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_MERGE_H_
