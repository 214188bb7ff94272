// SPDX-License-Identifier: Apache-2.0
// The phases of a round, and what happens to hosts that do not answer.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/engine.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/base/check.h"

namespace weft::agent {
namespace {

bool SameRoute(const api::Route& a, const api::Route& b) {
  return a.SerializeAsString() == b.SerializeAsString();
}

}  // namespace

void Engine::Advance(uint64_t now_ns) {
  now_ns_ = now_ns;
  if (!provisional_done_ && now_ns >= settle_until_ns_) EndSettling(now_ns);
  for (const Pending& pending : pending_) {
    if (now_ns >= pending.deadline_ns && !pending.settled) Touch();
  }
  if (now_ns >= retry_ns_) {
    retry_ns_ = UINT64_MAX;
    Touch();
  }
  for (const auto& [id, channel] : state_.channels) {
    if (channel.unused_since_ns != 0 && now_ns - channel.unused_since_ns >= kIdleChannelNs) Touch();
  }
  if (std::exchange(unplaced_, false)) Place();
  for (;;) {
    if (phase_ == Phase::kIdle) {
      if (!dirty_ || Holding(now_ns)) return;
      BeginRound(now_ns);
    } else if (PhaseDone()) {
      if (phase_ == Phase::kShrink) {
        EndRound(now_ns);
      } else {
        EnterPhase(static_cast<Phase>(static_cast<int>(phase_) + 1), now_ns);
      }
    } else {
      CutOffSilent(now_ns);
      if (!probed_ && now_ns - phase_began_ns_ >= kAnswerProbeNs) Probe();
      if (!PhaseDone()) return;
    }
  }
}

uint64_t Engine::NextDeadlineNs() const {
  uint64_t next = retry_ns_;
  if (!provisional_done_) next = std::min(next, settle_until_ns_);
  for (const Pending& pending : pending_) {
    if (!pending.settled) next = std::min(next, pending.deadline_ns);
  }
  for (const auto& [id, channel] : state_.channels) {
    if (channel.unused_since_ns != 0) next = std::min(next, channel.unused_since_ns + kIdleChannelNs);
  }
  if (phase_ == Phase::kIdle) return next;
  if (!probed_) next = std::min(next, phase_began_ns_ + kAnswerProbeNs);
  for (const auto& [id, waited] : waiting_) next = std::min(next, waited.due_ns());
  if (phase_ == Phase::kOpen) {
    for (const auto& [id, channel] : state_.channels) {
      if (!channel.memory_complete()) next = std::min(next, channel.asked_ns + kAnswerNs);
    }
  }
  return next;
}

void Engine::BeginRound(uint64_t now_ns) {
  dirty_ = false;
  SettlePending(now_ns);
  const OpenPlacements open = OpenNow();
  std::set<std::string> functions = std::exchange(changed_functions_, {});
  const bool whole = whole_ || starved_ || plan_.model == nullptr || !open.empty() || planned_openly_;
  whole_ = starved_ = false;
  planned_openly_ = !open.empty();
  if (whole) {
    plan_ = MakePlan(model_, state_, open, options_.node, local_);
    NoteDrains();
  } else {
    UpdatePlan(model_, state_, options_.node, std::move(functions), &plan_);
  }
  plan_members_ = members_;
  EnterPhase(Phase::kOpen, now_ns);
}

void Engine::EnterPhase(Phase phase, uint64_t now_ns) {
  phase_ = phase;
  phase_began_ns_ = now_ns;
  probed_ = false;
  WEFT_CHECK(waiting_.empty());
  switch (phase) {
    case Phase::kIdle:
      break;
    case Phase::kOpen:
      OpenForPlan(now_ns);
      break;
    case Phase::kGrow:
      SendPolicies();
      SendNodeTables(true);
      GrowAccess();
      break;
    case Phase::kRoute:
      SendRoutes();
      CommitRouted();
      break;
    case Phase::kShrink:
      // What is permitted can become too much only where a route was made anew.
      if (plan_.whole || !plan_.fresh_routes.empty()) ShrinkChannels(now_ns);
      SendNodeTables(false);
      Unplace();
      SendDrains();
      break;
  }
}

void Engine::WantChannel(Session& caller, SessionId target, uint64_t now_ns) {
  if (caller.id == target || caller.channels.contains(target)) return;
  Session* callee = state_.Find(target);
  if (callee == nullptr) return;
  const auto pair = PairOf(caller.id, target);
  std::string& why_not = unopened_[pair];
  const auto reopen = reopen_.find(pair);
  if (reopen != reopen_.end() && now_ns < reopen->second.closed_ns + reopen->second.wait_ns) {
    retry_ns_ = std::min(retry_ns_, reopen->second.closed_ns + reopen->second.wait_ns);
    why_not = absl::StrCat(reopen->second.reason, "; it is being made anew");
    return;
  }
  OpenChannel(caller, *callee, now_ns, &why_not);
}

void Engine::OpenForPlan(uint64_t now_ns) {
  if (plan_.whole) unopened_.clear();
  EachFreshRoute([&](const RouteKey& key, const PlanRoute& route) {
    Session& caller = *state_.Find(key.first);
    for (const PlanTarget& target : route.targets) WantChannel(caller, target.session, now_ns);
    for (const SessionId prospect : route.prospects) WantChannel(caller, prospect, now_ns);
  });
}

bool Engine::OpeningsPending() const {
  return std::any_of(state_.channels.begin(), state_.channels.end(),
                     [](const auto& entry) { return !entry.second.memory_complete(); });
}

bool Engine::PhaseDone() const {
  if (phase_ == Phase::kOpen && OpeningsPending()) return false;
  return waiting_.empty();
}

// Asks the hosts whose tables or routes will change whether they are there, while the phase waits for
// somebody else.
void Engine::Probe() {
  probed_ = true;
  if (phase_ != Phase::kOpen && phase_ != Phase::kGrow) return;
  std::set<SessionId> touched;
  EachFreshRoute([&](const RouteKey& key, const PlanRoute& route) {
    const Session* session = state_.Find(key.first);
    if (session == nullptr) return;
    const auto subscription = session->subscriptions.find(key.second);
    if (subscription == session->subscriptions.end()) return;
    if (!subscription->second.sent ||
        !SameRoute(BuildRoute(*session, key.second, route), subscription->second.route)) {
      touched.insert(session->id);
    }
    for (const PlanTarget& target : route.targets) {
      const Channel* channel = state_.Between(session->id, target.session);
      if (channel == nullptr || !channel->open) continue;  // It is asked for its memory.
      if (PermittedIndex(*channel, channel->EndOf(target.session), NameAt(target, key.second.first),
                         subscription->second.callee_id) == 0) {
        touched.insert(target.session);
      }
    }
  });
  for (const SessionId id : touched) {
    if (!waiting_.contains(id)) SendAndWait(*state_.Find(id)).mutable_barrier();
  }
}

void Engine::CutOff(SessionId id, const std::string& reason, uint64_t now_ns) {
  const Session* session = state_.Find(id);
  if (session == nullptr) return;
  for (Pending& pending : pending_) {
    if (pending.generation <= plan_.model->generation()) pending.cut_off.insert(session->host);
  }
  Output& output = outputs_.emplace_back();
  output.kind = Output::Kind::kCutOff;
  output.to = id;
  output.reason = reason;
  Detach(id, reason, now_ns);
}

void Engine::Excuse(uint64_t ns, uint64_t now_ns) {
  const auto later = [&](uint64_t then_ns) { return std::min(then_ns + ns, now_ns); };
  for (auto& [id, waited] : waiting_) waited.since_ns = later(waited.since_ns);
  for (auto& [id, channel] : state_.channels) channel.asked_ns = later(channel.asked_ns);
  phase_began_ns_ = later(phase_began_ns_);
  if (!provisional_done_) settle_until_ns_ += ns;
}

void Engine::CutOffSilent(uint64_t now_ns) {
  std::set<SessionId> silent;
  for (const auto& [id, waited] : waiting_) {
    if (now_ns >= waited.due_ns()) silent.insert(id);
  }
  if (phase_ == Phase::kOpen) {
    for (const auto& [id, channel] : state_.channels) {
      if (now_ns - channel.asked_ns < kAnswerNs) continue;
      for (const ChannelEnd& end : channel.ends) {
        if (!end.memory) silent.insert(end.session);
      }
    }
  }
  for (const SessionId id : silent) CutOff(id, "did not answer the agent in time", now_ns);
}

// What `session` is to be told of one call, without a generation.
api::Route Engine::BuildRoute(const Session& session, const Call& call, const PlanRoute& plan) {
  api::Route route;
  route.set_caller(call.first);
  route.set_callee(call.second);
  route.set_code(plan.code);
  route.set_reason(plan.reason);
  if (const auto function = plan_.model->functions().find(call.second);
      function != plan_.model->functions().end()) {
    *route.mutable_policy() = function->second.policy();
    // Whether a call runs twice is decided once, where it is made.
    if (session.is_engine) route.mutable_policy()->set_idempotent(false);
  }
  std::string why_not;
  std::size_t bytes = route.ByteSizeLong();
  for (const PlanTarget& planned : plan.targets) {
    if (route.targets_size() >= kTargetsMax || bytes > kRouteBytesMax) break;
    const Session* callee = state_.Find(planned.session);
    if (callee == nullptr) {
      why_not = "its host has just left";
      continue;
    }
    api::Target target;
    target.set_weight(planned.weight);
    target.set_host(callee->host);
    target.set_node(planned.node);
    target.set_distance(callee->id == session.id ? kSameProcess : planned.distance);
    if (callee->id != session.id) {
      Channel* channel = state_.Between(session.id, callee->id);
      const uint32_t index =
          channel != nullptr && channel->open
              ? PermittedIndex(*channel, channel->EndOf(callee->id), NameAt(planned, call.first),
                               session.subscriptions.at(call).callee_id)
              : 0;
      if (index == 0) {
        const auto unopened = unopened_.find(PairOf(session.id, callee->id));
        why_not = unopened != unopened_.end() && !unopened->second.empty()
                      ? unopened->second
                      : absl::StrCat("no channel to host ", callee->host);
        continue;
      }
      target.set_channel(channel->id);
      target.set_caller_index(index);
    }
    bytes += target.ByteSizeLong() + 4;  // With its tag and length.
    *route.add_targets() = std::move(target);
  }
  route.set_refused_share(route.targets().empty() ? 0 : plan.refused_share);
  if (route.targets().empty() && (route.code() == 0 || plan.refused_share != 0)) {
    route.set_code(static_cast<uint32_t>(absl::StatusCode::kUnavailable));
    route.set_reason(absl::StrCat("UNAVAILABLE: ", call.second, ": ", why_not));
  }
  return route;
}

void Engine::SendRoutes() {
  RouteBatch batch;
  EachFreshRoute([&](const RouteKey& key, const PlanRoute& planned) {
    Session* session = state_.Find(key.first);
    if (session == nullptr) return;
    const auto found = session->subscriptions.find(key.second);
    if (found == session->subscriptions.end()) return;
    Subscription& subscription = found->second;
    api::Route route = BuildRoute(*session, key.second, planned);
    if (subscription.sent && SameRoute(route, subscription.route)) return;
    subscription.route = std::move(route);
    subscription.sent = true;
    SendRoute(*session, subscription.route, plan_.model->generation(), true, &batch);
  });
}

void Engine::CommitRouted() {
  const auto commit = [this](const std::string& function, const std::set<SessionId>& routed) {
    for (const SessionId id : routed) {
      if (state_.sessions.contains(id)) state_.routed[function].insert(id);
    }
  };
  if (plan_.whole) {
    state_.routed.clear();
    for (const auto& [function, routed] : plan_.routed) commit(function, routed);
    return;
  }
  for (const std::string& function : plan_.fresh_functions) {
    state_.routed.erase(function);
    if (const auto found = plan_.routed.find(function); found != plan_.routed.end())
      commit(function, found->second);
  }
}

void Engine::EndRound(uint64_t now_ns) {
  phase_ = Phase::kIdle;
  ++rounds_;
  Acknowledge();
}

}  // namespace weft::agent
