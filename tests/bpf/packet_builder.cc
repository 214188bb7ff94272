// SPDX-License-Identifier: Apache-2.0
#include "tests/bpf/packet_builder.h"

namespace weft::test {
namespace {

void Append8(Packet* out, uint8_t value) { out->push_back(value); }
void Append16(Packet* out, uint16_t value) {
  out->push_back(static_cast<uint8_t>(value >> 8));
  out->push_back(static_cast<uint8_t>(value));
}
void Append32(Packet* out, uint32_t value) {
  Append16(out, static_cast<uint16_t>(value >> 16));
  Append16(out, static_cast<uint16_t>(value));
}
void AppendAll(Packet* out, const Packet& bytes) { out->insert(out->end(), bytes.begin(), bytes.end()); }
void Put16(Packet* out, std::size_t at, uint16_t value) {
  (*out)[at] = static_cast<uint8_t>(value >> 8);
  (*out)[at + 1] = static_cast<uint8_t>(value);
}

constexpr std::size_t kEthernetBytes = 14, kVlanBytes = 4, kIpv4Bytes = 20, kIpv6Bytes = 40, kUdpBytes = 8;
constexpr std::size_t kExtensionBytes = 8;
constexpr uint32_t kSource4 = 0x0a4d0002, kDestination4 = 0x0a4d0001;  // 10.77.0.2 to 10.77.0.1

Packet Address6(uint8_t last) {
  Packet address(16);
  address[0] = 0xfd;
  address[1] = 0x77;
  address[15] = last;
  return address;
}

}  // namespace

uint16_t InternetSum(const Packet& bytes, uint32_t sum) {
  for (std::size_t i = 0; i < bytes.size(); ++i) sum += i % 2 == 0 ? uint32_t{bytes[i]} << 8 : bytes[i];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

Packet PacketBuilder::Payload() const {
  if (raw_payload_.has_value()) return Packet(*raw_payload_);
  Packet payload;
  Append8(&payload, version_and_suite_);
  Append8(&payload, flags_);
  Append16(&payload, 0);  // Worker hint
  Append32(&payload, key_id_);
  Append32(&payload, static_cast<uint32_t>(counter_ >> 32));
  Append32(&payload, static_cast<uint32_t>(counter_));
  for (std::size_t i = 0; i < sealed_bytes_; ++i) Append8(&payload, static_cast<uint8_t>(i * 37 + 11));
  return payload;
}

Packet PacketBuilder::Udp() const {
  const Packet payload = Payload();
  const std::size_t bytes = kUdpBytes + payload.size();
  Packet udp;
  Append16(&udp, 40000);
  Append16(&udp, port_);
  Append16(&udp, static_cast<uint16_t>(static_cast<int>(bytes) + udp_length_off_));
  Append16(&udp, 0);
  AppendAll(&udp, payload);
  Packet pseudo;
  if (ipv6_) {
    AppendAll(&pseudo, Address6(2));
    AppendAll(&pseudo, Address6(1));
  } else {
    Append32(&pseudo, kSource4);
    Append32(&pseudo, kDestination4);
  }
  Append32(&pseudo, static_cast<uint32_t>(bytes));
  Append32(&pseudo, protocol_);
  const uint16_t checksum = static_cast<uint16_t>(~InternetSum(udp, InternetSum(pseudo)));
  Put16(&udp, 6, checksum == 0 ? 0xffff : checksum);
  return udp;
}

void PacketBuilder::AppendIpv4(const Packet& udp, Packet* out) const {
  const std::size_t header_bytes = kIpv4Bytes + 4 * static_cast<std::size_t>(option_words_);
  Packet ip;
  const int version = ip_version_ != 0 ? ip_version_ : 4;
  Append8(&ip, static_cast<uint8_t>(version << 4 | static_cast<int>(header_bytes / 4)));
  Append8(&ip, 0);
  Append16(&ip, static_cast<uint16_t>(static_cast<int>(header_bytes + udp.size()) + ip_length_off_));
  Append16(&ip, 0);
  Append16(&ip, fragment_);
  Append8(&ip, 64);
  Append8(&ip, protocol_);
  Append16(&ip, 0);
  Append32(&ip, kSource4);
  Append32(&ip, kDestination4);
  for (int i = 0; i < option_words_; ++i) Append32(&ip, 0x01010101);  // No operation
  Put16(&ip, 10, static_cast<uint16_t>(~InternetSum(ip)));
  AppendAll(out, ip);
  AppendAll(out, udp);
}

void PacketBuilder::AppendIpv6(const Packet& udp, Packet* out) const {
  const std::size_t payload_bytes = kExtensionBytes * extensions_.size() + udp.size();
  Append32(out, static_cast<uint32_t>(ip_version_ != 0 ? ip_version_ : 6) << 28);
  Append16(out, static_cast<uint16_t>(static_cast<int>(payload_bytes) + ip_length_off_));
  Append8(out, extensions_.empty() ? protocol_ : extensions_.front());
  Append8(out, 64);
  AppendAll(out, Address6(2));
  AppendAll(out, Address6(1));
  for (std::size_t i = 0; i < extensions_.size(); ++i) {
    Append8(out, i + 1 < extensions_.size() ? extensions_[i + 1] : protocol_);
    Append8(out, 0);        // 8 bytes
    Append16(out, 0x0104);  // Four bytes of padding, where it is an options header.
    Append32(out, 0);
  }
  AppendAll(out, udp);
}

Packet PacketBuilder::Build() const {
  Packet frame = {0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2};
  for (auto tag = vlans_.rbegin(); tag != vlans_.rend(); ++tag) {
    Append16(&frame, tag->tpid);
    Append16(&frame, tag->vlan);
  }
  Append16(&frame, ether_type_ != 0 ? ether_type_ : ipv6_ ? 0x86dd : 0x0800);
  if (ipv6_) {
    AppendIpv6(Udp(), &frame);
  } else {
    AppendIpv4(Udp(), &frame);
  }
  frame.resize(frame.size() + padding_);
  return frame;
}

std::size_t PacketBuilder::HeaderBytes() const {
  return kEthernetBytes + kVlanBytes * vlans_.size() + kUdpBytes +
         (ipv6_ ? kIpv6Bytes + kExtensionBytes * extensions_.size()
                : kIpv4Bytes + 4 * static_cast<std::size_t>(option_words_));
}

}  // namespace weft::test
