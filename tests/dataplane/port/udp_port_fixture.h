// SPDX-License-Identifier: Apache-2.0
// UDP ports in the two namespaces of a veth pair, and single datagrams between them.
#ifndef WEFT_TESTS_DATAPLANE_PORT_UDP_PORT_FIXTURE_H_
#define WEFT_TESTS_DATAPLANE_PORT_UDP_PORT_FIXTURE_H_

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "dataplane/port/udp_port.h"
#include "tests/dataplane/port/conformance.h"

namespace weft::port {

inline constexpr uint64_t kGiveUpNs = 10 * kNsPerSecond;

// Near is A (10.77.0.1), far is B (10.77.0.2).
class UdpPortTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::VethPair::Privileged()) GTEST_SKIP() << "needs root, for network namespaces";
    network_ = std::make_unique<test::VethPair>();
  }

  static std::unique_ptr<UdpPort> Open(const test::NetworkNamespace& where, const std::string& local,
                                       uint32_t workers = 1, bool use_io_uring = true) {
    const test::InNamespace inside(where);
    return UdpPort::Create({.local = *Address::Parse(local),
                            .socket = {},
                            .workers = workers,
                            .datagram_bytes_max = kDatagramBytesMax,
                            .use_io_uring = use_io_uring})
        .value();
  }
  std::unique_ptr<UdpPort> OpenA(const std::string& local) { return Open(network_->near(), local); }
  std::unique_ptr<UdpPort> OpenB(const std::string& local, uint32_t workers = 1) {
    return Open(network_->far(), local, workers);
  }

  // In the port's namespace, as any agent is.
  absl::StatusOr<uint64_t> AddPath(const std::unique_ptr<UdpPort>& port, const Address& address) {
    const bool in_a =
        port->local().ToString().find(port->local().is_ipv4() ? "0.1:" : "::1]") != std::string::npos;
    const test::InNamespace inside(in_a ? network_->near() : network_->far());
    return port->AddPath(address);
  }

  static void Send(UdpPort& from, uint64_t path, uint64_t number, std::size_t bytes, uint16_t hint = 0) {
    uint8_t* const out = from.BeginSend();
    ASSERT_NE(out, nullptr);
    if (bytes >= kDatagramBytesMin) {
      WriteDatagram(out, number, bytes);
      const uint16_t hint_be = htons(hint);
      std::memcpy(out + offsetof(weft_packet_header, worker_hint), &hint_be, sizeof(hint_be));
    }
    from.FinishSend(path, bytes);
  }

  // Waits for one and releases it; its number, or ~0 where none came.
  static uint64_t TakeOne(UdpPort& to, uint32_t* bytes = nullptr) {
    for (const uint64_t begin_ns = NowNs(); NowNs() - begin_ns < kGiveUpNs;) {
      ReceivedDatagram one;
      if (to.Receive(&one, 1) == 0) continue;
      if (bytes != nullptr) *bytes = one.bytes;
      const uint64_t number = one.bytes >= sizeof(weft_packet_header) ? NumberOf(one) : 0;
      to.Release(&one, 1);
      return number;
    }
    return ~0ull;
  }

  std::unique_ptr<test::VethPair> network_;
};

}  // namespace weft::port

#endif  // WEFT_TESTS_DATAPLANE_PORT_UDP_PORT_FIXTURE_H_
