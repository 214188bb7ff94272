// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/fd.h"

#include <fcntl.h>
#include <unistd.h>

namespace weft {

void UniqueFd::Reset(int fd) {
  // Linux frees the number even where close() reports EINTR, so there is nothing to try again.
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

UniqueFd DuplicateFd(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

}  // namespace weft
