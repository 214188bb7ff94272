// SPDX-License-Identifier: Apache-2.0
// What a source says and the model has not accepted, and why that stays so: what is held back can be large,
// and is not tried again for each event that has nothing to do with what is wrong. One thread.
#ifndef WEFT_CONTROL_MODEL_PENDING_H_
#define WEFT_CONTROL_MODEL_PENDING_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "control/model/claims.h"
#include "control/model/entry.h"
#include "control/model/merge.h"
#include "control/model/mesh_error.h"
#include "control/model/offer.h"

namespace weft::control {

// Why a try failed, as far as that follows from a few entries: each is wrong as long as nobody says anything
// else of it, and of the node and the function that it names. Whatever else is said, the next try would fail;
// a source is open always or never.
class Refusal {
 public:
  // Nothing is known: the next try may succeed.
  Refusal() = default;
  explicit Refusal(std::vector<EntryPtr> wrong) : wrong_(std::move(wrong)) {}

  bool stands() const { return !wrong_.empty(); }
  // Something else is said of `key`. Where that touches one reason the others are forgotten too, which
  // returns true: an operator is to read what is still wrong.
  bool OnSaid(const EntryKey& key);

 private:
  std::vector<EntryPtr> wrong_;  // At most kMergeErrorsMax
};

// Whether a try failed because the source names no endpoint any more, and how many it would take back: none
// of them is said by another.
struct Shrinking {
  bool refused = false;
  std::size_t lost = 0;
};

// What one source would say otherwise than what is accepted of it.
class Pending {
 public:
  // `accepted`: the source as it was accepted last, or one that says nothing; so it stays while this is.
  Pending(const SourceOffer& offer, const Claims::Origin& accepted);
  // The source is gone.
  explicit Pending(const Claims::Origin& accepted);

  // `offer`, a difference, follows. What it costs follows from its size, but for the first time.
  void Add(const SourceOffer& offer, const Claims::Origin& accepted);

  bool gone() const { return gone_; }
  bool open() const { return open_; }
  bool allow_shrink() const { return allow_shrink_; }
  const std::vector<Putting>& puttings() const { return puttings_; }  // Each of another key
  const std::vector<MeshError>& errors() const { return errors_; }    // It contradicts itself

  // Whether one more try of it alone would surely fail, as the last one did.
  bool refused() const;
  void OnRefused(Refusal why, Shrinking shrinking);
  // Another source says something else of `key`, and that is accepted. `shared`: an endpoint that this source
  // was accepted to say too.
  void OnAccepted(const EntryKey& key, bool shared);

  // The same of a try of all that is pending, as far as it follows from this source.
  bool refused_together() const { return !errors_.empty() || Shrinks(shrinking_together_); }
  void OnRefusedTogether(Shrinking shrinking) { shrinking_together_ = shrinking; }
  // Somebody offers something else of an endpoint that this source was accepted to say.
  void OnShared() { shrinking_together_ = {}; }

 private:
  void OnSaid(const EntryKey& key);
  // Whether what it was refused for, `last`, is so still.
  bool Shrinks(const Shrinking& last) const;
  void Count(const Putting& put, const Claims::Origin& accepted, int by);
  void Append(Putting put, const Claims::Origin& accepted);
  void RemoveAt(std::size_t place, const Claims::Origin& accepted);

  bool gone_ = false;
  bool open_ = false;
  bool allow_shrink_ = false;
  std::vector<Putting> puttings_;
  // Places in `puttings_` by key; empty as long as nothing was added.
  absl::flat_hash_map<EntryPtr, std::size_t, SaidHash, SaidEq> places_;
  std::vector<MeshError> errors_;

  // What the source will say, all of it and endpoints, once this is accepted.
  std::size_t says_ = 0;
  std::size_t endpoints_ = 0;

  // Of the last try of it alone
  bool tried_ = false;
  Refusal why_;
  Shrinking shrinking_;
  Shrinking shrinking_together_;  // Of the last try of all that is pending
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_PENDING_H_
