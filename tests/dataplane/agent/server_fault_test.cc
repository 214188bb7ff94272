// SPDX-License-Identifier: Apache-2.0
// What strangers and broken hosts do to the agent's sockets: each is refused by name and counted, and two
// bystanders notice nothing.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/random.h"
#include "dataplane/channel/layout.h"
#include "tests/dataplane/agent/server_fixture.h"
#include "tests/dataplane/agent/silent_fuse.h"
#include "tests/support/process.h"

namespace weft::agent::test {
namespace {

using testing::HasSubstr;

constexpr uid_t kStranger = 64099;

#define SKIP_UNLESS_ROOT() \
  if (geteuid() != 0) GTEST_SKIP() << "needs root: other users and mounts"

// A TCP connection whose close() waits a minute for data that nobody reads.
UniqueFd LingeringSocket(UniqueFd* peer) {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof(address);
  EXPECT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), bytes), 0);
  EXPECT_EQ(listen(listener.get(), 1), 0);
  EXPECT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &bytes), 0);
  UniqueFd connected(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(connected.get(), reinterpret_cast<sockaddr*>(&address), bytes), 0);
  *peer = UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const linger linger_for{1, 60};
  EXPECT_EQ(setsockopt(connected.get(), SOL_SOCKET, SO_LINGER, &linger_for, sizeof(linger_for)), 0);
  const std::string data(64 * 1024, 'x');
  while (send(connected.get(), data.data(), data.size(), MSG_DONTWAIT) > 0) {
  }
  return connected;
}

class ServerFaultTest : public ServerTest {
 protected:
  // Starts with a second tenant, of which a test can be a member where it is root.
  void StartWithStranger() {
    Tenant tenant;
    tenant.name = "evil";
    tenant.uid = kStranger;
    tenant.hosts = {"x", "y"};
    tenant.serve = {"evil/*"};
    tenant.call_as = "evil";
    config_.tenants.push_back(tenant);
    Start();
    ConnectBystanders();
  }
  void ExpectRefusal(Peer& peer, const std::string& name) {
    EXPECT_TRUE(peer.PumpUntilClosed());
    EXPECT_THAT(peer.refusal(), HasSubstr(name));
    EXPECT_GE(Refused(name), 1u);
    ExpectBystandersWell();
  }
};

TEST_F(ServerFaultTest, GarbageIsRefused) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  peer.SendBytes("\xff\xff\xff this is no message");
  ExpectRefusal(peer, "garbage");
}

TEST_F(ServerFaultTest, TruncatedMessageIsRefused) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  api::FromHost message;
  message.mutable_hello()->set_protocol(1);
  message.mutable_hello()->set_host("c");
  const std::string bytes = message.SerializeAsString();
  peer.SendBytes(bytes.substr(0, bytes.size() - 1));
  ExpectRefusal(peer, "garbage");
}

TEST_F(ServerFaultTest, EmptyPacketEndsTheConversationQuietly) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  ASSERT_EQ(send(peer.fd(), "", 0, 0), 0);
  EXPECT_TRUE(peer.PumpUntilClosed());
  ExpectBystandersWell();
}

TEST_F(ServerFaultTest, OversizedMessageIsRefused) {
  Start();
  ConnectBystanders();
  for (const std::size_t bytes : {kControlMessageBytesMax + 1, std::size_t{150'000}}) {
    Peer peer(agent_sock());
    const std::string large(bytes, 'x');
    ASSERT_EQ(send(peer.fd(), large.data(), large.size(), 0), static_cast<ssize_t>(bytes));
    ExpectRefusal(peer, "oversized");
  }
}

TEST_F(ServerFaultTest, ConversationThatBeginsWrongIsRefused) {
  Start();
  ConnectBystanders();
  Peer early(agent_sock());
  early.Subscribe("web", "web/back");
  ExpectRefusal(early, "hello_missing");
  Peer twice(agent_sock());
  ASSERT_TRUE(twice.Hello("c"));
  twice.Hello("c");
  ExpectRefusal(twice, "hello_twice");
  Peer old(agent_sock());
  api::FromHost message;
  message.mutable_hello()->set_protocol(999);
  old.Send(message);
  ExpectRefusal(old, "protocol");
}

TEST_F(ServerFaultTest, NamesOfOthersAreRefused) {
  Start();
  ConnectBystanders();
  Peer host(agent_sock());
  EXPECT_FALSE(host.Hello("stranger"));
  ExpectRefusal(host, "host_not_allowed");
  Peer function(agent_sock());
  EXPECT_FALSE(function.Hello("c", {"vision/scale"}));
  ExpectRefusal(function, "function_not_allowed");
  Peer taken(agent_sock());
  EXPECT_FALSE(taken.Hello("a"));
  ExpectRefusal(taken, "host_taken");
  Peer later(agent_sock());
  ASSERT_TRUE(later.Hello("c"));
  api::FromHost report;
  report.mutable_function_report()->set_function("vision/scale");
  later.Send(report);
  ExpectRefusal(later, "function_not_allowed");
  Peer serving_client(agent_sock());
  EXPECT_FALSE(serving_client.Hello("", {"web/mine"}));
  ExpectRefusal(serving_client, "function_not_allowed");
}

TEST_F(ServerFaultTest, UserOfNoTenantIsRefused) {
  config_.tenants[0].uid = geteuid() + 1;
  Start();
  Peer peer(agent_sock());
  EXPECT_TRUE(peer.PumpUntilClosed());
  EXPECT_THAT(peer.refusal(), HasSubstr("not_admitted"));
}

TEST_F(ServerFaultTest, OnlyControlUserMayProgram) {
  SKIP_UNLESS_ROOT();
  StartWithStranger();
  AdminPeer admin(admin_sock(), kStranger);  // The group of the socket lets it in.
  EXPECT_FALSE(admin.Program(1, api::Mesh()).has_value());
  EXPECT_GE(Refused("not_control"), 1u);
  ExpectBystandersWell();
}

TEST_F(ServerFaultTest, ForgedCallerIsAnsweredAndCounted) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  ASSERT_TRUE(peer.Hello("c", {"web/mine"}));
  peer.Subscribe("web/front", "web/back");
  ASSERT_TRUE(peer.PumpUntil([&] { return !peer.routes().empty(); }));
  EXPECT_EQ(peer.routes().begin()->second.code(), 7u);
  EXPECT_EQ(Refused("forged_caller"), 1u);
  ExpectBystandersWell();
}

TEST_F(ServerFaultTest, SurplusDescriptorsAreRefused) {
  Start();
  ConnectBystanders();
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  for (const std::size_t count : {std::size_t{1}, static_cast<std::size_t>(kFdsMax)}) {
    Peer peer(agent_sock());
    api::FromHost message;
    message.mutable_hello()->set_protocol(1);
    peer.Send(message, std::vector<int>(count, null.get()));
    ExpectRefusal(peer, "surplus_fds");
  }
}

TEST_F(ServerFaultTest, LingeringSocketsHoldNobodyUp) {
  Start();
  ConnectBystanders();
  std::vector<UniqueFd> other_ends;
  std::vector<std::thread> closers;
  for (int i = 0; i < 4; ++i) {
    Peer peer(agent_sock());
    const int lingering = LingeringSocket(&other_ends.emplace_back()).Release();
    api::FromHost message;
    message.mutable_hello()->set_protocol(1);
    // One is received, the other may still be in the socket when the agent closes it. Our own close waits as
    // well where it is the last.
    peer.Send(message, {&lingering, 1});
    peer.Send(message, {&lingering, 1});
    closers.emplace_back([lingering] { close(lingering); });
    ExpectRefusal(peer, "surplus_fds");
  }
  other_ends.clear();  // Resets the connections: nothing lingers any more.
  for (std::thread& closer : closers) closer.join();
}

TEST_F(ServerFaultTest, MemoryThatIsNoChannelsIsRefused) {
  Start();
  ConnectBystanders();
  const std::map<std::string, std::function<UniqueFd(const api::ChannelOpen&)>> makers = {
      {"unsealed",
       [](const api::ChannelOpen& open) {
         UniqueFd fd(memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING));
         EXPECT_EQ(
             posix_fallocate(fd.get(), 0,
                             static_cast<off_t>(SideMemoryBytes(static_cast<uint32_t>(open.arena_bytes())))),
             0);
         return fd;
       }},
      {"short",
       [](const api::ChannelOpen& open) {
         return UniqueFd(dup(SideMemory::Create("x", 16 * 1024).value().fd()));
       }},
      {"sparse",
       [](const api::ChannelOpen& open) {
         UniqueFd fd(memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING));
         EXPECT_EQ(ftruncate(fd.get(),
                             static_cast<off_t>(SideMemoryBytes(static_cast<uint32_t>(open.arena_bytes())))),
                   0);
         EXPECT_EQ(
             fcntl(fd.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
             0);
         return fd;
       }},
      {"hugetlb",
       [](const api::ChannelOpen&) {
         UniqueFd fd(memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
         if (!fd.valid()) return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
         EXPECT_EQ(ftruncate(fd.get(), 2 << 20), 0);
         (void)fcntl(fd.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
         return fd;
       }},
      {"no memfd", [](const api::ChannelOpen&) { return UniqueFd(open("/dev/zero", O_RDWR | O_CLOEXEC)); }},
  };
  for (const auto& [kind, maker] : makers) {
    SCOPED_TRACE(kind);
    Peer peer(agent_sock());
    peer.set_memory_maker(maker);
    ASSERT_TRUE(peer.Hello("c", {"web/mine"}));
    peer.Subscribe("web/mine", "web/front");
    std::atomic<bool> done = false;
    std::thread pump([&] { front_->PumpUntil([&] { return done.load(); }); });
    EXPECT_TRUE(peer.PumpUntilClosed());
    done = true;
    pump.join();
    EXPECT_THAT(peer.refusal(), HasSubstr("bad_memory"));
  }
  EXPECT_EQ(Refused("bad_memory"), makers.size());
  ExpectBystandersWell();
}

TEST_F(ServerFaultTest, MemoryForAChannelOfOthersIsRefused) {
  Start();
  ConnectBystanders();
  const SideMemory memory = SideMemory::Create("x", SideMemoryBytes(256 * 1024)).value();
  const int fd = memory.fd();
  api::FromHost message;
  message.mutable_channel_memory()->set_id(*front_->channels().begin());
  Peer peer(agent_sock());
  ASSERT_TRUE(peer.Hello("c"));
  peer.Send(message, {&fd, 1});
  ExpectRefusal(peer, "unknown_channel");
  Peer without(agent_sock());
  ASSERT_TRUE(without.Hello("c"));
  without.Send(message);
  ExpectRefusal(without, "missing_fd");
}

TEST_F(ServerFaultTest, ClientThatNeverReadsIsCutOff) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  ASSERT_TRUE(peer.Hello("c", {"web/mine"}));
  // Each is answered at once, without a round: only the queue bounds them.
  api::FromHost message;
  message.mutable_subscribe()->set_caller("web/forged");
  message.mutable_subscribe()->set_callee("web/back");
  const std::string bytes = message.SerializeAsString();
  const auto closed = [&] {
    const absl::Status sent = SendMessage(peer.fd(), bytes);
    return !sent.ok() && !absl::IsUnavailable(sent);
  };
  EXPECT_TRUE(weft::test::Eventually([&] {
    for (int i = 0; i < 1000; ++i) {
      if (closed()) return true;
    }
    return false;
  }));
  EXPECT_EQ(Refused("never_reads"), 1u);
  ExpectBystandersWell();
}

TEST_F(ServerFaultTest, HostThatStopsAnsweringIsCutOffAndTheOthersGoOn) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  ASSERT_TRUE(peer.Hello("c", {"web/mine"}));
  peer.Subscribe("web/mine", "web/front");  // Asked for its memory, it says nothing.
  ExpectBystandersWell();
  EXPECT_TRUE(peer.PumpUntilClosed());
  EXPECT_EQ(Refused("silent"), 1u);
}

TEST_F(ServerFaultTest, TenThousandConnectionsOfOneUserStayWithinItsLimit) {
  SKIP_UNLESS_ROOT();
  StartWithStranger();
  std::vector<UniqueFd> sockets;
  int connected = 0;
  for (int i = 0; i < 10'000; ++i) {
    absl::StatusOr<UniqueFd> socket = ConnectAs(agent_sock(), kStranger);
    if (!socket.ok()) continue;  // The backlog is full for a moment.
    ++connected;
    sockets.push_back(*std::move(socket));
  }
  EXPECT_GT(connected, 5'000);
  ExpectBystandersWell();
  EXPECT_GT(Refused("too_many_connections"), 4'000u);
  AdminPeer admin(admin_sock());
  uint64_t held = 0;
  EXPECT_TRUE(absl::SimpleAtoi(Field(admin.Ask(api::Query::STATUS).at(0), "connections"), &held));
  EXPECT_LE(held, 90u);
  sockets.clear();
  Peer peer(agent_sock());
  EXPECT_TRUE(peer.Hello("c"));
}

TEST_F(ServerFaultTest, FileOfAFuseMountThatNeverAnswersHoldsNobodyUp) {
  SKIP_UNLESS_ROOT();
  const std::string mount_point = directory_ / "fuse";
  ASSERT_EQ(mkdir(mount_point.c_str(), 0755), 0);
  const std::unique_ptr<SilentFuse> fuse = SilentFuse::Mount(mount_point);
  if (fuse == nullptr) GTEST_SKIP() << "no FUSE here";
  StartWithStranger();
  // A descriptor that nothing asked for.
  Peer surplus(agent_sock(), kStranger);
  api::FromHost message;
  message.mutable_hello()->set_protocol(1);
  int file = fuse->Open().Release();  // Closing it would hang this test as well.
  ASSERT_GE(file, 0);
  surplus.Send(message, {&file, 1});
  ExpectRefusal(surplus, "surplus_fds");
  EXPECT_TRUE(weft::test::Eventually([&] { return fuse->flushes() >= 1; })) << "the agent's close hangs";
  // One in place of a channel's memory.
  Peer peer(agent_sock(), kStranger);
  ASSERT_TRUE(peer.Hello("x", {"evil/one"}));
  Peer second(agent_sock(), kStranger);
  ASSERT_TRUE(second.Hello("y", {"evil/two"}));
  peer.set_memory_maker([&](const api::ChannelOpen&) { return UniqueFd(file); });
  peer.Subscribe("evil/one", "evil/two");
  std::thread gives([&] {
    // The fixture closes what it has sent, and hangs in that until the mount ends.
    peer.PumpUntilClosed();
  });
  EXPECT_TRUE(weft::test::Eventually([&] { return Refused("bad_memory") == 1; }));
  ExpectBystandersWell();
  umount2(mount_point.c_str(), MNT_FORCE);
  gives.join();
}

TEST_F(ServerFaultTest, UserWhoseDescriptorsNeverCloseIsShutOutAlone) {
  SKIP_UNLESS_ROOT();
  const std::string mount_point = directory_ / "fuse";
  ASSERT_EQ(mkdir(mount_point.c_str(), 0755), 0);
  const std::unique_ptr<SilentFuse> fuse = SilentFuse::Mount(mount_point);
  if (fuse == nullptr) GTEST_SKIP() << "no FUSE here";
  StartWithStranger();
  const int file = fuse->Open().Release();
  api::FromHost message;
  message.mutable_hello()->set_protocol(1);
  const bool shut_out = weft::test::Eventually([&] {
    Peer peer(agent_sock(), kStranger);
    peer.Send(message, std::vector<int>(kFdsMax, file));
    peer.PumpUntilClosed();
    return peer.refusal().find("too_many_blocked_fds") != std::string::npos;
  });
  EXPECT_TRUE(shut_out);
  ExpectBystandersWell();
  Peer peer(agent_sock());
  EXPECT_TRUE(peer.Hello("c"));
  umount2(mount_point.c_str(), MNT_FORCE);
}

// Messages of the right form and random content, from sessions that are admitted or not.
TEST_F(ServerFaultTest, RandomMessagesNeverHarmTheAgentOrItsOtherSessions) {
  Start();
  ConnectBystanders();
  Random random(20261123);
  const std::string channel = *front_->channels().begin();
  const std::vector<std::string> words = {"",         "a",        "c",       "web",   "web/front",
                                          "web/mine", "vision/x", "no name", channel, std::string(16, 'z')};
  const auto word = [&] { return words[random.Below(words.size())]; };
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::unique_ptr<Peer> peer;
  for (int i = 0; i < 5'000; ++i) {
    if (peer == nullptr || random.Below(40) == 0) {
      peer = std::make_unique<Peer>(agent_sock());
      if (random.Below(3) != 0) peer->Hello("c", {"web/mine"});
    }
    api::FromHost message;
    switch (random.Below(8)) {
      case 0:
        message.mutable_hello()->set_protocol(static_cast<uint32_t>(random.Below(3)));
        message.mutable_hello()->set_host(word());
        message.mutable_hello()->add_serves(word());
        message.mutable_hello()->add_channels()->set_id(word());
        break;
      case 1:
        message.mutable_function_report()->set_function(word());
        message.mutable_function_report()->set_state(
            static_cast<api::FunctionReport::State>(random.Below(5)));
        break;
      case 2:
        message.mutable_subscribe()->set_caller(word());
        message.mutable_subscribe()->set_callee(word());
        break;
      case 3:
        message.mutable_channel_memory()->set_id(word());
        break;
      case 4:
        message.mutable_channel_closed()->set_id(word());
        message.mutable_channel_closed()->set_reason(std::string(random.Below(1000), 'r'));
        break;
      case 5:
        message.mutable_applied()->set_serial(random.Below(4) == 0 ? random.Next() : random.Below(3));
        break;
      case 6:
        message.mutable_stats()->set_query(random.Below(4));
        break;
      default:
        message.mutable_drained();
        break;
    }
    std::string bytes = message.SerializeAsString();
    if (random.Below(4) == 0 && !bytes.empty())
      bytes[random.Below(bytes.size())] = static_cast<char>(random.Next());
    const int fd = null.get();
    (void)SendMessage(peer->fd(), bytes, {&fd, random.Below(6) == 0 ? std::size_t{1} : 0});
    if (peer->closed() || random.Below(20) == 0) peer.reset();
  }
  peer.reset();
  ExpectBystandersWell();
}

}  // namespace
}  // namespace weft::agent::test
