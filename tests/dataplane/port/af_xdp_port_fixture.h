// SPDX-License-Identifier: Apache-2.0
// A veth pair with the XDP program that ships at its far end, where the tests open AF_XDP ports, and UDP
// ports at its near one.
#ifndef WEFT_TESTS_DATAPLANE_PORT_AF_XDP_PORT_FIXTURE_H_
#define WEFT_TESTS_DATAPLANE_PORT_AF_XDP_PORT_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "dataplane/port/af_xdp_port.h"
#include "tests/dataplane/port/conformance.h"

namespace weft::port {

inline constexpr uint64_t kGiveUpNs = 10 * kNsPerSecond;

class AfXdpPortTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::VethPair::Privileged()) GTEST_SKIP() << "needs root, for network namespaces";
    MakeNetwork({});
  }

  void MakeNetwork(const test::VethOptions& options) {
    far_.reset();
    network_ = std::make_unique<test::VethPair>(options);
    far_ = std::make_unique<test::SteerOnVeth>(test::SteerOnVeth::Attach(network_->far()).value());
    ASSERT_TRUE(far_->table().Allow(kKeyId, 100'000'000).ok());
  }

  absl::StatusOr<std::unique_ptr<AfXdpPort>> OpenFar(const std::string& local, std::size_t bytes_max = 1400,
                                                     uint32_t queue = 0) {
    const test::InNamespace inside(network_->far());
    return AfXdpPort::Create({.interface = test::VethPair::kInterface,
                              .queue = queue,
                              .xsks_map_fd = far_->xsks_fd(),
                              .local = *Address::Parse(local),
                              .datagram_bytes_max = bytes_max});
  }
  std::unique_ptr<UdpPort> OpenNearUdp(const std::string& local) {
    const test::InNamespace inside(network_->near());
    return UdpPort::Create(
               {.local = *Address::Parse(local), .socket = {}, .datagram_bytes_max = kDatagramBytesMax})
        .value();
  }

  template <typename P>
  static void Send(P& from, uint64_t path, uint64_t number, std::size_t bytes) {
    uint8_t* const out = from.BeginSend();
    ASSERT_NE(out, nullptr);
    WriteDatagram(out, number, bytes);
    from.FinishSend(path, bytes);
    from.Flush();
  }
  template <typename P>
  static bool Takes(P& to, uint64_t number, std::size_t bytes) {
    return TakesWithin(to, number, bytes, kGiveUpNs);
  }
  template <typename P>
  static bool TakesWithin(P& to, uint64_t number, std::size_t bytes, uint64_t within_ns) {
    for (const uint64_t begin_ns = NowNs(); NowNs() - begin_ns < within_ns;) {
      ReceivedDatagram one;
      if (to.Receive(&one, 1) == 0) continue;
      const bool right = IsDatagram(one, number, bytes);
      to.Release(&one, 1);
      return right;
    }
    return false;
  }

  std::unique_ptr<test::VethPair> network_;
  std::unique_ptr<test::SteerOnVeth> far_;
};

}  // namespace weft::port

#endif  // WEFT_TESTS_DATAPLANE_PORT_AF_XDP_PORT_FIXTURE_H_
