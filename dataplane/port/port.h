// SPDX-License-Identifier: Apache-2.0
// What a packet port is. The engine's loop is a template over one (dataplane/transport/pump.h); the ports are
// AF_XDP, DPDK, io_uring UDP and, for tests, memory. A port belongs to one worker and is used on its thread
// only.
#ifndef WEFT_DATAPLANE_PORT_PORT_H_
#define WEFT_DATAPLANE_PORT_PORT_H_

#include <concepts>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/port/address.h"
#include "dataplane/port/port_status.h"

namespace weft::port {

// A datagram that has arrived: UDP payload, without the headers before it. Readable until it is released.
struct ReceivedDatagram {
  const uint8_t* data;
  uint32_t bytes;
  uint32_t frame;  // The port's own.
};

// - Receive(out, count) hands over up to `count` datagrams; the port cannot use their memory until Release.
//   What comes from anywhere is handed over: the tag under which it was sealed decides, not its source
//   address.
// - BeginSend() gives memory for one datagram of the largest size, or null where there is no room now.
//   Calling it again without FinishSend gives the same memory.
// - FinishSend(path, bytes) takes the datagram written there. `path` names the way to the peer, as AddPath
//   gave it. Sending may wait for Flush, which is called once a burst and makes the system call.
template <typename P>
concept Port = requires(P port, typename P::Received* burst, std::size_t count, uint64_t path) {
  requires std::same_as<typename P::Received, ReceivedDatagram>;
  { port.Receive(burst, count) } -> std::same_as<std::size_t>;
  { port.Release(burst, count) } -> std::same_as<void>;
  { port.BeginSend() } -> std::same_as<uint8_t*>;
  { port.FinishSend(path, count) } -> std::same_as<void>;
  { port.Flush() } -> std::same_as<void>;
};

// A port on a network, as an agent drives it; what follows is called on its worker's thread too, seldom, and
// may allocate and make system calls.
// - AddPath(address, bytes_least) names a way to a peer. FAILED_PRECONDITION where the path's MTU is too
//   small for datagrams of `bytes_least`, or of the largest size where that is less; what it does not carry
//   is counted and lost. It asks the kernel in the calling thread's network namespace. SetPath lets the same
//   path lead elsewhere: a peer whose address changed. RemovePath forgets it; what is finished for it later
//   is counted and lost.
// - SourceOf(datagram), before its release, tells where it came from; worth looking at only once its tag is
//   verified.
// - sleep_fd() is readable, to epoll or poll, when Receive would find something, from a PrepareSleep() that
//   says true to the next EndSleep(); false where there is work already. A port that cannot sleep has -1
//   there, and idle_step_ns() says for how long one may wait for other things before it must be looked at
//   again.
// - frames() counts who holds the frames of its pools.
template <typename P>
concept NetworkPort =
    Port<P> && requires(P port, const Address& address, const typename P::Received& received, uint64_t path,
                        std::size_t bytes_least) {
      { port.AddPath(address, bytes_least) } -> std::same_as<absl::StatusOr<uint64_t>>;
      { port.SetPath(path, address, bytes_least) } -> std::same_as<absl::Status>;
      { port.RemovePath(path) } -> std::same_as<void>;
      { port.SourceOf(received) } -> std::same_as<Address>;
      { port.sleep_fd() } -> std::same_as<int>;
      { port.PrepareSleep() } -> std::same_as<bool>;
      { port.EndSleep() } -> std::same_as<void>;
      { port.status() } -> std::convertible_to<PortStatus>;
      { port.counters() } -> std::convertible_to<const PortCounters&>;
      { port.frames() } -> std::same_as<FrameCounts>;
    };

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_PORT_H_
