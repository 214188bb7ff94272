// SPDX-License-Identifier: Apache-2.0
// An AF_XDP socket with its memory (umem) and four rings: made by trying what the machine can do, from the
// best down. The AF_XDP port is its user; benchmarks of the bare socket are too. One process may make and
// bind it for another, which has no privilege to. Any thread makes it, one uses it.
#ifndef WEFT_DATAPLANE_PORT_XSK_H_
#define WEFT_DATAPLANE_PORT_XSK_H_

#include <xdp/xsk.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/mapping.h"
#include "dataplane/port/port_status.h"

namespace weft::port {

struct XskOptions {
  std::string interface;
  uint32_t queue = 0;
  int xsks_map_fd = -1;  // The XSKMAP of the XDP program that redirects to this socket; -1: not yet.
  uint32_t frame_bytes = 2048;
  uint32_t receive_frames = 512;  // Powers of two, as the rings behind them.
  uint32_t send_frames = 512;
};

// Has the XDP program of that XSKMAP lead to a socket, by the map's entry `entry`.
absl::Status EnterSocket(int xsks_map_fd, uint32_t entry, int socket_fd);

class Xsk {
 public:
  // Frames [0, receive_frames) are posted to the fill ring; [receive_frames, receive_frames + send_frames)
  // are the caller's. Blocks for up to 200 ms where a killed predecessor's socket is still being ended, so
  // that zero-copy is not missed for its sake.
  // PERMISSION_DENIED without CAP_NET_RAW, RESOURCE_EXHAUSTED where memory cannot be locked, UNAVAILABLE
  // where another socket has the queue, UNIMPLEMENTED where the kernel has no AF_XDP: each names what is
  // missing, for a caller that falls back.
  static absl::StatusOr<std::unique_ptr<Xsk>> Create(const XskOptions& options, PortStatus* status);
  // What a process needs to use a socket that another one has made: both go by a Unix socket.
  struct Handed {
    UniqueFd socket;
    UniqueFd memory;  // Sealed: as long as it is.
    uint32_t frame_bytes = 0;
  };
  // Makes and binds a socket for another process, with nothing in its rings, and keeps nothing of it. Never
  // zero-copy: then whatever comes in on the queue is in memory of the socket's user first, before any
  // program has looked at it, and stops when that user does not poll. Does not wait for a predecessor's end.
  static absl::StatusOr<Handed> Make(const XskOptions& options);
  // Uses one that was made by Make with as many frames, which are posted now. Needs no privilege. Whoever
  // sends by it can send any frame from that interface. INVALID_ARGUMENT where it is not what Make gives.
  static absl::StatusOr<std::unique_ptr<Xsk>> Adopt(const XskOptions& options, Handed handed,
                                                    PortStatus* status);
  ~Xsk();
  Xsk(const Xsk&) = delete;
  Xsk& operator=(const Xsk&) = delete;

  // Has another XDP program's map lead to this socket too.
  absl::Status EnterInto(int xsks_map_fd) const;

  int fd() const { return socket_ != nullptr ? xsk_socket__fd(socket_) : adopted_.get(); }
  uint8_t* at(uint64_t address) const { return reinterpret_cast<uint8_t*>(memory_.data()) + address; }
  uint32_t frame_bytes() const { return options_.frame_bytes; }
  const XskOptions& options() const { return options_; }
  bool zero_copy() const { return zero_copy_; }

  // The rings, as libxdp has them: rx and completion are consumed, fill and tx are produced.
  xsk_ring_prod fill{};
  xsk_ring_cons completion{};
  xsk_ring_cons rx{};
  xsk_ring_prod tx{};

 private:
  explicit Xsk(const XskOptions& options) : options_(options) {}

  absl::Status CheckFrames() const;
  absl::Status MakeMemory(PortStatus* status);
  absl::Status Bind(bool for_another, PortStatus* status);
  int Open(uint16_t bind_flags);
  absl::Status MapRings();
  void Close();
  void PostAll();

  XskOptions options_;
  UniqueFd memory_fd_;  // Until Make has given it away.
  Mapping memory_;
  xsk_umem* umem_ = nullptr;  // Both null where the socket is adopted_,
  xsk_socket* socket_ = nullptr;
  UniqueFd adopted_;
  Mapping ring_mappings_[4];  // which are that one's.
  bool zero_copy_ = false;
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_XSK_H_
