// SPDX-License-Identifier: Apache-2.0
// AF_XDP with the kernel's UDP socket beside it: what the XDP program leaves to the kernel (packets on queues
// without a socket, or while no program is attached) arrives there, seldom looked at while AF_XDP brings
// packets. All that is sent leaves by AF_XDP. AF_XDP comes and goes with weft-control's maps and with the
// interface: while it is not there the socket does it all. Where a node has several workers each has one such
// port, its AF_XDP socket on a queue of its own; what comes in there for another goes to it by `crossing`.
// Owner worker only.
#ifndef WEFT_DATAPLANE_ENGINE_STEERED_PORT_H_
#define WEFT_DATAPLANE_ENGINE_STEERED_PORT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "bpf/abi/packet.h"
#include "dataplane/base/attributes.h"
#include "dataplane/engine/crossing.h"
#include "dataplane/port/af_xdp_port.h"
#include "dataplane/port/udp_port.h"

namespace weft::engine {

class SteeredPort {
 public:
  using Received = port::ReceivedDatagram;

  // `crossing`: null where there is one worker.
  explicit SteeredPort(std::unique_ptr<port::UdpPort> udp, std::shared_ptr<Crossing> crossing = nullptr,
                       uint32_t worker = 0)
      : udp_(std::move(udp)), crossing_(std::move(crossing)), worker_(worker) {}

  // Takes an AF_XDP port into use, or none; returns the one that was. Between bursts, as everything here.
  // Paths are the port's that is in use: they are to be named anew.
  std::unique_ptr<port::AfXdpPort> Change(std::unique_ptr<port::AfXdpPort> xdp) {
    lost_.store(false, std::memory_order_relaxed);
    return std::exchange(xdp_, std::move(xdp));
  }
  port::AfXdpPort* xdp() { return xdp_.get(); }
  // Whether AF_XDP's interface is gone for good; any thread, as of the last time the worker slept.
  bool lost() const { return lost_.load(std::memory_order_relaxed); }

  // One burst is out at a time, as Pump has it: it comes from one of them.
  WEFT_HOT std::size_t Receive(Received* burst, std::size_t count) {
    // In turns, so that what others bring keeps nobody from this worker's own queue, nor the other way round.
    if (crossing_ != nullptr && (crossed_last_ = !crossed_last_)) {
      burst_from_ = From::kCrossing;
      if (const std::size_t taken = crossing_->Take(worker_, burst, count); taken > 0) return taken;
    }
    // The socket has its look also where AF_XDP brings something each time: then it is the next one.
    if (xdp_ != nullptr && !udp_due_) [[likely]] {
      burst_from_ = From::kXdp;
      const std::size_t received = xdp_->Receive(burst, count);
      const bool due = ++polls_ % kUdpEvery == 0;
      if (received > 0) {
        udp_due_ = due;
        return crossing_ == nullptr ? received : KeepOwn(burst, received);
      }
      if (!due) return 0;
    }
    udp_due_ = false;
    burst_from_ = From::kUdp;
    return udp_->Receive(burst, count);
  }
  void Release(const Received* burst, std::size_t count) {
    switch (burst_from_) {
      case From::kXdp:
        return xdp_->Release(burst, count);
      case From::kUdp:
        return udp_->Release(burst, count);
      case From::kCrossing:
        return crossing_->Release(worker_, burst, count);
    }
  }
  uint8_t* BeginSend() { return xdp_ != nullptr ? xdp_->BeginSend() : udp_->BeginSend(); }
  void FinishSend(uint64_t path, std::size_t bytes) {
    xdp_ != nullptr ? xdp_->FinishSend(path, bytes) : udp_->FinishSend(path, bytes);
  }
  void Flush() { xdp_ != nullptr ? xdp_->Flush() : udp_->Flush(); }

  absl::StatusOr<uint64_t> AddPath(const port::Address& address, std::size_t bytes_least) {
    return xdp_ != nullptr ? xdp_->AddPath(address, bytes_least) : udp_->AddPath(address, bytes_least);
  }
  absl::Status SetPath(uint64_t path, const port::Address& address, std::size_t bytes_least) {
    return xdp_ != nullptr ? xdp_->SetPath(path, address, bytes_least)
                           : udp_->SetPath(path, address, bytes_least);
  }
  void RemovePath(uint64_t path) { xdp_ != nullptr ? xdp_->RemovePath(path) : udp_->RemovePath(path); }
  int sleep_fd() const { return udp_->sleep_fd(); }  // Whoever changes AF_XDP watches that one's.
  bool PrepareSleep() {
    polls_ = kUdpEvery - 1;  // The socket is looked at when the thread wakes.
    const bool idle = AllMaySleep();
    if (!idle) EndSleep();
    return idle;
  }
  void EndSleep() {
    if (crossing_ != nullptr) crossing_->EndSleep(worker_);
    if (xdp_ != nullptr) xdp_->EndSleep();
    udp_->EndSleep();
  }
  port::PortStatus status() const { return xdp_ != nullptr ? xdp_->status() : udp_->status(); }

 private:
  // A look is a system call, of about 300 ns: one in 64 polls costs little, and finds a packet within some 10
  // us.
  static constexpr uint32_t kUdpEvery = 64;
  enum class From : uint8_t { kXdp, kUdp, kCrossing };

  bool AllMaySleep() {
    if (!udp_->PrepareSleep()) return false;
    if (xdp_ != nullptr) {
      const bool idle = xdp_->PrepareSleep();
      if (xdp_->gone()) lost_.store(true, std::memory_order_relaxed);  // It publishes nothing.
      if (!idle) return false;
    }
    return crossing_ == nullptr || crossing_->PrepareSleep(worker_);
  }

  // Passes on what is for another worker, as its hint says, which is read as the sockets' classic BPF reads
  // it. Returns how many are left, at the front.
  std::size_t KeepOwn(Received* burst, std::size_t received) {
    std::size_t own = 0;
    for (std::size_t i = 0; i < received; ++i) {
      const Received datagram = burst[i];
      uint32_t to = worker_;
      if (datagram.bytes >= WEFT_PACKET_HEADER_BYTES) {
        const uint8_t* const hint = datagram.data + offsetof(struct weft_packet_header, worker_hint);
        to = (uint32_t{hint[0]} << 8 | hint[1]) % crossing_->workers();
      }
      if (to == worker_) [[likely]] {
        burst[own++] = datagram;
        continue;
      }
      (void)crossing_->TryPass(worker_, to, datagram.data, datagram.bytes);
      xdp_->Release(&datagram, 1);
    }
    return own;
  }

  std::unique_ptr<port::AfXdpPort> xdp_;  // Or null.
  std::unique_ptr<port::UdpPort> udp_;
  const std::shared_ptr<Crossing> crossing_;  // Or null.
  const uint32_t worker_;
  uint32_t polls_ = 0;
  bool udp_due_ = false;
  From burst_from_ = From::kUdp;
  bool crossed_last_ = false;
  std::atomic<bool> lost_{false};
};

static_assert(port::Port<SteeredPort>);

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_STEERED_PORT_H_
