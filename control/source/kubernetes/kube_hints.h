// SPDX-License-Identifier: Apache-2.0
// Whose calls an endpoint of an EndpointSlice is meant for (`hints`): callers in some zones, on some nodes.
// Called by kube_item_json.cc. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_HINTS_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_HINTS_H_

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace weft::control {

// Reads the hints of `endpoint`, as far as they are good: `hints` is then which of `all` they are, from 1, or
// 0 where there are none. Those that are new there are added, as api::Endpoint has them. Returns what is
// wrong with the first that is not good.
absl::Status ReadKubeHints(const simdjson::dom::element& endpoint, std::vector<std::string>* all,
                           uint32_t* hints);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_HINTS_H_
