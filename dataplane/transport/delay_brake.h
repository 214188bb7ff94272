// SPDX-License-Identifier: Apache-2.0
// How much may be in flight to one peer, after Swift (Kumar et al., SIGCOMM 2020): additive increase while
// the measured round trip is below the target, a decrease in proportion to the excess, once a round trip,
// where it is above. Grants keep the receiver's link from overflowing; this brake answers to queues
// elsewhere. Owner worker only.
#ifndef WEFT_DATAPLANE_TRANSPORT_DELAY_BRAKE_H_
#define WEFT_DATAPLANE_TRANSPORT_DELAY_BRAKE_H_

#include <algorithm>
#include <cstdint>

#include "dataplane/base/clock.h"

namespace weft::transport {

struct BrakeConfig {
  // Queueing that is tolerated above the smallest round trip seen, or a quarter of that round trip: on a long
  // way it varies by more than any queue here.
  uint64_t target_queue_ns = 100 * kNsPerUs;
  uint32_t window_bytes_first = 256 * 1024;
  uint32_t window_bytes_max = 2 * 1024 * 1024;
  uint32_t segment_bytes = 1500;
};

class DelayBrake {
 public:
  explicit DelayBrake(const BrakeConfig& config) : config_(config) { Reset(); }

  void Reset() {
    window_bytes_ = config_.window_bytes_first;
    srtt_ns_ = 0;
    min_rtt_ns_ = ~uint64_t{0};
    older_min_rtt_ns_ = ~uint64_t{0};
    decreased_ns_ = 0;
  }

  uint64_t srtt_ns() const { return srtt_ns_; }
  uint32_t window_bytes() const { return static_cast<uint32_t>(window_bytes_); }

  // `rtt_ns` was measured by a packet that the peer acknowledged at once or with a delay already taken off.
  void OnSample(uint64_t rtt_ns, uint64_t now_ns) {
    // The smallest of the current and the previous 10 s, so that a route that became longer is learnt.
    if (now_ns - min_since_ns_ > 10 * kNsPerSecond) {
      older_min_rtt_ns_ = min_rtt_ns_;
      min_rtt_ns_ = ~uint64_t{0};
      min_since_ns_ = now_ns;
    }
    min_rtt_ns_ = std::min(min_rtt_ns_, rtt_ns);
    srtt_ns_ = srtt_ns_ == 0 ? rtt_ns : srtt_ns_ - srtt_ns_ / 8 + rtt_ns / 8;
    const uint64_t least = std::min(min_rtt_ns_, older_min_rtt_ns_);
    const uint64_t target = least + std::max(config_.target_queue_ns, least / 4);
    over_ = rtt_ns > target;
    if (over_ && now_ns - decreased_ns_ > srtt_ns_) {
      // Swift's beta 0.8, and never below half at once.
      const double excess = static_cast<double>(rtt_ns - target) / static_cast<double>(rtt_ns);
      Scale(std::max(1 - 0.8 * excess, 0.5), now_ns);
    }
  }

  void OnAcked(uint32_t bytes) {
    if (over_) return;
    // One segment more for each window that came through.
    window_bytes_ += static_cast<double>(config_.segment_bytes) * bytes / window_bytes_;
    window_bytes_ = std::min<double>(window_bytes_, config_.window_bytes_max);
  }

  // A tail probe fired: nothing was heard for its time.
  void OnProbe(uint64_t now_ns) { Scale(0.5, now_ns); }

 private:
  // One alone would wait for each acknowledgement, and on a slow link takes longer than the target allows.
  static constexpr uint32_t kSegmentsLeast = 4;

  void Scale(double factor, uint64_t now_ns) {
    window_bytes_ = std::max<double>(window_bytes_ * factor, kSegmentsLeast * config_.segment_bytes);
    decreased_ns_ = now_ns;
  }

  BrakeConfig config_;
  double window_bytes_ = 0;
  uint64_t srtt_ns_ = 0;
  uint64_t min_rtt_ns_ = 0;
  uint64_t older_min_rtt_ns_ = 0;
  uint64_t min_since_ns_ = 0;
  uint64_t decreased_ns_ = 0;
  bool over_ = false;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_DELAY_BRAKE_H_
