// SPDX-License-Identifier: Apache-2.0
// A second socket at the UDP port's address, connected to the peer that gets most of what is sent. The kernel
// looks up no route for a datagram that passes it, in neither direction, which for a small one is a tenth of
// its way. All other peers use the port's own socket, which stays unconnected. Owner worker only.
#ifndef WEFT_DATAPLANE_PORT_DIRECT_SOCKET_H_
#define WEFT_DATAPLANE_PORT_DIRECT_SOCKET_H_

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "dataplane/base/attributes.h"
#include "dataplane/base/fd.h"
#include "dataplane/port/address.h"

namespace weft::port {

class DirectSocket {
 public:
  // No path that anybody sends on: ~0 is what engines send on that have none.
  static constexpr uint64_t kNone = ~uint64_t{1};

  // Without a socket it carries nothing.
  DirectSocket() = default;
  // `twin`: from TwinOf(), connected to its own address, `self`.
  DirectSocket(UniqueFd twin, sa_family_t family, const Address& self)
      : fd_(std::move(twin)), family_(family), self_(self) {}

  int fd() const { return fd_.get(); }
  // Whether what is sent to `path` leaves by this socket.
  bool Carries(uint64_t path) const { return path == path_; }
  bool leads() const { return path_ != kNone; }
  // Whether something may have come, from the peer or the one before it.
  bool open() const { return open_; }
  // All that may be received was sent by peer(): what an earlier one sent has been taken. But for this: what
  // the kernel was just passing to the socket when it was connected anew, and had not put there by the time
  // it was found empty, is taken for the new peer's. At worst a source is named wrong, which nobody believes:
  // who sent a datagram is told by the key that opens it.
  bool sources_known() const { return drained_; }
  const Address& peer() const { return peer_; }

  WEFT_HOT void NoteSent(uint64_t path, uint32_t datagrams) {
    sent_ += datagrams;
    if (path == favourite_) to_favourite_ += datagrams;
    last_ = path;
    if (leads() && path != path_) other_looks_ = kOtherLooks;  // It will be answered there.
  }
  // A window of sends is over: Review() is to be called, between bursts.
  bool due() const { return sent_ >= kWindow && fd_.valid(); }
  // Parts from a peer that gets less than half. Returns the path to lead to, if another gets nearly all.
  uint64_t Review();
  // Until here, and where the kernel refuses, all stays as it was.
  bool Lead(uint64_t path, const Address& peer, const sockaddr_storage& name, socklen_t name_bytes);
  // Sends nothing more. What the peer sent and still sends comes to the port's own socket, but for what
  // waits.
  void Part();

  // Which of the two sockets is looked at next: mostly this one, by turns while others are spoken to.
  WEFT_HOT bool TakesTurn() {
    if (!open_) return false;
    if (other_looks_ > 0) return --other_looks_ % 2 == 0;
    return ++looks_ % kOtherEvery != 0;
  }
  // `empty`: the kernel had no more.
  WEFT_HOT void NoteReceived(bool here, std::size_t arrived, bool empty) {
    if (!here) {
      if (arrived > 0) other_looks_ = kOtherLooks;
    } else if (empty && !drained_) {
      drained_ = true;
      open_ = !parted_;
    }
  }

 private:
  // To connect takes as long as some sends, so a few hundred of them decide.
  static constexpr uint32_t kWindow = 256;
  // A look is a system call of about 0.2 us: what comes to the other socket unasked is found within some 3
  // us, an answer there is looked for by turns for at least 12.
  static constexpr uint32_t kOtherEvery = 16;
  static constexpr uint32_t kOtherLooks = 64;

  UniqueFd fd_;
  sa_family_t family_ = AF_INET;
  Address self_;
  Address peer_;
  uint64_t path_ = kNone;
  bool open_ = false;
  bool parted_ = false;  // Connected to nobody: once drained it is closed.
  bool drained_ = false;
  uint32_t looks_ = 0;
  uint32_t other_looks_ = 0;
  uint64_t favourite_ = kNone;  // Whose share of the window is counted.
  uint64_t last_ = kNone;
  uint32_t sent_ = 0;
  uint32_t to_favourite_ = 0;
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_DIRECT_SOCKET_H_
