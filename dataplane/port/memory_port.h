// SPDX-License-Identifier: Apache-2.0
// A port whose wire is memory: tests, the simulator and the core's benchmark run the shipping loop over it.
// It keeps a fixed number of datagrams each way; what happens between two of them, delay and faults included,
// is decided by whoever moves datagrams from one port's Sent() to another's Deliver(). Owner worker only.
#ifndef WEFT_DATAPLANE_PORT_MEMORY_PORT_H_
#define WEFT_DATAPLANE_PORT_MEMORY_PORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/port/port.h"

namespace weft::port {

class MemoryPort {
 public:
  using Received = ReceivedDatagram;

  // A datagram in the port: `data` is `bytes` long, and its memory is the port's.
  struct Datagram {
    uint8_t* data;
    uint32_t bytes;
    uint64_t path;
  };

  // Room for `depth` datagrams each way, a power of two, of up to `datagram_bytes_max`.
  MemoryPort(std::size_t depth, std::size_t datagram_bytes_max);

  // The port's own side.
  std::size_t Receive(Received* burst, std::size_t count);
  void Release(const Received* burst, std::size_t count);
  uint8_t* BeginSend();
  void FinishSend(uint64_t path, std::size_t bytes);
  void Flush() {}

  // The wire's side. The oldest datagram sent and not yet taken, or null; PopSent takes it.
  const Datagram* Sent() const;
  void PopSent();
  // Copies a datagram to the receive queue. False where that is full: a wire would lose it.
  bool Deliver(const uint8_t* data, std::size_t bytes);
  bool HasReceived() const { return queue_head_ != queue_tail_; }

 private:
  std::size_t mask_;
  std::size_t datagram_bytes_max_;
  std::unique_ptr<uint8_t[]> memory_;
  std::vector<Datagram> send_;
  std::vector<Datagram> receive_;
  std::size_t send_head_ = 0;
  std::size_t send_tail_ = 0;
  // A received frame is free, in the queue [queue_head_, queue_tail_), or held by the caller.
  std::vector<uint32_t> free_;
  std::vector<uint32_t> queue_;
  std::size_t queue_head_ = 0;
  std::size_t queue_tail_ = 0;
};

static_assert(Port<MemoryPort>);

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_MEMORY_PORT_H_
