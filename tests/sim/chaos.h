// SPDX-License-Identifier: Apache-2.0
// One seed of trouble: a small cluster with limits, sizes, faults, crashes, partitions and key rotations
// drawn from the seed, and a ledger of calls that knows what each may and may not have come to.
#ifndef WEFT_TESTS_SIM_CHAOS_H_
#define WEFT_TESTS_SIM_CHAOS_H_

#include <cstdint>
#include <string>

#include "tests/sim/network.h"

namespace weft::sim {

struct ChaosResult {
  std::string violation;  // Empty: every invariant held.
  uint64_t calls = 0;
  uint64_t succeeded = 0;
  uint64_t datagrams = 0;
  uint64_t lost = 0;  // Packets that senders declared lost.
  uint64_t crashes = 0;
  FaultCounts faults;
  uint64_t queue_drops = 0;
  uint64_t rotations = 0;
  uint64_t digest = 0;
};

// Runs `seed` to its end. Deterministic.
ChaosResult RunChaos(uint64_t seed);

// One seed of contention: short messages that fill a link for as long as they are let, and one long message,
// which must come through all the same.
ChaosResult RunFairness(uint64_t seed);

// What a seed number means in the test run and in the defect runner: each eighth seed is one of fairness.
inline ChaosResult RunSeed(uint64_t seed) { return seed % 8 == 7 ? RunFairness(seed) : RunChaos(seed); }

}  // namespace weft::sim

#endif  // WEFT_TESTS_SIM_CHAOS_H_
