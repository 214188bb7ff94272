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
