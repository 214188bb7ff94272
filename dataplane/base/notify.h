// SPDX-License-Identifier: Apache-2.0
// Tells systemd how a service is doing, by the datagrams of sd_notify(3). Without NOTIFY_SOCKET in the
// environment everything here does nothing. Written out because libsystemd would cost more memory than the
// rest of the agent's libraries.
#ifndef WEFT_DATAPLANE_BASE_NOTIFY_H_
#define WEFT_DATAPLANE_BASE_NOTIFY_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace weft {

class Notifier {
 public:
  // Reads NOTIFY_SOCKET and WATCHDOG_USEC (where WATCHDOG_PID is absent or this process).
  static Notifier FromEnvironment();

  // "READY=1", "STOPPING=1", "STATUS=…", "WATCHDOG=1". Lost where nobody listens; never blocks.
  void Send(absl::string_view state) const;

  // How often to send WATCHDOG=1: half of what systemd waits. 0: never.
  uint64_t watchdog_interval_ns() const { return watchdog_interval_ns_; }

 private:
  std::string path_;  // A first byte '@' stands for an abstract socket.
  uint64_t watchdog_interval_ns_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_NOTIFY_H_
