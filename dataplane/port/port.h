// SPDX-License-Identifier: Apache-2.0
// What a packet port is. The engine's loop is a template over one (dataplane/transport/pump.h); the ports are
// AF_XDP, DPDK, io_uring UDP and, for tests, memory. A port belongs to one worker and is used on its thread
// only.
#ifndef WEFT_DATAPLANE_PORT_PORT_H_
#define WEFT_DATAPLANE_PORT_PORT_H_

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace weft::port {

// A datagram that has arrived: UDP payload, without the headers before it. Readable until it is released.
struct ReceivedDatagram {
  const uint8_t* data;
  uint32_t bytes;
  uint32_t frame;  // The port's own.
};

// - Receive(out, count) hands over up to `count` datagrams; the port cannot use their memory until Release.
// - BeginSend() gives memory for one datagram of the largest size, or null where there is no room now.
// Calling it again
//   without FinishSend gives the same memory.
// - FinishSend(path, bytes) takes the datagram written there. `path` names the way to the peer, as the
// control
//   side agreed with the port. Sending may wait for Flush, which is called once a burst.
template <typename P>
concept Port = requires(P port, typename P::Received* burst, std::size_t count, uint64_t path) {
  requires std::same_as<typename P::Received, ReceivedDatagram>;
  { port.Receive(burst, count) } -> std::same_as<std::size_t>;
  { port.Release(burst, count) } -> std::same_as<void>;
  { port.BeginSend() } -> std::same_as<uint8_t*>;
  { port.FinishSend(path, count) } -> std::same_as<void>;
  { port.Flush() } -> std::same_as<void>;
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_PORT_H_
