// SPDX-License-Identifier: Apache-2.0
// HTTPRoutes, GRPCRoutes and ReferenceGrants of the Gateway API, as far as they can say something of Services
// within a mesh. What weft cannot express is kept as a reason, so that the route's status can say it. Pure;
// any thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ROUTE_JSON_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ROUTE_JSON_H_

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft::control {

inline constexpr absl::string_view kGatewayGroup = "gateway.networking.k8s.io";

// A Service that a route says something of. Parents of other kinds are other controllers'.
struct KubeParentRef {
  std::string json;  // The reference as it stands, keys in order: the status repeats it.
  std::string ns;    // The route's own where nothing is said
  std::string name;
  std::string section;  // Name of a port; empty: all
  uint32_t port = 0;    // 0: all
  friend bool operator==(const KubeParentRef&, const KubeParentRef&) = default;
};

struct KubeBackendRef {
  std::string other_kind;  // "GROUP/KIND" of what is no Service
  std::string ns;
  std::string name;
  uint32_t port = 0;    // 0: not said
  uint32_t weight = 1;  // 0 to 1,000,000
  friend bool operator==(const KubeBackendRef&, const KubeBackendRef&) = default;
};

struct KubeRule {
  std::string unsupported;  // What of it weft cannot do; empty: nothing, it is for all calls alike.
  std::vector<KubeBackendRef> backends;
  uint64_t timeout_ns = 0;  // Of a call; 0: not said
  friend bool operator==(const KubeRule&, const KubeRule&) = default;
};

struct KubeRoute {
  std::string created;  // RFC 3339, so that texts compare as times
  std::vector<KubeParentRef> parents;
  std::vector<KubeRule> rules;

  // What its status says, and of which state: nothing that calls follow, so that it makes no route another
  // one.
  int64_t generation = 0;
  std::string version;         // The object's
  std::string status_parents;  // JSON; empty: none
  friend bool operator==(const KubeRoute& a, const KubeRoute& b) {
    return a.created == b.created && a.parents == b.parents && a.rules == b.rules;
  }
};

// What routes of which namespaces may refer to Services of its own.
struct KubeGrant {
  struct From {
    std::string kind;  // HTTPRoute, GRPCRoute
    std::string ns;
    friend bool operator==(const From&, const From&) = default;
  };
  std::vector<From> from;
  std::vector<std::string> to;  // Names; an empty one: all
  friend bool operator==(const KubeGrant&, const KubeGrant&) = default;
};

// Errors are INVALID_ARGUMENT and name the place: nothing of the object can be taken.
absl::Status ReadKubeRoute(const simdjson::dom::element& from, const std::string& ns, KubeRoute* route);
absl::Status ReadKubeGrant(const simdjson::dom::element& from, KubeGrant* grant);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ROUTE_JSON_H_
