// SPDX-License-Identifier: Apache-2.0
// A limit of bytes that several channels of one thread share: what they hold for messages of which only a
// part has arrived. None of them gets more than it leaves to the others. Owner thread only.
#ifndef WEFT_DATAPLANE_CHANNEL_BYTE_BUDGET_H_
#define WEFT_DATAPLANE_CHANNEL_BYTE_BUDGET_H_

#include <cstdint>

#include "dataplane/base/check.h"

namespace weft {

class ByteBudget {
 public:
  explicit ByteBudget(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  // Takes `bytes` for a channel that holds `held_bytes` of the budget already. False, and nothing taken,
  // where they are not there, or the channel would hold more than were left. Only where nobody holds any may
  // one message take more than half: a budget may be of a single one.
  bool TryCharge(uint64_t bytes, uint64_t held_bytes) {
    const uint64_t free_bytes = limit_bytes_ - used_bytes_;
    if (bytes > free_bytes) return false;
    if (used_bytes_ != 0 && held_bytes + bytes > free_bytes - bytes) return false;
    used_bytes_ += bytes;
    return true;
  }
  void Release(uint64_t bytes) {
    WEFT_CHECK(bytes <= used_bytes_);
    used_bytes_ -= bytes;
  }
  uint64_t used_bytes() const { return used_bytes_; }
  uint64_t limit_bytes() const { return limit_bytes_; }

 private:
  uint64_t limit_bytes_;
  uint64_t used_bytes_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_BYTE_BUDGET_H_
