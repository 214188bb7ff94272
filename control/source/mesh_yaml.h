// SPDX-License-Identifier: Apache-2.0
// One mesh file: from YAML text to what it says, or the list of its errors. Used by weft-control's file
// source and by `weftctl validate`. docs/mesh-yaml.md describes the format.
#ifndef WEFT_CONTROL_SOURCE_MESH_YAML_H_
#define WEFT_CONTROL_SOURCE_MESH_YAML_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "control/model/offer.h"
#include "control/source/mesh_object.h"
#include "control/source/module_hash.h"

namespace weft::control {

struct LoadedMesh {
  SourceMesh mesh;                  // With errors: what could be read, good for finding further errors only.
  std::vector<std::string> errors;  // Lines ready to print, bounded.
};

// Reads `text`, the content of the file `path`. Relative module paths are of the directory of `path`. Hashes
// the modules whose sha256 the file does not give: reads those files, and blocks so long.
LoadedMesh LoadMesh(absl::string_view text, const std::string& path, ModuleHasher* hasher);

// Fills `object`, whose names are set (a store's key tells them), from `text`: the entry of a mesh file
// without its names, as YAML or JSON. An endpoint's module needs an absolute path and its sha256.
// INVALID_ARGUMENT lists all errors, each beginning with `origin`, and leaves `object` in an unspecified
// state.
absl::Status LoadObject(absl::string_view text, const std::string& origin, MeshObject* object);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_MESH_YAML_H_
