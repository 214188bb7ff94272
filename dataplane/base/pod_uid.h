// SPDX-License-Identifier: Apache-2.0
// Hosts in Kubernetes' pods go by their pod's UID, which no settings name.
#ifndef WEFT_DATAPLANE_BASE_POD_UID_H_
#define WEFT_DATAPLANE_BASE_POD_UID_H_

#include <algorithm>

#include "absl/strings/string_view.h"

namespace weft {

// Whether a host's name has the form of a pod's UID.
inline bool IsPodUid(absl::string_view name) {
  constexpr absl::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  return name.size() == kForm.size() &&
         std::equal(name.begin(), name.end(), kForm.begin(), [](char c, char form) {
           return form == '-' ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_POD_UID_H_
