// SPDX-License-Identifier: Apache-2.0
// Ethernet, IPv4 or IPv6, and UDP before a datagram, for the ports that build frames themselves (AF_XDP,
// DPDK). Pure.
#ifndef WEFT_DATAPLANE_PORT_FRAME_HEADERS_H_
#define WEFT_DATAPLANE_PORT_FRAME_HEADERS_H_

#include <arpa/inet.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/port/address.h"

namespace weft::port {

inline constexpr std::size_t kEthernetBytes = 14;
inline constexpr std::size_t kUdpBytes = 8;
inline constexpr std::size_t kHeaders4Bytes = kEthernetBytes + 20 + kUdpBytes;
inline constexpr std::size_t kHeaders6Bytes = kEthernetBytes + 40 + kUdpBytes;

// Of a datagram to or from `address`: its IP and UDP headers, which count against the MTU as it does.
inline std::size_t IpHeadersBytes(const Address& address) {
  return (address.is_ipv4() ? kHeaders4Bytes : kHeaders6Bytes) - kEthernetBytes;
}

// A number of two bytes in network order, aligned or not.
inline uint16_t Load16(const uint8_t* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof(value));
  return ntohs(value);
}
inline void Store16(uint8_t* at, uint32_t value) {
  const uint16_t be = htons(static_cast<uint16_t>(value));
  std::memcpy(at, &be, sizeof(be));
}

// One's complement sum of 16-bit words in network order, an odd last byte as a word's first; not yet folded,
// of at most 2^16 words with all that is added to it.
uint32_t Sum16(const uint8_t* at, std::size_t bytes);
inline uint16_t FoldSum(uint32_t sum) {
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

// What BeginSend leaves free before a datagram, so that the datagram begins on a cache line.
inline constexpr std::size_t kHeadersRoomBytes = 64;

// The headers to one peer with lengths and checksums still missing.
struct HeaderTemplate {
  uint8_t bytes[kHeadersRoomBytes] = {};
  uint8_t size = 0;          // kHeaders4Bytes or kHeaders6Bytes; 0: none yet.
  uint32_t address_sum = 0;  // One's complement sum of the UDP pseudo header without the length.
  uint32_t header_sum = 0;   // IPv4: of its header without the length.
};

// Both addresses of one family.
HeaderTemplate MakeHeaders(const uint8_t (&source_mac)[6], const uint8_t (&peer_mac)[6],
                           const Address& source, const Address& peer);

// Writes the headers right before `datagram`, which has kHeadersRoomBytes before it. Over IPv4 the UDP
// checksum is left out (0), as RFC 768 allows: the tag says more. Over IPv6 it must be there and is computed.
void WriteHeaders(const HeaderTemplate& headers, uint8_t* datagram, std::size_t bytes);

// Where in a frame its datagram lies.
struct ParsedFrame {
  uint32_t offset = 0;  // 0: it is no datagram for `port`.
  uint32_t bytes = 0;
  uint32_t ip_offset = 0;
  bool ipv4 = false;
};
// Takes untagged and single-tagged frames without IP options, extension headers and fragments. Checksums are
// not verified: the tag of the datagram is. `port`: UDP destination in host order.
ParsedFrame ParseFrame(const uint8_t* frame, std::size_t bytes, uint16_t port);

// The sender of a frame that ParseFrame took.
Address SourceOfFrame(const uint8_t* frame, const ParsedFrame& parsed);

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_FRAME_HEADERS_H_
