// SPDX-License-Identifier: Apache-2.0
#include "control/model/claims.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"

namespace weft::control {
namespace {

constexpr std::size_t kExpectMin = 1'000;
// Room of a try that is kept for the next: a list's functions come in tries of about a thousand entries, and
// to give large pieces back and take them again has malloc tidy up all small ones each time.
constexpr std::size_t kKeptMax = 2'048;

template <typename T>
void Empty(std::vector<T>* list) {
  list->clear();
  if (list->capacity() > kKeptMax) std::vector<T>().swap(*list);
}

// Room for `more` behind what is there, at least twice as much where it has to be moved.
void Grow(std::vector<EntryChange>* changes, std::size_t more) {
  const std::size_t size = changes->size() + more;
  if (size > changes->capacity()) changes->reserve(std::max(size, 2 * changes->capacity()));
}

EntryPtr DefaultFunction(absl::string_view name) {
  api::Function function;
  function.set_name(std::string(name));
  return MakeEntry(function);
}

}  // namespace

// The first few.
class Claims::Errors {
 public:
  bool full() const { return errors_.size() >= kMergeErrorsMax; }
  // Wrong by what is said of it, of its node and of its function, or by its wire id.
  enum class By : uint8_t { kWhatIsSaid, kWireId };
  void Add(const Claim& claim, std::string message, By by = By::kWhatIsSaid) {
    if (full()) return;
    errors_.push_back(ErrorOf(claim.origin->name, *claim.entry, std::move(message)));
    if (by == By::kWhatIsSaid) wrong_.push_back(claim.entry);
  }
  void AddOf(MeshError error) { errors_.push_back(std::move(error)); }
  std::vector<MeshError> Take() { return std::move(errors_); }
  std::vector<EntryPtr> TakeWrong() { return std::move(wrong_); }

 private:
  std::vector<MeshError> errors_;
  std::vector<EntryPtr> wrong_;
};

void Claims::Begin() { WEFT_CHECK(tried_.empty() && steps_.empty()); }

Claims::Origin* Claims::Try(const std::string& name, bool open, bool allow_shrink) {
  Origin& origin = origins_[name];
  flags_.push_back({&origin, origin.open, origin.allow_shrink});
  tried_.push_back(&origin);
  origin.name = name;
  origin.tried = true;
  origin.open = open;
  origin.allow_shrink = allow_shrink;
  return &origin;
}

void Claims::Expect(Origin* origin, std::size_t entries) {
  if (entries < kExpectMin) return;  // Else a table would be copied each time, to grow by a little.
  origin->said.reserve(origin->said.size() + entries);
  slots_.reserve(slots_.size() + entries);
  state_.Reserve(entries);
  touched_keys_.reserve(entries);
  touched_.reserve(entries);
  steps_.reserve(entries);
}

void Claims::MakeRoom(Origin* origin, std::size_t entries) {
  origin->said.reserve(entries);
  slots_.reserve(entries);
  if (entries > state_.size()) state_.Reserve(entries - state_.size());
}

void Claims::Put(Origin* origin, const EntryPtr& key, const EntryPtr& after) {
  const auto said = origin->said.find(key);
  const EntryPtr before = said == origin->said.end() ? nullptr : *said;
  if (before == after) return;
  Touch(before != nullptr ? before : after);
  steps_.push_back({origin, before, after});
  Replace(origin, before, after);
}

void Claims::Replace(Origin* origin, const EntryPtr& before, const EntryPtr& after) {
  const bool endpoint = (after != nullptr ? after : before)->kind == EntryKind::kEndpoint;
  if (before != nullptr) {
    origin->said.erase(before);
    origin->endpoints -= endpoint ? 1 : 0;
  }
  if (after != nullptr) {
    origin->said.insert(after);
    origin->endpoints += endpoint ? 1 : 0;
  }
  if (before == nullptr) {
    AddClaim({after, origin});
  } else if (after == nullptr) {
    RemoveClaim({before, origin});
  } else {
    ClaimAt(slots_.find(before->key())->get(), {before, origin})->entry = after;
  }
}

Claims::Claim* Claims::ClaimAt(Slot* slot, const Claim& claim) {
  return std::find_if(slot->claims.begin(), slot->claims.end(), [&claim](const Claim& each) {
    return each.entry == claim.entry && each.origin == claim.origin;
  });
}

void Claims::AddClaim(Claim claim) {
  const EntryKey key = claim.entry->key();
  bool fresh = false;
  const auto make = [&](const Slots::constructor& construct) {
    fresh = true;
    auto slot = std::make_unique<Slot>();
    slot->claims.push_back(claim);
    construct(std::move(slot));
  };
  Slot* const slot = slots_.lazy_emplace(key, make)->get();
  if (fresh && key.kind == EntryKind::kEndpoint) {
    of_function_[key.names[0]].insert(slot);
    on_node_[key.names[1]].insert(slot);
  }
  if (fresh) return;
  const auto order = [](const Claim& c) { return std::tie(c.entry->implied, c.origin->name); };
  const auto at = std::find_if(slot->claims.begin(), slot->claims.end(),
                               [&](const Claim& each) { return order(claim) < order(each); });
  slot->claims.insert(at, std::move(claim));
}

void Claims::RemoveClaim(const Claim& claim) {
  const EntryKey key = claim.entry->key();
  const auto found = slots_.find(key);
  auto& claims = (*found)->claims;
  if (claims.size() > 1) {
    claims.erase(ClaimAt(found->get(), claim));
    return;
  }
  if (key.kind == EntryKind::kEndpoint) {
    const auto forget = [slot = found->get()](Referers* referers, absl::string_view name) {
      const auto of_name = referers->find(name);
      of_name->second.erase(slot);
      if (of_name->second.empty()) referers->erase(of_name);
    };
    forget(&of_function_, key.names[0]);
    forget(&on_node_, key.names[1]);
  }
  slots_.erase(found);
}

void Claims::Touch(const EntryPtr& holder) {
  if (touched_keys_.insert(holder).second) touched_.push_back({holder, state_.Find(holder->key())});
}

void Claims::TouchFunction(absl::string_view name) {
  const EntryKey key = FunctionKey(name);
  if (touched_keys_.contains(key)) return;
  const absl::Span<const Claim> claims = Of(key);
  EntryPtr holder = claims.empty() ? state_.Find(key) : claims.front().entry;
  Touch(holder != nullptr ? holder : DefaultFunction(name));
}

// Endpoints follow their nodes, functions that nobody says their endpoints.
void Claims::TouchReferers() {
  for (std::size_t i = 0; i < touched_.size(); ++i) {
    if (touched_[i].holder->kind != EntryKind::kNode) continue;
    const EntryKey key = touched_[i].holder->key();
    if ((touched_[i].before != nullptr) == slots_.contains(key)) continue;
    const auto endpoints = on_node_.find(key.names[0]);
    if (endpoints == on_node_.end()) continue;
    for (const Slot* slot : endpoints->second) Touch(slot->claims.front().entry);
  }
  absl::string_view last;  // Endpoints of a function mostly follow each other.
  for (std::size_t i = 0; i < touched_.size(); ++i) {
    // Touching moves the elements, not what they point to.
    const Entry& holder = *touched_[i].holder;
    if (holder.kind != EntryKind::kEndpoint) continue;
    const absl::string_view function = holder.key().names[0];
    if (std::exchange(last, function) != function) TouchFunction(function);
  }
}

const Claims::Slot* Claims::SlotOf(const EntryKey& key) const {
  const auto found = slots_.find(key);
  return found == slots_.end() ? nullptr : found->get();
}

EntryPtr Claims::InForce(const EntryKey& key, const Slot* slot) const {
  if (key.kind == EntryKind::kEndpoint && !slots_.contains(NodeKey(key.names[1]))) return nullptr;
  if (slot != nullptr) return slot->claims.front().entry;
  if (key.kind != EntryKind::kFunction) return nullptr;
  const auto endpoints = of_function_.find(key.names[0]);
  if (endpoints == of_function_.end()) return nullptr;
  const bool open = std::any_of(endpoints->second.begin(), endpoints->second.end(), [this](const Slot* each) {
    return std::any_of(each->claims.begin(), each->claims.end(),
                       [](const Claim& claim) { return claim.origin->open; }) &&
           slots_.contains(NodeKey(each->key().names[1]));
  });
  return open ? DefaultFunction(key.names[0]) : nullptr;
}

void Claims::Show(const EntryPtr& holder, const EntryPtr& after) {
  if (after != nullptr) {
    state_.Put(after);
  } else {
    state_.Erase(holder->key());
  }
}

std::vector<MeshError> Claims::Check(bool references) {
  TouchReferers();
  for (Touched& touched : touched_) {
    const EntryKey key = touched.holder->key();
    touched.slot = SlotOf(key);
    touched.after = InForce(key, touched.slot);
    Show(touched.holder, touched.after);
  }
  Errors errors;
  const auto declares = [](const Touched& touched) {
    return touched.holder->kind == EntryKind::kNode || touched.holder->kind == EntryKind::kFunction;
  };
  for (const Touched& touched : touched_) {
    if (touched.slot != nullptr && declares(touched)) CheckDuplicates(*touched.slot, &errors);
  }
  TakeIds(&errors);
  for (const Touched& touched : touched_) {
    if (touched.holder->kind == EntryKind::kFunction && references && touched.slot == nullptr) {
      CheckReferers(of_function_, touched.holder->key().names[0], &errors);
    }
    if (touched.slot == nullptr || declares(touched)) continue;
    if (touched.holder->kind == EntryKind::kEndpoint && references) CheckReferences(*touched.slot, &errors);
    CheckDuplicates(*touched.slot, &errors);
  }
  if (state_.size() > kMeshEntriesMax && !tried_.empty()) {
    errors.AddOf({tried_.back()->name, Where{}, "",
                  absl::StrCat("makes a mesh of ", state_.size(), " entries; at most ", kMeshEntriesMax)});
  }
  wrong_ = errors.TakeWrong();
  return errors.Take();
}

void Claims::CheckDuplicates(const Slot& slot, Errors* errors) {
  if (slot.claims.size() < 2 || errors->full()) return;
  std::vector<const Claim*> outright;
  for (const Claim& claim : slot.claims) {
    if (!claim.entry->implied) outright.push_back(&claim);
  }
  // What is tried comes last, so that an error names it rather than what it clashes with.
  std::sort(outright.begin(), outright.end(), [](const Claim* a, const Claim* b) {
    return std::tie(a->origin->tried, a->origin->name) < std::tie(b->origin->tried, b->origin->name);
  });
  for (std::size_t i = 1; i < outright.size(); ++i) {
    errors->Add(*outright[i],
                DuplicateMessage(*outright[i]->entry, outright[0]->origin->name, *outright[0]->entry));
  }
}

void Claims::CheckReferences(const Slot& slot, Errors* errors) const {
  if (std::all_of(slot.claims.begin(), slot.claims.end(),
                  [](const Claim& claim) { return claim.origin->open; })) {
    return;
  }
  const EntryKey key = slot.key();
  const bool function = slots_.contains(FunctionKey(key.names[0]));
  const bool node = slots_.contains(NodeKey(key.names[1]));
  if (function && node) return;
  for (const Claim& claim : slot.claims) {
    if (claim.origin->open) continue;
    if (!function) {
      errors->Add(claim,
                  absl::StrCat("unknown function \"", key.names[0], "\": no `functions` entry names it"));
    }
    if (!node)
      errors->Add(claim, absl::StrCat("unknown node \"", key.names[1], "\": no `nodes` entry names it"));
  }
}

void Claims::CheckReferers(const Referers& referers, absl::string_view name, Errors* errors) const {
  const auto found = referers.find(name);
  if (found == referers.end()) return;
  std::vector<const Slot*> slots;
  for (const Slot* slot : found->second) {
    if (!touched_keys_.contains(slot->key())) slots.push_back(slot);
  }
  std::sort(slots.begin(), slots.end(), [](const Slot* a, const Slot* b) { return a->key() < b->key(); });
  for (const Slot* slot : slots) CheckReferences(*slot, errors);
}

void Claims::TakeIds(Errors* errors) {
  // A name may follow another one that goes in the same try.
  for (const bool come : {false, true}) {
    for (const Touched& touched : touched_) {
      if (touched.holder->kind != EntryKind::kFunction) continue;
      const absl::string_view name = touched.holder->key().names[0];
      if ((touched.after != nullptr) != come || (touched.before != nullptr) == come) continue;
      const FunctionId id = id_of_(name);
      if (!come) {
        const auto found = ids_.find(id);
        if (found != ids_.end() && found->second->key().names[0] == name) ids_.erase(found);
        continue;
      }
      const auto [it, fresh] = ids_.emplace(id, touched.after);
      if (id.value != 0 && fresh) continue;
      const std::string other =
          id.value == 0 ? "of no function" : absl::StrCat("of function \"", it->second->key().names[0], "\"");
      std::string message =
          absl::StrCat("function \"", name, "\" has the wire id ", other, ": rename one of them");
      // Who says it, or brings it along with an endpoint
      absl::Span<const Claim> claims = Of(FunctionKey(name));
      if (const auto endpoints = of_function_.find(name); claims.empty() && endpoints != of_function_.end()) {
        claims = (*endpoints->second.begin())->claims;
      }
      if (!claims.empty()) errors->Add(claims.front(), std::move(message), Errors::By::kWireId);
    }
  }
}

// What TakeIds() did, after the claims were taken back.
void Claims::GiveIdsBack() {
  for (const bool come : {false, true}) {
    for (const Touched& touched : touched_) {
      if (touched.holder->kind != EntryKind::kFunction || (touched.before != nullptr) != come) continue;
      const absl::string_view name = touched.holder->key().names[0];
      const FunctionId id = id_of_(name);
      if (come) {
        ids_.emplace(id, touched.before);
      } else if (const auto found = ids_.find(id);
                 found != ids_.end() && found->second->key().names[0] == name) {
        ids_.erase(found);
      }
    }
  }
}

void Claims::Commit(std::vector<EntryChange>* changes) {
  Grow(changes, touched_.size());
  for (Touched& touched : touched_) {
    if (SameValue(touched.before, touched.after)) continue;
    changes->push_back({std::move(touched.before), std::move(touched.after)});
  }
  for (Origin* origin : tried_) origin->known = true;
  End();
}

void Claims::RollBack() {
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    Replace(step->origin, step->after, step->before);
  }
  for (const Touched& touched : touched_) Show(touched.holder, touched.before);
  GiveIdsBack();
  for (auto flags = flags_.rbegin(); flags != flags_.rend(); ++flags) {
    flags->origin->open = flags->open;
    flags->origin->allow_shrink = flags->allow_shrink;
  }
  const std::vector<Origin*> tried = tried_;
  End();
  for (Origin* origin : tried) {
    if (!origin->known) origins_.erase(std::string(origin->name));
  }
}

void Claims::End() {
  for (Origin* origin : tried_) origin->tried = false;
  tried_.clear();
  flags_.clear();
  // A try may have been the whole of a mesh: its room is not kept.
  Empty(&steps_);
  Empty(&touched_);
  EntrySet().swap(touched_keys_);
}

absl::Span<const Claims::Claim> Claims::Of(const EntryKey& key) const {
  const auto slot = slots_.find(key);
  if (slot == slots_.end()) return {};
  return (*slot)->claims;
}

std::vector<EntryKey> Claims::EndpointsOf(absl::string_view function) const {
  std::vector<EntryKey> keys;
  const auto found = of_function_.find(function);
  if (found == of_function_.end()) return keys;
  for (const Slot* slot : found->second) keys.push_back(slot->key());
  std::sort(keys.begin(), keys.end());
  return keys;
}

}  // namespace weft::control
