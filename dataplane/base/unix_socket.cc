// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/process_ended.h"
#include "dataplane/base/status.h"

namespace weft {
namespace {

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("socket path \"", path, "\": must be 1 to ",
                                                   sizeof(address.sun_path) - 1, " bytes long"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::StatusOr<UniqueFd> NewSocket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "create a Unix socket");
  return fd;
}

// Its descriptors, the listening socket among them, may live on.
bool ListenerHasEnded(int connected) {
  const absl::StatusOr<PeerCredentials> listener = CredentialsOf(connected);
  return listener.ok() && listener->pid > 0 && ProcessHasEnded(listener->pid);
}

}  // namespace

absl::StatusOr<UniqueFd> ListenUnix(const std::string& path, mode_t mode) {
  if (absl::StatusOr<UniqueFd> live = ConnectUnix(path); live.ok() && !ListenerHasEnded(live->get())) {
    return absl::AlreadyExistsError(absl::StrCat("listen on ", path, ": another process answers there"));
  }
  WEFT_ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  // Bound under another name and renamed, so that there is no moment without a socket file or with a wrong
  // mode.
  const std::string temporary = path + ".new";
  WEFT_ASSIGN_OR_RETURN(sockaddr_un temporary_address, AddressOf(temporary));
  unlink(temporary.c_str());
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&temporary_address), sizeof(temporary_address)) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("bind ", temporary));
  }
  if (chmod(temporary.c_str(), mode) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("chmod ", temporary));
  if (listen(fd.get(), SOMAXCONN) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("listen on ", path));
  if (rename(temporary.c_str(), path.c_str()) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("rename to ", path));
  return fd;
}

absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path) {
  WEFT_ASSIGN_OR_RETURN(sockaddr_un address, AddressOf(path));
  WEFT_ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("connect to ", path));
  }
  return fd;
}

absl::StatusOr<PeerCredentials> CredentialsOf(int socket_fd) {
  ucred credentials{};
  socklen_t bytes = sizeof(credentials);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) != 0) {
    return absl::ErrnoToStatus(errno, "read peer credentials");
  }
  return PeerCredentials{credentials.pid, credentials.uid, credentials.gid};
}

absl::Status SendMessage(int socket_fd, absl::string_view bytes, absl::Span<const int> fds) {
  if (bytes.size() > kControlMessageBytesMax || fds.size() > static_cast<std::size_t>(kFdsMax)) {
    return absl::InvalidArgumentError(absl::StrCat("send a control message of ", bytes.size(), " bytes with ",
                                                   fds.size(), " descriptors: too large"));
  }
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kFdsMax)];
  if (!fds.empty()) {
    std::memset(control, 0, sizeof(control));
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  while (sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return absl::UnavailableError("send a control message: the peer's buffer is full");
    if (errno == EPIPE || errno == ECONNRESET) {
      return absl::FailedPreconditionError("send a control message: the peer is gone");
    }
    return absl::ErrnoToStatus(errno, "send a control message");
  }
  return absl::OkStatus();
}

absl::StatusOr<ReceivedMessage> ReceiveMessage(int socket_fd) {
  ReceivedMessage result;
  // Of the most that may come and not initialised: a message is a few hundred bytes as a rule.
  const std::unique_ptr<char[]> room(new char[kControlMessageBytesMax]);
  iovec part{room.get(), kControlMessageBytesMax};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kFdsMax)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t received;
  // A peer that closed without reading all is reported once as ECONNRESET, ahead of what it had sent before.
  bool reset = false;
  do {
    received = recvmsg(socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (received < 0 && (errno == EINTR || (errno == ECONNRESET && !std::exchange(reset, true))));
  if (received < 0) {
    if (errno == EAGAIN) return absl::UnavailableError("receive a control message: none there");
    if (errno == ECONNRESET) return absl::OutOfRangeError("receive a control message: the peer is gone");
    return absl::ErrnoToStatus(errno, "receive a control message");
  }
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      result.fds.emplace_back(fd);
    }
  }
  // A seqpacket socket reports its end as an empty packet; no message of ours is empty.
  if (received == 0 && result.fds.empty())
    return absl::OutOfRangeError("receive a control message: the peer closed");
  result.bytes.assign(room.get(), static_cast<std::size_t>(received));
  result.truncated = (message.msg_flags & MSG_TRUNC) != 0;
  result.fds_truncated = (message.msg_flags & MSG_CTRUNC) != 0;
  return result;
}

absl::Status WaitReady(int socket_fd, short events, int timeout_ms) {
  const uint64_t deadline_ns = NowNs() + static_cast<uint64_t>(timeout_ms < 0 ? 0 : timeout_ms) * kNsPerMs;
  for (;;) {
    pollfd entry{socket_fd, events, 0};
    int left_ms = -1;
    if (timeout_ms >= 0) {
      const uint64_t now_ns = NowNs();
      left_ms =
          now_ns >= deadline_ns ? 0 : static_cast<int>((deadline_ns - now_ns + kNsPerMs - 1) / kNsPerMs);
    }
    const int ready = poll(&entry, 1, left_ms);
    if (ready > 0) return absl::OkStatus();
    if (ready == 0) return absl::DeadlineExceededError("wait for a socket: the time ran out");
    if (errno != EINTR) return absl::ErrnoToStatus(errno, "wait for a socket");
  }
}

}  // namespace weft
