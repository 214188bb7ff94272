// SPDX-License-Identifier: Apache-2.0
// One object of the Kubernetes API, of a list or of a watch. Called by kube_json.cc. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ITEM_JSON_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ITEM_JSON_H_

#include <simdjson.h>

#include "absl/strings/string_view.h"
#include "control/source/kubernetes/kube_json.h"

namespace weft::control {

// What of the object can be taken, and what is wrong with it. `place` names it where it does not do so
// itself.
KubeItem ReadKubeItem(KubeKind kind, const simdjson::dom::element& from, absl::string_view place);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ITEM_JSON_H_
