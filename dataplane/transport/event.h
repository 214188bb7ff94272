// SPDX-License-Identifier: Apache-2.0
// What the transport core tells its owner, and how the owner names things to it.
#ifndef WEFT_DATAPLANE_TRANSPORT_EVENT_H_
#define WEFT_DATAPLANE_TRANSPORT_EVENT_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "bpf/abi/drop_reason.h"

namespace weft::transport {

// A peer is one worker of another node. An index is valid until RemovePeer.
struct PeerIndex {
  uint32_t value = ~uint32_t{0};
  friend bool operator==(PeerIndex, PeerIndex) = default;
};
struct TenantIndex {
  uint32_t value = 0;
};

// Names a call that was begun here, or a request that arrived, within the peer's present session.
struct CallHandle {
  PeerIndex peer;
  uint32_t session = 0;
  uint64_t id = 0;
};

enum class EventKind : uint8_t {
  kRequest,    // `handle` is to be answered with TryRespond. `payload` until Release.
  kOneWay,     // `payload` until Release.
  kCompleted,  // A call or one-way message begun here has ended: `user`, `code`, and a response's `payload`.
  kCancelled,  // The caller of `handle` no longer wants the answer; TryRespond is not needed, and harmless.
};

struct Event {
  EventKind kind = EventKind::kCompleted;
  // kCompleted with an error: whether the callee can have executed it. False: a retry is safe.
  bool maybe_executed = false;
  // kCompleted: `code` is the peer's answer. False: it was made here (peer dead, rejected, cancelled).
  bool from_peer = false;
  absl::StatusCode code = absl::StatusCode::kOk;
  CallHandle handle;
  TenantIndex tenant;
  uint64_t function = 0;  // kRequest, kOneWay: wire id of the callee.
  // kRequest, kOneWay: time left, but for the first frame's way here; 0: no limit.
  uint64_t timeout_ns = 0;
  uint64_t user = 0;  // kCompleted: SendOptions::user.
  const uint8_t* payload = nullptr;
  uint32_t payload_bytes = 0;
  uint32_t message = ~uint32_t{0};  // The core's own.
};

enum class SendResult : uint8_t {
  kOk,
  kFull,      // A pool, the peer's slots or the tenant's memory: try again after events have been taken.
  kPeerDown,  // No session, or the peer is dead: nothing was sent.
  kTooLarge,
  kStale,  // TryRespond: the call is gone (cancelled, session ended, answered already).
};

// Plain counters, written by the owner worker.
struct Counters {
  uint64_t datagrams_in = 0;
  uint64_t datagrams_out = 0;
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  uint64_t drops[WEFT_DROP_REASON_COUNT] = {};
  uint64_t frames_duplicate = 0;  // DATA that had been taken before, or of a call that is over.
  uint64_t frames_refused = 0;    // Genuine, but against the protocol: ignored.
  uint64_t packets_lost = 0;      // Declared lost.
  uint64_t segments_resent = 0;
  uint64_t probes = 0;
  uint64_t resends_asked = 0;
  uint64_t rejects_sent = 0;
  uint64_t functions_unknown = 0;  // Requests and one-way messages for a function that is not here.
  uint64_t messages_given_up = 0;  // Begun, and not come in time.
  uint64_t answers_given_up = 0;   // For want of memory: their peers had not taken them.
  uint64_t notices_dropped = 0;    // The peer's ring of them was full; RESEND makes up for it.
  uint64_t peer_deaths = 0;
  uint64_t grants = 0;
  uint64_t calls_cancelled = 0;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_EVENT_H_
