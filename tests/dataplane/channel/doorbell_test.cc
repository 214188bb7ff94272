// SPDX-License-Identifier: Apache-2.0
// What a peer can do to a doorbell: drain, flood, re-flag, shut down, close, send other things, or stop in
// the middle of a system call for ever. The other side never blocks, closes what was abused and says why.
#include "dataplane/channel/doorbell.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "dataplane/channel/poller.h"
#include "tests/dataplane/channel/channel_pair.h"
#include "tests/dataplane/channel/stuck_page.h"

namespace weft {
namespace {

struct ClosingHandler {
  KeepingSink& SinkFor(Channel&) { return sink; }
  void OnClosed(Channel&) { ++closed; }
  KeepingSink sink;
  int closed = 0;
};

// An honest end under a poller, and the raw descriptor of the other.
struct Victim {
  explicit Victim(bool refuse_descriptors = true) {
    if (refuse_descriptors) {
      absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
      bell.emplace(*Doorbell::Create(std::move(bells->first)));
      other = std::move(bells->second);
    } else {
      int ends[2];
      EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
      bell.emplace(*Doorbell::Create(UniqueFd(ends[0])));
      other.Reset(ends[1]);
    }
    channel = *Channel::Create({});
    peer = *Channel::Create({});
    EXPECT_TRUE(channel->Connect(Duplicate(peer->memory_fd()), &*bell).ok());
    EXPECT_TRUE(peer->Connect(Duplicate(channel->memory_fd()), nullptr).ok());
    poller = *Poller::Create({});
    EXPECT_TRUE(poller->AddDoorbell(&*bell).ok());
    EXPECT_TRUE(poller->AddChannel(channel.get()).ok());
  }
  ~Victim() {
    poller->RemoveChannel(channel.get());
    poller->RemoveDoorbell(&*bell);
  }

  void RunUntilClosed() {
    const uint64_t give_up_ns = NowNs() + 10 * kNsPerSecond;
    while (handler.closed == 0 && NowNs() < give_up_ns) poller->Wait(handler, NowNs() + 10 * kNsPerMs);
    EXPECT_EQ(handler.closed, 1);
  }

  std::optional<Doorbell> bell;
  UniqueFd other;
  std::unique_ptr<Channel> channel;
  std::unique_ptr<Channel> peer;
  std::unique_ptr<Poller> poller;
  ClosingHandler handler;
};

bool SendDescriptor(int socket_fd, int fd) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  return sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

TEST(DoorbellTest, OnlyASeqpacketSocketIsADoorbell) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  EXPECT_FALSE(Doorbell::Create(std::move(read_end)).ok());
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd first(ends[0]), second(ends[1]);
  EXPECT_EQ(Doorbell::Create(std::move(first)).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(DoorbellTest, RingsArriveAndAreCounted) {
  absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
  Doorbell a = *Doorbell::Create(std::move(bells->first));
  Doorbell b = *Doorbell::Create(std::move(bells->second));
  for (int i = 0; i < 3; ++i) a.Ring();
  const Doorbell::Drained drained = b.Drain();
  EXPECT_EQ(drained.rings, 3);
  EXPECT_FALSE(drained.hung_up);
  EXPECT_FALSE(drained.misuse);
  EXPECT_EQ(b.Drain().rings, 0);
}

TEST(DoorbellTest, AFullSocketDoesNotBlockTheRinger) {
  absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
  Doorbell a = *Doorbell::Create(std::move(bells->first));
  for (int i = 0; i < 100'000; ++i) a.Ring();
  EXPECT_FALSE(a.hung_up());
}

TEST(DoorbellTest, TheKernelRefusesDescriptors) {
  absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
  if (!bells->refuses_descriptors) GTEST_SKIP() << "needs Linux 6.16 (SO_PASSRIGHTS)";
  EXPECT_FALSE(SendDescriptor(bells->first.get(), STDIN_FILENO));
  EXPECT_FALSE(SendDescriptor(bells->second.get(), STDIN_FILENO));
}

TEST(DoorbellTest, DescriptorsThatArriveAllTheSameCloseTheChannel) {
  Victim victim(false);
  ASSERT_TRUE(SendDescriptor(victim.other.get(), STDIN_FILENO));
  victim.RunUntilClosed();
  EXPECT_EQ(victim.channel->poison_reason(), PoisonReason::kDoorbellMisuse);
}

TEST(DoorbellTest, APacketThatIsNoRingClosesTheChannel) {
  Victim victim;
  ASSERT_EQ(send(victim.other.get(), "xy", 2, MSG_DONTWAIT), 2);
  victim.RunUntilClosed();
  EXPECT_EQ(victim.channel->poison_reason(), PoisonReason::kDoorbellMisuse);
}

TEST(DoorbellTest, AFloodWithNothingPublishedClosesTheChannel) {
  Victim victim;
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    while (!stop.load(std::memory_order_relaxed))
      send(victim.other.get(), "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  });
  victim.RunUntilClosed();
  stop.store(true, std::memory_order_relaxed);
  flood.join();
  EXPECT_EQ(victim.channel->poison_reason(), PoisonReason::kSpuriousRings);
  EXPECT_LE(victim.poller->counters().rings_spurious, 2 * Poller::kSpuriousBurst);
}

TEST(DoorbellTest, EveryShutdownAndCloseIsDeath) {
  for (const int how : {int{SHUT_RD}, int{SHUT_WR}, int{SHUT_RDWR}, -1}) {
    Victim victim;
    if (how < 0) {
      victim.other.Reset();
    } else {
      ASSERT_EQ(shutdown(victim.other.get(), how), 0);
    }
    if (how == SHUT_RD) {
      // Shows only to who rings, and matters to nobody else.
      victim.peer->BeginSleep();
      ASSERT_TRUE(victim.channel->TrySend(Request(1), Payload(), Lane::kRequest));
      victim.channel->Publish();
    }
    victim.RunUntilClosed();
    EXPECT_EQ(victim.channel->state(), ChannelState::kPeerDead) << how;
  }
}

TEST(DoorbellTest, APeerThatDrainsItsOwnEndTakesNoWakeFromUs) {
  Victim victim;
  std::atomic<bool> stop{false};
  std::thread drain([&] {
    char byte;
    while (!stop.load(std::memory_order_relaxed)) recv(victim.other.get(), &byte, 1, MSG_DONTWAIT);
  });
  Doorbell peer_bell = *Doorbell::Create(Duplicate(victim.other.get()));
  victim.peer->producer().set_doorbell(&peer_bell);
  for (uint32_t id = 0; id < 200; ++id) {
    std::thread sender([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      ASSERT_TRUE(victim.peer->TrySend(Request(id), Payload(), Lane::kRequest));
      victim.peer->Publish();
    });
    const uint64_t give_up_ns = NowNs() + 5 * kNsPerSecond;
    while (victim.handler.sink.messages.size() <= id && NowNs() < give_up_ns) {
      victim.poller->Wait(victim.handler, give_up_ns);
    }
    sender.join();
    ASSERT_EQ(victim.handler.sink.messages.size(), id + 1u);
  }
  stop.store(true, std::memory_order_relaxed);
  drain.join();
}

TEST(DoorbellTest, APeerThatReflagsWithoutEndCostsRingsButNoBlock) {
  Victim victim;
  for (uint32_t id = 0; id < 20'000; ++id) {
    victim.peer->BeginSleep();
    ASSERT_TRUE(victim.channel->TrySend(Request(id), Payload(), Lane::kRequest));
    victim.channel->Publish();
    KeepingSink sink;
    victim.peer->Poll(sink, 8);
  }
  EXPECT_EQ(victim.bell->rings_sent(), 20'000u);
  EXPECT_EQ(victim.channel->state(), ChannelState::kOpen);
}

// The peer's threads hang in send() and recv() on its end of the doorbell, inside the copy of a page that
// never arrives. Ours neither hang nor lose anything; once the peer is gone the channel closes.
TEST(DoorbellTest, APeerStuckInItsOwnMountBlocksNobodyElse) {
  std::unique_ptr<StuckPage> stuck = StuckPage::Mount();
  if (stuck == nullptr) GTEST_SKIP() << "needs root and /dev/fuse";
  Victim victim;
  victim.bell->Ring();  // For the peer to read.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    stuck->CloseInChild();
    victim.bell.reset();  // Our end, or its own death would not be seen.
    const int file = open(stuck->path().c_str(), O_RDWR | O_CLOEXEC);
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) _exit(1);
    if (fork() == 0) {
      send(victim.other.get(), page, 1, 0);
      _exit(0);
    }
    recv(victim.other.get(), page, 1, 0);
    _exit(0);
  }
  victim.other.Reset();
  uint64_t give_up_ns = NowNs() + 10 * kNsPerSecond;
  while (stuck->reads() < 1 && NowNs() < give_up_ns)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_GE(stuck->reads(), 1) << "the peer is in the trap";
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  for (int i = 0; i < 10'000; ++i) {
    victim.bell->Ring();
    EXPECT_FALSE(victim.bell->Drain().hung_up);
    victim.poller->PollOnce(victim.handler);
  }
  victim.poller->Wait(victim.handler, NowNs() + 20 * kNsPerMs);
  EXPECT_EQ(victim.handler.closed, 0);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "still in the trap";
  stuck.reset();
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  victim.RunUntilClosed();
  EXPECT_EQ(victim.channel->state(), ChannelState::kPeerDead);
}

}  // namespace
}  // namespace weft
