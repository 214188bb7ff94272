// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/histogram.h"

#include <cmath>

namespace weft {

uint64_t Histogram::Quantile(double fraction) const {
  if (count_ == 0) return 0;
  const double clamped = std::clamp(fraction, 0.0, 1.0);
  const auto wanted =
      std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(clamped * static_cast<double>(count_))));
  uint64_t seen = 0;
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    seen += counts_[slot];
    if (seen >= wanted) return std::min(UpperEdge(slot), max_);
  }
  return max_;
}

double Histogram::Mean() const {
  if (count_ == 0) return 0;
  double sum = 0;
  ForEach([&](uint64_t edge, uint64_t n) { sum += static_cast<double>(edge) * static_cast<double>(n); });
  return sum / static_cast<double>(count_);
}

void Histogram::Merge(const Histogram& other) {
  for (std::size_t slot = 0; slot < kSlots; ++slot) counts_[slot] += other.counts_[slot];
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
  min_ = std::min(min_, other.min_);
}

void Histogram::Reset() { *this = Histogram(); }

}  // namespace weft
