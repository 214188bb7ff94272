// SPDX-License-Identifier: Apache-2.0
// What HTTPRoutes and GRPCRoutes say of Services within the mesh, as GAMMA binds them: among which Services
// the calls of a Service's function are split, and what each route's status is to tell. weft's calls have
// neither path nor headers, and its routes no filters: rules for all calls alike are taken, others are
// dropped and named. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ROUTES_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ROUTES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "control/source/kubernetes/kube_json.h"

namespace weft::control {

// The objects that are known, each with NAMESPACE/NAME. All outlive the call of RouteServices().
struct KubeRouteObjects {
  std::vector<std::pair<std::string, const KubeRoute*>> http;
  std::vector<std::pair<std::string, const KubeRoute*>> grpc;
  std::vector<std::pair<std::string, const KubeGrant*>> grants;
  std::function<const KubeService*(const std::string& name)> service;  // Null: there is none.
};

struct KubeBackend {
  std::string service;  // NAMESPACE/NAME
  uint32_t weight = 0;  // Above 0
  std::string problem;  // Why its share of the calls fails; empty: it goes to the Service's endpoints.
  friend bool operator==(const KubeBackend&, const KubeBackend&) = default;
};

// Where the calls of a function go instead of to the endpoints of its own Service.
struct KubeSplit {
  std::string said_by;                // "httproutes NAMESPACE/NAME"
  std::vector<KubeBackend> backends;  // None: nowhere
  uint64_t timeout_ns = 0;            // Of a call; 0: not said
  friend bool operator==(const KubeSplit&, const KubeSplit&) = default;
};

struct KubeCondition {
  std::string type;
  bool is = false;
  std::string reason;
  std::string message;
  friend bool operator==(const KubeCondition&, const KubeCondition&) = default;
};

// Of one parent of a route.
struct KubeParentStatus {
  std::string parent;  // JSON
  std::vector<KubeCondition> conditions;
  friend bool operator==(const KubeParentStatus&, const KubeParentStatus&) = default;
};

struct KubeRouting {
  std::map<std::string, KubeSplit> splits;  // By Service
  // By kind and NAMESPACE/NAME, of all routes; empty where no parent is a Service.
  std::map<std::pair<KubeKind, std::string>, std::vector<KubeParentStatus>> statuses;
};

KubeRouting RouteServices(const KubeRouteObjects& objects);

// What shares calls among endpoints as `backends` are to share them: for each, given as its weight above 0
// and its number of endpoints, the weights of these, of 1 to 1,000. Where a share is too small for all of its
// endpoints the last ones get 0, and are to be left out.
std::vector<std::vector<uint32_t>> ShareWeights(absl::Span<const std::pair<uint32_t, std::size_t>> backends);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ROUTES_H_
