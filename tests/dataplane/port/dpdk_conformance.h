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
#include "tests/dataplane/port/memif_peer.h"
#include "tests/support/temporary_directory.h"

namespace weft::port {

// Sends until something arrives, by which time both know each other's link address; then lets all else
// arrive too, until `quiet_looks` in a row found nothing.
template <typename P>
bool DatagramsReach(P& from, uint64_t path, P& to, uint32_t quiet_looks) {
  constexpr uint64_t kProbe = uint64_t{1} << 62;
  uint32_t looks = 0;
  bool arrived = false;
  for (const uint64_t begin_ns = NowNs(); looks < quiet_looks && NowNs() - begin_ns < 10 * kNsPerSecond;
       ++looks) {
    if (!arrived && looks % (quiet_looks / 20) == 0) {
      WriteDatagram(from.BeginSend(), kProbe, 64);
      from.FinishSend(path, 64);
      from.Flush();
    }
    ReceivedDatagram burst[8];
    (void)from.Receive(burst, 8);  // Answers to questions for the neighbour.
    const std::size_t got = to.Receive(burst, 8);
    to.Release(burst, got);
    arrived |= got > 0;
    if (got > 0 || !arrived) looks = looks % (quiet_looks / 20);
  }
  return arrived;
}

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
    EXPECT_TRUE(DatagramsReach(*a_, a_to_b_, *b_, kQuiet) && DatagramsReach(*b_, b_to_a_, *a_, kQuiet))
        << "nothing arrives";
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
  static constexpr uint32_t kQuiet = 20'000;

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

// A port of this process or the peer's, so that the suite has one type for both ends.
class MemifEnd {
 public:
  explicit MemifEnd(std::unique_ptr<DpdkPort> own) : own_(std::move(own)) {}
  explicit MemifEnd(std::unique_ptr<MemifPeer> peer) : peer_(std::move(peer)) {}

  std::size_t Receive(ReceivedDatagram* burst, std::size_t count) {
    return own_ != nullptr ? own_->Receive(burst, count) : peer_->Receive(burst, count);
  }
  void Release(const ReceivedDatagram* burst, std::size_t count) {
    own_ != nullptr ? own_->Release(burst, count) : peer_->Release(burst, count);
  }
  uint8_t* BeginSend() { return own_ != nullptr ? own_->BeginSend() : peer_->BeginSend(); }
  void FinishSend(uint64_t path, std::size_t bytes) {
    own_ != nullptr ? own_->FinishSend(path, bytes) : peer_->FinishSend(path, bytes);
  }
  void Flush() { own_ != nullptr ? own_->Flush() : peer_->Flush(); }
  absl::StatusOr<uint64_t> AddPath(const Address& address) {
    return own_ != nullptr ? own_->AddPath(address) : peer_->AddPath(address);
  }
  Address SourceOf(const ReceivedDatagram& received) {
    return own_ != nullptr ? own_->SourceOf(received) : peer_->SourceOf(received);
  }
  FrameCounts frames() { return own_ != nullptr ? own_->frames() : peer_->frames(); }
  // Of this process's end.
  absl::Status SetPath(uint64_t path, const Address& address) { return own_->SetPath(path, address); }
  void RemovePath(uint64_t path) { own_->RemovePath(path); }
  const PortCounters& counters() const { return own_->counters(); }

 private:
  std::unique_ptr<DpdkPort> own_;
  std::unique_ptr<MemifPeer> peer_;
};

// net_memif: `a` in this process, `b` in one of its own. The server is the side that opens the socket, the
// client the one that makes the memory.
template <bool kServer, bool kIpv6>
class MemifHarness {
 public:
  using PortType = MemifEnd;
  static constexpr const char* kName = kServer ? (kIpv6 ? "DpdkMemifServer6" : "DpdkMemifServer4")
                                               : (kIpv6 ? "DpdkMemifClient6" : "DpdkMemifClient4");
  static constexpr bool kNetwork = true;
  static constexpr bool kIpv6Headers = kIpv6;

  std::string Start() {
    if (kServer) MakeA();
    RestartB();
    if (!kServer) MakeA();
    a_to_b_ = a_->AddPath(AddressB()).value();
    EXPECT_TRUE(DatagramsReach(*a_, a_to_b_, *b_, kQuiet) && DatagramsReach(*b_, b_to_a_, *a_, kQuiet))
        << "nothing arrives";
    return "";
  }
  void RestartB() {
    b_ = std::make_unique<MemifEnd>(
        std::make_unique<MemifPeer>(Device(!kServer), AddressB(), kDatagramBytesMax));
    b_to_a_ = b_->AddPath(AddressA()).value();
  }
  // Once EAL's thread has heard that the other end is gone: it may fault where a device is closed meanwhile.
  ~MemifHarness() {
    StopB();
    for (const uint64_t begin_ns = NowNs(); a_ != nullptr && NowNs() - begin_ns < 50 * kNsPerMs;) {
      ReceivedDatagram late[8];
      a_->Release(late, a_->Receive(late, 8));
    }
  }
  void StopB() { b_.reset(); }
  MemifEnd& a() { return *a_; }
  MemifEnd& b() { return *b_; }
  uint64_t a_to_b() const { return a_to_b_; }
  uint64_t b_to_a() const { return b_to_a_; }
  void Carry() {}
  Address AddressA() const { return *Address::Parse(kIpv6 ? "[fd77::1]:4810" : "10.77.0.1:4810"); }
  Address AddressB() const { return *Address::Parse(kIpv6 ? "[fd77::2]:4810" : "10.77.0.2:4810"); }

 private:
  // Each question to the peer takes as long as hundreds of looks at a port.
  static constexpr uint32_t kQuiet = 1000;

  void MakeA() {
    a_ = std::make_unique<MemifEnd>(DpdkPort::Create({.device = {.device = Device(kServer)},
                                                      .local = AddressA(),
                                                      .datagram_bytes_max = kDatagramBytesMax})
                                        .value());
  }
  std::string Device(bool server) const {
    return absl::StrCat("net_memif0,id=0,socket-abstract=no,socket=", directory_ / "memif.sock",
                        ",role=", server ? "server" : "client");
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<MemifEnd> a_, b_;
  uint64_t a_to_b_ = 0, b_to_a_ = 0;
};

}  // namespace weft::port

#endif  // WEFT_TESTS_DATAPLANE_PORT_DPDK_CONFORMANCE_H_
