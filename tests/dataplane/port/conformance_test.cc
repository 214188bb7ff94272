// SPDX-License-Identifier: Apache-2.0
// The suite that every port passes. Order of arrival is never assumed.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <type_traits>
#include <vector>

#include "dataplane/base/random.h"
#include "tests/dataplane/port/conformance_fixture.h"

namespace weft::port {
namespace {

TYPED_TEST_SUITE(PortConformance, AllPorts, HarnessNames);

TYPED_TEST(PortConformance, ReceiveWithNothingThereReturnsNone) {
  EXPECT_TRUE(this->NothingComes(this->a()));
}

TYPED_TEST(PortConformance, BeginningTwiceGivesTheSameMemory) {
  uint8_t* const first = this->a().BeginSend();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(this->a().BeginSend(), first);
}

TYPED_TEST(PortConformance, FlushedDatagramArrivesWithoutAnotherCallOfTheSender) {
  this->Send(this->a(), this->harness_.a_to_b(), 7, 100);
  this->a().Flush();
  auto got = this->ReceiveHeld(this->b(), 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_TRUE(IsDatagram(got[0], 7, 100));
  this->b().Release(got.data(), 1);
  this->ExpectAllFree(this->b());
}

TYPED_TEST(PortConformance, AnswerComesBack) {
  this->Send(this->a(), this->harness_.a_to_b(), 1, 64);
  this->a().Flush();
  auto request = this->ReceiveHeld(this->b(), 1);
  this->Send(this->b(), this->harness_.b_to_a(), 2, 64);
  this->b().Flush();
  auto answer = this->ReceiveHeld(this->a(), 1);
  ASSERT_EQ(answer.size(), 1u);
  EXPECT_TRUE(IsDatagram(answer[0], 2, 64));
  this->a().Release(answer.data(), 1);
  this->b().Release(request.data(), 1);
}

TYPED_TEST(PortConformance, EverySizeArrivesUnchanged) {
  for (std::size_t bytes = kDatagramBytesMin; bytes <= kDatagramBytesMax; bytes += bytes < 200 ? 1 : 37) {
    this->Send(this->a(), this->harness_.a_to_b(), bytes, bytes);
    this->a().Flush();
    auto got = this->ReceiveHeld(this->b(), 1);
    ASSERT_EQ(got.size(), 1u);
    ASSERT_TRUE(IsDatagram(got[0], bytes, bytes)) << bytes;
    this->b().Release(got.data(), 1);
  }
  this->Send(this->a(), this->harness_.a_to_b(), 1, kDatagramBytesMax);
  this->a().Flush();
  auto got = this->ReceiveHeld(this->b(), 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_TRUE(IsDatagram(got[0], 1, kDatagramBytesMax));
  this->b().Release(got.data(), 1);
}

// Runs of one size and changes of size, as coalescing would be tempted to mix up.
TYPED_TEST(PortConformance, BurstsOfMixedSizesArriveWhole) {
  Random random(42);
  uint64_t number = 0;
  for (int round = 0; round < 200; ++round) {
    std::vector<std::size_t> sizes;
    const std::size_t burst = 1 + random.Below(32);
    const uint64_t first = number;
    while (sizes.size() < burst) {
      const std::size_t size = kDatagramBytesMin + random.Below(kDatagramBytesMax - kDatagramBytesMin + 1);
      for (std::size_t run = 1 + random.Below(4); run > 0 && sizes.size() < burst; --run)
        sizes.push_back(size);
    }
    for (std::size_t size : sizes) this->Send(this->a(), this->harness_.a_to_b(), number++, size);
    this->a().Flush();
    auto got = this->ReceiveHeld(this->b(), burst);
    ASSERT_EQ(got.size(), burst);
    std::set<uint64_t> seen;
    for (const ReceivedDatagram& datagram : got) {
      const uint64_t at = NumberOf(datagram);
      ASSERT_TRUE(at >= first && at < number && seen.insert(at).second);
      ASSERT_TRUE(IsDatagram(datagram, at, sizes[at - first]));
    }
    this->b().Release(got.data(), got.size());
    this->ExpectSums(this->b());
  }
  this->ExpectAllFree(this->b());
}

TYPED_TEST(PortConformance, FullSendQueueGivesNoMemoryAndLosesNothing) {
  uint64_t count = 0;
  while (uint8_t* const out = this->a().BeginSend()) {
    WriteDatagram(out, count, 64);
    this->a().FinishSend(this->harness_.a_to_b(), 64);
    ASSERT_LT(++count, 1u << 20);
  }
  ASSERT_GT(count, 0u);
  std::set<uint64_t> seen;
  for (const uint64_t begin_ns = NowNs(); seen.size() < count && NowNs() - begin_ns < kGiveUpNs;) {
    this->a().Flush();
    this->harness_.Carry();
    ReceivedDatagram burst[32];
    const std::size_t got = this->b().Receive(burst, 32);
    for (std::size_t i = 0; i < got; ++i) {
      ASSERT_TRUE(IsDatagram(burst[i], NumberOf(burst[i]), 64));
      seen.insert(NumberOf(burst[i]));
    }
    this->b().Release(burst, got);
  }
  EXPECT_EQ(seen.size(), count);
  EXPECT_NE(this->a().BeginSend(), nullptr);
}

TYPED_TEST(PortConformance, HeldDatagramsKeepTheirContentWhileOthersCome) {
  constexpr uint64_t kHeld = 8;
  for (uint64_t i = 0; i < kHeld; ++i) this->Send(this->a(), this->harness_.a_to_b(), i, 300);
  this->a().Flush();
  auto held = this->ReceiveHeld(this->b(), kHeld);
  std::vector<uint64_t> numbers;
  for (const ReceivedDatagram& datagram : held) numbers.push_back(NumberOf(datagram));
  for (uint64_t i = 0; i < 2000; ++i) {
    this->Send(this->a(), this->harness_.a_to_b(), 100 + i, 500);
    this->a().Flush();
    auto other = this->ReceiveHeld(this->b(), 1);
    ASSERT_EQ(other.size(), 1u);
    this->b().Release(other.data(), 1);
  }
  for (std::size_t i = 0; i < held.size(); ++i) EXPECT_TRUE(IsDatagram(held[i], numbers[i], 300));
  this->b().Release(held.data(), held.size());
  this->ExpectAllFree(this->b());
}

// A caller that releases nothing stops receiving, and nothing that it holds is overwritten; once it releases,
// it goes on. What came meanwhile may be lost, as on any wire.
TYPED_TEST(PortConformance, HoldingEveryFrameStopsReceivingUntilRelease) {
  std::vector<ReceivedDatagram> held;
  std::vector<uint64_t> numbers;
  uint64_t number = 0;
  for (int idle = 0; idle < 3;) {
    for (int i = 0; i < 32; ++i) this->Send(this->a(), this->harness_.a_to_b(), number++, 64, [&] {});
    this->a().Flush();
    const std::size_t before = held.size();
    for (int i = 0; i < 200; ++i) {
      this->harness_.Carry();
      ReceivedDatagram one;
      if (this->b().Receive(&one, 1) == 0) continue;
      held.push_back(one);
      numbers.push_back(NumberOf(one));
    }
    idle = held.size() == before ? idle + 1 : 0;
    ASSERT_LT(number, 1u << 20);
    if constexpr (std::is_same_v<TypeParam, MemoryHarness>) {
      if (this->a().BeginSend() == nullptr) break;  // Its wire holds back what finds no room.
    }
  }
  for (std::size_t i = 0; i < held.size(); ++i) ASSERT_TRUE(IsDatagram(held[i], numbers[i], 64));
  this->ExpectSums(this->b());
  this->b().Release(held.data(), held.size());
  // What waited in queues comes first.
  for (const uint64_t begin_ns = NowNs(); NowNs() - begin_ns < kGiveUpNs;) {
    this->Send(this->a(), this->harness_.a_to_b(), number, 64);
    this->a().Flush();
    ReceivedDatagram burst[32];
    this->harness_.Carry();
    const std::size_t got = this->b().Receive(burst, 32);
    const bool fresh = std::any_of(burst, burst + got, [&](const auto& d) { return NumberOf(d) == number; });
    this->b().Release(burst, got);
    if (fresh) return;
  }
  FAIL() << "nothing came after the release";
}

TYPED_TEST(PortConformance, FramesAreAllThereAfterHundredThousandDatagrams) {
  constexpr uint64_t kCount = 100'000;
  constexpr uint64_t kWindow = 48;
  Random random(7);
  uint64_t sent = 0, received = 0;
  std::vector<ReceivedDatagram> held;
  const auto take = [&] {
    this->harness_.Carry();
    ReceivedDatagram burst[32];
    const std::size_t got = this->b().Receive(burst, 1 + random.Below(32));
    received += got;
    held.insert(held.end(), burst, burst + got);
    // Released in any order, sometimes late.
    while (held.size() > 16 || (!held.empty() && random.Below(2) == 0)) {
      const std::size_t at = random.Below(held.size());
      this->b().Release(&held[at], 1);
      held[at] = held.back();
      held.pop_back();
    }
  };
  for (const uint64_t begin_ns = NowNs(); received < kCount && NowNs() - begin_ns < 6 * kGiveUpNs;) {
    for (uint64_t burst = random.Below(16); burst > 0 && sent < kCount && sent - received < kWindow;
         --burst) {
      this->Send(this->a(), this->harness_.a_to_b(), sent++, kDatagramBytesMin + random.Below(200), take);
    }
    this->a().Flush();
    take();
    if (sent % 64 == 0) this->ExpectSums(this->b());
  }
  EXPECT_EQ(received, kCount);
  this->b().Release(held.data(), held.size());
  this->ExpectAllFree(this->a());
  this->ExpectAllFree(this->b());
}

template <typename Harness>
class RestartingPortConformance : public PortConformance<Harness> {};
TYPED_TEST_SUITE(RestartingPortConformance, RestartingPorts, HarnessNames);

TYPED_TEST(RestartingPortConformance, ClosingWhileTrafficRunsHurtsNobody) {
  uint64_t number = 0;
  const auto stream = [&](int datagrams) {
    for (int i = 0; i < datagrams; ++i) {
      if (uint8_t* const out = this->a().BeginSend()) {
        WriteDatagram(out, number++, 200);
        this->a().FinishSend(this->harness_.a_to_b(), 200);
      }
      if (i % 8 == 0) this->a().Flush();
      this->harness_.Carry();
      ReceivedDatagram one;
      if (this->a().Receive(&one, 1) != 0) this->a().Release(&one, 1);
    }
  };
  for (int life = 0; life < 5; ++life) {
    stream(100);
    ReceivedDatagram burst[16];
    this->b().Receive(burst, 16);  // Held when the port goes.
    this->harness_.StopB();
    stream(300);
    this->harness_.RestartB();
  }
  const uint64_t after = number;
  for (const uint64_t begin_ns = NowNs(); NowNs() - begin_ns < kGiveUpNs;) {
    stream(1);
    this->a().Flush();
    this->harness_.Carry();
    ReceivedDatagram one;
    if (this->b().Receive(&one, 1) == 0) continue;
    const bool fresh = NumberOf(one) >= after;
    this->b().Release(&one, 1);
    if (fresh) return;
  }
  FAIL() << "nothing came after the port was opened anew";
}

}  // namespace
}  // namespace weft::port
