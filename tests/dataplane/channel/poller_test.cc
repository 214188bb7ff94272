// SPDX-License-Identifier: Apache-2.0
// Waiting and waking: sleeps, parked channels, hang-ups, and rings that say nothing.
#include "dataplane/channel/poller.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>

#include "tests/dataplane/channel/poller_fixture.h"

namespace weft {
namespace {

TEST(PollerTest, ADeadlineEndsTheWait) {
  std::unique_ptr<Poller> poller = MakePoller();
  KeepingHandler handler;
  // Far longer than it polls, also where slow yields on a busy machine stretch that.
  const uint64_t deadline_ns = NowNs() + 300 * kNsPerMs;
  EXPECT_EQ(poller->Wait(handler, deadline_ns), 0);
  EXPECT_GE(NowNs(), deadline_ns);
  EXPECT_GE(poller->counters().sleeps, 1u);
}

TEST(PollerTest, AMessageWakesASleepingThread) {
  ChannelPair pair;
  std::unique_ptr<Poller> poller = MakePoller(0);
  ASSERT_TRUE(poller->AddDoorbell(&*pair.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.b.get()).ok());
  KeepingHandler handler;
  std::thread sender([&] {
    for (uint32_t id = 0; id < 20; ++id) {
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
      Send(*pair.a, id);
    }
  });
  while (handler.sinks[pair.b.get()].messages.size() < 20) poller->Wait(handler, kNoDeadline);
  sender.join();
  EXPECT_GE(poller->counters().sleeps, 15u);
  poller->RemoveChannel(pair.b.get());
}

// The system call that empties the doorbell comes after the message, and is not forgotten.
TEST(PollerTest, AMessageIsTakenBeforeTheDoorbellThatWokeForItIsDrained) {
  ChannelPair pair;
  std::unique_ptr<Poller> poller = MakePoller(0);
  ASSERT_TRUE(poller->AddDoorbell(&*pair.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.b.get()).ok());
  KeepingHandler handler;
  constexpr uint32_t kRounds = 20;
  uint32_t drained_later = 0;
  for (uint32_t id = 0; id < kRounds; ++id) {
    const uint64_t sent = pair.a_bell->rings_sent();
    std::thread sender([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
      Send(*pair.a, id);
    });
    const uint64_t sleeps = poller->counters().sleeps;
    while (handler.sinks[pair.b.get()].messages.size() <= id) poller->Wait(handler, kNoDeadline);
    sender.join();
    const bool woken = pair.a_bell->rings_sent() != sent && poller->counters().sleeps != sleeps;
    // Not each time: where this thread was stopped for long, it looks at descriptors before it returns.
    drained_later += woken && pair.b_bell->rings_received() == sent ? 1 : 0;
  }
  EXPECT_GT(drained_later, 0u);
  poller->Wait(handler, NowNs() + 20 * kNsPerMs);
  EXPECT_EQ(pair.b_bell->rings_received(), pair.a_bell->rings_sent());
  EXPECT_EQ(poller->counters().rings_spurious, 0u);
  poller->RemoveChannel(pair.b.get());
  poller->RemoveDoorbell(&*pair.b_bell);
}

TEST(PollerTest, ManyParkedChannelsEachWake) {
  constexpr int kPairs = 200;
  std::unique_ptr<Poller> poller = MakePoller();
  std::vector<std::unique_ptr<ChannelPair>> pairs;
  ChannelOptions small;
  small.arena_bytes = small.peer_arena_bytes = kArenaBytesMin;
  for (int i = 0; i < kPairs; ++i) {
    pairs.push_back(std::make_unique<ChannelPair>(small, small));
    ASSERT_TRUE(poller->AddDoorbell(&*pairs[i]->b_bell).ok());
    ASSERT_TRUE(poller->AddChannel(pairs[i]->b.get()).ok());
  }
  KeepingHandler handler;
  poller->Wait(handler, NowNs() + 5 * kNsPerMs);
  std::thread sender([&] {
    for (uint32_t round = 0; round < 20; ++round) {
      for (auto& pair : pairs) Send(*pair->a, round);
    }
  });
  auto arrived = [&] {
    std::size_t count = 0;
    for (auto& [channel, sink] : handler.sinks) count += sink.messages.size();
    return count;
  };
  const uint64_t give_up_ns = NowNs() + 20 * kNsPerSecond;
  while (arrived() < 20 * kPairs && NowNs() < give_up_ns) poller->Wait(handler, give_up_ns);
  sender.join();
  EXPECT_EQ(arrived(), 20u * kPairs);
  EXPECT_TRUE(handler.closed.empty());
  EXPECT_LE(poller->active_channels(), Poller::kActiveMax);
  EXPECT_GT(poller->counters().parked, 0u);
  for (auto& pair : pairs) {
    poller->RemoveChannel(pair->b.get());
    poller->RemoveDoorbell(&*pair->b_bell);
  }
}

// The race between "nothing there, go to sleep" and "published, does anybody sleep?", many thousand times:
// each message is sent as the peer is about to sleep, and a lost wake would hang.
TEST(PollerTest, NoWakeIsLostBetweenPublishAndSleep) {
  ChannelPair pair;
  constexpr uint32_t kRounds = 30'000;
  auto run = [&](Channel& channel, Doorbell& bell, bool first, uint64_t poll_time_ns) {
    std::unique_ptr<Poller> poller = MakePoller(poll_time_ns);
    ASSERT_TRUE(poller->AddDoorbell(&bell).ok());
    ASSERT_TRUE(poller->AddChannel(&channel).ok());
    KeepingHandler handler;
    const uint64_t give_up_ns = NowNs() + 60 * kNsPerSecond;
    uint32_t received = 0;
    if (first) Send(channel, 0);
    while (received < kRounds) {
      if (poller->Wait(handler, give_up_ns) == 0 && NowNs() >= give_up_ns) break;
      KeepingSink& sink = handler.sinks[&channel];
      for (std::size_t i = 0; i < sink.messages.size(); ++i) {
        EXPECT_EQ(sink.messages[i].header.request_id, received);
        ++received;
        if (first ? received < kRounds : true) Send(channel, first ? received : received - 1);
      }
      sink.messages.clear();
      sink.buffers.clear();
    }
    EXPECT_EQ(received, kRounds);
    EXPECT_TRUE(handler.closed.empty()) << PoisonReasonText(channel.poison_reason());
    poller->RemoveChannel(&channel);
    poller->RemoveDoorbell(&bell);
  };
  std::thread other([&] { run(*pair.b, *pair.b_bell, false, 0); });
  run(*pair.a, *pair.a_bell, true, 3 * kNsPerUs);
  other.join();
}

TEST(PollerTest, HangUpDrainsThenCloses) {
  ChannelPair pair;
  std::unique_ptr<Poller> poller = MakePoller();
  ASSERT_TRUE(poller->AddDoorbell(&*pair.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.b.get()).ok());
  for (uint32_t id = 0; id < 30; ++id) Send(*pair.a, id);
  pair.a_bell.reset();
  KeepingHandler handler;
  const uint64_t give_up_ns = NowNs() + 10 * kNsPerSecond;
  while (handler.closed.empty() && NowNs() < give_up_ns) poller->Wait(handler, give_up_ns);
  ASSERT_EQ(handler.closed.size(), 1u);
  EXPECT_EQ(pair.b->state(), ChannelState::kPeerDead);
  EXPECT_EQ(handler.sinks[pair.b.get()].messages.size(), 30u);
}

TEST(PollerTest, AStalledStreamIsGivenUpWhileTheThreadSleeps) {
  ChannelPair pair;
  std::unique_ptr<Poller> poller = MakePoller();
  ASSERT_TRUE(poller->AddDoorbell(&*pair.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.b.get()).ok());
  SendStream stream;
  const std::string large = Pattern(1, 500'000);
  ASSERT_TRUE(pair.a->TryStart(stream, Request(1), BytesOf(large), Lane::kRequest, NowNs()));
  pair.a->Pump(stream, NowNs());
  KeepingHandler handler;
  const uint64_t give_up_ns = NowNs() + 10 * kNsPerSecond;
  while (handler.sinks[pair.b.get()].aborted.empty() && NowNs() < give_up_ns) {
    poller->Wait(handler, NowNs() + 500 * kNsPerMs);
  }
  EXPECT_EQ(handler.sinks[pair.b.get()].aborted.size(), 1u);
  EXPECT_EQ(pair.b->state(), ChannelState::kOpen);
}

TEST(PollerTest, RoomWakesASenderThatWaitsForIt) {
  ChannelPair pair;
  std::unique_ptr<Poller> poller = MakePoller(0);
  ASSERT_TRUE(poller->AddDoorbell(&*pair.a_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.a.get()).ok());
  const std::string large = Pattern(1, 5'000'000);
  KeepingSink sink;
  std::thread reader([&] {
    while (sink.messages.empty()) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      pair.b->Poll(sink, 2);
    }
  });
  KeepingHandler handler;
  SendStream stream;
  ASSERT_TRUE(pair.a->TryStart(stream, Request(1), BytesOf(large), Lane::kRequest, NowNs()));
  const uint64_t give_up_ns = NowNs() + 20 * kNsPerSecond;
  StreamState state = StreamState::kMoreToSend;
  for (uint32_t before = 0;
       (state = pair.a->Pump(stream, NowNs())) == StreamState::kMoreToSend && NowNs() < give_up_ns;
       before = stream.position) {
    // Where it sent something it may have ended at what one call sends, as the reader made room meanwhile.
    if (stream.position == before) poller->Wait(handler, give_up_ns);
  }
  EXPECT_EQ(state, StreamState::kDone);
  reader.join();
  ASSERT_EQ(sink.messages.size(), 1u);
  EXPECT_EQ(sink.messages[0].payload, large);
  EXPECT_GT(poller->counters().sleeps, 0u);
}

// Whoever has sent a large message polls on while the peer copies it, once for each step of the peer's.
TEST(PollerTest, APeerThatCopiesALargeMessageKeepsItsSenderAwake) {
  ChannelPair pair{ChannelOptions{}, ChannelOptions{}};
  std::unique_ptr<Poller> poller = MakePoller(0);
  ASSERT_TRUE(poller->AddDoorbell(&*pair.a_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.a.get()).ok());
  KeepingHandler handler;
  KeepingSink taken;
  const auto wait = [&] {
    const uint64_t before = poller->counters().copies_waited;
    poller->Wait(handler, NowNs() + 5 * kNsPerMs);
    return poller->counters().copies_waited - before;
  };
  const std::string chunk = Pattern(1, kChunkBytesMax);
  const uint32_t chunks = kArenaBytesDefault / 2 / kChunkBytesMax;
  for (uint32_t id = 0; id < chunks; ++id) {
    ASSERT_TRUE(pair.a->TrySend(Request(id), BytesOf(chunk), Lane::kRequest));
    pair.a->Publish();
  }
  EXPECT_EQ(wait(), 1u) << "it was just sent";
  EXPECT_EQ(wait(), 0u) << "nobody has read anything";
  // It reports a quarter of the arena at a time.
  pair.b->Poll(taken, static_cast<int>(chunks / 2));
  EXPECT_EQ(wait(), 1u);
  EXPECT_EQ(wait(), 0u) << "nothing was read since";
  pair.b->Poll(taken, static_cast<int>(chunks));
  EXPECT_EQ(taken.messages.size(), chunks);
  EXPECT_EQ(wait(), 1u);
  EXPECT_EQ(wait(), 0u);
  EXPECT_GE(poller->counters().sleeps, 5u);
  // A short one is answered at once or not soon.
  Send(*pair.a, chunks);
  pair.b->Poll(taken, 1);
  pair.b->consumer().PublishHead();
  EXPECT_EQ(wait(), 0u);
  poller->RemoveChannel(pair.a.get());
  poller->RemoveDoorbell(&*pair.a_bell);
}

TEST(PollerTest, IdleMeansAsleep) {
  ChannelPair pair;
  std::unique_ptr<Poller> poller = MakePoller();
  ASSERT_TRUE(poller->AddDoorbell(&*pair.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.b.get()).ok());
  KeepingHandler handler;
  EXPECT_EQ(poller->Wait(handler, NowNs() + 300 * kNsPerMs), 0);
  EXPECT_LE(poller->counters().sleeps, 3u) << "no periodic wakes";
}

TEST(PollerTest, HonestRingsAreNeverSpuriousEnoughToClose) {
  ChannelPair pair;
  std::unique_ptr<Poller> poller = MakePoller();
  ASSERT_TRUE(poller->AddDoorbell(&*pair.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.b.get()).ok());
  KeepingHandler handler;
  for (int i = 0; i < 200; ++i) {
    pair.a_bell->Ring();
    poller->Wait(handler, NowNs() + kNsPerSecond);
  }
  EXPECT_TRUE(handler.closed.empty());
  EXPECT_EQ(poller->counters().rings_spurious, 200u);
}

}  // namespace
}  // namespace weft
