// SPDX-License-Identifier: Apache-2.0
// Time on the packet path. NowNs() is CLOCK_MONOTONIC; Ticks() is the raw counter behind it, a third of the
// cost, for intervals. Both may be read on any thread and neither makes a system call where the clock source
// is the TSC.
#ifndef WEFT_DATAPLANE_BASE_CLOCK_H_
#define WEFT_DATAPLANE_BASE_CLOCK_H_

#include <time.h>

#include <cstdint>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace weft {

inline constexpr uint64_t kNsPerUs = 1'000;
inline constexpr uint64_t kNsPerMs = 1'000'000;
inline constexpr uint64_t kNsPerSecond = 1'000'000'000;

// CLOCK_MONOTONIC in nanoseconds: comparable between all processes of one node.
inline uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

// The processor's time counter. Not serialising: it may move by a few ns against neighbouring loads.
inline uint64_t Ticks() {
#if defined(__x86_64__)
  return __rdtsc();
#elif defined(__aarch64__)
  uint64_t ticks;
  asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
  return NowNs();
#endif
}

// Ticks in a second, measured once against CLOCK_MONOTONIC over 10 ms by the first caller, which blocks that
// long. Thread-safe.
double TicksPerSecond();

// CPU time that the calling process has used so far, user and system, all threads, in nanoseconds.
uint64_t ProcessCpuNs();

// Maps Ticks() to CLOCK_MONOTONIC ns without a call into the vDSO. One multiplication a read. It looks at the
// system's clock whenever it is asked for a time kResyncNs after the last look, so also where its owner has
// slept for hours: the error stays below 1 us for a counter that drifts by 4 ppm. Such a look may
// take what it tells back by as much. Owner thread only.
class TickClock {
 public:
  static constexpr uint64_t kResyncNs = kNsPerSecond / 4;

  explicit TickClock(double ticks_per_second = TicksPerSecond())
      : ns_per_tick_(static_cast<int64_t>(1e9 / ticks_per_second * 4294967296.0)),
        resync_ticks_(static_cast<int64_t>(ticks_per_second * kResyncNs / kNsPerSecond)) {
    Resync();
  }

  uint64_t NowNs() { return NsAt(Ticks()); }
  // Ticks of before the last look as well.
  uint64_t NsAt(uint64_t ticks) {
    if (static_cast<int64_t>(ticks - base_ticks_) > resync_ticks_) [[unlikely]]
      Resync();
    const auto since = static_cast<Wide>(static_cast<int64_t>(ticks - base_ticks_)) * ns_per_tick_ >> 32;
    return base_ns_ + static_cast<uint64_t>(since);
  }
  void Resync() {
    base_ticks_ = Ticks();
    base_ns_ = weft::NowNs();
  }

 private:
  __extension__ using Wide = __int128;

  int64_t ns_per_tick_;  // In units of 2^-32.
  int64_t resync_ticks_;
  uint64_t base_ticks_ = 0;
  uint64_t base_ns_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_CLOCK_H_
