// SPDX-License-Identifier: Apache-2.0
// Harnesses of the conformance suite for the DPDK port. EAL starts once a process, so they have a program of
// their own.
#ifndef WEFT_TESTS_DATAPLANE_PORT_DPDK_CONFORMANCE_H_
#define WEFT_TESTS_DATAPLANE_PORT_DPDK_CONFORMANCE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "dataplane/port/dpdk_port.h"
#include "tests/dataplane/port/conformance.h"

namespace weft::port {

enum class DpdkLink {
  kRing,         // net_ring: two rings of this process.
  kMemifClient,  // net_memif: b is the client,
  kMemifServer,  // or the server, which 22.11's driver cannot end and begin again in one process: it stays
                 // listening.
  kAfXdp,        // net_af_xdp at either end of a veth pair.
};

// Two DPDK ports of one process.
template <DpdkLink kLink, bool kIpv6>
class DpdkHarness {
 public:
  using PortType = DpdkPort;
  static constexpr const char* kName =
      kLink == DpdkLink::kRing          ? (kIpv6 ? "DpdkRing6" : "DpdkRing4")
      : kLink == DpdkLink::kMemifClient ? (kIpv6 ? "DpdkMemifClient6" : "DpdkMemifClient4")
      : kLink == DpdkLink::kMemifServer ? (kIpv6 ? "DpdkMemifServer6" : "DpdkMemifServer4")
                                        : (kIpv6 ? "DpdkAfXdp6" : "DpdkAfXdp4");
  static constexpr bool kNetwork = true;
  static constexpr bool kIpv6Headers = kIpv6;
  // A memif of 22.11 whose ends are in one process does not survive that one of them is made anew: the server
  // goes on listening, and EAL's thread ends the process when it waits for a descriptor that was closed
  // meanwhile. Between processes, dpdk_node_test shows it. net_af_xdp's driver keeps the queue of one that
  // was closed for as long as its process lives.
  static constexpr bool kRestarts = kLink == DpdkLink::kRing;

  ~DpdkHarness() {
    StopB();
    const auto inside = Inside(0);
    a_.reset();
  }

  std::string Start() {
    static int starts = 0;
    socket_ = absl::StrCat("weft-conformance-", getpid(), "-", ++starts);
    if (kLink == DpdkLink::kAfXdp) {
      if (!test::VethPair::Privileged()) return "needs root, for network namespaces";
      network_ = std::make_unique<test::VethPair>();
    }
    if (kLink == DpdkLink::kRing) wire_ = DpdkWire::Create("weft_wire").value();
    // A client that is made first keeps its server of the same process from listening.
    if (kLink == DpdkLink::kMemifServer) b_ = Make(1);
    a_ = Make(0);
    if (kLink != DpdkLink::kMemifServer) b_ = Make(1);
    b_to_a_ = b_->AddPath(AddressA()).value();
    a_to_b_ = a_->AddPath(AddressB()).value();
    EXPECT_TRUE(Reaches(*a_, a_to_b_, *b_) && Reaches(*b_, b_to_a_, *a_)) << "nothing arrives";
    return "";
  }
  void RestartB() {
    b_ = Make(1);
    b_to_a_ = b_->AddPath(AddressA()).value();
  }
  // In its namespace: net_af_xdp takes its program off an interface that it knows by its number there.
  void StopB() {
    const auto inside = Inside(1);
    b_.reset();
  }
  DpdkPort& a() { return *a_; }
  DpdkPort& b() { return *b_; }
  uint64_t a_to_b() const { return a_to_b_; }
  uint64_t b_to_a() const { return b_to_a_; }
  void Carry() {}
  Address AddressA() const { return *Address::Parse(kIpv6 ? "[fd77::1]:4810" : "10.77.0.1:4810"); }
  Address AddressB() const { return *Address::Parse(kIpv6 ? "[fd77::2]:4810" : "10.77.0.2:4810"); }

 private:
  static constexpr uint64_t kProbe = uint64_t{1} << 62;

  std::unique_ptr<test::InNamespace> Inside(int side) const {
    if (network_ == nullptr) return nullptr;
    return std::make_unique<test::InNamespace>(side == 0 ? network_->near() : network_->far());
  }

  std::unique_ptr<DpdkPort> Make(int side) {
    DpdkPort::Options options;
    options.local = side == 0 ? AddressA() : AddressB();
    options.datagram_bytes_max = kDatagramBytesMax;
    const bool server = (kLink == DpdkLink::kMemifServer) == (side == 1);
    switch (kLink) {
      case DpdkLink::kRing:
        options.device.wire = wire_;
        options.device.side = side;
        break;
      case DpdkLink::kMemifClient:
      case DpdkLink::kMemifServer:
        options.device.device =
            absl::StrCat("net_memif", side, ",id=0,role=", server ? "server" : "client", ",socket=", socket_);
        break;
      case DpdkLink::kAfXdp:
        options.device.device = absl::StrCat("net_af_xdp", side, ",iface=", test::VethPair::kInterface);
        break;
    }
    const auto inside = Inside(side);
    return DpdkPort::Create(options).value();
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

  std::string socket_;
  std::unique_ptr<test::VethPair> network_;
  std::shared_ptr<DpdkWire> wire_;
  std::unique_ptr<DpdkPort> a_, b_;
  uint64_t a_to_b_ = 0, b_to_a_ = 0;
};

}  // namespace weft::port

#endif  // WEFT_TESTS_DATAPLANE_PORT_DPDK_CONFORMANCE_H_
