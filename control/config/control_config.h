// SPDX-License-Identifier: Apache-2.0
// weft-control.yaml: what weft-control watches, where that is more than mesh files (docs/sources.md).
#ifndef WEFT_CONTROL_CONFIG_CONTROL_CONFIG_H_
#define WEFT_CONTROL_CONFIG_CONTROL_CONFIG_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "control/source/etcd/etcd_connection.h"
#include "control/source/etcd/etcd_presence.h"
#include "control/source/kubernetes/kube_config.h"
#include "control/source/propeller/propeller_source.h"

namespace weft::control {

struct ControlConfig {
  std::string files;  // Mesh file or directory; empty: none
  std::optional<EtcdOptions> etcd;
  std::optional<EtcdPresenceOptions> presence;
  std::optional<PropellerOptions> propeller;
  std::optional<KubeOptions> kubernetes;
  std::string metrics;  // Loopback address for Prometheus; empty: none
};

// Reads `text`, the content of the file `path`, and the password file that it names. INVALID_ARGUMENT lists
// all errors by file, line and key. Blocks.
absl::StatusOr<ControlConfig> ParseControlConfig(absl::string_view text, const std::string& path);
absl::StatusOr<ControlConfig> LoadControlConfig(const std::string& path);

}  // namespace weft::control

#endif  // WEFT_CONTROL_CONFIG_CONTROL_CONFIG_H_
