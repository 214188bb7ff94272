// SPDX-License-Identifier: Apache-2.0
// Whether a call that failed is tried again. Pure; the call layer asks once per failed try.
#ifndef WEFT_DATAPLANE_ROUTE_RETRY_H_
#define WEFT_DATAPLANE_ROUTE_RETRY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "dataplane/route/policy.h"

namespace weft {

struct FailedTry {
  absl::StatusCode code = absl::StatusCode::kUnknown;
  // Surely: the message was never published, or its receiver refused it and said so.
  bool not_executed = false;
  uint32_t tries = 1;  // With this one.
};

// True where a further try can help and can do no harm: another host may accept what this one refused for
// want of room (RESOURCE_EXHAUSTED) or because it does not serve the function, or no longer (UNAVAILABLE).
// What may have been executed is repeated only if the function is declared idempotent. Refusals of principle
// (PERMISSION_DENIED, INVALID_ARGUMENT …) would only be repeated, and after DEADLINE_EXCEEDED or CANCELLED
// nobody waits.
inline bool MayRetry(const FailedTry& failed, const Policy& policy) {
  if (failed.tries > policy.retries) return false;
  if (!failed.not_executed && !policy.idempotent) return false;
  return failed.code == absl::StatusCode::kUnavailable || failed.code == absl::StatusCode::kResourceExhausted;
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_ROUTE_RETRY_H_
