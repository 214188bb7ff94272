// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/plan.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/text.h"

namespace weft::agent {
namespace {

// An endpoint of this node as its host stands to it.
struct Candidate {
  enum class Kind { kReady, kDraining, kLoading, kFailed, kAbsent };
  Kind kind = Kind::kAbsent;
  SessionId session = 0;
  uint32_t weight = 0;
  bool open = false;  // A generation still waits for it.
  std::string note;
};

Candidate Judge(const EngineState& state, const EndpointKey& key, const api::Endpoint& endpoint) {
  Candidate candidate;
  candidate.weight = endpoint.weight();
  const Session* session = state.FindHost(key.host);
  if (session == nullptr) {
    candidate.note = absl::StrCat("host ", key.host, ": not attached");
    return candidate;
  }
  candidate.session = session->id;
  const auto placed = session->placements.find(key.function);
  const bool has_module = !endpoint.module().empty();
  const bool serves = has_module ? placed != session->placements.end() && placed->second.serves()
                                 : session->Serves(key.function);
  if (serves) {
    const bool draining = endpoint.state() == api::ENDPOINT_DRAINING || session->draining;
    candidate.kind = draining ? Candidate::Kind::kDraining : Candidate::Kind::kReady;
    candidate.note = absl::StrCat("host ", key.host, draining ? ": draining" : ": ready");
  } else if (!has_module) {
    candidate.note = absl::StrCat("host ", key.host, ": has not registered the function");
  } else if (placed != session->placements.end() && placed->second.state == Placement::State::kFailed) {
    candidate.kind = Candidate::Kind::kFailed;
    candidate.note = absl::StrCat("host ", key.host, ": failed: ", placed->second.error);
  } else {
    candidate.kind = Candidate::Kind::kLoading;
    candidate.note = absl::StrCat("host ", key.host, ": loading");
  }
  return candidate;
}

// What cannot be called, or not by what weftd has.
std::string NoteOnUncallable(const EndpointKey& key, const api::Endpoint& endpoint) {
  if (!endpoint.refuse().empty()) return endpoint.refuse();
  return absl::StrCat("node ", key.node, " host ", key.host, ": HTTP at ", endpoint.http(),
                      ", needs the gateway");
}

// Hosts that registered `function` themselves, where no source says otherwise.
void PlanByRegistration(const EngineState& state, const std::string& function, FunctionPlan* plan) {
  std::vector<PlanTarget> draining;
  const auto registered = state.registered_at.find(function);
  if (registered == state.registered_at.end()) return;
  for (const SessionId id : registered->second) {
    const Session& session = *state.Find(id);
    (session.draining ? draining : plan->targets).push_back({id, kWeightDefault});
    plan->notes.push_back(
        absl::StrCat("host ", session.host, session.draining ? ": draining" : ": registered"));
  }
  if (plan->targets.empty()) plan->targets = std::move(draining);
}

// Hosts that calls go to today and that are no endpoint any more: they stay while a replacement is loading,
// and where nothing else is ready.
void KeepRetired(const EngineState& state, const std::string& function, const std::set<SessionId>& named,
                 FunctionPlan* plan) {
  const auto routed = state.routed.find(function);
  if (routed == state.routed.end()) return;
  for (const SessionId id : routed->second) {
    const Session* session = state.Find(id);
    if (named.contains(id) || session == nullptr || session->draining || !session->Serves(function)) continue;
    plan->targets.push_back({id, kWeightDefault});
    plan->notes.push_back(
        absl::StrCat("host ", session->host, ": no endpoint any more, kept until its replacement is ready"));
  }
}

std::string ZoneOf(const Model& model, const std::string& node) {
  const auto found = model.nodes().find(node);
  return found == model.nodes().end() ? "" : found->second.zone();
}

// Here and elsewhere.
PlanRoute ToAll(const FunctionPlan& function) {
  if (function.remote.empty()) return {function.targets, function.prospects, function.code, function.reason};
  PlanRoute route{function.remote, function.prospects, 0, ""};
  if (!function.leaves) {
    route.targets.insert(route.targets.begin(), function.targets.begin(), function.targets.end());
  }
  return route;
}

// Some calls fail, where they are made: those of other nodes are past that.
PlanRoute WithRefusals(const FunctionPlan& function, PlanRoute route) {
  if (function.refused_share == 0 || route.targets.empty()) return route;
  route.code = static_cast<uint32_t>(absl::StatusCode::kUnavailable);
  route.reason = function.refused;
  route.refused_share = function.refused_share;
  return route;
}

// Its calls leave by the engine of the worker that it was dealt to.
PlanRoute Dealt(const EngineState& state, const Session& session, PlanRoute route) {
  if (state.engines.size() < 2) return route;
  for (PlanTarget& target : route.targets) {
    if (!target.node.empty() && target.session == state.engine)
      target.session = state.EngineTo(session, target.node);
  }
  return route;
}

// An engine inside a host may hand calls of other nodes to that host and to nobody else.
PlanRoute OwnHostOnly(const FunctionPlan& function, const Session& engine, const Call& call) {
  PlanRoute route{{}, {}, function.code, function.reason};
  for (const PlanTarget& target : function.targets) {
    if (target.session == engine.inside_of) route.targets.push_back(target);
  }
  for (const SessionId prospect : function.prospects) {
    if (prospect == engine.inside_of) route.prospects.push_back(prospect);
  }
  if (route.targets.empty() && route.prospects.empty() && !function.targets.empty()) {
    route.code = static_cast<uint32_t>(absl::StatusCode::kUnavailable);
    route.reason = absl::StrCat("UNAVAILABLE: ", call.second, " is not at the host of ", engine.host);
  }
  return route;
}

// The endpoints of one function on other nodes, as far as they can be called by the engine inside `host`,
// where there is one, or else by this node's.
class RemotePlan {
 public:
  RemotePlan(const Model& model, const EngineState& state, const std::string& self, const Session* host)
      : model_(model), zone_(ZoneOf(model, self)) {
    const Session* const inside = host == nullptr ? nullptr : state.Find(host->inside);
    if (inside != nullptr) ways_.push_back({inside->id, &inside->nodes_up});
    if (state.engine != 0) ways_.push_back({state.engine, &state.nodes_up});
  }

  // False: it cannot be called now.
  bool Add(const EndpointKey& key, const api::Endpoint& endpoint) {
    const bool draining = endpoint.state() == api::ENDPOINT_DRAINING;
    for (const Way& way : ways_) {
      // The engine inside its host there, where it has one, or else its node's.
      for (const std::string& end : {absl::StrCat(key.node, "/", key.host), key.node}) {
        if (!way.up->contains(end)) continue;
        (draining ? draining_ : ready_)[{way.engine, end}] += endpoint.weight();
        return true;
      }
    }
    return false;
  }
  // Draining ones serve where no other is left, here or elsewhere.
  void Choose(FunctionPlan* plan) const {
    plan->remote = Targets(plan->none_ready && ready_.empty() ? draining_ : ready_);
    plan->leaves = plan->none_ready && !ready_.empty();
  }

 private:
  using Weights = std::map<std::pair<SessionId, std::string>, uint32_t>;
  struct Way {
    SessionId engine;
    const std::set<std::string>* up;
  };

  std::vector<PlanTarget> Targets(const Weights& ends) const {
    std::vector<PlanTarget> targets;
    for (const auto& [end, weight] : ends) {
      const std::string node = end.second.substr(0, end.second.find('/'));
      const bool same_zone = !zone_.empty() && ZoneOf(model_, node) == zone_;
      targets.push_back({end.first, weight, end.second, same_zone ? kSameZone : kElsewhere});
    }
    return targets;
  }

  const Model& model_;
  const std::string zone_;
  std::vector<Way> ways_;  // The preferred first.
  Weights ready_;
  Weights draining_;
};

// The part of a function's calls, by weight, that goes to endpoints that are none.
class RefusedPart {
 public:
  void Add(const api::Endpoint& endpoint) {
    all_ += endpoint.weight();
    if (endpoint.refuse().empty()) return;
    refused_ += endpoint.weight();
    reasons_.push_back(endpoint.refuse());
  }
  void Tell(const std::string& function, FunctionPlan* plan) const {
    if (refused_ == 0) return;
    plan->refused_share = static_cast<uint32_t>(std::min<uint64_t>((refused_ << 32) / all_, UINT32_MAX));
    plan->refused = absl::StrCat("UNAVAILABLE: a part of the calls of ", function,
                                 " goes nowhere: ", Utf8Prefix(absl::StrJoin(reasons_, "; "), 1000));
    const uint64_t per_mille = (refused_ * 1000 + all_ / 2) / all_;
    plan->notes.push_back(absl::StrCat(per_mille / 10, ".", per_mille % 10, "% of the calls fail"));
  }

 private:
  uint64_t all_ = 0;
  uint64_t refused_ = 0;
  std::vector<std::string> reasons_;
};

std::string NoteOn(const EndpointKey& key, const api::Endpoint& endpoint, bool reached) {
  return absl::StrCat("node ", key.node, " host ", key.host,
                      !reached                                     ? ": node not reachable"
                      : endpoint.state() == api::ENDPOINT_DRAINING ? ": draining"
                                                                   : ": reachable");
}

void SayWhyNone(const Model& model, const std::string& function, const std::string& node, bool elsewhere,
                FunctionPlan* plan) {
  if (!plan->notes.empty()) {
    plan->code = static_cast<uint32_t>(absl::StatusCode::kUnavailable);
    plan->reason = absl::StrCat("UNAVAILABLE: no host of ", function,
                                " is ready: ", Utf8Prefix(absl::StrJoin(plan->notes, "; "), 1000));
  } else if (elsewhere) {
    plan->code = static_cast<uint32_t>(absl::StatusCode::kUnavailable);
    plan->reason =
        absl::StrCat("UNAVAILABLE: ", function, " has endpoints on other nodes only, and the agent of node ",
                     node, " has no `listen`");
  } else if (model.functions().contains(function)) {
    plan->code = static_cast<uint32_t>(absl::StatusCode::kUnavailable);
    plan->reason =
        absl::StrCat("UNAVAILABLE: ", function, " has no endpoint, and no host serves it of its own accord");
  } else {
    plan->code = static_cast<uint32_t>(absl::StatusCode::kNotFound);
    plan->reason = absl::StrCat("NOT_FOUND: no host serves ", function, " and no source places it");
  }
}

}  // namespace

FunctionPlan PlanFunction(const Model& model, const EngineState& state, const OpenPlacements& open,
                          const std::string& node, const std::string& function) {
  FunctionPlan plan;
  std::vector<PlanTarget> draining;
  std::set<SessionId> named;
  bool waiting = false;
  bool here = false;
  bool elsewhere = false;
  RemotePlan remote(model, state, node, nullptr);
  RefusedPart refused;
  for (auto it = model.endpoints().lower_bound({function, "", ""});
       it != model.endpoints().end() && it->first.function == function; ++it) {
    const auto& [key, endpoint] = *it;
    refused.Add(endpoint);
    if (!endpoint.http().empty() || !endpoint.refuse().empty()) {
      elsewhere = true;
      plan.notes.push_back(NoteOnUncallable(key, endpoint));
      continue;
    }
    if (key.node != node) {
      elsewhere = true;
      const bool reached = remote.Add(key, endpoint);
      if (state.engine != 0) plan.notes.push_back(NoteOn(key, endpoint, reached));
      continue;
    }
    here = true;
    const Candidate candidate = Judge(state, key, endpoint);
    plan.notes.push_back(candidate.note);
    if (candidate.session != 0) named.insert(candidate.session);
    if (candidate.kind == Candidate::Kind::kReady)
      plan.targets.push_back({candidate.session, candidate.weight});
    if (candidate.kind == Candidate::Kind::kDraining)
      draining.push_back({candidate.session, candidate.weight});
    if (candidate.kind == Candidate::Kind::kLoading) plan.prospects.push_back(candidate.session);
    if (candidate.kind == Candidate::Kind::kLoading || candidate.kind == Candidate::Kind::kAbsent) {
      waiting |= open.contains(key);
    }
  }
  if (!here && !elsewhere) {
    PlanByRegistration(state, function, &plan);
  } else if (here && (waiting || plan.targets.empty())) {
    KeepRetired(state, function, named, &plan);
  }
  plan.none_ready = plan.targets.empty();
  if (plan.none_ready) plan.targets = std::move(draining);
  remote.Choose(&plan);
  if (!plan.targets.empty() || !plan.remote.empty()) refused.Tell(function, &plan);
  if (plan.targets.empty()) SayWhyNone(model, function, node, elsewhere, &plan);
  return plan;
}

std::string NameAt(const PlanTarget& target, const std::string& caller) {
  return target.node.empty() ? caller : absl::StrCat(caller, "@", target.node);
}

std::string CallerOf(const std::string& name_at) { return name_at.substr(0, name_at.find('@')); }

std::string NotItsCaller(const Session& session, const std::string& caller) {
  return absl::StrCat("PERMISSION_DENIED: host ", session.host, " may not call as ", caller,
                      ": it does not serve that function",
                      session.call_as.empty() ? "" : absl::StrCat(" and calls as ", session.call_as));
}

std::string MissingRule(const Call& call) {
  const auto& [caller, callee] = call;
  const std::string from_all = absl::StrCat(NamespaceOf(caller), "/*");
  const std::string from =
      absl::StrContains(caller, '/') ? absl::StrCat(caller, " (or ", from_all, ")") : from_all;
  return absl::StrCat("PERMISSION_DENIED: ", caller, " may not call ", callee, ": no rule allows from ", from,
                      " to ", callee, " (or ", NamespaceOf(callee), "/*)");
}

bool MayCallAs(const Model& model, const std::string& node, const Session& session,
               const std::string& caller) {
  if (!session.is_engine) return session.MayCallAs(caller);
  for (auto it = model.endpoints().lower_bound({caller, "", ""});
       it != model.endpoints().end() && it->first.function == caller; ++it) {
    if (it->first.node != node) return true;
  }
  return std::any_of(model.nodes().begin(), model.nodes().end(), [&](const auto& entry) {
    const auto& call_as = entry.second.call_as();
    return entry.first != node && std::find(call_as.begin(), call_as.end(), caller) != call_as.end();
  });
}

PlanRoute PlanCall(const Model& model, const EngineState& state, const std::string& node,
                   const FunctionPlan& function, const Session& session, const Call& call) {
  if (!model.Allows(call.first, call.second)) {
    return {{}, {}, static_cast<uint32_t>(absl::StatusCode::kPermissionDenied), MissingRule(call)};
  }
  if (session.inside_of != 0) return OwnHostOnly(function, session, call);
  // What comes from another node stays on this one.
  if (session.is_engine) return {function.targets, function.prospects, function.code, function.reason};
  if (state.Find(session.inside) == nullptr)
    return WithRefusals(function, Dealt(state, session, ToAll(function)));
  // Its own engine may reach other ends than this node's.
  FunctionPlan own = function;
  RemotePlan remote(model, state, node, &session);
  for (auto it = model.endpoints().lower_bound({call.second, "", ""});
       it != model.endpoints().end() && it->first.function == call.second; ++it) {
    if (it->first.node != node) remote.Add(it->first, it->second);
  }
  remote.Choose(&own);
  return WithRefusals(own, Dealt(state, session, ToAll(own)));
}

namespace {

// Where one subscription's calls go. `function_plan(name)` returns the FunctionPlan of a callee.
template <typename FunctionPlans>
PlanRoute RouteOf(const Model& model, const EngineState& state, const std::string& node,
                  const Session& session, const Call& call, FunctionPlans&& function_plan) {
  if (MayCallAs(model, node, session, call.first))
    return PlanCall(model, state, node, function_plan(call.second), session, call);
  return {
      {}, {}, static_cast<uint32_t>(absl::StatusCode::kPermissionDenied), NotItsCaller(session, call.first)};
}

// Keeps what was planned of functions, and which sessions each is routed to.
class FunctionPlans {
 public:
  FunctionPlans(const Model& model, const EngineState& state, const OpenPlacements& open,
                const std::string& node, Plan* plan)
      : model_(model), state_(state), open_(open), node_(node), plan_(plan) {}

  const FunctionPlan& operator()(const std::string& function) {
    const auto found = made_.find(function);
    if (found != made_.end()) return found->second;
    FunctionPlan made = PlanFunction(model_, state_, open_, node_, function);
    std::set<SessionId>& routed = plan_->routed[function];
    routed.clear();
    for (const PlanTarget& target : made.targets) routed.insert(target.session);
    return made_.emplace(function, std::move(made)).first->second;
  }

 private:
  const Model& model_;
  const EngineState& state_;
  const OpenPlacements& open_;
  const std::string& node_;
  Plan* plan_;
  std::map<std::string, FunctionPlan> made_;
};

}  // namespace

Plan MakePlan(std::shared_ptr<const Model> model, const EngineState& state, const OpenPlacements& open,
              const std::string& node, const LocalEndpoints& local) {
  Plan plan;
  FunctionPlans function_plan(*model, state, open, node, &plan);
  for (const auto& [id, session] : state.sessions) {
    for (const auto& [call, subscription] : session.subscriptions) {
      const RouteKey key(id, call);
      plan.routes.emplace(key, RouteOf(*model, state, node, session, call, function_plan));
      plan.by_callee[call.second].push_back(key);
      if (session.is_engine) plan.by_engine_caller[call.first].push_back(key);
    }
  }
  // Functions without a subscriber are planned too: a host stays an endpoint's holder while its replacement
  // loads. Those of other nodes alone are routed to nobody here.
  for (const EndpointKey& key : local) function_plan(key.function);
  for (const auto& [function, routed] : state.routed) function_plan(function);
  plan.model = std::move(model);
  return plan;
}

void UpdatePlan(std::shared_ptr<const Model> model, const EngineState& state, const std::string& node,
                std::set<std::string> functions, Plan* plan) {
  const OpenPlacements none;
  FunctionPlans function_plan(*model, state, none, node, plan);
  plan->whole = false;
  plan->fresh_routes.clear();
  for (const std::string& function : functions) {
    function_plan(function);
    if (plan->routed[function].empty()) plan->routed.erase(function);
    for (const auto* routes : {&plan->by_callee, &plan->by_engine_caller}) {
      const auto found = routes->find(function);
      if (found != routes->end()) plan->fresh_routes.insert(found->second.begin(), found->second.end());
    }
  }
  for (const RouteKey& key : plan->fresh_routes) {
    const Session* const session = state.Find(key.first);
    if (session != nullptr)
      plan->routes[key] = RouteOf(*model, state, node, *session, key.second, function_plan);
  }
  plan->fresh_functions = std::move(functions);
  plan->model = std::move(model);
}

}  // namespace weft::agent
