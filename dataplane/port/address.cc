// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace weft::port {
namespace {

constexpr uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

absl::Status Invalid(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no address and port: ", why));
}

}  // namespace

absl::StatusOr<Address> Address::Parse(absl::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return Invalid(text, "no port");
  uint32_t port;
  if (!absl::SimpleAtoi(text.substr(colon + 1), &port) || port > UINT16_MAX) return Invalid(text, "bad port");
  absl::string_view host = text.substr(0, colon);
  Address address;
  address.port = static_cast<uint16_t>(port);
  if (!host.empty() && host.front() == '[') {
    if (host.back() != ']') return Invalid(text, "no closing bracket");
    host = host.substr(1, host.size() - 2);
    if (const std::size_t percent = host.find('%'); percent != absl::string_view::npos) {
      const std::string interface(host.substr(percent + 1));
      address.scope_id = if_nametoindex(interface.c_str());
      if (address.scope_id == 0) return Invalid(text, absl::StrCat("no interface ", interface));
      host = host.substr(0, percent);
    }
    if (inet_pton(AF_INET6, std::string(host).c_str(), address.ip) != 1)
      return Invalid(text, "bad IPv6 address");
    return address;
  }
  std::memcpy(address.ip, kMappedPrefix, sizeof(kMappedPrefix));
  if (inet_pton(AF_INET, std::string(host).c_str(), address.ip + sizeof(kMappedPrefix)) != 1) {
    return Invalid(text, "bad IPv4 address (IPv6 stands in brackets)");
  }
  return address;
}

Address Address::FromSockaddr(const sockaddr* from) {
  Address address;
  if (from->sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, from, sizeof(in));
    address = FromIpv4(&in.sin_addr);
    address.port = ntohs(in.sin_port);
  } else if (from->sa_family == AF_INET6) {
    sockaddr_in6 in6;
    std::memcpy(&in6, from, sizeof(in6));
    address = FromIpv6(&in6.sin6_addr);
    address.port = ntohs(in6.sin6_port);
    address.scope_id = in6.sin6_scope_id;
  }
  return address;
}

Address Address::FromIpv4(const void* ip) {
  Address address;
  std::memcpy(address.ip, kMappedPrefix, sizeof(kMappedPrefix));
  std::memcpy(address.ip + sizeof(kMappedPrefix), ip, sizeof(in_addr));
  return address;
}

Address Address::FromIpv6(const void* ip) {
  Address address;
  std::memcpy(address.ip, ip, sizeof(address.ip));
  return address;
}

bool Address::is_ipv4() const { return std::memcmp(ip, kMappedPrefix, sizeof(kMappedPrefix)) == 0; }

bool Address::is_any() const {
  const uint8_t* const first = is_ipv4() ? ip + sizeof(kMappedPrefix) : ip;
  return std::all_of(first, ip + sizeof(ip), [](uint8_t byte) { return byte == 0; });
}

socklen_t Address::ToSockaddr(sa_family_t family, sockaddr_storage* out) const {
  *out = {};
  if (family == AF_INET) {
    if (!is_ipv4()) return 0;
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    std::memcpy(&in.sin_addr, ip + sizeof(kMappedPrefix), sizeof(in.sin_addr));
    std::memcpy(out, &in, sizeof(in));
    return sizeof(in);
  }
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(port);
  in6.sin6_scope_id = scope_id;
  std::memcpy(&in6.sin6_addr, ip, sizeof(ip));
  std::memcpy(out, &in6, sizeof(in6));
  return sizeof(in6);
}

std::string Address::ToString() const {
  char host[INET6_ADDRSTRLEN];
  if (is_ipv4()) {
    inet_ntop(AF_INET, ip + sizeof(kMappedPrefix), host, sizeof(host));
    return absl::StrCat(host, ":", port);
  }
  inet_ntop(AF_INET6, ip, host, sizeof(host));
  return absl::StrCat("[", host, scope_id == 0 ? "" : absl::StrCat("%", scope_id), "]:", port);
}

}  // namespace weft::port
