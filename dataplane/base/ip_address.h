// SPDX-License-Identifier: Apache-2.0
// Whether a text is an IP address as stands before the port of another node's address. For what reads
// settings and mesh files; any thread.
#ifndef WEFT_DATAPLANE_BASE_IP_ADDRESS_H_
#define WEFT_DATAPLANE_BASE_IP_ADDRESS_H_

#include <arpa/inet.h>
#include <netinet/in.h>

#include <string>

#include "absl/strings/string_view.h"

namespace weft {

// 192.0.2.1, or [2001:db8::1]: IPv6 in brackets and nothing else. Neither a name nor a zone.
inline bool IsIpAddress(absl::string_view text) {
  const bool ipv6 = text.size() > 2 && text.front() == '[' && text.back() == ']';
  if (ipv6) text = text.substr(1, text.size() - 2);
  in6_addr address;
  return inet_pton(ipv6 ? AF_INET6 : AF_INET, std::string(text).c_str(), &address) == 1;
}

// Of such a text: whether it is of many nodes or none (multicast, broadcast, reserved), or of a link, which
// means nothing without its interface. No socket of a node is bound to one.
inline bool IsNoNodesAddress(absl::string_view text) {
  in6_addr ipv6;
  in_addr ipv4;
  if (inet_pton(AF_INET, std::string(text).c_str(), &ipv4) == 1) return ntohl(ipv4.s_addr) >> 29 == 7;
  return text.size() > 2 &&
         inet_pton(AF_INET6, std::string(text.substr(1, text.size() - 2)).c_str(), &ipv6) == 1 &&
         (IN6_IS_ADDR_MULTICAST(&ipv6) || IN6_IS_ADDR_LINKLOCAL(&ipv6));
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_IP_ADDRESS_H_
