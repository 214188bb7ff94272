// SPDX-License-Identifier: Apache-2.0
// One peer, a worker of another node, as the core keeps it: keys, what it has been sent and what it has sent,
// and its slots. Internal to the transport.
#ifndef WEFT_DATAPLANE_TRANSPORT_PEER_H_
#define WEFT_DATAPLANE_TRANSPORT_PEER_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/transport/config.h"
#include "dataplane/transport/delay_brake.h"
#include "dataplane/transport/frame.h"
#include "dataplane/transport/message.h"
#include "dataplane/transport/replay_window.h"
#include "dataplane/transport/sealing.h"
#include "dataplane/transport/sent_log.h"

namespace weft::transport {

// A time that does not come.
inline constexpr uint64_t kNever = ~uint64_t{0};
// A counter that no packet has.
inline constexpr uint64_t kNoCounter = ~uint64_t{0};

enum class PeerState : uint8_t {
  kUnused,
  kDown,  // Added, no session; or closed.
  kUp,
  kDead,  // Did not answer; tried again from time to time, within the same session.
};

// Payload bytes of one segment where datagrams are of so many.
inline uint32_t SegmentBytesFor(uint32_t datagram_bytes_max) {
  return std::min(datagram_bytes_max - kDataOverheadBytes, kSegmentBytesMax);
}

// A frame without payload that is to be sent.
struct Notice {
  FrameType type;
  MessageKind kind;
  uint64_t id;
  uint32_t first;   // REJECT: code; RESEND: offset.
  uint32_t second;  // RESEND: bytes.
};

struct Peer {
  // A burst of 32 calls refused at once, and as many queries; what does not fit is asked for again.
  static constexpr uint32_t kNoticesMax = 64;

  explicit Peer(const Config& config)
      : datagram_bytes_max(config.datagram_bytes_max),
        segment_bytes(SegmentBytesFor(config.datagram_bytes_max)),
        log(config.packets_in_flight_max),
        brake(config.brake),
        calls(config.slots_per_peer),
        free_calls(config.slots_per_peer),
        served(config.slots_per_peer),
        unfinished_bytes(std::make_unique<uint64_t[]>(config.tenants_max)) {
    for (uint32_t i = 0; i < config.slots_per_peer; ++i) free_calls[i] = config.slots_per_peer - 1 - i;
    free_call_count = config.slots_per_peer;
  }

  PeerState state = PeerState::kUnused;
  uint64_t path = 0;
  uint64_t session = 0;
  uint32_t session_count = 0;  // Part of each handle, so that one of an earlier session names nothing.

  // Sending.
  SealKey send_key;
  uint32_t send_key_id = 0;   // 0: none yet.
  uint64_t header_begin = 0;  // Of its packets: all but the counter, as it lies on the wire.
  uint64_t next_counter = 0;  // Never falls while the peer exists: not even a new session begins again at 0.
  uint32_t datagram_bytes_max;  // That its path carries,
  uint32_t segment_bytes;       // and what new messages to it are therefore cut into.
  SentLog log;
  DelayBrake brake;
  uint32_t share_bytes = ~uint32_t{0};  // What the peer lets a message send unasked.
  uint64_t probe_counter = kNoCounter;  // The last probe sent, or kNoCounter.
  uint64_t loss_below = 0;              // What is in flight below this counter is lost once it is old enough.
  uint32_t probes = 0;
  uint64_t progress_ns = 0;  // Last acknowledgement, or when the log ceased to be empty.
  uint64_t loss_due_ns = kNever;
  bool ping_due = false;
  bool close_due = false;

  // Receiving.
  uint32_t receive_key_ids[2] = {0, 0};  // By epoch modulo 2.
  ReplayWindow received;
  uint64_t heard_ns = 0;
  uint64_t largest_arrival_ns = 0;
  uint32_t ack_pending = 0;  // Packets that ask for an ACK since the last one.
  uint64_t ack_low = 0;      // The lowest counter of those.
  uint64_t ack_due_ns = kNever;
  uint64_t sent_data_window = 0;  // The millisecond in which it last sent data, for the advertised share.

  IndexList<InMessage, &InMessage::pending> grants_to_send;

  // Messages.
  std::vector<CallSlot> calls;
  std::vector<uint32_t> free_calls;
  uint32_t free_call_count = 0;
  IndexList<CallSlot, &CallSlot::waiting> waiting_calls;
  IndexList<CallSlot, &CallSlot::waiting> over_untold;  // Free slots whose last call's end waits to be told.
  std::vector<ServedSlot> served;
  uint32_t served_records = 0;  // Of messages: slots of `served` that hold the record of a response.
  uint32_t looks = 0;  // What unfinished messages were given time by, in 1/16 ms: see GiveUpUnfinished.
  // Memory that its unfinished messages hold, by tenant.
  std::unique_ptr<uint64_t[]> unfinished_bytes;
  IndexList<InMessage, &InMessage::partial> partial;
  IndexList<OutMessage, &OutMessage::ready> blocked;
  uint64_t blocked_grant_bytes = 0;  // Unused grants of those.
  IndexList<OutMessage, &OutMessage::peer_ready> ready;
  uint64_t query_due_ns = kNever;

  std::array<Notice, kNoticesMax> notices;
  uint32_t notice_head = 0;
  uint32_t notice_count = 0;

  uint64_t revive_due_ns = kNever;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_PEER_H_
