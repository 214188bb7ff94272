// SPDX-License-Identifier: Apache-2.0
// Messages that this side sends: requests, one-way messages, responses; how they begin, wait and end.
#include <algorithm>
#include <cstring>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/transport/core.h"

namespace weft::transport {

// Gives the message its bytes. False where the tenant or the arena has no room; then it holds no memory.
bool Core::FillOut(uint32_t out, uint32_t segment_bytes, Bytes head, Bytes body) {
  OutMessage& message = out_[out];
  message.bytes = static_cast<uint32_t>(head.size() + body.size());
  message.segment_bytes = static_cast<uint16_t>(segment_bytes);
  message.segments = SegmentsOf(message.bytes, segment_bytes);
  if (message.bytes == 0) return true;
  if (!TryAllocate(message.tenant, message.bytes, &message.block)) return false;
  const uint32_t words = (message.segments + 63) / 64;
  if (words > 1) {
    uint64_t* first;
    if (!TryAllocateBits(message.tenant, 2 * words, &message.bits_block, &first)) {
      FreeBlock(message.tenant, &message.block);
      return false;
    }
    message.acked.words = first;
    message.lost.words = first + words;
  }
  uint8_t* const data = blocks_.Data(message.block);
  if (!head.empty()) std::memcpy(data, head.data(), head.size());
  if (!body.empty()) std::memcpy(data + head.size(), body.data(), body.size());
  return true;
}

// A filled message begins to be sent: at once, or by its announcement.
void Core::StartOut(uint32_t out, uint64_t now_ns) {
  OutMessage& message = out_[out];
  Peer& peer = *peers_[message.peer];
  const uint32_t unasked =
      std::min({config_.unscheduled_bytes_max, config_.bandwidth_delay_bytes, peer.share_bytes});
  message.scheduled = message.segments > 1 && message.bytes > unasked;
  message.announce = message.scheduled;
  message.granted_bytes = message.scheduled ? 0 : message.bytes;
  message.live = true;
  // A single segment is among the shortest there are and leaves in its turn; what others could starve is
  // longer.
  if (message.segments > 1) out_by_age_.PushBack(out_.data(), out);
  if (message.segments > 1 && message.kind == MessageKind::kResponse) {
    message.started_ns = now_ns;
    answers_owed_.PushBack(out_.data(), out);
  }
  MakeReady(out);
}

WEFT_HOT SendResult Core::TrySend(const SendOptions& options, Bytes head, Bytes body, uint64_t now_ns,
                                  CallHandle* handle) {
  if (head.size() + body.size() > kMessageBytesMax || options.response_bytes_max > kMessageBytesMax) {
    return SendResult::kTooLarge;
  }
  Peer& peer = *peers_[options.peer.value];
  if (peer.state != PeerState::kUp) return SendResult::kPeerDown;
  if (peer.free_call_count == 0 || calls_outstanding_ == config_.calls_max) return SendResult::kFull;
  const uint32_t out = TakeOut();
  if (out == kNone) return SendResult::kFull;
  uint32_t in = kNone;
  out_[out].tenant = options.tenant.value;
  if (!options.one_way) {
    in = TakeIn();
    if (in == kNone) return FreeOut(out), SendResult::kFull;
    in_[in].tenant = options.tenant.value;
    in_[in].peer = options.peer.value;
    in_[in].kind = MessageKind::kResponse;
    // The room for the answer, before the question leaves.
    if (options.response_bytes_max > 0 &&
        !TryAllocate(options.tenant.value, options.response_bytes_max, &in_[in].block)) {
      return FreeIn(in), FreeOut(out), SendResult::kFull;
    }
  }
  if (!FillOut(out, peer.segment_bytes, head, body)) {
    if (in != kNone) FreeIn(in);
    return FreeOut(out), SendResult::kFull;
  }
  const uint32_t slot = peer.free_calls[--peer.free_call_count];
  CallSlot& call = peer.calls[slot];
  ++calls_outstanding_;
  const MessageKind kind = options.one_way ? MessageKind::kOneWay : MessageKind::kRequest;
  if (call.waiting.linked) [[unlikely]]
    peer.over_untold.Remove(peer.calls.data(), slot);
  ++call.sequence;
  call.user = options.user;
  call.progress_ns = now_ns;
  call.out = out;
  call.in = in;
  call.tenant = options.tenant.value;
  call.state = CallState::kWaiting;
  call.kind = kind;
  OutMessage& message = out_[out];
  message.kind = kind;
  message.peer = options.peer.value;
  message.id = MessageId(call.sequence, slot);
  message.function = options.function.value;
  message.deadline_ns = options.timeout_ns == 0 ? 0 : now_ns + options.timeout_ns;
  if (in != kNone) in_[in].id = message.id;
  peer.waiting_calls.PushBack(peer.calls.data(), slot);
  if (handle != nullptr) *handle = {options.peer, peer.session_count, message.id};
  StartOut(out, now_ns);
  if (peer.query_due_ns == kNever) peer.query_due_ns = now_ns + StallNs(peer);
  timers_.ArmAtLatest(options.peer.value, now_ns + std::min(config_.keepalive_ns, config_.stall_ns));
  return SendResult::kOk;
}

WEFT_HOT SendResult Core::TryRespond(CallHandle request, absl::StatusCode code, Bytes head, Bytes body,
                                     uint64_t now_ns) {
  if (head.size() + body.size() > kMessageBytesMax) return SendResult::kTooLarge;
  Peer& peer = *peers_[request.peer.value];
  const uint32_t slot = SlotOf(request.id);
  ServedSlot& served = peer.served[slot];
  if (request.session != peer.session_count || served.sequence != SequenceOf(request.id) ||
      served.state != ServedState::kExecuting) {
    return SendResult::kStale;
  }
  // A peer that is down, though a request of its session is here, lacks but the key to be answered with.
  if (peer.state == PeerState::kDead) {
    RejectServed(request.peer.value, slot, absl::StatusCode::kUnavailable);
    return SendResult::kPeerDown;
  }
  if (!FillOut(served.out, peer.segment_bytes, head, body)) return SendResult::kFull;
  StartResponse(request.peer.value, slot, code, now_ns);
  return SendResult::kOk;
}

// The slot's filled response begins to be sent.
WEFT_HOT void Core::StartResponse(uint32_t index, uint32_t slot, absl::StatusCode code, uint64_t now_ns) {
  ServedSlot& served = peers_[index]->served[slot];
  OutMessage& message = out_[served.out];
  message.code = static_cast<uint16_t>(code);
  message.id = MessageId(served.sequence, slot);
  const uint32_t segment_bytes = peers_[index]->segment_bytes;
  message.segment_bytes = static_cast<uint16_t>(segment_bytes);
  message.segments = SegmentsOf(message.bytes, segment_bytes);
  served.state = ServedState::kResponding;
  StartOut(served.out, now_ns);
}

// Ends a call or one-way message of this side without payload, whatever state it is in.
void Core::EndCall(Peer& peer, uint32_t slot, absl::StatusCode code, bool from_peer, bool maybe_executed) {
  CallSlot& call = peer.calls[slot];
  WEFT_DCHECK(call.state == CallState::kWaiting);
  Event& event = NewEvent();
  event.kind = EventKind::kCompleted;
  event.code = code;
  event.user = call.user;
  event.tenant = {call.tenant};
  event.from_peer = from_peer;
  event.maybe_executed = maybe_executed;
  if (call.out != kNone) FreeOut(call.out);
  if (call.in != kNone) FreeIn(call.in);
  call.out = kNone;
  call.in = kNone;
  call.state = CallState::kFree;
  peer.waiting_calls.Remove(peer.calls.data(), slot);
  peer.free_calls[peer.free_call_count++] = slot;
}

void Core::Cancel(CallHandle handle, uint64_t now_ns) {
  Peer& peer = *peers_[handle.peer.value];
  const uint32_t slot = SlotOf(handle.id);
  CallSlot& call = peer.calls[slot];
  if (handle.session != peer.session_count || call.sequence != SequenceOf(handle.id) ||
      call.state != CallState::kWaiting) {
    return;
  }
  ++counters_.calls_cancelled;
  const bool whole = call.out == kNone || out_[call.out].next_segment == out_[call.out].segments;
  EndCall(peer, slot, absl::StatusCode::kCancelled, false, whole);
  TellOver(handle.peer.value, handle.id);
}

// The message, which has something to send and had not, waits for its turn.
WEFT_HOT void Core::MakeReady(uint32_t out) {
  const OutMessage& message = out_[out];
  peers_[message.peer]->ready.PushBack(out_.data(), out);
  send_queue_.Push(out_.data(), out, message.RemainingBytes());
}

// Puts the message where what it has to send says it belongs.
WEFT_HOT void Core::UpdateReady(uint32_t out) {
  OutMessage& message = out_[out];
  if (!message.Sendable()) {
    RemoveReady(out);
    return;
  }
  if (!message.ready.linked) return MakeReady(out);
  const uint32_t bytes = message.RemainingBytes();
  if (message.blocked || SizeClassOf(bytes) == message.ready_class) return;
  send_queue_.Remove(out_.data(), out);
  send_queue_.Push(out_.data(), out, bytes);
}

void Core::RemoveReady(uint32_t out) {
  OutMessage& message = out_[out];
  if (!message.ready.linked) return;
  Peer& peer = *peers_[message.peer];
  if (message.blocked) {
    peer.blocked.Remove(out_.data(), out);
    SetBlocked(message, false);
  } else {
    send_queue_.Remove(out_.data(), out);
  }
  peer.ready.Remove(out_.data(), out);
}

void Core::SetBlocked(OutMessage& message, bool blocked) {
  GrantsInHand(message) -= message.UnusedGrantBytes();
  message.blocked = blocked;
  GrantsInHand(message) += message.UnusedGrantBytes();
}

void Core::MarkLost(uint32_t out, uint32_t segment) {
  OutMessage& message = out_[out];
  if (segment >= message.next_segment || message.acked.Get(segment) || message.lost.Get(segment)) return;
  message.lost.Set(segment);
  ++message.lost_segments;
  message.lost_hint = std::min(message.lost_hint, segment);
}

WEFT_HOT void Core::MarkAcked(uint32_t out, uint32_t segment) {
  OutMessage& message = out_[out];
  if (message.acked.Get(segment)) return;
  message.acked.Set(segment);
  ++message.acked_segments;
  if (message.lost_segments > 0 && message.lost.Get(segment)) {
    message.lost.Clear(segment);
    --message.lost_segments;
    UpdateReady(out);
  }
  if (message.acked_segments == message.segments) FinishOut(out);
}

// The peer has every byte.
void Core::FinishOut(uint32_t out) {
  const OutMessage& message = out_[out];
  Peer& peer = *peers_[message.peer];
  const uint32_t slot = SlotOf(message.id);
  switch (message.kind) {
    case MessageKind::kRequest:
    case MessageKind::kOneWay:
      peer.calls[slot].out = kNone;
      FreeOut(out);
      return;
    case MessageKind::kResponse:
      peer.served[slot].out = kNone;
      --peer.served_records;
      peer.served[slot].state = ServedState::kDone;
      FreeOut(out);
      return;
  }
}

}  // namespace weft::transport
