// SPDX-License-Identifier: Apache-2.0
// Tells systemd how weft-control is doing, as sd_notify(3) does; nothing where no systemd asked. Any thread.
#ifndef WEFT_CONTROL_DAEMON_NOTIFY_H_
#define WEFT_CONTROL_DAEMON_NOTIFY_H_

#include "absl/strings/string_view.h"

namespace weft::control {

// Sends `state`, as in "READY=1\nSTATUS=…", to $NOTIFY_SOCKET. Lost where nobody listens; never blocks.
void NotifySystemd(absl::string_view state);

}  // namespace weft::control

#endif  // WEFT_CONTROL_DAEMON_NOTIFY_H_
