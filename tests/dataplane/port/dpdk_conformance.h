// SPDX-License-Identifier: Apache-2.0
// Harnesses of the conformance suite for the DPDK port. EAL starts once a process, so they have a program of
// their own.
#ifndef WEFT_TESTS_DATAPLANE_PORT_DPDK_CONFORMANCE_H_
#define WEFT_TESTS_DATAPLANE_PORT_DPDK_CONFORMANCE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "dataplane/port/dpdk_port.h"
#include "tests/dataplane/port/conformance.h"

namespace weft::port {

// Two DPDK ports of one process. A link makes their devices and what is between them.
template <typename Link, bool kIpv6>
class DpdkHarness {
 public:
  using PortType = DpdkPort;
  static constexpr const char* kName = kIpv6 ? Link::kName6 : Link::kName4;
  static constexpr bool kNetwork = true;
  static constexpr bool kIpv6Headers = kIpv6;

  std::string Start() {
    if (const std::string why = link_.Start(); !why.empty()) return why;
    a_ = Make(0);
    b_ = Make(1);
    b_to_a_ = b_->AddPath(AddressA()).value();
    a_to_b_ = a_->AddPath(AddressB()).value();
    EXPECT_TRUE(Reaches(*a_, a_to_b_, *b_) && Reaches(*b_, b_to_a_, *a_)) << "nothing arrives";
    return "";
  }
  ~DpdkHarness() {
    StopB();
    link_.At(0, [&] { a_.reset(); });
  }
  void RestartB() {
    b_ = Make(1);
    b_to_a_ = b_->AddPath(AddressA()).value();
  }
  void StopB() {
    link_.At(1, [&] { b_.reset(); });
  }
  DpdkPort& a() { return *a_; }
  DpdkPort& b() { return *b_; }
  uint64_t a_to_b() const { return a_to_b_; }
  uint64_t b_to_a() const { return b_to_a_; }
  void Carry() {}
  Address AddressA() const { return *Address::Parse(kIpv6 ? "[fd77::1]:4810" : "10.77.0.1:4810"); }
  Address AddressB() const { return *Address::Parse(kIpv6 ? "[fd77::2]:4810" : "10.77.0.2:4810"); }
  test::VethPair& network() { return link_.network(); }

 private:
  static constexpr uint64_t kProbe = uint64_t{1} << 62;

  std::unique_ptr<DpdkPort> Make(int side) {
    std::unique_ptr<DpdkPort> made;
    link_.At(side, [&] {
      made = DpdkPort::Create({.device = link_.Device(side),
                               .local = side == 0 ? AddressA() : AddressB(),
                               .datagram_bytes_max = kDatagramBytesMax})
                 .value();
    });
    return made;
  }

  // Sends until something arrives, by which time both know each other's link address; then lets all else
  // arrive too.
  static bool Reaches(DpdkPort& from, uint64_t path, DpdkPort& to) {
    uint32_t quiet = 0;
    bool arrived = false;
    for (const uint64_t begin_ns = NowNs(); quiet < 20'000 && NowNs() - begin_ns < 10 * kNsPerSecond;
         ++quiet) {
      if (!arrived && quiet % 1000 == 0) {
        WriteDatagram(from.BeginSend(), kProbe, 64);
        from.FinishSend(path, 64);
        from.Flush();
      }
      ReceivedDatagram burst[8];
      (void)from.Receive(burst, 8);  // Answers to questions for the neighbour.
      const std::size_t got = to.Receive(burst, 8);
      to.Release(burst, got);
      arrived |= got > 0;
      if (got > 0 || !arrived) quiet = quiet % 1000;
    }
    return arrived;
  }

  Link link_;
  std::unique_ptr<DpdkPort> a_, b_;
  uint64_t a_to_b_ = 0, b_to_a_ = 0;
};

// net_ring: two rings of this process.
class DpdkRingLink {
 public:
  static constexpr const char* kName4 = "DpdkRing4";
  static constexpr const char* kName6 = "DpdkRing6";

  std::string Start() {
    wire_ = DpdkWire::Create("weft_wire").value();
    return "";
  }
  DpdkDeviceOptions Device(int side) { return {.wire = wire_, .side = side}; }
  template <typename Body>
  void At(int, Body body) {
    body();
  }

 private:
  std::shared_ptr<DpdkWire> wire_;
};

// net_af_xdp at either end of a veth pair, with the driver's own XDP program.
class DpdkAfXdpLink {
 public:
  static constexpr const char* kName4 = "DpdkAfXdp4";
  static constexpr const char* kName6 = "DpdkAfXdp6";

  std::string Start() {
    if (!test::VethPair::Privileged()) return "needs root, for network namespaces";
    network_ = std::make_unique<test::VethPair>();
    return "";
  }
  DpdkDeviceOptions Device(int side) {
    return {.device = absl::StrCat("net_af_xdp", side, ",iface=", test::VethPair::kInterface)};
  }
  // The driver finds its interface, also for the last time, where its caller is.
  template <typename Body>
  void At(int side, Body body) {
    if (network_ == nullptr) return;
    const test::InNamespace inside(side == 0 ? network_->near() : network_->far());
    body();
  }
  test::VethPair& network() { return *network_; }

 private:
  std::unique_ptr<test::VethPair> network_;
};

}  // namespace weft::port

#endif  // WEFT_TESTS_DATAPLANE_PORT_DPDK_CONFORMANCE_H_
