// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/direct_socket.h"

namespace weft::port {

uint64_t DirectSocket::Review() {
  uint64_t next = kNone;
  if (leads()) {
    if (uint64_t{to_favourite_} * 2 < sent_) Part();
  } else if (uint64_t{to_favourite_} * 8 >= uint64_t{sent_} * 7) {
    next = favourite_;
  }
  if (!leads()) favourite_ = last_;
  sent_ = to_favourite_ = 0;
  return next;
}

bool DirectSocket::Lead(uint64_t path, const Address& peer, const sockaddr_storage& name,
                        socklen_t name_bytes) {
  // What an earlier peer sent stays in the socket, so it is read with its sources until it is empty once.
  if (connect(fd_.get(), reinterpret_cast<const sockaddr*>(&name), name_bytes) != 0) return false;
  path_ = favourite_ = path;
  peer_ = peer;
  open_ = true;
  parted_ = drained_ = false;
  return true;
}

void DirectSocket::Part() {
  if (!leads()) return;
  path_ = kNone;
  drained_ = false;
  sockaddr_storage name;
  const socklen_t bytes = self_.ToSockaddr(family_, &name);
  // Where it cannot be done now it stays connected, and is read.
  parted_ = connect(fd_.get(), reinterpret_cast<const sockaddr*>(&name), bytes) == 0;
}

}  // namespace weft::port
