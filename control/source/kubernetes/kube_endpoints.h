// SPDX-License-Identifier: Apache-2.0
// The endpoints of functions as EndpointSlices say them: those of a Service's own, or of the Services among
// which routes split its calls. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ENDPOINTS_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ENDPOINTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "control/model/entry.h"
#include "control/source/kubernetes/kube_json.h"
#include "control/source/kubernetes/kube_routes.h"

namespace weft::control {

// The node of what Kubernetes knows by its address alone.
inline constexpr char kKubeOutside[] = "outside";

// "10.0.0.1:80", "[fd00::1]:80"
std::string KubeAddressOf(const std::string& ip, uint32_t port);

// Which node an address is of, for slices that do not say: by the node's own, or the range of its pods.
class KubeAddresses {
 public:
  void Add(const std::string& node, const KubeNode& of);
  // Empty: of none
  std::string NodeOf(const std::string& ip) const;

 private:
  void AddRange(const std::string& bytes, std::size_t bits, const std::string& node);

  std::set<std::size_t> lengths_;  // Of the prefixes, in bits
  absl::flat_hash_map<std::string, std::string> nodes_;
};

// An endpoint as the slice with its best address says it.
struct KubeHost {
  const KubeSlice* slice = nullptr;
  const KubeEndpoint* endpoint = nullptr;
  int rank = -1;          // The higher the better
  std::size_t place = 0;  // Of those that are as good the first counts.
};

// By Service
using KubeSlicesOf = std::map<std::string, std::vector<const KubeSlice*>>;

// Adds endpoints to what a function comes to.
class KubeEndpointWriter {
 public:
  using FindService = std::function<const KubeService*(const std::string& name)>;

  // All outlive the writer.
  KubeEndpointWriter(const KubeSlicesOf& slices, FindService find, const KubeAddresses& addresses,
                     std::vector<EntryPtr>* said)
      : slices_(slices), find_(std::move(find)), addresses_(addresses), said_(said) {}

  // Those of the function's own Service.
  void AddService(const std::string& function);
  // Those of the Services among which its calls are split.
  void AddSplit(const std::string& function, const KubeSplit& split);

  // Whether some are on no node that Kubernetes knows.
  bool outside() const { return outside_; }

 private:
  // By name, each once.
  using Hosts = std::vector<std::pair<std::string, KubeHost>>;
  Hosts HostsOf(const std::string& name) const;
  void Add(const std::string& function, const std::string& host, const KubeHost& at, uint32_t weight);
  void AddRefusal(const std::string& function, const std::string& host, const std::string& why,
                  uint32_t weight);
  // `endpoint_` is one of them.
  void Say();

  const KubeSlicesOf& slices_;
  const FindService find_;
  const KubeAddresses& addresses_;
  std::vector<EntryPtr>* said_;
  uint32_t index_ = 0;
  // The one that is being made: its strings' room serves them all.
  api::Endpoint endpoint_;
  bool outside_ = false;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ENDPOINTS_H_
