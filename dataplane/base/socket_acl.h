// SPDX-License-Identifier: Apache-2.0
// Lets one more user at a file whose owner this process is, by a POSIX ACL: changing the file's group would
// need a group in common or a privilege. Control path; blocks as a system call does.
#ifndef WEFT_DATAPLANE_BASE_SOCKET_ACL_H_
#define WEFT_DATAPLANE_BASE_SOCKET_ACL_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"

namespace weft {

// Grants `uid` read and write on `path` beside mode 0660. UNIMPLEMENTED or another code of errno where the
// file system knows no ACLs.
absl::Status GrantSocket(const std::string& path, uid_t uid);

// Grants `uid` read on the file `path`, or passage through the directory `path`, and takes nothing from
// whoever has more. What the group may do stays as it is. The same errors.
absl::Status GrantReader(const std::string& path, uid_t uid);

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_SOCKET_ACL_H_
