// SPDX-License-Identifier: Apache-2.0
// Marks and layout constants that all of the data plane shares.
#ifndef WEFT_DATAPLANE_BASE_ATTRIBUTES_H_
#define WEFT_DATAPLANE_BASE_ATTRIBUTES_H_

#include <cstddef>

// A function on the path of every message: it allocates nothing, locks nothing, logs nothing and makes no
// system call unless its comment says when. Lint looks for the mark.
#define WEFT_HOT [[gnu::hot]]

// Part of such a path that is to become one piece with its caller, whatever the compiler thinks of its size:
// a call costs ten instructions of saving and restoring, and the path of a message was made of a dozen of
// them.
#define WEFT_HOT_INLINE [[gnu::hot, gnu::always_inline]] inline

namespace weft {

// What two cores hand back and forth as a unit on x86-64 and on most arm64 parts.
inline constexpr std::size_t kCacheLineBytes = 64;

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_ATTRIBUTES_H_
