// SPDX-License-Identifier: Apache-2.0
// Acknowledgements, loss, timers. A packet is lost where three later ones have been acknowledged and it is
// older than max(SRTT, 200 us), or where a probe sent later has been. What it carried is sent again in a new
// packet, as it is needed by then.
#include <algorithm>
#include <bit>
#include <cstring>

#include "dataplane/base/attributes.h"
#include "dataplane/transport/core.h"

namespace weft::transport {
namespace {
constexpr uint64_t kLaterPackets = 3;
// 16,000 a second at a tick each 2 ms: whoever announces more than its tenant has memory for does not fill
// the pool of incoming messages for all others. Half of a peer's ring of notices.
constexpr uint32_t kRejectsPerTick = 32;
// Unfinished messages of a peer that one look at it, each StallNs, looks at.
constexpr uint32_t kUnfinishedPerLook = 64;
// Round trips of 125 ms: what is further away is asked for more often than it can answer.
constexpr uint64_t kPatienceMaxNs = 250 * kNsPerMs;
// Of a peer whose round trip is not known yet, beside probes_max: with 2 ms and 5, it has a second.
constexpr uint32_t kProbesMoreAtFirst = 3;
// A look in which the peer has sent other data counts so much less: on a slow link one message waits for all
// that is shorter.
constexpr uint32_t kLookWeight = 16;
}  // namespace

WEFT_HOT void Core::OnAck(uint32_t index, const ParsedFrame& frame, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  const uint64_t largest = frame.ack.largest;
  if (largest >= peer.next_counter) {
    ++counters_.frames_refused;
    return;
  }
  peer.share_bytes = std::max(static_cast<uint32_t>(frame.ack.share_bytes), segment_bytes_);
  if (peer.log.IsOutstanding(largest)) {
    // Callers' clocks may step back a little: core.h.
    const uint64_t elapsed = now_ns - std::min(now_ns, peer.log.SentNs(largest));
    if (elapsed >= frame.ack.delay_ns) {
      peer.brake.OnSample(elapsed - frame.ack.delay_ns, now_ns);
      grants_.SetPatience(index, PatienceNs(peer));
    }
  }
  bool progress = false;
  uint32_t acked_bytes = 0;
  const uint32_t words = frame.payload_bytes / 8;
  for (uint32_t i = 0; i < words; ++i) {
    uint64_t word;
    std::memcpy(&word, frame.payload + 8 * i, sizeof(word));
    const uint64_t base = (largest / 64 - i) * 64;
    for (uint64_t hits = word & peer.log.OutstandingWord(base); hits != 0; hits &= hits - 1) {
      acked_bytes += TakeAcked(peer, base + static_cast<uint32_t>(std::countr_zero(hits)));
      progress = true;
    }
  }
  if (!progress) return;
  peer.brake.OnAcked(acked_bytes);
  peer.progress_ns = now_ns;
  peer.probes = 0;
  if (largest >= kLaterPackets) peer.loss_below = std::max(peer.loss_below, largest - kLaterPackets + 1);
  if (peer.probe_counter != kNoCounter && largest >= peer.probe_counter) {
    peer.loss_below = std::max(peer.loss_below, peer.probe_counter);
    peer.probe_counter = kNoCounter;
  }
  DetectLosses(index, now_ns);
  ReleaseBlocked(peer);
}

WEFT_HOT uint32_t Core::TakeAcked(Peer& peer, uint64_t counter) {
  return peer.log.Take(counter, [this](const SentFrame& sent) {
    if (sent.type != FrameType::kData || sent.segment == kNone) return;
    const OutMessage& message = out_[sent.object];
    if (message.live && message.generation == sent.generation) MarkAcked(sent.object, sent.segment);
  });
}

void Core::TakeLost(uint32_t index, uint64_t counter) {
  Peer& peer = *peers_[index];
  ++counters_.packets_lost;
  peer.log.Take(counter, [this, index, &peer](const SentFrame& sent) {
    if (sent.type == FrameType::kData) {
      OutMessage& message = out_[sent.object];
      if (!message.live || message.generation != sent.generation) return;
      if (sent.segment != kNone) {
        MarkLost(sent.object, sent.segment);
      } else if (message.granted_bytes == 0) {
        message.announce = true;
      }
      UpdateReady(sent.object);
    } else if (sent.type == FrameType::kGrant) {
      const InMessage& message = in_[sent.object];
      if (message.state != InState::kReceiving || message.generation != sent.generation) return;
      if (!message.pending.linked) peer.grants_to_send.PushBack(in_.data(), sent.object);
      MakeUrgent(index);
    } else if (sent.type == FrameType::kReject) {
      const uint64_t id = uint64_t{sent.generation} << 32 | sent.object;
      if (sent.kind == MessageKind::kResponse) return TellOver(index, id);
      PushNotice(index, {FrameType::kReject, sent.kind, id, sent.code, 0});
    }
  });
}

void Core::DetectLosses(uint32_t index, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  const uint64_t patience = std::max(peer.brake.srtt_ns(), config_.loss_delay_ns);
  peer.loss_due_ns = kNever;
  while (!peer.log.empty() && peer.log.oldest() < peer.loss_below) {
    const uint64_t due = peer.log.SentNs(peer.log.oldest()) + patience;
    if (due > now_ns) {
      peer.loss_due_ns = due;
      timers_.ArmAtLatest(index, due);
      return;
    }
    TakeLost(index, peer.log.oldest());
  }
}

// Some messages may go on, now that the window has room. A few at a time: each of them will be acknowledged
// too.
void Core::ReleaseBlocked(Peer& peer) {
  for (int i = 0; i < 8 && !peer.blocked.empty() && MaySendData(peer); ++i) {
    const uint32_t out = peer.blocked.front();
    peer.blocked.Remove(out_.data(), out);
    SetBlocked(out_[out], false);
    send_queue_.Push(out_.data(), out, out_[out].RemainingBytes());
  }
}

// By when an answer of the peer should be here: two round trips, and probe_ns where that is longer or none is
// known. A peer that is slow to acknowledge puts off no more than its own end, and that not by much.
uint64_t Core::PatienceNs(const Peer& peer) const {
  return std::max(config_.probe_ns, std::min(2 * peer.brake.srtt_ns(), kPatienceMaxNs));
}

// The n-th probe follows the last progress by the patience * (1 + 2 + 4 + ... 2^(n-1)).
uint64_t Core::ProbeDueNs(const Peer& peer) const {
  return peer.progress_ns + PatienceNs(peer) * ((uint64_t{2} << peer.probes) - 1);
}

// When a peer of which something is awaited, and to which nothing is in flight, is asked whether it is there.
uint64_t Core::KeepaliveDueNs(const Peer& peer) const {
  if (peer.waiting_calls.empty() && peer.partial.empty()) return kNever;
  return std::max(peer.heard_ns, peer.progress_ns) + config_.keepalive_ns;
}

// When TickPeer has something to do for the peer. What is due already has been queued to be sent.
uint64_t Core::DueNs(const Peer& peer, uint64_t now_ns) const {
  if (peer.state != PeerState::kUp) return peer.revive_due_ns;
  uint64_t due = std::min(peer.loss_due_ns, peer.query_due_ns);
  if (peer.ack_due_ns > now_ns) due = std::min(due, peer.ack_due_ns);
  if (!peer.log.empty()) {
    due = std::min(due, ProbeDueNs(peer));
  } else if (!peer.ping_due) {
    due = std::min(due, KeepaliveDueNs(peer));
  }
  return due;
}

void Core::RunTimers(uint64_t now_ns) {
  if (memory_was_short_ && now_ns >= reclaim_from_ns_) [[unlikely]]
    ReclaimAnswers(now_ns);
  // A peer is looked at once a call: what is due again at once waits for the next.
  for (uint32_t looked = 0; looked < config_.peers_max && timers_.NextNs() <= now_ns; ++looked) {
    const uint32_t member = timers_.Front();
    timers_.PopFront();
    if (member == config_.peers_max) {
      TickGrants(now_ns);
      continue;
    }
    TickPeer(member, now_ns);
    timers_.ArmAtLatest(member, DueNs(*peers_[member], now_ns));
  }
}

// Messages that wait for grants: those that stopped coming, and those that there is no memory for. Two nodes
// could wait for each other's memory for ever, so the latter are rejected after a while.
void Core::TickGrants(uint64_t now_ns) {
  const auto before = [now_ns](uint64_t ns) { return now_ns - std::min(now_ns, ns); };
  grants_.WriteOffStalled(now_ns);
  for (uint32_t i = 0; i < kRejectsPerTick; ++i) {
    const uint32_t in = grants_.WithoutMemorySince(before(config_.memory_wait_ns),
                                                   [this](uint32_t message) { return ReserveIn(message); });
    if (in == kNone) break;
    RejectIn(in, absl::StatusCode::kResourceExhausted);
  }
  IssueGrants(now_ns);
  if (grants_.AnyWaiting()) timers_.ArmAtLatest(config_.peers_max, now_ns + config_.probe_ns);
}

void Core::TickPeer(uint32_t index, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  if (peer.ack_due_ns <= now_ns) MakeUrgent(index);
  if (peer.revive_due_ns <= now_ns) {
    peer.revive_due_ns = now_ns + config_.revive_ns;
    peer.ping_due = true;
    MakeUrgent(index);
  }
  if (peer.state != PeerState::kUp) return;
  if (peer.loss_due_ns <= now_ns) {
    DetectLosses(index, now_ns);
    ReleaseBlocked(peer);
  }
  if (!peer.log.empty()) {
    if (const uint64_t due_ns = ProbeDueNs(peer); now_ns >= due_ns) {
      const bool is_known = peer.brake.srtt_ns() != 0;
      if (peer.probes >= config_.probes_max + (is_known ? 0 : kProbesMoreAtFirst))
        return DeclareDead({index}, now_ns);
      // Time in which this side did not look is not the peer's silence: it has its whole time for each probe.
      peer.progress_ns += now_ns - due_ns;
      ++peer.probes;
      ++counters_.probes;
      if (is_known) peer.brake.OnProbe(now_ns);
      peer.ping_due = true;
      MakeUrgent(index);
    }
  } else if (now_ns >= KeepaliveDueNs(peer)) {
    peer.ping_due = true;
    MakeUrgent(index);
  }
  if (peer.query_due_ns <= now_ns) QueryStalled(index, now_ns);
}

// Gives up messages that were begun and do not come: else whoever begins many, of which nobody can say yet
// whether he may call at all, holds their records and memory for ever. That is asked for says nothing, and
// time in which this side did not look is not the peer's silence, so the time is counted by looks. What has
// nothing granted that has not come waits for this side.
void Core::GiveUpUnfinished(uint32_t index, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  const uint64_t looks_max = config_.unfinished_ns / kNsPerMs * kLookWeight;
  const bool sends = (peer.sent_data_window + 1) * kNsPerMs + StallNs(peer) > now_ns;
  peer.looks += static_cast<uint32_t>(StallNs(peer) / kNsPerMs * (sends ? 1 : kLookWeight));
  uint32_t in = peer.partial.front();
  for (uint32_t seen = 0, rejected = 0;
       in != kNone && seen < kUnfinishedPerLook && rejected < kRejectsPerTick; ++seen) {
    const InMessage& message = in_[in];
    const uint32_t next = peer.partial.Next(in_.data(), in);
    const bool over = message.timeout_ns != 0 && now_ns >= message.arrived_ns + message.timeout_ns;
    const bool owed = !message.scheduled || message.granted_bytes > message.received_bytes;
    if (over || (owed && peer.looks - message.looks > looks_max)) {
      ++rejected;
      grants_.Judge(in, now_ns);
      RejectIn(in, absl::StatusCode::kDeadlineExceeded);
    }
    in = next;
  }
}

// Asks for the message, or the fate of the call, that has been without progress the longest: one at a time.
void Core::QueryStalled(uint32_t index, uint64_t now_ns) {
  Peer& peer = *peers_[index];
  GiveUpUnfinished(index, now_ns);
  peer.query_due_ns = peer.partial.empty() && peer.waiting_calls.empty() ? kNever : now_ns + StallNs(peer);
  // The lists are in order of arrival, nearly that of progress: a few from the front are looked at.
  uint32_t in = peer.partial.front();
  for (uint32_t seen = 0; in != kNone && seen < 16; ++seen, in = peer.partial.Next(in_.data(), in)) {
    InMessage& message = in_[in];
    if (now_ns - message.progress_ns < StallNs(peer)) continue;
    const uint32_t end = message.scheduled ? message.granted_bytes : message.bytes;
    uint32_t segment = 0;
    while (segment * message.segment_bytes < end && message.received.Get(segment)) ++segment;
    if (segment * message.segment_bytes >= end && message.scheduled && end < message.bytes && end > 0)
      continue;
    ++counters_.resends_asked;
    message.progress_ns = now_ns;
    PushNotice(index, {FrameType::kResend, message.kind, message.id, segment * message.segment_bytes,
                       end - std::min(end, segment * message.segment_bytes)});
    peer.partial.Remove(in_.data(), in);
    peer.partial.PushBack(in_.data(), in);
    return;
  }
  const uint32_t slot = peer.waiting_calls.front();
  if (slot == kNone) return;
  const CallSlot& call = peer.calls[slot];
  // A request that waits for grants is asked for as well: the peer may have given us up meanwhile, and the
  // message with us.
  if ((call.out != kNone && out_[call.out].Sendable()) || now_ns - call.progress_ns < StallNs(peer)) return;
  ++counters_.resends_asked;
  PushNotice(index, {FrameType::kResend, MessageKind::kResponse, MessageId(call.sequence, slot), 0, 0});
  Touch(peer, slot, now_ns);
}

}  // namespace weft::transport
