// SPDX-License-Identifier: Apache-2.0
// What the ports pass besides that sleep on a descriptor and share their interface with the kernel.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "dataplane/base/fd.h"
#include "tests/dataplane/port/conformance_fixture.h"

namespace weft::port {
namespace {

template <typename Harness>
class SleepingPortConformance : public PortConformance<Harness> {};
TYPED_TEST_SUITE(SleepingPortConformance, InterfacePorts, HarnessNames);

TYPED_TEST(SleepingPortConformance, SleepEndsWhenADatagramComes) {
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(this->NothingComes(this->b()));
    ASSERT_TRUE(this->b().PrepareSleep());
    pollfd waiting{this->b().sleep_fd(), POLLIN, 0};
    ASSERT_EQ(poll(&waiting, 1, 0), 0);
    this->Send(this->a(), this->harness_.a_to_b(), 5, 64);
    this->a().Flush();
    ASSERT_EQ(poll(&waiting, 1, 10'000), 1);
    this->b().EndSleep();
    auto got = this->ReceiveHeld(this->b(), 1);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_TRUE(IsDatagram(got[0], 5, 64));
    this->b().Release(got.data(), 1);
  }
  this->ExpectAllFree(this->b());
}

// The kernel's wait queues cost each packet, so a port that polls is in none.
TYPED_TEST(SleepingPortConformance, NothingIsWatchedOutsideASleep) {
  ASSERT_TRUE(this->NothingComes(this->b()));
  // What the kernel tells of neighbours may end a sleep, too, now and then.
  bool silent = false;
  for (int i = 0; i < 10 && !silent; ++i) {
    if (this->b().PrepareSleep()) this->b().EndSleep();
    pollfd waiting{this->b().sleep_fd(), POLLIN, 0};
    this->Send(this->a(), this->harness_.a_to_b(), 5, 64);
    this->a().Flush();
    silent = poll(&waiting, 1, 50) == 0;
    auto got = this->ReceiveHeld(this->b(), 1);
    ASSERT_EQ(got.size(), 1u);
    this->b().Release(got.data(), 1);
  }
  EXPECT_TRUE(silent);
}

// Arrived before the sleep was prepared, and not yet looked at: sleeping must not miss it.
TYPED_TEST(SleepingPortConformance, DatagramThatCameBeforeTheSleepIsNotMissed) {
  for (int i = 0; i < 50; ++i) {
    this->Send(this->a(), this->harness_.a_to_b(), 5, 64);
    this->a().Flush();
    if (this->b().PrepareSleep()) {
      pollfd waiting{this->b().sleep_fd(), POLLIN, 0};
      ASSERT_EQ(poll(&waiting, 1, 10'000), 1);
      this->b().EndSleep();
    }
    auto got = this->ReceiveHeld(this->b(), 1);
    ASSERT_EQ(got.size(), 1u);
    this->b().Release(got.data(), 1);
  }
}

TYPED_TEST(SleepingPortConformance, StrangersAreHeardAndAnsweredWhereThePathIsSet) {
  UniqueFd stranger;
  {
    const test::InNamespace inside(this->harness_.network().near());
    stranger.Reset(
        socket(this->harness_.AddressB().is_ipv4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  }
  sockaddr_storage name;
  const socklen_t name_bytes =
      this->harness_.AddressB().ToSockaddr(this->harness_.AddressB().is_ipv4() ? AF_INET : AF_INET6, &name);
  ASSERT_EQ(connect(stranger.get(), reinterpret_cast<const sockaddr*>(&name), name_bytes), 0);
  uint8_t datagram[200];
  WriteDatagram(datagram, 9, sizeof(datagram));
  ASSERT_EQ(send(stranger.get(), datagram, sizeof(datagram), 0), 200);
  auto got = this->ReceiveHeld(this->b(), 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_TRUE(IsDatagram(got[0], 9, sizeof(datagram)));
  const Address source = this->b().SourceOf(got[0]);
  EXPECT_NE(source.port, kUdpPort);
  ASSERT_TRUE(this->b().SetPath(this->harness_.b_to_a(), source).ok());
  this->Send(this->b(), this->harness_.b_to_a(), 10, 200);
  this->b().Flush();
  pollfd waiting{stranger.get(), POLLIN, 0};
  ASSERT_EQ(poll(&waiting, 1, 10'000), 1);
  EXPECT_EQ(recv(stranger.get(), datagram, sizeof(datagram), MSG_DONTWAIT), 200);
  this->b().Release(got.data(), 1);
}

}  // namespace
}  // namespace weft::port
