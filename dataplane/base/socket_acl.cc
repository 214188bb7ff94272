// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/socket_acl.h"

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace weft {
namespace {

constexpr char kAccess[] = "system.posix_acl_access";
constexpr std::size_t kAclBytesMax = 4096;

struct Rights {
  uint16_t owner, user, group, other;
};

absl::Status SetAcl(const std::string& path, uid_t uid, Rights rights) {
  constexpr int kEntries = 5;
  struct {
    posix_acl_xattr_header header;
    posix_acl_xattr_entry entries[kEntries];
  } acl;
  const auto mask = static_cast<uint16_t>(rights.user | rights.group);
  // The kernel wants them sorted by tag, and little-endian as every platform of ours is.
  acl.header.a_version = POSIX_ACL_XATTR_VERSION;
  acl.entries[0] = {ACL_USER_OBJ, rights.owner, static_cast<uint32_t>(ACL_UNDEFINED_ID)};
  acl.entries[1] = {ACL_USER, rights.user, uid};
  acl.entries[2] = {ACL_GROUP_OBJ, rights.group, static_cast<uint32_t>(ACL_UNDEFINED_ID)};
  acl.entries[3] = {ACL_MASK, mask, static_cast<uint32_t>(ACL_UNDEFINED_ID)};
  acl.entries[4] = {ACL_OTHER, rights.other, static_cast<uint32_t>(ACL_UNDEFINED_ID)};
  if (setxattr(path.c_str(), kAccess, &acl, sizeof(acl), 0) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("grant uid ", uid, " access to ", path));
  }
  return absl::OkStatus();
}

// What the group may do: where there is an ACL already, the mode shows its mask instead.
uint16_t GroupOf(const std::string& path, mode_t mode) {
  std::array<char, kAclBytesMax> acl;
  const ssize_t bytes = getxattr(path.c_str(), kAccess, acl.data(), acl.size());
  for (std::size_t at = sizeof(posix_acl_xattr_header);
       bytes > 0 && at + sizeof(posix_acl_xattr_entry) <= static_cast<std::size_t>(bytes);
       at += sizeof(posix_acl_xattr_entry)) {
    posix_acl_xattr_entry entry;
    std::memcpy(&entry, acl.data() + at, sizeof(entry));
    if (entry.e_tag == ACL_GROUP_OBJ) return entry.e_perm;
  }
  return (mode >> 3) & 7;
}

}  // namespace

absl::Status GrantSocket(const std::string& path, uid_t uid) {
  constexpr uint16_t kReadWrite = ACL_READ | ACL_WRITE;
  return SetAcl(path, uid, {kReadWrite, kReadWrite, kReadWrite, 0});
}

absl::Status GrantReader(const std::string& path, uid_t uid) {
  struct stat about;
  if (stat(path.c_str(), &about) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("stat ", path));
  const uint16_t wanted = S_ISDIR(about.st_mode) ? ACL_EXECUTE : ACL_READ;
  if ((about.st_mode & wanted) == wanted) return absl::OkStatus();  // Anybody may.
  return SetAcl(path, uid,
                {static_cast<uint16_t>((about.st_mode >> 6) & 7), wanted, GroupOf(path, about.st_mode),
                 static_cast<uint16_t>(about.st_mode & 7)});
}

}  // namespace weft
