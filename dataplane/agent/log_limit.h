// SPDX-License-Identifier: Apache-2.0
// Keeps what strangers can provoke from filling the log: a bucket of lines. What is left out shows in the
// counters.
#ifndef WEFT_DATAPLANE_AGENT_LOG_LIMIT_H_
#define WEFT_DATAPLANE_AGENT_LOG_LIMIT_H_

#include <algorithm>
#include <cstdint>

#include "dataplane/base/clock.h"

namespace weft::agent {

class LogLimit {
 public:
  // Whether one more line may be written now.
  bool Allow(uint64_t now_ns) {
    lines_ =
        std::min(kBurst, lines_ + static_cast<double>(now_ns - last_ns_) / kNsPerSecond * kLinesPerSecond);
    last_ns_ = now_ns;
    if (lines_ < 1) return false;
    lines_ -= 1;
    return true;
  }

 private:
  static constexpr double kBurst = 50;
  static constexpr double kLinesPerSecond = 5;

  double lines_ = kBurst;
  uint64_t last_ns_ = 0;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_LOG_LIMIT_H_
