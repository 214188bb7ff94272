// SPDX-License-Identifier: Apache-2.0
// What every port on a network passes besides.
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/dataplane/port/conformance_fixture.h"

namespace weft::port {
namespace {

template <typename Harness>
class NetworkPortConformance : public PortConformance<Harness> {};
TYPED_TEST_SUITE(NetworkPortConformance, NetworkPorts, HarnessNames);

// Each port on a core of its own, as nodes are: what the kernel publishes late shows only so.
TYPED_TEST(NetworkPortConformance, TwoThreadsExchangeWithoutLoss) {
  constexpr uint64_t kCount = 30'000;
  std::atomic<bool> failed{false};
  std::thread echo([&] {
    uint64_t echoed = 0;
    for (const uint64_t begin_ns = NowNs(); echoed < kCount && NowNs() - begin_ns < 3 * kGiveUpNs;) {
      ReceivedDatagram burst[8];
      const std::size_t got = this->b().Receive(burst, 8);
      for (std::size_t i = 0; i < got; ++i) {
        uint8_t* const out = this->b().BeginSend();
        if (out == nullptr) failed = true;
        if (out == nullptr) break;
        std::memcpy(out, burst[i].data, burst[i].bytes);
        this->b().FinishSend(this->harness_.b_to_a(), burst[i].bytes);
        ++echoed;
      }
      this->b().Release(burst, got);
      if (got > 0) this->b().Flush();
      if (got == 0) sched_yield();
    }
    if (echoed != kCount) failed = true;
  });
  uint64_t sent = 0, received = 0;
  for (const uint64_t begin_ns = NowNs(); received < kCount && NowNs() - begin_ns < 3 * kGiveUpNs;) {
    for (int i = 0; i < 4 && sent < kCount && sent - received < 32; ++i) {
      this->Send(this->a(), this->harness_.a_to_b(), sent++, 100);
    }
    this->a().Flush();
    ReceivedDatagram burst[8];
    const std::size_t got = this->a().Receive(burst, 8);
    for (std::size_t i = 0; i < got; ++i) ASSERT_TRUE(IsDatagram(burst[i], NumberOf(burst[i]), 100));
    this->a().Release(burst, got);
    received += got;
    if (got == 0) sched_yield();
  }
  echo.join();
  EXPECT_EQ(received, kCount);
  EXPECT_FALSE(failed);
  this->ExpectAllFree(this->a());
  this->ExpectAllFree(this->b());
}

TYPED_TEST(NetworkPortConformance, DatagramTellsItsSource) {
  this->Send(this->a(), this->harness_.a_to_b(), 5, 64);
  this->a().Flush();
  auto got = this->ReceiveHeld(this->b(), 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(this->b().SourceOf(got[0]), this->harness_.AddressA());
  this->b().Release(got.data(), 1);
}

TYPED_TEST(NetworkPortConformance, RemovedPathReachesNobodyNotEvenWhenItsPlaceIsUsedAgain) {
  const uint64_t path = this->a().AddPath(this->harness_.AddressB()).value();
  this->a().RemovePath(path);
  const uint64_t other = this->a().AddPath(this->harness_.AddressB()).value();
  EXPECT_NE(path, other);
  const uint64_t lost = this->a().counters().lost_unknown_path;
  for (int i = 0; i < 3; ++i) this->Send(this->a(), path, 1, 64);
  this->Send(this->a(), other, 2, 64);
  this->a().Flush();
  auto got = this->ReceiveHeld(this->b(), 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(NumberOf(got[0]), 2u);
  EXPECT_EQ(this->a().counters().lost_unknown_path, lost + 3);
  EXPECT_FALSE(this->a().SetPath(path, this->harness_.AddressB()).ok());
  this->b().Release(got.data(), 1);
  EXPECT_TRUE(this->NothingComes(this->b()));
  this->ExpectAllFree(this->a());
}

}  // namespace
}  // namespace weft::port
