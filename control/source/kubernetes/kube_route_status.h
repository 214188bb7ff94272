// SPDX-License-Identifier: Apache-2.0
// Says in the status of HTTPRoutes and GRPCRoutes what weft makes of them, beside what other controllers say
// there, and tells the log of what it cannot do. One thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ROUTE_STATUS_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ROUTE_STATUS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "control/source/kubernetes/kube_routes.h"
#include "control/source/kubernetes/kube_state.h"
#include "control/source/kubernetes/kube_status.h"

namespace weft::control {

// weft among the controllers of a route.
inline constexpr absl::string_view kKubeController = "mesh.weft/control";

// What makes the status of `route` say `wanted`, as a merge patch that another writer's version fails;
// nothing where it says so already. `now` is RFC 3339: of conditions that turn.
std::optional<std::string> RouteStatusPatch(const KubeRoute& route,
                                            const std::vector<KubeParentStatus>& wanted,
                                            absl::string_view now);

class KubeRouteStatuses {
 public:
  // Hands `writer` what is to be said of the routes of `state` and is not.
  void Update(KubeState* state, KubeStatusWriter* writer, uint64_t now_ns);
  std::vector<std::string> TakeNotes() { return std::exchange(notes_, {}); }

 private:
  void Say(const KubeState::RouteKey& key, const KubeState& state, KubeStatusWriter* writer, uint64_t now_ns);
  void Note(const KubeState::RouteKey& key, const std::vector<KubeParentStatus>& statuses);

  std::map<KubeState::RouteKey, std::vector<KubeParentStatus>> wanted_;
  uint64_t routings_ = 0;  // Which ones `wanted_` is of
  std::vector<std::string> notes_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ROUTE_STATUS_H_
