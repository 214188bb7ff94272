// SPDX-License-Identifier: Apache-2.0
// The model of weft-control: what each source said last, what of it was accepted, and the mesh that follows.
// A source that turns bad, empty or unreadable keeps its last good state; what it then says is held back and
// tried again once it or another source changes what was wrong with it, so that an endpoint can move from one
// file to another in two edits. What a change costs follows from its own size, not from the mesh's, nor from
// what is held back, unless that is so for a wire id, the mesh's size or a source that is gone: that is tried
// again each time. One thread.
#ifndef WEFT_CONTROL_MODEL_MODEL_H_
#define WEFT_CONTROL_MODEL_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "control/model/claims.h"
#include "control/model/merge.h"
#include "control/model/mesh_state.h"
#include "control/model/offer.h"
#include "control/model/pending.h"

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
  bool Restore(std::vector<SourceOffer> offers);

  // What `offer.origin` is about to say once it knows all of it: first from nothing (`whole`), then by the
  // difference. None of it is in force, or to be seen, before it is said as a whole, by the same entries.
  // That then costs nearly nothing where nobody has said anything by then; else what was prepared is
  // forgotten. It is no more than what is known by then, however often a list breaks off and begins again.
  void Prepare(const SourceOffer& offer);

  // `offer.origin` says this now. Nothing happens before Evaluate(). A difference is one to what the source
  // said last, whether that was accepted or not.
  void Offer(SourceOffer offer);
  void Offer(const SourceMesh& mesh) { Offer(OfferOf(mesh)); }
  // `origin` says something that cannot be read; its last good state stays.
  void OfferUnreadable(const std::string& origin, std::vector<std::string> errors);
  // `origin` is gone for good: takes back all that it said, unless nothing would be left.
  void Withdraw(const std::string& origin);

  struct Outcome {
    // What of state() is another one now, in the order in which it became so; a key may come twice.
    std::vector<EntryChange> changes;
    std::vector<std::string> errors;  // Of what was held back now; lines ready to print.

    bool changed() const { return !changes.empty(); }
  };
  // Accepts what is offered as far as it agrees: all at once, else each for itself as long as that gets
  // further.
  Outcome Evaluate();

  // Whether an empty state may be programmed: the flag, or a source that is in force, says so.
  bool ShrinkAllowed() const;

  const MeshState& state() const { return claims_.state(); }
  // Every source that was ever accepted and not withdrawn, and who says what.
  const Claims& claims() const { return claims_; }
  // At most `max`, by origin.
  std::vector<SourceStatus> Sources(std::size_t max = SIZE_MAX) const;
  // So many entries were tried so far, accepted or not: the work of a change, for tests.
  uint64_t entries_tried() const { return entries_tried_; }
  // What a last good state is made of: of each accepted source all that it says.
  std::vector<SourceOffer> Accepted() const;

 private:
  // The mesh that one source's word will make of nothing.
  struct Ahead {
    std::string origin;
    Claims claims;
    std::vector<EntryChange> changes;  // That made it
  };

  // Takes what was prepared where `offer` says it; false, and nothing taken, where it cannot stand for that.
  bool TakeAhead(const SourceOffer& offer);
  const Claims::Origin& AcceptedOf(const std::string& origin) const;
  // `origin` offers this in place of what it offered; null: nothing any more.
  void Hold(const std::string& origin, std::unique_ptr<Pending> pending);
  // Something else is offered of `key`.
  void OnSaid(const EntryKey& key);
  // Whether one more try of all that is pending would surely fail, as the last one did.
  bool RefusedTogether() const;
  // Accepts what `origins` offer, all of it or nothing, and appends what changed. Returns why not.
  std::vector<MeshError> Try(absl::Span<const std::string> origins, std::vector<EntryChange>* changes);
  // Whether what `name` takes back is too much.
  Shrinking CheckShrink(const std::string& name, const Pending& pending, bool spoke,
                        std::vector<MeshError>* errors) const;
  void OnAccepted(const Pending& accepted);

  bool allow_shrink_;
  Claims claims_;
  std::unique_ptr<Ahead> ahead_;      // Null: nothing is prepared
  std::vector<EntryChange> changes_;  // Taken since Evaluate()
  std::map<std::string, std::unique_ptr<Pending>> pending_;
  Refusal together_;  // Of the last try of all that was pending
  uint64_t entries_tried_ = 0;
  std::map<std::string, std::vector<std::string>> errors_;  // By origin, of what is held back or unreadable.
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_MODEL_H_
