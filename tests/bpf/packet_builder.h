// SPDX-License-Identifier: Apache-2.0
// Frames for the tests of the XDP programs, built field by field with checksums that are computed. A test
// says what is special about a packet; the rest is that of a good one.
#ifndef WEFT_TESTS_BPF_PACKET_BUILDER_H_
#define WEFT_TESTS_BPF_PACKET_BUILDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bpf/abi/packet.h"
#include "bpf/abi/steer.h"

namespace weft::test {

using Packet = std::vector<uint8_t>;

class PacketBuilder {
 public:
  // A good datagram of `key_id` over IPv4, untagged, with `sealed_bytes` of frames and tag behind the clear
  // header.
  explicit PacketBuilder(uint32_t key_id = 0x12345001) : key_id_(key_id) {}

  PacketBuilder& Ipv6() { return Set(&PacketBuilder::ipv6_, true); }
  // One more VLAN tag, outermost last; `tpid` is its EtherType.
  PacketBuilder& Vlan(uint16_t vlan, uint16_t tpid = 0x8100) {
    vlans_.push_back({tpid, vlan});
    return *this;
  }
  PacketBuilder& EtherType(uint16_t type) { return Set(&PacketBuilder::ether_type_, type); }
  PacketBuilder& Ipv4Options(int words) { return Set(&PacketBuilder::option_words_, words); }
  PacketBuilder& Fragment(uint16_t flags_and_offset) {
    return Set(&PacketBuilder::fragment_, flags_and_offset);
  }
  PacketBuilder& IpVersion(uint8_t version) { return Set(&PacketBuilder::ip_version_, version); }
  PacketBuilder& Protocol(uint8_t protocol) { return Set(&PacketBuilder::protocol_, protocol); }
  // An IPv6 extension header of that type and 8 bytes between IPv6 and UDP.
  PacketBuilder& Extension(uint8_t type) {
    extensions_.push_back(type);
    return *this;
  }
  PacketBuilder& Port(uint16_t port) { return Set(&PacketBuilder::port_, port); }
  PacketBuilder& SealedBytes(std::size_t bytes) { return Set(&PacketBuilder::sealed_bytes_, bytes); }
  // What UDP and IP say of their length, as a difference from the truth.
  PacketBuilder& UdpLengthOff(int bytes) { return Set(&PacketBuilder::udp_length_off_, bytes); }
  PacketBuilder& IpLengthOff(int bytes) { return Set(&PacketBuilder::ip_length_off_, bytes); }
  PacketBuilder& VersionAndSuite(uint8_t value) { return Set(&PacketBuilder::version_and_suite_, value); }
  PacketBuilder& Flags(uint8_t value) { return Set(&PacketBuilder::flags_, value); }
  PacketBuilder& Counter(uint64_t value) { return Set(&PacketBuilder::counter_, value); }
  // UDP payload of that many bytes, all zero, instead of a datagram of weft.
  PacketBuilder& RawPayload(std::size_t bytes) {
    return Set(&PacketBuilder::raw_payload_, std::optional(bytes));
  }
  // Bytes behind the end of the IP packet, as Ethernet pads short frames.
  PacketBuilder& Padding(std::size_t bytes) { return Set(&PacketBuilder::padding_, bytes); }

  Packet Build() const;
  // Bytes before UDP's payload.
  std::size_t HeaderBytes() const;

 private:
  struct Tag {
    uint16_t tpid;
    uint16_t vlan;
  };

  template <typename T>
  PacketBuilder& Set(T PacketBuilder::* field, T value) {
    this->*field = value;
    return *this;
  }
  Packet Payload() const;
  Packet Udp() const;
  void AppendIpv4(const Packet& udp, Packet* out) const;
  void AppendIpv6(const Packet& udp, Packet* out) const;

  uint32_t key_id_;
  bool ipv6_ = false;
  std::vector<Tag> vlans_;
  uint16_t ether_type_ = 0;  // 0: that of the IP version.
  int option_words_ = 0;
  uint16_t fragment_ = 0x4000;  // Don't fragment
  uint8_t ip_version_ = 0;      // 0: as it is.
  uint8_t protocol_ = 17;
  std::vector<uint8_t> extensions_;
  uint16_t port_ = WEFT_STEER_PORT_DEFAULT;
  std::size_t sealed_bytes_ = 4 + 64 + WEFT_PACKET_TAG_BYTES;
  int udp_length_off_ = 0;
  int ip_length_off_ = 0;
  uint8_t version_and_suite_ = WEFT_PACKET_VERSION_AND_SUITE;
  uint8_t flags_ = 1;
  uint64_t counter_ = 7;
  std::optional<std::size_t> raw_payload_;
  std::size_t padding_ = 0;
};

// The ones' complement sum of RFC 1071 over `bytes`, from `sum` on; its complement is a checksum.
uint16_t InternetSum(const Packet& bytes, uint32_t sum = 0);

}  // namespace weft::test

#endif  // WEFT_TESTS_BPF_PACKET_BUILDER_H_
