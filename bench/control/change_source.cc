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
  const uint64_t group = event / 4;
  const auto of_group = [functions](uint64_t number) {
    // A step that shares no factor with powers of ten goes through all functions.
    return static_cast<int>(number * 7'919 % static_cast<uint64_t>(functions));
  };
  const auto pass_of = [functions](uint64_t number) {
    return static_cast<int>(number / static_cast<uint64_t>(functions));
  };
  switch (event % 4) {
    case 0:
    case 1:
      // Never the weight that it has: each pass has another.
      return {ChangeEvent::Kind::kWeight, of_group(group), static_cast<int>(event % 4),
              1 + pass_of(group) % 99, pass_of(group)};
    case 2:
      return {ChangeEvent::Kind::kRemove, of_group(group), 2, 100, pass_of(group)};
    default:
      if (group < kRestoreGroups) return {ChangeEvent::Kind::kWeight, of_group(group), 3, 1, 0};
      return {ChangeEvent::Kind::kRestore, of_group(group - kRestoreGroups), 2, 100,
              pass_of(group - kRestoreGroups)};
  }
}

}  // namespace weft::bench
