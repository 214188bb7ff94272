// SPDX-License-Identifier: Apache-2.0
// The objects of the Kubernetes API that routes follow from, as far as weft reads them: pages of lists, lines
// of watches, and what the server says of a failure. What is wrong with an object is said with it, and is no
// reason not to read the others. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_JSON_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_JSON_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "control/source/kubernetes/kube_route_json.h"
#include "dataplane/api/mesh.pb.h"

namespace weft::control {

enum class KubeKind : uint8_t { kNode, kService, kSlice, kPolicy, kHttpRoute, kGrpcRoute, kGrant };
inline constexpr std::size_t kKubeKinds = 7;
// Of the Gateway API, which a cluster may be without, or not show.
constexpr bool IsOfGatewayApi(KubeKind kind) { return kind >= KubeKind::kHttpRoute; }
// "services"; and the path of all of them.
absl::string_view KubeKindName(KubeKind kind);
absl::string_view KubeKindPath(KubeKind kind);

struct KubeNode {
  std::string ip;  // The first internal one; empty: none
  std::string zone;
  std::vector<std::string> pod_cidrs;
  friend bool operator==(const KubeNode&, const KubeNode&) = default;
};

// A TCP port of a Service.
struct KubePort {
  std::string name;
  uint32_t port = 0;
  bool called = false;  // It is the one that the function is called at.
  friend bool operator==(const KubePort&, const KubePort&) = default;
};

struct KubeService {
  bool external = false;  // A name for something elsewhere: no function.
  bool ipv6 = false;      // Its first family
  std::vector<KubePort> ports{};
  friend bool operator==(const KubeService&, const KubeService&) = default;
};

// One that serves, or still does.
struct KubeEndpoint {
  std::string ip;
  std::string pod;   // UID; empty: it is none.
  std::string node;  // Empty: not said
  std::string zone;
  bool draining = false;
  uint32_t hints = 0;  // Which of its slice's, from 1; 0: none
  friend bool operator==(const KubeEndpoint&, const KubeEndpoint&) = default;
};

// A port with this appProtocol says that each pod behind it is a weft-host with the pod's UID as its name.
inline constexpr absl::string_view kWeftHostProtocol = "weft/host";

struct KubeSlice {
  std::string service;  // NAMESPACE/NAME; empty: of none
  bool ipv6 = false;
  bool weft = false;  // Its pods are weft hosts.
  uint32_t port = 0;  // Else where they are called; 0: none
  std::vector<KubeEndpoint> endpoints;
  std::vector<std::string> hints;  // As api::Endpoint has them; few for many endpoints
  friend bool operator==(const KubeSlice&, const KubeSlice&) = default;
};

// weft's own kind: the policy of the function of the same name.
struct KubePolicy {
  std::string spec;
  api::Function function;  // What it says
  friend bool operator==(const KubePolicy& a, const KubePolicy& b) { return a.spec == b.spec; }
};

using KubeObject = std::variant<KubeNode, KubeService, KubeSlice, KubePolicy, KubeRoute, KubeGrant>;

// What became of a policy.
struct KubeVerdict {
  bool good = false;
  std::string message;
  int64_t generation = 0;
  bool told = false;  // Its status says so.
};

struct KubeItem {
  std::string key;                   // NAME, or NAMESPACE/NAME; "services[3]" where it does not say.
  std::optional<KubeObject> object;  // What of it can be taken; nothing: what it was before stays.
  std::string problem;               // What cannot; empty: all of it can.
  std::optional<KubeVerdict> verdict = std::nullopt;  // Of a policy
};

struct KubePage {
  std::string resource_version;
  std::string next;   // Token of the next page; empty: the last one
  uint64_t more = 0;  // Objects behind this page; 0: none, or not said.
  std::vector<KubeItem> items;
};

struct KubeEvent {
  enum class Type : uint8_t {
    kPut,
    kDelete,
    kBookmark,
    kError,
    kUnknown,  // A newer server's
  };
  Type type = Type::kUnknown;
  std::string resource_version;  // Empty: not said
  KubeItem item;
  int64_t code = 0;     // Of an error, as HTTP's
  std::string message;  // Of an error; the type of what is unknown
};

// The token of the next page, as read of the beginning of a page alone, which costs next to nothing: so that
// it can be asked for before this one is read. Empty where there is none, or the beginning does not say.
std::string NextOfKubePage(absl::string_view text);
// Text that is no list or event is INTERNAL.
absl::StatusOr<KubePage> ParseKubePage(KubeKind kind, absl::string_view text);
// The same of a text that is read where it lies: room is made behind it first, if there is none.
absl::StatusOr<KubePage> ParseKubePageInPlace(KubeKind kind, std::string* text);
absl::StatusOr<KubeEvent> ParseKubeEvent(KubeKind kind, absl::string_view line);
// What the server says of an error in the body of its answer; empty where it says nothing.
std::string KubeMessageOf(absl::string_view body);

// What an exec plugin prints.
struct KubeCredential {
  std::string token;
  std::string certificate_pem;
  std::string key_pem;
  uint64_t expires_unix_s = 0;  // 0: never
};
absl::StatusOr<KubeCredential> ParseKubeCredential(absl::string_view text);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_JSON_H_
