// SPDX-License-Identifier: Apache-2.0
// Frames without payload that concern one message: GRANT, RESEND and its answers, REJECT.
#include <algorithm>

#include "dataplane/base/attributes.h"
#include "dataplane/transport/core.h"

namespace weft::transport {

// The outgoing message that the peer names, or kNone where it is over.
uint32_t Core::FindOut(Peer& peer, MessageKind kind, uint64_t id) {
  const uint32_t slot = SlotOf(id);
  if (slot >= config_.slots_per_peer) return kNone;
  if (kind == MessageKind::kResponse) {
    const ServedSlot& served = peer.served[slot];
    return served.sequence == SequenceOf(id) && served.state == ServedState::kResponding ? served.out : kNone;
  }
  const CallSlot& call = peer.calls[slot];
  return call.sequence == SequenceOf(id) && call.state == CallState::kWaiting && call.kind == kind ? call.out
                                                                                                   : kNone;
}

WEFT_HOT void Core::OnGrant(Peer& peer, const ParsedFrame& frame) {
  const uint32_t out = FindOut(peer, frame.kind, frame.grant.id);
  if (out == kNone) return;
  OutMessage& message = out_[out];
  const uint32_t granted = std::min(static_cast<uint32_t>(frame.grant.granted_bytes), message.bytes);
  if (granted <= message.granted_bytes) return;
  GrantsInHand(message) -= message.UnusedGrantBytes();
  message.granted_bytes = granted;
  message.announce = false;  // It has been heard.
  GrantsInHand(message) += message.UnusedGrantBytes();
  UpdateReady(out);
}

void Core::OnResend(uint32_t index, const ParsedFrame& frame, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  const uint64_t id = frame.resend.id;
  const uint32_t out = FindOut(peer, frame.kind, id);
  if (out != kNone) {
    OutMessage& message = out_[out];
    const uint32_t from = std::min(static_cast<uint32_t>(frame.resend.offset), message.bytes);
    const uint32_t to = from + std::min(static_cast<uint32_t>(frame.resend.bytes), message.bytes - from);
    if (message.scheduled && to > message.granted_bytes) {
      // What is asked for is granted: the GRANT was lost.
      GrantsInHand(message) -= message.UnusedGrantBytes();
      message.granted_bytes = to;
      message.announce = false;
      GrantsInHand(message) += message.UnusedGrantBytes();
      UpdateReady(out);
    }
    // A look at each segment is dear where there are thousands, and a datagram has room for hundreds of
    // these: nobody who keeps to his own pace asks for one message again so soon.
    if (message.segments > 1) {
      if (now_ns < message.resend_from_ns) return;
      message.resend_from_ns = now_ns + StallNs(peer) / 2;
    }
    const uint32_t last = std::min(SegmentsOf(to, message.segment_bytes), message.next_segment);
    for (uint32_t segment = from / message.segment_bytes; segment < last; ++segment) MarkLost(out, segment);
    UpdateReady(out);
    return;
  }
  const uint32_t slot = SlotOf(id);
  if (frame.kind == MessageKind::kResponse && slot < config_.slots_per_peer &&
      peer.served[slot].sequence == SequenceOf(id)) {
    const ServedSlot& served = peer.served[slot];
    if (served.state == ServedState::kExecuting || served.state == ServedState::kReceiving) {
      return PushNotice(index, {FrameType::kBusy, frame.kind, id, 0, 0});
    }
    if (served.state == ServedState::kRejected) {
      return RejectServed(index, slot, static_cast<absl::StatusCode>(served.code));
    }
  }
  PushNotice(index, {FrameType::kUnknown, frame.kind, id, 0, 0});
}

void Core::OnReject(uint32_t index, const ParsedFrame& frame) {
  Peer& peer = *peers_[index];
  const uint32_t slot = SlotOf(frame.notice.id);
  if (slot >= config_.slots_per_peer) return;
  const auto code = static_cast<absl::StatusCode>(frame.notice.code);
  if (frame.kind != MessageKind::kResponse) {
    const CallSlot& call = peer.calls[slot];
    if (call.sequence != SequenceOf(frame.notice.id) || call.state != CallState::kWaiting ||
        call.kind != frame.kind) {
      return;
    }
    // A callee that lost the peer in the midst of a request rejects with UNAVAILABLE what it may have
    // executed.
    EndCall(peer, slot, code, true, code == absl::StatusCode::kUnavailable);
    return;
  }
  ServedSlot& served = peer.served[slot];
  if (served.sequence != SequenceOf(frame.notice.id)) return;
  TellCancelled(index, slot);
  RetireServed(index, slot);
  served.state = ServedState::kDone;
}

void Core::OnBusy(Peer& peer, const ParsedFrame& frame, uint64_t now_ns) {
  const uint32_t slot = SlotOf(frame.notice.id);
  if (slot >= config_.slots_per_peer) return;
  const CallSlot& call = peer.calls[slot];
  if (call.sequence == SequenceOf(frame.notice.id) && call.state == CallState::kWaiting) {
    Touch(peer, slot, now_ns);
  }
}

void Core::OnUnknown(uint32_t index, const ParsedFrame& frame) {
  Peer& peer = *peers_[index];
  const uint32_t slot = SlotOf(frame.notice.id);
  if (slot >= config_.slots_per_peer) return;
  if (frame.kind == MessageKind::kResponse) {
    const CallSlot& call = peer.calls[slot];
    // While the request itself is still on its way the peer cannot know it.
    if (call.sequence != SequenceOf(frame.notice.id) || call.state != CallState::kWaiting ||
        call.out != kNone) {
      return;
    }
    EndCall(peer, slot, absl::StatusCode::kUnavailable, true, true);
    return;
  }
  ServedSlot& served = peer.served[slot];
  if (served.sequence != SequenceOf(frame.notice.id) || served.state != ServedState::kReceiving) return;
  // The sender has given it up.
  RetireServed(index, slot);
  served.state = ServedState::kDone;
}

// Queues a frame; drops it where the ring is full, since all of them are asked for again in time.
void Core::PushNotice(uint32_t index, const Notice& notice) {
  Peer& peer = *peers_[index];
  if (peer.notice_count == Peer::kNoticesMax) {
    ++counters_.notices_dropped;
    return;
  }
  peer.notices[(peer.notice_head + peer.notice_count++) % Peer::kNoticesMax] = notice;
  MakeUrgent(index);
}

// Tells the peer that nobody waits here for the response to `id`. Nobody would ask for that again, so what
// finds no room waits for it in its slot, unless a new call takes that: that one tells the peer as well.
void Core::TellOver(uint32_t index, uint64_t id) {
  Peer& peer = *peers_[index];
  const uint32_t slot = SlotOf(id);
  const CallSlot& call = peer.calls[slot];
  if (peer.notice_count == Peer::kNoticesMax && call.sequence == SequenceOf(id) &&
      call.state == CallState::kFree) {
    if (!call.waiting.linked) peer.over_untold.PushBack(peer.calls.data(), slot);
    return;
  }
  PushNotice(index, {FrameType::kReject, MessageKind::kResponse, id,
                     static_cast<uint32_t>(absl::StatusCode::kCancelled), 0});
}

// Those that waited follow, as far as they leave room for others.
void Core::TellThoseOver(uint32_t index) {
  Peer& peer = *peers_[index];
  while (!peer.over_untold.empty() && peer.notice_count < Peer::kNoticesMax / 2) {
    const uint32_t slot = peer.over_untold.front();
    peer.over_untold.Remove(peer.calls.data(), slot);
    TellOver(index, MessageId(peer.calls[slot].sequence, slot));
  }
}

// The call has made progress: it goes behind all others that might be asked for.
void Core::Touch(Peer& peer, uint32_t slot, uint64_t now_ns) {
  peer.calls[slot].progress_ns = now_ns;
  peer.waiting_calls.Remove(peer.calls.data(), slot);
  peer.waiting_calls.PushBack(peer.calls.data(), slot);
}

}  // namespace weft::transport
