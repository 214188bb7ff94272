// SPDX-License-Identifier: Apache-2.0
// The log of weft-control on standard error: lines of text, or of JSON for a collector. Called once, at
// start.
#ifndef WEFT_CONTROL_DAEMON_LOG_H_
#define WEFT_CONTROL_DAEMON_LOG_H_

#include <string>

namespace weft::control {

// `format`: "text" or "json". `level`: "debug", "info", "warn" or "error".
void StartLog(const std::string& format, const std::string& level);

}  // namespace weft::control

#endif  // WEFT_CONTROL_DAEMON_LOG_H_
