// SPDX-License-Identifier: Apache-2.0
// How large a module's run may be that is carried in one message, as control, agent and host check it.
#ifndef WEFT_DATAPLANE_API_RUN_ONCE_H_
#define WEFT_DATAPLANE_API_RUN_ONCE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "dataplane/api/run.pb.h"

namespace weft {

inline constexpr int kRunTextsMax = 256;                    // Arguments; variables as many
inline constexpr std::size_t kRunTextBytesMax = 16 * 1024;  // Of both together
inline constexpr int kRunInputsMax = 64;
inline constexpr std::size_t kRunNameBytesMax = 256;
inline constexpr std::size_t kRunResultBytesMax = 32 * 1024;
inline constexpr std::size_t kRunErrorBytesMax = 1'000;
// Of one host, that have not ended. It runs one after the other.
inline constexpr std::size_t kRunsMax = 64;

// Of what it is given only.
inline absl::Status CheckRunGiven(const api::RunOnce& run) {
  if (run.args_size() > kRunTextsMax || run.env_size() > kRunTextsMax || run.inputs_size() > kRunInputsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "at most ", kRunTextsMax, " arguments, as many variables and ", kRunInputsMax, " inputs are taken"));
  }
  std::size_t bytes = 0;
  for (const auto* texts : {&run.args(), &run.env()}) {
    for (const std::string& text : *texts) {
      bytes += text.size() + 1;
      if (text.find('\0') != std::string::npos) {
        return absl::InvalidArgumentError("an argument or a variable holds a NUL");
      }
    }
  }
  for (const std::string& variable : run.env()) {
    const std::size_t end = variable.find('=');
    if (end == 0 || end == std::string::npos) return absl::InvalidArgumentError("a variable has no name");
  }
  if (bytes <= kRunTextBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("arguments and variables have ", bytes, " bytes; at most ", kRunTextBytesMax));
}

// Names of functions and hosts are for others to check.
inline absl::Status CheckRunOnce(const api::RunOnce& run) {
  if (run.run().empty() || run.run().size() > kRunNameBytesMax || run.entry().size() > kRunNameBytesMax) {
    return absl::InvalidArgumentError("the name of a run or of its function is empty or too long");
  }
  if (run.sha256().size() != 32)
    return absl::InvalidArgumentError("the hash of the module is not one of SHA-256");
  return CheckRunGiven(run);
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_API_RUN_ONCE_H_
