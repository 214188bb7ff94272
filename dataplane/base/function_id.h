// SPDX-License-Identifier: Apache-2.0
// Names of functions and their wire ids. A name is `namespace/name`; its wire id is the first 8 bytes of the
// SHA-256 of the name, read as a big-endian number, so that every process of a mesh finds the same id without
// asking.
#ifndef WEFT_DATAPLANE_BASE_FUNCTION_ID_H_
#define WEFT_DATAPLANE_BASE_FUNCTION_ID_H_

#include <array>
#include <compare>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft {

using Sha256 = std::array<uint8_t, 32>;

// SHA-256 of `bytes`. Any thread.
Sha256 Sha256Of(absl::string_view bytes);

// Strong type of a function's wire id; 0 is no function.
struct FunctionId {
  uint64_t value = 0;
  friend auto operator<=>(const FunctionId&, const FunctionId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, FunctionId id) {
    return H::combine(std::move(h), id.value);
  }
};

FunctionId FunctionIdOf(absl::string_view name);

// Longest `namespace` and longest `name`, in bytes; the limits of a DNS label, so that orchestrators' names
// fit.
inline constexpr int kNamePartBytesMax = 63;

// OK for a label: 1 to 63 of a-z, 0-9, '-', '_' and '.', first and last a letter or digit. The error quotes
// the name.
absl::Status CheckLabel(absl::string_view label, absl::string_view what);

// OK for `namespace/name` of two labels.
absl::Status CheckFunctionName(absl::string_view name);

// The part before the '/', or the whole where there is none.
absl::string_view NamespaceOf(absl::string_view name);

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_FUNCTION_ID_H_
