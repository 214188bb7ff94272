// SPDX-License-Identifier: Apache-2.0
// Where each object of a mesh stands in etcd, below one prefix (docs/sources.md):
//   nodes/NODE                            what an operator says
//   functions/NAMESPACE/NAME
//   endpoints/NODE/HOST/NAMESPACE/NAME
//   allow/NAMESPACE/NAME/NAMESPACE/NAME   from, to; NAME may be *
//   live/nodes/NODE                       what nodes say of themselves, under their leases
//   live/endpoints/NODE/HOST/NAMESPACE/NAME
// Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_ETCD_ETCD_KEYS_H_
#define WEFT_CONTROL_SOURCE_ETCD_ETCD_KEYS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "control/source/mesh_object.h"

namespace weft::control {

struct EtcdName {
  MeshObject object;  // Its names alone.
  bool live = false;
};

// `key` is what follows the prefix. INVALID_ARGUMENT says what is wrong with it.
absl::StatusOr<EtcdName> ParseEtcdKey(absl::string_view key);
// The reverse.
std::string EtcdKeyOf(const MeshObject& object, bool live);

// The first key behind all that begin with `prefix`: what etcd wants as the end of a range.
std::string EtcdPrefixEnd(std::string prefix);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_ETCD_ETCD_KEYS_H_
