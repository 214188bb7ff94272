// SPDX-License-Identifier: Apache-2.0
// An event of a watch, as the API server writes it, taken into what is held of the cluster.
#ifndef WEFT_TESTS_CONTROL_SOURCE_KUBE_EVENT_H_
#define WEFT_TESTS_CONTROL_SOURCE_KUBE_EVENT_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "control/source/kubernetes/kube_json.h"
#include "control/source/kubernetes/kube_state.h"

namespace weft::control {

// Returns why the object could not be taken, or not all of it; empty: it was.
inline std::string PutEvent(KubeState* state, KubeKind kind, const std::string& json,
                            const std::string& type = "MODIFIED") {
  const auto event = ParseKubeEvent(kind, absl::StrCat(R"({"type":")", type, R"(","object":)", json, "}"));
  if (!event.ok()) return std::string(event.status().message());
  if (event->type == KubeEvent::Type::kDelete) {
    state->Erase(kind, event->item.key);
  } else {
    state->Put(kind, event->item);
  }
  return event->item.problem;
}

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_SOURCE_KUBE_EVENT_H_
