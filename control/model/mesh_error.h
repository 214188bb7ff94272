// SPDX-License-Identifier: Apache-2.0
// What is wrong with an entry that a source says, and where it says it: what model and validation report.
#ifndef WEFT_CONTROL_MODEL_MESH_ERROR_H_
#define WEFT_CONTROL_MODEL_MESH_ERROR_H_

#include <string>

#include "control/model/entry.h"

namespace weft::control {

struct MeshError {
  std::string origin;
  Where where;
  std::string key;  // As in "endpoints[3]"; empty where the source has no lists.
  std::string message;

  // "mesh.yaml:14:3: endpoints[3]: message"
  std::string ToString() const;
};

// The error of `entry`, which `origin` says.
MeshError ErrorOf(const std::string& origin, const Entry& entry, std::string message);
// "duplicate node "n1", first at a.yaml:3"
std::string DuplicateMessage(const Entry& entry, const std::string& first_origin, const Entry& first);

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_MESH_ERROR_H_
