// SPDX-License-Identifier: Apache-2.0
// Replaces a file so that a crash leaves the old one or the new one, never a part. Blocks; any thread, but
// one at a time for each path.
#ifndef WEFT_DATAPLANE_BASE_DURABLE_FILE_H_
#define WEFT_DATAPLANE_BASE_DURABLE_FILE_H_

#include <sys/types.h>

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft {

// Written beside `path`, as `path`.new, synced, then renamed. The errors name file and errno; what was
// written by then is removed again.
absl::Status ReplaceFile(const std::string& path, absl::string_view bytes, mode_t mode);

// The same, of what `fill` hands to its argument piece by piece: large files are never held whole. An error
// of a piece is for `fill` to return.
using AppendBytes = std::function<absl::Status(absl::string_view bytes)>;
absl::Status ReplaceFile(const std::string& path, mode_t mode,
                         const std::function<absl::Status(const AppendBytes& append)>& fill);

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_DURABLE_FILE_H_
