// SPDX-License-Identifier: Apache-2.0
// Generations and what they place: taking them in, handing modules to hosts, acknowledging.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/admission.h"
#include "dataplane/agent/engine.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/base/text.h"

namespace weft::agent {
namespace {

// The policy that a serving host is to follow; empty fields where no source says anything.
api::Function PolicyOf(const Model& model, const std::string& function) {
  const auto found = model.functions().find(function);
  if (found != model.functions().end()) return found->second;
  api::Function none;
  none.set_name(function);
  return none;
}

}  // namespace

absl::Status Engine::Program(SessionId from, const api::Program& part, uint64_t now_ns) {
  if (part.generation() < model_->generation()) {
    staging_.erase(from);
    return Refuse(Refusal::kStaleGeneration, absl::StrCat("generation ", part.generation(), " is older than ",
                                                          model_->generation(), ", which this agent holds"));
  }
  auto staged = staging_.find(from);
  if (staged == staging_.end() || staged->second.generation != part.generation()) {
    staged =
        staging_.insert_or_assign(from, Staged{part.snapshot() ? Model() : *model_, {}, part.generation()})
            .first;
  }
  if (const absl::Status applied = staged->second.model.Apply(part); !applied.ok()) {
    staging_.erase(from);
    return Refuse(Refusal::kBadProgram, applied.message());
  }
  for (const api::Endpoint& endpoint : part.upsert().endpoints()) {
    if (endpoint.node() != options_.node || endpoint.module().empty()) continue;
    staged->second.pending.asks[{endpoint.function(), endpoint.node(), endpoint.host()}] = endpoint.sha256();
  }
  if (!part.last()) return absl::OkStatus();
  Staged done = std::move(staged->second);
  staging_.erase(from);
  done.model.set_generation(part.generation());
  done.pending.generation = part.generation();
  Commit(std::move(done.model), done.pending, now_ns);
  return absl::OkStatus();
}

void Engine::Commit(Model model, const Pending& pending, uint64_t now_ns) {
  TakeModel(std::make_shared<const Model>(std::move(model)));
  pending_.push_back(pending);
  pending_.back().deadline_ns = now_ns + kPlacementNs;
  // What failed before is tried again where this generation names it.
  for (const auto& [key, sha256] : pending.asks) {
    const auto host = state_.by_host.find(key.host);
    if (host == state_.by_host.end()) continue;
    Session& session = *state_.Find(host->second);
    const auto placed = session.placements.find(key.function);
    if (placed == session.placements.end() || placed->second.state != Placement::State::kFailed) continue;
    placed->second.sha256.clear();
    placed->second.path.clear();
  }
  dirty_ = true;
}

// Holds `model` from now on, and notes what a round has to look at.
void Engine::TakeModel(std::shared_ptr<const Model> model) {
  const std::shared_ptr<const Model> before = std::exchange(model_, std::move(model));
  const auto changed = [this](const std::string& function) {
    // More than a round of all would look at is no gain.
    if (!whole_) changed_functions_.insert(function);
    if (changed_functions_.size() > kChangedFunctionsMax) Touch();
  };
  const auto touch = [this](const auto&...) {
    ++members_;
    Touch();
  };
  // Rules and nodes bear on any route.
  Model::Rules::EachDifference(before->allow(), model_->allow(), touch);
  Model::Nodes::EachDifference(before->nodes(), model_->nodes(), touch);
  Model::Functions::EachDifference(before->functions(), model_->functions(),
                                   [&](const std::string& name, const auto*, const auto*) { changed(name); });
  Model::Endpoints::EachDifference(
      before->endpoints(), model_->endpoints(),
      [&](const EndpointKey& key, const api::Endpoint* old, const api::Endpoint* now) {
        if (old == nullptr || now == nullptr) ++members_;
        changed(key.function);
        if (key.node != options_.node) return;
        if (now != nullptr) {
          local_.insert(key);
          unplaced_ |= !now->module().empty();
        } else {
          local_.erase(key);
        }
      });
}

// Hands each module that an endpoint of this node names to its host, one at a time for each function there.
void Engine::Place() {
  for (const EndpointKey& key : local_) {
    const auto host = state_.by_host.find(key.host);
    if (host == state_.by_host.end()) continue;
    const api::Endpoint& endpoint = model_->endpoints().find(key)->second;
    if (!endpoint.module().empty()) PlaceOne(*state_.Find(host->second), endpoint);
  }
}

void Engine::PlaceOne(Session& session, const api::Endpoint& endpoint) {
  const auto [found, is_new] = session.placements.try_emplace(endpoint.function());
  Placement& placement = found->second;
  if (is_new && !session.registered.contains(endpoint.function())) ++state_.usage[session.tenant].functions;
  if (!is_new) {
    // A host that unloads or loads something is asked again when it has reported the end of that.
    if (placement.leaving || placement.state == Placement::State::kLoading) return;
    if (placement.sha256 == endpoint.sha256()) return;
  }
  placement.serves_old = placement.serves();
  placement.sha256 = endpoint.sha256();
  placement.path = endpoint.module();
  placement.error.clear();
  Touch();
  unplaced_ = false;
  absl::Status allowed = CheckMayServe(*session.tenant, session.is_client, endpoint.function());
  if (allowed.ok() && state_.usage[session.tenant].functions > session.tenant->limits.functions) {
    allowed =
        Refuse(Refusal::kFunctionLimit, absl::StrCat("tenant ", session.tenant->name, " may serve ",
                                                     session.tenant->limits.functions, " functions in all"));
  }
  if (!allowed.ok()) {
    placement.state = Placement::State::kFailed;
    placement.error = std::string(allowed.message());
    return;
  }
  placement.state = Placement::State::kLoading;
  api::Place& place = *Send(session).mutable_place();
  *place.mutable_function() = PolicyOf(*model_, endpoint.function());
  place.set_sha256(endpoint.sha256());
  session.policies[endpoint.function()] = place.function().SerializeAsString();
  Output& output = outputs_.back();
  output.attach = Output::Attach::kModule;
  output.module = endpoint.module();
}

// Takes back placements that no endpoint asks for and nothing is routed to. The host finishes its calls.
void Engine::Unplace() {
  for (auto& [id, session] : state_.sessions) {
    std::vector<std::string> functions;
    for (const auto& [function, placement] : session.placements) {
      if (plan_.whole || plan_.fresh_functions.contains(function)) functions.push_back(function);
    }
    UnplaceAt(session, functions);
  }
}

void Engine::UnplaceAt(Session& session, const std::vector<std::string>& functions) {
  for (const std::string& function : functions) {
    Placement& placement = session.placements.at(function);
    // One without a module asks for what the host has, wherever that came from.
    if (local_.contains({function, options_.node, session.host})) continue;
    const auto routed = state_.routed.find(function);
    const bool needed = routed != state_.routed.end() && routed->second.contains(session.id);
    if (placement.leaving || (needed && placement.serves())) continue;
    if (placement.state != Placement::State::kFailed || placement.serves_old) {
      placement.leaving = true;
      Send(session).mutable_unplace()->set_function(function);
    } else if (session.registered.contains(function)) {
      session.placements.erase(function);
    } else {
      Release(session, function);
    }
  }
}

// Tells hosts the limits of what they serve, where those have changed.
void Engine::SendPolicies() {
  for (auto& [id, session] : state_.sessions) {
    if (!plan_.whole) {
      for (const std::string& function : plan_.fresh_functions) {
        if (session.Holds(function)) SendPolicy(session, function);
      }
      continue;
    }
    std::set<std::string> functions = session.registered;
    for (const auto& [function, placement] : session.placements) functions.insert(function);
    for (const std::string& function : functions) SendPolicy(session, function);
  }
}

void Engine::SendPolicy(Session& session, const std::string& function) {
  const api::Function policy = PolicyOf(*plan_.model, function);
  std::string bytes = policy.SerializeAsString();
  const auto told = session.policies.find(function);
  // A host begins with the defaults, which is what a function that no source names has.
  if (told == session.policies.end() ? !plan_.model->functions().contains(function) : told->second == bytes)
    return;
  session.policies[function] = std::move(bytes);
  *SendAndWait(session).mutable_serve_policy()->mutable_function() = policy;
}

// What became of the placements that a generation asked for. Returns whether some host still loads; `absent`
// is set where a host has not attached. Placements that a later generation has overtaken do not count.
bool Engine::JudgePending(Pending& pending, bool* absent) const {
  bool loading = false;
  pending.failed.clear();
  for (const auto& [key, sha256] : pending.asks) {
    const auto endpoint = model_->endpoints().find(key);
    if (endpoint == model_->endpoints().end() || endpoint->second.sha256() != sha256) continue;
    const std::string what = absl::StrCat(key.function, " on host ", key.host, ": ");
    const Session* session = state_.FindHost(key.host);
    if (session == nullptr) {
      *absent = true;
      pending.failed.push_back(absl::StrCat(what, "not attached"));
      continue;
    }
    const auto placed = session->placements.find(key.function);
    const bool current =
        placed != session->placements.end() && placed->second.sha256 == sha256 && !placed->second.leaving;
    if (current && placed->second.state == Placement::State::kReady) continue;
    const bool failed = current && placed->second.state == Placement::State::kFailed;
    loading |= !failed;
    pending.failed.push_back(absl::StrCat(what, failed ? placed->second.error : "still loading"));
  }
  return loading;
}

// Finds out which generations wait for no placement any more, as of the plan that is about to be made. They
// settle in order; a host that is not there is waited for by the newest one only, so that it does not hold up
// what comes after.
void Engine::SettlePending(uint64_t now_ns) {
  bool earlier_waits = false;
  for (Pending& pending : pending_) {
    bool absent = false;
    const bool loading = JudgePending(pending, &absent);
    const bool waits = loading || (absent && &pending == &pending_.back());
    pending.settled = !earlier_waits && (!waits || now_ns >= pending.deadline_ns);
    earlier_waits = !pending.settled;
  }
}

// The round that ends has brought about every generation that its plan knew and that waits for nothing.
void Engine::Acknowledge() {
  std::vector<Pending> left;
  for (Pending& pending : pending_) {
    if (!pending.settled || pending.generation > plan_.model->generation()) {
      left.push_back(std::move(pending));
      continue;
    }
    Output& output = outputs_.emplace_back();
    output.kind = Output::Kind::kAcknowledged;
    output.programmed.set_generation(pending.generation);
    for (const std::string& host : pending.cut_off) {
      if (output.programmed.cut_off_size() == kFailuresMax) break;
      output.programmed.add_cut_off(host);
    }
    for (const std::string& failed : pending.failed) {
      if (output.programmed.failed_size() == kFailuresMax) break;
      output.programmed.add_failed(std::string(Utf8Prefix(failed, 500)));
    }
    if (pending.failed.size() > kFailuresMax) {
      output.programmed.add_failed(absl::StrCat("and ", pending.failed.size() - kFailuresMax, " more"));
    }
    output.model = plan_.model;
    acknowledged_ = std::max(acknowledged_, pending.generation);
  }
  pending_ = std::move(left);
}

}  // namespace weft::agent
