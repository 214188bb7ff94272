// SPDX-License-Identifier: Apache-2.0
#include "control/model/offer.h"

#include <algorithm>
#include <utility>

namespace weft::control {
namespace {

template <typename T>
void Append(const std::vector<Said<T>>& list, std::vector<EntryPtr>* entries) {
  uint32_t index = 0;
  for (const Said<T>& said : list) {
    entries->push_back(MakeEntry(said.value, said.implied, said.where, index++));
  }
}

// Finds entries of a list by key: the first one, where several have it.
class Index {
 public:
  // `list` outlives it.
  explicit Index(const std::vector<EntryPtr>& list) : list_(list) {
    if (list.size() > kScanMax) set_.insert(list.begin(), list.end());
  }
  // Null where there is none.
  EntryPtr Find(const EntryPtr& entry) const {
    if (list_.size() > kScanMax) {
      const auto found = set_.find(entry);
      return found == set_.end() ? nullptr : *found;
    }
    const auto found = std::find_if(list_.begin(), list_.end(),
                                    [&entry](const EntryPtr& each) { return SaidEq{}(each, entry); });
    return found == list_.end() ? nullptr : *found;
  }

 private:
  // Most lists are the endpoints of one function: to look at the hashes of so many is less than to make a
  // set.
  static constexpr std::size_t kScanMax = 32;

  const std::vector<EntryPtr>& list_;
  SaidSet set_;
};

}  // namespace

void AppendDifference(const std::vector<EntryPtr>& before, const std::vector<EntryPtr>& now,
                      std::vector<EntryPtr>* said, SourceOffer* offer) {
  const Index old(before);
  const Index fresh(now);
  said->reserve(now.size());
  for (const EntryPtr& entry : now) {
    if (fresh.Find(entry) != entry) continue;
    EntryPtr same = old.Find(entry);
    if (same != nullptr && SameValue(same, entry)) {
      said->push_back(std::move(same));
      continue;
    }
    said->push_back(entry);
    offer->said.push_back(entry);
  }
  for (const EntryPtr& entry : before) {
    if (fresh.Find(entry) == nullptr) offer->unsaid.push_back(entry);
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
