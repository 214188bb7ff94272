// SPDX-License-Identifier: Apache-2.0
// The DPDK port: datagrams by an ethdev of DPDK 22.11 that the port has to itself (net_memif, net_af_xdp,
// net_ring; others likewise). It builds and parses the headers itself and speaks ARP and neighbour discovery
// for its own address, since the kernel does not hear what comes there: peers are on the device's link, or,
// where there is a kernel's interface under it, on the way of the kernel's routes.
//
// It cannot sleep: no descriptor tells of a packet. When there was nothing for a while the worker looks again
// after a step (idle_step_ns), which doubles from 50 us to 2 ms: the first packet after a pause waits for up
// to so long.
//
// Made on any thread, used on the worker's only. net_memif trusts its peer, which writes the rings and the
// memory that this process reads: the other end of a memif has to be as trusted as this process.
#ifndef WEFT_DATAPLANE_PORT_DPDK_PORT_H_
#define WEFT_DATAPLANE_PORT_DPDK_PORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/clock.h"
#include "dataplane/port/dpdk_device.h"
#include "dataplane/port/frame_headers.h"
#include "dataplane/port/next_hop.h"
#include "dataplane/port/path_table.h"
#include "dataplane/port/port.h"

namespace weft::port {

class DpdkPort {
 public:
  using Received = ReceivedDatagram;

  struct Options {
    DpdkDeviceOptions device;
    Address local;  // Its own address and UDP port on the device's link; not 0.0.0.0 or ::.
    std::size_t datagram_bytes_max = 1472;
  };

  // Errors name the device: DpdkDevice::Create's, and FAILED_PRECONDITION where its MTU is too small for the
  // largest datagram.
  static absl::StatusOr<std::unique_ptr<DpdkPort>> Create(const Options& options);
  ~DpdkPort();

  // port::Port. No system call but net_af_xdp's own.
  std::size_t Receive(Received* burst, std::size_t count);
  void Release(const Received* burst, std::size_t count);
  uint8_t* BeginSend();
  void FinishSend(uint64_t path, std::size_t bytes);
  void Flush();

  // port::NetworkPort. What is sent on a path whose neighbour has not answered yet is lost, counted. While
  // the link is down, all is.
  absl::StatusOr<uint64_t> AddPath(const Address& address, std::size_t bytes_least = kLargestDatagrams);
  absl::Status SetPath(uint64_t path, const Address& address, std::size_t bytes_least = kLargestDatagrams);
  void RemovePath(uint64_t path) { paths_.Remove(path); }
  // Whether what is sent on it now goes out: the link is up, the neighbour known.
  bool Ready(uint64_t path);
  Address SourceOf(const Received& received) const;
  int sleep_fd() const { return -1; }
  bool PrepareSleep();
  void EndSleep() {}
  // How long may be slept, now, before the port is looked at again: kIdleStepFirstNs, twice as long at every
  // look that finds nothing, kIdleStepLastNs at most.
  uint64_t idle_step_ns() const { return idle_step_ns_; }
  static constexpr uint64_t kIdleStepFirstNs = 50 * kNsPerUs;
  static constexpr uint64_t kIdleStepLastNs = 2 * kNsPerMs;
  const PortStatus& status() const { return status_; }
  const PortCounters& counters() const { return counters_; }
  // Receive: all frames of the device's pool; send: the places of the burst that is being gathered.
  FrameCounts frames() const;

 private:
  struct Path {
    Address peer = {};
    Address neighbour = {};       // The peer, or the gateway to it.
    HeaderTemplate headers = {};  // Of size 0: nothing can be sent now.
    uint32_t datagram_bytes_max = 0;
    uint64_t asked_ns = 0;  // When its neighbour was last asked for.
  };
  // A frame in the caller's hands.
  struct Held {
    rte_mbuf* frame = nullptr;  // Null: a free place.
    ParsedFrame parsed;
  };

  DpdkPort(const Options& options, std::unique_ptr<DpdkDevice> device, std::unique_ptr<NextHops> hops);

  absl::StatusOr<Path> NewPath(const Address& address, std::size_t bytes_least);
  absl::Status Resolve(Path* path);
  void Ask(Path* path, uint64_t now_ns);
  // What is to be done now and then: follows the link and the kernel's routes, confirms neighbours.
  void Tick();
  void OnOtherFrame(const uint8_t* frame, std::size_t bytes);
  void Learn(const Address& address, const uint8_t (&mac)[6]);
  void SendNow(const uint8_t* frame, std::size_t bytes);
  void DropPending();
  void FreeReleased();

  // At most so many are in the caller's hands, or gathered for one Flush.
  static constexpr std::size_t kHeldMax = 1024;
  static constexpr std::size_t kPendingMax = 512;

  Address local_;
  std::size_t datagram_bytes_max_;
  std::unique_ptr<DpdkDevice> device_;
  std::unique_ptr<NextHops> hops_;  // Where a kernel's interface is under the device, else null.
  PortStatus status_;
  PortCounters counters_;
  PathTable<Path> paths_;
  uint32_t idle_polls_ = 0;
  uint64_t idle_step_ns_ = kIdleStepFirstNs;
  uint64_t ticked_ns_ = 0;
  uint64_t reconnected_ns_ = 0;
  bool link_up_ = false;  // As of the last Tick.

  std::vector<Held> held_;
  std::vector<uint32_t> places_;     // Free ones of held_.
  std::vector<rte_mbuf*> released_;  // By the caller, and not yet free: see FreeReleased.
  rte_mbuf* begun_ = nullptr;        // What BeginSend gave.
  std::vector<rte_mbuf*> pending_;
};

static_assert(NetworkPort<DpdkPort>);

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_DPDK_PORT_H_
