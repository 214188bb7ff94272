// SPDX-License-Identifier: Apache-2.0
// The model of weft-control: what each source said last, what of it was accepted, and the mesh that follows.
// A source that turns bad, empty or unreadable keeps its last good state; what it then says is held back and
// tried again whenever another source changes, so that an endpoint can move from one file to another in two
// edits. One thread.
#ifndef WEFT_CONTROL_MODEL_MODEL_H_
#define WEFT_CONTROL_MODEL_MODEL_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "control/model/merge.h"
#include "control/model/mesh_state.h"

namespace weft::control {

// How one source stands.
struct SourceStatus {
  std::string origin;
  bool accepted = false;            // Something that it said is in the mesh (perhaps an older state of it).
  bool current = false;             // What it says now is what the mesh holds.
  std::vector<std::string> errors;  // Why not; lines ready to print.
};

class Model {
 public:
  // `allow_shrink`: sources may take back everything, as if each said so itself.
  explicit Model(bool allow_shrink = false) : allow_shrink_(allow_shrink) {}

  // Takes the last good states from disk, for the time until their sources speak. False, and nothing taken,
  // where they do not agree: another version wrote them.
  bool Restore(std::vector<SourceMesh> meshes);

  // `mesh.origin` says this now. Nothing happens before Evaluate().
  void Offer(SourceMesh mesh);
  // `origin` says something that cannot be read; its last good state stays.
  void OfferUnreadable(const std::string& origin, std::vector<std::string> errors);
  // `origin` is gone for good: takes back all that it said, unless nothing would be left.
  void Withdraw(const std::string& origin);

  struct Outcome {
    bool changed = false;             // state() is another one now.
    std::vector<std::string> errors;  // Of what was held back now; lines ready to print.
  };
  // Accepts what is offered as far as it agrees: all at once, else each for itself as long as that gets
  // further.
  Outcome Evaluate();

  // Whether an empty state may be programmed: the flag, or a source that is in force, says so.
  bool ShrinkAllowed() const;

  const MeshState& state() const { return state_; }
  // Every source that was ever accepted and not withdrawn, by origin.
  const std::map<std::string, SourceMesh>& accepted() const { return accepted_; }
  std::vector<SourceStatus> Sources() const;

 private:
  // nullopt: withdrawn.
  using Offers = std::map<std::string, std::optional<SourceMesh>>;

  // What the mesh would be with `offers` in place of what they replace; errors say why it must not.
  Merged Try(const Offers& offers) const;
  void CheckShrink(const Offers& offers, Merged* merged) const;
  void Accept(Offers offers, MeshState state);

  bool allow_shrink_;
  std::map<std::string, SourceMesh> accepted_;
  Offers pending_;
  std::map<std::string, std::vector<std::string>> errors_;  // By origin, of what is held back or unreadable.
  MeshState state_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_MODEL_H_
