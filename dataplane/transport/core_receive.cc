// SPDX-License-Identifier: Apache-2.0
// Datagrams in: what is refused before and after the tag, and the frames that carry messages.
#include <algorithm>
#include <cstring>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/transport/core.h"

namespace weft::transport {

WEFT_HOT_INLINE void Core::NoteArrival(uint32_t index, uint64_t counter, bool asks_for_ack, bool at_once,
                                       uint64_t now_ns) {
  Peer& peer = *peers_[index];
  if (counter == peer.received.largest()) peer.largest_arrival_ns = now_ns;
  if (!asks_for_ack) return;
  peer.ack_low = peer.ack_pending == 0 ? counter : std::min(peer.ack_low, counter);
  ++peer.ack_pending;
  if (at_once || peer.ack_pending >= config_.ack_every) {
    peer.ack_due_ns = now_ns;
    MakeUrgent(index);
  } else if (peer.ack_due_ns == kNever) {
    peer.ack_due_ns = now_ns + config_.ack_delay_ns;
    timers_.ArmAtLatest(index, peer.ack_due_ns);
  }
}

WEFT_HOT void Core::HandleDatagram(const uint8_t* datagram, std::size_t bytes, uint64_t now_ns) {
  ++counters_.datagrams_in;
  counters_.bytes_in += bytes;
  const auto drop = [this](weft_drop_reason reason) { ++counters_.drops[reason]; };
  if (bytes < WEFT_PACKET_BYTES_MIN) return drop(WEFT_DROP_TOO_SHORT);
  if (bytes > WEFT_PACKET_BYTES_MAX) return drop(WEFT_DROP_TOO_LONG);
  // A copy: what is looked at must be what is authenticated.
  weft_packet_header header;
  std::memcpy(&header, datagram, sizeof(header));
  if (header.version_and_suite != WEFT_PACKET_VERSION_AND_SUITE ||
      (header.flags & ~WEFT_PACKET_EPOCH_MASK) != 0) {
    return drop(WEFT_DROP_BAD_VERSION);
  }
  ReceiveKey* const key = keys_.Find(__builtin_bswap32(header.key_id));
  if (key == nullptr || !key->key.installed()) return drop(WEFT_DROP_UNKNOWN_KEY);
  if (header.flags != (key->epoch & WEFT_PACKET_EPOCH_MASK)) return drop(WEFT_DROP_WRONG_EPOCH);
  const uint32_t index = key->peer;
  Peer& peer = *peers_[index];
  const uint64_t counter = __builtin_bswap64(header.counter);
  if (!peer.received.IsFresh(counter)) return drop(WEFT_DROP_REPLAYED);
  const std::size_t text_bytes = bytes - WEFT_PACKET_HEADER_BYTES - WEFT_PACKET_TAG_BYTES;
  if (!key->key.Open(counter, reinterpret_cast<const uint8_t*>(&header), datagram + sizeof(header),
                     text_bytes, plain_)) {
    return drop(WEFT_DROP_BAD_TAG);
  }
  const bool in_order = peer.received.empty() || counter == peer.received.largest() + 1;
  peer.received.Note(counter);
  // All of it is checked before any of it is applied. The first frames, mostly all, are kept from the check.
  FrameReader reader(plain_, text_bytes);
  uint32_t kept = 0;
  FrameReader::Result result;
  while (kept < kFramesKept && (result = reader.Next(&frames_[kept])) == FrameReader::Result::kFrame) ++kept;
  if (kept == 0 || (kept < kFramesKept && result == FrameReader::Result::kMalformed)) {
    return drop(WEFT_DROP_MALFORMED);
  }
  if (kept == kFramesKept && !reader.RestIsValid()) return drop(WEFT_DROP_MALFORMED);
  peer.heard_ns = now_ns;
  if (peer.state == PeerState::kDead) Revive(index, now_ns);
  bool asks_for_ack = false, at_once = !in_order;
  const auto apply = [&](const ParsedFrame& frame) {
    asks_for_ack |= frame.type != FrameType::kAck;
    at_once |= frame.type == FrameType::kPing;
    Apply(index, frame, now_ns);
    return frame.type != FrameType::kClose;  // It ends all that the others would be about.
  };
  for (uint32_t i = 0; i < kept; ++i) {
    if (!apply(frames_[i])) return;
  }
  if (kept == kFramesKept) {
    while (reader.Next(&frames_[0]) == FrameReader::Result::kFrame) {
      if (!apply(frames_[0])) return;
    }
  }
  NoteArrival(index, counter, asks_for_ack, at_once, now_ns);
}

void Core::Apply(uint32_t peer, const ParsedFrame& frame, uint64_t now_ns) {
  switch (frame.type) {
    case FrameType::kData:
      return OnData(peer, frame, now_ns);
    case FrameType::kGrant:
      return OnGrant(*peers_[peer], frame);
    case FrameType::kAck:
      return OnAck(peer, frame, now_ns);
    case FrameType::kResend:
      return OnResend(peer, frame, now_ns);
    case FrameType::kBusy:
      return OnBusy(*peers_[peer], frame, now_ns);
    case FrameType::kReject:
      return OnReject(peer, frame);
    case FrameType::kUnknown:
      return OnUnknown(peer, frame);
    case FrameType::kClose:
      EndEverything(peer, true);
      SetState(*peers_[peer], PeerState::kDown);
      return;
    case FrameType::kPing:
      return;
  }
}

WEFT_HOT void Core::OnData(uint32_t index, const ParsedFrame& frame, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  if (SlotOf(frame.data.id) >= config_.slots_per_peer) {
    ++counters_.frames_refused;
    return;
  }
  // Count the peers that sent data in this millisecond, for the share that each may send unasked.
  const uint64_t window = now_ns / kNsPerMs + 1;
  if (peer.sent_data_window != window) {
    peer.sent_data_window = window;
    AdvertisedShare(now_ns);  // Moves to the window.
    ++share_senders_;
  }
  if (frame.kind == MessageKind::kResponse) {
    OnResponseData(index, frame, now_ns);
  } else {
    OnRequestData(index, frame, now_ns);
  }
}

WEFT_HOT void Core::OnRequestData(uint32_t index, const ParsedFrame& frame, uint64_t now_ns) {
  const uint32_t slot = SlotOf(frame.data.id);
  const uint64_t sequence = SequenceOf(frame.data.id);
  ServedSlot& served = peers_[index]->served[slot];
  // At most once: the slot remembers the last message that used it, and an older or a finished one is not
  // begun again.
  if (sequence < served.sequence) {
    ++counters_.frames_duplicate;
    return;
  }
  if (sequence > served.sequence && !OpenServed(index, slot, frame, now_ns)) return;
  if (served.state == ServedState::kRejected) {
    // The sender goes on because the REJECT was lost or is on its way.
    RejectServed(index, slot, static_cast<absl::StatusCode>(served.code));
    return;
  }
  if (served.state != ServedState::kReceiving || served.kind != frame.kind) {
    ++counters_.frames_duplicate;
    return;
  }
  if (StoreSegment(served.in, frame, now_ns)) DeliverServed(index, slot, now_ns);
}

// The peer uses `slot` for a new message: what the slot held before is over for the peer too, and where it is
// still being executed the owner hears of it; else a peer could have more calls executed than it has slots.
bool Core::OpenServed(uint32_t index, uint32_t slot, const ParsedFrame& frame, uint64_t now_ns) {
  TellCancelled(index, slot);
  RetireServed(index, slot);
  ServedSlot& served = peers_[index]->served[slot];
  served = ServedSlot{};
  served.sequence = SequenceOf(frame.data.id);
  served.kind = frame.kind;
  served.state = ServedState::kReceiving;
  const absl::StatusCode code = ReserveServed(index, slot, frame);
  if (code == absl::StatusCode::kOk) {
    InMessage& message = in_[served.in];
    message.timeout_ns = uint64_t{frame.target.timeout_us} * kNsPerUs;
    if (OpenIn(served.in, frame, now_ns)) return true;
  }
  ++(code == absl::StatusCode::kNotFound ? counters_.functions_unknown : counters_.drops[WEFT_DROP_NO_ROOM]);
  RejectServed(index, slot, code == absl::StatusCode::kOk ? absl::StatusCode::kResourceExhausted : code);
  return false;
}

// Takes the objects that a request or one-way message needs. What was taken is in the slot also on failure.
absl::StatusCode Core::ReserveServed(uint32_t index, uint32_t slot, const ParsedFrame& frame) {
  ServedSlot& served = peers_[index]->served[slot];
  const TenantIndex* const tenant = TenantOf(frame.target.function);
  if (tenant == nullptr) return absl::StatusCode::kNotFound;
  // Each peer gets as many records as are left over for all others.
  Peer& peer = *peers_[index];
  if (peer.served_records >= std::min(free_in_.size(), free_out_.size())) [[unlikely]]
    return absl::StatusCode::kResourceExhausted;
  served.in = TakeIn();
  InMessage& message = in_[served.in];
  message.peer = index;
  message.tenant = tenant->value;
  message.kind = frame.kind;
  message.id = frame.data.id;
  message.function = frame.target.function;
  served.out = TakeOut();
  ++peer.served_records;
  OutMessage& response = out_[served.out];
  response.kind = MessageKind::kResponse;
  response.peer = index;
  response.tenant = tenant->value;
  return absl::StatusCode::kOk;
}

// First frame of a message into `in`. False where its tenant has no room for it.
bool Core::OpenIn(uint32_t in, const ParsedFrame& frame, uint64_t now_ns) {
  InMessage& message = in_[in];
  message.bytes = frame.data.message_bytes;
  message.segment_bytes = frame.data.segment_bytes;
  message.segments = SegmentsOf(message.bytes, message.segment_bytes);
  message.code = frame.data.code;
  message.arrived_ns = now_ns;
  message.progress_ns = now_ns;
  message.scheduled = frame.payload_bytes == 0 && message.bytes > 0;
  message.state = InState::kReceiving;
  if (message.scheduled) {
    // It gets its memory with its first grant, but must be able to.
    if (ChargeOf(message.bytes, message.segments) > tenants_[message.tenant].limit_bytes) return false;
    grants_.Add(in);
  } else if (!ReserveIn(in)) {
    return false;
  }
  Peer& peer = *peers_[message.peer];
  if (message.WaitsForMore()) {
    message.looks = peer.looks;
    if (!message.scheduled) grants_.Expect(in, message.bytes);
    peer.partial.PushBack(in_.data(), in);
    if (peer.query_due_ns == kNever) peer.query_due_ns = now_ns + StallNs(peer);
    timers_.ArmAtLatest(message.peer, peer.query_due_ns);
  }
  return true;
}

// An incoming message for which there is no memory, or that does not come, is given up, and its sender told.
void Core::RejectIn(uint32_t in, absl::StatusCode code) {
  const InMessage& message = in_[in];
  const uint32_t index = message.peer, slot = SlotOf(message.id);
  ++(code == absl::StatusCode::kResourceExhausted ? counters_.drops[WEFT_DROP_NO_ROOM]
                                                  : counters_.messages_given_up);
  if (message.kind != MessageKind::kResponse) return RejectServed(index, slot, code);
  const uint64_t id = message.id;
  EndCall(*peers_[index], slot, code, false, true);
  TellOver(index, id);
}

// Memory for all of a message, unless it has it.
bool Core::ReserveIn(uint32_t in) {
  InMessage& message = in_[in];
  if (!message.WaitsForMore()) return ReserveWhole(message);
  if (message.unfinished_bytes != 0) return true;
  const uint64_t charge = ChargeOf(message.bytes, message.segments);
  if (!MayHold(message, charge) || !ReserveWhole(message)) return false;
  CountHeld(message, charge);
  return true;
}

bool Core::ReserveWhole(InMessage& message) {
  if (message.block.bytes() < message.bytes) {
    FreeBlock(message.tenant, &message.block);
    if (!TryAllocate(message.tenant, message.bytes, &message.block)) return false;
  }
  const uint32_t words = (message.segments + 63) / 64;
  if (words == 1 || message.received.words != nullptr) return true;
  if (TryAllocateBits(message.tenant, words, &message.bits_block, &message.received.words)) return true;
  FreeBlock(message.tenant, &message.block);
  return false;
}

// Puts one frame's bytes where they belong. True where the message is now complete.
WEFT_HOT bool Core::StoreSegment(uint32_t in, const ParsedFrame& frame, uint64_t now_ns) {
  InMessage& message = in_[in];
  if (frame.data.message_bytes != message.bytes || frame.data.segment_bytes != message.segment_bytes) {
    ++counters_.frames_refused;
    return false;
  }
  if (frame.payload_bytes == 0 && message.bytes > 0) return false;  // The announcement.
  const uint32_t segment = frame.data.offset == 0 ? 0 : frame.data.offset / message.segment_bytes;
  if (message.scheduled && frame.data.offset >= message.granted_bytes) {
    // Nobody asked for it, so there may be no memory.
    ++counters_.frames_refused;
    return false;
  }
  if (message.received.Get(segment)) {
    ++counters_.frames_duplicate;
    return false;
  }
  message.received.Set(segment);
  ++message.received_segments;
  message.received_bytes += frame.payload_bytes;
  message.progress_ns = now_ns;
  if (message.segments > 1) message.looks = peers_[message.peer]->looks;
  if (frame.payload_bytes > 0) {
    WEFT_CHECK(std::size_t{frame.data.offset} + frame.payload_bytes <= message.block.bytes());
    std::memcpy(blocks_.Data(message.block) + frame.data.offset, frame.payload, frame.payload_bytes);
  }
  if (message.scheduled) {
    grants_.OnArrival(in, frame.data.offset + frame.payload_bytes, (frame.flags & kFlagCongested) != 0);
  } else {
    grants_.OnUnasked(frame.payload_bytes, now_ns);
    if (message.segments > 1) grants_.OnExpected(in, frame.payload_bytes);
  }
  if (message.received_segments != message.segments) return false;
  if (message.WaitsForMore()) RemoveFromLists(in);
  message.state = InState::kDelivered;
  return true;
}

WEFT_HOT void Core::DeliverServed(uint32_t index, uint32_t slot, uint64_t now_ns) {
  ServedSlot& served = peers_[index]->served[slot];
  const InMessage& message = in_[served.in];
  Event& event = NewEvent();
  event.kind = served.kind == MessageKind::kOneWay ? EventKind::kOneWay : EventKind::kRequest;
  event.handle = {PeerIndex{index}, peers_[index]->session_count, message.id};
  event.tenant = {message.tenant};
  event.function = message.function;
  // The first frame said it: what the others took to come is gone, too. 0 would mean that there is no limit.
  const uint64_t took_ns = now_ns - std::min(now_ns, message.arrived_ns);
  event.timeout_ns = message.timeout_ns > took_ns ? message.timeout_ns - took_ns : message.timeout_ns != 0;
  event.payload = message.bytes == 0 ? nullptr : blocks_.Data(message.block);
  event.payload_bytes = message.bytes;
  event.message = served.in;
  served.in = kNone;  // The owner's, until it releases the event.
  served.state = ServedState::kExecuting;
  // A one-way message is a request that its delivery answers: only now may its sender hear that it has
  // arrived.
  if (served.kind == MessageKind::kOneWay) StartResponse(index, slot, absl::StatusCode::kOk, now_ns);
}

WEFT_HOT void Core::OnResponseData(uint32_t index, const ParsedFrame& frame, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  const uint32_t slot = SlotOf(frame.data.id);
  CallSlot& call = peer.calls[slot];
  if (call.sequence != SequenceOf(frame.data.id) || call.state != CallState::kWaiting) {
    ++counters_.frames_duplicate;
    // An announced answer would wait for grants for ever: the peer may not know that the call is over, since
    // the cancellation overtook the request or the peer was thought dead here.
    if (frame.payload_bytes == 0 && frame.data.message_bytes > 0) TellOver(index, frame.data.id);
    return;
  }
  if (call.kind == MessageKind::kOneWay) {
    return EndCall(peer, slot, static_cast<absl::StatusCode>(frame.data.code), true, true);
  }
  if (call.out != kNone) {
    // There is an answer, so the request has arrived, whatever the ACKs have told so far.
    FreeOut(call.out);
    call.out = kNone;
  }
  InMessage& message = in_[call.in];
  if (message.state == InState::kReserved && !OpenIn(call.in, frame, now_ns)) {
    return RejectIn(call.in, absl::StatusCode::kResourceExhausted);
  }
  if (!StoreSegment(call.in, frame, now_ns)) return Touch(peer, slot, now_ns);
  Event& event = NewEvent();
  event.kind = EventKind::kCompleted;
  event.code = static_cast<absl::StatusCode>(message.code);
  event.user = call.user;
  event.tenant = {call.tenant};
  event.from_peer = true;
  event.maybe_executed = true;
  event.payload = message.bytes == 0 ? nullptr : blocks_.Data(message.block);
  event.payload_bytes = message.bytes;
  event.message = call.in;
  call.in = kNone;
  call.state = CallState::kFree;
  peer.waiting_calls.Remove(peer.calls.data(), slot);
  peer.free_calls[peer.free_call_count++] = slot;
}

// Tells the owner that nobody waits for what it executes for the slot, where it does.
void Core::TellCancelled(uint32_t index, uint32_t slot) {
  const ServedSlot& served = peers_[index]->served[slot];
  if (served.state != ServedState::kExecuting) return;
  Event& event = NewEvent();
  event.kind = EventKind::kCancelled;
  event.handle = {PeerIndex{index}, peers_[index]->session_count, MessageId(served.sequence, slot)};
  event.tenant = {out_[served.out].tenant};
}

// Frees what the slot's message holds; the record of it stays.
void Core::RetireServed(uint32_t index, uint32_t slot) {
  ServedSlot& served = peers_[index]->served[slot];
  if (served.in != kNone) FreeIn(served.in);
  if (served.out != kNone) {
    FreeOut(served.out);
    --peers_[index]->served_records;
  }
  served.in = kNone;
  served.out = kNone;
}

void Core::RejectServed(uint32_t index, uint32_t slot, absl::StatusCode code) {
  RetireServed(index, slot);
  ServedSlot& served = peers_[index]->served[slot];
  served.state = ServedState::kRejected;
  served.code = static_cast<uint16_t>(code);
  ++counters_.rejects_sent;
  PushNotice(index, {FrameType::kReject, served.kind, MessageId(served.sequence, slot), served.code, 0});
}

}  // namespace weft::transport
