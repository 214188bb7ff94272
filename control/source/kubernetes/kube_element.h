// SPDX-License-Identifier: Apache-2.0
// Pieces of a Kubernetes object's JSON, for the files that read such objects. Any thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ELEMENT_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ELEMENT_H_

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace weft::control {

inline constexpr uint64_t kPortMax = 65'535;

// Of what is absent, null or of another type: the default. For what is nobody's name.
inline std::string TextOf(const simdjson::simdjson_result<simdjson::dom::element>& value) {
  std::string_view text;
  return value.get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ELEMENT_H_
