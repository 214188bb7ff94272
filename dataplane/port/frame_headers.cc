// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/frame_headers.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/in.h>

#include <cstring>

#include "dataplane/base/attributes.h"

namespace weft::port {
namespace {

constexpr uint8_t kHopLimit = 64;

// The sum of Sum16 eight bytes at a time: one's complement addition does not mind the byte order, so words
// are added as they lie in memory and the result is turned at the end.
uint32_t SumFast(const uint8_t* at, std::size_t bytes) {
  uint64_t sum = 0;
  std::size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, at + i, sizeof(word));
    sum += (word & 0xffffffff) + (word >> 32);
  }
  uint64_t rest = 0;
  std::memcpy(&rest, at + i, bytes - i);
  sum += (rest & 0xffffffff) + (rest >> 32);
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return ntohs(static_cast<uint16_t>(sum));
}

uint16_t ChecksumOf(uint32_t sum) { return static_cast<uint16_t>(~FoldSum(sum)); }

}  // namespace

uint32_t Sum16(const uint8_t* at, std::size_t bytes) {
  uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < bytes; i += 2) sum += Load16(at + i);
  if (bytes % 2 == 1) sum += static_cast<uint32_t>(at[bytes - 1]) << 8;
  return sum;
}

HeaderTemplate MakeHeaders(const uint8_t (&source_mac)[6], const uint8_t (&peer_mac)[6],
                           const Address& source, const Address& peer) {
  HeaderTemplate headers;
  uint8_t* const ethernet = headers.bytes;
  std::memcpy(ethernet, peer_mac, sizeof(peer_mac));
  std::memcpy(ethernet + 6, source_mac, sizeof(source_mac));
  const bool ipv4 = peer.is_ipv4();
  Store16(ethernet + 12, ipv4 ? ETH_P_IP : ETH_P_IPV6);
  uint8_t* const ip = ethernet + kEthernetBytes;
  const std::size_t ip_bytes = ipv4 ? 20 : 40;
  if (ipv4) {
    ip[0] = 0x45;
    Store16(ip + 6, 0x4000);  // Do not fragment.
    ip[8] = kHopLimit;
    ip[9] = IPPROTO_UDP;
    std::memcpy(ip + 12, source.ip + 12, 4);
    std::memcpy(ip + 16, peer.ip + 12, 4);
    headers.header_sum = Sum16(ip, ip_bytes);
  } else {
    ip[0] = 0x60;
    ip[6] = IPPROTO_UDP;
    ip[7] = kHopLimit;
    std::memcpy(ip + 8, source.ip, 16);
    std::memcpy(ip + 24, peer.ip, 16);
    headers.address_sum = Sum16(ip + 8, 32) + IPPROTO_UDP;
  }
  uint8_t* const udp = ip + ip_bytes;
  Store16(udp, source.port);
  Store16(udp + 2, peer.port);
  headers.size = static_cast<uint8_t>(kEthernetBytes + ip_bytes + kUdpBytes);
  return headers;
}

WEFT_HOT void WriteHeaders(const HeaderTemplate& headers, uint8_t* datagram, std::size_t bytes) {
  uint8_t* const udp = datagram - kUdpBytes;
  const auto udp_bytes = static_cast<uint32_t>(bytes + kUdpBytes);
  // Each copy has a fixed size: a few moves rather than a call.
  if (headers.size == kHeaders4Bytes) [[likely]] {
    uint8_t* const frame = datagram - kHeaders4Bytes;
    std::memcpy(frame, headers.bytes, kHeaders4Bytes);
    uint8_t* const ip = frame + kEthernetBytes;
    Store16(ip + 2, udp_bytes + 20);
    Store16(ip + 10, ChecksumOf(headers.header_sum + udp_bytes + 20));
    Store16(udp + 4, udp_bytes);
    return;
  }
  uint8_t* const frame = datagram - kHeaders6Bytes;
  std::memcpy(frame, headers.bytes, kHeaders6Bytes);
  Store16(frame + kEthernetBytes + 4, udp_bytes);
  Store16(udp + 4, udp_bytes);
  const uint16_t checksum = ChecksumOf(headers.address_sum + udp_bytes + SumFast(udp, udp_bytes));
  Store16(udp + 6, checksum == 0 ? 0xffff : checksum);  // 0 would mean that there is none.
}

WEFT_HOT ParsedFrame ParseFrame(const uint8_t* frame, std::size_t bytes, uint16_t port) {
  std::size_t at = kEthernetBytes;
  if (bytes < at) return {};
  uint16_t type = Load16(frame + 12);
  if (type == ETH_P_8021Q || type == ETH_P_8021AD) {
    at += 4;
    if (bytes < at) return {};
    type = Load16(frame + 16);
  }
  ParsedFrame parsed;
  parsed.ip_offset = static_cast<uint32_t>(at);
  parsed.ipv4 = type == ETH_P_IP;
  const uint8_t* const ip = frame + at;
  std::size_t ip_payload;
  if (parsed.ipv4) {
    if (bytes < at + 20 || ip[0] != 0x45 || ip[9] != IPPROTO_UDP || (Load16(ip + 6) & 0x3fff) != 0) return {};
    const std::size_t total = Load16(ip + 2);
    if (total < 20 || bytes < at + total) return {};
    ip_payload = total - 20;
    at += 20;
  } else {
    if (type != ETH_P_IPV6 || bytes < at + 40 || (ip[0] & 0xf0) != 0x60 || ip[6] != IPPROTO_UDP) return {};
    ip_payload = Load16(ip + 4);
    if (bytes < at + 40 + ip_payload) return {};
    at += 40;
  }
  if (ip_payload < kUdpBytes || Load16(frame + at + 2) != port) return {};
  const std::size_t udp_bytes = Load16(frame + at + 4);
  if (udp_bytes < kUdpBytes || udp_bytes > ip_payload) return {};
  parsed.offset = static_cast<uint32_t>(at + kUdpBytes);
  parsed.bytes = static_cast<uint32_t>(udp_bytes - kUdpBytes);
  return parsed;
}

Address SourceOfFrame(const uint8_t* frame, const ParsedFrame& parsed) {
  const uint8_t* const ip = frame + parsed.ip_offset;
  Address address = parsed.ipv4 ? Address::FromIpv4(ip + 12) : Address::FromIpv6(ip + 8);
  address.port = Load16(frame + parsed.offset - kUdpBytes);
  return address;
}

}  // namespace weft::port
