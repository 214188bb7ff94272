// SPDX-License-Identifier: Apache-2.0
// The AF_XDP port: datagrams go between the worker's memory and one queue of an interface without the
// kernel's network stack. Which packets come here is the XDP program's affair (bpf/steer.bpf.c), loaded and
// attached by others: this port gets its map by descriptor and needs CAP_NET_RAW, and CAP_IPC_LOCK or a
// sufficient memory limit. It builds and parses the headers itself and asks the kernel for routes and
// neighbours. Made on any thread of the interface's network namespace, used on the worker's only.
#ifndef WEFT_DATAPLANE_PORT_AF_XDP_PORT_H_
#define WEFT_DATAPLANE_PORT_AF_XDP_PORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/port/frame_headers.h"
#include "dataplane/port/next_hop.h"
#include "dataplane/port/path_table.h"
#include "dataplane/port/port.h"
#include "dataplane/port/sleep_watch.h"
#include "dataplane/port/xsk.h"

namespace weft::port {

class AfXdpPort {
 public:
  using Received = ReceivedDatagram;

  struct Options {
    std::string interface;
    uint32_t queue = 0;
    int xsks_map_fd = -1;  // Only looked at by Create.
    Address local;         // Source of what is sent, and the UDP port that is listened to.
    std::size_t datagram_bytes_max = 1472;
    // Powers of two. The kernel fills frames in turn, so that many of them never stay in a cache; 512 hold
    // what comes in 0.7 ms at the most by copying.
    uint32_t receive_frames = 512;
    uint32_t send_frames = 512;
  };

  // Errors are Xsk::Create's, which a caller answers by falling back to UDP, loudly; FAILED_PRECONDITION
  // where the interface's MTU is too small for the largest datagram, or too large for one frame.
  static absl::StatusOr<std::unique_ptr<AfXdpPort>> Create(const Options& options);

  // What another process needs for such a port, which has no privilege and may be in another network
  // namespace; made in the interface's.
  struct Given {
    Xsk::Handed xsk;
    NextHops::Sockets routes;
  };
  static absl::StatusOr<Given> Make(const Options& options);
  // The same port by what Make has given, with its options. Options::xsks_map_fd is not looked at: no program
  // leads to it yet.
  static absl::StatusOr<std::unique_ptr<AfXdpPort>> Adopt(const Options& options, Given given);

  // port::Port. Receive makes a system call only where the driver asks for it and once in 1,024 empty polls;
  // Flush makes one for up to 32 datagrams.
  std::size_t Receive(Received* burst, std::size_t count);
  void Release(const Received* burst, std::size_t count);
  uint8_t* BeginSend();
  void FinishSend(uint64_t path, std::size_t bytes);
  void Flush();

  // port::NetworkPort. A path whose neighbour is not known yet loses what is sent on it, counted, until the
  // kernel has found it.
  absl::StatusOr<uint64_t> AddPath(const Address& address, std::size_t bytes_least = kLargestDatagrams);
  absl::Status SetPath(uint64_t path, const Address& address, std::size_t bytes_least = kLargestDatagrams);
  void RemovePath(uint64_t path) { paths_.Remove(path); }
  Address SourceOf(const Received& received) const;
  // The interface is gone for good: nothing comes and nothing leaves here any more.
  bool gone() const { return gone_ || hops_->gone(); }
  // Has another XDP program on the same interface lead here too.
  absl::Status EnterInto(int xsks_map_fd) const { return xsk_->EnterInto(xsks_map_fd); }
  int sleep_fd() const { return sleep_.fd(); }
  bool PrepareSleep();
  void EndSleep() { sleep_.Disarm(); }
  const PortStatus& status() const { return status_; }
  const PortCounters& counters() const { return counters_; }
  FrameCounts frames() const;
  // Where the next packet will probably begin, with its headers: what an empty Receive fetches.
  const uint8_t* NextPacket() const;

 private:
  struct Path {
    Address peer = {};
    HeaderTemplate headers = {};  // Of size 0: nothing can be sent now.
    uint32_t datagram_bytes_max = 0;
    uint64_t asked_ns = 0;  // When the kernel was last asked to find or confirm the neighbour.
  };

  AfXdpPort(const Options& options, std::unique_ptr<Xsk> xsk, std::unique_ptr<NextHops> hops,
            SleepWatch sleep, PortStatus status);

  static absl::StatusOr<XskOptions> SocketFor(const Options& options, std::size_t mtu);
  static PortStatus StatusOf(const Options& options);
  static absl::StatusOr<std::unique_ptr<AfXdpPort>> Assemble(const Options& options, std::unique_ptr<Xsk> xsk,
                                                             std::unique_ptr<NextHops> hops,
                                                             PortStatus status);
  absl::StatusOr<Path> NewPath(const Address& address, std::size_t bytes_least);
  absl::Status Resolve(Path* path);
  void Refresh();
  void GiveBack();
  uint32_t Look(uint32_t count, uint32_t* first);
  void FetchAhead() const;
  void ReclaimSent();
  uint32_t InTxRing() const;

  Address local_;
  std::size_t datagram_bytes_max_;
  std::unique_ptr<Xsk> xsk_;
  std::unique_ptr<NextHops> hops_;
  SleepWatch sleep_;
  PortStatus status_;
  PortCounters counters_;
  PathTable<Path> paths_;
  uint32_t idle_polls_ = 0;

  // Receive frames: in the fill ring or the driver, in the rx ring, held_ by the caller, or released_ and not
  // yet in the fill ring.
  std::vector<ParsedFrame> parsed_;  // By frame.
  uint32_t held_ = 0;
  std::vector<uint32_t> released_;
  // Where the next packet will probably lie: frames are filled in the order of the fill ring.
  std::vector<uint32_t> fill_places_;  // By frame: its place in that ring when it was last put there.
  uint32_t next_fill_place_ = 0;
  uint32_t data_offset_;  // Of a packet in its frame.

  // Send frames: free_, finished_ (in the tx ring, not yet submitted), or sent_ (submitted and not yet
  // completed).
  std::vector<uint32_t> free_;
  uint32_t finished_ = 0;
  uint32_t sent_ = 0;
  bool device_down_ = false;  // As of the last Flush.
  bool gone_ = false;         // The kernel has unbound the socket.
};

static_assert(NetworkPort<AfXdpPort>);

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_AF_XDP_PORT_H_
