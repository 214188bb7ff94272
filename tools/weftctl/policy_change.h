// SPDX-License-Identifier: Apache-2.0
// From mesh files to what is to be written to etcd: reads, validates, compares with what stands there. Blocks
// while it reads files; else pure.
#ifndef WEFT_TOOLS_WEFTCTL_POLICY_CHANGE_H_
#define WEFT_TOOLS_WEFTCTL_POLICY_CHANGE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/mesh_object.h"
#include "tools/weftctl/policy_store.h"

namespace weft::ctl {

using Objects = std::map<std::string, control::MeshObject>;  // By key below the prefix

// What the mesh file, or the directory of them, says; `-` is standard input. INVALID_ARGUMENT lists all
// errors by file and line.
absl::StatusOr<Objects> LoadObjects(const std::string& path);
// The same of text; `path` is what errors name and relative modules are found by.
absl::StatusOr<Objects> ParseObjects(const std::string& text, const std::string& path);

// The writes that make `objects` of what is `stored`: none for what stands there already.
std::vector<PolicyWrite> WritesOf(const Objects& objects, const std::vector<StoredObject>& stored);

// FAILED_PRECONDITION where the mesh that `writes` make has errors that it has not now.
absl::Status CheckWrites(const std::vector<StoredObject>& stored, const Objects& objects,
                         const std::vector<PolicyWrite>& writes);

// What an operator should hear though it is no error: endpoints that will wait for their node.
std::vector<std::string> RemarksOn(const Objects& objects, const std::vector<StoredObject>& stored);

const StoredObject* Find(const std::vector<StoredObject>& stored, const std::string& key);

}  // namespace weft::ctl

#endif  // WEFT_TOOLS_WEFTCTL_POLICY_CHANGE_H_
