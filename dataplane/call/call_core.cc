// SPDX-License-Identifier: Apache-2.0
// The control path of CallCore: links, functions, routes. Calls going out are in outgoing.cc, calls coming in
// in incoming.cc, messages that wait for room in jobs.cc.
#include "dataplane/call/call_core.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace weft {

CallCore::CallCore(const CallCoreOptions& options)
    : options_(options), table_(options.calls_max), wheel_(options.calls_max), random_(options.seed) {}

Link& CallCore::AddLink(std::unique_ptr<Channel> channel, std::unique_ptr<Doorbell> doorbell,
                        absl::string_view peer) {
  auto free = std::find_if(links_.begin(), links_.end(), [](const auto& link) { return !link->channel; });
  if (free == links_.end()) {
    links_.push_back(std::make_unique<Link>());
    free = links_.end() - 1;
    (*free)->index = static_cast<uint32_t>(links_.size() - 1);
  }
  Link& link = **free;
  link.channel = std::move(channel);
  link.doorbell = std::move(doorbell);
  link.channel->user_data = &link;
  link.peer = std::string(peer);
  ++link.epoch;
  link.path = PathOf(link, {});
  link.last_request_id = 0;
  link.requests_sent = link.requests_received = link.responses_received = link.responses_sent = link.refused =
      0;
  ++counters_.channels_opened;
  return link;
}

uint32_t CallCore::PathOf(const Link& link, absl::string_view node) {
  uint32_t free = static_cast<uint32_t>(paths_.size());
  for (uint32_t path = 0; path < paths_.size(); ++path) {
    if (paths_[path].link == link.index && paths_[path].node == node) return path;
    if (paths_[path].link == TargetSet::kNoLink) free = std::min(free, path);
  }
  if (free == paths_.size()) {
    paths_.emplace_back();
    outstanding_.emplace_back();
  }
  paths_[free] = {link.index, std::string(node)};
  ++paths_used_;
  outstanding_[free] = 0;
  return free;
}

void CallCore::FreePath(Path& path) {
  if (path.link != TargetSet::kNoLink) --paths_used_;
  path = {TargetSet::kNoLink, {}};
}

// Gives back the places of ways that no route has and no call is on: nodes come and go while the link to
// their engine stays, and each way that is made is looked for among all. Costs by the routes, and is due
// again when there are twice as many ways.
void CallCore::ForgetPaths() {
  std::vector<bool> needed(paths_.size());
  needed[kLocalPath] = true;
  for (const std::unique_ptr<Link>& link : links_) {
    if (link->channel) needed[link->path] = true;
  }
  const auto need = [&needed](const Target& target) { needed[target.path] = true; };
  for (const auto& [key, route] : routes_) {
    for (const Target& target : route->targets.targets()) need(target);
    if (route->adaptive != nullptr) route->adaptive->outliers().ForEach(need);
  }
  for (std::size_t path = 0; path < paths_.size(); ++path) {
    if (!needed[path] && outstanding_[path] == 0) FreePath(paths_[path]);
  }
  forget_paths_at_ = std::max(kPathsMin, 2 * paths_used_);
}

uint32_t CallCore::Outstanding(const Link& link) const {
  uint32_t sum = 0;
  for (uint32_t path = 0; path < paths_.size(); ++path) {
    if (paths_[path].link == link.index) sum += outstanding_[path];
  }
  return sum;
}

void CallCore::SetAccess(Link& link, const std::vector<AccessGrant>& grants) {
  ForgetFunctions();
  std::vector<AccessEntry> entries;
  entries.reserve(grants.size());
  for (const AccessGrant& grant : grants) {
    LocalFunction& function = Function(grant.function);
    const std::string* caller = Intern(grant.caller);
    entries.push_back({.function_id = grant.function.value,
                       .caller_index = grant.caller_index,
                       .function = &function,
                       .rate = Rate(caller, function),
                       .caller = caller});
  }
  link.access = AccessTable(entries);
}

void CallCore::ForgetCallers(absl::flat_hash_set<const std::string*>* held) {
  for (const std::unique_ptr<Link>& link : links_) {
    link->access.ForEach([held](const AccessEntry& entry) { held->insert(entry.caller); });
    if (link->begun_open) held->insert(link->begun.caller);
    for (uint32_t i = 0; i < link->partials_count; ++i) held->insert(link->partials[i].caller);
  }
  std::erase_if(rates_, [held](const auto& entry) { return !held->contains(entry.first.first); });
  absl::erase_if(names_, [held](const auto& entry) { return !held->contains(entry.second.get()); });
}

void CallCore::CloseLink(Link& link, absl::StatusCode code, absl::string_view reason) {
  if (!link.channel) return;
  // First out of the routes, so that no further try goes there.
  for (auto& [key, route] : routes_) {
    const std::span<const Target> targets = route->targets.targets();
    if (route->adaptive != nullptr) {
      if (targets.empty()) continue;
      route->adaptive->RemoveLink(link.index, &route->targets);
    } else if (std::any_of(targets.begin(), targets.end(),
                           [&](const Target& t) { return t.link == link.index; })) {
      route->targets.RemoveLink(link.index);
    } else {
      continue;
    }
    if (!route->targets.empty()) continue;
    route->code = code;
    route->reason = std::string(reason);
  }
  for (uint32_t i = 0; i < link.partials_count; ++i) AbortIncoming(link.partials[i]);
  link.partials_count = 0;
  table_.ForEach([&](OutgoingCall& call) {
    if (call.state == OutgoingCall::State::kWaiting || call.state == OutgoingCall::State::kParked ||
        call.link != link.index) {
      return;
    }
    // What never went out whole was never run.
    const bool not_executed = call.state == OutgoingCall::State::kSending;
    if (!not_executed) ++counters_.calls_lost_to_peer;
    call.receiving = nullptr;
    TryFailed(call, code, not_executed, reason);
  });
  while (!link.jobs.empty()) EndJob(link, link.jobs.begin(), false, false);
  Publish();  // Takes it out of the list of those that have something to publish.
  link.channel.reset();
  link.doorbell.reset();
  link.access = AccessTable();
  link.begun_open = false;
  for (Path& path : paths_) {
    if (path.link == link.index) FreePath(path);
  }
  link.incoming = 0;
  // Replies to what still runs here find another epoch.
  ++link.epoch;
  ++counters_.channels_closed;
}

// Once there are twice as many as were needed last time. Where nobody holds a pointer that is not counted.
void CallCore::ForgetFunctions() {
  if (functions_.size() < forget_functions_at_) return;
  absl::flat_hash_set<const LocalFunction*> named;
  for (const std::unique_ptr<Link>& link : links_) {
    link->access.ForEach([&named](const AccessEntry& entry) { named.insert(entry.function); });
  }
  const auto idle = [&named](const LocalFunction& function) {
    return !function.served && !function.policy_told && function.user == nullptr && function.held == 0 &&
           function.limit.calls() == 0 && !named.contains(&function);
  };
  std::erase_if(rates_, [&idle](const auto& entry) { return idle(*entry.first.second); });
  absl::erase_if(functions_, [&idle](const auto& entry) { return idle(*entry.second); });
  forget_functions_at_ = std::max(kForgetMin, 2 * functions_.size());
}

LocalFunction& CallCore::Function(FunctionId id) {
  std::unique_ptr<LocalFunction>& function = functions_[id.value];
  if (!function) {
    function = std::make_unique<LocalFunction>();
    function->id = id;
  }
  return *function;
}

// Once: a handler may be reading it, on another thread than the one that hears of a policy.
void CallCore::Name(LocalFunction& function, absl::string_view name) {
  if (function.name.empty()) function.name = std::string(name);
}

LocalFunction& CallCore::Serve(absl::string_view name, void* user) {
  ForgetFunctions();
  LocalFunction& function = Function(FunctionIdOf(name));
  Name(function, name);
  function.user = user;
  function.served = true;
  return function;
}

void CallCore::SetServePolicy(absl::string_view name, const Policy& policy) {
  LocalFunction& function = Function(FunctionIdOf(name));
  Name(function, name);
  function.policy_told = true;
  function.limit.set_calls_max(policy.concurrent_calls_max);
  if (function.calls_per_second_max == policy.calls_per_second_max) return;
  function.calls_per_second_max = policy.calls_per_second_max;
  for (auto& [key, rate] : rates_) {
    if (key.second == &function) rate->set_calls_per_second_max(policy.calls_per_second_max);
  }
}

CallRate* CallCore::Rate(const std::string* caller, LocalFunction& function) {
  std::unique_ptr<CallRate>& rate = rates_[{caller, &function}];
  if (!rate) rate = std::make_unique<CallRate>(function.calls_per_second_max);
  return rate.get();
}

const std::string* CallCore::Intern(absl::string_view name) {
  std::unique_ptr<std::string>& interned = names_[name];
  if (!interned) interned = std::make_unique<std::string>(name);
  return interned.get();
}

RouteEntry& CallCore::Route(absl::string_view caller, absl::string_view callee) {
  std::unique_ptr<RouteEntry>& route = routes_[{std::string(caller), std::string(callee)}];
  if (!route) {
    route = std::make_unique<RouteEntry>();
    route->callee_id = FunctionIdOf(callee);
    route->caller = std::string(caller);
    route->callee = std::string(callee);
  }
  return *route;
}

RouteEntry* CallCore::FindRoute(absl::string_view caller, absl::string_view callee) {
  const auto found = routes_.find({std::string(caller), std::string(callee)});
  return found == routes_.end() ? nullptr : found->second.get();
}

void CallCore::ForgetRoutes(const absl::flat_hash_set<const RouteEntry*>& asked) {
  absl::flat_hash_set<const RouteEntry*> in_use;
  table_.ForEach([&in_use](const OutgoingCall& call) { in_use.insert(call.route); });
  std::erase_if(routes_, [&](const auto& entry) {
    const RouteEntry* const route = entry.second.get();
    return !asked.contains(route) && !in_use.contains(route);
  });
}

void CallCore::SetRoute(RouteEntry& route, std::vector<Target> targets, const Policy& policy,
                        absl::StatusCode code, absl::string_view reason, uint32_t refused_share) {
  for (Target& target : targets) {
    if (target.path == kNoPath)
      target.path = target.link == kLocalLink ? kLocalPath : links_[target.link]->path;
  }
  if (!AdaptiveRoute::Needed(policy)) {
    route.adaptive.reset();
  } else {
    // What it has learned is kept while the policy stays.
    if (route.adaptive == nullptr || route.policy != policy) {
      route.adaptive = std::make_unique<AdaptiveRoute>(policy);
    }
    targets = route.adaptive->SetTargets(std::move(targets));
    if (hedges_ == nullptr && policy.hedge_percentile != 0) {
      hedges_ = std::make_unique<DeadlineWheel>(options_.calls_max);
    }
  }
  route.targets = TargetSet(std::move(targets));
  route.refused_share = refused_share;
  route.spared_calls = 0;
  route.policy = policy;
  route.code = code;
  route.reason = std::string(reason);
  route.known = true;
  if (paths_used_ >= forget_paths_at_) ForgetPaths();
}

void CallCore::Advance(uint64_t now_ns) {
  wheel_.Advance(now_ns, [&](uint32_t slot) {
    OutgoingCall* call = table_.At(slot);
    ++counters_.deadlines_fired;
    GiveUp(*call, absl::StatusCode::kDeadlineExceeded,
           absl::StrCat("call of ", call->route->callee, ": no answer before the deadline"));
  });
  if (hedges_ != nullptr) {
    hedges_->Advance(now_ns, [&](uint32_t slot) { StartHedge(*table_.At(slot)); });
  }
  if (HasJobs()) PumpJobs(now_ns);
  Publish();
}

bool CallCore::PumpJobs(uint64_t now_ns) {
  bool moved = false;
  if (jobs_ != 0) {
    for (const std::unique_ptr<Link>& link : links_) {
      if (link->channel && !link->jobs.empty()) moved |= PumpLink(*link, now_ns);
    }
  }
  if (!waiting_.empty()) {
    const std::size_t before = waiting_.size();
    ResumeWaiting();
    moved |= waiting_.size() != before;
  }
  Publish();
  return moved;
}

uint64_t CallCore::NextNs(uint64_t now_ns) const {
  // What waits for room is woken by the peer's ring; this only bounds how late a stall is noticed.
  const uint64_t jobs_ns =
      jobs_ != 0 || !waiting_.empty() ? now_ns + kStreamStallNs / 4 : DeadlineWheel::kNever;
  const uint64_t hedges_ns = hedges_ != nullptr ? hedges_->NextNs() : DeadlineWheel::kNever;
  return std::min({jobs_ns, wheel_.NextNs(), hedges_ns});
}

}  // namespace weft
