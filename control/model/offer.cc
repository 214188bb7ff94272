// SPDX-License-Identifier: Apache-2.0
#include "control/model/offer.h"

namespace weft::control {
namespace {

template <typename T>
void Append(const std::vector<Said<T>>& list, std::vector<EntryPtr>* entries) {
  uint32_t index = 0;
  for (const Said<T>& said : list) {
    entries->push_back(MakeEntry(said.value, said.implied, said.where, index++));
  }
}

}  // namespace

void AppendDifference(const std::vector<EntryPtr>& before, const std::vector<EntryPtr>& now,
                      std::vector<EntryPtr>* said, SourceOffer* offer) {
  const SaidSet old(before.begin(), before.end());
  const SaidSet fresh(now.begin(), now.end());
  for (const EntryPtr& entry : fresh) {
    const auto same = old.find(entry);
    if (same != old.end() && SameValue(*same, entry)) {
      said->push_back(*same);
      continue;
    }
    said->push_back(entry);
    offer->said.push_back(entry);
  }
  for (const EntryPtr& entry : old) {
    if (!fresh.contains(entry)) offer->unsaid.push_back(entry);
  }
}

SourceOffer OfferOf(const SourceMesh& mesh) {
  SourceOffer offer;
  offer.origin = mesh.origin;
  offer.open = mesh.open;
  offer.allow_shrink = mesh.allow_shrink;
  offer.said.reserve(mesh.nodes.size() + mesh.functions.size() + mesh.endpoints.size() + mesh.allow.size());
  Append(mesh.nodes, &offer.said);
  Append(mesh.functions, &offer.said);
  Append(mesh.endpoints, &offer.said);
  Append(mesh.allow, &offer.said);
  return offer;
}

}  // namespace weft::control
