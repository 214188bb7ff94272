// SPDX-License-Identifier: Apache-2.0
// Channels of the round engine: opening and handing over, the tables of permitted callers, closing.
#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "dataplane/agent/engine.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/base/check.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/text.h"
#include "dataplane/channel/layout.h"

namespace weft::agent {
namespace {

// Whether `name_at` stands for a caller of a node, or of a host there, that has no endpoint of `function`.
bool HasLeft(const Model& model, const std::string& name_at, const std::string& function) {
  const std::size_t at = name_at.find('@');
  if (at == std::string::npos) return false;
  const std::pair<std::string, std::string> end = absl::StrSplit(name_at.substr(at + 1), '/');
  const auto found = model.endpoints().lower_bound({function, end.first, end.second});
  return found == model.endpoints().end() || found->first.function != function ||
         found->first.node != end.first || (!end.second.empty() && found->first.host != end.second);
}

}  // namespace

bool Engine::Charge(const Tenant* tenant, uint64_t bytes) {
  Usage& usage = state_.usage[tenant];
  if (usage.channels >= tenant->limits.channels ||
      bytes > tenant->limits.bytes / 2 - std::min(usage.bytes, tenant->limits.bytes / 2)) {
    return false;
  }
  ++usage.channels;
  usage.bytes += bytes;
  return true;
}

// Asks both hosts for their side of a new channel. `why_not` says which limit forbids it.
void Engine::OpenChannel(Session& a, Session& b, uint64_t now_ns, std::string* why_not) {
  const uint32_t arena_bytes = std::min(a.tenant->limits.arena_bytes, b.tenant->limits.arena_bytes);
  const uint64_t side_bytes = SideMemoryBytes(arena_bytes);
  const Tenant* over = nullptr;
  if (!Charge(a.tenant, side_bytes)) {
    over = a.tenant;
  } else if (!Charge(b.tenant, side_bytes)) {
    over = b.tenant;
    --state_.usage[a.tenant].channels;
    state_.usage[a.tenant].bytes -= side_bytes;
  }
  if (over != nullptr) {
    *why_not = absl::StrCat("tenant ", over->name, " has reached its limit of channels or bytes");
    return;
  }
  Channel channel;
  channel.id = options_.new_channel_id();
  WEFT_CHECK(channel.id.size() == kChannelIdBytes);
  channel.ends[0].session = a.id;
  channel.ends[1].session = b.id;
  channel.ends[0].charged_bytes = channel.ends[1].charged_bytes = side_bytes;
  channel.arena_bytes = arena_bytes;
  channel.asked_ns = now_ns;
  a.channels[b.id] = b.channels[a.id] = channel.id;
  for (Session* session : {&a, &b}) {
    api::ChannelOpen& open = *Send(*session).mutable_channel_open();
    open.set_id(channel.id);
    open.set_peer(session == &a ? b.host : a.host);
    open.set_arena_bytes(arena_bytes);
    // An engine inside a host has one tenant, 0.
    if (session->is_engine && session->inside_of == 0)
      open.set_tenant(options_.index_of_tenant((session == &a ? b : a).tenant));
  }
  state_.channels.emplace(channel.id, std::move(channel));
}

absl::StatusOr<uint32_t> Engine::ExpectedArena(SessionId session, const ChannelId& id) const {
  const auto found = state_.channels.find(id);
  if (found == state_.channels.end()) return 0;  // Closed meanwhile: the memory is of no more use.
  const Channel& channel = found->second;
  if (channel.ends[0].session != session && channel.ends[1].session != session) {
    return Refuse(Refusal::kUnknownChannel, "memory for a channel of others");
  }
  if (channel.ends[channel.EndOf(session)].memory)
    return Refuse(Refusal::kUnknownChannel, "memory was handed over already");
  return channel.arena_bytes;
}

absl::Status Engine::MemoryArrived(SessionId session, const ChannelId& id) {
  Channel* channel = state_.FindChannel(id);
  WEFT_CHECK(channel != nullptr);
  channel->ends[channel->EndOf(session)].memory = true;
  return absl::OkStatus();
}

// Ends a channel: both hosts but `except` are told, what their callers were told of it is withdrawn.
void Engine::CloseChannel(const ChannelId& id, absl::StatusCode code, absl::string_view reason,
                          SessionId except, uint64_t now_ns) {
  const auto found = state_.channels.find(id);
  WEFT_CHECK(found != state_.channels.end());
  const Channel channel = std::move(found->second);
  state_.channels.erase(found);
  for (int end = 0; end < 2; ++end) {
    Session* session = state_.Find(channel.ends[end].session);
    WEFT_CHECK(session != nullptr);
    session->channels.erase(channel.ends[1 - end].session);
    Usage& usage = state_.usage[session->tenant];
    --usage.channels;
    usage.bytes -= channel.ends[end].charged_bytes;
    if (session->id == except) continue;
    api::ChannelClose& close = *Send(*session).mutable_channel_close();
    close.set_id(id);
    close.set_code(static_cast<uint32_t>(code));
    close.set_reason(std::string(reason));
    WithdrawTargets(*session, id, reason);
  }
  Output& output = outputs_.emplace_back();
  output.kind = Output::Kind::kChannelGone;
  output.channel = id;
  Touch();
}

// Takes a channel that is no more out of the routes of one caller, ahead of any round.
void Engine::WithdrawTargets(Session& caller, const ChannelId& id, absl::string_view reason) {
  RouteBatch batch;
  for (auto& [call, subscription] : caller.subscriptions) {
    auto* targets = subscription.route.mutable_targets();
    const auto gone = std::remove_if(targets->begin(), targets->end(),
                                     [&](const api::Target& target) { return target.channel() == id; });
    if (gone == targets->end()) continue;
    targets->erase(gone, targets->end());
    if (targets->empty()) {
      subscription.route.set_code(static_cast<uint32_t>(absl::StatusCode::kUnavailable));
      subscription.route.set_reason(absl::StrCat("UNAVAILABLE: ", call.second, ": ", reason));
    }
    SendRoute(caller, subscription.route, model_->generation(), false, &batch);
  }
}

absl::Status Engine::ChannelClosed(SessionId id, const api::ChannelClosed& closed, uint64_t now_ns) {
  const Session* session = state_.Find(id);
  WEFT_CHECK(session != nullptr);
  if (const auto held = state_.provisional.find(closed.id());
      held != state_.provisional.end() && held->second.session == id) {
    state_.provisional.erase(held);
    return absl::OkStatus();
  }
  const auto found = state_.channels.find(closed.id());
  if (found == state_.channels.end()) return absl::OkStatus();  // The agent closed it at the same time.
  const Channel& channel = found->second;
  if (channel.ends[0].session != id && channel.ends[1].session != id) {
    return Refuse(Refusal::kUnknownChannel, "a channel of others was reported as closed");
  }
  Session* closer = state_.Find(id);
  const SessionId peer = channel.PeerOf(id);
  Reopen& reopen = reopen_[PairOf(id, peer)];
  const bool again = reopen.wait_ns != 0 && now_ns - reopen.closed_ns < kReopenForgetNs;
  reopen.wait_ns = again ? std::min(2 * reopen.wait_ns, kReopenMaxNs) : kReopenMinNs;
  reopen.closed_ns = now_ns;
  retry_ns_ = std::min(retry_ns_, now_ns + reopen.wait_ns);
  const std::string reason =
      absl::StrCat("host ", session->host, " closed the channel: ", Utf8Prefix(closed.reason(), 200));
  reopen.reason = reason;
  WithdrawTargets(*closer, closed.id(), reason);
  CloseChannel(std::string(closed.id()), absl::StatusCode::kUnavailable, reason, id, now_ns);
  return absl::OkStatus();
}

// Gives both hosts what they need to use a channel: tables first, so that no request precedes its permission.
void Engine::HandOver(Channel& channel) {
  channel.open = true;
  for (int end = 0; end < 2; ++end) {
    Session& session = *state_.Find(channel.ends[end].session);
    if (!channel.ends[end].access.empty()) SendAccess(channel, end, false);
    api::ToHost& message = SendAndWait(session);
    message.mutable_channel_peer()->set_id(channel.id);
    Output& output = outputs_.back();
    output.attach = Output::Attach::kChannelPeer;
    output.channel = channel.id;
    output.end = end;
  }
}

void Engine::SendAccess(Channel& channel, int end, bool wait) {
  Session& session = *state_.Find(channel.ends[end].session);
  api::ToHost& message = wait ? SendAndWait(session) : Send(session);
  api::ChannelAccess& access = *message.mutable_channel_access();
  access.set_id(channel.id);
  for (const auto& [index, entry] : channel.ends[end].access) {
    api::ChannelAccess::Caller& caller = *access.add_callers();
    caller.set_index(index);
    caller.set_name(entry.caller);
    for (const uint64_t id : entry.callee_ids) caller.add_callee_ids(id);
  }
  channel.ends[end].tell = false;
}

// Whether a request of `caller` to `callee_id` passes the table of one end, and by which index; 0: it does
// not.
uint32_t Engine::PermittedIndex(const Channel& channel, int end, const std::string& caller,
                                uint64_t callee_id) {
  for (const auto& [index, entry] : channel.ends[end].access) {
    if (entry.caller == caller && entry.callee_ids.contains(callee_id)) return index;
  }
  return 0;
}

// The index of `caller` in the table of one end, given now where it has none; 0 where none is left.
uint32_t Engine::IndexFor(Channel& channel, int end, const std::string& caller) {
  ChannelEnd& receiver = channel.ends[end];
  for (const auto& [index, entry] : receiver.access) {
    if (entry.caller == caller) return index;
  }
  if (receiver.index_max >= kCallerIndexMax || receiver.TableBytes() + caller.size() > kAccessBytesMax)
    return 0;
  receiver.access[++receiver.index_max].caller = caller;
  return receiver.index_max;
}

void Engine::GrowFor(SessionId caller_id, const Call& call, const PlanTarget& target) {
  if (caller_id == target.session) return;
  Channel* channel = state_.Between(caller_id, target.session);
  const Session* caller = state_.Find(caller_id);
  if (channel == nullptr || caller == nullptr) return;
  const auto subscription = caller->subscriptions.find(call);
  if (subscription == caller->subscriptions.end()) return;
  const int end = channel->EndOf(target.session);
  const uint32_t index = IndexFor(*channel, end, NameAt(target, call.first));
  if (index == 0 || channel->ends[end].TableBytes() > kAccessBytesMax) {
    starved_ = true;
    return;
  }
  AccessEntry& entry = channel->ends[end].access[index];
  if (entry.callee_ids.insert(subscription->second.callee_id).second) channel->ends[end].tell = true;
  channel->unused_since_ns = 0;
}

// Adds to the receivers' tables what the plan needs, and hands new channels over.
void Engine::GrowAccess() {
  EachFreshRoute([&](const RouteKey& key, const PlanRoute& route) {
    for (const PlanTarget& target : route.targets) GrowFor(key.first, key.second, target);
    for (const SessionId prospect : route.prospects) GrowFor(key.first, key.second, {.session = prospect});
  });
  for (auto& [id, channel] : state_.channels) {
    if (!channel.open) {
      if (channel.memory_complete()) HandOver(channel);
      continue;
    }
    for (int end = 0; end < 2; ++end) {
      if (channel.ends[end].tell) SendAccess(channel, end, true);
    }
  }
}

uint64_t Engine::IdOf(const std::string& function) {
  if (function_ids_.size() > kFunctionIdsMax) function_ids_.clear();
  const auto [found, is_new] = function_ids_.try_emplace(function);
  if (is_new) found->second = FunctionIdOf(function).value;
  return found->second;
}

// What the shrinking of one round looks things up in.
struct Engine::ShrinkTables {
  uint64_t now_ns = 0;
  // Functions of each host by id, made when first asked for.
  std::map<SessionId, std::map<uint64_t, std::string>> held;
  // Caller's session, callee's session, caller's name at its end, callee's id: what the plan routes.
  std::set<std::tuple<SessionId, SessionId, std::string, uint64_t>> routed;
  std::set<ChannelId> revoked;  // Channels from which the policy took something.
};

Engine::ShrinkTables Engine::MakeShrinkTables(uint64_t now_ns) {
  ShrinkTables tables;
  tables.now_ns = now_ns;
  for (const auto& [key, route] : plan_.routes) {
    for (const PlanTarget& target : route.targets) {
      tables.routed.emplace(key.first, target.session, NameAt(target, key.second.first),
                            IdOf(key.second.second));
    }
  }
  return tables;
}

const std::map<uint64_t, std::string>& Engine::HeldBy(const Session& session, ShrinkTables& tables) {
  const auto [found, is_new] = tables.held.try_emplace(session.id);
  if (is_new) {
    for (const std::string& function : session.registered) found->second[IdOf(function)] = function;
    for (const auto& [function, placement] : session.placements) found->second[IdOf(function)] = function;
    if (session.is_engine) {
      for (const auto& [key, endpoint] : plan_.model->endpoints()) {
        if (key.node != options_.node) found->second[IdOf(key.function)] = key.function;
      }
    }
  }
  return found->second;
}

// Takes out of one end's table what nothing may or can use any more: the policy forbids it, the caller has
// left or does not ask for it, or the callee is gone, of a node engine's the one at that end. Calls that are
// under way to a function that routes have left stay permitted until the host reports it GONE; what this
// round's routes still name, until a later round has withdrawn it. Returns whether the table changed.
bool Engine::ShrinkEnd(Channel& channel, int end, ShrinkTables& tables) {
  ChannelEnd& receiver = channel.ends[end];
  const Session& callee = *state_.Find(receiver.session);
  const Session& caller = *state_.Find(channel.ends[1 - end].session);
  const std::map<uint64_t, std::string>& held = HeldBy(callee, tables);
  bool changed = false;
  for (auto it = receiver.access.begin(); it != receiver.access.end();) {
    AccessEntry& entry = it->second;
    const std::string name = CallerOf(entry.caller);
    const bool inherited = entry.inherited && tables.now_ns < settle_until_ns_;
    changed |= std::erase_if(entry.callee_ids, [&](uint64_t id) {
                 if (tables.routed.contains({caller.id, callee.id, entry.caller, id})) return false;
                 const auto function = held.find(id);
                 if (function == held.end() || HasLeft(*plan_.model, entry.caller, function->second))
                   return true;
                 if (!plan_.model->Allows(name, function->second)) {
                   tables.revoked.insert(channel.id);
                   return true;
                 }
                 if (!MayCallAs(*plan_.model, options_.node, caller, name)) return true;
                 return !inherited && !caller.subscriptions.contains({name, function->second});
               }) != 0;
    it = entry.callee_ids.empty() ? receiver.access.erase(it) : std::next(it);
  }
  return changed;
}

void Engine::ShrinkChannels(uint64_t now_ns) {
  ShrinkTables tables = MakeShrinkTables(now_ns);
  std::vector<std::pair<ChannelId, bool>> closing;
  for (auto& [id, channel] : state_.channels) {
    if (!channel.open) continue;
    bool changed[2];
    for (int end = 0; end < 2; ++end) changed[end] = ShrinkEnd(channel, end, tables);
    const bool revoked = tables.revoked.contains(id);
    const bool unused = channel.ends[0].access.empty() && channel.ends[1].access.empty();
    const bool exhausted = std::max(channel.ends[0].index_max, channel.ends[1].index_max) >= kCallerIndexMax;
    if (unused && channel.unused_since_ns == 0) channel.unused_since_ns = now_ns;
    if (exhausted || (unused && (revoked || now_ns - channel.unused_since_ns >= kIdleChannelNs))) {
      closing.emplace_back(id, revoked);
      continue;
    }
    for (int end = 0; end < 2; ++end) {
      if (changed[end]) SendAccess(channel, end, true);
    }
  }
  for (const auto& [id, revoked] : closing) {
    const std::array<ChannelEnd, 2> ends = state_.FindChannel(id)->ends;
    CloseChannel(id, revoked ? absl::StatusCode::kPermissionDenied : absl::StatusCode::kUnavailable,
                 revoked ? "PERMISSION_DENIED: no rule allows calls over this channel any more"
                         : "no calls go over this channel any more",
                 0, now_ns);
    for (const ChannelEnd& end : ends) SendAndWait(*state_.Find(end.session)).mutable_barrier();
  }
}

}  // namespace weft::agent
