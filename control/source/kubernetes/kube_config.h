// SPDX-License-Identifier: Apache-2.0
// Where a Kubernetes API server is and who weft-control is there: from a kubeconfig file, or from what
// Kubernetes puts into every pod.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_CONFIG_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/http_client.h"

namespace weft::control {

// A program that prints a credential.
struct KubeExec {
  std::vector<std::string> command;      // Empty: none
  std::vector<std::string> environment;  // NAME=VALUE, beside weft-control's own
  std::string api_version;
};

struct KubeOptions {
  std::string server;  // URL, as in https://10.0.0.1:6443
  TlsFiles tls;
  std::string token;
  std::string token_file;  // Read at each request: whoever renews it writes it anew.
  KubeExec exec;
  uint16_t port = 4810;  // Where weftd listens on every node
};

// Reads the file `path`; an empty `context` is the file's current one. What weft-control cannot do is an
// error that names it. Blocks.
absl::StatusOr<KubeOptions> LoadKubeconfig(const std::string& path, const std::string& context);

// Of the pod that weft-control runs in. NOT_FOUND says what is missing where it is in none.
absl::StatusOr<KubeOptions> KubeOptionsOfPod(
    const std::string& directory = "/var/run/secrets/kubernetes.io/serviceaccount");

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_CONFIG_H_
