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
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <set>
#include <thread>
#include <vector>

#include "dataplane/port/udp_socket.h"
#include "tests/dataplane/port/udp_port_fixture.h"

namespace weft::port {
namespace {

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

// Tells the calling thread's calls that carry packets to whoever holds the descriptor that is returned, which
// lets each go on. For good.
UniqueFd WatchPacketCalls() {
  constexpr int kCalls[] = {SYS_io_uring_enter, SYS_sendto,  SYS_sendmsg, SYS_sendmmsg,
                            SYS_recvfrom,       SYS_recvmsg, SYS_recvmmsg};
  std::vector<sock_filter> code = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const int call : kCalls) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1));
    code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
  }
  code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog program = {.len = static_cast<uint16_t>(code.size()), .filter = code.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return UniqueFd();
  return UniqueFd(static_cast<int>(
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program)));
}

// While it polls, what waits to be sent and the look for what has come go by one enter; a look alone is a
// plain call.
TEST_F(UdpPortTest, OneEnterSendsAndReceives) {
  auto b = OpenB("10.77.0.2:4810");
  std::atomic<int> listener{-1}, enters{0}, others{0};
  std::atomic<bool> over{false};
  std::thread watcher([&] {
    while (!over.load()) {
      pollfd asked{listener.load(), POLLIN, 0};  // Of no descriptor nothing is heard.
      if (poll(&asked, 1, 10) != 1) continue;
      seccomp_notif call{};
      if (ioctl(asked.fd, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) continue;
      ++(call.data.nr == SYS_io_uring_enter ? enters : others);
      seccomp_notif_resp go_on{};
      go_on.id = call.id;
      go_on.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
      (void)ioctl(asked.fd, SECCOMP_IOCTL_NOTIF_SEND, &go_on);
    }
  });
  std::thread([&] {
    auto a = OpenA("10.77.0.1:0");
    const uint64_t path = AddPath(a, b->local()).value();
    const UniqueFd watched = WatchPacketCalls();
    listener.store(watched.get());
    ReceivedDatagram one;
    EXPECT_TRUE(watched.valid());
    EXPECT_EQ(a->Receive(&one, 1), 0u);
    EXPECT_EQ(enters.load(), 0);
    EXPECT_EQ(others.load(), 1);
    Send(*a, path, 3, 64);
    Send(*a, path, 4, 65);
    EXPECT_EQ(a->Receive(&one, 1), 0u);
    EXPECT_EQ(enters.load(), 1);
    EXPECT_EQ(others.load(), 1);
    over.store(true);
    watcher.join();
  }).join();
  EXPECT_EQ(TakeOne(*b), 3u);
  EXPECT_EQ(TakeOne(*b), 4u);
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
