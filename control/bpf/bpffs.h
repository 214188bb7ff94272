// SPDX-License-Identifier: Apache-2.0
// The BPF file system in which weft-control pins what outlives it. Mounting one takes more privilege than
// weft-control has: it is mounted for it, and given to its user.
#ifndef WEFT_CONTROL_BPF_BPFFS_H_
#define WEFT_CONTROL_BPF_BPFFS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"

namespace weft::control {

// FAILED_PRECONDITION with the commands to run as root where `directory` is not a BPF file system that the
// caller's user owns.
absl::Status CheckBpffs(const std::string& directory);

// `name` as a name that a BPF file system takes: it allows no dot, which interfaces may have, and interfaces
// no colon.
std::string PinName(const std::string& name);

absl::Status MakeDirectory(const std::string& path);  // One that is there already is fine.
absl::Status Pin(int fd, const std::string& path);
// NOT_FOUND where nothing is pinned there.
absl::StatusOr<UniqueFd> GetPinned(const std::string& path);
// Removes one pin, or a directory and the pins in it; what is not there is fine.
absl::Status Unpin(const std::string& path);
absl::Status RemovePins(const std::string& directory);
absl::Status RenamePins(const std::string& from, const std::string& to);
bool Exists(const std::string& path);

}  // namespace weft::control

#endif  // WEFT_CONTROL_BPF_BPFFS_H_
