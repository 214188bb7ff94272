// SPDX-License-Identifier: Apache-2.0
// Objects of a Kubernetes cluster as its API server writes them, and a cluster made of them without a server.
#ifndef WEFT_TESTS_CONTROL_SOURCE_KUBE_STATE_FIXTURE_H_
#define WEFT_TESTS_CONTROL_SOURCE_KUBE_STATE_FIXTURE_H_

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "control/source/kubernetes/kube_state.h"
#include "tests/control/source/kube_event.h"
#include "tests/control/source/said_mesh.h"

namespace weft::control {

inline constexpr char kWeftPort[] =
    R"([{"name":"w","port":4811,"appProtocol":"weft/host","protocol":"TCP"}])";
inline constexpr char kHttpPort[] = R"([{"name":"metrics","port":9090},{"name":"http","port":8080}])";

inline std::string NodeJson(const std::string& name, const std::string& ip, const std::string& zone = "z1") {
  return absl::StrCat(R"({"metadata":{"name":")", name, R"(","resourceVersion":"7","labels":)",
                      R"({"topology.kubernetes.io/zone":")", zone, R"("}},"spec":{"podCIDRs":["10.244.)",
                      name.substr(name.size() - 1),
                      R"(.0/24"]},"status":{"addresses":[{"type":"Hostname","address":"x"},)",
                      R"({"type":"InternalIP","address":")", ip, R"("}]}})");
}
inline std::string ServiceJson(const std::string& name, const std::string& spec = "{}") {
  return absl::StrCat(R"({"metadata":{"namespace":"v","name":")", name, R"(","resourceVersion":"8"},"spec":)",
                      spec, "}");
}
inline std::string SliceJson(const std::string& name, const std::string& service, const std::string& ports,
                             const std::string& endpoints, const std::string& type = "IPv4") {
  return absl::StrCat(R"({"metadata":{"namespace":"v","name":")", name,
                      R"(","resourceVersion":"9","labels":{"kubernetes.io/service-name":")", service,
                      R"("}},"addressType":")", type, R"(","ports":)", ports, R"(,"endpoints":[)", endpoints,
                      "]}");
}
inline std::string PodJson(const std::string& uid, const std::string& ip,
                           const std::string& conditions = "{}", const std::string& node = "n1") {
  return absl::StrCat(R"({"addresses":[")", ip, R"("],"conditions":)", conditions, R"(,"nodeName":")", node,
                      R"(","targetRef":{"kind":"Pod","uid":")", uid, R"("}})");
}

// PodJson with hints, on node n2, at an address that ends with the UID's number.
inline std::string HintedJson(const std::string& uid, const std::string& hints) {
  std::string pod = PodJson(uid, absl::StrCat("10.1.0.", uid.substr(1)), "{}", "n2");
  pod.back() = ',';
  return absl::StrCat(pod, R"("hints":)", hints, "}");
}

class KubeStateTest : public testing::Test {
 protected:
  std::string Put(KubeKind kind, const std::string& json, const std::string& type = "MODIFIED") {
    return PutEvent(&state_, kind, json, type);
  }
  const SourceMesh& Mesh() {
    said_.Take(state_.TakeOffer("k"));
    return said_.mesh();
  }
  std::string PutSlice(const std::string& json) { return Put(KubeKind::kSlice, json); }
  // "FUNCTION NODE HOST[ HTTP][ draining]"
  std::vector<std::string> Endpoints() {
    std::vector<std::string> all;
    for (const auto& said : Mesh().endpoints) {
      const api::Endpoint& e = said.value;
      EXPECT_TRUE(said.implied);
      all.push_back(absl::StrCat(e.function(), " ", e.node(), " ", e.host(), e.http().empty() ? "" : " ",
                                 e.http(), e.state() == api::ENDPOINT_DRAINING ? " draining" : ""));
    }
    return all;
  }
  void PutBasics() {
    Put(KubeKind::kNode, NodeJson("n1", "10.0.0.1"));
    Put(KubeKind::kNode, NodeJson("n2", "10.0.0.2"));
    Put(KubeKind::kService, ServiceJson("f"));
  }

  KubeState state_{4810};
  SaidMesh said_;
};

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_SOURCE_KUBE_STATE_FIXTURE_H_
