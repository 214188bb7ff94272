// SPDX-License-Identifier: Apache-2.0
// How a thread that polls shares its core. Others that poll give the core back within microseconds, so it
// pays to give it to them at every poll and to go on. A thread that computes keeps it for a slice of
// milliseconds: then it is better to sleep at once, since the scheduler lets a thread that wakes run before
// one that has had its share, and makes one that has yielded wait. Owner thread only.
#ifndef WEFT_DATAPLANE_BASE_CORE_SHARING_H_
#define WEFT_DATAPLANE_BASE_CORE_SHARING_H_

#include <sched.h>

#include <algorithm>
#include <cstdint>

#include "dataplane/base/clock.h"

namespace weft {

class CoreSharing {
 public:
  // A yield that takes longer has let another thread run.
  static constexpr uint64_t kSlowYieldNs = 2 * kNsPerUs;
  // One that takes longer has met a thread that computes; a burst of calls of another poller takes less.
  static constexpr uint64_t kTakenNs = kNsPerMs;
  // So many in a row that return at once, and the core is this thread's again.
  static constexpr uint32_t kQuickYields = 1000;
  // How long a thread does not poll after it has met one that computes: at first, and where it meets one
  // again and again, before it has polled in peace for so many yields. Each meeting costs a slice, so the
  // pauses double: one that goes on costs a slice a second, and after one that has ended the thread sleeps at
  // once for about as long again.
  static constexpr uint32_t kCalmYields = 1000;
  static constexpr uint64_t kPauseNsMin = kNsPerMs;
  static constexpr uint64_t kPauseNsMax = kNsPerSecond;

  // Gives the core away. Returns for how long others had it, in ns; 0: they did not want it.
  uint64_t Yield() {
    const uint64_t began_ns = NowNs();
    sched_yield();
    const uint64_t back_ns = NowNs();
    return Yielded(began_ns, back_ns);
  }

  // Others want the core: a yield after every empty poll.
  bool yields_each_poll() const { return yields_each_poll_; }

  // False: another thread computes on this core, so that to poll is to lose it for a slice.
  bool MayPoll() const { return paused_until_ns_ == 0 || NowNs() >= paused_until_ns_; }

  // CLOCK_MONOTONIC; 0 where it never met one.
  uint64_t paused_until_ns() const { return paused_until_ns_; }

  // What Yield learns of a yield that began and ended at these times.
  uint64_t Yielded(uint64_t began_ns, uint64_t back_ns) {
    const uint64_t took_ns = back_ns - began_ns;
    if (took_ns < kTakenNs && ++calm_yields_ >= kCalmYields) pause_ns_ = 0;
    if (took_ns <= kSlowYieldNs) {
      if (yields_each_poll_ && ++quick_yields_ >= kQuickYields) yields_each_poll_ = false;
      return 0;
    }
    yields_each_poll_ = true;
    quick_yields_ = 0;
    if (took_ns >= kTakenNs) {
      calm_yields_ = 0;
      pause_ns_ = std::clamp(2 * pause_ns_, kPauseNsMin, kPauseNsMax);
      paused_until_ns_ = back_ns + pause_ns_;
    }
    return took_ns;
  }

 private:
  bool yields_each_poll_ = false;
  uint32_t quick_yields_ = 0;
  uint32_t calm_yields_ = 0;  // Since it met one that computes.
  uint64_t pause_ns_ = 0;
  uint64_t paused_until_ns_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_CORE_SHARING_H_
