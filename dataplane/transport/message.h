// SPDX-License-Identifier: Apache-2.0
// Messages in the making, as the core keeps them: outgoing and incoming ones in fixed pools, and the slots
// that give each call of a session its identity. Internal to the transport.
#ifndef WEFT_DATAPLANE_TRANSPORT_MESSAGE_H_
#define WEFT_DATAPLANE_TRANSPORT_MESSAGE_H_

#include <cstdint>

#include "dataplane/base/attributes.h"
#include "dataplane/transport/block_pool.h"
#include "dataplane/transport/frame.h"
#include "dataplane/transport/index_list.h"

namespace weft::transport {

// One bit a segment. Up to 64 segments (88 KB at 1,400 B) lie in the object, more in a block of their own.
struct SegmentBits {
  uint64_t word = 0;
  uint64_t* words = nullptr;  // Null: `word`.

  bool Get(uint32_t segment) const { return (At(segment / 64) >> (segment % 64) & 1) != 0; }
  void Set(uint32_t segment) { At(segment / 64) |= uint64_t{1} << (segment % 64); }
  void Clear(uint32_t segment) { At(segment / 64) &= ~(uint64_t{1} << (segment % 64)); }
  uint64_t& At(uint32_t index) { return words == nullptr ? word : words[index]; }
  const uint64_t& At(uint32_t index) const { return words == nullptr ? word : words[index]; }
};

constexpr uint32_t SegmentsOf(uint32_t message_bytes, uint32_t segment_bytes) {
  return message_bytes <= segment_bytes ? 1 : (message_bytes + segment_bytes - 1) / segment_bytes;
}

// What a message of one segment needs lies in the first two lines.
struct alignas(kCacheLineBytes) OutMessage {
  ListHook ready;       // In the send queue, by remaining size; or among its peer's blocked ones.
  ListHook peer_ready;  // Among its peer's ready ones, for coalescing.
  uint32_t ready_class = 0;
  uint32_t generation = 0;  // Counts the uses of this object, so that a late ACK finds nothing.
  bool live = false;
  bool blocked = false;   // `ready` is on the peer's list.
  bool announce = false;  // An announcement is to be sent.
  bool scheduled = false;
  MessageKind kind = MessageKind::kRequest;
  uint16_t code = 0;
  uint16_t segment_bytes = 0;
  uint32_t peer = 0;
  uint32_t tenant = 0;
  uint64_t id = 0;
  uint64_t function = 0;
  uint64_t deadline_ns = 0;  // 0: none.
  Block block;
  uint32_t bytes = 0;
  uint32_t segments = 0;
  uint32_t next_segment = 0;  // First one never sent.
  uint32_t granted_bytes = 0;
  uint32_t lost_segments = 0;
  uint32_t acked_segments = 0;
  SegmentBits acked;
  SegmentBits lost;
  uint32_t lost_hint = 0;       // No lost segment lies below.
  ListHook age;                 // Among all unfinished ones of several segments, in order of creation.
  ListHook owed;                // Of those, answers: among Core::answers_owed_,
  uint64_t started_ns = 0;      // and when they were filled.
  uint64_t resend_from_ns = 0;  // Of several segments: when a RESEND is followed again.
  Block bits_block;

  // Makes a used object like a new one, but for its generation. What FreeOut and leaving a list have reset,
  // hooks and blocks, is left alone; member by member, since clearing the whole by a string instruction takes
  // longer than all else that is done to a small message here.
  void Renew() {
    ++generation;
    kind = MessageKind::kRequest;
    code = 0;
    segment_bytes = 0;
    peer = tenant = 0;
    id = function = deadline_ns = 0;
    announce = scheduled = false;
    if (segments > 1 || lost_segments > 0) {
      lost = SegmentBits{};
      lost_hint = 0;
      resend_from_ns = 0;
    }
    bytes = segments = next_segment = granted_bytes = lost_segments = acked_segments = 0;
    acked = SegmentBits{};
  }

  uint32_t AllowedSegments() const {
    return granted_bytes >= bytes ? segments : (granted_bytes + segment_bytes - 1) / segment_bytes;
  }
  bool Sendable() const { return announce || lost_segments > 0 || next_segment < AllowedSegments(); }
  uint32_t RemainingBytes() const { return (segments - next_segment + lost_segments) * segment_bytes; }
  // Grants in hand that have not been used.
  uint32_t UnusedGrantBytes() const {
    const uint32_t sent = next_segment * segment_bytes;
    return scheduled && granted_bytes > sent ? granted_bytes - sent : 0;
  }
};

enum class InState : uint8_t { kFree, kReserved, kReceiving, kDelivered };

struct alignas(kCacheLineBytes) InMessage {
  uint32_t generation = 0;
  InState state = InState::kFree;
  MessageKind kind = MessageKind::kRequest;
  bool scheduled = false;
  bool active = false;   // Holds granted bytes that have not arrived.
  bool stalled = false;  // Its grants were written off for want of progress.
  uint16_t code = 0;
  uint32_t peer = 0;
  uint32_t tenant = 0;
  uint32_t segment_bytes = 0;
  uint64_t id = 0;
  uint64_t function = 0;
  uint64_t timeout_ns = 0;
  Block block;
  uint32_t bytes = 0;
  uint32_t segments = 0;
  uint64_t arrived_ns = 0;   // Of the first frame.
  uint64_t progress_ns = 0;  // Of the last new bytes, or when more of them were granted or asked for.
  SegmentBits received;
  uint32_t received_segments = 0;
  uint32_t received_bytes = 0;
  uint32_t granted_bytes = 0;
  uint32_t quantum_bytes = 0;   // Granted at a time.
  uint32_t expected_bytes = 0;  // Sent unasked, not arrived, counted likewise.
  uint32_t frontier_bytes = 0;  // End of the furthest segment that arrived.
  uint32_t credit_bytes = 0;    // Granted, beyond the frontier, counted in the scheduler's sum.
  uint32_t due_bytes = 0;       // Where the frontier is to be late_ns after due_from_ns.
  uint64_t due_from_ns = 0;
  uint32_t grant_class = 0;
  // What follows is used where WaitsForMore only.
  ListHook grant;                 // Among those that wait for grants, by remaining size, or came unasked.
  ListHook age;                   // Among all that need grants, in order of arrival.
  ListHook pending;               // Among its peer's grants to send.
  ListHook partial;               // Among its peer's unfinished messages, for stall detection.
  uint32_t looks = 0;             // Peer::looks as of the last new bytes, or of when they were granted.
  uint32_t unfinished_bytes = 0;  // Counted with its peer's.
  Block bits_block;

  // Whether it is one that does not come whole with its first frame, and can be on a list.
  bool WaitsForMore() const { return segments > 1 || scheduled; }

  // As OutMessage::Renew.
  void Renew() {
    ++generation;
    state = InState::kReserved;
    kind = MessageKind::kRequest;
    scheduled = active = stalled = false;
    code = 0;
    peer = tenant = 0;
    id = function = arrived_ns = progress_ns = timeout_ns = 0;
    bytes = segment_bytes = segments = received_segments = received_bytes = 0;
    granted_bytes = expected_bytes = frontier_bytes = credit_bytes = due_bytes = 0;
    received = SegmentBits{};
  }
};

// A call or one-way message that this side began. The n-th use of slot s is the message MessageId(n, s).
enum class CallState : uint8_t { kFree, kWaiting, kEnded };
struct alignas(kCacheLineBytes) CallSlot {
  uint64_t sequence = 0;
  uint64_t user = 0;
  uint64_t progress_ns = 0;
  uint32_t out = kNone;  // The request or one-way message, until every segment is acknowledged.
  uint32_t in = kNone;   // The response, reserved from the start; kNone for one-way messages.
  uint32_t tenant = 0;
  CallState state = CallState::kFree;
  MessageKind kind = MessageKind::kRequest;
  ListHook waiting;  // Among its peer's calls, the least recently heard of first; or see Peer::over_untold.
};

// A call or one-way message that the peer began: what makes its execution happen at most once. The record
// stays when all else of the call is gone, until the peer uses the slot again.
enum class ServedState : uint8_t { kIdle, kReceiving, kExecuting, kResponding, kDone, kRejected };
struct ServedSlot {
  uint64_t sequence = 0;
  uint32_t in = kNone;
  uint32_t out = kNone;  // The response, reserved with the request's first frame.
  uint16_t code = 0;     // kRejected.
  ServedState state = ServedState::kIdle;
  MessageKind kind = MessageKind::kRequest;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_MESSAGE_H_
