// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/neighbour_frames.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "dataplane/port/frame_headers.h"

namespace weft::port {
namespace {

constexpr std::size_t kArpBytes = 28;
constexpr std::size_t kIpv6Bytes = 40;
// ICMPv6 header with a target, and the option that carries a link address.
constexpr std::size_t kTargetBytes = 24;
constexpr std::size_t kOptionBytes = 8;
constexpr uint8_t kBroadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
// Neighbour discovery is of one link only: a router would have lowered it.
constexpr uint8_t kLinkHopLimit = 255;
constexpr uint8_t kAllNodes[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

void WriteEthernet(uint8_t* out, const uint8_t* to, const uint8_t* from, uint16_t type) {
  std::memcpy(out, to, 6);
  std::memcpy(out + 6, from, 6);
  Store16(out + 12, type);
}

std::size_t WriteArp(uint8_t* out, uint16_t operation, const uint8_t* to_mac, const uint8_t* own_mac,
                     const Address& own, const uint8_t* target_mac, const Address& target) {
  WriteEthernet(out, to_mac, own_mac, ETH_P_ARP);
  uint8_t* const arp = out + kEthernetBytes;
  Store16(arp, ARPHRD_ETHER);
  Store16(arp + 2, ETH_P_IP);
  arp[4] = 6;
  arp[5] = 4;
  Store16(arp + 6, operation);
  std::memcpy(arp + 8, own_mac, 6);
  std::memcpy(arp + 14, own.ip + 12, 4);
  std::memcpy(arp + 18, target_mac, 6);
  std::memcpy(arp + 24, target.ip + 12, 4);
  return kEthernetBytes + kArpBytes;
}

// Of an IPv6 packet's ICMP part, pseudo header included. 0xffff folded means that a checksum within is right.
uint16_t IcmpSum(const uint8_t* ip, std::size_t icmp_bytes) {
  const uint32_t addresses = Sum16(ip + 8, kIpv6Bytes - 8);
  return FoldSum(IPPROTO_ICMPV6 + static_cast<uint32_t>(icmp_bytes) + addresses +
                 Sum16(ip + kIpv6Bytes, icmp_bytes));
}

std::size_t WriteNd(uint8_t* out, uint8_t type, uint8_t flags, const uint8_t* to_mac, const uint8_t* to_ip,
                    const uint8_t* own_mac, const Address& own, const Address& subject) {
  WriteEthernet(out, to_mac, own_mac, ETH_P_IPV6);
  uint8_t* const ip = out + kEthernetBytes;
  constexpr std::size_t kIcmpBytes = kTargetBytes + kOptionBytes;
  std::memset(ip, 0, kIpv6Bytes + kIcmpBytes);
  ip[0] = 0x60;
  Store16(ip + 4, kIcmpBytes);
  ip[6] = IPPROTO_ICMPV6;
  ip[7] = kLinkHopLimit;
  std::memcpy(ip + 8, own.ip, 16);
  std::memcpy(ip + 24, to_ip, 16);
  uint8_t* const icmp = ip + kIpv6Bytes;
  icmp[0] = type;
  icmp[4] = flags;
  std::memcpy(icmp + 8, subject.ip, 16);
  uint8_t* const option = icmp + kTargetBytes;
  option[0] = type == ND_NEIGHBOR_SOLICIT ? ND_OPT_SOURCE_LINKADDR : ND_OPT_TARGET_LINKADDR;
  option[1] = 1;
  std::memcpy(option + 2, own_mac, 6);
  Store16(icmp + 2, static_cast<uint16_t>(~IcmpSum(ip, kIcmpBytes)));
  return kEthernetBytes + kIpv6Bytes + kIcmpBytes;
}

NeighbourMessage ParseArp(const uint8_t* arp, std::size_t bytes) {
  NeighbourMessage message;
  if (bytes < kArpBytes || Load16(arp) != ARPHRD_ETHER || Load16(arp + 2) != ETH_P_IP || arp[4] != 6 ||
      arp[5] != 4) {
    return message;
  }
  message.sender = Address::FromIpv4(arp + 14);
  message.has_mac = true;
  std::memcpy(message.mac, arp + 8, 6);
  if (Load16(arp + 6) == ARPOP_REQUEST) {
    message.kind = NeighbourMessage::Kind::kQuestion;
    message.subject = Address::FromIpv4(arp + 24);
  } else if (Load16(arp + 6) == ARPOP_REPLY) {
    message.kind = NeighbourMessage::Kind::kAnswer;
    message.subject = message.sender;
  }
  return message;
}

NeighbourMessage ParseNd(const uint8_t* ip, std::size_t bytes) {
  NeighbourMessage message;
  if (bytes < kIpv6Bytes + kTargetBytes || (ip[0] & 0xf0) != 0x60 || ip[6] != IPPROTO_ICMPV6 ||
      ip[7] != kLinkHopLimit) {
    return message;
  }
  const std::size_t icmp_bytes = Load16(ip + 4);
  if (icmp_bytes < kTargetBytes || bytes < kIpv6Bytes + icmp_bytes || IcmpSum(ip, icmp_bytes) != 0xffff)
    return message;
  const uint8_t* const icmp = ip + kIpv6Bytes;
  const bool question = icmp[0] == ND_NEIGHBOR_SOLICIT;
  if (icmp[1] != 0 || (!question && icmp[0] != ND_NEIGHBOR_ADVERT)) return message;
  const uint8_t wanted = question ? ND_OPT_SOURCE_LINKADDR : ND_OPT_TARGET_LINKADDR;
  for (std::size_t at = kTargetBytes; at + kOptionBytes <= icmp_bytes;) {
    const std::size_t option_bytes = std::size_t{icmp[at + 1]} * 8;
    if (option_bytes == 0) return message;
    if (icmp[at] == wanted) {
      message.has_mac = true;
      std::memcpy(message.mac, icmp + at + 2, 6);
      break;
    }
    at += option_bytes;
  }
  message.sender = Address::FromIpv6(ip + 8);
  message.subject = Address::FromIpv6(icmp + 8);
  message.kind = question ? NeighbourMessage::Kind::kQuestion : NeighbourMessage::Kind::kAnswer;
  return message;
}

}  // namespace

NeighbourMessage ParseNeighbour(const uint8_t* frame, std::size_t bytes) {
  if (bytes < kEthernetBytes) return {};
  const uint16_t type = Load16(frame + 12);
  if (type == ETH_P_ARP) return ParseArp(frame + kEthernetBytes, bytes - kEthernetBytes);
  if (type == ETH_P_IPV6) return ParseNd(frame + kEthernetBytes, bytes - kEthernetBytes);
  return {};
}

std::size_t WriteQuestion(uint8_t* out, const uint8_t (&own_mac)[6], const Address& own,
                          const Address& subject) {
  constexpr uint8_t kUnknown[6] = {};
  if (own.is_ipv4()) return WriteArp(out, ARPOP_REQUEST, kBroadcast, own_mac, own, kUnknown, subject);
  // The solicited-node group, by the last three bytes.
  uint8_t group[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff};
  std::copy(subject.ip + 13, subject.ip + 16, group + 13);
  const uint8_t mac[6] = {0x33, 0x33, 0xff, group[13], group[14], group[15]};
  return WriteNd(out, ND_NEIGHBOR_SOLICIT, 0, mac, group, own_mac, own, subject);
}

std::size_t WriteAnswer(uint8_t* out, const uint8_t (&own_mac)[6], const Address& own, const Address& asker,
                        const uint8_t (&asker_mac)[6]) {
  if (own.is_ipv4()) return WriteArp(out, ARPOP_REPLY, asker_mac, own_mac, own, asker_mac, asker);
  constexpr uint8_t kSolicitedAndOverride = 0x60;
  return WriteNd(out, ND_NEIGHBOR_ADVERT, kSolicitedAndOverride, asker_mac, asker.ip, own_mac, own, own);
}

std::size_t WriteAnnouncement(uint8_t* out, const uint8_t (&own_mac)[6], const Address& own) {
  if (own.is_ipv4()) return WriteArp(out, ARPOP_REQUEST, kBroadcast, own_mac, own, kBroadcast, own);
  constexpr uint8_t kOverride = 0x20;
  constexpr uint8_t kAllNodesMac[6] = {0x33, 0x33, 0, 0, 0, 1};
  return WriteNd(out, ND_NEIGHBOR_ADVERT, kOverride, kAllNodesMac, kAllNodes, own_mac, own, own);
}

}  // namespace weft::port
