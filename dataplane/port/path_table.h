// SPDX-License-Identifier: Apache-2.0
// The ways to peers that a port knows: `path`, as FinishSend takes it, to what the port needs to send there.
// An id is not used again after its removal, so a late FinishSend cannot reach somebody else. Owner worker
// only.
#ifndef WEFT_DATAPLANE_PORT_PATH_TABLE_H_
#define WEFT_DATAPLANE_PORT_PATH_TABLE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "dataplane/port/address.h"

namespace weft::port {

// An agent speaks to every node of its mesh from each worker.
inline constexpr std::size_t kPathsMax = 4096;

// What a path has to carry: the port's largest datagrams.
inline constexpr std::size_t kLargestDatagrams = SIZE_MAX;

// FAILED_PRECONDITION, with the figures, where a path carries datagrams of `carries` bytes and not of
// `bytes_least`, which is at most the port's `bytes_max`.
inline absl::Status CheckCarries(const Address& local, const Address& peer, std::size_t carries,
                                 std::size_t bytes_least, std::size_t bytes_max) {
  const std::size_t needed = std::min(bytes_least, bytes_max);
  if (carries >= needed) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the path from ", local.ToString(), " to ",
                                                    peer.ToString(), " carries datagrams of ", carries,
                                                    " bytes, less than the ", needed, " in use"));
}

template <typename Path>
class PathTable {
 public:
  // RESOURCE_EXHAUSTED at kPathsMax.
  absl::StatusOr<uint64_t> Add(Path path) {
    std::size_t index = 0;
    while (index < entries_.size() && entries_[index].live) ++index;
    if (index == kPathsMax) {
      return absl::ResourceExhaustedError(absl::StrCat("a port has at most ", kPathsMax, " paths"));
    }
    if (index == entries_.size()) entries_.emplace_back();
    Entry& entry = entries_[index];
    entry = {.path = std::move(path), .generation = entry.generation + 1, .live = true};
    return (static_cast<uint64_t>(entry.generation) << 32) | index;
  }

  // Null where there is none of that name.
  Path* Find(uint64_t id) {
    const std::size_t index = static_cast<uint32_t>(id);
    if (index >= entries_.size()) return nullptr;
    Entry& entry = entries_[index];
    return entry.live && entry.generation == id >> 32 ? &entry.path : nullptr;
  }

  void Remove(uint64_t id) {
    if (Find(id) != nullptr) entries_[static_cast<uint32_t>(id)].live = false;
  }

  // Calls `function(path)` for each.
  template <typename Function>
  void ForEach(Function function) {
    for (Entry& entry : entries_) {
      if (entry.live) function(entry.path);
    }
  }

 private:
  struct Entry {
    Path path{};
    uint32_t generation = 0;
    bool live = false;
  };
  std::vector<Entry> entries_;
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_PATH_TABLE_H_
