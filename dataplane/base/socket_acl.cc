// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/socket_acl.h"

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace weft {

absl::Status GrantSocket(const std::string& path, uid_t uid) {
  constexpr uint16_t kReadWrite = ACL_READ | ACL_WRITE;
  constexpr int kEntries = 5;
  struct {
    posix_acl_xattr_header header;
    posix_acl_xattr_entry entries[kEntries];
  } acl;
  // The kernel wants them sorted by tag, and little-endian as every platform of ours is.
  acl.header.a_version = POSIX_ACL_XATTR_VERSION;
  acl.entries[0] = {ACL_USER_OBJ, kReadWrite, static_cast<uint32_t>(ACL_UNDEFINED_ID)};
  acl.entries[1] = {ACL_USER, kReadWrite, uid};
  acl.entries[2] = {ACL_GROUP_OBJ, kReadWrite, static_cast<uint32_t>(ACL_UNDEFINED_ID)};
  acl.entries[3] = {ACL_MASK, kReadWrite, static_cast<uint32_t>(ACL_UNDEFINED_ID)};
  acl.entries[4] = {ACL_OTHER, 0, static_cast<uint32_t>(ACL_UNDEFINED_ID)};
  if (setxattr(path.c_str(), "system.posix_acl_access", &acl, sizeof(acl), 0) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("grant uid ", uid, " access to ", path));
  }
  return absl::OkStatus();
}

}  // namespace weft
