// SPDX-License-Identifier: Apache-2.0
#include "control/model/mesh_error.h"

#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"

namespace weft::control {
namespace {

constexpr const char* kLists[kEntryKinds] = {"nodes", "functions", "endpoints", "allow"};

std::string PlaceOf(const std::string& origin, const Entry& entry) {
  return entry.where.line > 0 ? absl::StrCat(origin, ":", entry.where.line) : origin;
}

std::string NameOf(const EntryKey& key) {
  switch (key.kind) {
    case EntryKind::kNode:
      return absl::StrCat("node \"", key.names[0], "\"");
    case EntryKind::kFunction:
      return absl::StrCat("function \"", key.names[0], "\"");
    case EntryKind::kEndpoint:
      return absl::StrCat("endpoint of \"", key.names[0], "\" on host \"", key.names[2], "\" of node \"",
                          key.names[1], "\"");
    case EntryKind::kAllow:
      return absl::StrCat("rule from \"", key.names[0], "\" to \"", key.names[1], "\"");
  }
  return "";
}

}  // namespace

std::string MeshError::ToString() const {
  std::string text = origin;
  if (where.line > 0) absl::StrAppend(&text, ":", where.line);
  if (where.column > 0) absl::StrAppend(&text, ":", where.column);
  return absl::StrCat(text, ": ", key, key.empty() ? "" : ": ", message);
}

MeshError ErrorOf(const std::string& origin, const Entry& entry, std::string message) {
  std::string key;
  if (entry.index != Entry::kNoIndex) {
    key = absl::StrCat(kLists[static_cast<std::size_t>(entry.kind)], "[", entry.index, "]");
  }
  return {origin, entry.where, std::move(key), std::move(message)};
}

std::string DuplicateMessage(const Entry& entry, const std::string& first_origin, const Entry& first) {
  return absl::StrCat("duplicate ", NameOf(entry.key()), ", first at ", PlaceOf(first_origin, first));
}

}  // namespace weft::control
