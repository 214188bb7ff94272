// SPDX-License-Identifier: Apache-2.0
// The admin socket: control programs, the operator asks and drains.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dataplane/agent/server.h"
#include "dataplane/agent/views.h"
#include "dataplane/api/query_packets.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"
#include "spdlog/spdlog.h"

namespace weft::agent {
namespace {

// What a question waits for the counters of hosts.
constexpr uint64_t kStatsNs = 200 * kNsPerMs;
// Registrations that take long to tell rest so many times as long: a tenth of this thread's time at most.
constexpr uint64_t kRegistrationsRest = 9;

// What hosts serve of their own accord, in parts that each fit a packet: a host of many functions is named in
// several.
std::vector<api::Registrations> RegistrationsOf(const EngineState& state) {
  constexpr std::size_t kFieldBytes = 8;  // More than tag and length of a name.
  std::vector<api::Registrations> parts(1);
  std::size_t bytes = 0;
  api::Registrations::Host* row = nullptr;
  const auto begin_row = [&](const std::string& host, std::size_t more_bytes) {
    if (bytes + host.size() + more_bytes + 2 * kFieldBytes > api::kReplyBytesMax) {
      parts.back().set_more(true);
      parts.emplace_back();
      bytes = 0;
    }
    row = parts.back().add_hosts();
    row->set_name(host);
    bytes += host.size() + 2 * kFieldBytes;
  };
  for (const auto& [id, session] : state.sessions) {
    if (session.is_client) continue;
    begin_row(session.host, 0);
    for (const std::string& function : session.registered) {
      const std::size_t function_bytes = function.size() + kFieldBytes;
      if (bytes + function_bytes > api::kReplyBytesMax) begin_row(session.host, function_bytes);
      row->add_serves(function);
      bytes += function_bytes;
    }
  }
  return parts;
}

}  // namespace

bool Server::MayProgram(const Connection& connection) const {
  return connection.on_admin_socket &&
         (connection.peer.uid == options_.config.control_uid || connection.peer.uid == 0);
}

void Server::Reply(SessionId id, const api::AdminReply& reply) {
  const auto found = connections_.find(id);
  if (found != connections_.end()) SendTo(*found->second, reply.SerializeAsString());
}

// Answers a request that cannot be done; the conversation goes on.
void Server::Fail(SessionId id, const absl::Status& why) {
  refusals_.Count(RefusalOf(why));
  api::AdminReply reply;
  reply.mutable_failed()->set_code(static_cast<uint32_t>(why.code()));
  reply.mutable_failed()->set_reason(std::string(why.message()));
  Reply(id, reply);
}

absl::Status Server::HandleAdmin(Connection& connection, const api::AdminRequest& request) {
  const SessionId id = connection.id;
  switch (request.kind_case()) {
    case api::AdminRequest::kProgram: {
      if (!MayProgram(connection)) {
        return Refuse(Refusal::kNotControl,
                      absl::StrCat("uid ", connection.peer.uid, " is not control_user"));
      }
      // What hosts registered since the connect was told to those alone that had programmed.
      if (!std::exchange(connection.programs, true)) PushRegistrations(id);
      const absl::Status taken = engine_->Program(id, request.program(), NowNs());
      if (!taken.ok()) Fail(id, taken);
      return absl::OkStatus();
    }
    case api::AdminRequest::kQuery:
      StartQuery(connection, request.query());
      return absl::OkStatus();
    case api::AdminRequest::kExplain: {
      const api::Explain& explain = request.explain();
      if (!CheckCallerName(explain.caller()).ok() || !CheckFunctionName(explain.callee()).ok()) {
        Fail(id, Refuse(Refusal::kBadName,
                        absl::StrCat("\"", explain.caller(), "\" calls \"", explain.callee(), "\"")));
      } else {
        ReplyItems(id, ExplainItems(*engine_, explain.caller(), explain.callee()));
      }
      return absl::OkStatus();
    }
    case api::AdminRequest::kDrainHost: {
      const std::string& host = request.drain_host().host();
      if (const absl::Status begun = engine_->DrainHost(host); !begun.ok()) {
        Fail(id, begun);
        return absl::OkStatus();
      }
      spdlog::info("host {} is being drained", host);
      StartDrain(id, host);
      return absl::OkStatus();
    }
    case api::AdminRequest::kRunOnce: {
      if (!MayProgram(connection)) {
        return Refuse(Refusal::kNotControl,
                      absl::StrCat("uid ", connection.peer.uid, " is not control_user"));
      }
      StartRun(id, request.run_once());
      return absl::OkStatus();
    }
    case api::AdminRequest::kGetSteer:  // Of weft-control's socket
    case api::AdminRequest::KIND_NOT_SET:
      break;
  }
  return Refuse(Refusal::kGarbage, "not an admin message");
}

// Waits for the host to finish its calls, once other nodes have sent theirs elsewhere, unless it is the last
// one of some function: then it is still routed to, and the answer says for which.
void Server::StartDrain(SessionId asker, const std::string& host) {
  RunEngine();  // So that what is routed below is what remains.
  const Session* session = engine_->state().FindHost(host);
  if (session == nullptr || session->drained) return TellDrainState(asker, host, "drained", "");
  std::vector<api::Item> items = WhatHolds(*session);
  if (!items.empty() && session->serial_applied == session->serial_sent)
    return ReplyItems(asker, std::move(items));
  drain_waiters_.emplace(session->id, asker);
}

std::vector<api::Item> Server::WhatHolds(const Session& session) const {
  std::vector<api::Item> items;
  for (const auto& [function, why] : engine_->WhatHolds(session)) {
    api::Item& item = items.emplace_back();
    AddText(&item, "host", session.host);
    AddText(&item, "state", "draining");
    AddText(&item, "function", function);
    AddText(&item, "why", why);
  }
  return items;
}

// What other nodes say of drains; and what that means for those who wait for one.
void Server::CarryDrainMail() {
  const std::vector<DrainMail> all = door_.TakeDrains();
  if (all.empty()) return;
  for (const DrainMail& mail : all) {
    if (mail.gone) {
      engine_->PeerGone(mail.peer);
      continue;
    }
    PeerDrains says;
    for (const identity::DrainedHost& host : mail.drains.draining) says.draining[host.host] = host.number;
    for (const identity::DrainedHost& host : mail.drains.left) says.left[host.host] = host.number;
    says.gone.insert(mail.drains.gone.begin(), mail.drains.gone.end());
    says.needed.insert(mail.drains.needed.begin(), mail.drains.needed.end());
    says.deaf = mail.deaf;
    engine_->PeerSays(mail.peer, std::move(says));
  }
  std::vector<std::pair<SessionId, SessionId>> waiting(drain_waiters_.begin(), drain_waiters_.end());
  for (const auto& [host, asker] : waiting) {
    const Session* const session = engine_->state().Find(host);
    if (session == nullptr || session->drain_sent) continue;
    std::vector<api::Item> items = WhatHolds(*session);
    if (items.empty()) continue;
    std::erase_if(drain_waiters_, [answered = asker](const auto& entry) { return entry.second == answered; });
    ReplyItems(asker, std::move(items));
  }
}

// Tells other nodes of drains where there is something new.
void Server::TellDrains() {
  if (node_link_ == nullptr || engine_->drains_to_tell() == drains_told_) return;
  drains_told_ = engine_->drains_to_tell();
  // The first of each kind; a frame holds no more.
  const auto some_of = [](const std::set<std::string>& hosts) {
    return std::vector<std::string>(hosts.begin(),
                                    std::next(hosts.begin(), std::min(hosts.size(), identity::kDrainsMax)));
  };
  const auto some_with = [](const std::map<std::string, uint64_t>& hosts) {
    std::vector<identity::DrainedHost> list;
    for (const auto& [host, number] : hosts) {
      if (list.size() < identity::kDrainsMax) list.push_back({host, number});
    }
    return list;
  };
  std::map<std::string, identity::Drains> to_peers;
  for (const auto& [peer, tell] : drains_told_)
    to_peers[peer] = {some_with(tell.draining), some_of(tell.gone), some_with(tell.left),
                      some_of(tell.needed)};
  node_link_->SetDrains(std::move(to_peers));
}

void Server::TellDrainState(SessionId asker, const std::string& host, const std::string& state,
                            const std::string& why) {
  std::vector<api::Item> items(1);
  AddText(&items[0], "host", host);
  AddText(&items[0], "state", state);
  AddText(&items[0], "function", "");
  AddText(&items[0], "why", why);
  ReplyItems(asker, std::move(items));
}

// Answers those who wait for a host to be drained: it is, or it has left.
void Server::TellDrained(SessionId host, const std::string& name, bool drained) {
  std::vector<SessionId> askers;
  for (auto [it, end] = drain_waiters_.equal_range(host); it != end; ++it) askers.push_back(it->second);
  drain_waiters_.erase(host);
  if (drained) spdlog::info("host {} is drained", name);
  for (const SessionId asker : askers) TellDrainState(asker, name, drained ? "drained" : "gone", "");
}

std::set<SessionId> Server::WhoToAsk(const PendingQuery& query) const {
  std::set<SessionId> asked;
  if (query.kind == api::Query::STATUS) {
    for (const auto& [worker, engine] : engine_->state().engines) asked.insert(engine);
    return asked;
  }
  const std::set<std::string>& only = query.functions_only;
  for (const auto& [id, session] : engine_->state().sessions) {
    if (query.kind == api::Query::HOSTS || query.kind == api::Query::CHANNELS) asked.insert(id);
    if (query.kind != api::Query::FUNCTIONS) continue;
    // Nobody is woken who has nothing to tell.
    const bool tells = only.empty() ? !session.registered.empty() || !session.placements.empty()
                                    : std::any_of(only.begin(), only.end(),
                                                  [&](const auto& name) { return session.Holds(name); });
    if (tells) asked.insert(id);
  }
  return asked;
}

void Server::StartQuery(Connection& connection, const api::Query& asked) {
  PendingQuery query;
  query.asker = connection.id;
  query.kind = asked.kind();
  query.functions_only = {asked.functions().begin(), asked.functions().end()};
  query.deadline_ns = NowNs() + kStatsNs;
  query.waiting = WhoToAsk(query);
  if (query.waiting.empty()) return FinishQuery(query);
  const uint64_t number = ++last_query_;
  api::ToHost ask;
  ask.mutable_stats_query()->set_query(number);
  ask.mutable_stats_query()->set_functions(query.kind == api::Query::FUNCTIONS);
  const std::set<SessionId> hosts = query.waiting;
  queries_.emplace(number, std::move(query));
  for (const SessionId host : hosts) {
    const auto found = connections_.find(host);
    if (found != connections_.end()) SendTo(*found->second, ask.SerializeAsString());
  }
}

namespace {

constexpr int kCountersMax = 128;
constexpr std::size_t kCounterNameBytesMax = 64;

bool Bounded(const google::protobuf::RepeatedPtrField<api::Counter>& counters) {
  return counters.size() <= kCountersMax &&
         std::all_of(counters.begin(), counters.end(), [](const api::Counter& counter) {
           return counter.name().size() <= kCounterNameBytesMax;
         });
}

bool Bounded(const api::Stats& stats) {
  return Bounded(stats.host()) &&
         std::all_of(stats.channels().begin(), stats.channels().end(),
                     [](const api::ChannelStats& channel) { return Bounded(channel.counters()); });
}

// Bounded by what the host may serve: of another's function it tells nothing.
void TakeFunctionStats(const Session& host, const api::Stats& stats,
                       std::map<std::string, api::FunctionStats>* functions) {
  for (const api::FunctionStats& function : stats.functions()) {
    if (host.Holds(function.function())) (*functions)[function.function()] = function;
  }
}

}  // namespace

void Server::TakeStats(SessionId host, const api::Stats& stats) {
  const auto found = queries_.find(stats.query());
  if (found == queries_.end() || !found->second.waiting.contains(host)) return;  // Too late
  PendingQuery& query = found->second;
  if (query.kind == api::Query::FUNCTIONS) {
    TakeFunctionStats(*engine_->state().Find(host), stats, &query.functions[host]);
    if (stats.more()) return;
  } else if (Bounded(stats)) {  // One host's counters must not make the whole answer too long to send.
    query.stats[host] = stats;
  }
  query.waiting.erase(host);
  if (!query.waiting.empty()) return;
  const PendingQuery done = std::move(found->second);
  queries_.erase(found);
  FinishQuery(done);
}

void Server::FinishQuery(const PendingQuery& query) {
  switch (query.kind) {
    case api::Query::NODES:
      return ReplyItems(query.asker, NodeItems());
    case api::Query::FUNCTIONS:
      return ReplyItems(query.asker, FunctionItems(*engine_, query.functions_only, query.functions));
    case api::Query::HOSTS:
      return ReplyItems(query.asker, HostItems(*engine_, query.stats));
    case api::Query::ROUTES:
      return ReplyItems(query.asker, RouteItems(*engine_));
    case api::Query::CHANNELS:
      return ReplyItems(query.asker, ChannelItems(*engine_, query.stats));
    default:
      return ReplyItems(query.asker, StatusItems(query.stats));
  }
}

void Server::ReplyItems(SessionId asker, std::vector<api::Item> items) {
  api::QueryReply rows;
  rows.set_generation(engine_->acknowledged_generation());
  for (api::Item& item : items) *rows.add_items() = std::move(item);
  for (api::QueryReply& part : api::PacketsOf(std::move(rows), Utf8Prefix)) {
    api::AdminReply reply;
    *reply.mutable_query_reply() = std::move(part);
    Reply(asker, reply);
  }
}

// Tells control what hosts serve of their own accord: one session, or all where `only` is 0.
void Server::PushRegistrations(SessionId only) {
  std::vector<SessionId> listeners;
  for (const auto& [id, connection] : connections_) {
    if (only != 0 ? id == only : connection->programs) listeners.push_back(id);
  }
  for (api::Registrations& part : RegistrationsOf(engine_->state())) {
    part.set_node(engine_->node());
    part.set_generation(engine_->acknowledged_generation());
    api::AdminReply reply;
    *reply.mutable_registrations() = std::move(part);
    for (const SessionId listener : listeners) Reply(listener, reply);
  }
}

// The first change at once; what follows together, so that a host that registers and withdraws without end
// keeps neither this thread nor control busy.
void Server::PushChangedRegistrations() {
  const uint64_t begun_ns = NowNs();
  if (begun_ns < registrations_next_ns_) return;
  registrations_changed_ = false;
  PushRegistrations(0);
  const uint64_t now_ns = NowNs();
  registrations_next_ns_ = now_ns + std::max(kRegistrationsPauseNs, kRegistrationsRest * (now_ns - begun_ns));
}

void Server::Acknowledge(const Output& output) {
  const uint64_t in_force_ns = NowNs();  // Every host has it.
  // The acknowledgement waits for Save(), which may leave the writing to its thread, or fail.
  if (const absl::Status saved = store_->Save(output.model); !saved.ok()) {
    spdlog::error("generation {} is programmed but not saved: {}", output.programmed.generation(),
                  saved.ToString());
  }
  for (const std::string& host : output.programmed.cut_off())
    spdlog::warn("generation {}: host {} was cut off", output.programmed.generation(), host);
  for (const std::string& failed : output.programmed.failed())
    spdlog::warn("generation {}: {}", output.programmed.generation(), failed);
  spdlog::info("generation {} is programmed", output.programmed.generation());
  api::AdminReply reply;
  *reply.mutable_programmed() = output.programmed;
  reply.mutable_programmed()->set_at_ns(in_force_ns);
  std::vector<SessionId> programmers;
  for (const auto& [id, connection] : connections_) {
    if (connection->programs) programmers.push_back(id);
  }
  for (const SessionId id : programmers) Reply(id, reply);
}

}  // namespace weft::agent
