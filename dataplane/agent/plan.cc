// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/plan.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/agent/remote_plan.h"
#include "dataplane/base/function_id.h"

namespace weft::agent {
namespace {

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

// Why there is nobody to call, to a caller on another node, which has hosts of these names itself.
std::string SaidBy(const std::string& node, const std::string& reason) {
  const std::size_t code = reason.find(": ");
  if (code == std::string::npos) return reason;
  return absl::StrCat(reason.substr(0, code + 2), "node ", node, ": ", reason.substr(code + 2));
}

// An engine inside a host may hand calls of other nodes to that host and to nobody else.
PlanRoute OwnHostOnly(const EngineState& state, const std::string& node, const FunctionPlan& function,
                      const Session& engine, const Call& call) {
  PlanRoute route{{}, {}, function.code, SaidBy(node, function.reason)};
  for (const PlanTarget& target : function.targets) {
    if (target.session == engine.inside_of) route.targets.push_back(target);
  }
  // One that is drained serves those that call it directly until they have heard of it.
  const Session* const host = state.Find(engine.inside_of);
  if (route.targets.empty() && host != nullptr && host->draining && host->Serves(call.second))
    route.targets.push_back({host->id, kWeightDefault});
  for (const SessionId prospect : function.prospects) {
    if (prospect == engine.inside_of) route.prospects.push_back(prospect);
  }
  if (route.targets.empty() && route.prospects.empty() && !function.targets.empty()) {
    route.code = static_cast<uint32_t>(absl::StatusCode::kUnavailable);
    route.reason = absl::StrCat("UNAVAILABLE: ", call.second, " is not at the host of ", engine.host);
  }
  return route;
}

}  // namespace

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
  if (session.inside_of != 0) return OwnHostOnly(state, node, function, session, call);
  // What comes from another node stays on this one.
  if (session.is_engine)
    return {function.targets, function.prospects, function.code, SaidBy(node, function.reason)};
  if (state.Find(session.inside) == nullptr)
    return WithRefusals(function, Dealt(state, session, ToAll(function)));
  // Its own engine may reach other ends than this node's.
  FunctionPlan own = function;
  RemotePlan remote(model, state, node, call.second, &session);
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
    if (made.leaves) {
      plan_->leaving.insert(function);
    } else {
      plan_->leaving.erase(function);
    }
    if (made.leaned_on.empty()) {
      plan_->leaned_on.erase(function);
    } else {
      plan_->leaned_on[function] = made.leaned_on;
    }
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

// What nobody here has asked for leans on nobody, wherever its endpoints are.
void ForgetUncalled(Plan* plan) {
  std::erase_if(plan->leaned_on,
                [plan](const auto& entry) { return !plan->by_callee.contains(entry.first); });
}

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
  ForgetUncalled(&plan);
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
  ForgetUncalled(plan);
  plan->fresh_functions = std::move(functions);
  plan->model = std::move(model);
}

}  // namespace weft::agent
