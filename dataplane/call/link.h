// SPDX-License-Identifier: Apache-2.0
// One path to another host as the call layer sees it: the channel, what its peer may call, which request ids
// were taken, and the messages that wait for room. Owned by CallCore; owner thread only.
#ifndef WEFT_DATAPLANE_CALL_LINK_H_
#define WEFT_DATAPLANE_CALL_LINK_H_

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "dataplane/base/attributes.h"
#include "dataplane/call/access_table.h"
#include "dataplane/call/call.h"
#include "dataplane/channel/channel.h"

namespace weft {

// A request on its way into this host, from the first look at its header until its function was told, and
// what a function needs to answer it.
struct Incoming {
  LocalFunction* function = nullptr;
  const std::string* caller = nullptr;  // Name of the calling function or namespace; outlives the call.
  uint64_t deadline_ns = 0;             // CLOCK_MONOTONIC; 0: none.
  uint32_t link = 0;
  uint32_t link_epoch = 0;
  uint32_t request_id = 0;
  MessageKind kind = MessageKind::kRequest;
  uint8_t flags = 0;

  bool one_way() const { return kind == MessageKind::kOneWay; }
};

// Copies field by field, each by the width in which it was written. The wider words that the compiler would
// choose load across stores that are still under way and wait for them: 8 to 10 ns a round trip.
WEFT_HOT_INLINE void CopyIncoming(const Incoming& from, Incoming& to) {
  const auto apart = [](auto value) {
    asm("" : "+r"(value));  // Keeps this load from being joined to the next; orders nothing.
    return value;
  };
  to.function = apart(from.function);
  to.caller = apart(from.caller);
  to.deadline_ns = apart(from.deadline_ns);
  to.link = apart(from.link);
  to.link_epoch = apart(from.link_epoch);
  to.request_id = apart(from.request_id);
  to.kind = apart(from.kind);
  to.flags = apart(from.flags);
}

// Called once the payload of a reply is no longer needed; `sent` tells whether all of it went out, or waits
// for room as a copy. Must neither send anything nor enter the loop.
using SendDone = void (*)(void* context, bool sent);

// A message that found no room at once or is longer than one chunk.
struct SendJob {
  static constexpr uint32_t kNoCall = ~uint32_t{0};

  MessageHeader header;
  Payload payload;
  Lane lane = Lane::kRequest;
  bool started = false;
  uint64_t number = 0;              // Rises from job to job of a link.
  uint32_t call_slot = kNoCall;     // Of the OutgoingTable, for requests that are answered.
  SendDone done = nullptr;          // Of a reply whose payload was not copied.
  uint64_t lent_ns = 0;             // When that was queued.
  CallDone one_way_done = nullptr;  // Of a one-way
  bool late = false;                // And its deadline has passed.
  void* context = nullptr;
  std::unique_ptr<std::byte[]> owned;  // Holds the payload where it was copied.
  uint64_t owned_bytes = 0;
  SendStream stream;
  StreamState state = StreamState::kMoreToSend;
};

struct Link {
  // --- Written by every message.
  std::unique_ptr<Channel> channel;  // nullptr: this slot is free.
  uint32_t index = 0;
  uint32_t epoch = 0;            // Rises whenever the slot is reused.
  uint32_t last_request_id = 0;  // The newest that was taken from the peer.
  uint32_t incoming = 0;         // The peer's calls under way here.
  bool dirty = false;            // Something was sent and not published yet.
  Link* next_dirty = nullptr;
  Incoming begun;  // The request whose payload is being copied.
  bool begun_open = false;
  uint32_t partials_count = 0;  // Beside begun_open: both are looked at for each request.
  AccessTable access;
  void* sink = nullptr;  // Of the loop that polls this channel.
  uint64_t requests_sent = 0;
  uint64_t requests_received = 0;
  uint64_t responses_received = 0;
  uint64_t responses_sent = 0;

  // --- Rarely touched.
  std::list<SendJob> jobs;                      // Addresses stay, since a stream must not move.
  uint32_t reply_jobs = 0;                      // How many of them are replies.
  uint32_t borrowed_jobs = 0;                   // And how many of these have a payload that was not copied.
  uint64_t borrowed_ns = 0;                     // Until when none of them was queued.
  uint64_t one_ways_due_ns = ~uint64_t{0};      // When the deadline of the first one-way among them is.
  uint64_t reply_bytes = 0;                     // Held by copies of replies.
  uint64_t jobs_begun = 0;                      // Ever; the number of the next.
  uint64_t jobs_moved_ns = 0;                   // When one last went on, or came alone; 0: at the next look.
  std::array<Incoming, kPartialsMax> partials;  // Requests of which a part has arrived.
  Incoming whole;                               // The last of them that became whole, for its receiver.
  std::unique_ptr<Doorbell> doorbell;
  std::string peer;     // Name of the host.
  uint32_t path = 0;    // Of calls to the peer itself; see CallCore::PathOf.
  uint32_t tenant = 0;  // Of the peer, as an index; the agent tells the node engine only.
  uint64_t refused = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_LINK_H_
