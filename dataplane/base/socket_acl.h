// SPDX-License-Identifier: Apache-2.0
// Lets one more user connect to a Unix socket whose owner this process is, by a POSIX ACL: changing the
// file's group would need a group in common or a privilege. Called once at start.
#ifndef WEFT_DATAPLANE_BASE_SOCKET_ACL_H_
#define WEFT_DATAPLANE_BASE_SOCKET_ACL_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"

namespace weft {

// Grants `uid` read and write on `path` beside mode 0660. UNIMPLEMENTED or another code of errno where the
// file system knows no ACLs.
absl::Status GrantSocket(const std::string& path, uid_t uid);

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_SOCKET_ACL_H_
