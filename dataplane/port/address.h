// SPDX-License-Identifier: Apache-2.0
// An IP address and a UDP port, as a value. IPv4 is kept as its IPv4-mapped IPv6 address, so that one form
// serves both.
#ifndef WEFT_DATAPLANE_PORT_ADDRESS_H_
#define WEFT_DATAPLANE_PORT_ADDRESS_H_

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft::port {

struct Address {
  uint8_t ip[16] = {};    // Network order; IPv4 is ::ffff:a.b.c.d.
  uint16_t port = 0;      // UDP, host order.
  uint32_t scope_id = 0;  // Interface index of a link-local IPv6 address, else 0.

  // "10.0.0.1:4810", "[2001:db8::1]:4810", "[fe80::1%eth0]:4810". INVALID_ARGUMENT names what is wrong.
  static absl::StatusOr<Address> Parse(absl::string_view text);
  // An address of another family than AF_INET and AF_INET6 yields one of all zeros.
  static Address FromSockaddr(const sockaddr* from);
  // Of 4, or 16, bytes in network order, as packets and netlink have them, aligned or not. Without a port.
  static Address FromIpv4(const void* ip);
  static Address FromIpv6(const void* ip);

  bool is_ipv4() const;
  // The unspecified address, 0.0.0.0 or ::.
  bool is_any() const;
  // Writes the form that a socket of `family` takes and returns its length; 0 where it has none: IPv6 on an
  // IPv4 socket.
  socklen_t ToSockaddr(sa_family_t family, sockaddr_storage* out) const;
  std::string ToString() const;

  friend bool operator==(const Address&, const Address&) = default;
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_ADDRESS_H_
