// SPDX-License-Identifier: Apache-2.0
// AF_XDP with the kernel's UDP socket beside it: what the XDP program leaves to the kernel (packets on queues
// without a socket, or while no program is attached) arrives there, seldom looked at while AF_XDP brings
// packets. All that is sent leaves by AF_XDP. Owner worker only.
#ifndef WEFT_DATAPLANE_ENGINE_STEERED_PORT_H_
#define WEFT_DATAPLANE_ENGINE_STEERED_PORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "dataplane/base/attributes.h"
#include "dataplane/port/af_xdp_port.h"
#include "dataplane/port/udp_port.h"

namespace weft::engine {

class SteeredPort {
 public:
  using Received = port::ReceivedDatagram;

  SteeredPort(std::unique_ptr<port::AfXdpPort> xdp, std::unique_ptr<port::UdpPort> udp)
      : xdp_(std::move(xdp)), udp_(std::move(udp)) {}

  // One burst is out at a time, as Pump has it: it comes from one of the two.
  WEFT_HOT std::size_t Receive(Received* burst, std::size_t count) {
    burst_is_udp_ = false;
    const std::size_t received = xdp_->Receive(burst, count);
    if (received > 0 || ++polls_ % kUdpEvery != 0) return received;
    burst_is_udp_ = true;
    return udp_->Receive(burst, count);
  }
  void Release(const Received* burst, std::size_t count) {
    burst_is_udp_ ? udp_->Release(burst, count) : xdp_->Release(burst, count);
  }
  uint8_t* BeginSend() { return xdp_->BeginSend(); }
  void FinishSend(uint64_t path, std::size_t bytes) { xdp_->FinishSend(path, bytes); }
  void Flush() { xdp_->Flush(); }

  absl::StatusOr<uint64_t> AddPath(const port::Address& address) { return xdp_->AddPath(address); }
  absl::Status SetPath(uint64_t path, const port::Address& address) { return xdp_->SetPath(path, address); }
  void RemovePath(uint64_t path) { xdp_->RemovePath(path); }
  int sleep_fd() const { return xdp_->sleep_fd(); }
  int second_sleep_fd() const { return udp_->sleep_fd(); }
  bool PrepareSleep() {
    polls_ = kUdpEvery - 1;  // The socket is looked at when the thread wakes.
    return udp_->PrepareSleep() && xdp_->PrepareSleep();
  }
  void EndSleep() {
    xdp_->EndSleep();
    udp_->EndSleep();
  }
  const port::PortStatus& status() const { return xdp_->status(); }

 private:
  // A look is a system call, of about 300 ns: one in 64 polls costs little, and finds a packet within some 10
  // us.
  static constexpr uint32_t kUdpEvery = 64;

  std::unique_ptr<port::AfXdpPort> xdp_;
  std::unique_ptr<port::UdpPort> udp_;
  uint32_t polls_ = 0;
  bool burst_is_udp_ = false;
};

static_assert(port::Port<SteeredPort>);

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_STEERED_PORT_H_
