// SPDX-License-Identifier: Apache-2.0
#include "control/model/mesh_state.h"

#include <optional>
#include <utility>

namespace weft::control {
namespace {

// Spreads items over parts of bounded size.
class Packer {
 public:
  Packer(uint64_t generation, bool snapshot, const ProgramSink& sink)
      : generation_(generation), snapshot_(snapshot), sink_(sink) {}

  void Upsert(const Entry& entry) {
    api::Mesh& mesh = *Room(entry.bytes.size()).mutable_upsert();
    switch (entry.kind) {
      case EntryKind::kNode:
        mesh.add_nodes()->ParseFromString(entry.bytes);
        return;
      case EntryKind::kFunction:
        mesh.add_functions()->ParseFromString(entry.bytes);
        return;
      case EntryKind::kEndpoint:
        mesh.add_endpoints()->ParseFromString(entry.bytes);
        return;
      case EntryKind::kAllow:
        mesh.add_allow()->ParseFromString(entry.bytes);
        return;
    }
  }

  void Delete(const EntryKey& key) {
    const auto name = [&key](std::size_t i) { return std::string(key.names[i]); };
    // Tag and length of each name: at most 6 bytes.
    api::Program& part = Room(key.names[0].size() + key.names[1].size() + key.names[2].size() + 18);
    switch (key.kind) {
      case EntryKind::kNode:
        part.add_delete_nodes(name(0));
        return;
      case EntryKind::kFunction:
        part.add_delete_functions(name(0));
        return;
      case EntryKind::kEndpoint: {
        api::Endpoint& endpoint = *part.add_delete_endpoints();
        endpoint.set_function(name(0));
        endpoint.set_node(name(1));
        endpoint.set_host(name(2));
        return;
      }
      case EntryKind::kAllow: {
        api::Allow& allow = *part.add_delete_allow();
        allow.set_from(name(0));
        allow.set_to(name(1));
        return;
      }
    }
  }

  // The part that takes the next item of `bytes`.
  api::Program& Room(std::size_t bytes) {
    // Tags and lengths of the item and of the messages around it: at most 6 bytes each, two deep.
    bytes += 12;
    if (!part_.has_value() || used_ + bytes > kProgramPartBytesMax) {
      if (part_.has_value()) sink_(*std::move(part_));
      part_.emplace();
      part_->set_generation(generation_);
      part_->set_snapshot(snapshot_);
      used_ = 32;
    }
    used_ += bytes;
    return *part_;
  }

  void Finish() {
    if (!part_.has_value()) return;
    part_->set_last(true);
    sink_(*std::move(part_));
  }

 private:
  uint64_t generation_;
  bool snapshot_;
  const ProgramSink& sink_;
  std::size_t used_ = 0;
  std::optional<api::Program> part_;
};

// What is referred to comes before what refers to it; it goes after it.
constexpr EntryKind kAddOrder[] = {EntryKind::kNode, EntryKind::kFunction, EntryKind::kEndpoint,
                                   EntryKind::kAllow};
constexpr EntryKind kDeleteOrder[] = {EntryKind::kEndpoint, EntryKind::kAllow, EntryKind::kFunction,
                                      EntryKind::kNode};

}  // namespace

EntryPtr MeshState::Find(const EntryKey& key) const {
  const auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : *found;
}

void MeshState::Put(EntryPtr after) {
  const auto [held, fresh] = entries_.insert(after);
  if (fresh) {
    ++counts_[static_cast<std::size_t>(after->kind)];
  } else if (*held != after) {
    entries_.erase(held);
    entries_.insert(std::move(after));
  }
}

void MeshState::Erase(const EntryKey& key) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return;
  --counts_[static_cast<std::size_t>(key.kind)];
  entries_.erase(found);
}

void MakeSnapshot(const MeshState& to, uint64_t generation, const ProgramSink& sink) {
  Packer packer(generation, true, sink);
  packer.Room(0);  // An empty state is one part, too.
  for (const EntryKind kind : kAddOrder) {
    if (to.count(kind) == 0) continue;
    for (const EntryPtr& entry : to) {
      if (entry->kind == kind) packer.Upsert(*entry);
    }
  }
  packer.Finish();
}

void MakeDelta(absl::Span<const EntryChange> changes, uint64_t generation, const ProgramSink& sink) {
  Packer packer(generation, false, sink);
  for (const EntryKind kind : kAddOrder) {
    for (const EntryChange& change : changes) {
      if (change.after != nullptr && change.after->kind == kind) packer.Upsert(*change.after);
    }
  }
  for (const EntryKind kind : kDeleteOrder) {
    for (const EntryChange& change : changes) {
      if (change.after == nullptr && change.before->kind == kind) packer.Delete(change.before->key());
    }
  }
  packer.Finish();
}

}  // namespace weft::control
