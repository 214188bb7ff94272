// SPDX-License-Identifier: Apache-2.0
// One process of a program at a time in a directory that it writes to. Blocks as a system call does; any
// thread.
#ifndef WEFT_DATAPLANE_BASE_DIRECTORY_LOCK_H_
#define WEFT_DATAPLANE_BASE_DIRECTORY_LOCK_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/base/fd.h"

namespace weft {

// Holds `directory`/`program`.lock until the descriptor is closed, or the process ends in whatever way: one
// that a thread keeps from being gone is passed over (ProcessHasEnded). The file stays, and says which
// process holds it. ALREADY_EXISTS, by that, where another does; the code of errno where there can be no such
// file.
absl::StatusOr<UniqueFd> LockDirectory(const std::string& directory, absl::string_view program);

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_DIRECTORY_LOCK_H_
