// SPDX-License-Identifier: Apache-2.0
// Hosts that are drained, here and on other nodes: what agents tell each other of them, and when one is asked
// to finish.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/engine.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/base/check.h"

namespace weft::agent {
namespace {

// Of callees that are told of in one message, of kControlMessageBytesMax.
constexpr int kCalleesPerPart = 4096;

// What a node engine is asked; `more` in all parts but the last.
std::vector<api::LeaveEnds> PartsOf(uint64_t number, const std::map<std::string, std::set<uint64_t>>& ends) {
  std::vector<api::LeaveEnds> parts;
  int room = 0;
  for (const auto& [name, callees] : ends) {
    api::LeaveEnds::End* end = nullptr;
    for (const uint64_t callee : callees) {
      if (room == 0) {
        if (!parts.empty()) parts.back().set_more(true);
        parts.emplace_back().set_number(number);
        room = kCalleesPerPart;
        end = nullptr;
      }
      if (end == nullptr) {
        end = parts.back().add_ends();
        end->set_end(name);
      }
      end->add_callee_ids(callee);
      --room;
    }
  }
  if (parts.empty()) parts.emplace_back().set_number(number);
  return parts;
}

// Whether a call to one of these ends can be under way in `engine`: in that of a host the calls which it
// asked for and may make, in weftd's own those of whoever else is here.
bool MayHold(const EngineState& state, const Model& model, const Session& engine,
             const std::map<std::string, std::set<uint64_t>>& ends) {
  if (engine.inside_of == 0) return true;
  const Session* const host = state.Find(engine.inside_of);
  if (host == nullptr) return false;
  return std::any_of(host->subscriptions.begin(), host->subscriptions.end(), [&](const auto& entry) {
    const auto& [call, subscription] = entry;
    const bool asked = std::any_of(ends.begin(), ends.end(), [&subscription](const auto& end) {
      return end.second.contains(subscription.callee_id);
    });
    return asked && host->MayCallAs(call.first) && model.Allows(call.first, call.second);
  });
}

}  // namespace

std::map<std::string, std::string> Engine::WhatHolds(const Session& session) const {
  std::map<std::string, std::string> holds;
  for (const auto& [function, routed] : state_.routed) {
    const bool here = routed.contains(session.id);
    if (!here && (session.inside == 0 || !session.Serves(function))) continue;
    if (here && !plan_.leaving.contains(function)) {
      holds[function] = "no other host is ready; calls still go here until one is";
      continue;
    }
    for (const auto& [peer, says] : state_.peers) {
      if (says.deaf)
        holds[function] = absl::StrCat("the agent of node ", peer, " is of a version that knows no drains");
      if (says.needed.contains(session.host))
        holds[function] = absl::StrCat("callers on node ", peer, " reach no other host");
    }
  }
  return holds;
}

void Engine::PeerSays(const std::string& peer, PeerDrains says) {
  const auto [found, is_new] = state_.peers.try_emplace(peer);
  if (!is_new && found->second == says) return;
  found->second = std::move(says);
  Touch();
}

void Engine::PeerGone(const std::string& peer) {
  if (state_.peers.erase(peer) != 0) Touch();
}

// A plan has been made of what is known now. Others are told as much once its routes are in force, and no
// more: a host that has just attached anew would otherwise be called before it is routed to.
void Engine::NoteDrains() {
  std::erase_if(state_.drained, [this](const std::string& host) {
    const bool named = std::any_of(local_.begin(), local_.end(),
                                   [&host](const EndpointKey& key) { return key.host == host; });
    return !named && !state_.by_host.contains(host);
  });
  planned_own_ = {};
  for (const std::string& host : state_.drained) {
    const auto held = state_.by_host.find(host);
    if (held == state_.by_host.end()) {
      planned_own_.gone.insert(host);
    } else {
      planned_own_.draining[host] = held->second;
    }
  }
  planned_drains_.clear();
  for (const auto& [peer, says] : state_.peers) planned_drains_[peer] = says.draining;
}

// There may be many of these hosts, and many more endpoints: all are looked at once a round, and in one that
// looks at some functions only theirs.
void Engine::FindDrainedFunctions() {
  const auto look = [this](const EndpointKey& key) {
    ++endpoints_looked_at_;
    const auto peer = planned_drains_.find(key.node);
    if (peer != planned_drains_.end() && peer->second.contains(key.host))
      drained_functions_[{key.node, key.host}].insert(key.function);
  };
  const bool any = std::any_of(planned_drains_.begin(), planned_drains_.end(),
                               [](const auto& peer) { return !peer.second.empty(); });
  if (plan_.whole || !any) drained_functions_.clear();
  if (!any) return;
  const Model::Endpoints& endpoints = plan_.model->endpoints();
  if (plan_.whole) {
    for (const auto& [key, endpoint] : endpoints) look(key);
    return;
  }
  for (const std::string& function : plan_.fresh_functions) {
    for (auto& [host, functions] : drained_functions_) functions.erase(function);
    for (auto it = endpoints.lower_bound({function, "", ""});
         it != endpoints.end() && it->first.function == function; ++it) {
      look(it->first);
    }
  }
}

// What routes lead to of nodes that drain some host.
Engine::Ends Engine::RoutedToDrainers() {
  Ends routed;
  if (drained_functions_.empty()) return routed;
  for (const auto& [key, route] : plan_.routes) {
    for (const PlanTarget& target : route.targets) {
      const auto peer = planned_drains_.find(target.node.substr(0, target.node.find('/')));
      if (peer != planned_drains_.end() && !peer->second.empty())
        routed[target.node].insert(IdOf(key.second.second));
    }
  }
  return routed;
}

// The routes of the plan are in force.
void Engine::UpdateDrains() {
  drains_to_tell_.clear();
  FindDrainedFunctions();
  const Ends routed_there = RoutedToDrainers();
  for (const auto& [peer, says] : state_.peers) {
    PeerDrains& tell = drains_to_tell_[peer] = planned_own_;
    for (const auto& [host, drain] : planned_drains_[peer]) {
      const bool leaned_on =
          std::any_of(plan_.leaned_on.begin(), plan_.leaned_on.end(),
                      [&](const auto& entry) { return entry.second.contains({peer, host}); });
      if (leaned_on) {
        tell.needed.insert(host);
        leaves_.erase({peer, host});
      } else if (CallsHaveLeft(peer, host, drain, routed_there)) {
        tell.left[host] = drain;
      }
    }
  }
  std::erase_if(leaves_, [this](const auto& entry) {
    const auto planned = planned_drains_.find(entry.first.first);
    return planned == planned_drains_.end() || !planned->second.contains(entry.first.second);
  });
}

// Whether all calls to a host that `peer` drains are over. Routes have left it; what hosts had sent there
// before may lie in their channels, in a node engine or on the wire, and node engines alone know.
bool Engine::CallsHaveLeft(const std::string& peer, const std::string& host, uint64_t drain,
                           const Ends& routed) {
  Ends ends;
  const auto functions = drained_functions_.find({peer, host});
  for (const std::string& end : {peer, absl::StrCat(peer, "/", host)}) {
    if (functions == drained_functions_.end()) break;
    // Other hosts of that node are called on.
    const auto called = routed.find(end);
    for (const std::string& function : functions->second) {
      const uint64_t id = IdOf(function);
      if (called == routed.end() || !called->second.contains(id)) ends[end].insert(id);
    }
  }
  Leave& leave = leaves_[{peer, host}];
  if (leave.number != 0 && leave.drain == drain && leave.ends == ends) return leave.unanswered.empty();
  leave = {drain, std::move(ends), ++last_leave_, {}};
  const std::vector<api::LeaveEnds> parts = PartsOf(leave.number, leave.ends);
  for (auto& [id, session] : state_.sessions) {
    // One inside a host is of that host's tenant, whose silence must not hold drains that do not concern it.
    if (!session.is_engine || !MayHold(state_, *plan_.model, session, leave.ends)) continue;
    for (const api::LeaveEnds& part : parts) *Send(session).mutable_leave_ends() = part;
    leave.unanswered.insert(id);
  }
  return leave.unanswered.empty();
}

absl::Status Engine::EndsLeft(SessionId id, uint64_t number) {
  const Session* const session = state_.Find(id);
  WEFT_CHECK(session != nullptr);
  if (!session->is_engine) return Refuse(Refusal::kGarbage, "a host tells which nodes it has left");
  for (auto& [host, leave] : leaves_) {
    if (leave.number == number && leave.unanswered.erase(id) != 0 && leave.unanswered.empty()) Touch();
  }
  return absl::OkStatus();
}

// A host that the operator drains is told so once nothing is routed to it any more, but for what could yet
// come from other nodes, which have all left it.
void Engine::SendDrains() {
  UpdateDrains();
  for (auto& [id, session] : state_.sessions) {
    if (!session.draining || session.drain_sent) continue;
    const bool left = state_.AllLeft(session);
    const bool routed = std::any_of(state_.routed.begin(), state_.routed.end(), [&](const auto& entry) {
      return entry.second.contains(session.id) && !(left && plan_.leaving.contains(entry.first));
    });
    // An engine inside of it is called by other nodes whatever else is routed here.
    if (routed || (session.inside != 0 && !left)) continue;
    session.drain_sent = true;
    Send(session).mutable_drain();
  }
}

}  // namespace weft::agent
