// SPDX-License-Identifier: Apache-2.0
// NodeEngine: requests of other nodes on their way to this node's hosts, and the answers.
#include <cstring>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "dataplane/engine/node_engine.h"
#include "dataplane/engine/wire.h"

namespace weft::engine {
namespace {

// Each is a message to the agent, whose queue takes 1,024.
constexpr std::size_t kPairsForgottenAtOnce = 256;

transport::Bytes BytesOf(const void* data, std::size_t bytes) {
  return {static_cast<const uint8_t*>(data), bytes};
}

}  // namespace

// Answers a request that is not to reach any host. A one-way has been answered by its delivery.
void NodeEngine::RefuseInbound(const transport::Event& event, absl::StatusCode code, absl::string_view text,
                               uint64_t now_ns) {
  if (event.kind == transport::EventKind::kRequest) {
    const ResponseHead head{.flags = kFlagNotExecuted, .zero = {}};
    text = text.substr(0, kErrorTextBytesMax);
    if (transport_->TryRespond(event.handle, code, BytesOf(&head, sizeof(head)),
                               BytesOf(text.data(), text.size()), now_ns) == transport::SendResult::kFull) {
      (void)transport_->TryRespond(event.handle, code, {}, {}, now_ns);
    }
  }
  transport_->Release(event);
}

// nullptr where the peer has made as many pairs known as it may: as many as are left for all others.
RouteEntry* NodeEngine::RouteOf(Peer& peer, uint64_t caller, const std::string& caller_name, uint64_t callee,
                                const std::string& callee_name, uint64_t now_ns) {
  const auto found = pairs_.find({caller, callee});
  if (found != pairs_.end()) [[likely]] {
    found->second.used_ns = now_ns;
    return found->second.route;
  }
  if (peer.pairs + pairs_.size() >= options_.pairs_max) ForgetIdlePairs(now_ns);
  if (peer.pairs + pairs_.size() >= options_.pairs_max) return nullptr;
  ++peer.pairs;
  RouteEntry& route = session_->Subscribe(caller_name, callee_name);
  pairs_[{caller, callee}] = {&route, &peer, now_ns};
  return &route;
}

// Gives up some of the routes that no call has used for long.
void NodeEngine::ForgetIdlePairs(uint64_t now_ns) {
  // Not for each call that a peer makes beyond its share: all pairs and records are looked at.
  if (now_ns - pairs_swept_ns_ < options_.pair_idle_ns / 16) return;
  pairs_swept_ns_ = now_ns;
  absl::flat_hash_set<const RouteEntry*> in_use;
  for (const Inbound& inbound : inbound_) {
    if (inbound.state != Inbound::State::kFree) in_use.insert(inbound.route);
  }
  std::size_t left = kPairsForgottenAtOnce;
  absl::erase_if(pairs_, [&](const auto& entry) {
    const Pair& pair = entry.second;
    if (left == 0 || now_ns - pair.used_ns < options_.pair_idle_ns || in_use.contains(pair.route))
      return false;
    --left;
    if (pair.peer != nullptr) --pair.peer->pairs;
    session_->Unsubscribe(*pair.route);
    return true;
  });
}

// Calls of the peer's, or to functions of the callee's tenant, have as many records as are left over for all
// others.
void NodeEngine::RefuseRoom(const transport::Event& event, const Peer& peer, const std::string& callee,
                            uint64_t now_ns) {
  ++(free_inbound_.empty() ? counters_.refused_room : counters_.refused_share);
  RefuseInbound(event, absl::StatusCode::kResourceExhausted,
                absl::StrCat("no room for a further call from node ", peer.name, " to ", callee, " now"),
                now_ns);
}

void NodeEngine::OnPeerRequest(const transport::Event& event, uint64_t now_ns) {
  ++counters_.requests_in;
  RequestHead head;
  if (event.payload_bytes < sizeof(head)) {
    ++counters_.refused_malformed;
    return RefuseInbound(event, absl::StatusCode::kInvalidArgument, "a request without its head", now_ns);
  }
  std::memcpy(&head, event.payload, sizeof(head));
  if ((head.flags & ~kFlagTrace) != 0 ||
      ((head.flags & kFlagTrace) != 0 && event.payload_bytes < sizeof(head) + kTraceBytes)) {
    ++counters_.refused_malformed;
    return RefuseInbound(event, absl::StatusCode::kInvalidArgument, "a request with a wrong head", now_ns);
  }
  if (PeerAt(event.handle.peer) == nullptr) return transport_->Release(event);  // It has just gone.
  Peer& peer = *PeerAt(event.handle.peer);
  const auto callee = table_.local().find(event.function);
  if (callee == table_.local().end()) {
    ++counters_.refused_function;
    return RefuseInbound(event, absl::StatusCode::kUnavailable,
                         absl::StrFormat("function %016x is not on this node", event.function), now_ns);
  }
  const auto node = table_.nodes().find(peer.name);
  const std::string* caller = nullptr;
  if (node != table_.nodes().end()) {
    const auto found = node->second.callers.find(head.caller);
    if (found != node->second.callers.end()) caller = &found->second;
  }
  if (caller == nullptr) {
    ++counters_.refused_caller;
    return RefuseInbound(
        event, absl::StatusCode::kPermissionDenied,
        absl::StrFormat("PERMISSION_DENIED: caller %016x may not call %s from node %s: it has no "
                        "endpoint there, and `call_as` of that node does not name it",
                        head.caller, callee->second.name, peer.name),
        now_ns);
  }
  const uint32_t tenant = callee->second.tenant;
  if (!inbound_tenant_shares_.MayTake(tenant, free_inbound_.size()) ||
      !inbound_peer_shares_.MayTake(event.handle.peer.value, free_inbound_.size())) [[unlikely]] {
    return RefuseRoom(event, peer, callee->second.name, now_ns);
  }
  RouteEntry* const route = RouteOf(peer, head.caller, *caller, event.function, callee->second.name, now_ns);
  if (route == nullptr) {
    ++counters_.refused_pair;
    return RefuseInbound(event, absl::StatusCode::kResourceExhausted,
                         absl::StrCat("node ", peer.name, " calls by too many names: no room for ", *caller,
                                      " to ", callee->second.name),
                         now_ns);
  }
  const uint32_t slot = free_inbound_.back();
  free_inbound_.pop_back();
  Inbound& inbound = inbound_[slot];
  inbound.engine = this;
  inbound.state = Inbound::State::kWaiting;
  inbound.one_way = event.kind == transport::EventKind::kOneWay;
  inbound.flags = head.flags;
  inbound.tenant = tenant;
  inbound_tenant_shares_.Take(tenant);
  inbound_peer_shares_.Take(event.handle.peer.value);
  inbound.event = event;
  InboundAt(event.handle) = slot;
  inbound.route = route;
  inbound.deadline_ns = event.timeout_ns == 0 ? 0 : now_ns + event.timeout_ns;
  if (TryDeliver(inbound, now_ns)) [[likely]]
    return;
  ++counters_.waited;
  inbound.queued = true;
  waiting_in_.push_back(slot);
}

bool NodeEngine::TryDeliver(Inbound& inbound, uint64_t now_ns) {
  if (inbound.deadline_ns != 0 && inbound.deadline_ns <= now_ns) [[unlikely]] {
    ++counters_.expired;
    Answer(inbound, absl::StatusCode::kDeadlineExceeded, true, "no time left to deliver it");
    return true;
  }
  if (!inbound.route->known) [[unlikely]] {
    if (session_->attached()) return false;
    Answer(inbound, absl::StatusCode::kUnavailable, true, "the agent of the node is being restarted");
    return true;
  }
  const auto* const payload = reinterpret_cast<const std::byte*>(inbound.event.payload) + sizeof(RequestHead);
  const std::size_t bytes = inbound.event.payload_bytes - sizeof(RequestHead);
  const std::size_t trace = (inbound.flags & kFlagTrace) != 0 ? kTraceBytes : 0;
  CallSpec spec;
  spec.request = Payload({payload, trace}, {payload + trace, bytes - trace});
  spec.reserve = ReserveResponse;
  spec.done = OnAnswer;
  spec.context = &inbound;
  spec.deadline_ns = inbound.deadline_ns;
  bool in_parts = false;
  // Before it starts: the answer can come from within, where it fails at once.
  inbound.state = Inbound::State::kCalling;
  const StartState state = inbound.one_way ? core_.SendOneWay(*inbound.route, spec, now_ns, &in_parts)
                                           : core_.Start(*inbound.route, spec, now_ns, &inbound.call);
  switch (state) {
    case StartState::kStarted:
      ++counters_.delivered;
      if (inbound.one_way && !in_parts) FreeInbound(inbound);
      return true;
    case StartState::kNoRoom:
      inbound.state = Inbound::State::kWaiting;
      return false;
    case StartState::kFailed:
      Answer(inbound, core_.start_error().code(), true, core_.start_error().message());
      return true;
    case StartState::kLocal:
      break;
  }
  Answer(inbound, absl::StatusCode::kInternal, true, "a route that leads to the node engine itself");
  return true;
}

std::byte* NodeEngine::ReserveResponse(void* context, uint32_t bytes) {
  auto& inbound = *static_cast<Inbound*>(context);
  BufferPool& pool = inbound.engine->pool_;
  // Asked again where an earlier try was given up.
  if (inbound.response != nullptr) pool.Give(inbound.response);
  inbound.response = pool.Take(inbound.tenant, bytes);
  return inbound.response == nullptr ? nullptr : inbound.response->payload();
}

void NodeEngine::OnAnswer(void* context, const CallOutcome& outcome) {
  auto& inbound = *static_cast<Inbound*>(context);
  inbound.engine->Answer(inbound, outcome.code, outcome.not_executed, outcome.text);
}

// The call has ended, in a host or before any. What finds no room to be sent waits.
void NodeEngine::Answer(Inbound& inbound, absl::StatusCode code, bool not_executed, absl::string_view text) {
  // The request has been read for the last time: its memory is the answer's.
  ReleaseRequest(inbound);
  if (inbound.one_way) return FreeInbound(inbound);
  if (code == absl::StatusCode::kOk) {
    inbound.state = Inbound::State::kAnswering;
    if (TryAnswer(inbound) || inbound.queued) return;
    ++counters_.waited;
    inbound.queued = true;
    waiting_in_.push_back(static_cast<uint32_t>(&inbound - inbound_.data()));
    return;
  }
  const uint64_t now_ns = NowNs();
  const ResponseHead head{.flags = not_executed ? kFlagNotExecuted : uint8_t{0}, .zero = {}};
  text = text.substr(0, kErrorTextBytesMax);
  if (transport_->TryRespond(inbound.event.handle, code, BytesOf(&head, sizeof(head)),
                             BytesOf(text.data(), text.size()), now_ns) == transport::SendResult::kFull) {
    (void)transport_->TryRespond(inbound.event.handle, code, {}, {}, now_ns);
  }
  FreeInbound(inbound);
}

bool NodeEngine::TryAnswer(Inbound& inbound) {
  const ResponseHead head{};
  const MessageBuffer* const response = inbound.response;
  const auto body = response == nullptr ? transport::Bytes()
                                        : BytesOf(inbound.response->payload(), inbound.response->bytes);
  switch (transport_->TryRespond(inbound.event.handle, absl::StatusCode::kOk, BytesOf(&head, sizeof(head)),
                                 body, NowNs())) {
    case transport::SendResult::kFull:
      return false;
    case transport::SendResult::kTooLarge:
      (void)transport_->TryRespond(inbound.event.handle, absl::StatusCode::kResourceExhausted, {}, {},
                                   NowNs());
      break;
    case transport::SendResult::kOk:
    case transport::SendResult::kStale:
    case transport::SendResult::kPeerDown:
      break;
  }
  FreeInbound(inbound);
  return true;
}

// Where the record of a peer's call is noted. A slot of the peer's is used anew only after a cancellation of
// what it held, or its end, so one record a slot is enough.
uint32_t& NodeEngine::InboundAt(const transport::CallHandle& handle) {
  return inbound_at_[handle.peer.value * options_.transport.slots_per_peer + transport::SlotOf(handle.id)];
}

void NodeEngine::OnPeerCancel(const transport::Event& event) {
  Inbound& inbound = inbound_[InboundAt(event.handle)];
  if (inbound.state == Inbound::State::kFree || inbound.event.handle.id != event.handle.id ||
      inbound.event.handle.peer != event.handle.peer ||
      inbound.event.handle.session != event.handle.session) {
    return;
  }
  ++counters_.cancels_in;
  if (inbound.state == Inbound::State::kCalling) {
    core_.Cancel(inbound.call);  // Ends it, through OnAnswer.
  } else {
    inbound.deadline_ns = 1;  // Found expired at its next turn.
  }
}

void NodeEngine::ReleaseRequest(Inbound& inbound) {
  transport_->Release(inbound.event);
  inbound.event.message = transport::Event().message;  // Holds nothing any more.
}

void NodeEngine::FreeInbound(Inbound& inbound) {
  if (inbound.response != nullptr) pool_.Give(std::exchange(inbound.response, nullptr));
  ReleaseRequest(inbound);
  inbound.state = Inbound::State::kFree;
  inbound_tenant_shares_.Give(inbound.tenant);
  inbound_peer_shares_.Give(inbound.event.handle.peer.value);
  free_inbound_.push_back(static_cast<uint32_t>(&inbound - inbound_.data()));
}

}  // namespace weft::engine
