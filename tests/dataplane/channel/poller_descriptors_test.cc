// SPDX-License-Identifier: Apache-2.0
// Descriptors that a poller serves beside its channels.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/dataplane/channel/poller_fixture.h"

namespace weft {
namespace {

TEST(PollerTest, DescriptorsAreServedWhileAsleepAndWhileBusy) {
  ChannelPair pair;
  std::unique_ptr<Poller> poller = MakePoller();
  UniqueFd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  int calls = 0;
  ASSERT_TRUE(poller
                  ->AddFd(event.get(), EPOLLIN,
                          [&](uint32_t) {
                            uint64_t value;
                            EXPECT_EQ(read(event.get(), &value, 8), 8);
                            ++calls;
                          })
                  .ok());
  KeepingHandler handler;
  const uint64_t one = 1;
  ASSERT_EQ(write(event.get(), &one, 8), 8);
  poller->Wait(handler, NowNs() + 10 * kNsPerSecond);
  EXPECT_EQ(calls, 1);

  ASSERT_TRUE(poller->AddDoorbell(&*pair.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.b.get()).ok());
  ASSERT_EQ(write(event.get(), &one, 8), 8);
  const uint64_t give_up_ns = NowNs() + 10 * kNsPerSecond;
  for (uint32_t id = 0; calls < 2 && NowNs() < give_up_ns; ++id) {
    Send(*pair.a, id);
    EXPECT_EQ(poller->PollOnce(handler), 1) << "always busy";
  }
  EXPECT_EQ(calls, 2);
}

// A thread that did not run for long must hear its agent before it delivers anything.
TEST(PollerTest, AfterAPauseDescriptorsComeBeforeMessages) {
  ChannelPair pair;
  std::unique_ptr<Poller> poller = MakePoller();
  UniqueFd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  KeepingHandler handler;
  std::size_t messages_at_callback = 99;
  ASSERT_TRUE(poller
                  ->AddFd(event.get(), EPOLLIN,
                          [&](uint32_t) {
                            uint64_t value;
                            EXPECT_EQ(read(event.get(), &value, 8), 8);
                            messages_at_callback = handler.sinks[pair.b.get()].messages.size();
                          })
                  .ok());
  ASSERT_TRUE(poller->AddDoorbell(&*pair.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.b.get()).ok());
  poller->PollOnce(handler);
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  Send(*pair.a, 1);
  const uint64_t one = 1;
  ASSERT_EQ(write(event.get(), &one, 8), 8);
  EXPECT_EQ(poller->PollOnce(handler), 1);
  EXPECT_EQ(messages_at_callback, 0u);
  EXPECT_EQ(poller->counters().off_cpu, 1u);
}

// Where another thread never yields the core, a yield takes milliseconds: descriptors, the agent's socket
// among them, are looked at after each, not after as many polls as take microseconds elsewhere.
TEST(PollerTest, DescriptorsWaitForAFewYieldsWhereTheCoreIsTaken) {
  ChannelPair pair;
  // Longer than the wait that comes to a first yield, which turns of the hog stretch.
  std::unique_ptr<Poller> poller = MakePoller(20 * kNsPerMs);
  ASSERT_TRUE(poller->AddDoorbell(&*pair.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(pair.b.get()).ok());
  UniqueFd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  ASSERT_TRUE(poller
                  ->AddFd(event.get(), EPOLLIN,
                          [&](uint32_t) {
                            uint64_t value;
                            EXPECT_EQ(read(event.get(), &value, 8), 8);
                          })
                  .ok());
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  std::atomic<bool> stop{false}, begun{false};
  std::thread hog([&] {  // Inherits the one core.
    begun.store(true, std::memory_order_relaxed);
    while (!stop.load(std::memory_order_relaxed)) {
    }
  });
  while (!begun.load(std::memory_order_relaxed)) std::this_thread::yield();
  KeepingHandler handler;
  int slow_rounds = 0;
  uint32_t round = 0;
  // Until the hog has had its share, this thread has some before it: a yield then returns at once.
  const uint64_t until_ns = NowNs() + 5 * kNsPerSecond;
  while (slow_rounds < 10 && NowNs() < until_ns) {
    Send(*pair.a, round++);
    while (poller->PollOnce(handler) == 0) {
    }
    // Comes to a slow yield, after which each poll yields. Until then a sanitizer's slow polls can take
    // longer than the time after which descriptors are looked at in any case.
    poller->Wait(handler, NowNs() + 5 * kNsPerMs);
    poller->NoteWork();
    const uint64_t yields = poller->counters().yields;
    const uint64_t sleeps = poller->counters().sleeps;
    const uint64_t value = 1;
    const uint64_t begin_ns = NowNs();
    ASSERT_EQ(write(event.get(), &value, 8), 8);
    poller->Wait(handler, NowNs() + 20 * kNsPerSecond);
    const uint64_t yielded = poller->counters().yields - yields;
    if (yielded == 0 || poller->counters().sleeps != sleeps) continue;
    if (NowNs() - begin_ns < yielded * kNsPerMs / 2) continue;  // The hog was elsewhere for a moment.
    ++slow_rounds;
    EXPECT_LE(yielded, 8u);
  }
  stop.store(true, std::memory_order_relaxed);
  hog.join();
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
  EXPECT_GT(slow_rounds, 0);
}

}  // namespace
}  // namespace weft
