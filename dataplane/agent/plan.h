// SPDX-License-Identifier: Apache-2.0
// What one round of the engine brings about: for each subscription the hosts that its calls go to, or why
// they go nowhere. A pure function of the programmed mesh and the sessions, so that weftctl explain tells
// what routing does.
#ifndef WEFT_DATAPLANE_AGENT_PLAN_H_
#define WEFT_DATAPLANE_AGENT_PLAN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/agent/engine_state.h"
#include "dataplane/agent/model.h"
#include "dataplane/route/target_set.h"

namespace weft::agent {

struct PlanTarget {
  SessionId session = 0;
  uint32_t weight = 0;
  // Where the session is a node engine's: whom it is to hand calls to, a node's engine ("n2") or the one
  // inside a host there ("n2/a").
  std::string node{};
  Distance distance = kSameNode;
  bool hinted = false;  // Which is by hints of its endpoints
};

// How a caller is called in the table of the target's end: its name, and before the node engine the node too.
std::string NameAt(const PlanTarget& target, const std::string& caller);
// The caller's part of it.
std::string CallerOf(const std::string& name_at);

// Where the calls of one function go, whoever calls.
struct FunctionPlan {
  std::vector<PlanTarget> targets;  // On this node
  // Hosts that will serve it once they have loaded it: their channels and permissions are made ready
  // meanwhile.
  std::vector<SessionId> prospects;
  bool none_ready = false;  // All of them are draining.
  // Engines of other nodes that can be called now by this node's, each with the weight of the nearest of the
  // endpoints that are reached through it.
  std::vector<PlanTarget> remote;
  // None of `targets` is ready, and `remote` is: calls of this node leave it.
  bool leaves = false;
  // Hosts of other nodes, by node and name, that are drained there and needed here, where no other is left.
  std::set<std::pair<std::string, std::string>> leaned_on;
  uint32_t code = 0;  // Why there is no target on this node: NOT_FOUND or UNAVAILABLE.
  std::string reason;
  // Of 2^32 calls so many fail for `refused`, though there are targets: the part of endpoints that are none.
  uint32_t refused_share = 0;
  std::string refused;
  // Each endpoint and what became of it, for explain: "host b: loading".
  std::vector<std::string> notes;
};

struct PlanRoute {
  std::vector<PlanTarget> targets;
  std::vector<SessionId> prospects;
  uint32_t code = 0;
  std::string reason;
  uint32_t refused_share = 0;  // As FunctionPlan has it; then code and reason are of that.
};

using RouteKey = std::pair<SessionId, Call>;

struct Plan {
  std::shared_ptr<const Model> model;
  std::map<RouteKey, PlanRoute> routes;
  std::map<std::string, std::set<SessionId>>
      routed;  // By function; those that go nowhere on this node may be absent.
  // Functions of which FunctionPlan says `leaves`, and what it leans on where there is something.
  std::set<std::string> leaving;
  std::map<std::string, std::set<std::pair<std::string, std::string>>> leaned_on;
  // Keys of `routes` by callee, and of those of node engines by caller.
  std::map<std::string, std::vector<RouteKey>> by_callee;
  std::map<std::string, std::vector<RouteKey>> by_engine_caller;
  // False: the plan before with the functions and routes named here made anew, which is all that a round has
  // to look at.
  bool whole = true;
  std::set<std::string> fresh_functions;
  std::set<RouteKey> fresh_routes;
};

// Placements whose outcome a generation still waits for: while one is open, hosts that are no endpoint any
// more keep the function.
using OpenPlacements = std::set<EndpointKey>;

// Where calls of `function` go now. `node` is this node's name.
FunctionPlan PlanFunction(const Model& model, const EngineState& state, const OpenPlacements& open,
                          const std::string& node, const std::string& function);

// The route of one subscription: PlanFunction's result where the policy allows the call, else
// PERMISSION_DENIED with a reason that names caller, callee and the rule that is missing.
// `session` is the caller's: the node engine's calls come from another node and stay on this one.
// Those of a host with an engine inside leave by that where it reaches the other end.
PlanRoute PlanCall(const Model& model, const EngineState& state, const std::string& node,
                   const FunctionPlan& function, const Session& session, const Call& call);

// Whether `session` may call as `caller`: the node engine as whatever is placed on another node.
bool MayCallAs(const Model& model, const std::string& node, const Session& session,
               const std::string& caller);

// Endpoints of one node.
using LocalEndpoints = std::set<EndpointKey>;

// The plan for every subscription. `local`: the endpoints of `node` in the model.
Plan MakePlan(std::shared_ptr<const Model> model, const EngineState& state, const OpenPlacements& open,
              const std::string& node, const LocalEndpoints& local);

// Makes of the plan of an earlier model that of `model`, which differs from it in endpoints and policy of
// `functions` alone. Sessions, what they asked for and what they hold are as they were.
void UpdatePlan(std::shared_ptr<const Model> model, const EngineState& state, const std::string& node,
                std::set<std::string> functions, Plan* plan);

// "PERMISSION_DENIED: web/front may not call vision/scale: no rule allows from web/front (or web/*) to …"
std::string MissingRule(const Call& call);

// Why `session` may not call as `caller`.
std::string NotItsCaller(const Session& session, const std::string& caller);

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_PLAN_H_
