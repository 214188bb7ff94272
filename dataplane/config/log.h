// SPDX-License-Identifier: Apache-2.0
// The log of weft's programs on standard error: lines of text, or of JSON for a collector. Called once, at
// start, before any other thread.
#ifndef WEFT_DATAPLANE_CONFIG_LOG_H_
#define WEFT_DATAPLANE_CONFIG_LOG_H_

#include <string>

namespace weft {

// Whether `format` is "text" or "json".
bool ValidLogFormat(const std::string& format);

// `program` names the logger. `level`: "debug", "info", "warn" or "error".
void StartLog(const std::string& program, const std::string& format, const std::string& level = "info");

// Says why the program ends, after StartLog: as "PROGRAM: WHY" for whoever typed its name, and as a line of
// the log where a collector reads that as JSON.
void LogFatal(const std::string& program, const std::string& why);

}  // namespace weft

#endif  // WEFT_DATAPLANE_CONFIG_LOG_H_
