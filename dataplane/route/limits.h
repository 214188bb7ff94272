// SPDX-License-Identifier: Apache-2.0
// The two limits that a serving host enforces before it runs a call: calls of a function in flight, and calls
// per second of one caller. Pure: time comes in. Owner thread only; nothing allocates.
#ifndef WEFT_DATAPLANE_ROUTE_LIMITS_H_
#define WEFT_DATAPLANE_ROUTE_LIMITS_H_

#include <algorithm>
#include <cstdint>

#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"

namespace weft {

// Counts what is in flight against a maximum that may change while calls run.
class ConcurrencyLimit {
 public:
  explicit ConcurrencyLimit(uint32_t calls_max) : calls_max_(calls_max) {}

  bool TryEnter() {
    if (calls_ >= calls_max_) return false;
    ++calls_;
    return true;
  }
  // The same for `calls` at once, all of them or none.
  bool MayEnter(uint32_t calls) const { return calls <= calls_max_ && calls_ <= calls_max_ - calls; }
  void Enter(uint32_t calls) { calls_ += calls; }
  void Leave() {
    WEFT_CHECK(calls_ > 0);
    --calls_;
  }
  void set_calls_max(uint32_t calls_max) { calls_max_ = calls_max; }
  uint32_t calls_max() const { return calls_max_; }
  uint32_t calls() const { return calls_; }

 private:
  uint32_t calls_max_;
  uint32_t calls_ = 0;
};

// A token bucket in its virtual-scheduling form (the ATM Forum's GCRA): one time stamp instead of a level and
// a refill, one comparison and one addition a call. It holds a tenth of a second of calls and at least one,
// so that bursts of an open-loop caller at its rate pass.
class CallRate {
 public:
  // `calls_per_second_max` 0: no limit.
  explicit CallRate(uint32_t calls_per_second_max = 0) { set_calls_per_second_max(calls_per_second_max); }

  // `now_ns` must not decrease from call to call; where it does, the bucket only refills later.
  bool TryTake(uint64_t now_ns) {
    if (interval_ == 0) return true;
    if (base_ns_ == 0) base_ns_ = now_ns;
    const uint64_t now = (std::max(now_ns, base_ns_) - base_ns_) << kFractionBits;
    if (next_ > now + burst_) return false;
    next_ = std::max(next_, now) + interval_;
    return true;
  }
  // What was taken before stays taken.
  void set_calls_per_second_max(uint32_t calls_per_second_max) {
    if (calls_per_second_max == 0) {
      interval_ = 0;
      return;
    }
    interval_ = (kNsPerSecond << kFractionBits) / calls_per_second_max;
    const uint64_t burst_calls = std::max<uint64_t>(1, calls_per_second_max / 10);
    burst_ = (burst_calls - 1) * interval_;
  }
  bool limited() const { return interval_ != 0; }

 private:
  // Times are in 1/256 ns since the first call, so that intervals of millions of calls a second are exact to
  // 0.4 %, and 2^56 ns fit: 2.2 years.
  static constexpr int kFractionBits = 8;

  uint64_t interval_ = 0;
  uint64_t burst_ = 0;
  uint64_t next_ = 0;  // When the bucket will be full again.
  uint64_t base_ns_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_ROUTE_LIMITS_H_
