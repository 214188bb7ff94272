// SPDX-License-Identifier: Apache-2.0
#include "dataplane/identity/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace weft::identity {

absl::StatusOr<Endpoint> Endpoint::Parse(absl::string_view text) {
  const auto error = [&] {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be an IP address and a port, as in 192.0.2.1:4810 or [2001:db8::1]:4810, not \"", text, "\""));
  };
  const std::size_t colon = text.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(text.substr(colon + 1), &port) || port == 0 ||
      port > 65535) {
    return error();
  }
  absl::string_view host = text.substr(0, colon);
  Endpoint endpoint;
  endpoint.port = static_cast<uint16_t>(port);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    endpoint.ipv6 = true;
    host = host.substr(1, host.size() - 2);
  }
  if (inet_pton(endpoint.ipv6 ? AF_INET6 : AF_INET, std::string(host).c_str(), endpoint.address.data()) !=
      1) {
    return error();
  }
  return endpoint;
}

Endpoint Endpoint::FromSockaddr(const sockaddr_storage& address) {
  Endpoint endpoint;
  if (address.ss_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, &address, sizeof(in));
    std::memcpy(endpoint.address.data(), &in.sin_addr, sizeof(in.sin_addr));
    endpoint.port = ntohs(in.sin_port);
  } else if (address.ss_family == AF_INET6) {
    sockaddr_in6 in;
    std::memcpy(&in, &address, sizeof(in));
    endpoint.port = ntohs(in.sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) {
      std::memcpy(endpoint.address.data(), in.sin6_addr.s6_addr + 12, 4);
    } else {
      endpoint.ipv6 = true;
      std::memcpy(endpoint.address.data(), &in.sin6_addr, sizeof(in.sin6_addr));
    }
  }
  return endpoint;
}

bool Endpoint::SameSource(const Endpoint& other) const {
  return ipv6 == other.ipv6 && std::memcmp(address.data(), other.address.data(), ipv6 ? 8 : 4) == 0;
}

socklen_t Endpoint::ToSockaddr(sockaddr_storage* out) const {
  std::memset(out, 0, sizeof(*out));
  if (ipv6) {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    std::memcpy(&in.sin6_addr, address.data(), sizeof(in.sin6_addr));
    std::memcpy(out, &in, sizeof(in));
    return sizeof(in);
  }
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  std::memcpy(&in.sin_addr, address.data(), sizeof(in.sin_addr));
  std::memcpy(out, &in, sizeof(in));
  return sizeof(in);
}

std::string Endpoint::ToString() const {
  char text[INET6_ADDRSTRLEN];
  inet_ntop(ipv6 ? AF_INET6 : AF_INET, address.data(), text, sizeof(text));
  return ipv6 ? absl::StrCat("[", text, "]:", port) : absl::StrCat(text, ":", port);
}

}  // namespace weft::identity
