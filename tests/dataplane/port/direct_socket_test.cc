// SPDX-License-Identifier: Apache-2.0
// The UDP port's second socket: who gets it, and that nothing is lost or taken for another's when it goes
// from one peer to the next.
#include "dataplane/port/direct_socket.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <memory>
#include <utility>
#include <vector>

#include "dataplane/port/udp_socket.h"
#include "tests/dataplane/port/udp_port_fixture.h"

namespace weft::port {
namespace {

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

// As what an engine sends to a peer whose address the port took for no way.
TEST_F(DirectTest, WhatIsSentNowhereDoesNotLeaveByIt) {
  auto a = OpenA("10.77.0.1:4810");
  constexpr uint64_t kNowhere = ~uint64_t{0};
  for (int i = 0; i < 3; ++i) {
    Send(*a, kNowhere, 1, 64);
    a->Flush();
  }
  EXPECT_EQ(a->counters().lost_unknown_path, 3u);
  EXPECT_EQ(a->counters().sent, 0u);
}

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

// The word of the new peer's kernel comes before what the earlier peer sent, and is not the end of it.
TEST_F(DirectTest, AnErrorIsNotTakenForTheEndOfWhatTheEarlierPeerSent) {
  // After the first one it tries to receive one at a time, after the fifth several at once.
  constexpr int kQueued = 40, kAlone = 0, kTogether = 4;
  for (const auto& [use_io_uring, told] : {std::pair(false, kAlone), {false, kTogether}, {true, kTogether}}) {
    auto a = OpenA("10.77.0.1:4810");
    auto b = Open(network_->far(), "10.77.0.2:4810", 1, use_io_uring);
    const uint64_t to_b = AddPath(a, b->local()).value(), to_a = AddPath(b, a->local()).value();
    PingPong(*a, to_b, *b, to_a, kWindows);
    ASSERT_TRUE(b->IsDirect(to_a));
    for (int i = 0; i < kWindows; ++i) {  // The next Receive() leads to wherever the path leads then.
      Send(*b, to_a, 1, 64);
      b->Flush();
    }
    for (int i = 0; i < kQueued; ++i) Send(*a, to_b, 1, 64);
    a->Flush();
    {
      const test::InNamespace inside(network_->far());
      ASSERT_TRUE(b->SetPath(to_a, *Address::Parse("10.77.0.1:4899")).ok());
    }
    for (int i = 0; i < kQueued; ++i) {
      EXPECT_EQ(SourceOfOne(*b), a->local()) << i;
      ASSERT_TRUE(b->IsDirect(to_a));
      if (i != told) continue;
      Send(*b, to_a, 1, 64);  // Nobody is there.
      b->Flush();
    }
  }
}

// A path that moves while datagrams of its former peer wait, are taken and are held: the window is full, so
// the next look at the kernel parts from that peer and leads to the new one at once.
TEST_F(DirectTest, WhatWasThereWhenItsPathMovedKeepsItsSource) {
  constexpr std::size_t kHeld = 3, kWaiting = 40;
  for (const bool ipv6 : {false, true}) {
    auto a = OpenA(ipv6 ? "[fd77::1]:4810" : "10.77.0.1:4810");
    auto moved = OpenA(ipv6 ? "[fd77::1]:4811" : "10.77.0.1:4811");
    auto b = OpenB(ipv6 ? "[fd77::2]:4810" : "10.77.0.2:4810");
    const uint64_t to_b = AddPath(a, b->local()).value(), to_a = AddPath(b, a->local()).value();
    const uint64_t from_moved = AddPath(moved, b->local()).value();
    PingPong(*a, to_b, *b, to_a, kWindows);
    ASSERT_TRUE(b->IsDirect(to_a));
    for (std::size_t i = 0; i < kHeld + kWaiting; ++i) Send(*a, to_b, 100 + i, 64 + 8 * i);
    a->Flush();
    std::vector<ReceivedDatagram> held;
    const auto take_one = [&] {
      ReceivedDatagram one;
      while (b->Receive(&one, 1) == 0) {
      }
      held.push_back(one);
    };
    take_one();
    for (int i = 0; i < kWindows; ++i) {
      Send(*b, to_a, 1, 64);
      b->Flush();
    }
    {
      const test::InNamespace inside(network_->far());
      ASSERT_TRUE(b->SetPath(to_a, moved->local()).ok());
    }
    while (held.size() < kHeld) take_one();  // Nothing is decided while one is out.
    for (const ReceivedDatagram& one : held) {
      EXPECT_EQ(b->SourceOf(one), a->local());
      b->Release(&one, 1);
    }
    EXPECT_FALSE(b->IsDirect(to_a));
    Send(*moved, from_moved, 7, 64);
    moved->Flush();
    std::size_t from_a = 0, from_it = 0;
    for (std::size_t i = 0; i < kWaiting + 1; ++i) {
      const Address source = SourceOfOne(*b);
      from_a += source == a->local() ? 1 : 0;
      from_it += source == moved->local() ? 1 : 0;
    }
    EXPECT_TRUE(b->IsDirect(to_a));
    EXPECT_EQ(from_a, kWaiting);
    EXPECT_EQ(from_it, 1u);
    PingPong(*moved, from_moved, *b, to_a, 40);
    EXPECT_EQ(b->counters().receive_errors, 0u);
  }
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

}  // namespace
}  // namespace weft::port
