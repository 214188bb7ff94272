// SPDX-License-Identifier: Apache-2.0
// Which source said what a call from one function to another depends on: the callee's policy, its endpoints,
// and the rule. Pure; any thread.
#ifndef WEFT_CONTROL_MODEL_WHO_SAID_H_
#define WEFT_CONTROL_MODEL_WHO_SAID_H_

#include <cstddef>
#include <string>
#include <vector>

#include "control/model/claims.h"

namespace weft::control {

struct Saying {
  std::string thing;    // "function v/f", "endpoint n1/h1", "node n1", "rule a/* to v/f"
  std::string said_by;  // "/etc/weft/mesh.d/a.yaml:7"; of a source without lines its origin alone
  std::string also_by;  // Others that say the same name and stand back
};

// At most `max` of each kind. `caller` is a function or a namespace.
std::vector<Saying> WhoSaid(const Claims& claims, const std::string& caller, const std::string& callee,
                            std::size_t max);

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_WHO_SAID_H_
