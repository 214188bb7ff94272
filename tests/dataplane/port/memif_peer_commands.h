// SPDX-License-Identifier: Apache-2.0
// What the conformance suite and its peer process (memif_peer.h, memif_peer_main.cc) say to each other, over
// a stream socket.
#ifndef WEFT_TESTS_DATAPLANE_PORT_MEMIF_PEER_COMMANDS_H_
#define WEFT_TESTS_DATAPLANE_PORT_MEMIF_PEER_COMMANDS_H_

#include <sys/socket.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace weft::port {

// What the suite asks of its peer; `count` and `path` are the arguments of the port's function. What follows
// a command, and its answer:
struct PeerCommand {
  enum Kind : uint32_t {
    kReceive,   // Answer: the number of datagrams; of each its frame and length, then its bytes.
    kRelease,   // Frames.
    kSend,      // Bytes.
    kFlush,     //
    kAddPath,   // An Address. Answer: the path.
    kSourceOf,  // `count` is a frame. Answer: an Address.
    kFrames,    // Answer: FrameCounts.
    kEnd,       // Ends the process. Answer: how many frames changed while the suite held them.
  };
  uint32_t kind;
  uint32_t count;
  uint64_t path;
};
struct PeerDatagram {
  uint32_t frame;
  uint32_t bytes;
};

// False where the other end is gone.
inline bool WriteAll(int fd, const void* data, std::size_t bytes) {
  const auto* at = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t sent = send(fd, at, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += sent;
    bytes -= static_cast<std::size_t>(sent);
  }
  return true;
}
inline bool ReadAll(int fd, void* data, std::size_t bytes) {
  auto* at = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t got = recv(fd, at, bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<std::size_t>(got);
  }
  return true;
}

}  // namespace weft::port

#endif  // WEFT_TESTS_DATAPLANE_PORT_MEMIF_PEER_COMMANDS_H_
