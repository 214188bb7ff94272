// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tcp_relay.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <utility>

#include "dataplane/base/check.h"

namespace weft::test {
namespace {

constexpr int kTurnMs = 5;  // After which a cut is seen

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

UniqueFd TcpSocket() { return UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

// False where either end is closed.
bool Carry(int from, int to) {
  char buffer[64 << 10];
  const ssize_t got = recv(from, buffer, sizeof(buffer), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  for (ssize_t sent = 0; sent < got;) {
    const ssize_t more = send(to, buffer + sent, static_cast<std::size_t>(got - sent), MSG_NOSIGNAL);
    if (more <= 0) return false;
    sent += more;
  }
  return got > 0;
}

}  // namespace

TcpRelay::TcpRelay(uint16_t to) : to_(to), listener_(TcpSocket()) {
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  WEFT_CHECK(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  WEFT_CHECK(listen(listener_.get(), SOMAXCONN) == 0);
  WEFT_CHECK(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

TcpRelay::~TcpRelay() {
  stop_ = true;
  thread_.join();
}

void TcpRelay::Accept() {
  Pair pair{UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)), TcpSocket()};
  const sockaddr_in address = Loopback(to_);
  if (cut_ || connect(pair.far.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return;
  pairs_.push_back(std::move(pair));
}

void TcpRelay::Run() {
  while (!stop_) {
    std::vector<pollfd> entries = {{listener_.get(), POLLIN, 0}};
    for (const Pair& pair : pairs_) {
      entries.push_back({pair.near.get(), POLLIN, 0});
      entries.push_back({pair.far.get(), POLLIN, 0});
    }
    poll(entries.data(), entries.size(), kTurnMs);
    if (cut_) pairs_.clear();
    std::vector<Pair> open;
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      const int near = pairs_[i].near.get(), far = pairs_[i].far.get();
      if (entries[1 + 2 * i].revents != 0 && !Carry(near, far)) continue;
      if (entries[2 + 2 * i].revents != 0 && !Carry(far, near)) continue;
      open.push_back(std::move(pairs_[i]));
    }
    pairs_ = std::move(open);
    if (entries[0].revents != 0) Accept();
  }
}

}  // namespace weft::test
