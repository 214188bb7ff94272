// SPDX-License-Identifier: Apache-2.0
#include "tests/bpf/steer_cases.h"

#include "absl/strings/str_cat.h"

namespace weft::test {
namespace {

using Fate = SteerCase::Fate;

PacketBuilder Known() { return PacketBuilder(kKnownKeyId); }

SteerCase Pass(std::string name, const PacketBuilder& packet) {
  return {std::move(name), packet.Build(), Fate::kPass};
}
SteerCase Take(std::string name, const PacketBuilder& packet) {
  return {std::move(name), packet.Build(), Fate::kTake};
}
// Charged to the known key: its header could be read.
SteerCase Drop(std::string name, weft_drop_reason reason, const PacketBuilder& packet) {
  return {std::move(name), packet.Build(), Fate::kDrop, reason, true};
}
SteerCase DropOfNobody(std::string name, weft_drop_reason reason, const PacketBuilder& packet) {
  return {std::move(name), packet.Build(), Fate::kDrop, reason, false};
}

void AddKernelsOwn(std::vector<SteerCase>* cases) {
  constexpr uint16_t kMoreFragments = 0x2000;
  cases->insert(cases->end(),
                {
                    Pass("ARP", Known().EtherType(0x0806)),
                    Pass("an EtherType below 1536, which is a length", Known().EtherType(0x0100)),
                    Pass("IPv6 said, IPv4 inside", Known().EtherType(0x86dd)),
                    Pass("IPv4 said, IPv6 inside", Known().Ipv6().EtherType(0x0800)),
                    Pass("two VLAN tags", Known().Vlan(5).Vlan(6)),
                    Pass("a customer's tag within a provider's", Known().Vlan(5).Vlan(6, 0x88a8)),
                    Pass("three VLAN tags", Known().Vlan(5).Vlan(6).Vlan(7)),
                    Pass("IP version 5", Known().IpVersion(5)),
                    Pass("IP version 15 in IPv6", Known().Ipv6().IpVersion(15)),
                    Pass("one word of IPv4 options", Known().Ipv4Options(1)),
                    Pass("ten words of IPv4 options", Known().Ipv4Options(10)),
                    Pass("IPv4, first fragment", Known().Fragment(kMoreFragments)),
                    Pass("IPv4, middle fragment", Known().Fragment(kMoreFragments | 185)),
                    Pass("IPv4, last fragment", Known().Fragment(185)),
                    Pass("IPv4, fragment at the largest offset", Known().Fragment(0x1fff)),
                    Pass("IPv4 over a VLAN, fragment", Known().Vlan(5).Fragment(kMoreFragments)),
                    Pass("TCP", Known().Protocol(6)),
                    Pass("ICMP", Known().Protocol(1)),
                    Pass("TCP over IPv6", Known().Ipv6().Protocol(6)),
                    Pass("IPv6 hop-by-hop options", Known().Ipv6().Extension(0)),
                    Pass("IPv6 routing header", Known().Ipv6().Extension(43)),
                    Pass("IPv6 fragment header", Known().Ipv6().Extension(44)),
                    Pass("IPv6 destination options", Known().Ipv6().Extension(60)),
                    Pass("two IPv6 extension headers", Known().Ipv6().Extension(0).Extension(60)),
                    Pass("another port", Known().Port(4811)),
                    Pass("weft's port with its bytes swapped", Known().Port(0xca12)),
                    Pass("port 0", Known().Port(0)),
                    Pass("another port over IPv6 and a VLAN", Known().Ipv6().Vlan(5).Port(53)),
                });
}

void AddDrops(std::vector<SteerCase>* cases) {
  constexpr std::size_t kSealedMax = WEFT_PACKET_BYTES_MAX - WEFT_PACKET_HEADER_BYTES;
  constexpr std::size_t kSealedMin = WEFT_PACKET_BYTES_MIN - WEFT_PACKET_HEADER_BYTES;
  cases->insert(
      cases->end(),
      {
          DropOfNobody("an empty datagram", WEFT_DROP_TOO_SHORT, Known().RawPayload(0)),
          DropOfNobody("one byte", WEFT_DROP_TOO_SHORT, Known().RawPayload(1)),
          DropOfNobody("one byte less than a header", WEFT_DROP_TOO_SHORT, Known().RawPayload(15)),
          DropOfNobody("a header of zeros", WEFT_DROP_TOO_SHORT, Known().RawPayload(16)),
          Drop("a header alone", WEFT_DROP_TOO_SHORT, Known().SealedBytes(0)),
          Drop("one byte less than the shortest", WEFT_DROP_TOO_SHORT, Known().SealedBytes(kSealedMin - 1)),
          Drop("too short over IPv6", WEFT_DROP_TOO_SHORT, Known().Ipv6().SealedBytes(kSealedMin - 1)),
          Drop("one byte more than the longest", WEFT_DROP_TOO_LONG, Known().SealedBytes(kSealedMax + 1)),
          Drop("version 0", WEFT_DROP_BAD_VERSION, Known().VersionAndSuite(0x01)),
          Drop("version 2", WEFT_DROP_BAD_VERSION, Known().VersionAndSuite(0x21)),
          Drop("suite 0", WEFT_DROP_BAD_VERSION, Known().VersionAndSuite(0x10)),
          Drop("suite 2", WEFT_DROP_BAD_VERSION, Known().VersionAndSuite(0x12)),
          Drop("the lowest reserved flag", WEFT_DROP_BAD_VERSION, Known().Flags(0x04)),
          Drop("the highest reserved flag", WEFT_DROP_BAD_VERSION, Known().Flags(0x80)),
          Drop("bad version over IPv6 and a VLAN", WEFT_DROP_BAD_VERSION,
               Known().Ipv6().Vlan(9).VersionAndSuite(0xff)),
          DropOfNobody("bad version of nobody's key", WEFT_DROP_BAD_VERSION,
                       PacketBuilder(kStrangerKeyId).VersionAndSuite(0)),
          DropOfNobody("an unknown key at a free place", WEFT_DROP_UNKNOWN_KEY, PacketBuilder(0x12345002)),
          DropOfNobody("an unknown key at the known one's place", WEFT_DROP_UNKNOWN_KEY,
                       PacketBuilder(kStrangerKeyId)),
          DropOfNobody("the known key's low bits alone", WEFT_DROP_UNKNOWN_KEY, PacketBuilder(0x1)),
          DropOfNobody("key 0, the mark of a free place", WEFT_DROP_UNKNOWN_KEY, PacketBuilder(0)),
          DropOfNobody("an unknown key over IPv6", WEFT_DROP_UNKNOWN_KEY, PacketBuilder(2).Ipv6()),
          Drop("UDP says less than IP", WEFT_DROP_BAD_LENGTH, Known().UdpLengthOff(-1)),
          Drop("UDP says more than IP", WEFT_DROP_BAD_LENGTH, Known().UdpLengthOff(1)),
          Drop("IP says less than UDP", WEFT_DROP_BAD_LENGTH, Known().IpLengthOff(-1)),
          Drop("IPv6 says more than UDP", WEFT_DROP_BAD_LENGTH, Known().Ipv6().IpLengthOff(1)),
          Drop("both say the most that fits their fields", WEFT_DROP_TOO_LONG,
               Known().UdpLengthOff(65'000).IpLengthOff(65'000)),
          DropOfNobody("UDP says less than its own header", WEFT_DROP_BAD_LENGTH,
                       PacketBuilder(3).SealedBytes(0).UdpLengthOff(-17).IpLengthOff(-17)),
          Drop("an IPv6 length of 0, as of a jumbogram", WEFT_DROP_BAD_LENGTH,
               Known().Ipv6().SealedBytes(84).IpLengthOff(-108)),
      });
}

void AddTaken(std::vector<SteerCase>* cases) {
  constexpr std::size_t kSealedMin = WEFT_PACKET_BYTES_MIN - WEFT_PACKET_HEADER_BYTES;
  cases->insert(cases->end(),
                {
                    Take("IPv4", Known()),
                    Take("IPv6", Known().Ipv6()),
                    Take("IPv4 with a VLAN tag", Known().Vlan(5)),
                    Take("IPv6 with a VLAN tag", Known().Ipv6().Vlan(4095)),
                    Take("IPv4 with a provider's VLAN tag", Known().Vlan(5, 0x88a8)),
                    Take("IPv4 that may be fragmented but is not", Known().Fragment(0)),
                    Take("the shortest", Known().SealedBytes(kSealedMin)),
                    Take("the largest in 1,500 bytes", Known().SealedBytes(1500 - 28 - 16)),
                    Take("an odd length", Known().Ipv6().SealedBytes(777)),
                    Take("padding behind it", Known().SealedBytes(kSealedMin).Padding(18)),
                    Take("the other epochs", Known().Flags(3)),
                    // The port compares with the frame.
                    Take("both say more than the frame has", Known().UdpLengthOff(1).IpLengthOff(1)),
                    Take("the largest counter", Known().Counter(~uint64_t{0})),
                });
}

}  // namespace

std::vector<SteerCase> SteerCases() {
  std::vector<SteerCase> cases;
  AddKernelsOwn(&cases);
  AddDrops(&cases);
  AddTaken(&cases);
  return cases;
}

std::vector<SteerCase> TruncatedCases() {
  std::vector<SteerCase> cases;
  for (const bool ipv6 : {false, true}) {
    for (const bool tagged : {false, true}) {
      PacketBuilder builder = Known();
      if (ipv6) builder.Ipv6();
      if (tagged) builder.Vlan(5);
      const Packet whole = builder.Build();
      for (std::size_t bytes = 14; bytes < whole.size(); ++bytes) {
        SteerCase cut;
        cut.name = absl::StrCat(ipv6 ? "IPv6" : "IPv4", tagged ? " tagged" : "", " cut to ", bytes, " bytes");
        cut.packet.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes));
        // Without its UDP header nobody knows that it was for weft; what has a clear header is told from a
        // whole one by the port.
        const bool known_for_weft = bytes >= builder.HeaderBytes();
        const bool holds_header = bytes >= builder.HeaderBytes() + WEFT_PACKET_HEADER_BYTES;
        cut.fate = holds_header ? Fate::kTake : known_for_weft ? Fate::kDrop : Fate::kPass;
        cut.reason = cut.fate == Fate::kDrop ? WEFT_DROP_BAD_LENGTH : WEFT_DROP_NONE;
        cases.push_back(std::move(cut));
      }
    }
  }
  return cases;
}

}  // namespace weft::test
