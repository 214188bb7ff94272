// SPDX-License-Identifier: Apache-2.0
// Sessions: who attaches, what they report and ask for, how they leave.
#include "dataplane/agent/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/agent/admission.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/base/check.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"

namespace weft::agent {

Engine::Engine(EngineOptions options)
    : options_(std::move(options)),
      settle_until_ns_(options_.start_ns + kSettleNs),
      model_(std::make_shared<const Model>()) {}

void Engine::Restore(Model model) {
  acknowledged_ = model.generation();
  TakeModel(std::make_shared<const Model>(std::move(model)));
}

api::ToHost& Engine::Send(Session& session) {
  Output& output = outputs_.emplace_back();
  output.kind = Output::Kind::kSend;
  output.to = session.id;
  ++session.told;
  return output.message;
}

api::ToHost& Engine::SendAndWait(Session& session) {
  api::ToHost& message = Send(session);
  message.set_serial(++session.serial_sent);
  waiting_[session.id] = {session.serial_sent, now_ns_, session.told};
  return message;
}

// Where the host takes lists, together with those before it.
void Engine::SendRoute(Session& session, const api::Route& route, uint64_t generation, bool wait,
                       RouteBatch* batch) {
  constexpr std::size_t kFieldBytes = 16;  // More than its generation, tag and length.
  const std::size_t bytes = route.ByteSizeLong() + kFieldBytes;
  api::Route* told = nullptr;
  if (!session.takes_route_lists) {
    told = (wait ? SendAndWait(session) : Send(session)).mutable_route();
  } else if (batch->to == session.id && batch->bytes + bytes <= kRouteListBytesMax) {
    batch->bytes += bytes;
    told = outputs_[batch->output].message.mutable_route_list()->add_routes();
    ++session.told;
    if (wait) waiting_[session.id].told = session.told;
  } else {
    *batch = {session.id, outputs_.size(), bytes};
    told = (wait ? SendAndWait(session) : Send(session)).mutable_route_list()->add_routes();
  }
  *told = route;
  told->set_generation(generation);
}

absl::Status Engine::CheckAttach(const AttachRequest& request) const {
  const Tenant& tenant = *request.tenant;
  if (request.inside_of != 0 && state_.Find(request.inside_of) == nullptr)
    return Refuse(Refusal::kUnknownHost, "an engine inside a host that has left");
  if (const auto held = state_.by_host.find(request.host); held != state_.by_host.end()) {
    return Refuse(Refusal::kHostTaken, absl::StrCat("host ", request.host, " is attached already"));
  }
  const auto usage = state_.usage.find(&tenant);
  const Usage used = usage == state_.usage.end() ? Usage{} : usage->second;
  if (!request.is_client && used.hosts >= tenant.limits.hosts) {
    return Refuse(Refusal::kHostLimit,
                  absl::StrCat("tenant ", tenant.name, " has ", used.hosts, " hosts attached already"));
  }
  std::set<std::string> functions;
  for (const auto* names : {&request.hello.serves(), &request.hello.loaded()}) {
    for (const std::string& function : *names) {
      WEFT_RETURN_IF_ERROR(CheckMayServe(tenant, request.is_client, function));
      functions.insert(function);
    }
  }
  if (used.functions + functions.size() > tenant.limits.functions) {
    return Refuse(Refusal::kFunctionLimit, absl::StrCat("tenant ", tenant.name, " may serve ",
                                                        tenant.limits.functions, " functions in all"));
  }
  if (static_cast<std::size_t>(request.hello.channels_size()) > tenant.limits.channels) {
    return Refuse(Refusal::kChannelLimit,
                  absl::StrCat("more than ", tenant.limits.channels, " channels held"));
  }
  return absl::OkStatus();
}

void Engine::Admit(const AttachRequest& request, uint64_t now_ns) {
  const uint16_t worker = request.is_engine ? request.worker : LeastDealt(request.is_client);
  Session& session = state_.sessions[request.session];
  session.id = request.session;
  session.worker = worker;
  session.host = request.host;
  session.is_client = request.is_client;
  session.is_engine = request.is_engine;
  session.inside_of = request.inside_of;
  if (Session* const host = state_.Find(request.inside_of)) {
    host->inside = session.id;
  } else if (session.is_engine) {
    AddEngine(session.id, worker);
  }
  session.call_as = request.call_as;
  session.tenant = request.tenant;
  session.version = request.hello.version();
  session.takes_route_lists = request.hello.takes_route_lists();
  state_.by_host[session.host] = session.id;
  state_.drained.erase(session.host);
  Usage& usage = state_.usage[session.tenant];
  if (!session.is_client) ++usage.hosts;
  for (const std::string& function : request.hello.serves()) {
    if (!session.registered.insert(function).second) continue;
    state_.registered_at[function].insert(session.id);
    ++usage.functions;
  }
  for (const std::string& function : request.hello.loaded()) {
    if (session.Holds(function)) continue;
    // Whether it is the module that is wanted today is not known: it serves on while the host is asked to
    // load that.
    Placement& placement = session.placements[function];
    placement.state = Placement::State::kReady;
    ++usage.functions;
  }

  api::ToHost& message = Send(session);
  api::Welcome& welcome = *message.mutable_welcome();
  welcome.set_node(options_.node);
  welcome.set_host(session.host);
  welcome.set_call_as(session.call_as);
  welcome.set_arena_bytes(session.tenant->limits.arena_bytes);
  welcome.set_message_bytes_max(options_.message_bytes_max);
  const TenantLimits& limits = session.tenant->limits;
  // A channel gets no more than it leaves to the others: two of the longest messages the first, one the next.
  welcome.set_reassembly_bytes_max(std::max<uint64_t>(uint64_t{4} * options_.message_bytes_max,
                                                      limits.bytes / 2 / (limits.hosts + limits.clients)));
  // Channels are adopted by a message of their own, since adopting may send as well.
  api::Welcome keep;
  AdoptChannels(session, request.hello, now_ns, &keep);
  *welcome.mutable_keep_channels() = keep.keep_channels();
}

absl::Status Engine::Attach(const AttachRequest& request, uint64_t now_ns) {
  WEFT_CHECK(request.session != 0 && request.tenant != nullptr);
  WEFT_RETURN_IF_ERROR(CheckAttach(request));
  Admit(request, now_ns);
  if (!request.is_client) registrations_changed_ = true;
  Touch();
  return absl::OkStatus();
}

void Engine::Detach(SessionId id, absl::string_view reason, uint64_t now_ns) {
  Session* session = state_.Find(id);
  if (session == nullptr) return;
  std::vector<ChannelId> channels;
  for (const auto& [peer, channel] : session->channels) channels.push_back(channel);
  for (const ChannelId& channel : channels) {
    CloseChannel(channel, absl::StatusCode::kUnavailable, absl::StrCat("host ", session->host, ": ", reason),
                 id, now_ns);
  }
  std::erase_if(state_.provisional, [&](const auto& entry) { return entry.second.session == id; });
  Usage& usage = state_.usage[session->tenant];
  if (!session->is_client) --usage.hosts;
  for (const std::string& function : session->registered) state_.Unregister(function, id);
  std::set<std::string> held = session->registered;
  for (const auto& [function, placement] : session->placements) held.insert(function);
  usage.functions -= static_cast<uint32_t>(held.size());
  usage.subscriptions -= session->subscriptions.size();
  for (auto& [function, routed] : state_.routed) routed.erase(id);
  std::erase_if(reopen_,
                [&](const auto& entry) { return entry.first.first == id || entry.first.second == id; });
  waiting_.erase(id);
  if (session->inside_of != 0) {
    Session* const host = state_.Find(session->inside_of);
    if (host != nullptr && host->inside == id) host->inside = 0;
  } else if (session->is_engine) {
    RemoveEngine(*session);
  }
  if (!session->is_client) registrations_changed_ = true;
  for (auto& [host, leave] : leaves_) leave.unanswered.erase(id);
  state_.by_host.erase(session->host);
  state_.sessions.erase(id);
  Touch();
}

absl::Status Engine::AddRegistration(Session& session, const std::string& function) {
  WEFT_RETURN_IF_ERROR(CheckMayServe(*session.tenant, session.is_client, function));
  if (session.Holds(function)) return absl::OkStatus();
  Usage& usage = state_.usage[session.tenant];
  if (usage.functions >= session.tenant->limits.functions) {
    return Refuse(Refusal::kFunctionLimit,
                  absl::StrCat("tenant ", session.tenant->name, " may serve ",
                               session.tenant->limits.functions, " functions in all"));
  }
  ++usage.functions;
  session.registered.insert(function);
  state_.registered_at[function].insert(session.id);
  registrations_changed_ = true;
  Touch();
  return absl::OkStatus();
}

// The session does not hold `function` any more. What it asked for in that name stays, answered by a refusal,
// until it holds the function again.
void Engine::Release(Session& session, const std::string& function) {
  if (!session.Holds(function)) return;
  if (session.registered.erase(function) != 0) {
    state_.Unregister(function, session.id);
    registrations_changed_ = true;
  }
  session.placements.erase(function);
  session.policies.erase(function);
  --state_.usage[session.tenant].functions;
  Touch();
}

absl::Status Engine::Report(SessionId id, const api::FunctionReport& report) {
  Session* session = state_.Find(id);
  WEFT_CHECK(session != nullptr);
  if (const absl::Status name = CheckFunctionName(report.function()); !name.ok()) {
    return Refuse(Refusal::kBadName, name.message());
  }
  const auto placed = session->placements.find(report.function());
  if (placed == session->placements.end()) {
    if (report.state() == api::FunctionReport::READY) return AddRegistration(*session, report.function());
    if (!session->registered.contains(report.function())) {
      return Refuse(Refusal::kUnknownFunction,
                    absl::StrCat(report.function(), " is not at host ", session->host));
    }
    Release(*session, report.function());
    return absl::OkStatus();
  }
  Placement& placement = placed->second;
  Touch();
  if (report.state() == api::FunctionReport::GONE) {
    Release(*session, report.function());
  } else if (report.state() == api::FunctionReport::READY) {
    placement.state = Placement::State::kReady;
    placement.serves_old = false;
    placement.error.clear();
  } else {
    placement.state = Placement::State::kFailed;
    placement.error = std::string(Utf8Prefix(report.error(), 500));
  }
  return absl::OkStatus();
}

void Engine::PlacementFailed(SessionId id, const std::string& function, const std::string& error) {
  Session* session = state_.Find(id);
  if (session == nullptr) return;
  const auto placed = session->placements.find(function);
  if (placed == session->placements.end()) return;
  placed->second.state = Placement::State::kFailed;
  placed->second.error = error;
  Touch();
}

absl::Status Engine::CountSubscription(Session& session) {
  std::size_t& of_tenant = state_.usage[session.tenant].subscriptions;
  if (session.subscriptions.size() >= kSubscriptionsMax) {
    return Refuse(Refusal::kSubscriptionLimit,
                  absl::StrCat("more than ", kSubscriptionsMax, " routes asked for"));
  }
  if (of_tenant >= kTenantSubscriptionsMax) {
    return Refuse(Refusal::kSubscriptionLimit, absl::StrCat("tenant ", session.tenant->name,
                                                            " has asked for ", of_tenant, " routes in all"));
  }
  ++of_tenant;
  ++session.asked_changes;
  return absl::OkStatus();
}

absl::Status Engine::Subscribe(SessionId id, const api::Subscribe& subscribe) {
  Session* session = state_.Find(id);
  WEFT_CHECK(session != nullptr);
  if (!CheckCallerName(subscribe.caller()).ok() || !CheckFunctionName(subscribe.callee()).ok()) {
    return Refuse(Refusal::kBadName,
                  absl::StrCat("\"", subscribe.caller(), "\" calls \"", subscribe.callee(), "\""));
  }
  const Call call(subscribe.caller(), subscribe.callee());
  if (!session->subscriptions.contains(call)) WEFT_RETURN_IF_ERROR(CountSubscription(*session));
  Subscription& subscription = session->subscriptions[call];
  subscription.callee_id = IdOf(call.second);
  if (!MayCallAs(*model_, options_.node, *session, call.first)) {
    // Answered at once, and kept: it may be placed there later.
    ++forged_callers_;
    api::Route& route = subscription.route;
    route.Clear();
    route.set_caller(call.first);
    route.set_callee(call.second);
    route.set_code(static_cast<uint32_t>(absl::StatusCode::kPermissionDenied));
    route.set_reason(NotItsCaller(*session, call.first));
    subscription.sent = true;
    *Send(*session).mutable_route() = route;
    return absl::OkStatus();
  }
  if (const Session* const host = state_.Find(session->inside_of);
      host != nullptr && !host->Holds(call.second))
    ++foreign_functions_;
  subscription.sent = false;  // Asked again, as after a re-attachment: answered again.
  Touch();
  return absl::OkStatus();
}

absl::Status Engine::Unsubscribe(SessionId id, const api::Unsubscribe& unsubscribe) {
  Session* session = state_.Find(id);
  WEFT_CHECK(session != nullptr);
  // The next round takes its permission out of the callee's table.
  if (session->subscriptions.erase({unsubscribe.caller(), unsubscribe.callee()}) == 0)
    return absl::OkStatus();
  --state_.usage[session->tenant].subscriptions;
  ++session->asked_changes;
  Touch();
  return absl::OkStatus();
}

absl::Status Engine::Applied(SessionId id, uint64_t serial) {
  Session* session = state_.Find(id);
  WEFT_CHECK(session != nullptr);
  if (serial > session->serial_sent) {
    return Refuse(Refusal::kBadSerial, absl::StrCat("serial ", serial, " was never sent"));
  }
  session->serial_applied = std::max(session->serial_applied, serial);
  const auto waited = waiting_.find(id);
  if (waited != waiting_.end() && session->serial_applied >= waited->second.serial) {
    session->told -= waited->second.told;
    waiting_.erase(waited);
  }
  return absl::OkStatus();
}

absl::Status Engine::HostDrained(SessionId id) {
  Session* session = state_.Find(id);
  WEFT_CHECK(session != nullptr);
  if (!session->drain_sent || session->drained) return absl::OkStatus();
  session->drained = true;
  Output& output = outputs_.emplace_back();
  output.kind = Output::Kind::kDrained;
  output.to = id;
  return absl::OkStatus();
}

absl::Status Engine::DrainHost(const std::string& host) {
  const auto found = state_.by_host.find(host);
  if (found == state_.by_host.end())
    return Refuse(Refusal::kUnknownHost, absl::StrCat("no host ", host, " is attached"));
  Session& session = *state_.Find(found->second);
  if (session.is_engine)
    return Refuse(Refusal::kUnknownHost,
                  absl::StrCat(host, " is no host but the node engine, which is not drained"));
  session.draining = true;
  state_.drained.insert(host);
  Touch();
  return absl::OkStatus();
}

std::vector<Output> Engine::TakeOutputs() { return std::exchange(outputs_, {}); }

OpenPlacements Engine::OpenNow() const {
  OpenPlacements open;
  for (const Pending& pending : pending_) {
    for (const auto& [key, sha256] : pending.asks) open.insert(key);
  }
  return open;
}

}  // namespace weft::agent
