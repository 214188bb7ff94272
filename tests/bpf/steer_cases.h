// SPDX-License-Identifier: Apache-2.0
// Packets and what becomes of them, once: run through the pure functions on the host and through the program
// in the kernel, on whichever kernel the test runs.
#ifndef WEFT_TESTS_BPF_STEER_CASES_H_
#define WEFT_TESTS_BPF_STEER_CASES_H_

#include <string>
#include <vector>

#include "bpf/abi/drop_reason.h"
#include "tests/bpf/packet_builder.h"

namespace weft::test {

// The one key that is let through in these cases. kStrangerKeyId has the same place in the table.
inline constexpr uint32_t kKnownKeyId = 0x12345001;
inline constexpr uint32_t kStrangerKeyId = 0x77777001;

struct SteerCase {
  enum class Fate { kPass, kDrop, kTake };

  std::string name;
  Packet packet;
  Fate fate;
  weft_drop_reason reason = WEFT_DROP_NONE;  // Of a drop
  bool charged_to_key = false;               // The drop is counted at kKnownKeyId.
};

// Everything that is not a good packet for weft, then those that are.
std::vector<SteerCase> SteerCases();

// A good packet cut after every length from an Ethernet header up to one byte less than the whole: with VLAN
// tag or without, of either IP version.
std::vector<SteerCase> TruncatedCases();

}  // namespace weft::test

#endif  // WEFT_TESTS_BPF_STEER_CASES_H_
