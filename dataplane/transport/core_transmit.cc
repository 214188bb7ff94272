// SPDX-License-Identifier: Apache-2.0
// Datagrams out: which peer and message come next, what shares the datagram, sealing. Nothing waits for
// company: a datagram carries what is ready when it is built.
#include <algorithm>
#include <cstring>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/transport/core.h"

namespace weft::transport {
namespace {
// Frames that one datagram can add to the log: half of them data, and half grants and notices.
constexpr uint32_t kFramesPerDatagramMax = 64;
// Ready messages of a peer looked at to fill a datagram.
constexpr uint32_t kCompanyScanMax = 32;
constexpr uint32_t kOldestScanMax = 16;
}  // namespace

void Core::MakeUrgent(uint32_t peer) {
  if (!urgent_peers_[peer].hook.linked) urgent_.PushBack(urgent_peers_.data(), peer);
}

bool Core::HasUrgent(const Peer& peer, uint64_t now_ns) {
  return peer.ping_due || peer.close_due || peer.notice_count > 0 || !peer.grants_to_send.empty() ||
         (peer.ack_pending > 0 && peer.ack_due_ns <= now_ns);
}

// What each peer may send unasked: an equal part of the pool for those that sent data within the last 1 to 2
// ms.
uint32_t Core::AdvertisedShare(uint64_t now_ns) {
  const uint64_t window = now_ns / kNsPerMs + 1;
  if (share_window_ != window) {
    share_senders_before_ = share_window_ + 1 == window ? share_senders_ : 0;
    share_senders_ = 0;
    share_window_ = window;
  }
  const uint32_t senders = std::max({share_senders_, share_senders_before_, 1u});
  return std::max(config_.unscheduled_pool_bytes / senders, segment_bytes_);
}

// Hands out grants while there is room, and has them sent.
void Core::IssueGrants(uint64_t now_ns) {
  for (uint32_t i = 0; i < kFramesPerDatagramMax; ++i) {
    const uint32_t in = grants_.Next(now_ns, [this](uint32_t message) { return ReserveIn(message); });
    if (in == kNone) break;
    ++counters_.grants;
    InMessage& message = in_[in];
    // Its time begins where nothing else is granted that has not come: until then it waited for this side.
    if (message.granted_bytes <= message.received_bytes + message.quantum_bytes)
      message.looks = peers_[message.peer]->looks;
    if (!message.pending.linked) peers_[message.peer]->grants_to_send.PushBack(in_.data(), in);
    MakeUrgent(message.peer);
  }
  if (grants_.AnyWaiting()) timers_.ArmAtLatest(config_.peers_max, now_ns + config_.probe_ns);
}

bool Core::MaySendData(const Peer& peer) const {
  if (peer.state != PeerState::kUp) return false;
  if (peer.log.empty()) return true;
  return peer.log.in_flight_bytes() + segment_bytes_ <= peer.brake.window_bytes() &&
         peer.log.frames_free() >= 2 * kFramesPerDatagramMax;
}

// The message with the least left to send, by turns the oldest; kNone where nothing may be sent.
WEFT_HOT_INLINE uint32_t Core::PickMessage() {
  if (turns_to_oldest_ == 0) {
    uint32_t out = out_by_age_.front();
    for (uint32_t seen = 0; out != kNone && seen < kOldestScanMax; ++seen) {
      if (out_[out].ready.linked && !out_[out].blocked && MaySendData(*peers_[out_[out].peer])) {
        turns_to_oldest_ = config_.oldest_share_one_in;
        return out;
      }
      out = out_by_age_.Next(out_.data(), out);
    }
  }
  // Each round takes a message away from the queue, so this ends.
  while (true) {
    const uint32_t out = send_queue_.front();
    if (out == kNone) return kNone;
    Peer& peer = *peers_[out_[out].peer];
    if (MaySendData(peer)) {
      if (turns_to_oldest_ > 0) --turns_to_oldest_;
      return out;
    }
    send_queue_.Remove(out_.data(), out);
    SetBlocked(out_[out], true);
    peer.blocked.PushBack(out_.data(), out);
  }
}

WEFT_HOT std::size_t Core::NextDatagram(uint8_t* out, uint64_t now_ns, uint64_t* path) {
  if (grants_.AnyWaiting()) IssueGrants(now_ns);
  if (config_.link_bits_per_second != 0 && link_free_ns_ > now_ns + config_.pacing_slack_ns) return 0;
  while (true) {
    uint32_t index, message = kNone;
    if (!urgent_.empty()) {
      index = urgent_.front();
      urgent_.Remove(urgent_peers_.data(), index);
      if (!HasUrgent(*peers_[index], now_ns)) continue;
    } else {
      message = PickMessage();
      if (message == kNone) return 0;
      index = out_[message].peer;
    }
    const std::size_t bytes = Build(index, message, out, now_ns);
    if (bytes == 0) continue;
    *path = peers_[index]->path;
    ++counters_.datagrams_out;
    counters_.bytes_out += bytes;
    if (config_.link_bits_per_second != 0) {
      const uint64_t bits = (bytes + config_.wire_overhead_bytes) * 8;
      link_free_ns_ = std::max(link_free_ns_, now_ns) + bits * kNsPerSecond / config_.link_bits_per_second;
    }
    return bytes;
  }
}

WEFT_HOT_INLINE std::size_t Core::Build(uint32_t index, uint32_t message, uint8_t* out, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  if (peer.send_key_id == 0) return 0;  // What waits goes out once there is one.
  // The log spans a bounded number of counters: what is older than that is given up for lost.
  while (!peer.log.Spans(peer.next_counter) || peer.log.frames_free() < kFramesPerDatagramMax + 8) {
    TakeLost(index, peer.log.oldest());
  }
  FrameWriter writer(out + WEFT_PACKET_HEADER_BYTES,
                     peer.datagram_bytes_max - WEFT_PACKET_HEADER_BYTES - WEFT_PACKET_TAG_BYTES);
  const bool was_empty = peer.log.empty();
  peer.log.Begin();
  if (peer.ack_pending > 0 && (peer.ack_due_ns <= now_ns || 2 * peer.ack_pending >= config_.ack_every)) {
    WriteAck(peer, &writer, now_ns);
  }
  const bool urgent = HasUrgent(peer, now_ns);
  if (urgent) WriteControl(index, &writer);
  WriteData(index, message, &writer, now_ns);
  if (urgent && HasUrgent(peer, now_ns)) MakeUrgent(index);
  if (writer.bytes() == 0) return 0;
  const uint64_t counter = peer.next_counter++;
  StoreWords(out, peer.header_begin, __builtin_bswap64(counter));
  peer.send_key.Seal(counter, out, out + WEFT_PACKET_HEADER_BYTES, writer.bytes());
  const auto bytes = static_cast<uint32_t>(WEFT_PACKET_HEADER_BYTES + writer.bytes() + WEFT_PACKET_TAG_BYTES);
  if (peer.state == PeerState::kUp) {
    peer.log.Finish(counter, bytes, now_ns);
    if (was_empty && !peer.log.empty()) {
      peer.progress_ns = now_ns;
      timers_.ArmAtLatest(index, now_ns + config_.probe_ns);
    }
  }
  return bytes;
}

void Core::WriteAck(Peer& peer, FrameWriter* writer, uint64_t now_ns) {
  uint64_t words[kAckWordsMax];
  const uint64_t largest = peer.received.largest();
  // What came since the last ACK, and at least 64 counters before it in case that ACK was lost.
  const uint64_t wanted = largest / 64 - peer.ack_low / 64 + 2;
  const auto count = static_cast<uint32_t>(std::min<uint64_t>({wanted, kAckWordsMax, largest / 64 + 1}));
  for (uint32_t i = 0; i < count; ++i) words[i] = peer.received.WordOf(largest - uint64_t{64} * i);
  const uint64_t delay = now_ns - peer.largest_arrival_ns;
  writer->Ack(static_cast<uint32_t>(std::min<uint64_t>(delay, ~uint32_t{0})), AdvertisedShare(now_ns),
              largest, words, count);
  peer.ack_pending = 0;
  peer.ack_due_ns = kNever;
}

// Everything small that waits for this peer, as far as it fits.
void Core::WriteControl(uint32_t index, FrameWriter* writer) {
  Peer& peer = *peers_[index];
  if (peer.close_due) {
    writer->Bare(FrameType::kClose);
    peer.close_due = false;
    return;
  }
  uint32_t frames = 0;
  if (peer.ping_due) {
    writer->Bare(FrameType::kPing);
    peer.log.AddFrame({FrameType::kPing, MessageKind::kRequest, 0, 0, 0, 0});
    peer.probe_counter = peer.next_counter;
    peer.ping_due = false;
  }
  for (; peer.notice_count > 0 && writer->room() >= sizeof(ResendFrame) && frames < kFramesPerDatagramMax / 4;
       ++frames) {
    const Notice& notice = peer.notices[peer.notice_head];
    if (notice.type == FrameType::kResend) {
      writer->Resend(notice.kind, notice.id, notice.first, notice.second);
    } else {
      writer->Notice(notice.type, notice.kind, notice.id, notice.first);
    }
    peer.log.AddFrame({notice.type, notice.kind, static_cast<uint16_t>(notice.first),
                       static_cast<uint32_t>(notice.id), static_cast<uint32_t>(notice.id >> 32), 0});
    peer.notice_head = (peer.notice_head + 1) % Peer::kNoticesMax;
    --peer.notice_count;
  }
  TellThoseOver(index);
  for (; !peer.grants_to_send.empty() && writer->room() >= sizeof(GrantFrame) &&
         frames < kFramesPerDatagramMax / 2;
       ++frames) {
    const uint32_t in = peer.grants_to_send.front();
    peer.grants_to_send.Remove(in_.data(), in);
    const InMessage& message = in_[in];
    writer->Grant(message.kind, message.id, message.granted_bytes);
    peer.log.AddFrame({FrameType::kGrant, message.kind, 0, in, message.generation, 0});
  }
}

// Writes the next piece of a message that has one. False where it does not fit.
WEFT_HOT bool Core::WriteSegment(uint32_t out, FrameWriter* writer, uint64_t now_ns) {
  OutMessage& message = out_[out];
  const bool target = message.kind != MessageKind::kResponse;
  const std::size_t overhead = sizeof(DataFrame) + (target ? sizeof(DataTarget) : 0);
  uint32_t segment = kNone;
  if (!message.announce) {
    segment = message.next_segment;
    if (message.lost_segments > 0) {
      while (!message.lost.Get(message.lost_hint)) ++message.lost_hint;
      segment = message.lost_hint;
    }
  }
  const uint32_t offset = segment == kNone ? 0 : segment * message.segment_bytes;
  const uint32_t bytes =
      segment == kNone ? 0 : std::min<uint32_t>(message.segment_bytes, message.bytes - offset);
  if (writer->room() < overhead + bytes) return false;
  uint8_t flags = 0;
  if (segment == kNone) {
    message.announce = false;
  } else if (segment == message.next_segment) {
    GrantsInHand(message) -= message.UnusedGrantBytes();
    ++message.next_segment;
    GrantsInHand(message) += message.UnusedGrantBytes();
  } else {
    flags |= kFlagRetransmission;
    message.lost.Clear(segment);
    --message.lost_segments;
    ++counters_.segments_resent;
  }
  // What another peer has granted and does not take is no reason for this one to grant less.
  if (unused_grant_bytes_ + peers_[message.peer]->blocked_grant_bytes > config_.congested_bytes)
    flags |= kFlagCongested;
  DataTarget to{message.function, 0, 0};
  if (target && message.deadline_ns != 0) {
    const uint64_t left = message.deadline_ns > now_ns ? (message.deadline_ns - now_ns) / kNsPerUs : 0;
    to.timeout_us = static_cast<uint32_t>(std::clamp<uint64_t>(left, 1, ~uint32_t{0}));
  }
  writer->Data(message.kind, flags,
               {{}, message.bytes, message.id, offset, message.segment_bytes, message.code},
               target ? &to : nullptr, bytes == 0 ? nullptr : blocks_.Data(message.block) + offset, bytes);
  peers_[message.peer]->log.AddFrame({FrameType::kData, message.kind, 0, out, message.generation, segment});
  message.segments == 1 ? RemoveReady(out) : UpdateReady(out);
  return true;
}

// `first` (kNone: none), then other messages for the same peer that fit into what is left of the datagram.
WEFT_HOT void Core::WriteData(uint32_t index, uint32_t first, FrameWriter* writer, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  if (first != kNone && !WriteSegment(first, writer, now_ns)) {
    // ACK and grants took the room: it goes next.
    return;
  }
  if (!config_.coalesce || peer.ready.empty() || !MaySendData(peer)) return;
  uint32_t frames = 0;
  uint32_t out = peer.ready.front();
  for (uint32_t seen = 0; out != kNone && seen < kCompanyScanMax; ++seen) {
    if (writer->room() < sizeof(DataFrame) + sizeof(DataTarget)) return;
    const uint32_t next = peer.ready.Next(out_.data(), out);
    while (out_[out].ready.linked && ++frames < kFramesPerDatagramMax / 2 &&
           WriteSegment(out, writer, now_ns)) {
    }
    out = next;
  }
}

}  // namespace weft::transport
