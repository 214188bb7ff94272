// SPDX-License-Identifier: Apache-2.0
// Three Services with pods and what routes make of them, without a server: JSON in, endpoints with weights
// and conditions out.
#ifndef WEFT_TESTS_CONTROL_SOURCE_KUBE_ROUTES_FIXTURE_H_
#define WEFT_TESTS_CONTROL_SOURCE_KUBE_ROUTES_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "control/source/kubernetes/kube_routes.h"
#include "control/source/kubernetes/kube_state.h"
#include "tests/control/source/kube_event.h"
#include "tests/control/source/said_mesh.h"

namespace weft::control {

inline constexpr char kParent[] = R"({"group":"","kind":"Service","name":"f"})";

// "b=90,c=10": backends of namespace v
inline std::string Backends(const std::string& text) {
  std::string json;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string one = text.substr(at, end - at);
    const std::size_t is = one.find('=');
    absl::StrAppend(&json, json.empty() ? "" : ",", R"({"name":")", one.substr(0, is), R"(","port":4811)",
                    is == std::string::npos ? "" : absl::StrCat(R"(,"weight":)", one.substr(is + 1)), "}");
    at = end + 1;
  }
  return absl::StrCat(R"("backendRefs":[)", json, "]");
}

struct RouteText {
  std::string name = "r";
  std::string ns = "v";
  std::string created = "2026-11-01T00:00:00Z";
  std::string parents = kParent;
  std::string rules = "{}";
  std::string status = "{}";
};

inline std::string RouteJson(const RouteText& route) {
  return absl::StrCat(R"({"metadata":{"namespace":")", route.ns, R"(","name":")", route.name,
                      R"(","resourceVersion":"9","generation":3,"creationTimestamp":")", route.created,
                      R"("},"spec":{"parentRefs":[)", route.parents, R"(],"rules":[)", route.rules,
                      R"(]},"status":)", route.status, "}");
}

class KubeRoutesTest : public testing::Test {
 protected:
  void SetUp() override {
    Put(KubeKind::kNode, R"({"metadata":{"name":"n1"}})");
    for (const char* name : {"f", "b", "c"}) PutService(name);
    PutPods("f", {"f1"});
    PutPods("b", {"b1", "b2"});
    PutPods("c", {"c1"});
  }
  std::string Put(KubeKind kind, const std::string& json, const std::string& type = "MODIFIED") {
    return PutEvent(&state_, kind, json, type);
  }
  void PutService(const std::string& name, const std::string& ns = "v") {
    EXPECT_EQ(
        Put(KubeKind::kService, absl::StrCat(R"({"metadata":{"namespace":")", ns, R"(","name":")", name,
                                             R"("},"spec":{"ports":[{"name":"metrics","port":9090},)",
                                             R"({"name":"w","port":4811,"appProtocol":"weft/host"}]}})")),
        "");
  }
  // "b1" is a pod that is ready, "b1-" one that drains.
  void PutPods(const std::string& service, const std::vector<std::string>& pods,
               const std::string& ns = "v") {
    std::string endpoints;
    for (std::string pod : pods) {
      const bool drains = pod.back() == '-';
      if (drains) pod.pop_back();
      absl::StrAppend(&endpoints, endpoints.empty() ? "" : ",",
                      R"({"addresses":["10.1.0.1"],"nodeName":"n1",)", R"("conditions":{"terminating":)",
                      drains ? "true" : "false", R"(},"targetRef":{"kind":"Pod","uid":")", pod, R"("}})");
    }
    EXPECT_EQ(
        Put(KubeKind::kSlice,
            absl::StrCat(
                R"({"metadata":{"namespace":")", ns, R"(","name":")", service,
                R"(-1","labels":{"kubernetes.io/service-name":")", service,
                R"("}},"addressType":"IPv4","ports":[{"name":"w","port":4811,"appProtocol":"weft/host"}],)",
                R"("endpoints":[)", endpoints, "]}")),
        "");
  }
  std::string PutRoute(const RouteText& route, KubeKind kind = KubeKind::kHttpRoute) {
    return Put(kind, RouteJson(route));
  }
  // "HOST WEIGHT", or "WEIGHT: " and why there is none
  const SourceMesh& Mesh() {
    said_.Take(state_.TakeOffer("k"));
    return said_.mesh();
  }
  std::vector<std::string> EndpointsOf(const std::string& function) {
    std::vector<std::string> all;
    for (const auto& said : Mesh().endpoints) {
      const api::Endpoint& e = said.value;
      if (e.function() != function) continue;
      all.push_back(e.refuse().empty() ? absl::StrCat(e.host(), " ", e.weight())
                                       : absl::StrCat(e.weight(), ": ", e.refuse()));
    }
    return all;
  }
  api::Policy PolicyOf(const std::string& function) {
    for (const auto& said : Mesh().functions) {
      if (said.value.name() == function) return said.value.policy();
    }
    return {};
  }
  bool AnyLocality(const std::string& function) { return PolicyOf(function).any_locality(); }
  // "TYPE STATUS REASON: MESSAGE" of each condition of the route's parents
  std::vector<std::string> Conditions(const std::string& key = "v/r", KubeKind kind = KubeKind::kHttpRoute) {
    std::vector<std::string> all;
    const auto found = state_.Routing().statuses.find({kind, key});
    if (found == state_.Routing().statuses.end()) return all;
    for (const KubeParentStatus& status : found->second) {
      for (const KubeCondition& each : status.conditions) {
        all.push_back(absl::StrCat(each.type, " ", each.is ? "True" : "False", " ", each.reason,
                                   each.message.empty() ? "" : ": ", each.message));
      }
    }
    return all;
  }

  KubeState state_{4810};
  SaidMesh said_;
};

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_SOURCE_KUBE_ROUTES_FIXTURE_H_
