// SPDX-License-Identifier: Apache-2.0
// A budget of extra work (retries, hedges) as a part of the calls made: each call earns a part of one, each
// extra takes a whole. Nothing is given in advance, so extras never exceed their part of the calls. Owner
// thread only.
#ifndef WEFT_DATAPLANE_ROUTE_RATIO_BUDGET_H_
#define WEFT_DATAPLANE_ROUTE_RATIO_BUDGET_H_

#include <algorithm>
#include <cstdint>

namespace weft {

class RatioBudget {
 public:
  explicit RatioBudget(uint32_t percent = 0) : percent_(percent) {}

  void Earn() { hundredths_ = std::min(hundredths_ + percent_, kSavedMax * kWhole); }
  bool TrySpend() {
    if (hundredths_ < kWhole) return false;
    hundredths_ -= kWhole;
    return true;
  }
  void set_percent(uint32_t percent) { percent_ = percent; }

 private:
  static constexpr uint32_t kWhole = 100;
  // What a quiet hour saves does not become a storm: at most so many extras at once.
  static constexpr uint32_t kSavedMax = 100;

  uint32_t percent_;
  uint32_t hundredths_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_ROUTE_RATIO_BUDGET_H_
