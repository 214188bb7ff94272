// SPDX-License-Identifier: Apache-2.0
// Macros that pass an absl::Status up; Debian's Abseil has none. errno becomes a status by
// absl::ErrnoToStatus, whose message argument names the operation and its object, as in "bind
// /run/weft/agent.sock".
#ifndef WEFT_DATAPLANE_BASE_STATUS_H_
#define WEFT_DATAPLANE_BASE_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define WEFT_RETURN_IF_ERROR(expression)                                                \
  do {                                                                                  \
    if (absl::Status weft_status = (expression); !weft_status.ok()) return weft_status; \
  } while (false)

#define WEFT_STATUS_CONCAT_INNER(a, b) a##b
#define WEFT_STATUS_CONCAT(a, b) WEFT_STATUS_CONCAT_INNER(a, b)

// WEFT_ASSIGN_OR_RETURN(auto fd, Open(path)); returns the status where Open fails, else moves its value into
// `fd`.
#define WEFT_ASSIGN_OR_RETURN(lhs, expression) \
  WEFT_ASSIGN_OR_RETURN_IMPL(WEFT_STATUS_CONCAT(weft_or_, __LINE__), lhs, expression)
#define WEFT_ASSIGN_OR_RETURN_IMPL(result, lhs, expression) \
  auto result = (expression);                               \
  if (!result.ok()) return std::move(result).status();      \
  lhs = *std::move(result)

#endif  // WEFT_DATAPLANE_BASE_STATUS_H_
