// SPDX-License-Identifier: Apache-2.0
#include "control/model/entry.h"

#include <utility>

#include "absl/hash/hash.h"

namespace weft::control {
namespace {

// How many of a message's first fields are names, by kind.
constexpr std::array<std::size_t, kEntryKinds> kNames = {1, 1, 3, 2};

using Names = std::array<absl::string_view, 3>;

EntryKey Hashed(EntryKind kind, const Names& names) {
  return {kind, names, absl::HashOf(kind, names[0], names[1], names[2])};
}

// The fields 1 to 3 of the message, all strings; one that is empty is left out of an encoding.
Names NamesIn(EntryKind kind, absl::string_view rest) {
  Names names;
  for (std::size_t i = 0; i < kNames[static_cast<std::size_t>(kind)]; ++i) {
    const auto tag = static_cast<char>(((i + 1) << 3) | 2);
    if (rest.size() < 2 || rest[0] != tag) continue;
    std::size_t length = 0;
    std::size_t at = 1;
    for (unsigned shift = 0; at < rest.size() && shift < 32; shift += 7) {
      const auto byte = static_cast<uint8_t>(rest[at++]);
      length |= static_cast<std::size_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    names[i] = rest.substr(at, length);
    rest = rest.substr(at + names[i].size());
  }
  return names;
}

}  // namespace

EntryKey NodeKey(absl::string_view name) { return Hashed(EntryKind::kNode, {name}); }
EntryKey FunctionKey(absl::string_view name) { return Hashed(EntryKind::kFunction, {name}); }
EntryKey EndpointKey(absl::string_view function, absl::string_view node, absl::string_view host) {
  return Hashed(EntryKind::kEndpoint, {function, node, host});
}
EntryKey AllowKey(absl::string_view from, absl::string_view to) {
  return Hashed(EntryKind::kAllow, {from, to});
}

EntryKey Entry::key() const { return {kind, NamesIn(kind, bytes), hash}; }

EntryPtr MakeEntry(EntryKind kind, std::string bytes, bool implied, Where where, uint32_t index) {
  auto entry = std::make_shared<Entry>();
  entry->bytes = std::move(bytes);
  entry->hash = Hashed(kind, NamesIn(kind, entry->bytes)).hash;
  entry->where = where;
  entry->index = index;
  entry->kind = kind;
  entry->implied = implied;
  return entry;
}

EntryPtr MakeEntry(const api::Node& node, bool implied, Where where, uint32_t index) {
  return MakeEntry(EntryKind::kNode, node.SerializeAsString(), implied, where, index);
}
EntryPtr MakeEntry(const api::Function& function, bool implied, Where where, uint32_t index) {
  return MakeEntry(EntryKind::kFunction, function.SerializeAsString(), implied, where, index);
}
EntryPtr MakeEntry(const api::Endpoint& endpoint, bool implied, Where where, uint32_t index) {
  return MakeEntry(EntryKind::kEndpoint, endpoint.SerializeAsString(), implied, where, index);
}
EntryPtr MakeEntry(const api::Allow& allow, bool implied, Where where, uint32_t index) {
  return MakeEntry(EntryKind::kAllow, allow.SerializeAsString(), implied, where, index);
}

bool SameValue(const EntryPtr& a, const EntryPtr& b) {
  if (a == nullptr || b == nullptr) return a == b;
  return a == b || a->bytes == b->bytes;
}

}  // namespace weft::control
