// SPDX-License-Identifier: Apache-2.0
// Replaces a file so that a crash leaves the old one or the new one, never a part. Blocks; any thread, but
// one at a time for each path.
#ifndef WEFT_DATAPLANE_BASE_DURABLE_FILE_H_
#define WEFT_DATAPLANE_BASE_DURABLE_FILE_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft {

// Written beside `path`, as `path`.new, synced, then renamed. The errors name file and errno; what was
// written by then is removed again.
absl::Status ReplaceFile(const std::string& path, absl::string_view bytes, mode_t mode);

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_DURABLE_FILE_H_
