// SPDX-License-Identifier: Apache-2.0
// Durations and sizes as operators write them. Exact: decimal fractions are scaled as integers, and what is
// not a whole number of ns or bytes is an error rather than rounded.
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "dataplane/config/yaml.h"

namespace weft {
namespace {

struct Unit {
  absl::string_view name;
  uint64_t scale;
};

constexpr Unit kDurations[] = {{"ns", 1},
                               {"us", 1'000},
                               {"ms", 1'000'000},
                               {"s", 1'000'000'000},
                               {"m", 60'000'000'000},
                               {"h", 3'600'000'000'000}};
constexpr Unit kSizes[] = {
    {"", 1}, {"KiB", uint64_t{1} << 10}, {"MiB", uint64_t{1} << 20}, {"GiB", uint64_t{1} << 30}};

// The largest value of either kind: 292 years, 8 EiB. Leaves room to add two of them.
constexpr uint64_t kValueMax = std::numeric_limits<int64_t>::max();
constexpr std::size_t kDigitsMax = 18;  // 10^18 < 2^63

// DIGITS[.DIGITS]UNIT. False where it is not of that form, not exact, or too large.
template <std::size_t N>
bool ParseScaled(absl::string_view text, const Unit (&units)[N], uint64_t* result) {
  uint64_t digits = 0;
  uint64_t divisor = 1;
  std::size_t count = 0;
  bool fraction = false;
  std::size_t at = 0;
  for (; at < text.size(); ++at) {
    if (text[at] == '.' && !fraction && count > 0) {
      fraction = true;
      continue;
    }
    if (!absl::ascii_isdigit(text[at])) break;
    if (++count > kDigitsMax) return false;
    digits = digits * 10 + static_cast<uint64_t>(text[at] - '0');
    if (fraction) divisor *= 10;
  }
  if (count == 0 || (fraction && divisor == 1)) return false;
  for (const Unit& unit : units) {
    if (text.substr(at) != unit.name) continue;
    const unsigned __int128 scaled = static_cast<unsigned __int128>(digits) * unit.scale;
    if (scaled % divisor != 0 || scaled / divisor > kValueMax) return false;
    *result = static_cast<uint64_t>(scaled / divisor);
    return true;
  }
  return false;
}

template <std::size_t N>
std::string FormatScaled(uint64_t value, const Unit (&units)[N]) {
  const Unit* best = &units[0];
  for (const Unit& unit : units) {
    if (value != 0 && value % unit.scale == 0) best = &unit;
  }
  return absl::StrCat(value / best->scale, best->name);
}

}  // namespace

absl::StatusOr<uint64_t> ParseDurationNs(absl::string_view text) {
  uint64_t ns;
  if (ParseScaled(text, kDurations, &ns)) return ns;
  return absl::InvalidArgumentError(absl::StrCat(
      "must be a duration: a number and one of ns, us, ms, s, m, h, as in 250ms; not ", text.substr(0, 40)));
}

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  uint64_t bytes;
  if (ParseScaled(text, kSizes, &bytes)) return bytes;
  return absl::InvalidArgumentError(
      absl::StrCat("must be a size: a number of bytes, or one with KiB, MiB or GiB, as in 64KiB; not ",
                   text.substr(0, 40)));
}

std::string FormatDurationNs(uint64_t ns) { return ns == 0 ? "0s" : FormatScaled(ns, kDurations); }

std::string FormatBytes(uint64_t bytes) { return FormatScaled(bytes, kSizes); }

}  // namespace weft
