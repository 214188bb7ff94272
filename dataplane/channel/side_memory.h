// SPDX-License-Identifier: Apache-2.0
// The sealed memory that one process writes and its peer reads. Made by each host for each of its channels;
// checked by the agent before it passes one on, and by the receiving host again before it maps it.
#ifndef WEFT_DATAPLANE_CHANNEL_SIDE_MEMORY_H_
#define WEFT_DATAPLANE_CHANNEL_SIDE_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/mapping.h"

namespace weft {

// Why a descriptor is not taken as a peer's side memory.
enum class SideMemoryFault : uint8_t {
  kNone = 0,
  kNotMemfd,    // F_GET_SEALS fails: not a memfd, or a descriptor opened with O_PATH.
  kNotSealed,   // One of the four seals is missing.
  kNotTmpfs,    // Huge pages or another file system: a read could raise SIGBUS.
  kWrongSize,   // Not the size agreed on.
  kSparse,      // Pages are missing, which the reader would have to allocate.
  kUnreadable,  // The kernel would not say.
};
absl::string_view SideMemoryFaultText(SideMemoryFault fault);

// Whether `fd` can be mapped and read for ever without a fault, whoever holds other descriptors of it: all of
// FUTURE_WRITE, SHRINK, GROW and SEAL set, tmpfs, exactly `bytes` long, no hole. Asks for the seals first:
// what is not a memfd fails there without its file system being asked, which might never answer. Never
// blocks.
SideMemoryFault FindSideMemoryFault(int fd, std::size_t bytes);

// The same as a status: FAILED_PRECONDITION that names the fault.
absl::Status CheckSideMemory(int fd, std::size_t bytes);

// One's own side memory: mapped writable, then sealed.
class SideMemory {
 public:
  // Allocates every page. `name` shows in /proc/<pid>/maps. RESOURCE_EXHAUSTED where memory is short.
  static absl::StatusOr<SideMemory> Create(const char* name, std::size_t bytes);

  // To be passed to the peer, who can map it for reading only.
  int fd() const { return fd_.get(); }
  std::byte* data() const { return mapping_.data(); }
  std::size_t bytes() const { return mapping_.bytes(); }

 private:
  SideMemory(UniqueFd fd, Mapping mapping) : fd_(std::move(fd)), mapping_(std::move(mapping)) {}

  UniqueFd fd_;
  Mapping mapping_;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_SIDE_MEMORY_H_
