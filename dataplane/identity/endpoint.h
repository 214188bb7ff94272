// SPDX-License-Identifier: Apache-2.0
// An IP address and a port, as nodes announce them to each other and as mesh files write them. Any thread.
#ifndef WEFT_DATAPLANE_IDENTITY_ENDPOINT_H_
#define WEFT_DATAPLANE_IDENTITY_ENDPOINT_H_

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft::identity {

struct Endpoint {
  bool ipv6 = false;
  std::array<uint8_t, 16> address{};  // Network byte order; IPv4 in the first four.
  uint16_t port = 0;                  // Host byte order.

  // 192.0.2.1:4810 or [2001:db8::1]:4810; no names. INVALID_ARGUMENT quotes what is wrong.
  static absl::StatusOr<Endpoint> Parse(absl::string_view text);
  // Nothing where `address` is neither AF_INET nor AF_INET6; a mapped IPv4 address becomes a plain one.
  static Endpoint FromSockaddr(const sockaddr_storage& address);
  // Returns the length.
  socklen_t ToSockaddr(sockaddr_storage* out) const;
  std::string ToString() const;
  // Of one source, for bounds: of IPv6 a /64, since whoever has one address there has them all.
  bool SameSource(const Endpoint& other) const;
  // 0.0.0.0 or ::
  bool unspecified() const { return address == std::array<uint8_t, 16>{}; }

  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

}  // namespace weft::identity

#endif  // WEFT_DATAPLANE_IDENTITY_ENDPOINT_H_
