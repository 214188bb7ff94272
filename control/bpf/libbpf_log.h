// SPDX-License-Identifier: Apache-2.0
// What libbpf prints while an object of this class lives, so that an error carries the cause (the verifier's
// last lines among it) instead of losing it on standard error. One at a time on a thread.
#ifndef WEFT_CONTROL_BPF_LIBBPF_LOG_H_
#define WEFT_CONTROL_BPF_LIBBPF_LOG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft::control {

class LibbpfLog {
 public:
  LibbpfLog();
  ~LibbpfLog();
  LibbpfLog(const LibbpfLog&) = delete;
  LibbpfLog& operator=(const LibbpfLog&) = delete;

  // The status of `error`, an errno; its message is `what`, then the last of what libbpf said.
  absl::Status ToStatus(int error, absl::string_view what) const;

 private:
  std::string text_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_BPF_LIBBPF_LOG_H_
