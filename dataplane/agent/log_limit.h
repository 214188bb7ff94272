// SPDX-License-Identifier: Apache-2.0
// Buckets: of what strangers can provoke so much is allowed at once, and so much a second. LogLimit keeps
// them from filling the log; what is left out shows in the counters.
#ifndef WEFT_DATAPLANE_AGENT_LOG_LIMIT_H_
#define WEFT_DATAPLANE_AGENT_LOG_LIMIT_H_

#include <algorithm>
#include <cstdint>

#include "dataplane/base/clock.h"

namespace weft::agent {

class Bucket {
 public:
  Bucket(double burst, double per_second) : burst_(burst), per_second_(per_second), left_(burst) {}

  // Whether one more may be now.
  bool Allow(uint64_t now_ns) {
    left_ = std::min(burst_, left_ + static_cast<double>(now_ns - last_ns_) / kNsPerSecond * per_second_);
    last_ns_ = now_ns;
    if (left_ < 1) return false;
    left_ -= 1;
    return true;
  }

 private:
  double burst_;
  double per_second_;
  double left_;
  uint64_t last_ns_ = 0;
};

// Of lines.
class LogLimit : public Bucket {
 public:
  LogLimit() : Bucket(50, 5) {}
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_LOG_LIMIT_H_
