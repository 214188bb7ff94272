// SPDX-License-Identifier: Apache-2.0
// Descriptors that hosts hand to the agent, and those at which they hang themselves: nothing that they send,
// and no mount of their own, holds up the agent or two bystanders.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "dataplane/channel/layout.h"
#include "tests/dataplane/agent/server_fault.h"
#include "tests/dataplane/agent/silent_fuse.h"
#include "tests/dataplane/channel/stuck_page.h"
#include "tests/support/process.h"

namespace weft::agent::test {
namespace {

using testing::HasSubstr;

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

// A host whose threads hang in send() and recv() on their end of agent.sock, inside the copy of a page of a
// mount of its own that never arrives. The agent neither waits for it nor hangs in closing its connection.
TEST_F(ServerFaultTest, HostStuckInItsOwnSystemCallsHoldsNobodyUp) {
  SKIP_UNLESS_ROOT();
  std::unique_ptr<StuckPage> stuck = StuckPage::Mount();
  if (stuck == nullptr) GTEST_SKIP() << "no FUSE here";
  int go[2];
  ASSERT_EQ(pipe2(go, O_CLOEXEC), 0);
  // Before the server starts, so that it holds none of its descriptors.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    stuck->CloseInChild();
    char byte;
    if (read(go[0], &byte, 1) != 1) _exit(1);
    Peer host(agent_sock());
    if (!host.Hello("c", {"web/mine"})) _exit(2);
    const int file = open(stuck->path().c_str(), O_RDWR | O_CLOEXEC);
    void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page == MAP_FAILED || fcntl(host.fd(), F_SETFL, 0) != 0) _exit(3);
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      send(host.fd(), page, 100, 0);
      _exit(0);
    }
    recv(host.fd(), page, 4096, 0);
    _exit(0);
  }
  Start();
  ConnectBystanders();
  ASSERT_EQ(write(go[1], "g", 1), 1);
  ASSERT_TRUE(weft::test::Eventually([&] { return stuck->reads() >= 1; })) << "it is not in the trap";
  // Now the agent wants something of it.
  front_->Subscribe("web/front", "web/mine");
  std::atomic<bool> done = false;
  std::thread pump([&] { front_->PumpUntil([&] { return done.load(); }); });
  EXPECT_TRUE(weft::test::Eventually([&] { return Refused("silent") == 1; }));
  done = true;
  pump.join();
  ExpectBystandersWell();
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "still in the trap";
  kill(child, SIGKILL);
  close(go[0]);
  close(go[1]);
  stuck.reset();  // The mount's end lets it go.
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

}  // namespace
}  // namespace weft::agent::test
