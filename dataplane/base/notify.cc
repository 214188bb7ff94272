// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "absl/strings/numbers.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"

namespace weft {

Notifier Notifier::FromEnvironment() {
  Notifier notifier;
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path != nullptr && (path[0] == '/' || path[0] == '@')) notifier.path_ = path;
  const char* interval = std::getenv("WATCHDOG_USEC");
  const char* pid = std::getenv("WATCHDOG_PID");
  uint64_t interval_us = 0;
  int64_t watched = 0;
  const bool mine = pid == nullptr || (absl::SimpleAtoi(pid, &watched) && watched == getpid());
  if (mine && interval != nullptr && absl::SimpleAtoi(interval, &interval_us)) {
    notifier.watchdog_interval_ns_ = interval_us / 2 * kNsPerUs;
  }
  return notifier;
}

void Notifier::Send(absl::string_view state) const {
  sockaddr_un address{};
  if (path_.empty() || path_.size() >= sizeof(address.sun_path)) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.data(), path_.size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  const UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return;
  const socklen_t bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path_.size());
  (void)sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
               reinterpret_cast<const sockaddr*>(&address), bytes);
}

}  // namespace weft
