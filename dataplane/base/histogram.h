// SPDX-License-Identifier: Apache-2.0
// Latency histogram with a relative error below 1/1024 (three significant digits) over 1 ns to 2^40 ns (18
// minutes), laid out as Gil Tene's HdrHistogram: powers of two, each cut into equal slots. Values above the
// range count in the last slot, and max() still tells the truth. One writer; merge copies to read.
#ifndef WEFT_DATAPLANE_BASE_HISTOGRAM_H_
#define WEFT_DATAPLANE_BASE_HISTOGRAM_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace weft {

class Histogram {
 public:
  Histogram() : counts_(kSlots) {}

  // Counts `value_ns` once. Allocates nothing.
  void Record(uint64_t value_ns) {
    ++counts_[SlotOf(value_ns)];
    ++count_;
    max_ = std::max(max_, value_ns);
    min_ = std::min(min_, value_ns);
  }

  // The smallest value such that at least `fraction` (0 to 1) of the samples are not above its slot: the
  // upper edge of that slot, never above max(). 0 where nothing was recorded.
  uint64_t Quantile(double fraction) const;
  uint64_t count() const { return count_; }
  uint64_t max() const { return max_; }
  uint64_t min() const { return count_ == 0 ? 0 : min_; }
  double Mean() const;
  void Merge(const Histogram& other);
  void Reset();

  // Calls visit(upper_edge_ns, count) for each slot that holds samples, in rising order.
  template <typename Visit>
  void ForEach(Visit&& visit) const {
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      if (counts_[slot] != 0) visit(UpperEdge(slot), counts_[slot]);
    }
  }

 private:
  static constexpr int kSubBits = 11;  // 2^11 slots below 2^11, then 2^10 a power of two: error < 1/1024.
  static constexpr int kTopBits = 40;
  static constexpr std::size_t kHalf = std::size_t{1} << (kSubBits - 1);
  static constexpr std::size_t kSlots = (kTopBits - kSubBits + 2) * kHalf;

  static std::size_t SlotOf(uint64_t value) {
    value = std::min(value, (uint64_t{1} << kTopBits) - 1);
    const int shift = std::max(0, static_cast<int>(std::bit_width(value)) - kSubBits);
    return static_cast<std::size_t>(shift) * kHalf + static_cast<std::size_t>(value >> shift);
  }
  static uint64_t UpperEdge(std::size_t slot) {
    if (slot < 2 * kHalf) return slot;
    const std::size_t shift = slot / kHalf - 1;
    return ((slot - shift * kHalf + 1) << shift) - 1;
  }

  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  uint64_t max_ = 0;
  uint64_t min_ = ~uint64_t{0};
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_HISTOGRAM_H_
