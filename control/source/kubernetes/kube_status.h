// SPDX-License-Identifier: Apache-2.0
// Tells in the status of policies and routes what weft makes of them, where the status does not say so yet.
// Every node would say the same: each waits for a moment of its own, and who sees it said by another says
// nothing. One thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_STATUS_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_STATUS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "control/source/http_client.h"
#include "control/source/kubernetes/kube_access.h"
#include "control/source/kubernetes/kube_json.h"
#include "dataplane/base/random.h"

namespace weft::control {

class KubeStatusWriter {
 public:
  // Both outlive the writer.
  KubeStatusWriter(KubeAccess* access, HttpClient* http, uint64_t seed)
      : access_(access), http_(http), random_(seed) {}
  KubeStatusWriter(const KubeStatusWriter&) = delete;
  KubeStatusWriter& operator=(const KubeStatusWriter&) = delete;
  ~KubeStatusWriter();

  // The policy NAMESPACE/NAME was read, and its status does or does not say what became of it.
  void Take(const std::string& key, const KubeVerdict& verdict, uint64_t now_ns);
  // The status of the object NAMESPACE/NAME of `kind` is to be merged with `body`, which is JSON.
  void Take(KubeKind kind, const std::string& key, std::string body, uint64_t now_ns);
  void Forget(KubeKind kind, const std::string& key) { due_.erase({kind, key}); }

  uint64_t wake_ns() const;  // CLOCK_MONOTONIC; 0: never
  void OnTime(uint64_t now_ns);

  // Why the last one could not be written; empty: it could.
  const std::string& problem() const { return problem_; }

 private:
  using Key = std::pair<KubeKind, std::string>;
  struct Due {
    std::string body;
    uint64_t at_ns = 0;
  };

  void Write(const Key& key, const std::string& body);
  void Written(const absl::Status& status, long code);

  KubeAccess* access_;
  HttpClient* http_;
  Random random_;
  std::map<Key, Due> due_;
  HttpClient::RequestId request_ = 0;
  Key writing_;
  std::string sent_;  // What is written there
  std::string body_;
  uint64_t now_ns_ = 0;
  std::string problem_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_STATUS_H_
