// SPDX-License-Identifier: Apache-2.0
// What weft-control's loop does with a source in one turn, for tests of one source.
#ifndef WEFT_TESTS_CONTROL_SOURCE_SOURCE_TURN_H_
#define WEFT_TESTS_CONTROL_SOURCE_SOURCE_TURN_H_

#include <poll.h>

#include <vector>

#include "control/source/source.h"
#include "dataplane/base/clock.h"

namespace weft::control {

// Hands what the source has found to `take`, twice: what time brought, and what came within 1 ms.
template <typename Take>
void TurnSource(Source& source, Take&& take) {
  take(source.OnTime(NowNs()));
  std::vector<pollfd> entries;
  source.AddPollEntries(&entries);
  poll(entries.data(), entries.size(), 1);
  take(source.OnEvents(entries, NowNs()));
}

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_SOURCE_SOURCE_TURN_H_
