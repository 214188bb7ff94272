// SPDX-License-Identifier: Apache-2.0
// Limits and constants of one worker's transport core, and the sums of its pools. Read once, by Core::Create.
#ifndef WEFT_DATAPLANE_TRANSPORT_CONFIG_H_
#define WEFT_DATAPLANE_TRANSPORT_CONFIG_H_

#include <cstddef>
#include <cstdint>

#include "dataplane/base/clock.h"
#include "dataplane/transport/delay_brake.h"
#include "dataplane/transport/frame.h"
#include "dataplane/transport/sealing.h"

namespace weft::transport {

struct Config {
  // Pools. Memory is taken for all of them at start, that of a peer when it is added.
  uint32_t peers_max = 64;
  // Calls and one-way messages outstanding to one peer, and from it. At most 2^kIdSlotBits.
  uint32_t slots_per_peer = 1024;
  uint32_t calls_max = 4096;  // Outstanding here, to all peers.
  // Requests and one-way messages being sent, and responses owed or being sent.
  uint32_t messages_out_max = 8192;
  // Responses expected, and requests and one-way messages arriving or unread.
  uint32_t messages_in_max = 8192;
  std::size_t memory_bytes = 64u << 20;  // Of message bytes, both ways.
  uint32_t tenants_max = 64;
  uint32_t functions_max = 1024;
  uint32_t packets_in_flight_max = 2048;  // Per peer; a power of two.

  // The link. Largest UDP payload: 1,500 less IPv4 and UDP headers.
  uint32_t datagram_bytes_max = 1472;
  uint64_t link_bits_per_second = 0;         // 0: no pacing.
  uint32_t wire_overhead_bytes = 66;         // Ethernet with preamble and gap 38, IPv4 20, UDP 8.
  uint64_t pacing_slack_ns = 20 * kNsPerUs;  // Work that may be handed to the port ahead of the link.
  bool coalesce = true;                      // Several messages a datagram.

  // Flow control. A message of up to the least of unscheduled_bytes_max, bandwidth_delay_bytes and the share
  // that the peer advertises leaves at once; a larger one is announced and waits for grants.
  uint32_t unscheduled_bytes_max = 40'000;
  uint32_t bandwidth_delay_bytes = 40'000;
  uint32_t unscheduled_pool_bytes = 400'000;  // Shared out among the peers that have sent within 1 ms.
  uint32_t granted_bytes_max = 400'000;       // Granted and not received, in all.
  uint32_t granted_bytes_per_peer_max = 400'000;
  uint32_t granted_messages_max = 8;
  uint32_t grant_quantum_segments = 4;
  // Grants are paced to fill this part of the link, together with what comes unasked: what is left lets a
  // queue drain.
  uint32_t grant_pace_percent = 95;
  // A sender that holds more unused grants than this marks its data. Three grants, which are of an eighth of
  // granted_bytes_max: below one all data is marked, and the receiver comes to grant one at a time and to
  // wait for it.
  uint32_t congested_bytes = 150'000;
  uint32_t oldest_share_one_in = 20;  // Every 20th grant and datagram (5 %) goes to the oldest message.

  // What a message was granted comes within this time, or its sender is late: it is granted less until it has
  // sent some more. 400 kB are 160 Mb/s.
  uint64_t late_ns = 20 * kNsPerMs;

  // Loss, death.
  uint64_t loss_delay_ns = 200 * kNsPerUs;  // A gap is loss after max(SRTT, this) and three later packets.
  uint64_t probe_ns = 2 * kNsPerMs;         // Tail probe; doubles with each try.
  uint32_t probes_max = 5;                  // Then the peer is dead.
  // At most this long, or ack_every packets, an ACK waits for company.
  uint64_t ack_delay_ns = 50 * kNsPerUs;
  uint32_t ack_every = 16;
  uint64_t keepalive_ns = 10 * kNsPerMs;  // Silence after which a peer that owes something is asked.
  uint64_t stall_ns = 10 * kNsPerMs;      // A message without progress for this long is asked for (RESEND).
  // An incoming message that no new byte comes of for so long, asked for though it is, is given up.
  uint64_t unfinished_ns = kNsPerSecond;
  uint64_t memory_wait_ns =
      20 * kNsPerMs;                    // An announced message that finds no memory for so long is rejected.
  uint64_t revive_ns = 100 * kNsPerMs;  // How often a dead peer is tried again.
  BrakeConfig brake;

  // Keys. The upper bits of the key ids that this core chooses begin here: random or counted at each start,
  // so that an id from before a restart does not come back.
  uint32_t key_generation_first = 1;
  // Where several cores share one table of ids in front of their ports: its entries are 2^key_index_bits, and
  // this core's are key_indices from key_index_first on. 0 bits: it is alone.
  uint32_t key_index_bits = 0;
  uint32_t key_index_first = 0;
  uint32_t key_indices = 0;
  SealBackend seal_backend = SealBackend::kDefault;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_CONFIG_H_
