// SPDX-License-Identifier: Apache-2.0
// One mesh file: from YAML text to what it says, or the list of its errors. Used by weft-control's file
// source and by `weftctl validate`. docs/mesh-yaml.md describes the format.
#ifndef WEFT_CONTROL_SOURCE_MESH_YAML_H_
#define WEFT_CONTROL_SOURCE_MESH_YAML_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "control/model/merge.h"
#include "control/source/module_hash.h"

namespace weft::control {

struct LoadedMesh {
  SourceMesh mesh;                  // With errors: what could be read, good for finding further errors only.
  std::vector<std::string> errors;  // Lines ready to print, bounded.
};

// Reads `text`, the content of the file `path`. Relative module paths are of the directory of `path`. Hashes
// the modules whose sha256 the file does not give: reads those files, and blocks so long.
LoadedMesh LoadMesh(absl::string_view text, const std::string& path, ModuleHasher* hasher);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_MESH_YAML_H_
