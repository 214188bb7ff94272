// SPDX-License-Identifier: Apache-2.0
// Where the calls of one function go, whoever calls: PlanFunction() of plan.h.
#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dataplane/agent/plan.h"
#include "dataplane/agent/remote_plan.h"
#include "dataplane/base/text.h"

namespace weft::agent {
namespace {

// An endpoint of this node as its host stands to it.
struct Candidate {
  enum class Kind { kReady, kDraining, kLoading, kFailed, kAbsent };
  Kind kind = Kind::kAbsent;
  SessionId session = 0;
  uint32_t weight = 0;
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

// The part of a function's calls, by weight, that goes to endpoints that are none.
class RefusedPart {
 public:
  void Add(const api::Endpoint& endpoint) {
    all_ += endpoint.weight();
    if (endpoint.refuse().empty()) return;
    refused_ += endpoint.weight();
    reasons_.push_back(endpoint.refuse());
  }
  // `callable`: this node's hosts can call something of it. One with an engine inside may where they cannot.
  void Tell(const std::string& function, bool callable, FunctionPlan* plan) const {
    if (refused_ == 0) return;
    plan->refused_share = static_cast<uint32_t>(std::min<uint64_t>((refused_ << 32) / all_, UINT32_MAX));
    plan->refused = absl::StrCat("UNAVAILABLE: a part of the calls of ", function,
                                 " goes nowhere: ", Utf8Prefix(absl::StrJoin(reasons_, "; "), 1000));
    if (!callable) return;
    const uint64_t per_mille = (refused_ * 1000 + all_ / 2) / all_;
    plan->notes.push_back(absl::StrCat(per_mille / 10, ".", per_mille % 10, "% of the calls fail"));
  }

 private:
  uint64_t all_ = 0;
  uint64_t refused_ = 0;
  std::vector<std::string> reasons_;
};

std::string NoteOn(const RemotePlan& remote, const EndpointKey& key, const api::Endpoint& endpoint,
                   bool reached) {
  return absl::StrCat("node ", key.node, " host ", key.host,
                      remote.Gone(key)               ? ": drained, and has ended"
                      : !reached                     ? ": node not reachable"
                      : remote.Drains(key, endpoint) ? ": draining"
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
  RemotePlan remote(model, state, node, function, nullptr);
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
      if (state.engine != 0) plan.notes.push_back(NoteOn(remote, key, endpoint, reached));
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
  refused.Tell(function, !plan.targets.empty() || !plan.remote.empty(), &plan);
  if (plan.targets.empty()) SayWhyNone(model, function, node, elsewhere, &plan);
  std::string hints = plan.remote.empty() ? "" : remote.hints().Note();
  // First, since many notes are cut short.
  if (!hints.empty()) plan.notes.insert(plan.notes.begin(), std::move(hints));
  return plan;
}

}  // namespace weft::agent
