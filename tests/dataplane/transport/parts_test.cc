// SPDX-License-Identifier: Apache-2.0
// The parts of the core that stand alone: memory, windows, queues.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "dataplane/base/random.h"
#include "dataplane/port/memory_port.h"
#include "dataplane/transport/block_pool.h"
#include "dataplane/transport/delay_brake.h"
#include "dataplane/transport/index_list.h"
#include "dataplane/transport/key_table.h"
#include "dataplane/transport/replay_window.h"
#include "dataplane/transport/sent_log.h"
#include "dataplane/transport/timer_heap.h"

namespace weft::transport {
namespace {

TEST(BlockPoolTest, FullPoolRefusesAndWholeArenaComesBack) {
  BlockPool pool = *std::move(BlockPool::Create(1u << 20));
  EXPECT_FALSE(BlockPool::Create(100'000).ok());
  Block block;
  EXPECT_FALSE(pool.TryAllocate((1u << 20) + 1, &block));
  Random random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<Block> blocks;
    std::set<uint8_t*> starts;
    while (pool.TryAllocate(1 + random.Below(20'000), &block)) {
      std::fill_n(pool.Data(block), block.bytes(), static_cast<uint8_t>(blocks.size()));
      EXPECT_TRUE(starts.insert(pool.Data(block)).second);
      blocks.push_back(block);
    }
    EXPECT_GT(pool.used_bytes(), 900'000u);
    for (size_t i = 0; i < blocks.size(); ++i) {
      // Nobody else wrote here.
      for (size_t at : {size_t{0}, blocks[i].bytes() - 1})
        ASSERT_EQ(pool.Data(blocks[i])[at], static_cast<uint8_t>(i));
    }
    for (Block& used : blocks) pool.Free(&used);
    EXPECT_EQ(pool.used_bytes(), 0u);
    ASSERT_TRUE(pool.TryAllocate(1u << 20, &block)) << "all of it in one piece again";
    pool.Free(&block);
  }
}

TEST(ReplayWindowTest, AgreesWithASetOfAllCounters) {
  ReplayWindow window;
  std::set<uint64_t> seen;
  Random random(2);
  uint64_t front = 0;
  for (int i = 0; i < 200'000; ++i) {
    front += random.Below(3) == 0 ? random.Below(i % 1000 == 0 ? 10'000 : 5) : 0;
    const uint64_t counter = front - std::min(front, random.Below(5'000));
    const bool fresh = window.IsFresh(counter);
    if (seen.count(counter) != 0) {
      ASSERT_FALSE(fresh) << counter;
    } else if (counter + 4'000 > window.largest()) {
      ASSERT_TRUE(fresh) << counter;
    }
    if (fresh) {
      window.Note(counter);
      seen.insert(counter);
    }
  }
}

TEST(SentLogTest, TakesPacketsInAnyOrderAndFindsTheOldest) {
  SentLog log(256);
  std::set<uint64_t> outstanding;
  Random random(3);
  uint64_t counter = 5;
  for (int i = 0; i < 100'000; ++i) {
    if (random.Below(2) == 0 && log.Spans(counter) && log.frames_free() > 4) {
      log.Begin();
      const uint64_t frames = random.Below(4);
      for (uint64_t f = 0; f < frames; ++f) {
        log.AddFrame({FrameType::kData, MessageKind::kRequest, 0, static_cast<uint32_t>(counter), 0,
                      static_cast<uint32_t>(f)});
      }
      log.Finish(counter, 100, counter);
      if (frames > 0) outstanding.insert(counter);
      ++counter;
    } else if (!outstanding.empty()) {
      auto it = outstanding.begin();
      std::advance(it, random.Below(std::min<size_t>(outstanding.size(), 8)));
      uint32_t next = 0;
      log.Take(*it, [&](const SentFrame& frame) {
        EXPECT_EQ(frame.object, *it);
        EXPECT_EQ(frame.segment, next++);
      });
      outstanding.erase(it);
    }
    ASSERT_EQ(log.empty(), outstanding.empty());
    ASSERT_EQ(log.in_flight_bytes(), 100 * outstanding.size());
    if (!outstanding.empty()) {
      ASSERT_EQ(log.oldest(), *outstanding.begin());
    }
    ASSERT_FALSE(log.IsOutstanding(counter));
  }
}

struct Item {
  ListHook hook;
  uint32_t size_class = 0;
};

TEST(ClassQueueTest, SmallestClassFirstThenFirstIn) {
  std::vector<Item> items(6);
  ClassQueue<Item, &Item::hook, &Item::size_class> queue;
  const uint32_t sizes[] = {100'000, 100, 5'000'000, 101, 64, 100'001};
  for (uint32_t i = 0; i < 6; ++i) queue.Push(items.data(), i, sizes[i]);
  std::vector<uint32_t> order;
  for (uint32_t i = queue.front(); i != kNone; i = queue.Next(items.data(), i)) order.push_back(i);
  EXPECT_EQ(order, (std::vector<uint32_t>{4, 1, 3, 0, 5, 2}));
  for (uint32_t i : order) {
    EXPECT_EQ(queue.front(), i);
    queue.Remove(items.data(), i);
  }
  EXPECT_TRUE(queue.empty());
}

TEST(TimerHeapTest, FrontIsAlwaysTheEarliest) {
  TimerHeap heap(50);
  std::vector<uint64_t> due(50, ~uint64_t{0});
  Random random(4);
  for (int i = 0; i < 20'000; ++i) {
    const auto member = static_cast<uint32_t>(random.Below(50));
    const uint64_t at = random.Below(1'000'000);
    heap.ArmAtLatest(member, at);
    due[member] = std::min(due[member], at);
    if (random.Below(3) == 0) {
      ASSERT_EQ(heap.NextNs(), *std::min_element(due.begin(), due.end()));
      due[heap.Front()] = ~uint64_t{0};
      heap.PopFront();
    }
  }
}

TEST(KeyTableTest, IdIsNeverChosenTwiceAndEndsWithItsIndex) {
  KeyTable table(4, 0xfffffff0);
  std::set<uint32_t> ids;
  for (int i = 0; i < 10'000; ++i) {
    const uint32_t id = table.Reserve(1, static_cast<uint8_t>(i));
    ASSERT_NE(id, 0u);
    EXPECT_TRUE(ids.insert(id).second) << id;
    EXPECT_EQ(table.Find(id)->id, id);
    EXPECT_EQ(table.Find(id + 16), nullptr);
    table.Release(id);
    EXPECT_EQ(table.Find(id), nullptr);
  }
}

TEST(DelayBrakeTest, WindowFallsWithQueueingAndRisesWithoutIt) {
  DelayBrake brake(BrakeConfig{});
  uint64_t now = 1'000'000'000;
  for (int i = 0; i < 100; ++i) brake.OnSample(10'000, now += 10'000);
  const uint32_t before = brake.window_bytes();
  for (int i = 0; i < 50; ++i) {
    brake.OnSample(500'000, now += 1'000'000);
    brake.OnAcked(1500);
  }
  EXPECT_LT(brake.window_bytes(), before / 10);
  const uint32_t low = brake.window_bytes();
  for (int i = 0; i < 500; ++i) {
    brake.OnSample(12'000, now += 10'000);
    brake.OnAcked(1500);
  }
  EXPECT_GT(brake.window_bytes(), 2 * low);
}

TEST(MemoryPortTest, FullQueuesRefuseAndUnreleasedMemoryIsNotReused) {
  port::MemoryPort port(2, 100);
  const uint8_t data[100] = {1};
  EXPECT_FALSE(port.Deliver(data, 101));
  EXPECT_TRUE(port.Deliver(data, 1));
  EXPECT_TRUE(port.Deliver(data, 2));
  EXPECT_FALSE(port.Deliver(data, 3));
  port::ReceivedDatagram burst[4];
  ASSERT_EQ(port.Receive(burst, 4), 2u);
  EXPECT_EQ(burst[1].bytes, 2u);
  EXPECT_FALSE(port.Deliver(data, 3)) << "handed over, not yet released";
  port.Release(burst, 2);
  EXPECT_TRUE(port.Deliver(data, 3));
  for (int i = 0; i < 2; ++i) {
    ASSERT_NE(port.BeginSend(), nullptr);
    port.FinishSend(7, 10);
  }
  EXPECT_EQ(port.BeginSend(), nullptr);
  ASSERT_NE(port.Sent(), nullptr);
  EXPECT_EQ(port.Sent()->path, 7u);
  port.PopSent();
  EXPECT_NE(port.BeginSend(), nullptr);
}

}  // namespace
}  // namespace weft::transport
