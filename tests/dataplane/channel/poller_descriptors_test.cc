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

// A thread that computes on this one's core, for as long as it lives. Puts this thread on that one core.
class Hog {
 public:
  Hog() {
    EXPECT_EQ(sched_getaffinity(0, sizeof(before_), &before_), 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    EXPECT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    std::atomic<bool> begun{false};
    thread_ = std::thread([&] {  // Inherits the one core.
      begun.store(true, std::memory_order_relaxed);
      while (!stop_.load(std::memory_order_relaxed)) {
      }
    });
    while (!begun.load(std::memory_order_relaxed)) std::this_thread::yield();
  }
  ~Hog() {
    stop_.store(true, std::memory_order_relaxed);
    thread_.join();
    EXPECT_EQ(sched_setaffinity(0, sizeof(before_), &before_), 0);
  }

 private:
  cpu_set_t before_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// To poll would give the core to a thread that keeps it for milliseconds: after few yields that met it the
// poller sleeps at once, and is woken before it by messages and by descriptors, the agent's socket among
// them.
TEST(PollerTest, SleepsAtOnceWhereTheCoreIsTaken) {
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
  Hog hog;
  KeepingHandler handler;
  int slept_rounds = 0;
  uint32_t round = 0;
  // Until the hog has had its share, this thread has some before it: a yield then returns at once.
  const uint64_t until_ns = NowNs() + 5 * kNsPerSecond;
  while (slept_rounds < 10 && NowNs() < until_ns) {
    Send(*pair.a, round++);
    while (poller->PollOnce(handler) == 0) {
    }
    // Comes to a slow yield, or has come to one before.
    poller->Wait(handler, NowNs() + 5 * kNsPerMs);
    poller->NoteWork();
    const uint64_t yields = poller->counters().yields;
    const uint64_t sleeps = poller->counters().sleeps;
    const uint64_t value = 1;
    ASSERT_EQ(write(event.get(), &value, 8), 8);
    poller->Wait(handler, NowNs() + 20 * kNsPerSecond);
    if (poller->counters().yields == yields && poller->counters().sleeps == sleeps + 1) ++slept_rounds;
  }
  EXPECT_EQ(slept_rounds, 10);
}

}  // namespace
}  // namespace weft
