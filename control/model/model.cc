// SPDX-License-Identifier: Apache-2.0
#include "control/model/model.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace weft::control {
namespace {

// The changes that led to what is prepared are replaced by its entries once they are more than twice as many
// and this, so that making the list anew costs no more than taking the changes did. A small mesh is spared
// it: so few are no matter.
constexpr std::size_t kAheadChangesMin = 1'000;

std::vector<std::string> LinesOf(const std::vector<MeshError>& errors) {
  std::vector<std::string> lines;
  for (const MeshError& error : errors) lines.push_back(error.ToString());
  return lines;
}

}  // namespace

bool Model::Restore(std::vector<SourceOffer> offers) {
  std::vector<std::string> origins;
  for (SourceOffer& offer : offers) {
    origins.push_back(offer.origin);
    Offer(std::move(offer));
  }
  std::sort(origins.begin(), origins.end());
  std::vector<EntryChange> changes;
  const bool good = Try(origins, &changes).empty();
  pending_.clear();
  together_ = Refusal();
  return good;
}

void Model::Prepare(const SourceOffer& offer) {
  if (offer.whole) {
    const bool first = claims_.origins().empty() && pending_.empty();
    ahead_ = first ? std::make_unique<Ahead>() : nullptr;
    if (first) ahead_->origin = offer.origin;
  }
  if (ahead_ == nullptr || ahead_->origin != offer.origin) return;
  Claims& claims = ahead_->claims;
  claims.Begin();
  Claims::Origin* const origin = claims.Try(offer.origin, offer.open, offer.allow_shrink);
  if (offer.expected != 0) claims.MakeRoom(origin, std::min(offer.expected, kMeshEntriesMax));
  for (const EntryPtr& entry : offer.said) claims.Put(origin, entry, entry);
  for (const EntryPtr& entry : offer.unsaid) claims.Put(origin, entry, nullptr);
  if (!claims.Check().empty()) {
    ahead_ = nullptr;  // What is wrong is told when it is said.
    return;
  }
  claims.Commit(&ahead_->changes);
  // Lists that break off and begin again change the same over and over.
  if (ahead_->changes.size() <= 2 * claims.state().size() + kAheadChangesMin) return;
  std::vector<EntryChange> changes;
  changes.reserve(claims.state().size());
  for (const EntryPtr& entry : claims.state()) changes.push_back({nullptr, entry});
  ahead_->changes = std::move(changes);
}

bool Model::TakeAhead(const SourceOffer& offer) {
  const std::unique_ptr<Ahead> ahead = std::move(ahead_);
  if (ahead == nullptr || !offer.whole || ahead->origin != offer.origin) return false;
  if (!claims_.origins().empty() || !pending_.empty()) return false;
  const Claims::Origin& origin = ahead->claims.origins().at(offer.origin);
  if (origin.open != offer.open || origin.allow_shrink != offer.allow_shrink) return false;
  if (origin.said.size() != offer.said.size()) return false;
  // The very entries, each once. By their addresses: 100,000 are not read for it.
  absl::flat_hash_set<const Entry*> said;
  said.reserve(offer.said.size());
  for (const EntryPtr& entry : offer.said) said.insert(entry.get());
  const bool same = said.size() == origin.said.size() &&
                    std::all_of(origin.said.begin(), origin.said.end(),
                                [&said](const EntryPtr& entry) { return said.contains(entry.get()); });
  if (!same) return false;
  claims_ = std::move(ahead->claims);
  changes_ = std::move(ahead->changes);
  errors_.erase(offer.origin);
  return true;
}

const Claims::Origin& Model::AcceptedOf(const std::string& origin) const {
  static const Claims::Origin kNothing;
  const auto known = claims_.origins().find(origin);
  return known == claims_.origins().end() ? kNothing : known->second;
}

// What the last try of all that was pending found may be so no more.
void Model::OnSaid(const EntryKey& key) {
  together_.OnSaid(key);
  if (key.kind != EntryKind::kEndpoint) return;
  for (const Claims::Claim& claim : claims_.Of(key)) {
    const auto held = pending_.find(claim.origin->name);
    if (held != pending_.end()) held->second->OnShared();
  }
}

void Model::Hold(const std::string& origin, std::unique_ptr<Pending> pending) {
  const auto on_said = [this](const Pending& offered) {
    for (const Putting& put : offered.puttings()) OnSaid(put.key->key());
  };
  const auto held = pending_.find(origin);
  if (held != pending_.end()) {
    on_said(*held->second);
    pending_.erase(held);
  }
  if (pending == nullptr) return;
  on_said(*pending);
  pending_.emplace(origin, std::move(pending));
}

void Model::Offer(SourceOffer offer) {
  if (TakeAhead(offer)) return;
  const Claims::Origin& accepted = AcceptedOf(offer.origin);
  const auto held = pending_.find(offer.origin);
  if (offer.whole || held == pending_.end() || held->second->gone()) {
    Hold(offer.origin, std::make_unique<Pending>(offer, accepted));
    return;
  }
  for (const auto* entries : {&offer.said, &offer.unsaid}) {
    for (const EntryPtr& entry : *entries) OnSaid(entry->key());
  }
  held->second->Add(offer, accepted);
}

void Model::OfferUnreadable(const std::string& origin, std::vector<std::string> errors) {
  Hold(origin, nullptr);
  errors_[origin] = std::move(errors);
}

void Model::Withdraw(const std::string& origin) {
  if (claims_.origins().contains(origin)) {
    Hold(origin, std::make_unique<Pending>(AcceptedOf(origin)));
  } else {
    Hold(origin, nullptr);
    errors_.erase(origin);
  }
}

std::vector<MeshError> Model::Try(absl::Span<const std::string> origins, std::vector<EntryChange>* changes) {
  std::vector<MeshError> errors;
  std::vector<bool> spoke;  // Whether the origin said anything before.
  claims_.Begin();
  for (const std::string& name : origins) {
    const Pending& pending = *pending_.at(name);
    errors.insert(errors.end(), pending.errors().begin(), pending.errors().end());
    Claims::Origin* origin = claims_.Try(name, pending.open(), pending.allow_shrink());
    spoke.push_back(!origin->said.empty());
    claims_.Expect(origin, static_cast<std::size_t>(
                               std::count_if(pending.puttings().begin(), pending.puttings().end(),
                                             [](const Putting& put) { return put.after != nullptr; })));
    for (const Putting& put : pending.puttings()) claims_.Put(origin, put.key, put.after);
    entries_tried_ += pending.puttings().size();
  }
  std::vector<MeshError> wrong = claims_.Check();
  std::move(wrong.begin(), wrong.end(), std::back_inserter(errors));
  std::vector<Shrinking> shrinking;  // By origin
  for (std::size_t i = 0; i < origins.size(); ++i) {
    shrinking.push_back(CheckShrink(origins[i], *pending_.at(origins[i]), spoke[i], &errors));
  }
  if (!errors.empty()) {
    claims_.RollBack();
    Refusal why(claims_.TakeWrong());
    if (origins.size() == 1) {
      pending_.at(origins[0])->OnRefused(std::move(why), shrinking[0]);
    } else {
      together_ = std::move(why);
      for (std::size_t i = 0; i < origins.size(); ++i) {
        pending_.at(origins[i])->OnRefusedTogether(shrinking[i]);
      }
    }
    return errors;
  }
  claims_.Commit(changes);
  for (const std::string& name : origins) {
    const std::unique_ptr<Pending> accepted = std::move(pending_.extract(name).mapped());
    if (accepted->gone()) claims_.Forget(name);
    errors_.erase(name);
    if (origins.size() == 1) OnAccepted(*accepted);  // Else nothing is left.
  }
  return errors;
}

// What is still held back may agree with it.
void Model::OnAccepted(const Pending& accepted) {
  for (const auto& [origin, pending] : pending_) {
    if (!pending->refused()) continue;
    for (const Putting& put : accepted.puttings()) {
      const EntryKey key = put.key->key();
      const absl::Span<const Claims::Claim> claims = claims_.Of(key);
      const bool shared = key.kind == EntryKind::kEndpoint &&
                          std::any_of(claims.begin(), claims.end(), [&name = origin](const auto& claim) {
                            return claim.origin->name == name;
                          });
      pending->OnAccepted(key, shared);
    }
  }
}

Shrinking Model::CheckShrink(const std::string& name, const Pending& pending, bool spoke,
                             std::vector<MeshError>* errors) const {
  const Claims::Origin& now = claims_.origins().at(name);
  if (allow_shrink_ || !spoke) return {};
  if (!pending.gone() && (now.allow_shrink || now.endpoints != 0)) return {};
  // All endpoints that it named are among what it says no more, since it names none now.
  std::size_t had = 0;
  std::size_t lost = 0;
  bool shared = false;  // Another says one of them.
  for (const Putting& put : pending.puttings()) {
    if (put.key->kind != EntryKind::kEndpoint || put.after != nullptr) continue;
    ++had;
    lost += state().Contains(put.key->key()) ? 0 : 1;
    shared |= !claims_.Of(put.key->key()).empty();
  }
  if (!now.said.empty() && had == 0) return {};
  // A file among others may go. One that is there and names no endpoint any more looks half-written, unless
  // another names them now.
  const bool nothing_left = state().empty() || (lost > 0 && state().count(EntryKind::kEndpoint) == 0);
  const bool refused = pending.gone() ? nothing_left : lost == had;
  if (!refused) return {};
  errors->push_back(
      {name, Where{}, "",
       absl::StrCat(pending.gone() ? "is gone" : "names no endpoint any more", " and would take away ",
                    lost == 0 ? "all that it said" : absl::StrCat("all of its ", lost, " endpoints"),
                    "; if that is meant, say `allowShrink: true` in the file or start with --allow-shrink")});
  return {.refused = !pending.gone() && !shared, .lost = lost};
}

bool Model::RefusedTogether() const {
  return together_.stands() || std::any_of(pending_.begin(), pending_.end(), [](const auto& entry) {
           return entry.second->refused_together();
         });
}

Model::Outcome Model::Evaluate() {
  Outcome outcome;
  outcome.changes = std::exchange(changes_, {});
  if (pending_.empty()) return outcome;
  const auto offered = [this] {
    std::vector<std::string> origins;
    for (const auto& [origin, pending] : pending_) origins.push_back(origin);
    return origins;
  };
  // Where there is one, it is tried below.
  if (pending_.size() > 1 && !RefusedTogether() && Try(offered(), &outcome.changes).empty()) return outcome;
  // One bad file must not hold up the others. Ends, since each round but the last accepts at least one.
  for (bool progress = true; progress;) {
    progress = false;
    for (const std::string& origin : offered()) {
      if (pending_.at(origin)->refused()) continue;
      const std::vector<MeshError> errors = Try({&origin, 1}, &outcome.changes);
      if (errors.empty()) {
        progress = true;
      } else {
        errors_[origin] = LinesOf(errors);
      }
    }
  }
  for (const auto& [origin, pending] : pending_) {
    const std::vector<std::string>& errors = errors_[origin];
    outcome.errors.insert(outcome.errors.end(), errors.begin(), errors.end());
  }
  return outcome;
}

bool Model::ShrinkAllowed() const {
  return allow_shrink_ || std::any_of(claims_.origins().begin(), claims_.origins().end(),
                                      [](const auto& entry) { return entry.second.allow_shrink; });
}

std::vector<SourceStatus> Model::Sources(std::size_t max) const {
  std::map<std::string, SourceStatus> all;
  // The first `max` of each: the first of all are among them.
  const auto first = [max](const auto& by_origin, auto&& take) {
    std::size_t left = max;
    for (auto it = by_origin.begin(); it != by_origin.end() && left > 0; ++it, --left) take(*it);
  };
  first(claims_.origins(), [&all](const auto& each) {
    all[each.first].accepted = true;
    all[each.first].current = true;
  });
  first(pending_, [&](const auto& each) {
    all[each.first].accepted = claims_.origins().contains(each.first);
    all[each.first].current = false;
  });
  first(errors_, [&](const auto& each) {
    all[each.first].accepted = claims_.origins().contains(each.first);
    all[each.first].current = false;
    all[each.first].errors = each.second;
  });
  std::vector<SourceStatus> result;
  for (auto& [origin, status] : all) {
    if (result.size() >= max) break;
    status.origin = origin;
    result.push_back(std::move(status));
  }
  return result;
}

std::vector<SourceOffer> Model::Accepted() const {
  std::vector<SourceOffer> offers;
  for (const auto& [name, origin] : claims_.origins()) {
    SourceOffer& offer = offers.emplace_back();
    offer.origin = name;
    offer.open = origin.open;
    offer.said.assign(origin.said.begin(), origin.said.end());
  }
  return offers;
}

}  // namespace weft::control
