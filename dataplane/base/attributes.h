// SPDX-License-Identifier: Apache-2.0
// Marks and layout constants that all of the data plane shares.
#ifndef WEFT_DATAPLANE_BASE_ATTRIBUTES_H_
#define WEFT_DATAPLANE_BASE_ATTRIBUTES_H_

#include <cstddef>

// A function on the path of every message: it allocates nothing, locks nothing, logs nothing and makes no
// system call unless its comment says when. Lint looks for the mark.
#define WEFT_HOT [[gnu::hot]]

namespace weft {

// What two cores hand back and forth as a unit on x86-64 and on most arm64 parts.
inline constexpr std::size_t kCacheLineBytes = 64;

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_ATTRIBUTES_H_
