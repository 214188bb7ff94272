// SPDX-License-Identifier: Apache-2.0
// What every port has to do, as a suite that is run over each (conformance_*test.cc). A harness makes two
// ports of its kind that reach each other and knows how to play a stranger.
#ifndef WEFT_TESTS_DATAPLANE_PORT_CONFORMANCE_H_
#define WEFT_TESTS_DATAPLANE_PORT_CONFORMANCE_H_

#include <arpa/inet.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bpf/abi/packet.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/port/af_xdp_port.h"
#include "dataplane/port/memory_port.h"
#include "dataplane/port/port.h"
#include "dataplane/port/udp_port.h"
#include "tests/support/network.h"
#include "tests/support/steer_on_veth.h"

namespace weft::port {

inline constexpr std::size_t kDatagramBytesMax = 1400;
inline constexpr std::size_t kDatagramBytesMin = WEFT_PACKET_BYTES_MIN;
inline constexpr uint32_t kKeyId = 1;
inline constexpr uint16_t kUdpPort = 4810;

// A datagram as a peer's, so that a port with a filter before it lets it pass: clear header, its number,
// bytes that follow from the number.
inline void WriteDatagram(uint8_t* out, uint64_t number, std::size_t bytes, uint16_t worker_hint = 0) {
  weft_packet_header header{};
  header.version_and_suite = WEFT_PACKET_VERSION_AND_SUITE;
  header.worker_hint = htons(worker_hint);
  header.key_id = htonl(kKeyId);
  header.counter = number;
  std::memcpy(out, &header, sizeof(header));
  for (std::size_t i = sizeof(header); i < bytes; ++i) out[i] = static_cast<uint8_t>(number * 31 + i * 7);
}

inline uint64_t NumberOf(const ReceivedDatagram& datagram) {
  weft_packet_header header;
  std::memcpy(&header, datagram.data, sizeof(header));
  return header.counter;
}

inline bool IsDatagram(const ReceivedDatagram& datagram, uint64_t number, std::size_t bytes,
                       uint16_t worker_hint = 0) {
  std::vector<uint8_t> expected(bytes);
  WriteDatagram(expected.data(), number, bytes, worker_hint);
  return datagram.bytes == bytes && std::memcmp(datagram.data, expected.data(), bytes) == 0;
}

// Two memory ports and a wire that carries at once.
class MemoryHarness {
 public:
  using PortType = MemoryPort;
  static constexpr const char* kName = "Memory";
  static constexpr bool kNetwork = false;

  std::string Start() {
    RestartB();
    a_ = std::make_unique<MemoryPort>(256, 1536);
    return "";
  }
  void RestartB() { b_ = std::make_unique<MemoryPort>(256, 1536); }
  void StopB() { b_.reset(); }
  MemoryPort& a() { return *a_; }
  MemoryPort& b() { return *b_; }
  uint64_t a_to_b() const { return 2; }
  uint64_t b_to_a() const { return 1; }
  void Carry() {
    Carry(a_.get(), b_.get());
    if (b_ != nullptr) Carry(b_.get(), a_.get());
  }

 private:
  static void Carry(MemoryPort* from, MemoryPort* to) {
    while (const MemoryPort::Datagram* datagram = from->Sent()) {
      if (to != nullptr && !to->Deliver(datagram->data, datagram->bytes)) return;  // This wire holds it back.
      from->PopSent();
    }
  }
  std::unique_ptr<MemoryPort> a_, b_;
};

// Two UDP ports in two namespaces.
template <bool kUring, bool kIpv6>
class UdpHarness {
 public:
  using PortType = UdpPort;
  static constexpr const char* kName =
      kUring ? (kIpv6 ? "IoUring6" : "IoUring4") : (kIpv6 ? "PlainUdp6" : "PlainUdp4");
  static constexpr bool kNetwork = true;
  static constexpr bool kIpv6Headers = kIpv6;

  std::string Start() {
    if (!test::VethPair::Privileged()) return "needs root, for network namespaces";
    network_ = std::make_unique<test::VethPair>();
    a_ = Make(network_->near(), AddressA());
    RestartB();
    const test::InNamespace inside(network_->near());
    a_to_b_ = a_->AddPath(AddressB()).value();
    if (kUring && a_->status().fell_back) return "io_uring is not to be had here";
    return "";
  }
  void RestartB() {
    b_ = Make(network_->far(), AddressB());
    const test::InNamespace inside(network_->far());
    b_to_a_ = b_->AddPath(AddressA()).value();
  }
  void StopB() { b_.reset(); }
  UdpPort& a() { return *a_; }
  UdpPort& b() { return *b_; }
  uint64_t a_to_b() const { return a_to_b_; }
  uint64_t b_to_a() const { return b_to_a_; }
  void Carry() {}
  Address AddressA() const { return *Address::Parse(kIpv6 ? "[fd77::1]:4810" : "10.77.0.1:4810"); }
  Address AddressB() const { return *Address::Parse(kIpv6 ? "[fd77::2]:4810" : "10.77.0.2:4810"); }
  test::VethPair& network() { return *network_; }

 private:
  static std::unique_ptr<UdpPort> Make(const test::NetworkNamespace& where, const Address& local) {
    const test::InNamespace inside(where);
    return UdpPort::Create({.local = local,
                            .socket = {},
                            .datagram_bytes_max = kDatagramBytesMax,
                            .use_io_uring = kUring})
        .value();
  }
  std::unique_ptr<test::VethPair> network_;
  std::unique_ptr<UdpPort> a_, b_;
  uint64_t a_to_b_ = 0, b_to_a_ = 0;
};

// Make does not wait until the kernel has let go of the queue's last owner: this does.
inline AfXdpPort::Given MakeGiven(const AfXdpPort::Options& options) {
  absl::StatusOr<AfXdpPort::Given> made;
  for (const uint64_t begin_ns = NowNs(); NowNs() - begin_ns < kNsPerSecond;) {
    made = AfXdpPort::Make(options);
    if (!absl::IsUnavailable(made.status())) break;
  }
  return *std::move(made);
}

// Two AF_XDP ports in two namespaces, behind the XDP program that ships: each opens its socket itself or,
// with `kGiven`, is used elsewhere than in the namespace where it was made; with `kNative` the program runs
// in the driver.
template <bool kIpv6, bool kGiven = false, bool kNative = false>
class AfXdpHarness {
 public:
  using PortType = AfXdpPort;
  static constexpr const char* kName = kGiven    ? "AfXdpGiven4"
                                       : kNative ? "AfXdpNative4"
                                       : kIpv6   ? "AfXdp6"
                                                 : "AfXdp4";
  static constexpr bool kNetwork = true;
  static constexpr bool kIpv6Headers = kIpv6;

  std::string Start() {
    if (!test::VethPair::Privileged()) return "needs root, for network namespaces";
    network_ = std::make_unique<test::VethPair>();
    for (auto* side : {&near_, &far_}) {
      auto attached = test::SteerOnVeth::Attach(side == &near_ ? network_->near() : network_->far(), {},
                                                /*generic=*/!kNative);
      if (!attached.ok()) return std::string(attached.status().message());
      *side = std::make_unique<test::SteerOnVeth>(*std::move(attached));
      if (!(*side)->table().Allow(kKeyId, 100'000'000).ok()) return "the key table refuses the key";
    }
    a_ = Make(network_->near(), near_->xsks_fd(), AddressA());
    RestartB();
    a_to_b_ = a_->AddPath(AddressB()).value();
    return "";
  }
  void RestartB() {
    b_ = Make(network_->far(), far_->xsks_fd(), AddressB());
    b_to_a_ = b_->AddPath(AddressA()).value();
  }
  void StopB() { b_.reset(); }
  AfXdpPort& a() { return *a_; }
  AfXdpPort& b() { return *b_; }
  uint64_t a_to_b() const { return a_to_b_; }
  uint64_t b_to_a() const { return b_to_a_; }
  void Carry() {}
  Address AddressA() const { return *Address::Parse(kIpv6 ? "[fd77::1]:4810" : "10.77.0.1:4810"); }
  Address AddressB() const { return *Address::Parse(kIpv6 ? "[fd77::2]:4810" : "10.77.0.2:4810"); }
  test::VethPair& network() { return *network_; }

 private:
  static std::unique_ptr<AfXdpPort> Make(const test::NetworkNamespace& where, int map, const Address& local) {
    const AfXdpPort::Options options{.interface = test::VethPair::kInterface,
                                     .xsks_map_fd = map,
                                     .local = local,
                                     .datagram_bytes_max = kDatagramBytesMax};
    AfXdpPort::Given given;
    {
      const test::InNamespace inside(where);
      if (!kGiven) return AfXdpPort::Create(options).value();
      given = MakeGiven(options);
    }
    auto port = AfXdpPort::Adopt(options, std::move(given)).value();
    WEFT_CHECK(port->EnterInto(map).ok());
    return port;
  }
  std::unique_ptr<test::VethPair> network_;
  std::unique_ptr<test::SteerOnVeth> near_, far_;
  std::unique_ptr<AfXdpPort> a_, b_;
  uint64_t a_to_b_ = 0, b_to_a_ = 0;
};

}  // namespace weft::port

#endif  // WEFT_TESTS_DATAPLANE_PORT_CONFORMANCE_H_
