// SPDX-License-Identifier: Apache-2.0
// Session: what the agent's messages change in the CallCore.
#include "dataplane/client/session.h"

#include <unistd.h>

#include <algorithm>
#include <span>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft {
namespace {

// A Stats packet carries whole channels up to here, and says how many it left out.
constexpr std::size_t kStatsBytesMax = kControlMessageBytesMax - 8 * 1024;
constexpr std::size_t kChannelIdBytes = 16;

void AddCounter(absl::string_view name, uint64_t value,
                google::protobuf::RepeatedPtrField<api::Counter>* to) {
  api::Counter& counter = *to->Add();
  counter.set_name(std::string(name));
  counter.set_value(value);
}

}  // namespace

Policy PolicyOf(const api::Policy& policy) {
  Policy result;
  if (policy.timeout_ns() != 0) result.timeout_ns = policy.timeout_ns();
  if (policy.has_retries()) result.retries = policy.retries();
  result.idempotent = policy.idempotent();
  if (policy.concurrent_calls_max() != 0) result.concurrent_calls_max = policy.concurrent_calls_max();
  result.calls_per_second_max = policy.calls_per_second_max();
  result.retry_budget_percent = policy.retry_budget_percent();
  result.hedge_percentile = policy.hedge_percentile();
  if (policy.hedge_budget_percent() != 0) result.hedge_budget_percent = policy.hedge_budget_percent();
  result.outlier_failures = policy.outlier_failures();
  if (policy.outlier_eject_ns() != 0) result.outlier_eject_ns = policy.outlier_eject_ns();
  result.any_locality = policy.any_locality();
  return result;
}

Session::Session(const SessionOptions& options)
    : options_(options), random_(options.seed != 0 ? options.seed : NowNs() ^ Ticks()) {
  CallCoreOptions core_options;
  core_options.calls_max = options.calls_max;
  core_options.seed = random_.Next();
  core_ = std::make_unique<CallCore>(core_options);
  core_->set_host_name(options.host);
  backoff_ns_ = kNsPerMs;
}

Session::~Session() {
  for (Outgoing& outgoing : outgoing_) {
    if (outgoing.fd >= 0) close(outgoing.fd);
  }
  for (uint32_t i = 0; i < core_->links_count(); ++i) {
    Link& link = *core_->link(i);
    if (!link.channel) continue;
    poller_->RemoveChannel(link.channel.get());
    poller_->RemoveDoorbell(link.doorbell.get());
  }
}

void Session::AddServed(const std::string& function) {
  served_.push_back(function);
  if (attached()) Report(function, api::FunctionReport::READY);
}

void Session::Report(absl::string_view function, api::FunctionReport::State state, absl::string_view error) {
  api::FromHost message;
  api::FunctionReport& report = *message.mutable_function_report();
  report.set_function(std::string(function));
  report.set_state(state);
  report.set_error(std::string(error));
  if (attached()) Send(message);
}

RouteEntry& Session::Subscribe(absl::string_view caller, absl::string_view callee) {
  if (caller.empty()) caller = welcome_.call_as();
  RouteEntry& route = core_->Route(caller, callee);
  if (!subscribed_set_.insert(&route).second) return route;
  subscribed_.push_back(&route);
  FlushOutgoing();
  return route;
}

void Session::Unsubscribe(RouteEntry& route) {
  if (subscribed_set_.erase(&route) == 0) return;
  const auto found = std::find(subscribed_.begin(), subscribed_.end(), &route);
  const bool was_asked = static_cast<std::size_t>(found - subscribed_.begin()) < asked_;
  subscribed_.erase(found);
  core_->SetRoute(route, {}, {}, absl::StatusCode::kUnavailable, "no route yet");
  route.known = false;
  if (was_asked) {
    --asked_;
    if (attached()) given_up_.emplace_back(route.caller, route.callee);
    FlushOutgoing();
  }
  if (core_->routes_kept() < forget_routes_at_) return;
  core_->ForgetRoutes(subscribed_set_);
  forget_routes_at_ = std::max(CallCore::kForgetMin, 2 * core_->routes_kept());
}

void Session::SendDrained() {
  api::FromHost message;
  message.mutable_drained();
  if (attached()) Send(message);
}

void Session::SendEndsLeft(uint64_t number) {
  api::FromHost message;
  message.mutable_ends_left()->set_number(number);
  Send(message);
}

void Session::SendXdpTaken(uint64_t number, const absl::Status& taken) {
  api::FromHost message;
  message.mutable_xdp_taken()->set_number(number);
  message.mutable_xdp_taken()->set_problem(std::string(taken.message()));
  Send(message);
}

void Session::SendRunEnded(const api::RunEnded& ended) {
  api::FromHost message;
  *message.mutable_run_ended() = ended;
  if (attached()) Send(message);
}

void Session::SendNodeReport(const std::string& node, bool up) {
  api::FromHost message;
  message.mutable_node_report()->set_node(node);
  message.mutable_node_report()->set_up(up);
  if (attached()) Send(message);
}

void Session::SendPeerKeyId(const api::PeerKeyId& answer) {
  api::FromHost message;
  *message.mutable_peer_key_id() = answer;
  Send(message);
}

void Session::OnWelcome(const api::Welcome& welcome) {
  welcome_ = welcome;
  core_->set_host_name(welcome.host());
  if (welcome.message_bytes_max() != 0) {
    core_->set_message_bytes_max(
        static_cast<uint32_t>(std::min<uint64_t>(welcome.message_bytes_max(), kMessageBytesMaxLimit)));
  }
  if (!budget_ && welcome.reassembly_bytes_max() != 0) {
    budget_ = std::make_unique<ByteBudget>(welcome.reassembly_bytes_max());
  }
  state_ = State::kAttached;
  welcomed_ = true;
  refused_ = false;
  told_away_ = false;
  last_error_ = absl::OkStatus();
  backoff_ns_ = 10 * kNsPerMs;
  ++attaches_;
  // What the new agent does not keep ends now.
  std::vector<std::string> lost;
  for (const auto& [id, record] : channels_) {
    const auto& kept = welcome.keep_channels();
    if (std::find(kept.begin(), kept.end(), id) == kept.end()) lost.push_back(id);
  }
  for (const std::string& id : lost) {
    CloseRecord(id, absl::StatusCode::kUnavailable, "the agent of this node did not keep the channel");
  }
  asked_ = 0;
  given_up_.clear();
  FlushOutgoing();
  events_->OnAttached();
}

void Session::OnRoute(const api::Route& route) {
  RouteEntry* const found = core_->FindRoute(route.caller(), route.callee());
  if (found == nullptr || !subscribed_set_.contains(found)) return;  // Given up while this was on its way.
  RouteEntry& entry = *found;
  const Policy policy = PolicyOf(route.policy());
  std::vector<Target> targets;
  for (const api::Target& target : route.targets()) {
    uint32_t link = kLocalLink;
    uint32_t path = kLocalPath;
    if (!target.channel().empty()) {
      const auto record = channels_.find(target.channel());
      // A channel that has just closed: its death and this message crossed.
      if (record == channels_.end() || record->second.link == TargetSet::kNoLink) continue;
      link = record->second.link;
      path = core_->PathOf(*core_->link(link), target.node());
    }
    const uint32_t distance = policy.any_locality ? 0 : std::min<uint32_t>(target.distance(), kElsewhere);
    targets.push_back({.link = link,
                       .path = path,
                       .weight = target.weight() == 0 ? kWeightDefault : target.weight(),
                       .caller_index = static_cast<uint16_t>(target.caller_index()),
                       .distance = static_cast<uint16_t>(distance)});
  }
  absl::StatusCode code = CodeFromWire(static_cast<uint16_t>(std::min<uint32_t>(route.code(), 0xffff)));
  std::string reason = route.reason();
  if (targets.empty() && code == absl::StatusCode::kOk) code = absl::StatusCode::kUnavailable;
  if (targets.empty() && reason.empty()) reason = absl::StrCat("no host serves ", route.callee(), " now");
  entry.generation = route.generation();
  core_->SetRoute(entry, std::move(targets), policy, code, reason, route.refused_share());
}

void Session::OnChannelOpen(const api::ChannelOpen& open) {
  const uint64_t arena_bytes = open.arena_bytes() != 0 ? open.arena_bytes() : welcome_.arena_bytes();
  if (open.id().size() != kChannelIdBytes || channels_.contains(open.id())) {
    return SendChannelClosed(open.id(), "an id of a wrong size, or in use");
  }
  if (!ValidArenaBytes(arena_bytes)) return SendChannelClosed(open.id(), "not a valid size of an arena");
  ChannelOptions options;
  options.arena_bytes = options.peer_arena_bytes = static_cast<uint32_t>(arena_bytes);
  options.message_bytes_max = core_->message_bytes_max();
  options.budget = budget_.get();
  absl::StatusOr<std::unique_ptr<Channel>> channel = Channel::Create(options);
  if (!channel.ok()) return SendChannelClosed(open.id(), channel.status().message());
  ChannelRecord& record = channels_[open.id()];
  record.pending = *std::move(channel);
  record.peer = open.peer();
  record.tenant = open.tenant();
  record.arena_bytes = static_cast<uint32_t>(arena_bytes);
  api::FromHost message;
  message.mutable_channel_memory()->set_id(open.id());
  Send(message, record.pending->memory_fd());
}

void Session::OnChannelPeer(const api::ChannelPeer& peer, ReceivedMessage& received) {
  const auto found = channels_.find(peer.id());
  if (found == channels_.end() || !found->second.pending) return;
  const absl::Status opened = OpenLink(found->second, peer.id(), received);
  if (opened.ok()) return;
  // Erased first: telling the agent can find it gone, which lets go of every channel that is not open.
  channels_.erase(found);
  SendChannelClosed(peer.id(), opened.message());
}

absl::Status Session::OpenLink(ChannelRecord& record, const std::string& id, ReceivedMessage& received) {
  if (received.fds.size() != 2) return absl::InvalidArgumentError("a channel comes with two descriptors");
  WEFT_ASSIGN_OR_RETURN(Doorbell bell, Doorbell::Create(std::move(received.fds[1])));
  auto doorbell = std::make_unique<Doorbell>(std::move(bell));
  WEFT_RETURN_IF_ERROR(record.pending->Connect(std::move(received.fds[0]), doorbell.get()));
  WEFT_RETURN_IF_ERROR(poller_->AddDoorbell(doorbell.get()));
  Doorbell* const raw_bell = doorbell.get();
  if (absl::Status added = poller_->AddChannel(record.pending.get()); !added.ok()) {
    poller_->RemoveDoorbell(raw_bell);
    return added;
  }
  Link& link = core_->AddLink(std::move(record.pending), std::move(doorbell), record.peer);
  link.tenant = record.tenant;
  record.link = link.index;
  ApplyAccess(record);
  return absl::OkStatus();
}

void Session::OnChannelAccess(const api::ChannelAccess& access) {
  const auto found = channels_.find(access.id());
  if (found == channels_.end()) return;
  found->second.access = access;
  ApplyAccess(found->second);
}

void Session::ApplyAccess(ChannelRecord& record) {
  if (record.link == TargetSet::kNoLink) return;
  std::vector<AccessGrant> grants;
  for (const api::ChannelAccess::Caller& caller : record.access.callers()) {
    record.index_max = std::max(record.index_max, caller.index());
    for (const uint64_t callee : caller.callee_ids()) {
      grants.push_back(
          {.caller_index = caller.index(), .caller = caller.name(), .function = FunctionId{callee}});
    }
  }
  core_->SetAccess(*core_->link(record.link), grants);
  if (core_->callers_kept() < forget_callers_at_) return;
  absl::flat_hash_set<const std::string*> held;
  if (!events_->AddHeldCallers(&held)) return;
  core_->ForgetCallers(&held);
  forget_callers_at_ = std::max(CallCore::kForgetMin, 2 * core_->callers_kept());
}

void Session::OnChannelClose(const api::ChannelClose& close) {
  absl::StatusCode code = CodeFromWire(static_cast<uint16_t>(std::min<uint32_t>(close.code(), 0xffff)));
  if (code == absl::StatusCode::kOk) code = absl::StatusCode::kUnavailable;
  CloseRecord(close.id(), code, close.reason());
}

// Forgets the channel at once, so that nothing more is taken from it; its link ends with the loop's turn.
void Session::CloseRecord(const std::string& id, absl::StatusCode code, absl::string_view reason) {
  const auto found = channels_.find(id);
  if (found == channels_.end()) return;
  if (found->second.link != TargetSet::kNoLink) {
    Link& link = *core_->link(found->second.link);
    core_->SetAccess(link, {});
    poller_->RemoveChannel(link.channel.get());
    closing_.push_back({link.index, link.epoch, code,
                        absl::StrCat("the channel to host ", link.peer, " was closed: ", reason)});
  }
  channels_.erase(found);
}

void Session::OnChannelClosed(Channel& channel) {
  Link& link = *static_cast<Link*>(channel.user_data);
  const auto record = std::find_if(channels_.begin(), channels_.end(),
                                   [&](const auto& entry) { return entry.second.link == link.index; });
  std::string reason;
  if (channel.state() == ChannelState::kPoisoned) {
    ++core_->counters().channels_poisoned;
    reason = absl::StrCat("poisoned: ", PoisonReasonText(channel.poison_reason()));
  } else {
    ++core_->counters().peers_died;
    reason = absl::StrCat("host ", link.peer, " is gone");
  }
  if (record != channels_.end()) {
    const std::string id = record->first;
    channels_.erase(record);  // First: see OnChannelPeer.
    SendChannelClosed(id, reason);
  }
  DropLink(link, absl::StatusCode::kUnavailable,
           absl::StrCat("the channel to host ", link.peer, " closed: ", reason));
}

void Session::DropLink(Link& link, absl::StatusCode code, absl::string_view reason) {
  poller_->RemoveChannel(link.channel.get());
  poller_->RemoveDoorbell(link.doorbell.get());
  core_->CloseLink(link, code, reason);
}

void Session::SendChannelClosed(const std::string& id, absl::string_view reason) {
  api::FromHost message;
  message.mutable_channel_closed()->set_id(id);
  message.mutable_channel_closed()->set_reason(std::string(reason));
  Send(message);
}

// In parts that each fit a packet.
void Session::SendFunctionStats(uint64_t query) {
  constexpr std::size_t kFieldBytes = 8;  // More than tag and length of an entry.
  api::FromHost message;
  std::size_t bytes = 0;
  for (api::FunctionStats& function : events_->Functions()) {
    const std::size_t more_bytes = function.ByteSizeLong() + kFieldBytes;
    if (bytes + more_bytes > kStatsBytesMax) {
      message.mutable_stats()->set_query(query);
      message.mutable_stats()->set_more(true);
      Send(message);
      message.Clear();
      bytes = 0;
    }
    *message.mutable_stats()->add_functions() = std::move(function);
    bytes += more_bytes;
  }
  message.mutable_stats()->set_query(query);
  Send(message);
}

void Session::OnStatsQuery(const api::StatsQuery& query) {
  if (query.functions()) return SendFunctionStats(query.query());
  api::FromHost message;
  api::Stats& stats = *message.mutable_stats();
  stats.set_query(query.query());
  auto* host = stats.mutable_host();
  core_->counters().ForEach([&](absl::string_view name, uint64_t value) { AddCounter(name, value, host); });
  const PollerCounters& poller = poller_->counters();
  AddCounter("sleeps", poller.sleeps, host);
  AddCounter("rings_received", poller.rings_received, host);
  AddCounter("rings_spurious", poller.rings_spurious, host);
  AddCounter("attaches", attaches_, host);
  AddCounter("calls_in_flight", core_->calls_in_flight(), host);
  AddCounter("incoming_in_flight", core_->incoming_in_flight(), host);
  events_->AddCounters([&](absl::string_view name, uint64_t value) { AddCounter(name, value, host); });
  uint64_t left_out = 0;
  for (const auto& [id, record] : channels_) {
    if (record.link == TargetSet::kNoLink) continue;
    if (stats.ByteSizeLong() > kStatsBytesMax) {
      ++left_out;
      continue;
    }
    const Link& link = *core_->link(record.link);
    api::ChannelStats& channel = *stats.add_channels();
    channel.set_id(id);
    auto* counters = channel.mutable_counters();
    AddCounter("requests_sent", link.requests_sent, counters);
    AddCounter("requests_received", link.requests_received, counters);
    AddCounter("responses_sent", link.responses_sent, counters);
    AddCounter("responses_received", link.responses_received, counters);
    AddCounter("refused", link.refused, counters);
    AddCounter("outstanding", core_->Outstanding(link), counters);
    AddCounter("incoming", link.incoming, counters);
  }
  if (left_out != 0) AddCounter("channels_left_out", left_out, host);
  Send(message);
}

}  // namespace weft
