// SPDX-License-Identifier: Apache-2.0
// NodeEngine: requests of this node's hosts on their way to other nodes, and their responses.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "dataplane/engine/node_engine.h"
#include "dataplane/engine/wire.h"

namespace weft::engine {
namespace {

// Messages that wait for room which one turn tries again.
constexpr std::size_t kRetriesPerTurn = 64;
// How often it is looked whether calls to ends that routes have left are over.
constexpr uint64_t kLeaveCheckNsMin = kNsPerMs;
constexpr uint64_t kLeaveCheckNsMax = 100 * kNsPerMs;

transport::Bytes BytesOf(const std::byte* data, std::size_t bytes) {
  return {reinterpret_cast<const uint8_t*>(data), bytes};
}

std::span<const std::byte> SpanOfText(absl::string_view text) {
  text = text.substr(0, kErrorTextBytesMax);
  return std::as_bytes(std::span(text.data(), text.size()));
}

uint64_t UserOf(uint32_t slot, uint32_t generation) { return uint64_t{generation} << 32 | slot; }

// A node's refusal of a caller, for which it has a number alone, with its name; `caller` is NAME@NODE.
std::string WithCallersName(std::span<const std::byte> text, absl::string_view caller) {
  const absl::string_view told(reinterpret_cast<const char*>(text.data()), text.size());
  const absl::string_view name = caller.substr(0, caller.find('@'));
  return absl::StrReplaceAll(told, {{absl::StrFormat("caller %016x ", FunctionIdOf(name).value),
                                     absl::StrCat("caller ", name, " ")}});
}

}  // namespace

// False, and counted, where there is no record for a further call of the tenant's.
WEFT_HOT_INLINE bool NodeEngine::MayTakeOutbound(uint32_t tenant) {
  if (outbound_shares_.MayTake(tenant, free_outbound_.size())) [[likely]]
    return true;
  ++(free_outbound_.empty() ? counters_.refused_room : counters_.refused_share);
  return false;
}

std::byte* NodeEngine::OnRequestBegin(const Incoming& incoming, uint32_t bytes) {
  const uint32_t tenant = core_.link(incoming.link)->tenant;
  if (!MayTakeOutbound(tenant)) [[unlikely]]
    return nullptr;
  MessageBuffer* const buffer = pool_.Take(tenant, bytes);
  if (buffer == nullptr) [[unlikely]] {
    ++counters_.refused_room;
    return nullptr;
  }
  return buffer->payload();
}

void NodeEngine::OnRequestAbort(const Incoming& incoming, std::byte* payload) {
  pool_.Give(MessageBuffer::Of(payload));
}

void NodeEngine::OnRequest(const Incoming& incoming, std::byte* payload, uint32_t bytes) {
  MessageBuffer* const buffer = MessageBuffer::Of(payload);
  const uint32_t tenant = buffer->tenant;
  if (!MayTakeOutbound(tenant)) [[unlikely]] {
    // Taken by others while this one came in parts.
    pool_.Give(buffer);
    core_.Reply(incoming, absl::StatusCode::kResourceExhausted,
                SpanOfText("the node engine has no room for a further call now"), nullptr, nullptr, true);
    return;
  }
  const uint32_t slot = free_outbound_.back();
  free_outbound_.pop_back();
  Outbound& outbound = outbound_[slot];
  outbound.state = Outbound::State::kWaiting;
  outbound.incoming = incoming;
  outbound.request = buffer;
  outbound.tenant = tenant;
  outbound_shares_.Take(tenant);
  outbound.next = std::exchange(ChainOf(incoming.link, incoming.request_id), slot);
  if (TrySendOut(slot, local_.NowNs())) [[likely]]
    return;
  ++counters_.waited;
  waiting_out_.push_back(slot);
}

// Chains are short, about one record each: so a cancel costs no more than a request, however many calls
// others have under way.
uint32_t& NodeEngine::ChainOf(uint32_t link, uint32_t request_id) {
  const uint64_t key = (uint64_t{link} << 32 | request_id) * chain_factor_;
  return outbound_chains_[(key >> 32) & (outbound_chains_.size() - 1)];
}

void NodeEngine::FreeOutbound(uint32_t slot) {
  Outbound& outbound = outbound_[slot];
  uint32_t* place = &ChainOf(outbound.incoming.link, outbound.incoming.request_id);
  while (*place != slot) place = &outbound_[*place].next;
  *place = outbound.next;
  if (outbound.request != nullptr) pool_.Give(std::exchange(outbound.request, nullptr));
  outbound_shares_.Give(outbound.tenant);
  if (outbound.state == Outbound::State::kSent) {
    --outbound.peer->calls;
    outbound.peer->call_shares.Give(outbound.tenant);
  }
  outbound.state = Outbound::State::kFree;
  outbound.peer = nullptr;
  ++outbound.generation;
  free_outbound_.push_back(slot);
}

void NodeEngine::EndOutbound(Outbound& outbound, absl::StatusCode code, absl::string_view text,
                             bool not_executed) {
  core_.Reply(outbound.incoming, code, SpanOfText(text), nullptr, nullptr, not_executed);
}

const NodeEngine::Via& NodeEngine::ViaOf(const std::string* caller) {
  // The call core has each name once, and keeps it until ForgetGone takes it from here too.
  const auto [found, is_new] = vias_.try_emplace(caller);
  if (is_new) [[unlikely]] {
    const std::pair<std::string, std::string> parts = absl::StrSplit(*caller, absl::MaxSplits('@', 1));
    found->second.caller = FunctionIdOf(parts.first).value;
    if (!parts.second.empty()) found->second.peer = &PeerOf(parts.second);
  }
  return found->second;
}

// Its tenant has as many calls under way there as it may. At once: what waits here for a callee that does not
// answer would be tried again at each turn, until its deadline.
void NodeEngine::RefuseShare(uint32_t slot, const Peer& peer) {
  ++counters_.refused_share;
  EndOutbound(outbound_[slot], absl::StatusCode::kResourceExhausted,
              absl::StrCat(outbound_[slot].incoming.function->name, ": calls of this tenant to node ",
                           peer.node, " that are under way leave no room for more"),
              true);
  FreeOutbound(slot);
}

// Hands a waiting request to the transport, or ends it. False where it has to wait for room.
bool NodeEngine::TrySendOut(uint32_t slot, uint64_t now_ns) {
  Outbound& outbound = outbound_[slot];
  const Incoming& incoming = outbound.incoming;
  if (incoming.deadline_ns != 0 && incoming.deadline_ns <= now_ns) [[unlikely]] {
    ++counters_.expired;
    EndOutbound(outbound, absl::StatusCode::kDeadlineExceeded, "no time left to send it to its node", true);
    FreeOutbound(slot);
    return true;
  }
  const Via& via = ViaOf(incoming.caller);
  Peer* const peer = via.peer != nullptr && via.peer->added ? via.peer : nullptr;
  const RequestHead head{
      .caller = via.caller, .flags = static_cast<uint8_t>(incoming.flags & kFlagTrace), .zero = {}};
  transport::SendResult result = transport::SendResult::kPeerDown;
  if (peer != nullptr) [[likely]] {
    // Whoever has nothing there waits where all is taken, by many tenants then.
    const uint32_t left = options_.transport.slots_per_peer - peer->calls;
    if (!peer->call_shares.MayTake(outbound.tenant, left) && peer->call_shares.Of(outbound.tenant) != 0)
        [[unlikely]] {
      RefuseShare(slot, *peer);
      return true;
    }
    transport::SendOptions options;
    options.peer = peer->index;
    options.tenant = transport::TenantIndex{outbound.tenant};
    options.function = incoming.function->id;
    options.user = UserOf(slot, outbound.generation);
    options.timeout_ns = incoming.deadline_ns == 0 ? 0 : incoming.deadline_ns - now_ns;
    options.one_way = incoming.one_way();
    result = transport_->TrySend(options, {reinterpret_cast<const uint8_t*>(&head), sizeof(head)},
                                 BytesOf(outbound.request->payload(), outbound.request->bytes), now_ns,
                                 &outbound.handle);
  }
  switch (result) {
    case transport::SendResult::kOk:
      ++counters_.requests_out;
      pool_.Give(std::exchange(outbound.request, nullptr));
      outbound.state = Outbound::State::kSent;
      outbound.peer = peer;
      ++peer->calls;
      peer->call_shares.Take(outbound.tenant);
      // Its sender is through with it; the record stays until its node has it.
      if (incoming.one_way()) core_.Reply(incoming, absl::StatusCode::kOk, {});
      return true;
    case transport::SendResult::kFull:
      return false;
    case transport::SendResult::kTooLarge:
      EndOutbound(outbound, absl::StatusCode::kInvalidArgument, "a request too long for another node", true);
      break;
    case transport::SendResult::kPeerDown:
    case transport::SendResult::kStale:
      ++counters_.refused_unreachable;
      EndOutbound(outbound, absl::StatusCode::kUnavailable,
                  absl::StrCat(incoming.function->name, ": node ", peer == nullptr ? "" : peer->node,
                               " cannot be reached"),
                  true);
      break;
  }
  FreeOutbound(slot);
  return true;
}

// A call or one-way message of this node has ended.
void NodeEngine::OnCompleted(const transport::Event& event) {
  const auto slot = static_cast<uint32_t>(event.user);
  Outbound& outbound = outbound_[slot];
  if (outbound.state != Outbound::State::kSent || outbound.generation != event.user >> 32) return;
  if (outbound.incoming.one_way()) return FreeOutbound(slot);
  if (event.from_peer && event.payload_bytes >= sizeof(ResponseHead)) [[likely]] {
    ResponseHead head;
    std::memcpy(&head, event.payload, sizeof(head));
    std::span<const std::byte> body{reinterpret_cast<const std::byte*>(event.payload) + sizeof(head),
                                    event.payload_bytes - sizeof(head)};
    // Of an error this is a text, which another node's engine could have made too long.
    if (event.code != absl::StatusCode::kOk)
      body = body.first(std::min<std::size_t>(body.size(), kErrorTextBytesMax));
    const bool not_executed = (head.flags & kFlagNotExecuted) != 0;
    if (event.code == absl::StatusCode::kPermissionDenied && not_executed) {
      EndOutbound(outbound, event.code, WithCallersName(body, *outbound.incoming.caller), true);
    } else {
      core_.Reply(outbound.incoming, event.code, body, nullptr, nullptr, not_executed);
    }
    return FreeOutbound(slot);
  }
  const std::string where =
      absl::StrCat(outbound.incoming.function->name, " on node ", outbound.peer->node, ": ");
  if (event.code == absl::StatusCode::kOk) {
    EndOutbound(outbound, absl::StatusCode::kDataLoss, absl::StrCat(where, "an answer without its head"),
                false);
  } else if (event.code == absl::StatusCode::kNotFound && !event.maybe_executed) {
    // The node's own refusal: its table is older or newer than ours.
    EndOutbound(outbound, absl::StatusCode::kUnavailable, absl::StrCat(where, "not known there"), true);
  } else {
    std::string why = event.from_peer ? event.maybe_executed ? "the node gave it up" : "the node refused it"
                      : event.code == absl::StatusCode::kResourceExhausted
                          ? "this node has no room for its answer"
                          : "the node does not answer";
    if (outbound.peer->narrow_bytes != 0)
      absl::StrAppend(&why, "; its path carries datagrams of ", outbound.peer->narrow_bytes, " bytes now");
    EndOutbound(outbound, event.code, absl::StrCat(where, why), !event.maybe_executed);
  }
  FreeOutbound(slot);
}

void NodeEngine::OnCancel(uint32_t link, uint32_t request_id) {
  for (uint32_t slot = ChainOf(link, request_id); slot != kNoSlot; slot = outbound_[slot].next) {
    Outbound& outbound = outbound_[slot];
    if (outbound.incoming.link != link || outbound.incoming.request_id != request_id) continue;
    return CancelOutbound(outbound);
  }
}

void NodeEngine::CancelOutbound(Outbound& outbound) {
  ++counters_.cancels_out;
  if (outbound.state == Outbound::State::kSent) {
    transport_->Cancel(outbound.handle, local_.NowNs());  // Ends it, by its event.
  } else {
    outbound.incoming.deadline_ns = 1;  // Found expired at its next turn.
  }
}

// Calls of hosts whose channel has closed: nobody waits for them.
void NodeEngine::CancelOrphans() {
  channels_closed_ = core_.counters().channels_closed;
  for (Outbound& outbound : outbound_) {
    if (outbound.state == Outbound::State::kFree || outbound.incoming.one_way()) continue;
    const Link* const link = core_.link(outbound.incoming.link);
    if (link->channel && link->epoch == outbound.incoming.link_epoch) continue;
    CancelOutbound(outbound);
  }
}

void NodeEngine::OnLeaveEnds(const api::LeaveEnds& message) {
  const bool begins = leaves_.empty() || !leaves_.back().more;
  Leave& leave = begins ? leaves_.emplace_back() : leaves_.back();
  leave.number = message.number();
  leave.more = message.more();
  for (const api::LeaveEnds::End& end : message.ends())
    leave.callees[end.end()].insert(end.callee_ids().begin(), end.callee_ids().end());
  if (leave.more) return;
  leave.asked_ns = NowNs();
  leave_asked_ = true;
}

// What hosts had published before their routes changed lies in the rings: each is read once to its end.
void NodeEngine::TakePublished() {
  leave_asked_ = false;
  for (uint32_t index = 0; index < core_.links_count(); ++index) {
    Channel* const channel = core_.link(index)->channel.get();
    if (channel == nullptr || channel->closing()) continue;
    channel->TakePublished(loop_.SinkFor(*channel));
  }
}

bool NodeEngine::UnderWay(const Leave& leave, const Incoming& incoming) {
  const Peer* const peer = ViaOf(incoming.caller).peer;
  if (peer == nullptr) return false;
  const auto callees = leave.callees.find(peer->node);
  return callees != leave.callees.end() && callees->second.contains(incoming.function->id.value);
}

// From the first part of a request that has come in until it is answered, or a one-way delivered.
bool NodeEngine::AnyUnderWay(const Leave& leave) {
  for (const Outbound& outbound : outbound_) {
    if (outbound.state != Outbound::State::kFree && UnderWay(leave, outbound.incoming)) return true;
  }
  for (uint32_t index = 0; index < core_.links_count(); ++index) {
    const Link& link = *core_.link(index);
    if (link.begun_open && UnderWay(leave, link.begun)) return true;
    for (uint32_t i = 0; i < link.partials_count; ++i) {
      if (UnderWay(leave, link.partials[i])) return true;
    }
  }
  return false;
}

// All records are looked at, so less often the longer it takes.
void NodeEngine::CheckLeaves(uint64_t now_ns) {
  std::erase_if(leaves_, [&](Leave& leave) {
    if (leave.more || now_ns < leave.due_ns) return false;
    if (!AnyUnderWay(leave)) {
      session_->SendEndsLeft(leave.number);
      return true;
    }
    leave.due_ns = now_ns + std::clamp((now_ns - leave.asked_ns) / 8, kLeaveCheckNsMin, kLeaveCheckNsMax);
    return false;
  });
}

// What found no room before has its turn again, each at most once.
void NodeEngine::Retry(uint64_t now_ns) {
  for (std::size_t left = std::min(waiting_out_.size(), kRetriesPerTurn); left > 0; --left) {
    const uint32_t slot = waiting_out_.front();
    waiting_out_.pop_front();
    if (!TrySendOut(slot, now_ns)) waiting_out_.push_back(slot);
  }
  for (std::size_t left = std::min(waiting_in_.size(), kRetriesPerTurn); left > 0; --left) {
    const uint32_t slot = waiting_in_.front();
    waiting_in_.pop_front();
    Inbound& inbound = inbound_[slot];
    inbound.queued = false;
    bool done = true;
    if (inbound.state == Inbound::State::kWaiting) done = TryDeliver(inbound, now_ns);
    if (inbound.state == Inbound::State::kAnswering) done = TryAnswer(inbound);
    if (done || inbound.queued) continue;
    inbound.queued = true;
    waiting_in_.push_back(slot);
  }
}

}  // namespace weft::engine
