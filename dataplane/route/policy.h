// SPDX-License-Identifier: Apache-2.0
// What control says about the calls of one function, with every default filled in. Pure data: callers read
// timeout and retries, the host that serves the function enforces the limits.
#ifndef WEFT_DATAPLANE_ROUTE_POLICY_H_
#define WEFT_DATAPLANE_ROUTE_POLICY_H_

#include <cstdint>

#include "dataplane/base/clock.h"

namespace weft {

struct Policy {
  // Of a call that brings no deadline of its own.
  uint64_t timeout_ns = kNsPerSecond;
  // Further tries, the first not counted. Two carry a call over a move: one refusal by the host that just
  // lost the function, one by a host that is just being drained.
  uint32_t retries = 2;
  // A call that may have been executed may be executed again.
  bool idempotent = false;
  // Calls of the function in flight at one host. A host is one thread; more than this in its queues means
  // that every further call only waits.
  uint32_t concurrent_calls_max = 4096;
  // From one caller at one host; 0: no limit.
  uint32_t calls_per_second_max = 0;

  // Of a hundred calls, so many tries more; 0: retries are bounded for each call alone.
  uint32_t retry_budget_percent = 0;
  // An idempotent call that has taken longer than this part of its like is run a second time elsewhere, and
  // the first answer counts; 0: never.
  uint32_t hedge_percentile = 0;
  // Of a hundred calls, so many are hedged at most.
  uint32_t hedge_budget_percent = 5;
  // Failures in a row after which a target is left alone; 0: never.
  uint32_t outlier_failures = 0;
  uint64_t outlier_eject_ns = 10 * kNsPerSecond;  // The first time; doubles up to 32 times that.

  // Weights split the calls over all targets; else over the nearest, and farther ones stand by.
  bool any_locality = false;

  friend bool operator==(const Policy&, const Policy&) = default;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_ROUTE_POLICY_H_
