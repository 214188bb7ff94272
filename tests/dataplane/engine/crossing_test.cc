// SPDX-License-Identifier: Apache-2.0
// Datagrams that cross from one worker to another: all of them, in order, once; a full ring loses its own and
// nobody else's; who sleeps is woken.
#include "dataplane/engine/crossing.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace weft::engine {
namespace {

constexpr std::size_t kBytes = 128;

std::shared_ptr<Crossing> Make(uint32_t workers) { return *Crossing::Create(workers); }

bool Pass(Crossing& crossing, uint32_t from, uint32_t to, uint32_t number) {
  uint8_t datagram[kBytes] = {};
  std::memcpy(datagram, &number, sizeof(number));
  return crossing.TryPass(from, to, datagram, sizeof(number) + number % 100);
}

uint32_t NumberOf(const Crossing::Received& received) {
  uint32_t number = 0;
  std::memcpy(&number, received.data, sizeof(number));
  return number;
}

bool Readable(int fd) {
  pollfd poll_fd{fd, POLLIN, 0};
  return poll(&poll_fd, 1, 0) == 1;
}

// Nodes of two MTUs speak to each other: what comes may be longer than what this one sends.
TEST(CrossingTest, WhatIsTooLongForAnyPacketIsLost) {
  const std::shared_ptr<Crossing> crossing = Make(2);
  static uint8_t datagram[Crossing::kSlotBytes + 1] = {};
  EXPECT_FALSE(crossing->TryPass(0, 1, datagram, Crossing::kSlotBytes + 1));
  EXPECT_TRUE(crossing->TryPass(0, 1, datagram, WEFT_PACKET_BYTES_MAX));
  EXPECT_EQ(crossing->lost(0), 1u);
  EXPECT_EQ(crossing->passed(0), 1u);
}

TEST(CrossingTest, AFullRingLosesWhatComesAndNobodyElses) {
  const std::shared_ptr<Crossing> crossing = Make(3);
  for (uint32_t i = 0; i < Crossing::kSlots; ++i) ASSERT_TRUE(Pass(*crossing, 0, 2, i));
  EXPECT_FALSE(Pass(*crossing, 0, 2, 0));
  EXPECT_TRUE(Pass(*crossing, 0, 1, 7)) << "another's ring";
  EXPECT_TRUE(Pass(*crossing, 1, 2, 8)) << "of another giver";
  EXPECT_EQ(crossing->lost(0), 1u);
  EXPECT_EQ(crossing->lost(1), 0u);

  // Both givers have their turn, whatever waits of the first.
  Crossing::Received burst[4];
  bool second_came = false;
  for (int turn = 0; turn < 2; ++turn) {
    const std::size_t taken = crossing->Take(2, burst, 4);
    ASSERT_GT(taken, 0u);
    second_came |= NumberOf(burst[0]) == 8 && taken == 1;
    crossing->Release(2, burst, taken);
  }
  EXPECT_TRUE(second_came);
  EXPECT_TRUE(Pass(*crossing, 0, 2, 1)) << "room again";
}

TEST(CrossingTest, WhoSleepsIsWokenOnceAndWhoDoesNotIsLeftAlone) {
  const std::shared_ptr<Crossing> crossing = Make(2);
  ASSERT_TRUE(Pass(*crossing, 0, 1, 1));
  EXPECT_FALSE(Readable(crossing->wake_fd(1)));
  EXPECT_FALSE(crossing->PrepareSleep(1)) << "there is something";
  Crossing::Received burst[4];
  ASSERT_EQ(crossing->Take(1, burst, 4), 1u);
  crossing->Release(1, burst, 1);
  ASSERT_TRUE(crossing->PrepareSleep(1));
  ASSERT_TRUE(Pass(*crossing, 0, 1, 2));
  EXPECT_TRUE(Readable(crossing->wake_fd(1)));
  crossing->EndSleep(1);
  EXPECT_FALSE(Readable(crossing->wake_fd(1)));
}

TEST(CrossingTest, AllThatPassesComesOnceAndInOrder) {
  constexpr uint32_t kCount = 20'000;
  const std::shared_ptr<Crossing> crossing = Make(3);
  std::vector<std::thread> givers;
  for (uint32_t from = 0; from < 2; ++from) {
    givers.emplace_back([&crossing, from] {
      for (uint32_t i = 0; i < kCount;)
        Pass(*crossing, from, 2, i) ? static_cast<void>(++i) : std::this_thread::yield();
    });
  }
  uint32_t next[2] = {0, 0};
  while (next[0] + next[1] < 2 * kCount) {
    Crossing::Received burst[32];
    const std::size_t taken = crossing->Take(2, burst, 32);
    for (std::size_t i = 0; i < taken; ++i) {
      const uint32_t from = burst[i].frame;
      ASSERT_LT(from, 2u);
      ASSERT_EQ(NumberOf(burst[i]), next[from]);
      ASSERT_EQ(burst[i].bytes, sizeof(uint32_t) + next[from] % 100);
      ++next[from];
    }
    crossing->Release(2, burst, taken);
    if (taken > 0 || !crossing->PrepareSleep(2)) continue;
    // A ring that is missed would leave it here for ever.
    pollfd poll_fd{crossing->wake_fd(2), POLLIN, 0};
    ASSERT_EQ(poll(&poll_fd, 1, 10'000), 1);
    crossing->EndSleep(2);
  }
  for (std::thread& giver : givers) giver.join();
  EXPECT_EQ(crossing->passed(0), kCount);
}

}  // namespace
}  // namespace weft::engine
