// SPDX-License-Identifier: Apache-2.0
// io_uring as one system call for many: the sends and receives of a round are carried by one io_uring_enter,
// and all of them are done when it returns, since each says MSG_DONTWAIT. So the memory they name is never
// the kernel's between two rounds. Used by the UDP port on its worker's thread; the first round binds the
// ring to that thread.
#ifndef WEFT_DATAPLANE_PORT_UDP_RING_H_
#define WEFT_DATAPLANE_PORT_UDP_RING_H_

#include <sys/socket.h>

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "dataplane/port/port_status.h"

struct io_uring;

namespace weft::port {

// The most operations of one round.
inline constexpr std::size_t kRoundSendsMax = 64;
inline constexpr std::size_t kRoundReceivesMax = 16;

class UdpRing {
 public:
  // PERMISSION_DENIED where io_uring is forbidden (seccomp, kernel.io_uring_disabled), UNIMPLEMENTED where
  // the kernel has none. `socket` and `direct`, a second one or -1, stay the caller's and must outlive the
  // ring. Tells `status` what was chosen.
  static absl::StatusOr<std::unique_ptr<UdpRing>> Create(int socket, int direct, PortStatus* status);
  ~UdpRing();
  UdpRing(const UdpRing&) = delete;
  UdpRing& operator=(const UdpRing&) = delete;

  // Sends sends[i].msg_hdr, by `direct` where it names no address, then receives into *receives[j]; the
  // results are bytes or -errno. One system call. False where the ring itself failed: `error` is its errno,
  // results are not to be read, and the ring is of no more use.
  bool Round(mmsghdr* sends, int* send_results, std::size_t send_count, msghdr* const* receives,
             int* receive_results, std::size_t receive_count, bool receive_direct, int* error);

 private:
  UdpRing(std::unique_ptr<io_uring> ring, int socket, int direct);
  bool Enable(int* error);

  std::unique_ptr<io_uring> ring_;
  int sockets_[2];  // The second one is -1 where there is none.
  bool fixed_file_ = false;
  bool enabled_ = false;
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_UDP_RING_H_
