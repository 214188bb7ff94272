// SPDX-License-Identifier: Apache-2.0
// A function as its serving host knows it: whether it is served now, its limits, and what the embedding code
// hangs on it. Owned by CallCore and never freed before it, so that pointers to it stay good while functions
// come and go. Owner thread only.
#ifndef WEFT_DATAPLANE_CALL_LOCAL_FUNCTION_H_
#define WEFT_DATAPLANE_CALL_LOCAL_FUNCTION_H_

#include <cstdint>
#include <string>

#include "dataplane/base/function_id.h"
#include "dataplane/route/limits.h"
#include "dataplane/route/policy.h"

namespace weft {

struct LocalFunction {
  FunctionId id;
  bool served = false;
  ConcurrencyLimit limit{Policy{}.concurrent_calls_max};
  uint64_t admitted = 0;
  void* user = nullptr;  // Of whoever serves it; not looked at here.
  uint32_t calls_per_second_max = 0;
  uint32_t held = 0;         // Pointers to it that its owner keeps elsewhere: it stays while there are some.
  bool policy_told = false;  // Has its limits from the agent, since it was last served.
  std::string name;          // Empty until it is served here, or the agent has named it; then it stays.
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_LOCAL_FUNCTION_H_
