// SPDX-License-Identifier: Apache-2.0
// What is the UDP port's own: sharing an address among workers, sockets from elsewhere, the kernel's help for
// bulk, and machines that forbid io_uring.
#include "dataplane/port/udp_port.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <set>
#include <thread>

#include "dataplane/port/udp_socket.h"
#include "tests/dataplane/port/conformance.h"

namespace weft::port {
namespace {

constexpr uint64_t kGiveUpNs = 10 * kNsPerSecond;

class UdpPortTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::VethPair::Privileged()) GTEST_SKIP() << "needs root, for network namespaces";
    network_ = std::make_unique<test::VethPair>();
  }

  static std::unique_ptr<UdpPort> Open(const test::NetworkNamespace& where, const std::string& local,
                                       uint32_t workers = 1) {
    const test::InNamespace inside(where);
    return UdpPort::Create({.local = *Address::Parse(local),
                            .socket = {},
                            .workers = workers,
                            .datagram_bytes_max = kDatagramBytesMax})
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

TEST_F(UdpPortTest, WorkerHintChoosesTheSocket) {
  constexpr uint16_t kWorkers = 4;
  auto sender = OpenA("10.77.0.1:0");
  std::vector<std::unique_ptr<UdpPort>> workers;
  for (int i = 0; i < kWorkers; ++i) workers.push_back(OpenB("10.77.0.2:4810", kWorkers));
  const uint64_t path = AddPath(sender, *Address::Parse("10.77.0.2:4810")).value();
  for (uint16_t i = 0; i < 64; ++i) Send(*sender, path, i, 64, i % kWorkers);
  sender->Flush();
  for (uint16_t worker = 0; worker < kWorkers; ++worker) {
    for (int i = 0; i < 64 / kWorkers; ++i) {
      const uint64_t number = TakeOne(*workers[worker]);
      ASSERT_NE(number, ~0ull);
      EXPECT_EQ(number % kWorkers, worker);
    }
  }
}

// A socket of a predecessor would be the group's first, whose number all others then miss by one.
TEST_F(UdpPortTest, AnAddressIsFreeOnceNobodySharesItAnyMore) {
  const test::InNamespace inside(network_->far());
  const Address address = *Address::Parse("10.77.0.2:4810");
  auto predecessor = OpenB("10.77.0.2:4810", 2);
  EXPECT_FALSE(AwaitUdpFree(address).ok());
  std::thread end([&] {
    usleep(20'000);
    predecessor.reset();
  });
  EXPECT_TRUE(AwaitUdpFree(address).ok());
  end.join();
  auto first = OpenB("10.77.0.2:4810", 2), second = OpenB("10.77.0.2:4810", 2);
}

TEST_F(UdpPortTest, DatagramTooShortForAHintGoesToTheFirstWorker) {
  auto sender = OpenA("10.77.0.1:0");
  auto first = OpenB("10.77.0.2:4810", 2), second = OpenB("10.77.0.2:4810", 2);
  const uint64_t path = AddPath(sender, *Address::Parse("10.77.0.2:4810")).value();
  for (std::size_t bytes : {0u, 1u, 3u}) {
    Send(*sender, path, 0, bytes);
    sender->Flush();
    uint32_t got = 99;
    ASSERT_NE(TakeOne(*first, &got), ~0ull);
    EXPECT_EQ(got, bytes);
  }
  EXPECT_EQ(second->counters().received, 0u);
}

TEST_F(UdpPortTest, UnspecifiedIpv6AddressTakesBothFamilies) {
  auto b = OpenB("[::]:4810");
  for (const char* text : {"10.77.0.2:4810", "[fd77::2]:4810"}) {
    auto a = OpenA(text[0] == '[' ? "[fd77::1]:0" : "10.77.0.1:0");
    Send(*a, AddPath(a, *Address::Parse(text)).value(), 3, 64);
    a->Flush();
    EXPECT_EQ(TakeOne(*b), 3u);
    Send(*b, AddPath(b, a->local()).value(), 4, 64);
    b->Flush();
    EXPECT_EQ(TakeOne(*a), 4u);
  }
}

TEST_F(UdpPortTest, Ipv4PortRefusesAnIpv6Path) {
  auto a = OpenA("10.77.0.1:0");
  EXPECT_EQ(AddPath(a, *Address::Parse("[fd77::2]:4810")).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(UdpPortTest, SocketBoundElsewhereIsTaken) {
  auto a = OpenA("10.77.0.1:0");
  UniqueFd bound;
  {
    const test::InNamespace inside(network_->far());
    bound.Reset(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage name;
    const socklen_t bytes = Address::Parse("10.77.0.2:4811")->ToSockaddr(AF_INET, &name);
    ASSERT_EQ(bind(bound.get(), reinterpret_cast<const sockaddr*>(&name), bytes), 0);
  }
  auto b = UdpPort::Create({.local = {}, .socket = std::move(bound)}).value();
  EXPECT_EQ(b->local(), *Address::Parse("10.77.0.2:4811"));
  Send(*a, AddPath(a, b->local()).value(), 3, 64);
  a->Flush();
  EXPECT_EQ(TakeOne(*b), 3u);
}

TEST_F(UdpPortTest, DescriptorThatIsNoBoundUdpSocketIsRefused) {
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_FALSE(UdpPort::Create({.local = {}, .socket = std::move(null)}).ok());
  UniqueFd stream(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_FALSE(UdpPort::Create({.local = {}, .socket = std::move(stream)}).ok());
  UniqueFd unbound(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_FALSE(UdpPort::Create({.local = {}, .socket = std::move(unbound)}).ok());
}

TEST_F(UdpPortTest, AddressInUseIsNamed) {
  auto b = OpenB("10.77.0.2:4810");
  const test::InNamespace inside(network_->far());
  const auto second = UdpPort::Create({.local = *Address::Parse("10.77.0.2:4810"), .socket = {}});
  ASSERT_FALSE(second.ok());
  EXPECT_NE(std::string(second.status().message()).find("10.77.0.2:4810"), std::string::npos)
      << second.status();
}

TEST_F(UdpPortTest, BulkOfOneSizeLeavesAsOne) {
  auto a = OpenA("10.77.0.1:0");
  UniqueFd receiver;
  {
    const test::InNamespace inside(network_->far());
    receiver.Reset(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  }
  const int on = 1;
  ASSERT_EQ(setsockopt(receiver.get(), IPPROTO_UDP, UDP_GRO, &on, sizeof(on)), 0);
  sockaddr_storage name;
  const Address to = *Address::Parse("10.77.0.2:4810");
  const socklen_t bytes = to.ToSockaddr(AF_INET, &name);
  ASSERT_EQ(bind(receiver.get(), reinterpret_cast<const sockaddr*>(&name), bytes), 0);
  const uint64_t path = AddPath(a, to).value();
  for (uint64_t i = 0; i < 20; ++i) Send(*a, path, i, 1400);
  Send(*a, path, 20, 100);
  a->Flush();
  pollfd waiting{receiver.get(), POLLIN, 0};
  ASSERT_EQ(poll(&waiting, 1, 10'000), 1);
  std::vector<uint8_t> all(1 << 16);
  EXPECT_EQ(recv(receiver.get(), all.data(), all.size(), 0), 20 * 1400 + 100);
}

TEST_F(UdpPortTest, StreamIsCoalescedThoughEachDatagramIsTakenAtOnce) {
  auto a = OpenA("10.77.0.1:0");
  auto b = OpenB("10.77.0.2:4810");
  const uint64_t path = AddPath(a, b->local()).value();
  const auto exchange = [&](int count, std::size_t bytes) {
    for (int i = 0; i < count; ++i) {
      Send(*a, path, 7, bytes);
      a->Flush();
      ASSERT_EQ(TakeOne(*b), 7u);
    }
  };
  const auto coalesces = [&] {
    for (const PortChoice& choice : b->status().choices) {
      if (choice.feature == "UDP_GRO" && choice.chosen == "on") return true;
    }
    return false;
  };
  for (int calls = 0; calls < 20; ++calls) {
    exchange(20, 1400);
    exchange(1, 100);
  }
  EXPECT_FALSE(coalesces());
  exchange(64, 1400);
  EXPECT_TRUE(coalesces());
}

TEST_F(UdpPortTest, NobodyListeningIsSurvivedAndHeardLater) {
  auto a = OpenA("10.77.0.1:0");
  const uint64_t path = AddPath(a, *Address::Parse("10.77.0.2:4810")).value();
  for (int i = 0; i < 1000; ++i) {
    Send(*a, path, 1, 64);
    a->Flush();
    ReceivedDatagram one;
    ASSERT_EQ(a->Receive(&one, 1), 0u);
  }
  auto b = OpenB("10.77.0.2:4810");
  Send(*a, path, 2, 64);
  a->Flush();
  EXPECT_EQ(TakeOne(*b), 2u);
}

TEST_F(UdpPortTest, PathWithoutARouteIsCountedUntilThereIsOne) {
  auto a = OpenA("10.77.0.1:0");
  const uint64_t path = AddPath(a, *Address::Parse("10.78.0.1:4810")).value();
  for (int i = 0; i < 10; ++i) Send(*a, path, 1, 64);
  a->Flush();
  EXPECT_EQ(a->counters().lost_unreachable, 10u);
  network_->far().Run({"/sbin/ip", "address", "add", "10.78.0.1/24", "dev", "weft0"});
  network_->near().Run({"/sbin/ip", "route", "add", "10.78.0.0/24", "dev", "weft0"});
  auto b = OpenB("10.78.0.1:4810");
  Send(*a, path, 2, 64);
  a->Flush();
  EXPECT_EQ(TakeOne(*b), 2u);
}

// ---- The connected socket.

class DirectTest : public UdpPortTest {
 protected:
  static constexpr int kWindows = 3 * 256;

  // Both ways, one at a time.
  static void PingPong(UdpPort& a, uint64_t to_b, UdpPort& b, uint64_t to_a, int count) {
    for (int i = 0; i < count; ++i) {
      Send(a, to_b, 7, 64);
      a.Flush();
      ASSERT_EQ(TakeOne(b), 7u) << i;
      Send(b, to_a, 8, 64);
      b.Flush();
      ASSERT_EQ(TakeOne(a), 8u) << i;
    }
  }
  // Waits for one; where it came from.
  static Address SourceOfOne(UdpPort& to) {
    for (const uint64_t begin_ns = NowNs(); NowNs() - begin_ns < kGiveUpNs;) {
      ReceivedDatagram one;
      if (to.Receive(&one, 1) == 0) continue;
      const Address source = to.SourceOf(one);
      to.Release(&one, 1);
      return source;
    }
    return {};
  }
};

TEST_F(DirectTest, ThePeerThatGetsAllHasItAndOthersStillPass) {
  for (const bool ipv6 : {false, true}) {
    auto a = OpenA(ipv6 ? "[fd77::1]:4810" : "10.77.0.1:4810");
    auto b = OpenB(ipv6 ? "[fd77::2]:4810" : "10.77.0.2:4810");
    auto other = OpenA(ipv6 ? "[fd77::1]:4811" : "10.77.0.1:4811");
    const uint64_t to_b = AddPath(a, b->local()).value(), to_a = AddPath(b, a->local()).value();
    const uint64_t from_other = AddPath(other, b->local()).value();
    const uint64_t to_other = AddPath(b, other->local()).value();
    PingPong(*a, to_b, *b, to_a, kWindows);
    EXPECT_TRUE(a->IsDirect(to_b) && b->IsDirect(to_a));
    for (int i = 0; i < 20; ++i) {
      Send(*a, to_b, 1, 64);
      a->Flush();
      EXPECT_EQ(SourceOfOne(*b), a->local());
      Send(*other, from_other, 2, 64);
      other->Flush();
      EXPECT_EQ(SourceOfOne(*b), other->local());
      Send(*b, to_other, 3, 64);
      b->Flush();
      EXPECT_EQ(SourceOfOne(*other), b->local());
    }
    EXPECT_EQ(a->counters().sent, uint64_t{kWindows} + 20);
    EXPECT_EQ(b->counters().received, uint64_t{kWindows} + 40);
    EXPECT_EQ(b->counters().receive_errors, 0u);
  }
}

TEST_F(DirectTest, ItGoesToWhomeverGetsMostAndLosesNothing) {
  auto a = OpenA("10.77.0.1:4810"), other = OpenA("10.77.0.1:4811");
  auto b = OpenB("10.77.0.2:4810");
  const uint64_t to_b = AddPath(a, b->local()).value(), to_a = AddPath(b, a->local()).value();
  const uint64_t from_other = AddPath(other, b->local()).value();
  const uint64_t to_other = AddPath(b, other->local()).value();
  PingPong(*a, to_b, *b, to_a, kWindows);
  ASSERT_TRUE(b->IsDirect(to_a));
  // Waits in the connected socket while that goes elsewhere.
  for (uint64_t i = 0; i < 5; ++i) Send(*a, to_b, 100 + i, 64);
  a->Flush();
  for (int i = 0; i < kWindows; ++i) {
    Send(*b, to_other, 5, 64);
    b->Flush();
    ASSERT_EQ(TakeOne(*other), 5u);
  }
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(TakeOne(*b), 100 + i);
  PingPong(*other, from_other, *b, to_other, kWindows);
  EXPECT_TRUE(b->IsDirect(to_other) && !b->IsDirect(to_a));
  Send(*a, to_b, 1, 64);
  a->Flush();
  EXPECT_EQ(SourceOfOne(*b), a->local());
  // Between two that get as much neither has it.
  for (int i = 0; i < kWindows; ++i) {
    PingPong(*a, to_b, *b, to_a, 2);
    PingPong(*other, from_other, *b, to_other, 1);
  }
  EXPECT_FALSE(b->IsDirect(to_other) || b->IsDirect(to_a));
}

TEST_F(DirectTest, PathThatLeadsElsewhereLeavesIt) {
  auto a = OpenA("10.77.0.1:4810");
  auto b = OpenB("10.77.0.2:4810"), moved = OpenB("10.77.0.2:4811");
  const uint64_t to_b = AddPath(a, b->local()).value(), to_a = AddPath(b, a->local()).value();
  PingPong(*a, to_b, *b, to_a, kWindows);
  ASSERT_TRUE(a->IsDirect(to_b));
  {
    const test::InNamespace inside(network_->near());
    ASSERT_TRUE(a->SetPath(to_b, moved->local()).ok());
  }
  Send(*a, to_b, 3, 64);
  a->Flush();
  EXPECT_EQ(TakeOne(*moved), 3u);
  Send(*b, to_a, 4, 64);  // What the former peer sends still comes.
  b->Flush();
  EXPECT_EQ(TakeOne(*a), 4u);
  PingPong(*a, to_b, *moved, AddPath(moved, a->local()).value(), kWindows);
  ASSERT_TRUE(a->IsDirect(to_b));
  a->RemovePath(to_b);
  Send(*a, to_b, 5, 64);
  a->Flush();
  EXPECT_EQ(a->counters().lost_unknown_path, 1u);
}

// The kernel tells a connected socket that nobody took a datagram, instead of sending the next one.
TEST_F(DirectTest, PeerThatIsGoneForAWhileCostsNoDatagramMore) {
  auto a = OpenA("10.77.0.1:4810");
  auto b = OpenB("10.77.0.2:4810");
  const uint64_t to_b = AddPath(a, b->local()).value();
  PingPong(*a, to_b, *b, AddPath(b, a->local()).value(), kWindows);
  ASSERT_TRUE(a->IsDirect(to_b));
  b.reset();
  for (int i = 0; i < 10; ++i) {
    Send(*a, to_b, 1, 64);
    a->Flush();
  }
  EXPECT_EQ(a->counters().sent, uint64_t{kWindows} + 10);
  b = OpenB("10.77.0.2:4810");
  Send(*a, to_b, 2, 64);
  a->Flush();
  EXPECT_EQ(TakeOne(*b), 2u);
  EXPECT_EQ(a->counters().sent, uint64_t{kWindows} + 11);
  EXPECT_EQ(a->counters().lost_unreachable + a->counters().receive_errors, 0u);
}

TEST_F(DirectTest, WhatComesByItEndsASleep) {
  auto a = OpenA("10.77.0.1:4810");
  auto b = OpenB("10.77.0.2:4810");
  const uint64_t to_b = AddPath(a, b->local()).value();
  PingPong(*a, to_b, *b, AddPath(b, a->local()).value(), kWindows);
  ASSERT_TRUE(b->PrepareSleep());
  pollfd waiting{b->sleep_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&waiting, 1, 0), 0);
  Send(*a, to_b, 2, 64);
  a->Flush();
  EXPECT_EQ(poll(&waiting, 1, 10'000), 1);
  b->EndSleep();
  EXPECT_EQ(TakeOne(*b), 2u);
}

// As a host does with what weftd made: it is another user, who cannot share the address itself.
TEST_F(DirectTest, TwinFromElsewhereIsTaken) {
  auto a = OpenA("10.77.0.1:4810");
  std::unique_ptr<UdpPort> b;
  {
    const test::InNamespace inside(network_->far());
    PortStatus status;
    UniqueFd socket = BindUdp(*Address::Parse("10.77.0.2:4811"), 1, &status).value();
    UniqueFd twin = TwinOf(socket.get()).value();
    b = UdpPort::Create({.local = {}, .socket = std::move(socket), .twin = std::move(twin)}).value();
    EXPECT_FALSE(BindUdp(*Address::Parse("10.77.0.2:4811"), 2, &status).ok()) << "it is still shared";
  }
  const uint64_t to_b = AddPath(a, b->local()).value(), to_a = AddPath(b, a->local()).value();
  PingPong(*a, to_b, *b, to_a, kWindows);
  EXPECT_TRUE(b->IsDirect(to_a));
}

// Forbids io_uring to the calling thread for good.
void ForbidIoUring() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
  ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

TEST_F(UdpPortTest, WhereIoUringIsForbiddenPlainUdpCarriesAndSaysSo) {
  std::thread([this] {
    ForbidIoUring();
    auto a = OpenA("10.77.0.1:0"), b = OpenB("10.77.0.2:4810");
    EXPECT_EQ(a->status().port, "udp");
    EXPECT_TRUE(a->status().fell_back);
    bool told = false;
    for (const PortChoice& choice : a->status().choices) {
      told |= choice.feature == "io_uring" && choice.why.find("not permitted") != std::string::npos;
    }
    EXPECT_TRUE(told);
    Send(*a, AddPath(a, b->local()).value(), 3, 64);
    a->Flush();
    EXPECT_EQ(TakeOne(*b), 3u);
  }).join();
}

// Made on one thread, used on another, as an agent does.
TEST_F(UdpPortTest, PortBelongsToTheThreadThatUsesItFirst) {
  auto a = OpenA("10.77.0.1:0"), b = OpenB("10.77.0.2:4810");
  const uint64_t path = AddPath(a, b->local()).value();
  std::thread([&] {
    Send(*a, path, 3, 64);
    a->Flush();
  }).join();
  EXPECT_EQ(TakeOne(*b), 3u);
  EXPECT_FALSE(a->status().fell_back);
}

}  // namespace
}  // namespace weft::port
