// SPDX-License-Identifier: Apache-2.0
#include "dataplane/transport/grant_scheduler.h"

#include <algorithm>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"

namespace weft::transport {

GrantScheduler::GrantScheduler(const Config& config, uint32_t segment_bytes, InMessage* messages)
    : config_(config),
      segment_bytes_(segment_bytes),
      messages_(messages),
      senders_(config.peers_max),
      turns_to_oldest_(config.oldest_share_one_in) {
  WEFT_CHECK(config.granted_messages_max < kActiveMax);
  for (Sender& sender : senders_) sender.limit_bytes = config.granted_bytes_per_peer_max;
}

uint32_t GrantScheduler::QuantumOf(const InMessage& message) const {
  return std::min(config_.grant_quantum_segments * segment_bytes_, message.bytes - message.granted_bytes);
}

// Room for a whole quantum, so that a GRANT frame is not spent on each segment; and always for one message
// where nothing is granted, so that bounds below a quantum do not stop everything.
bool GrantScheduler::HasRoomInAll(const InMessage& message) const {
  return outstanding_bytes_ == 0 || outstanding_bytes_ + QuantumOf(message) <= config_.granted_bytes_max;
}

bool GrantScheduler::HasRoom(const InMessage& message) const {
  const Sender& sender = senders_[message.peer];
  return HasRoomInAll(message) &&
         (sender.credit_bytes == 0 || sender.credit_bytes + QuantumOf(message) <= sender.limit_bytes);
}

// One message a sender, and a second one where it is the shorter.
bool GrantScheduler::MayActivate(const InMessage& message) const {
  if (active_count_ >= config_.granted_messages_max) return false;
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
  if (message.active) return;
  message.active = true;
  active_[active_count_++] = index;
  ++senders_[message.peer].active;
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

WEFT_HOT void GrantScheduler::OnArrival(uint32_t index, uint32_t bytes, bool congested, uint64_t now_ns) {
  InMessage& message = messages_[index];
  Sender& sender = senders_[message.peer];
  TakeBack(&message, std::min(bytes, message.credit_bytes));
  sender.arrived_bytes += bytes;
  if (congested) sender.congested_bytes += bytes;
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

void GrantScheduler::Remove(uint32_t index) {
  InMessage& message = messages_[index];
  if (!message.age.linked) return;
  TakeBack(&message, message.credit_bytes);
  if (message.active) Deactivate(index);
  if (message.grant.linked) waiting_.Remove(messages_, index);
  by_age_.Remove(messages_, index);
}

void GrantScheduler::WriteOffStalled(uint64_t before_ns) {
  for (uint32_t i = 0; i < active_count_;) {
    const uint32_t index = active_[i];
    InMessage& message = messages_[index];
    if (message.progress_ns >= before_ns) {
      ++i;
      continue;
    }
    TakeBack(&message, message.credit_bytes);
    Deactivate(index);  // Puts another one in place i.
    message.stalled = true;
  }
}

}  // namespace weft::transport
