// SPDX-License-Identifier: Apache-2.0
// Small, fast, seeded random numbers for choices on the data path and for repeatable tests; never for
// secrets.
#ifndef WEFT_DATAPLANE_BASE_RANDOM_H_
#define WEFT_DATAPLANE_BASE_RANDOM_H_

#include <cstdint>

namespace weft {

// splitmix64 (Steele, Lea, Flood 2014): one addition and two multiplications a number, passes BigCrush, any
// seed is good. Owner thread only.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() { return Mixed(state_ += kGolden); }

  // Two draws for the price of one. `even` alone is less random and more even than chance: over n draws each
  // share of its range gets its part to within a few of n (a Weyl sequence by the golden ratio).
  struct Pair {
    uint32_t even;
    uint32_t free;
  };
  Pair NextPair() {
    state_ += kGolden;
    return {static_cast<uint32_t>(state_ >> 32), static_cast<uint32_t>(Mixed(state_))};
  }

  // Uniform in [0, bound) by Lemire's multiplication; the bias is below bound / 2^64. `bound` > 0.
  uint64_t Below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * bound) >> 64);
  }

  // Uniform in [0, 1).
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

 private:
  static constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;  // 2^64 over the golden ratio, odd.

  static uint64_t Mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_RANDOM_H_
