// SPDX-License-Identifier: Apache-2.0
// Running estimate of a percentile of latencies: a histogram of eight buckets an octave, halved as it fills,
// so that the last few thousand calls count. It answers too high, by at most 9 %. Owner thread only; nothing
// allocates.
#ifndef WEFT_DATAPLANE_ROUTE_LATENCY_QUANTILE_H_
#define WEFT_DATAPLANE_ROUTE_LATENCY_QUANTILE_H_

#include <array>
#include <bit>
#include <cstdint>

namespace weft {

class LatencyQuantile {
 public:
  // Fewer calls tell nothing about one in twenty.
  static constexpr uint32_t kSamplesMin = 100;

  explicit LatencyQuantile(uint32_t percent) : percent_(percent) {}

  void Add(uint64_t latency_ns) {
    ++buckets_[BucketOf(latency_ns)];
    if (++samples_ >= kSamplesMax) Halve();
    if (samples_ >= kSamplesMin && ++since_ >= kRefreshEvery) Refresh();
  }
  // 0 until there are enough samples.
  uint64_t value_ns() const { return value_ns_; }

 private:
  static constexpr uint32_t kSamplesMax = 4096;
  static constexpr uint32_t kRefreshEvery = 32;
  static constexpr int kShiftMin = 10;  // Below 1 us all is one.
  static constexpr int kOctaves = 26;   // Up to 68 s.
  static constexpr uint32_t kPerOctave = 8;

  static uint32_t BucketOf(uint64_t ns) {
    if (ns < uint64_t{1} << kShiftMin) return 0;
    const int octave = static_cast<int>(std::bit_width(ns)) - 1;
    if (octave >= kShiftMin + kOctaves) return kOctaves * kPerOctave;
    const uint64_t part = (ns >> (octave - 3)) & (kPerOctave - 1);
    return static_cast<uint32_t>(octave - kShiftMin) * kPerOctave + static_cast<uint32_t>(part) + 1;
  }
  // The end of the bucket.
  static uint64_t UpperNs(uint32_t bucket) {
    const uint32_t octave = bucket / kPerOctave;
    const uint64_t start = uint64_t{1} << (kShiftMin + octave);
    return start + (start / kPerOctave) * (bucket % kPerOctave);
  }
  void Halve() {
    samples_ = 0;
    for (uint16_t& bucket : buckets_) samples_ += bucket /= 2;
  }
  void Refresh() {
    since_ = 0;
    const uint32_t wanted = (samples_ * percent_ + 99) / 100;
    uint32_t seen = 0;
    for (uint32_t bucket = 0; bucket < buckets_.size(); ++bucket) {
      seen += buckets_[bucket];
      if (seen < wanted) continue;
      value_ns_ = UpperNs(bucket);
      return;
    }
  }

  uint32_t percent_;
  uint32_t samples_ = 0;
  uint32_t since_ = kRefreshEvery;
  uint64_t value_ns_ = 0;
  std::array<uint16_t, kOctaves * kPerOctave + 1> buckets_{};
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_ROUTE_LATENCY_QUANTILE_H_
