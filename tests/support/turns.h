// SPDX-License-Identifier: Apache-2.0
// Drives a loop that a daemon would drive, from a test.
#ifndef WEFT_TESTS_SUPPORT_TURNS_H_
#define WEFT_TESTS_SUPPORT_TURNS_H_

#include <cstdint>

#include "dataplane/base/clock.h"

namespace weft::test {

// Calls `turn` until `done` is true; false where it is not after `timeout_ns`.
template <typename Turn, typename Done>
bool TurnUntil(Turn&& turn, Done&& done, uint64_t timeout_ns) {
  const uint64_t deadline_ns = NowNs() + timeout_ns;
  while (!done()) {
    if (NowNs() > deadline_ns) return false;
    turn();
  }
  return true;
}

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_TURNS_H_
