// SPDX-License-Identifier: Apache-2.0
// What a port tells about itself: what it chose at start and why (for `weftctl status` and the log), what it
// counted, and where its frames are.
#ifndef WEFT_DATAPLANE_PORT_PORT_STATUS_H_
#define WEFT_DATAPLANE_PORT_PORT_STATUS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace weft::port {

// One thing that was probed: {"receive", "inline recvmsg", "multishot needs Linux 6.0"}.
struct PortChoice {
  std::string feature;
  std::string chosen;
  std::string why;
};

struct PortStatus {
  std::string port;    // "io_uring", "udp", "af_xdp", "dpdk".
  std::string detail;  // Where: "10.0.0.1:4810", "eth0 queue 0".
  // Not what was asked for or could be: the caller logs it as a warning. The choices say why.
  bool fell_back = false;
  std::vector<PortChoice> choices;
};

// Only the owner's thread writes these; another may read a torn moment of them, never a torn number.
struct PortCounters {
  uint64_t received = 0;
  uint64_t received_bytes = 0;
  uint64_t sent = 0;  // Taken by the kernel or the device.
  uint64_t sent_bytes = 0;
  uint64_t send_busy = 0;          // No room now: tried again, nothing lost.
  uint64_t lost_no_buffers = 0;    // ENOBUFS, ENOMEM: the device's queue or memory is full.
  uint64_t lost_unreachable = 0;   // No route, no neighbour, interface down, ICMP, a local filter.
  uint64_t lost_too_long = 0;      // Longer than the path's MTU.
  uint64_t lost_unknown_path = 0;  // FinishSend with a path that was removed.
  uint64_t lost_other = 0;
  uint64_t receive_errors = 0;   // A receive that failed with something other than "nothing there".
  uint64_t receive_invalid = 0;  // Frames that were no datagram for this port, dropped.
};

// Who holds the frames of a pool: free + with_kernel + queued + with_caller == total, at any time.
struct FrameCount {
  uint32_t total = 0;
  uint32_t free = 0;         // The port's, without content.
  uint32_t with_kernel = 0;  // Posted to be filled, or on their way out.
  uint32_t queued = 0;       // Received and not wholly handed over; finished and not yet taken.
  uint32_t with_caller = 0;  // Handed over and not yet released.
};

struct FrameCounts {
  FrameCount receive;
  FrameCount send;
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_PORT_STATUS_H_
