// SPDX-License-Identifier: Apache-2.0
// What a source says, gathered from all that it told, in the order of the names.
#ifndef WEFT_TESTS_CONTROL_SOURCE_SAID_MESH_H_
#define WEFT_TESTS_CONTROL_SOURCE_SAID_MESH_H_

#include <algorithm>
#include <cstddef>
#include <vector>

#include "control/model/offer.h"

namespace weft::control {

class SaidMesh {
 public:
  void Take(const SourceOffer& offer) {
    if (offer.whole) said_.clear();
    for (const EntryPtr& entry : offer.unsaid) said_.erase(entry);
    for (const EntryPtr& entry : offer.said) {
      said_.erase(entry);
      said_.insert(entry);
    }
    last_ = offer;
    last_.said.clear();
    last_.unsaid.clear();
    made_ = false;
  }
  std::size_t count(EntryKind kind) const {
    return static_cast<std::size_t>(std::count_if(
        said_.begin(), said_.end(), [kind](const EntryPtr& entry) { return entry->kind == kind; }));
  }
  const SourceMesh& mesh() const {
    if (!made_) Make();
    return mesh_;
  }

 private:
  void Make() const {
    made_ = true;
    std::vector<EntryPtr> entries(said_.begin(), said_.end());
    std::sort(entries.begin(), entries.end(),
              [](const EntryPtr& a, const EntryPtr& b) { return a->key() < b->key(); });
    mesh_ = {};
    mesh_.origin = last_.origin;
    mesh_.open = last_.open;
    mesh_.allow_shrink = last_.allow_shrink;
    for (const EntryPtr& entry : entries) {
      if (entry->kind == EntryKind::kNode) Add(*entry, &mesh_.nodes);
      if (entry->kind == EntryKind::kFunction) Add(*entry, &mesh_.functions);
      if (entry->kind == EntryKind::kEndpoint) Add(*entry, &mesh_.endpoints);
      if (entry->kind == EntryKind::kAllow) Add(*entry, &mesh_.allow);
    }
  }
  template <typename T>
  static void Add(const Entry& entry, std::vector<Said<T>>* list) {
    list->push_back({MessageOf<T>(entry), entry.where, entry.implied});
  }

  SaidSet said_;
  SourceOffer last_;  // But for its entries
  // Made of the above when somebody asks: a flood of changes would sort it 10,000 times.
  mutable bool made_ = false;
  mutable SourceMesh mesh_;
};

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_SOURCE_SAID_MESH_H_
