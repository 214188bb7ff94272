// SPDX-License-Identifier: Apache-2.0
// What the ports pass besides that send by an interface of the kernel's.
#include <gtest/gtest.h>

#include <string>

#include "tests/dataplane/port/conformance_fixture.h"

namespace weft::port {
namespace {

template <typename Harness>
class InterfacePortConformance : public PortConformance<Harness> {};
TYPED_TEST_SUITE(InterfacePortConformance, InterfacePorts, HarnessNames);

TYPED_TEST(InterfacePortConformance, InterfaceThatGoesDownIsSurvived) {
  const test::NetworkNamespace& far = this->harness_.network().far();
  far.Run({"/sbin/ip", "link", "set", "weft0", "down"});
  for (int i = 0; i < 1000; ++i) {
    this->Send(this->a(), this->harness_.a_to_b(), 1, 64);
    this->a().Flush();
    ReceivedDatagram one;
    ASSERT_EQ(this->b().Receive(&one, 1), 0u);
  }
  far.Run({"/sbin/ip", "link", "set", "weft0", "up"});
  far.Run({"/sbin/ip", "address", "replace", "fd77::2/64", "dev", "weft0", "nodad"});
  for (const uint64_t begin_ns = NowNs(); NowNs() - begin_ns < kGiveUpNs;) {
    this->Send(this->a(), this->harness_.a_to_b(), 2, 64);
    this->a().Flush();
    ReceivedDatagram one;
    if (this->b().Receive(&one, 1) == 0) continue;
    const bool fresh = NumberOf(one) == 2;
    this->b().Release(&one, 1);
    if (fresh) return;
  }
  FAIL() << "nothing came after the interface was up again";
}

TYPED_TEST(InterfacePortConformance, PathThatIsTooNarrowIsRefusedWithTheFigure) {
  this->harness_.network().near().Run({"/sbin/ip", "link", "set", "weft0", "mtu", "1300"});
  const test::InNamespace inside(this->harness_.network().near());
  const auto path = this->a().AddPath(this->harness_.AddressB());
  EXPECT_EQ(path.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(path.status().message()).find(TypeParam::kIpv6Headers ? "1252" : "1272"),
            std::string::npos)
      << path.status();
  const std::size_t carries = TypeParam::kIpv6Headers ? 1252 : 1272;
  EXPECT_FALSE(this->a().AddPath(this->harness_.AddressB(), carries + 1).ok());
  const auto narrow = this->a().AddPath(this->harness_.AddressB(), carries);
  ASSERT_TRUE(narrow.ok()) << narrow.status();
  EXPECT_FALSE(this->a().SetPath(*narrow, this->harness_.AddressB()).ok());
  EXPECT_TRUE(this->a().SetPath(*narrow, this->harness_.AddressB(), carries).ok());
  this->a().RemovePath(*narrow);
  // A path from before goes on for what still fits; the rest is counted, once the port has seen the change.
  const auto lost = [&] { return this->a().counters().lost_too_long; };
  const auto send = [&](uint64_t number, std::size_t bytes) {
    this->Send(this->a(), this->harness_.a_to_b(), number, bytes);
    this->a().Flush();
    this->a().Flush();
    (void)this->NothingComes(this->a());
  };
  uint64_t before = lost();
  for (const uint64_t begin_ns = NowNs(); lost() == before && NowNs() - begin_ns < kGiveUpNs;) {
    send(1, 1400);
    ReceivedDatagram early;
    this->b().Release(&early, this->b().Receive(&early, 1));
  }
  before = lost();
  send(2, 1400);
  EXPECT_EQ(lost(), before + 1);
  send(3, 1000);
  auto got = this->ReceiveHeld(this->b(), 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(NumberOf(got[0]), 3u);
  this->b().Release(got.data(), 1);
}

}  // namespace
}  // namespace weft::port
