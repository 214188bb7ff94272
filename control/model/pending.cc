// SPDX-License-Identifier: Apache-2.0
#include "control/model/pending.h"

#include <algorithm>

#include "dataplane/base/check.h"

namespace weft::control {
namespace {

// Whether what is said of `key` decides on what `entry` is an error of.
bool Concerns(const EntryKey& key, const Entry& entry) {
  const EntryKey of = entry.key();
  if (key == of) return true;
  if (of.kind != EntryKind::kEndpoint) return false;
  if (key.kind == EntryKind::kFunction) return key.names[0] == of.names[0];
  return key.kind == EntryKind::kNode && key.names[0] == of.names[1];
}

}  // namespace

bool Refusal::OnSaid(const EntryKey& key) {
  const bool concerned = std::any_of(wrong_.begin(), wrong_.end(),
                                     [&key](const EntryPtr& entry) { return Concerns(key, *entry); });
  if (concerned) wrong_.clear();
  return concerned;
}

Pending::Pending(const SourceOffer& offer, const Claims::Origin& accepted)
    : open_(offer.open),
      allow_shrink_(offer.allow_shrink),
      says_(accepted.said.size()),
      endpoints_(accepted.endpoints) {
  for (Putting& put : PuttingsOf(offer, accepted.said, &errors_)) Append(std::move(put), accepted);
}

Pending::Pending(const Claims::Origin& accepted)
    : gone_(true), open_(accepted.open), says_(accepted.said.size()), endpoints_(accepted.endpoints) {
  for (Putting& put : PuttingsOf(SourceOffer{}, accepted.said, &errors_)) Append(std::move(put), accepted);
}

bool Pending::refused() const {
  if (!tried_) return false;
  return !errors_.empty() || why_.stands() || Shrinks(shrinking_);
}

bool Pending::Shrinks(const Shrinking& last) const {
  return last.refused && !allow_shrink_ && endpoints_ == 0 && (last.lost > 0 || says_ == 0);
}

void Pending::OnRefused(Refusal why, Shrinking shrinking) {
  tried_ = true;
  why_ = std::move(why);
  shrinking_ = shrinking;
}

// What is wrong besides is told by one more try.
void Pending::OnSaid(const EntryKey& key) {
  if (why_.OnSaid(key)) tried_ = false;
}

void Pending::OnAccepted(const EntryKey& key, bool shared) {
  OnSaid(key);
  if (shared) shrinking_ = {};
}

void Pending::Add(const SourceOffer& offer, const Claims::Origin& accepted) {
  // What is held back because it would take too much away is not let in by the next event.
  allow_shrink_ = offer.allow_shrink && (puttings_.empty() || allow_shrink_);
  WEFT_DCHECK(open_ == offer.open);
  if (places_.size() != puttings_.size()) {
    places_.reserve(puttings_.size());
    for (std::size_t i = 0; i < puttings_.size(); ++i) places_.emplace(puttings_[i].key, i);
  }
  for (Putting& put : PuttingsOf(offer, accepted.said, &errors_)) {
    OnSaid(put.key->key());
    if (const auto place = places_.find(put.key); place != places_.end()) RemoveAt(place->second, accepted);
    const std::size_t last = puttings_.size();
    Append(std::move(put), accepted);
    if (puttings_.size() > last) places_.emplace(puttings_[last].key, last);
  }
}

// Of one key the later counts. What came and went while it was held back is nothing that the source would
// take back.
void Pending::Append(Putting put, const Claims::Origin& accepted) {
  if (put.after == nullptr && !accepted.said.contains(put.key)) return;
  Count(put, accepted, 1);
  puttings_.push_back(std::move(put));
}

void Pending::RemoveAt(std::size_t place, const Claims::Origin& accepted) {
  Count(puttings_[place], accepted, -1);
  places_.erase(puttings_[place].key);
  if (place + 1 != puttings_.size()) {
    puttings_[place] = std::move(puttings_.back());
    places_[puttings_[place].key] = place;
  }
  puttings_.pop_back();
}

void Pending::Count(const Putting& put, const Claims::Origin& accepted, int by) {
  const int before = accepted.said.contains(put.key) ? 1 : 0;
  const int after = put.after != nullptr ? 1 : 0;
  const int more = by * (after - before);
  // Wraps around, and back, where that is negative.
  says_ += static_cast<std::size_t>(more);
  if (put.key->kind == EntryKind::kEndpoint) endpoints_ += static_cast<std::size_t>(more);
}

}  // namespace weft::control
