// SPDX-License-Identifier: Apache-2.0
#include "dataplane/transport/grant_scheduler.h"

#include <algorithm>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"

namespace weft::transport {

GrantScheduler::GrantScheduler(const Config& config, uint32_t segment_bytes, InMessage* messages)
    : config_(config),
      segment_bytes_(segment_bytes),
      quantum_bytes_(segment_bytes * std::max(config.grant_quantum_segments,
                                              config.granted_bytes_max / kQuantaMax / segment_bytes)),
      messages_(messages),
      senders_(config.peers_max),
      turns_to_oldest_(config.oldest_share_one_in) {
  WEFT_CHECK(config.granted_messages_max < kActiveMax);
  for (Sender& sender : senders_) {
    sender.limit_bytes = config.granted_bytes_per_peer_max;
    sender.patience_ns = config.probe_ns;
  }
}

uint32_t GrantScheduler::QuantumOf(const InMessage& message) const {
  return std::min(message.quantum_bytes, message.bytes - message.granted_bytes);
}

// A short message need not wait until long ones have used up what they hold: it finds room beside them.
uint32_t GrantScheduler::ExtraFor(const InMessage& message) const {
  return message.bytes <= config_.bandwidth_delay_bytes ? config_.bandwidth_delay_bytes : 0;
}

// Room for a whole quantum, so that a GRANT frame is not spent on each segment; and always for one message
// where nothing is granted, so that bounds below a quantum do not stop everything.
bool GrantScheduler::HasRoomInAll(const InMessage& message) const {
  return outstanding_bytes_ == 0 || outstanding_bytes_ + expected_bytes_ + QuantumOf(message) <=
                                        config_.granted_bytes_max + ExtraFor(message);
}

bool GrantScheduler::HasRoom(const InMessage& message) const {
  const Sender& sender = senders_[message.peer];
  if (sender.late_bytes > 0 && sender.credit_bytes > 0) return false;
  return HasRoomInAll(message) && (sender.credit_bytes == 0 || sender.credit_bytes + QuantumOf(message) <=
                                                                   sender.limit_bytes + ExtraFor(message));
}

// Late senders together have half of the places: one node may speak by several workers, each of which is one.
bool GrantScheduler::LateMayActivate(const InMessage& message) const {
  if (senders_[message.peer].late_bytes == 0) return true;
  uint32_t late = 0;
  for (uint32_t i = 0; i < active_count_; ++i) late += senders_[messages_[active_[i]].peer].late_bytes > 0;
  return late < std::max(config_.granted_messages_max / 2, 1u);
}

// One message a sender, and a second one where it is the shorter.
bool GrantScheduler::MayActivate(const InMessage& message) const {
  if (active_count_ >= config_.granted_messages_max || !LateMayActivate(message)) return false;
  const Sender& sender = senders_[message.peer];
  if (sender.active == 0) return true;
  if (sender.active > 1) return false;
  for (uint32_t i = 0; i < active_count_; ++i) {
    const InMessage& other = messages_[active_[i]];
    if (other.peer == message.peer) {
      return message.bytes - message.received_bytes < other.bytes - other.received_bytes;
    }
  }
  return true;
}

void GrantScheduler::Add(uint32_t index) {
  InMessage& message = messages_[index];
  // Whole segments as its sender cuts them, whose datagrams may be of another size. It sends no part of one:
  // what came beyond a grant would be granted once more and never come, and a sender that may hold no more
  // than one grant would be granted nothing for as long as that is counted.
  message.quantum_bytes = std::max(quantum_bytes_ / message.segment_bytes, 1u) * message.segment_bytes;
  waiting_.Push(messages_, index, message.bytes - message.received_bytes);
  by_age_.PushBack(messages_, index);
}

WEFT_HOT void GrantScheduler::Grant(uint32_t index, uint64_t now_ns) {
  InMessage& message = messages_[index];
  const uint32_t bytes = QuantumOf(message);
  message.granted_bytes += bytes;
  message.credit_bytes += bytes;
  message.progress_ns = now_ns;
  senders_[message.peer].credit_bytes += bytes;
  outstanding_bytes_ += bytes;
  TakeLink(bytes, now_ns);
  if (message.active) return;
  Judge(index, now_ns);
  if (message.frontier_bytes >= message.due_bytes) {
    message.due_bytes = message.granted_bytes;
    message.due_from_ns = now_ns;
  }
  message.active = true;
  active_[active_count_++] = index;
  ++senders_[message.peer].active;
  RemoveWaiting(index);
}

void GrantScheduler::RemoveWaiting(uint32_t index) {
  if (next_look_ == index) next_look_ = waiting_.Next(messages_, index);
  waiting_.Remove(messages_, index);
}

void GrantScheduler::TakeBack(InMessage* message, uint32_t bytes) {
  message->credit_bytes -= bytes;
  senders_[message->peer].credit_bytes -= bytes;
  outstanding_bytes_ -= bytes;
}

void GrantScheduler::Deactivate(uint32_t index) {
  InMessage& message = messages_[index];
  message.active = false;
  --senders_[message.peer].active;
  for (uint32_t i = 0; i < active_count_; ++i) {
    if (active_[i] != index) continue;
    active_[i] = active_[--active_count_];
    return;
  }
}

// What lies before the furthest byte that arrived is no longer in flight, arrived or not: a lost segment must
// not hold back grants for as long as it takes to be sent again.
WEFT_HOT void GrantScheduler::OnArrival(uint32_t index, uint32_t end, bool congested) {
  InMessage& message = messages_[index];
  Sender& sender = senders_[message.peer];
  const uint32_t bytes = end > message.frontier_bytes ? end - message.frontier_bytes : 0;
  message.frontier_bytes += bytes;
  TakeBack(&message, std::min(bytes, message.credit_bytes));
  sender.arrived_bytes += bytes;
  if (congested) sender.congested_bytes += bytes;
  sender.late_bytes -= std::min(sender.late_bytes, bytes);
  if (message.frontier_bytes >= message.due_bytes) {
    message.due_bytes = message.granted_bytes;
    message.due_from_ns = message.progress_ns;
  }
  if (sender.arrived_bytes >= sender.limit_bytes) Adjust(&sender);
  const bool was_stalled = message.stalled;
  message.stalled = false;
  if (message.active && message.credit_bytes == 0) {
    Deactivate(index);
  } else if (!was_stalled) {
    return;
  }
  if (message.granted_bytes < message.bytes) {
    waiting_.Push(messages_, index, message.bytes - message.received_bytes);
  }
}

// Once for each window's worth of data: down by half the marked part, else up by a segment.
void GrantScheduler::Adjust(Sender* sender) {
  if (sender->congested_bytes > 0) {
    const uint64_t cut = uint64_t{sender->limit_bytes} * sender->congested_bytes / sender->arrived_bytes / 2;
    sender->limit_bytes -= static_cast<uint32_t>(cut);
  } else {
    sender->limit_bytes += segment_bytes_;
  }
  sender->limit_bytes = std::clamp(sender->limit_bytes, segment_bytes_, config_.granted_bytes_per_peer_max);
  sender->arrived_bytes = 0;
  sender->congested_bytes = 0;
}

// Grants leave at the pace of the link that their data will come in on, so that data that its sender could
// not send at once does not meet other data in the last queue.
void GrantScheduler::TakeLink(uint32_t bytes, uint64_t now_ns) {
  if (config_.link_bits_per_second == 0) return;
  const uint64_t segments = (bytes + segment_bytes_ - 1) / segment_bytes_;
  const uint64_t wire_bytes = bytes + segments * (config_.wire_overhead_bytes + kDataOverheadBytes);
  link_free_ns_ = std::max(link_free_ns_, now_ns) + wire_bytes * 8 * kNsPerSecond /
                                                        config_.link_bits_per_second * 100 /
                                                        config_.grant_pace_percent;
}

void GrantScheduler::OnUnasked(uint32_t bytes, uint64_t now_ns) { TakeLink(bytes, now_ns); }

void GrantScheduler::Expect(uint32_t index, uint32_t bytes) {
  messages_[index].expected_bytes = std::min(bytes, config_.unscheduled_bytes_max);
  expected_bytes_ += messages_[index].expected_bytes;
  expected_.PushBack(messages_, index);
}

void GrantScheduler::OnExpected(uint32_t index, uint32_t bytes) {
  InMessage& message = messages_[index];
  const uint32_t come = std::min(bytes, message.expected_bytes);
  message.expected_bytes -= come;
  expected_bytes_ -= come;
  if (!expected_.Linked(message) || message.scheduled) return;
  expected_.Remove(messages_, index);
  if (message.expected_bytes > 0) expected_.PushBack(messages_, index);
}

void GrantScheduler::Remove(uint32_t index) {
  InMessage& message = messages_[index];
  OnExpected(index, message.expected_bytes);
  if (!message.age.linked) return;
  TakeBack(&message, message.credit_bytes);
  if (message.active) Deactivate(index);
  if (message.grant.linked) RemoveWaiting(index);
  by_age_.Remove(messages_, index);
}

// It is so until as much has come from it as may be granted in all.
void GrantScheduler::Judge(uint32_t index, uint64_t now_ns) {
  const InMessage& message = messages_[index];
  if (IsDue(message, now_ns)) senders_[message.peer].late_bytes = config_.granted_bytes_max;
}

bool GrantScheduler::IsStalled(const InMessage& message, uint64_t now_ns) const {
  return now_ns > message.progress_ns + 2 * senders_[message.peer].patience_ns;
}

void GrantScheduler::WriteOffStalled(uint64_t now_ns) {
  for (uint32_t i = 0; i < active_count_;) {
    const uint32_t index = active_[i];
    InMessage& message = messages_[index];
    if (!IsStalled(message, now_ns) && !IsDue(message, now_ns)) {
      ++i;
      continue;
    }
    Judge(index, now_ns);
    TakeBack(&message, message.credit_bytes);
    Deactivate(index);  // Puts another one in place i.
    message.stalled = true;
    by_age_.Remove(messages_, index);
    by_age_.PushBack(messages_, index);
  }
  uint32_t index = expected_.front();
  for (uint32_t seen = 0; index != kNone && seen < kScanMax; ++seen) {
    const uint32_t next = expected_.Next(messages_, index);
    if (IsStalled(messages_[index], now_ns)) OnExpected(index, messages_[index].expected_bytes);
    index = next;
  }
}

}  // namespace weft::transport
