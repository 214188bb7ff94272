// SPDX-License-Identifier: Apache-2.0
#include "control/source/validate.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/model/merge.h"
#include "control/source/file_source.h"
#include "control/source/mesh_yaml.h"
#include "dataplane/config/yaml.h"

namespace weft::control {

Validation Validate(const std::string& path) {
  Validation result;
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    const std::string prefix = absl::EndsWith(path, "/") ? path : path + "/";
    absl::StatusOr<std::vector<std::string>> names = MeshFilesOf(path);
    if (!names.ok()) {
      result.errors.emplace_back(names.status().message());
      return result;
    }
    for (const std::string& name : *names) result.files.push_back(prefix + name);
    if (names->empty()) result.errors.push_back(absl::StrCat(path, ": holds no *.yaml or *.yml file"));
  } else {
    result.files.push_back(path);
  }
  ModuleHasher hasher;
  std::vector<SourceMesh> meshes;
  for (const std::string& file : result.files) {
    const absl::StatusOr<std::string> text = ReadSmallFile(file);
    if (!text.ok()) {
      result.errors.emplace_back(text.status().message());
      continue;
    }
    LoadedMesh loaded = LoadMesh(*text, file, &hasher);
    result.errors.insert(result.errors.end(), loaded.errors.begin(), loaded.errors.end());
    meshes.push_back(std::move(loaded.mesh));
  }
  std::vector<const SourceMesh*> sources;
  for (const SourceMesh& mesh : meshes) sources.push_back(&mesh);
  Merged merged = Merge(sources);
  for (const MeshError& error : merged.errors) result.errors.push_back(error.ToString());
  result.state = std::move(merged.state);
  return result;
}

}  // namespace weft::control
