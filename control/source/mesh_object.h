// SPDX-License-Identifier: Apache-2.0
// One entry of a mesh, as the sources that hold objects one by one keep it. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_MESH_OBJECT_H_
#define WEFT_CONTROL_SOURCE_MESH_OBJECT_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "control/model/offer.h"
#include "dataplane/api/mesh.pb.h"

namespace weft::control {

// Weights of endpoints: of one that says none, and the most that one may say.
inline constexpr uint32_t kWeightDefault = 100;
inline constexpr uint32_t kEndpointWeightMax = 1'000;

using MeshObject = std::variant<api::Node, api::Function, api::Endpoint, api::Allow>;

// OK for what `from` and `to` of a rule may be: namespace/name or namespace/*.
absl::Status CheckPattern(absl::string_view pattern);
// OK for HOST:PORT, where an IPv6 address stands in brackets.
absl::Status CheckAddress(absl::string_view address);
// The same of a node: its agent is dialled, and no name is looked up for that.
absl::Status CheckNodeAddress(absl::string_view address);
// OK where all names of `object` are good ones.
absl::Status CheckObjectNames(const MeshObject& object);

EntryPtr EntryOfObject(const MeshObject& object, bool implied);

// Appends `object` to the list of `mesh` that it belongs to.
void AddObject(const MeshObject& object, bool implied, SourceMesh* mesh);

// What `object` says beside its names, as JSON; what is at its default is left out. LoadObject()
// (mesh_yaml.h) of it gives the same object.
std::string ObjectJson(const MeshObject& object);

// A mesh file that says `objects` and nothing else (mesh_yaml.h reads it).
std::string ObjectsYaml(const std::vector<MeshObject>& objects);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_MESH_OBJECT_H_
