// SPDX-License-Identifier: Apache-2.0
#include "dataplane/channel/doorbell.h"

#include <sys/socket.h>

#include <cerrno>

#include "dataplane/base/status.h"

// Linux 6.16; Debian 12's headers are older.
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

namespace weft {

absl::StatusOr<DoorbellPair> MakeDoorbellPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ErrnoToStatus(errno, "make a doorbell's socket pair");
  }
  DoorbellPair pair{UniqueFd(ends[0]), UniqueFd(ends[1]), true};
  for (const int end : ends) {
    const int off = 0;
    if (setsockopt(end, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)) != 0) pair.refuses_descriptors = false;
  }
  return pair;
}

absl::StatusOr<Doorbell> Doorbell::Create(UniqueFd end) {
  int domain = 0;
  int type = 0;
  socklen_t bytes = sizeof(int);
  if (getsockopt(end.get(), SOL_SOCKET, SO_DOMAIN, &domain, &bytes) != 0 ||
      getsockopt(end.get(), SOL_SOCKET, SO_TYPE, &type, &bytes) != 0) {
    return absl::ErrnoToStatus(errno, "look at a doorbell");
  }
  if (domain != AF_UNIX || type != SOCK_SEQPACKET) {
    return absl::InvalidArgumentError("a doorbell must be a Unix seqpacket socket");
  }
  return Doorbell(std::move(end));
}

void Doorbell::Ring() {
  const char ring = 0;
  ++rings_sent_;
  while (send(fd_.get(), &ring, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != ENOBUFS) hung_up_ = true;
    return;
  }
}

Doorbell::Drained Doorbell::Drain() {
  // All in one system call, which also finds that there are no more. An honest peer leaves one or two: room
  // for many more would be cold memory on the way of each wake.
  constexpr int kAtATime = 4;
  Drained result;
  int received = kAtATime;
  while (received == kAtATime && result.rings < kDrainMax && !result.hung_up) {
    char rings[kAtATime];
    iovec parts[kAtATime];
    mmsghdr messages[kAtATime] = {};
    for (int i = 0; i < kAtATime; ++i) {
      parts[i] = {&rings[i], 1};
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    do {
      received = recvmmsg(fd_.get(), messages, kAtATime, MSG_DONTWAIT | MSG_TRUNC, nullptr);
    } while (received < 0 && errno == EINTR);
    if (received < 0 && errno != EAGAIN) result.hung_up = true;
    for (int i = 0; i < received && !result.hung_up; ++i) {
      if (messages[i].msg_len == 0) {
        // An empty packet looks like the end, and no honest peer sends one.
        result.hung_up = true;
        break;
      }
      if (messages[i].msg_len != 1 || (messages[i].msg_hdr.msg_flags & MSG_CTRUNC) != 0) result.misuse = true;
      ++result.rings;
    }
  }
  rings_received_ += static_cast<uint64_t>(result.rings);
  return result;
}

}  // namespace weft
