// SPDX-License-Identifier: Apache-2.0
// What the tests of the suite that every port passes share, and which of them run over which ports.
#ifndef WEFT_TESTS_DATAPLANE_PORT_CONFORMANCE_FIXTURE_H_
#define WEFT_TESTS_DATAPLANE_PORT_CONFORMANCE_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/dataplane/port/conformance.h"
#ifdef WEFT_TEST_DPDK
#include "tests/dataplane/port/dpdk_conformance.h"
#endif

namespace weft::port {

// After so long without what was expected a test has failed. Never reached by one that passes.
inline constexpr uint64_t kGiveUpNs = 10 * kNsPerSecond;

template <typename Harness>
class PortConformance : public testing::Test {
 protected:
  using P = typename Harness::PortType;

  void SetUp() override {
    if (const std::string why = harness_.Start(); !why.empty()) GTEST_SKIP() << why;
  }

  P& a() { return harness_.a(); }
  P& b() { return harness_.b(); }

  // Finishes datagram `number`, flushing and letting `drain` take some where there is no room.
  template <typename Drain>
  void Send(P& from, uint64_t path, uint64_t number, std::size_t bytes, Drain drain) {
    const uint64_t begin_ns = NowNs();
    uint8_t* out = from.BeginSend();
    while (out == nullptr) {
      from.Flush();
      harness_.Carry();
      drain();
      ASSERT_LT(NowNs() - begin_ns, kGiveUpNs) << "no room to send";
      out = from.BeginSend();
    }
    WriteDatagram(out, number, bytes);
    from.FinishSend(path, bytes);
  }
  void Send(P& from, uint64_t path, uint64_t number, std::size_t bytes) {
    Send(from, path, number, bytes, [] {});
  }

  // Receives until `count` datagrams are there, all released only then.
  std::vector<ReceivedDatagram> ReceiveHeld(P& to, std::size_t count) {
    std::vector<ReceivedDatagram> all;
    for (const uint64_t begin_ns = NowNs(); all.size() < count && NowNs() - begin_ns < kGiveUpNs;) {
      harness_.Carry();
      ReceivedDatagram burst[8];
      const std::size_t got = to.Receive(burst, std::min<std::size_t>(8, count - all.size()));
      all.insert(all.end(), burst, burst + got);
    }
    EXPECT_EQ(all.size(), count);
    return all;
  }

  // True where nothing comes in a number of looks.
  bool NothingComes(P& to) {
    for (int i = 0; i < 1000; ++i) {
      harness_.Carry();
      ReceivedDatagram one;
      if (to.Receive(&one, 1) != 0) return false;
    }
    return true;
  }

  static void ExpectAllFree(P& port) {
    if constexpr (Harness::kNetwork) {
      ExpectSums(port);
      EXPECT_EQ(port.frames().receive.with_caller, 0u);
      EXPECT_EQ(port.frames().receive.queued, 0u);
      EXPECT_EQ(port.frames().send.queued, 0u);
    }
  }
  static void ExpectSums(P& port) {
    if constexpr (Harness::kNetwork) {
      const FrameCounts counts = port.frames();
      for (const FrameCount& c : {counts.receive, counts.send}) {
        ASSERT_EQ(c.free + c.with_kernel + c.queued + c.with_caller, c.total);
      }
    }
  }

  Harness harness_;
};

#ifdef WEFT_TEST_DPDK
// Not conformance_sleep_test.cc: no descriptor tells of a packet, and what comes to an interface of
// net_af_xdp never reaches the kernel, which could play no stranger there.
using AllPorts = testing::Types<DpdkHarness<DpdkRingLink, false>, DpdkHarness<DpdkRingLink, true>,
                                DpdkHarness<DpdkAfXdpLink, false>, DpdkHarness<DpdkAfXdpLink, true>,
                                MemifHarness<true, false>, MemifHarness<true, true>,
                                MemifHarness<false, false>, MemifHarness<false, true>>;
using NetworkPorts = AllPorts;
// 22.11's net_af_xdp leaves the socket of a closed device open: its queue stays taken as long as the process
// lives.
using RestartingPorts = testing::Types<DpdkHarness<DpdkRingLink, false>, DpdkHarness<DpdkRingLink, true>,
                                       MemifHarness<true, false>, MemifHarness<true, true>,
                                       MemifHarness<false, false>, MemifHarness<false, true>>;
using InterfacePorts = testing::Types<DpdkHarness<DpdkAfXdpLink, false>, DpdkHarness<DpdkAfXdpLink, true>>;
#else
using AllPorts =
    testing::Types<MemoryHarness, UdpHarness<true, false>, UdpHarness<true, true>, UdpHarness<false, false>,
                   UdpHarness<false, true>, AfXdpHarness<false>, AfXdpHarness<true>,
                   AfXdpHarness<false, true>, AfXdpHarness<false, false, true>>;
using NetworkPorts = testing::Types<UdpHarness<true, false>, UdpHarness<true, true>, UdpHarness<false, false>,
                                    UdpHarness<false, true>, AfXdpHarness<false>, AfXdpHarness<true>,
                                    AfXdpHarness<false, true>, AfXdpHarness<false, false, true>>;
using RestartingPorts = AllPorts;
// By an interface of the kernel's.
using InterfacePorts = NetworkPorts;
#endif

class HarnessNames {
 public:
  template <typename T>
  static std::string GetName(int) {
    return T::kName;
  }
};

}  // namespace weft::port

#endif  // WEFT_TESTS_DATAPLANE_PORT_CONFORMANCE_FIXTURE_H_
