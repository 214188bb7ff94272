// SPDX-License-Identifier: Apache-2.0
// What is in force in a mesh at one moment, and the messages that take an agent there: from nothing, or by
// the entries that changed. Pure values; any thread.
#ifndef WEFT_CONTROL_MODEL_MESH_STATE_H_
#define WEFT_CONTROL_MODEL_MESH_STATE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/types/span.h"
#include "control/model/entry.h"
#include "dataplane/api/admin.pb.h"

namespace weft::control {

// One key, at most one entry.
class MeshState {
 public:
  // Null where nothing is in force.
  EntryPtr Find(const EntryKey& key) const;
  bool Contains(const EntryKey& key) const { return entries_.contains(key); }
  // There is room for `more` further entries then.
  void Reserve(std::size_t more) { entries_.reserve(entries_.size() + more); }
  // `after` is in force from now on, in place of what had its key.
  void Put(EntryPtr after);
  void Erase(const EntryKey& key);

  std::size_t count(EntryKind kind) const { return counts_[static_cast<std::size_t>(kind)]; }
  std::size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  // In no order.
  EntrySet::const_iterator begin() const { return entries_.begin(); }
  EntrySet::const_iterator end() const { return entries_.end(); }

 private:
  EntrySet entries_;
  std::array<std::size_t, kEntryKinds> counts_{};
};

// What of a mesh is another one now. Null: not there. Never both.
struct EntryChange {
  EntryPtr before;
  EntryPtr after;
};

// The most bytes of one part: below the limit of a packet on the admin socket by more than its envelope.
inline constexpr std::size_t kProgramPartBytesMax = 60 * 1024;

// Takes the parts of one generation in their order. They are made one by one, so that a whole mesh is never
// held as messages.
using ProgramSink = std::function<void(api::Program part)>;

// The parts that make `to` of whatever the agent holds. At least one.
void MakeSnapshot(const MeshState& to, uint64_t generation, const ProgramSink& sink);

// The parts that make `changes`, each of another key; all additions precede all deletions. None where nothing
// changed.
void MakeDelta(absl::Span<const EntryChange> changes, uint64_t generation, const ProgramSink& sink);

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_MESH_STATE_H_
