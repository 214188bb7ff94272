// SPDX-License-Identifier: Apache-2.0
#include "dataplane/config/user.h"

#include <pwd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace weft {

absl::StatusOr<uid_t> UidOf(const std::string& user) {
  uint32_t number = 0;
  if (absl::SimpleAtoi(user, &number)) return number;
  std::string buffer(16 * 1024, '\0');
  passwd entry;
  passwd* found = nullptr;
  getpwnam_r(user.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) return absl::InvalidArgumentError(absl::StrCat("no user is called \"", user, "\""));
  return found->pw_uid;
}

}  // namespace weft
