// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_routes.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "control/source/mesh_object.h"
#include "dataplane/base/function_id.h"

namespace weft::control {
namespace {

std::string NameOf(const std::string& ns, const std::string& name) { return absl::StrCat(ns, "/", name); }

// The Service, unless it is a name for something elsewhere.
const KubeService* Find(const KubeRouteObjects& objects, const std::string& name) {
  const KubeService* const service = objects.service(name);
  return service == nullptr || service->external ? nullptr : service;
}

struct Problem {
  std::string reason;
  std::string message;
};

// What a route comes to, whichever parent it is looked at from.
class RouteReader {
 public:
  RouteReader(const KubeRouteObjects& objects, KubeKind kind, const std::string& key, const KubeRoute& route)
      : objects_(objects), kind_(kind), key_(key), route_(route) {
    for (std::size_t i = 0; i < route_.rules.size(); ++i) ReadRule(i);
  }

  // Of the first rule that is for all calls, which later ones do not change; null where there is none.
  const std::vector<KubeBackend>* backends() const { return taken_ ? &backends_ : nullptr; }
  uint64_t timeout_ns() const { return timeout_ns_; }
  const std::vector<std::string>& dropped() const { return dropped_; }
  std::size_t shadowed() const { return shadowed_; }
  // Of the references of all rules that are not dropped.
  const std::vector<Problem>& unresolved() const { return unresolved_; }

 private:
  void ReadRule(std::size_t index) {
    const KubeRule& rule = route_.rules[index];
    if (!rule.unsupported.empty()) {
      dropped_.push_back(absl::StrCat("rules[", index, "].", rule.unsupported));
      return;
    }
    for (std::size_t i = 0; i < rule.backends.size(); ++i) {
      const KubeBackendRef& ref = rule.backends[i];
      Problem problem = Resolve(ref);
      if (!problem.reason.empty()) {
        problem.message = absl::StrCat("rules[", index, "].backendRefs[", i, "]: ", problem.message);
        unresolved_.push_back(problem);
      }
      if (taken_ || ref.weight == 0) continue;
      backends_.push_back({NameOf(ref.ns, ref.name), ref.weight, problem.message});
    }
    if (!taken_) timeout_ns_ = rule.timeout_ns;
    shadowed_ += taken_ ? 1 : 0;
    taken_ = true;
  }

  Problem Resolve(const KubeBackendRef& ref) const {
    const std::string name = NameOf(ref.ns, ref.name);
    if (!ref.other_kind.empty()) {
      return {"InvalidKind", absl::StrCat("a ", ref.other_kind, " is no Service of the core group")};
    }
    if (ref.ns != NamespaceOf(key_) && !IsGranted(ref)) {
      return {"RefNotPermitted", absl::StrCat("no ReferenceGrant of namespace ", ref.ns, " lets a route of ",
                                              NamespaceOf(key_), " refer to Service ", ref.name)};
    }
    const KubeService* const service = Find(objects_, name);
    if (service == nullptr) return {"BackendNotFound", absl::StrCat("there is no Service ", name)};
    if (ref.port == 0) return {};
    const auto port = std::find_if(service->ports.begin(), service->ports.end(),
                                   [&ref](const KubePort& each) { return each.port == ref.port; });
    if (port == service->ports.end()) {
      return {"BackendNotFound", absl::StrCat("Service ", name, " has no TCP port ", ref.port)};
    }
    if (port->called) return {};
    return {"UnsupportedProtocol", absl::StrCat("port ", ref.port, " of Service ", name,
                                                " is not the one that functions are called at")};
  }

  bool IsGranted(const KubeBackendRef& ref) const {
    const KubeGrant::From from{kind_ == KubeKind::kGrpcRoute ? "GRPCRoute" : "HTTPRoute",
                               std::string(NamespaceOf(key_))};
    return std::any_of(objects_.grants.begin(), objects_.grants.end(), [&](const auto& each) {
      const KubeGrant& grant = *each.second;
      return NamespaceOf(each.first) == ref.ns &&
             std::find(grant.from.begin(), grant.from.end(), from) != grant.from.end() &&
             std::any_of(grant.to.begin(), grant.to.end(),
                         [&ref](const std::string& name) { return name.empty() || name == ref.name; });
    });
  }

  const KubeRouteObjects& objects_;
  const KubeKind kind_;
  const std::string& key_;
  const KubeRoute& route_;
  bool taken_ = false;
  std::vector<KubeBackend> backends_;
  uint64_t timeout_ns_ = 0;
  std::vector<std::string> dropped_;
  std::size_t shadowed_ = 0;
  std::vector<Problem> unresolved_;
};

class Router {
 public:
  explicit Router(const KubeRouteObjects& objects) : objects_(objects) {
    Add(KubeKind::kGrpcRoute, objects.grpc);
    Add(KubeKind::kHttpRoute, objects.http);
    // Of two kinds GRPCRoutes count, then the oldest.
    std::sort(all_.begin(), all_.end(), [](const Known& a, const Known& b) {
      return std::tie(b.kind, a.route->created, *a.key) < std::tie(a.kind, b.route->created, *b.key);
    });
  }

  KubeRouting Run() {
    for (const Known& known : all_) Take(known);
    return std::move(routing_);
  }

 private:
  struct Known {
    KubeKind kind;
    const std::string* key;
    const KubeRoute* route;
  };

  void Add(KubeKind kind, const std::vector<std::pair<std::string, const KubeRoute*>>& routes) {
    for (const auto& [key, route] : routes) all_.push_back({kind, &key, route});
  }

  void Take(const Known& known) {
    const RouteReader reader(objects_, known.kind, *known.key, *known.route);
    const std::string name = absl::StrCat(KubeKindName(known.kind), " ", *known.key);
    std::vector<KubeParentStatus>& statuses = routing_.statuses[{known.kind, *known.key}];
    for (const KubeParentRef& parent : known.route->parents) {
      KubeParentStatus& status = statuses.emplace_back();
      status.parent = parent.json;
      status.conditions.push_back(Accept(known, reader, name, parent));
      const bool accepted = status.conditions.front().is;
      if (accepted && !reader.dropped().empty()) {
        status.conditions.push_back(
            {"PartiallyInvalid", true, "UnsupportedValue",
             absl::StrCat("Dropped Rule: weft cannot do ", absl::StrJoin(reader.dropped(), ", "))});
      }
      status.conditions.push_back(ResolvedRefs(reader));
    }
  }

  // Whether the route is in force for `parent`; where it is, and is the first, so is its split.
  KubeCondition Accept(const Known& known, const RouteReader& reader, const std::string& name,
                       const KubeParentRef& parent) {
    const auto no = [](std::string reason, std::string message) {
      return KubeCondition{"Accepted", false, std::move(reason), std::move(message)};
    };
    const std::string service = NameOf(parent.ns, parent.name);
    if (parent.ns != NamespaceOf(*known.key)) {
      return no("UnsupportedValue", absl::StrCat("Service ", service,
                                                 " is of another namespace, and weft routes the calls of a "
                                                 "function alike for all who call it"));
    }
    const KubeService* const parent_service = Find(objects_, service);
    if (parent_service == nullptr) {
      return no("NoMatchingParent", absl::StrCat("there is no Service ", service));
    }
    const std::string why_no_port = WhyNoPort(*parent_service, parent);
    if (!why_no_port.empty()) return no("NoMatchingParent", why_no_port);
    if (reader.backends() == nullptr) {
      return no("UnsupportedValue",
                reader.dropped().empty()
                    ? "it has no rule"
                    : absl::StrCat("weft cannot do ", absl::StrJoin(reader.dropped(), ", ")));
    }
    const auto [first, is_first] = routing_.splits.try_emplace(service);
    if (is_first) {
      first->second = {name, *reader.backends(), reader.timeout_ns()};
      kinds_[service] = known.kind;
    } else if (kinds_[service] != known.kind) {
      return no("Conflicted", absl::StrCat(first->second.said_by, " says where calls of ", service, " go"));
    }
    KubeCondition yes{"Accepted", true, "Accepted", ""};
    if (!is_first && first->second.said_by != name) {
      yes.message = absl::StrCat(first->second.said_by, ", which comes first, says where all calls of ",
                                 service, " go");
    } else if (reader.shadowed() != 0) {
      yes.message = "the first rule is for all calls: no later one counts";
    }
    return yes;
  }

  // Why `parent` names no port that the function is called at; empty: it does.
  static std::string WhyNoPort(const KubeService& service, const KubeParentRef& parent) {
    if (parent.section.empty() && parent.port == 0) return "";
    for (const KubePort& port : service.ports) {
      if (!parent.section.empty() && port.name != parent.section) continue;
      if (parent.port != 0 && port.port != parent.port) continue;
      return port.called ? ""
                         : absl::StrCat("port ", port.port, " is not the one that functions are called at");
    }
    return "the Service has no such TCP port";
  }

  static KubeCondition ResolvedRefs(const RouteReader& reader) {
    if (reader.unresolved().empty()) return {"ResolvedRefs", true, "ResolvedRefs", ""};
    std::vector<std::string> messages;
    for (const Problem& problem : reader.unresolved()) messages.push_back(problem.message);
    return {"ResolvedRefs", false, reader.unresolved().front().reason, absl::StrJoin(messages, "; ")};
  }

  const KubeRouteObjects& objects_;
  std::vector<Known> all_;
  std::map<std::string, KubeKind> kinds_;  // Of the splits
  KubeRouting routing_;
};

}  // namespace

KubeRouting RouteServices(const KubeRouteObjects& objects) { return Router(objects).Run(); }

std::vector<std::vector<uint32_t>> ShareWeights(absl::Span<const std::pair<uint32_t, std::size_t>> backends) {
  // The endpoint with the most to carry gets the most that there is.
  double most = 0;
  for (const auto& [weight, endpoints] : backends) {
    if (endpoints != 0) most = std::max(most, weight / static_cast<double>(endpoints));
  }
  std::vector<std::vector<uint32_t>> shares;
  for (const auto& [weight, endpoints] : backends) {
    std::vector<uint32_t>& share = shares.emplace_back(endpoints, 0);
    if (endpoints == 0) continue;
    const auto exact = static_cast<uint64_t>(std::llround(weight / most * kEndpointWeightMax));
    const uint64_t all = std::max<uint64_t>(1, exact);
    for (std::size_t i = 0; i < endpoints; ++i) {
      share[i] = static_cast<uint32_t>(all / endpoints + (i < all % endpoints ? 1 : 0));
    }
  }
  return shares;
}

}  // namespace weft::control
