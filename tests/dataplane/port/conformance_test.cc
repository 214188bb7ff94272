// SPDX-License-Identifier: Apache-2.0
// The suite that every port passes. Order of arrival is never assumed.
#include "tests/dataplane/port/conformance.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "dataplane/base/random.h"
#ifdef WEFT_TEST_DPDK
#include "tests/dataplane/port/dpdk_conformance.h"
#endif

namespace weft::port {
namespace {

// After so long without what was expected a test has failed. Never reached by one that passes.
constexpr uint64_t kGiveUpNs = 10 * kNsPerSecond;

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

// A port that has the kernel's network beside it and sleeps on a descriptor.
template <typename H>
concept BesideKernel = requires(H harness) { harness.network(); };

template <typename H>
inline constexpr bool kRestarts = true;
template <typename H>
  requires requires { H::kRestarts; }
inline constexpr bool kRestarts<H> = H::kRestarts;

#ifdef WEFT_TEST_DPDK
// Not over net_memif: EAL's thread may end a process that holds both ends and closes one (dpdk_node_test has
// them in two).
using Harnesses = testing::Types<DpdkHarness<DpdkLink::kRing, false>, DpdkHarness<DpdkLink::kRing, true>>;
#else
using Harnesses = testing::Types<MemoryHarness, UdpHarness<true, false>, UdpHarness<true, true>,
                                 UdpHarness<false, false>, UdpHarness<false, true>, AfXdpHarness<false>,
                                 AfXdpHarness<true>, AfXdpHarness<false, true>>;
#endif

class Names {
 public:
  template <typename T>
  static std::string GetName(int) {
    return T::kName;
  }
};
TYPED_TEST_SUITE(PortConformance, Harnesses, Names);

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

TYPED_TEST(PortConformance, ClosingWhileTrafficRunsHurtsNobody) {
  if constexpr (!kRestarts<TypeParam>) return;
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

// ---- Of ports on a network.

TYPED_TEST(PortConformance, SleepEndsWhenADatagramComes) {
  if constexpr (BesideKernel<TypeParam>) {
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
}

// The kernel's wait queues cost each packet, so a port that polls is in none.
TYPED_TEST(PortConformance, NothingIsWatchedOutsideASleep) {
  if constexpr (BesideKernel<TypeParam>) {
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
}

// Arrived before the sleep was prepared, and not yet looked at: sleeping must not miss it.
TYPED_TEST(PortConformance, DatagramThatCameBeforeTheSleepIsNotMissed) {
  if constexpr (BesideKernel<TypeParam>) {
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
}

// Each port on a core of its own, as nodes are: what the kernel publishes late shows only so.
TYPED_TEST(PortConformance, TwoThreadsExchangeWithoutLoss) {
  if constexpr (TypeParam::kNetwork) {
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
}

TYPED_TEST(PortConformance, DatagramTellsItsSource) {
  if constexpr (TypeParam::kNetwork) {
    this->Send(this->a(), this->harness_.a_to_b(), 5, 64);
    this->a().Flush();
    auto got = this->ReceiveHeld(this->b(), 1);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(this->b().SourceOf(got[0]), this->harness_.AddressA());
    this->b().Release(got.data(), 1);
  }
}

TYPED_TEST(PortConformance, StrangersAreHeardAndAnsweredWhereThePathIsSet) {
  if constexpr (BesideKernel<TypeParam>) {
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
}

TYPED_TEST(PortConformance, RemovedPathReachesNobodyNotEvenWhenItsPlaceIsUsedAgain) {
  if constexpr (TypeParam::kNetwork) {
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
}

TYPED_TEST(PortConformance, InterfaceThatGoesDownIsSurvived) {
  if constexpr (BesideKernel<TypeParam>) {
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
}

TYPED_TEST(PortConformance, PathThatIsTooNarrowIsRefusedWithTheFigure) {
  if constexpr (BesideKernel<TypeParam>) {
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
    // A path from before goes on for what still fits; the rest is counted.
    const uint64_t lost = this->a().counters().lost_too_long;
    this->Send(this->a(), this->harness_.a_to_b(), 1, 1400);
    this->Send(this->a(), this->harness_.a_to_b(), 2, 1400);
    this->Send(this->a(), this->harness_.a_to_b(), 3, 1000);
    this->a().Flush();
    this->a().Flush();
    auto got = this->ReceiveHeld(this->b(), 1);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(NumberOf(got[0]), 3u);
    this->b().Release(got.data(), 1);
    EXPECT_EQ(this->a().counters().lost_too_long, lost + 2);
  }
}

}  // namespace
}  // namespace weft::port
