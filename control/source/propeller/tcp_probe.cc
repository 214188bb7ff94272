// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/tcp_probe.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace weft::control {
namespace {

UniqueFd BeginConnect(const std::string& ip, uint32_t port) {
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(static_cast<uint16_t>(port));
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = v6.sin6_port;
  const bool is_v4 = inet_pton(AF_INET, ip.c_str(), &v4.sin_addr) == 1;
  if (!is_v4 && inet_pton(AF_INET6, ip.c_str(), &v6.sin6_addr) != 1) return UniqueFd();
  UniqueFd fd(socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto* address = is_v4 ? reinterpret_cast<sockaddr*>(&v4) : reinterpret_cast<sockaddr*>(&v6);
  const socklen_t size = is_v4 ? sizeof(v4) : sizeof(v6);
  if (fd.valid() && connect(fd.get(), address, size) != 0 && errno != EINPROGRESS) return UniqueFd();
  return fd;
}

}  // namespace

void TcpProbe::Start(const std::string& ip, uint32_t port, uint64_t now_ns, std::function<void(bool)> done) {
  UniqueFd fd = BeginConnect(ip, port);
  // What failed at once is told soon, but not from in here.
  const uint64_t until_ns = fd.valid() ? now_ns + kWaitNs : 1;
  Asked asked{std::move(fd), until_ns, std::move(done)};
  if (asked.fd.valid()) {
    asked_.push_back(std::move(asked));
  } else {
    asked_.push_front(std::move(asked));
  }
}

void TcpProbe::AddPollEntries(std::vector<pollfd>* entries) const {
  for (const Asked& asked : asked_) {
    if (asked.fd.valid()) entries->push_back({asked.fd.get(), POLLOUT, 0});
  }
}

void TcpProbe::OnEvents(const std::vector<pollfd>& entries) {
  for (const pollfd& entry : entries) {
    if (entry.revents == 0) continue;
    for (auto it = asked_.begin(); it != asked_.end(); ++it) {
      if (!it->fd.valid() || it->fd.get() != entry.fd) continue;
      int error = 0;
      socklen_t size = sizeof(error);
      const bool listens = getsockopt(entry.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
      const std::function<void(bool)> done = std::move(it->done);
      asked_.erase(it);
      done(listens);
      break;
    }
  }
}

void TcpProbe::OnTime(uint64_t now_ns) {
  while (!asked_.empty() && now_ns >= asked_.front().until_ns) {
    const std::function<void(bool)> done = std::move(asked_.front().done);
    asked_.pop_front();
    done(false);
  }
}

}  // namespace weft::control
