// SPDX-License-Identifier: Apache-2.0
// AF_XDP with the kernel's socket beside it: neither keeps the other from being heard.
#include "dataplane/engine/steered_port.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "tests/dataplane/port/conformance.h"

namespace weft::engine {
namespace {

using port::Address;
using port::UdpPort;

class SteeredPortTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::VethPair::Privileged()) GTEST_SKIP() << "needs root, for network namespaces";
    network_ = std::make_unique<test::VethPair>();
    steer_ = std::make_unique<test::SteerOnVeth>(test::SteerOnVeth::Attach(network_->far()).value());
    ASSERT_TRUE(steer_->table().Allow(port::kKeyId, 100'000'000).ok());
  }

  static std::unique_ptr<UdpPort> Open(const test::NetworkNamespace& where, const char* local) {
    const test::InNamespace inside(where);
    return UdpPort::Create({.local = *Address::Parse(local), .socket = {}}).value();
  }
  static uint64_t PathTo(const test::NetworkNamespace& where, UdpPort& from, const char* to) {
    const test::InNamespace inside(where);
    return from.AddPath(*Address::Parse(to)).value();
  }
  static void Send(UdpPort& from, uint64_t path, uint64_t number) {
    uint8_t* const out = from.BeginSend();
    ASSERT_NE(out, nullptr);
    port::WriteDatagram(out, number, port::kDatagramBytesMin);
    from.FinishSend(path, port::kDatagramBytesMin);
    from.Flush();
  }
  // The number of the datagram that one look finds; 0: none.
  static uint64_t Look(SteeredPort& at) {
    port::ReceivedDatagram one;
    if (at.Receive(&one, 1) == 0) return 0;
    const uint64_t number = port::NumberOf(one);
    at.Release(&one, 1);
    return number;
  }

  std::unique_ptr<test::VethPair> network_;
  std::unique_ptr<test::SteerOnVeth> steer_;
};

// A peer that fills the queue would else be the end of all whose packets take another.
TEST_F(SteeredPortTest, TheSocketIsHeardThoughAfXdpBringsSomethingAtEachLook) {
  SteeredPort far(Open(network_->far(), "10.77.0.2:4810"));
  {
    const test::InNamespace inside(network_->far());
    (void)far.Change(port::AfXdpPort::Create({.interface = test::VethPair::kInterface,
                                              .xsks_map_fd = steer_->xsks_fd(),
                                              .local = *Address::Parse("10.77.0.2:4810")})
                         .value());
  }
  auto near = Open(network_->near(), "10.77.0.1:4810");
  auto beside = Open(network_->far(), "10.77.0.2:4811");
  const uint64_t by_xdp = PathTo(network_->near(), *near, "10.77.0.2:4810");
  const uint64_t by_socket = PathTo(network_->far(), *beside, "10.77.0.2:4810");
  for (const uint64_t begin_ns = NowNs(); Look(far) == 0;) {
    ASSERT_LT(NowNs() - begin_ns, 10 * kNsPerSecond);
    Send(*near, by_xdp, 1);
  }
  for (int i = 0; i < 64; ++i) Send(*near, by_xdp, 1);
  Send(*beside, by_socket, 2);
  int from_xdp = 0, from_socket = 0;
  for (int i = 0; i < 256; ++i) {
    Send(*near, by_xdp, 1);
    const uint64_t number = Look(far);
    from_xdp += number == 1 ? 1 : 0;
    from_socket += number == 2 ? 1 : 0;
  }
  EXPECT_EQ(from_socket, 1);
  EXPECT_GE(from_xdp, 248) << "AF_XDP has nearly every look";
}

}  // namespace
}  // namespace weft::engine
