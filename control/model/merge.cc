// SPDX-License-Identifier: Apache-2.0
#include "control/model/merge.h"

#include <algorithm>

namespace weft::control {

std::vector<Putting> PuttingsOf(const SourceOffer& offer, const SaidSet& before,
                                std::vector<MeshError>* errors) {
  std::vector<Putting> puttings;
  if (!offer.whole) {
    puttings.reserve(offer.said.size() + offer.unsaid.size());
    for (const EntryPtr& entry : offer.said) puttings.push_back({entry, entry});
    for (const EntryPtr& entry : offer.unsaid) puttings.push_back({entry, nullptr});
    return puttings;
  }
  SaidSet now;
  now.reserve(offer.said.size());
  puttings.reserve(offer.said.size());
  for (const EntryPtr& entry : offer.said) {
    const auto [first, fresh] = now.insert(entry);
    if (!fresh) {
      // Of two that are implied the first stands.
      if (!entry->implied && errors->size() < kMergeErrorsMax) {
        errors->push_back(ErrorOf(offer.origin, *entry, DuplicateMessage(*entry, offer.origin, **first)));
      }
      continue;
    }
    const auto old = before.find(entry);
    const bool same = old != before.end() && SameValue(*old, entry) && (*old)->where == entry->where &&
                      (*old)->index == entry->index;
    if (!same) puttings.push_back({entry, entry});
  }
  const std::size_t said = puttings.size();
  for (const EntryPtr& entry : before) {
    if (!now.contains(entry)) puttings.push_back({entry, nullptr});
  }
  std::sort(puttings.begin() + static_cast<std::ptrdiff_t>(said), puttings.end(),
            [](const Putting& a, const Putting& b) { return a.key->key() < b.key->key(); });
  return puttings;
}

Merged Merge(absl::Span<const SourceMesh* const> sources, const FunctionIdSource& id_of) {
  Claims claims(id_of);
  Merged merged;
  bool incomplete = false;
  claims.Begin();
  for (const SourceMesh* source : sources) {
    incomplete |= source->incomplete;
    Claims::Origin* origin = claims.Try(source->origin, source->open, source->allow_shrink);
    for (const Putting& put : PuttingsOf(OfferOf(*source), origin->said, &merged.errors)) {
      claims.Put(origin, put.key, put.after);
    }
  }
  // A name that could not be read has its own error; what refers to it would only add noise.
  std::vector<MeshError> errors = claims.Check(!incomplete);
  for (MeshError& error : errors) {
    if (merged.errors.size() < kMergeErrorsMax) merged.errors.push_back(std::move(error));
  }
  merged.state = claims.state();
  return merged;
}

}  // namespace weft::control
