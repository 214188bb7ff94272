// SPDX-License-Identifier: Apache-2.0
// The Kubernetes source of weft-control: follows Services, EndpointSlices and nodes, and says the mesh that
// they make together once each of them was listed whole. A lost API server takes nothing back. One thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_SOURCE_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/http_client.h"
#include "control/source/kubernetes/kube_access.h"
#include "control/source/kubernetes/kube_config.h"
#include "control/source/kubernetes/kube_route_status.h"
#include "control/source/kubernetes/kube_state.h"
#include "control/source/kubernetes/kube_status.h"
#include "control/source/kubernetes/kube_watch.h"
#include "control/source/source.h"

namespace weft::control {

class KubeSource final : public Source {
 public:
  static absl::StatusOr<std::unique_ptr<KubeSource>> Create(KubeOptions kube,
                                                            const KubeWatchOptions& options);

  // Source
  void AddPollEntries(std::vector<pollfd>* entries) const override;
  std::vector<SourceChange> OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) override;
  uint64_t wake_ns() const override;
  std::vector<SourceChange> OnTime(uint64_t now_ns) override;
  bool Owns(absl::string_view origin) const override { return origin == Name(); }
  bool ReadsAtStart() const override { return false; }
  std::vector<SourceOffer> TakePrepared() override { return std::exchange(prepared_, {}); }
  std::vector<std::string> TakeNotes() override;
  std::string Name() const override { return "kubernetes"; }
  std::string Describe() const override;
  SourceHealth Health() const override;

 private:
  KubeSource(KubeOptions kube, const KubeWatchOptions& options, std::unique_ptr<HttpClient> http);

  std::vector<SourceChange> TakeChanges(uint64_t now_ns);

  std::unique_ptr<HttpClient> http_;
  KubeAccess access_;
  KubeState state_;
  std::vector<std::unique_ptr<KubeWatch>> watches_;  // One a kind
  KubeStatusWriter statuses_;
  KubeRouteStatuses route_statuses_;
  bool spoken_ = false;
  std::vector<SourceOffer> prepared_;
  std::string told_;  // The last problem of `access_` that was noted
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_SOURCE_H_
