// SPDX-License-Identifier: Apache-2.0
#include "bench/kernel_rows.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "bench/pair_row.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

constexpr std::size_t kBytes = 64;

// The request that ends a block: no payload is filled with this id.
constexpr uint64_t kStopId = 0;

absl::StatusOr<SocketPair> UnixPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ErrnoToStatus(errno, "create a Unix socket pair");
  }
  return SocketPair{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

absl::StatusOr<SocketPair> TcpPair() {
  UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SocketPair pair{UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), UniqueFd()};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener.get(), generic, bytes) != 0 || listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), generic, &bytes) != 0 || connect(pair.caller.get(), generic, bytes) != 0) {
    return absl::ErrnoToStatus(errno, "connect two TCP sockets over loopback");
  }
  pair.callee.Reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!pair.callee.valid()) return absl::ErrnoToStatus(errno, "accept a TCP connection over loopback");
  const int on = 1;
  for (int fd : {pair.caller.get(), pair.callee.get()}) {
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
      return absl::ErrnoToStatus(errno, "set TCP_NODELAY");
    }
  }
  return pair;
}

// First 8 bytes the id, the rest filled from it, so that a stop is told from a request without a second
// socket.
struct Message {
  uint64_t id;
  unsigned char rest[kBytes - sizeof(uint64_t)];
};
static_assert(sizeof(Message) == kBytes);

class SocketRow final : public PairRow {
 public:
  using Connect = std::function<absl::StatusOr<SocketPair>()>;
  SocketRow(std::string name, Connect connect, std::function<void()> release, bool spin)
      : PairRow({.name = std::move(name), .bytes = kBytes}),
        connect_(std::move(connect)),
        release_(std::move(release)),
        spin_(spin) {}

 private:
  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(pair_, connect_());
    return absl::OkStatus();
  }

  static Message MessageOf(uint64_t id) {
    Message message{id, {}};
    FillPayload(message.rest, sizeof(message.rest), id);
    return message;
  }

  bool Send(int fd, const Message& message) const {
    ssize_t sent;
    do {
      sent = send(fd, &message, sizeof(message), MSG_NOSIGNAL | (spin_ ? MSG_DONTWAIT : 0));
    } while (sent < 0 && (errno == EINTR || errno == EAGAIN));
    return sent == sizeof(message);
  }

  // A stream may hand over a message in parts.
  bool Receive(int fd, Message* message) const {
    auto* at = reinterpret_cast<char*>(message);
    std::size_t have = 0;
    while (have < sizeof(*message)) {
      const ssize_t received = recv(fd, at + have, sizeof(*message) - have, spin_ ? MSG_DONTWAIT : 0);
      if (received > 0) {
        have += static_cast<std::size_t>(received);
      } else if (received == 0 || (errno != EINTR && errno != EAGAIN)) {
        return false;
      }
    }
    return true;
  }

  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    Samples samples(out, duration_ns);
    Message answer;
    uint64_t id = kStopId, begin_ns = 0, end_ns = 0, errors = 0;
    do {
      const Message request = MessageOf(++id);
      begin_ns = NowNs();
      const bool exchanged = Send(pair_.caller.get(), request) && Receive(pair_.caller.get(), &answer);
      end_ns = NowNs();
      if (!exchanged) return {.errors = errors + 1};
      errors += answer.id == id && CheckPayload(answer.rest, sizeof(answer.rest), id) ? 0 : 1;
    } while (samples.Add(begin_ns, end_ns));
    errors += Send(pair_.caller.get(), MessageOf(kStopId)) ? 0 : 1;
    return {.messages = samples.count(),
            .samples = samples.count(),
            .elapsed_ns = samples.elapsed_ns(),
            .errors = errors};
  }

  Worker::Reply Answer() override {
    uint64_t errors = 0;
    for (;;) {
      Message request;
      if (!Receive(pair_.callee.get(), &request)) return {.errors = errors + 1};
      if (request.id == kStopId) return {.errors = errors};
      errors += CheckPayload(request.rest, sizeof(request.rest), request.id) ? 0 : 1;
      if (!Send(pair_.callee.get(), MessageOf(request.id))) return {.errors = errors + 1};
    }
  }

  void Release() override {
    pair_ = SocketPair();
    release_();
  }

  Connect connect_;
  std::function<void()> release_;
  bool spin_;
  SocketPair pair_;
};

}  // namespace

std::unique_ptr<Row> NewSocketRow(std::string name, std::function<absl::StatusOr<SocketPair>()> connect,
                                  std::function<void()> release, bool spin) {
  return std::make_unique<SocketRow>(std::move(name), std::move(connect), std::move(release), spin);
}
std::unique_ptr<Row> NewUnixSocketRow() {
  return NewSocketRow("kernel/unix_socket", UnixPair, [] {}, /*spin=*/false);
}
std::unique_ptr<Row> NewTcpLoopbackRow() {
  return NewSocketRow("kernel/tcp_loopback", TcpPair, [] {}, /*spin=*/false);
}
std::unique_ptr<Row> NewTcpLoopbackSpinRow() {
  return NewSocketRow("kernel/tcp_loopback_spin", TcpPair, [] {}, /*spin=*/true);
}

}  // namespace weft::bench
