// SPDX-License-Identifier: Apache-2.0
#include "control/daemon/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

constexpr int kBacklog = 16;
constexpr std::size_t kReadBytes = 4096;

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

absl::StatusOr<Address> LoopbackOf(const std::string& text) {
  absl::Status bad = absl::InvalidArgumentError(absl::StrCat("metrics on \"", text,
                                                             "\": must be a loopback address and a port, ",
                                                             "as in 127.0.0.1:9464 or [::1]:9464"));
  const std::size_t colon = text.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(text.substr(colon + 1), &port) || port > 65535)
    return bad;
  absl::string_view host = absl::string_view(text).substr(0, colon);
  Address address;
  if (absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]")) {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(static_cast<uint16_t>(port));
    if (inet_pton(AF_INET6, std::string(host).c_str(), &v6.sin6_addr) != 1 ||
        !IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr)) {
      return bad;
    }
    address.size = sizeof(v6);
    std::memcpy(&address.storage, &v6, sizeof(v6));
    return address;
  }
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, std::string(host).c_str(), &v4.sin_addr) != 1 ||
      ntohl(v4.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET) {
    return bad;
  }
  address.size = sizeof(v4);
  std::memcpy(&address.storage, &v4, sizeof(v4));
  return address;
}

uint16_t PortOf(int fd) {
  sockaddr_in6 address{};  // sockaddr_in has its port at the same place.
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.sin6_port);
}

std::string AnswerOf(const char* status, const char* type, const std::string& body) {
  return absl::StrCat("HTTP/1.1 ", status, "\r\nContent-Type: ", type, "\r\nContent-Length: ", body.size(),
                      "\r\nConnection: close\r\n\r\n", body);
}

}  // namespace

absl::Status CheckLoopback(const std::string& address) { return LoopbackOf(address).status(); }

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Create(const std::string& address,
                                                                     std::function<std::string()> metrics) {
  WEFT_ASSIGN_OR_RETURN(const Address where, LoopbackOf(address));
  UniqueFd fd(socket(where.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!fd.valid() || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&where.storage), where.size) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("metrics on ", address));
  }
  const uint16_t port = PortOf(fd.get());
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(fd), port, std::move(metrics)));
}

void MetricsServer::AddPollEntries(std::vector<pollfd>* entries) const {
  entries->push_back({listener_.get(), POLLIN, 0});
  for (const Client& client : clients_) {
    entries->push_back({client.fd.get(), static_cast<short>(client.answer.empty() ? POLLIN : POLLOUT), 0});
  }
}

void MetricsServer::OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) {
  bool accept = false;
  for (const pollfd& entry : entries) {
    if (entry.revents == 0) continue;
    accept |= entry.fd == listener_.get();
    for (auto it = clients_.begin(); it != clients_.end(); ++it) {
      if (it->fd.get() != entry.fd) continue;
      if (!Serve(&*it)) clients_.erase(it);
      break;
    }
  }
  // Last: a descriptor that is given out anew must not be taken for one of this round's events.
  if (accept) Accept(now_ns);
}

uint64_t MetricsServer::wake_ns() const { return clients_.empty() ? 0 : clients_.front().until_ns; }

void MetricsServer::OnTime(uint64_t now_ns) {
  while (!clients_.empty() && now_ns >= clients_.front().until_ns) clients_.pop_front();
}

void MetricsServer::Accept(uint64_t now_ns) {
  for (std::size_t i = 0; i < kClientsMax; ++i) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) return;
    if (clients_.size() >= kClientsMax) clients_.pop_front();
    Client& client = clients_.emplace_back();
    client.fd = std::move(fd);
    client.until_ns = now_ns + kClientNsMax;
  }
}

bool MetricsServer::Read(Client* client) {
  char bytes[kReadBytes];
  const ssize_t got = recv(client->fd.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  client->request.append(bytes, static_cast<std::size_t>(got));
  if (absl::StrContains(client->request, "\r\n\r\n")) {
    client->answer = AnswerTo(client->request);
  } else if (client->request.size() > kRequestBytesMax) {
    client->answer = AnswerOf("431 Request Header Fields Too Large", "text/plain", "too long\n");
  }
  return true;
}

bool MetricsServer::Serve(Client* client) {
  if (client->answer.empty()) {
    if (!Read(client)) return false;
    if (client->answer.empty()) return true;
  }
  const ssize_t sent = send(client->fd.get(), client->answer.data() + client->sent,
                            client->answer.size() - client->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN || errno == EINTR;
  client->sent += static_cast<std::size_t>(sent);
  return client->sent < client->answer.size();
}

std::string MetricsServer::AnswerTo(const std::string& request) const {
  const std::string line = request.substr(0, request.find("\r\n"));
  if (!absl::StartsWith(line, "GET ")) {
    return AnswerOf("405 Method Not Allowed", "text/plain", "GET /metrics\n");
  }
  if (!absl::StartsWith(line, "GET /metrics ") && !absl::StartsWith(line, "GET /metrics?")) {
    return AnswerOf("404 Not Found", "text/plain", "GET /metrics\n");
  }
  return AnswerOf("200 OK", "text/plain; version=0.0.4; charset=utf-8", metrics_());
}

}  // namespace weft::control
