// SPDX-License-Identifier: Apache-2.0
// Users in configuration files and on command lines: a name or a number.
#ifndef WEFT_DATAPLANE_CONFIG_USER_H_
#define WEFT_DATAPLANE_CONFIG_USER_H_

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"

namespace weft {

// The id of a user of the user database, or the number itself. INVALID_ARGUMENT for an unknown name. May
// block.
absl::StatusOr<uid_t> UidOf(const std::string& user);

}  // namespace weft

#endif  // WEFT_DATAPLANE_CONFIG_USER_H_
