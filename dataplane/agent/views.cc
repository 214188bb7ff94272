// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/views.h"

#include <set>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dataplane/api/function_stats.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/text.h"

namespace weft::agent {
namespace {

// Of what stands in each row of an explanation.
constexpr std::size_t kNotesBytesMax = 1000;

void AddFlag(api::Item* item, const char* name, bool flag) {
  api::Item::Field* field = item->add_fields();
  field->set_name(name);
  field->set_flag(flag);
}

void AddCounters(api::Item* item, const google::protobuf::RepeatedPtrField<api::Counter>& counters) {
  for (const api::Counter& counter : counters) AddNumber(item, counter.name(), counter.value());
}

// Sums of what the hosts of `function` told; those who did not tell in time are missing from them.
void SumFunctionStats(const Engine& engine, const std::string& function, const FunctionStatsByHost& stats,
                      api::FunctionStats* sum, std::string* counters) {
  for (const auto& [id, session] : engine.state().sessions) {
    if (!session.Holds(function)) continue;
    const auto host = stats.find(id);
    if (host == stats.end()) {
      *counters = "not answered";
      continue;
    }
    if (counters->empty()) *counters = "current";
    const auto found = host->second.find(function);
    if (found != host->second.end()) api::AddFunctionStats(found->second, sum);
  }
}

std::set<std::string> KnownFunctions(const Engine& engine) {
  std::set<std::string> names;
  for (const auto& [name, function] : engine.model().functions()) names.insert(name);
  for (const auto& [key, endpoint] : engine.model().endpoints()) names.insert(key.function);
  for (const auto& [id, session] : engine.state().sessions) {
    names.insert(session.registered.begin(), session.registered.end());
    for (const auto& [name, placement] : session.placements) names.insert(name);
  }
  return names;
}

std::string HostState(const Session& session) {
  if (session.drained) return "drained";
  return session.draining ? "draining" : "attached";
}

// The rule or default by which a call is allowed.
std::string WhyAllowed(const Model& model, const std::string& caller, const std::string& callee) {
  if (NamespaceOf(caller) == NamespaceOf(callee)) return "same namespace";
  const std::string from_all = absl::StrCat(NamespaceOf(caller), "/*");
  const std::string to_all = absl::StrCat(NamespaceOf(callee), "/*");
  for (const std::string& from : {caller, from_all}) {
    for (const std::string& to : {callee, to_all}) {
      if (model.allow().contains({from, to})) return absl::StrCat("rule allows from ", from, " to ", to);
    }
  }
  return "";
}

// Hosts that may call as `caller`.
std::vector<const Session*> CallersOf(const Engine& engine, const std::string& caller) {
  std::vector<const Session*> hosts;
  for (const auto& [id, session] : engine.state().sessions) {
    if (session.MayCallAs(caller)) hosts.push_back(&session);
  }
  return hosts;
}

std::string PathBetween(const Engine& engine, const std::string& caller_name,
                        const std::vector<const Session*>& callers, const Session& callee) {
  std::vector<std::string> paths;
  // Clients call as a namespace, and come and go with their calls.
  if (!absl::StrContains(caller_name, '/')) {
    paths.push_back(absl::StrCat("shared memory between a client and host ", callee.host));
  } else if (callers.empty()) {
    return absl::StrCat("shared memory to host ", callee.host, ", once a host of the caller is attached");
  }
  for (const Session* caller : callers) {
    if (caller->id == callee.id) {
      paths.push_back(absl::StrCat("inside host ", callee.host));
      continue;
    }
    const auto channel = caller->channels.find(callee.id);
    const bool open = channel != caller->channels.end() && engine.state().channels.at(channel->second).open;
    paths.push_back(absl::StrCat("shared memory between hosts ", caller->host, " and ", callee.host,
                                 open ? "" : " (channel not open yet)"));
  }
  return absl::StrJoin(paths, "; ");
}

// How near another node's end is.
const char* NearnessOf(const PlanTarget& target) {
  if (target.distance == kSameNode) return ", hinted for this node";
  if (target.distance != kSameZone) return "";
  return target.hinted ? ", hinted for this zone" : ", in this zone";
}

// The nodes that calls of a route go to because they are hinted for this one.
std::string HintedOf(const Engine& engine, const RouteKey& key) {
  const auto route = engine.plan().routes.find(key);
  if (route == engine.plan().routes.end()) return "";
  std::vector<std::string> nodes;
  for (const PlanTarget& target : route->second.targets) {
    if (target.hinted && target.distance < kElsewhere) nodes.push_back(absl::StrCat("node ", target.node));
  }
  return absl::StrJoin(nodes, ",");
}

api::Item ExplainRow(const std::string& caller, const std::string& callee, const char* verdict,
                     const std::string& host, const std::string& path, const std::string& why) {
  api::Item item;
  AddText(&item, "caller", caller);
  AddText(&item, "callee", callee);
  AddText(&item, "verdict", verdict);
  AddText(&item, "host", host);
  AddText(&item, "path", path);
  AddText(&item, "why", why);
  return item;
}

}  // namespace

void AddText(api::Item* item, const std::string& name, const std::string& text) {
  api::Item::Field* field = item->add_fields();
  field->set_name(name);
  field->set_text(text);
}

void AddNumber(api::Item* item, const std::string& name, uint64_t number) {
  api::Item::Field* field = item->add_fields();
  field->set_name(name);
  field->set_number(static_cast<int64_t>(number));
}

std::vector<api::Item> NodeItems(const Engine& engine) {
  std::vector<api::Item> items;
  std::map<std::string, api::Node> nodes(engine.model().nodes().begin(), engine.model().nodes().end());
  nodes[engine.node()].set_name(engine.node());
  for (const auto& [name, node] : nodes) {
    api::Item& item = items.emplace_back();
    AddText(&item, "node", name);
    AddText(&item, "address", node.address());
    AddText(&item, "zone", node.zone());
    AddFlag(&item, "self", name == engine.node());
    AddText(&item, "state",
            name == engine.node()                    ? "here"
            : engine.state().engine == 0             ? "no node engine"
            : engine.state().nodes_up.contains(name) ? "reachable"
                                                     : "not reachable");
  }
  return items;
}

std::vector<api::Item> FunctionItems(const Engine& engine, const std::set<std::string>& only,
                                     const FunctionStatsByHost& stats) {
  std::vector<api::Item> items;
  for (const std::string& name : only.empty() ? KnownFunctions(engine) : only) {
    const FunctionPlan plan =
        PlanFunction(engine.model(), engine.state(), engine.OpenNow(), engine.node(), name);
    std::vector<std::string> hosts;
    for (const PlanTarget& target : plan.targets) hosts.push_back(engine.state().Find(target.session)->host);
    api::Item& item = items.emplace_back();
    AddText(&item, "function", name);
    AddNumber(&item, "ready", plan.targets.size());
    AddText(&item, "hosts", absl::StrJoin(hosts, ","));
    AddText(&item, "state",
            !plan.targets.empty()  ? "ready"
            : !plan.remote.empty() ? "on other nodes"
                                   : plan.reason);
    api::FunctionStats sum;
    std::string counters;
    SumFunctionStats(engine, name, stats, &sum, &counters);
    AddNumber(&item, "calls", sum.calls());
    AddNumber(&item, "failures", sum.failures());
    AddText(&item, "endpoints", absl::StrJoin(plan.notes, "; "));
    AddText(&item, "counters", counters);
    AddNumber(&item, "bytes_in", sum.bytes_in());
    AddNumber(&item, "bytes_out", sum.bytes_out());
    AddNumber(&item, "handler_ns", sum.handler_ns());
    AddNumber(&item, "memory_bytes", sum.memory_bytes());
    AddNumber(&item, "instances", sum.instances());
  }
  return items;
}

std::vector<api::Item> HostItems(const Engine& engine, const StatsByHost& stats) {
  std::vector<api::Item> items;
  for (const auto& [id, session] : engine.state().sessions) {
    std::set<std::string> functions = session.registered;
    for (const auto& [name, placement] : session.placements) functions.insert(name);
    api::Item& item = items.emplace_back();
    AddText(&item, "host", session.host);
    AddText(&item, "tenant", session.tenant->name);
    AddNumber(&item, "uid", session.tenant->uid);
    AddText(&item, "state", HostState(session));
    AddText(&item, "engine", session.is_engine ? "itself" : session.inside != 0 ? "inside" : "shared");
    AddText(&item, "functions", absl::StrJoin(functions, ","));
    AddNumber(&item, "channels", session.channels.size());
    const auto counters = stats.find(id);
    AddText(&item, "counters", counters == stats.end() ? "not answered" : "current");
    if (counters != stats.end()) AddCounters(&item, counters->second.host());
  }
  return items;
}

std::vector<api::Item> RouteItems(const Engine& engine) {
  std::vector<api::Item> items;
  for (const auto& [id, session] : engine.state().sessions) {
    for (const auto& [call, subscription] : session.subscriptions) {
      std::vector<std::string> targets;
      for (const api::Target& target : subscription.route.targets()) {
        targets.push_back(
            absl::StrCat(target.node().empty() ? target.host() : absl::StrCat("node ", target.node()), "*",
                         target.weight()));
      }
      api::Item& item = items.emplace_back();
      AddText(&item, "caller", call.first);
      AddText(&item, "callee", call.second);
      AddText(&item, "from", session.host);
      AddText(&item, "to", absl::StrJoin(targets, ","));
      const std::string hinted = HintedOf(engine, {id, call});
      if (!hinted.empty()) AddText(&item, "hinted", hinted);
      AddText(&item, "state",
              !subscription.sent                                           ? "being made"
              : targets.empty() || subscription.route.refused_share() != 0 ? subscription.route.reason()
                                                                           : "ready");
    }
  }
  return items;
}

std::vector<api::Item> ChannelItems(const Engine& engine, const StatsByHost& stats) {
  std::vector<api::Item> items;
  for (const auto& [id, channel] : engine.state().channels) {
    for (const ChannelEnd& end : channel.ends) {
      const Session& session = *engine.state().Find(end.session);
      std::size_t permitted = 0;
      for (const auto& [index, entry] : end.access) permitted += entry.callee_ids.size();
      api::Item& item = items.emplace_back();
      AddText(&item, "channel", absl::BytesToHexString(id));
      AddText(&item, "host", session.host);
      AddText(&item, "peer", engine.state().Find(channel.PeerOf(end.session))->host);
      AddText(&item, "state", channel.open ? "open" : "opening");
      AddNumber(&item, "arena_bytes", channel.arena_bytes);
      AddNumber(&item, "peer_may_call", permitted);
      const auto found = stats.find(end.session);
      if (found == stats.end()) {
        AddText(&item, "counters", "not answered");
        continue;
      }
      AddText(&item, "counters", "current");
      for (const api::ChannelStats& counters : found->second.channels()) {
        if (counters.id() == id) AddCounters(&item, counters.counters());
      }
    }
  }
  return items;
}

namespace {

// Why other nodes refuse calls from this one by `caller`, or "": they take those of functions that are placed
// here, and of clients in the namespaces that this node's `call_as` names. By what this node knows of the
// mesh.
std::string WhyRefusedElsewhere(const Engine& engine, const std::string& caller) {
  const Model& model = engine.model();
  const std::string& node = engine.node();
  if (absl::StrContains(caller, '/')) {
    for (auto it = model.endpoints().lower_bound({caller, "", ""});
         it != model.endpoints().end() && it->first.function == caller; ++it) {
      if (it->first.node == node) return "";
    }
    return absl::StrCat("no source places ", caller, " on node ", node);
  }
  const auto known = model.nodes().find(node);
  if (known != model.nodes().end()) {
    const auto& call_as = known->second.call_as();
    if (std::find(call_as.begin(), call_as.end(), caller) != call_as.end()) return "";
  }
  return absl::StrCat("`call_as` of node ", node, " does not name ", caller);
}

}  // namespace

std::vector<api::Item> ExplainItems(const Engine& engine, const std::string& caller,
                                    const std::string& callee) {
  if (!engine.model().Allows(caller, callee)) {
    return {ExplainRow(caller, callee, "denied", "", "", MissingRule({caller, callee}))};
  }
  const std::string allowed = WhyAllowed(engine.model(), caller, callee);
  const FunctionPlan plan =
      PlanFunction(engine.model(), engine.state(), engine.OpenNow(), engine.node(), callee);
  const std::string notes(Utf8Prefix(absl::StrJoin(plan.notes, "; "), kNotesBytesMax));
  if (plan.targets.empty() && plan.remote.empty()) {
    return {
        ExplainRow(caller, callee, "unreachable", "", "", absl::StrCat(plan.reason, "; allowed: ", allowed))};
  }
  const std::vector<const Session*> callers = CallersOf(engine, caller);
  std::vector<api::Item> items;
  for (const PlanTarget& target : plan.leaves ? std::vector<PlanTarget>{} : plan.targets) {
    const Session& host = *engine.state().Find(target.session);
    items.push_back(ExplainRow(caller, callee, "reachable", host.host,
                               PathBetween(engine, caller, callers, host),
                               absl::StrCat("allowed: ", allowed, "; ", notes)));
  }
  std::string refused = plan.remote.empty() ? "" : WhyRefusedElsewhere(engine, caller);
  if (!refused.empty()) refused = absl::StrCat("PERMISSION_DENIED: other nodes refuse it: ", refused, "; ");
  for (const PlanTarget& target : plan.remote) {
    items.push_back(
        ExplainRow(caller, callee, refused.empty() ? "reachable" : "denied", "",
                   absl::StrCat("encrypted messages to ",
                                absl::StrContains(target.node, '/') ? "the engine inside host " : "node ",
                                target.node, NearnessOf(target)),
                   absl::StrCat(refused, "allowed: ", allowed, "; ", notes)));
  }
  return items;
}

}  // namespace weft::agent
