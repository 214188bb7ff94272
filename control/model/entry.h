// SPDX-License-Identifier: Apache-2.0
// One thing that a source says: a node, a function, an endpoint or a rule, with the place where it says so.
// It is kept once, as the encoding of its message, and shared by the source that says it, by the model, and
// by what is on its way to disk: a mesh has up to 250,000 of them. Immutable; any thread.
#ifndef WEFT_CONTROL_MODEL_ENTRY_H_
#define WEFT_CONTROL_MODEL_ENTRY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "dataplane/api/mesh.pb.h"

namespace weft::control {

// Line and column from 1; 0 where the source has no such thing.
struct Where {
  int line = 0;
  int column = 0;
  friend bool operator==(const Where&, const Where&) = default;
};

enum class EntryKind : uint8_t { kNode, kFunction, kEndpoint, kAllow };
inline constexpr std::size_t kEntryKinds = 4;

// The names that tell an entry from the others of its kind: a node's; a function's; function, node and host;
// from and to. Views: of an entry, valid as long as the entry. Made by the functions below and by Entry.
struct EntryKey {
  EntryKind kind = EntryKind::kNode;
  std::array<absl::string_view, 3> names;
  std::size_t hash = 0;  // Of the others

  friend bool operator==(const EntryKey& a, const EntryKey& b) {
    return a.hash == b.hash && a.kind == b.kind && a.names == b.names;
  }
  friend auto operator<=>(const EntryKey& a, const EntryKey& b) {
    return std::tie(a.kind, a.names) <=> std::tie(b.kind, b.names);
  }
};

EntryKey NodeKey(absl::string_view name);
EntryKey FunctionKey(absl::string_view name);
EntryKey EndpointKey(absl::string_view function, absl::string_view node, absl::string_view host);
EntryKey AllowKey(absl::string_view from, absl::string_view to);

struct Entry {
  static constexpr uint32_t kNoIndex = UINT32_MAX;

  std::string bytes;     // The message's encoding, in the order of its fields: the names come first.
  std::size_t hash = 0;  // Of its key: what a table of 100,000 is searched and grown by without reading names
  Where where;
  uint32_t index = kNoIndex;  // In the source's list of its kind; kNoIndex where it has no lists.
  EntryKind kind = EntryKind::kNode;
  // It follows from something else, such as a node's own report: whatever a source says outright of the same
  // name stands, and of several such the one whose source comes first by name.
  bool implied = false;

  EntryKey key() const;
};

using EntryPtr = std::shared_ptr<const Entry>;

EntryPtr MakeEntry(const api::Node& node, bool implied = false, Where where = {},
                   uint32_t index = Entry::kNoIndex);
EntryPtr MakeEntry(const api::Function& function, bool implied = false, Where where = {},
                   uint32_t index = Entry::kNoIndex);
EntryPtr MakeEntry(const api::Endpoint& endpoint, bool implied = false, Where where = {},
                   uint32_t index = Entry::kNoIndex);
EntryPtr MakeEntry(const api::Allow& allow, bool implied = false, Where where = {},
                   uint32_t index = Entry::kNoIndex);

// Of a message's encoding, as Entry has it.
EntryPtr MakeEntry(EntryKind kind, std::string bytes, bool implied = false, Where where = {},
                   uint32_t index = Entry::kNoIndex);

// The message of an entry of T's kind.
template <typename T>
T MessageOf(const Entry& entry) {
  T message;
  message.ParseFromString(entry.bytes);
  return message;
}

// Whether both say the same of the mesh, wherever they say it; null says nothing.
bool SameValue(const EntryPtr& a, const EntryPtr& b);

// Sets of entries that are found by their keys, without one made for the purpose.
struct EntryHash {
  using is_transparent = void;
  std::size_t operator()(const EntryKey& key) const { return key.hash; }
  std::size_t operator()(const EntryPtr& entry) const { return entry->hash; }
};
struct EntryEq {
  using is_transparent = void;
  static EntryKey KeyOf(const EntryKey& key) { return key; }
  static EntryKey KeyOf(const EntryPtr& entry) { return entry->key(); }
  template <typename A, typename B>
  bool operator()(const A& a, const B& b) const {
    return KeyOf(a) == KeyOf(b);
  }
};
using EntrySet = absl::flat_hash_set<EntryPtr, EntryHash, EntryEq>;

// What one source says: it may say the same name outright and as implied.
struct SaidEq {
  bool operator()(const EntryPtr& a, const EntryPtr& b) const {
    return a == b || (a->hash == b->hash && a->implied == b->implied && a->key() == b->key());
  }
};
struct SaidHash {
  std::size_t operator()(const EntryPtr& entry) const { return EntryHash{}(entry); }
};
using SaidSet = absl::flat_hash_set<EntryPtr, SaidHash, SaidEq>;

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_ENTRY_H_
