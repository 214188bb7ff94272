// SPDX-License-Identifier: Apache-2.0
// Who says what of each node, function, endpoint and rule, what of it is in force, and the rules by which
// that is so. What a source says changes within a try: Begin(), any number of Put(), then Check(), which
// looks at no more than what was touched and what refers to it, and Commit() or RollBack(). One thread.
//
// The rules. Of one name at most one source says something outright. A function's wire id is no other's. An
// endpoint names a node and a function that some source says; one of an open source waits for its node, and
// brings its function along with the default policy.
#ifndef WEFT_CONTROL_MODEL_CLAIMS_H_
#define WEFT_CONTROL_MODEL_CLAIMS_H_

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "control/model/entry.h"
#include "control/model/mesh_error.h"
#include "control/model/mesh_state.h"
#include "dataplane/base/function_id.h"

namespace weft::control {

// Errors that one look reports at most.
inline constexpr std::size_t kMergeErrorsMax = 20;

// Nodes, functions, endpoints and rules of one mesh together; the agent takes no more either. 100,000
// endpoints of 10,000 functions, and as much again.
inline constexpr std::size_t kMeshEntriesMax = 250'000;

using FunctionIdSource = std::function<FunctionId(absl::string_view)>;

class Claims {
 public:
  // A source, and what it says.
  struct Origin {
    std::string name;
    bool open = false;
    bool allow_shrink = false;
    bool known = false;  // Of a try that was committed.
    bool tried = false;  // Takes part in this try.
    SaidSet said;
    std::size_t endpoints = 0;  // Of `said`
  };
  struct Claim {
    EntryPtr entry;
    const Origin* origin;
  };

  // `id_of` is FunctionIdOf but in tests, since nobody can make two names with one SHA-256 beginning.
  explicit Claims(FunctionIdSource id_of = FunctionIdOf) : id_of_(std::move(id_of)) {}

  // Begins a try, of which the last one was ended.
  void Begin();
  // Has `origin` take part in the try.
  Origin* Try(const std::string& origin, bool open, bool allow_shrink);
  // About so many entries are new to `origin`: makes room for them at once.
  void Expect(Origin* origin, std::size_t entries);
  // `origin` alone will say about `entries` in the end, over many tries: its tables need not grow on the way.
  void MakeRoom(Origin* origin, std::size_t entries);
  // `origin` says `after` from now on in place of what it said of the key of `key`; null: nothing.
  void Put(Origin* origin, const EntryPtr& key, const EntryPtr& after);
  // Brings state() up to what is said, and returns why that must not be, at most kMergeErrorsMax. Without
  // `references` nobody minds a name that is missing.
  std::vector<MeshError> Check(bool references = true);
  // Entries that the last Check() found wrong by what is said of them, of their node and of their function
  // alone; until the next one.
  std::vector<EntryPtr> TakeWrong() { return std::exchange(wrong_, {}); }
  // Ends the try; appends what is in force otherwise than before to `changes`.
  void Commit(std::vector<EntryChange>* changes);
  void RollBack();
  // Forgets a source that says nothing, outside of a try.
  void Forget(const std::string& origin) { origins_.erase(origin); }

  const MeshState& state() const { return state_; }
  const std::map<std::string, Origin>& origins() const { return origins_; }
  // What is said of one key, the one in force first.
  absl::Span<const Claim> Of(const EntryKey& key) const;
  // Keys of the endpoints of `function`, in order; valid until the next Put().
  std::vector<EntryKey> EndpointsOf(absl::string_view function) const;

 private:
  // All that is said of one key: never nothing. Outright before implied, then by origin.
  struct Slot {
    absl::InlinedVector<Claim, 1> claims;
    EntryKey key() const { return claims.front().entry->key(); }
  };
  struct SlotHash {
    using is_transparent = void;
    std::size_t operator()(const EntryKey& key) const { return EntryHash{}(key); }
    std::size_t operator()(const std::unique_ptr<Slot>& slot) const {
      return EntryHash{}(slot->claims.front().entry);
    }
  };
  struct SlotEq {
    using is_transparent = void;
    static EntryKey KeyOf(const EntryKey& key) { return key; }
    static EntryKey KeyOf(const std::unique_ptr<Slot>& slot) { return slot->key(); }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      return KeyOf(a) == KeyOf(b);
    }
  };
  using Slots = absl::flat_hash_set<std::unique_ptr<Slot>, SlotHash, SlotEq>;
  // Endpoints by a name that they refer to
  using Referers = absl::flat_hash_map<std::string, absl::flat_hash_set<const Slot*>>;

  struct Step {
    Origin* origin;
    EntryPtr before;
    EntryPtr after;
  };
  // A key that the try touched, by an entry that has it, and what was in force of it before.
  struct Touched {
    EntryPtr holder;
    EntryPtr before;
    EntryPtr after = nullptr;    // What is in force of it now, by Check(),
    const Slot* slot = nullptr;  // and what is said of it; null: nothing.
  };
  class Errors;

  void Replace(Origin* origin, const EntryPtr& before, const EntryPtr& after);
  void AddClaim(Claim claim);
  void RemoveClaim(const Claim& claim);
  static Claim* ClaimAt(Slot* slot, const Claim& claim);
  void Touch(const EntryPtr& holder);
  void TouchFunction(absl::string_view name);
  void TouchReferers();
  void Show(const EntryPtr& holder, const EntryPtr& after);
  // What is in force of `key` by what is said: `slot`, or where that is null, nothing.
  EntryPtr InForce(const EntryKey& key, const Slot* slot) const;
  // Null where nothing is said of it.
  const Slot* SlotOf(const EntryKey& key) const;
  void TakeIds(Errors* errors);
  void GiveIdsBack();
  static void CheckDuplicates(const Slot& slot, Errors* errors);
  void CheckReferences(const Slot& slot, Errors* errors) const;
  // Those of `referers` that were not touched themselves.
  void CheckReferers(const Referers& referers, absl::string_view name, Errors* errors) const;
  void End();

  FunctionIdSource id_of_;
  std::map<std::string, Origin> origins_;
  Slots slots_;
  Referers on_node_;
  Referers of_function_;
  absl::flat_hash_map<FunctionId, EntryPtr> ids_;  // Of the functions in force
  MeshState state_;

  // Of the try
  std::vector<Origin*> tried_;
  std::vector<Step> steps_;
  std::vector<Touched> touched_;
  EntrySet touched_keys_;
  std::vector<EntryPtr> wrong_;
  struct Flags {
    Origin* origin;
    bool open;
    bool allow_shrink;
  };
  std::vector<Flags> flags_;  // As they were
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_CLAIMS_H_
