// SPDX-License-Identifier: Apache-2.0
#include "bench/control/change_source.h"

#include "absl/strings/str_format.h"

namespace weft::bench {
namespace {

// An endpoint that was taken away is brought back by the event so many groups of four later.
constexpr uint64_t kRestoreGroups = 8;

}  // namespace

std::string NodeName(int node) { return node == 0 ? "bench" : absl::StrFormat("n%02d", node); }

std::string FunctionName(int function) { return absl::StrFormat("f%05d", function); }

ChangeEvent EventOf(uint64_t event, int functions) {
  const auto all = static_cast<uint64_t>(functions);
  const uint64_t group = event / 4;
  // What happens to one function comes a quarter of all functions apart, so that writers beside each other
  // cannot swap it.
  const uint64_t turn = group + event % 4 * (all / 4);
  const auto of_turn = [all](uint64_t number) {
    // A step that shares no factor with powers of ten goes through all functions.
    return static_cast<int>(number * 7'919 % all);
  };
  const auto pass = static_cast<int>(turn / all);
  switch (event % 4) {
    case 0:
    case 1:
      // Never the weight that it has: each pass has another.
      return {ChangeEvent::Kind::kWeight, of_turn(turn), static_cast<int>(event % 4), 1 + pass % 99, pass};
    case 2:
      return {ChangeEvent::Kind::kRemove, of_turn(turn), 2, 100, pass};
    default: {
      if (group < kRestoreGroups) return {ChangeEvent::Kind::kWeight, of_turn(turn), 3, 1, pass};
      const uint64_t removed = group - kRestoreGroups + 2 * (all / 4);
      return {ChangeEvent::Kind::kRestore, of_turn(removed), 2, 100, static_cast<int>(removed / all)};
    }
  }
}

}  // namespace weft::bench
