// SPDX-License-Identifier: Apache-2.0
// weft-sim-seeds FIRST [LAST]: runs seeds of the simulator and tells which broke an invariant, and how. Exit
// 1 where one did. What the thousand-seed test, the defect runner and a developer with a failing seed use.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/sim/chaos.h"

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: weft-sim-seeds FIRST [LAST [stop]]\n");
    return 2;
  }
  const uint64_t first = std::strtoull(argv[1], nullptr, 10);
  const uint64_t last = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : first;
  uint64_t broken = 0, calls = 0, succeeded = 0, lost = 0, crashes = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    const weft::sim::ChaosResult result = weft::sim::RunSeed(seed);
    calls += result.calls;
    succeeded += result.succeeded;
    lost += result.lost;
    crashes += result.crashes;
    if (result.violation.empty()) continue;
    ++broken;
    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), result.violation.c_str());
    std::fflush(stdout);
    if (argc == 4) return 1;
  }
  std::printf("%llu seeds, %llu broken; %llu messages, %llu succeeded, %llu packets lost, %llu crashes\n",
              static_cast<unsigned long long>(last - first + 1), static_cast<unsigned long long>(broken),
              static_cast<unsigned long long>(calls), static_cast<unsigned long long>(succeeded),
              static_cast<unsigned long long>(lost), static_cast<unsigned long long>(crashes));
  return broken == 0 ? 0 : 1;
}
