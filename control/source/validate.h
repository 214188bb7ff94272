// SPDX-License-Identifier: Apache-2.0
// Checks mesh files as weft-control would, without a mesh: for `weftctl validate` and for tests.
#ifndef WEFT_CONTROL_SOURCE_VALIDATE_H_
#define WEFT_CONTROL_SOURCE_VALIDATE_H_

#include <string>
#include <vector>

#include "control/model/mesh_state.h"

namespace weft::control {

struct Validation {
  MeshState state;                  // What the files say together; complete only without errors.
  std::vector<std::string> files;   // Those that were read.
  std::vector<std::string> errors;  // Lines ready to print, "file:line:column: key: message"
};

// Reads the file `path`, or every mesh file of the directory `path`, and merges them. Blocks.
Validation Validate(const std::string& path);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_VALIDATE_H_
