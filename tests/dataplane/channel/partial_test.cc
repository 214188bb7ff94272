// SPDX-License-Identifier: Apache-2.0
// Messages in parts that do not come: what they may hold, and when they are given up.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/channel/poller.h"
#include "tests/dataplane/channel/poller_fixture.h"

namespace weft {
namespace {

constexpr uint32_t kLongest = kMessageBytesMaxDefault;

// A peer that writes its cells by hand, to bring a message in parts of any size. Its victim never sleeps for
// long, since it has such a message under way, so it rings no doorbell.
class Trickler {
 public:
  explicit Trickler(const ChannelOptions& victim_options)
      : memory_(*SideMemory::Create("trickler", SideMemoryBytes(victim_options.peer_arena_bytes))),
        own_(memory_.data()) {
    InitialiseSide(own_);
    absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
    bell.emplace(*Doorbell::Create(std::move(bells->first)));
    far_bell_.emplace(*Doorbell::Create(std::move(bells->second)));
    victim = *Channel::Create(victim_options);
    EXPECT_TRUE(victim->Connect(Duplicate(memory_.fd()), &*bell).ok());
  }

  // The next `bytes` of a message of `total` bytes, of which `position` came before.
  void Push(uint32_t slot, uint32_t total, uint32_t position, uint32_t bytes,
            uint64_t deadline_ns = kFarDeadlineNs) {
    MessageHeader header = Request(slot);
    header.deadline_ns = deadline_ns;
    Put(kChunkBit | bytes, header, {0, total, position, slot});
  }
  // `lie`: by how much the tail that the peer names is too far.
  void PushSmall(uint32_t lie = 0) { Put(0, Request(99), {}, lie); }

  std::optional<Doorbell> bell;
  std::unique_ptr<Channel> victim;

 private:
  void Put(uint32_t length, const MessageHeader& header, ChunkDescriptor chunk, uint32_t lie = 0) {
    Cell& cell = own_.cells[tail_ & kCellMask];
    cell.length = length;
    cell.header = header;
    std::memcpy(cell.payload, &chunk, sizeof(chunk));
    cell.lap.store(++tail_, std::memory_order_release);
    own_.lines->tail.store(tail_ + lie, std::memory_order_seq_cst);
  }

  std::optional<Doorbell> far_bell_;
  SideMemory memory_;
  OwnSide own_;
  uint32_t tail_ = 0;
};

TEST(ByteBudgetTest, NobodyGetsMoreThanHeLeavesToOthers) {
  ByteBudget budget(100);
  EXPECT_TRUE(budget.TryCharge(50, 0));
  EXPECT_FALSE(budget.TryCharge(1, 50));
  EXPECT_FALSE(budget.TryCharge(26, 0));
  EXPECT_TRUE(budget.TryCharge(25, 0));
  EXPECT_FALSE(budget.TryCharge(1, 25));
  EXPECT_TRUE(budget.TryCharge(12, 0));
  budget.Release(50);
  EXPECT_TRUE(budget.TryCharge(19, 12));
  budget.Release(25 + 12 + 19);
  EXPECT_EQ(budget.used_bytes(), 0u);
  EXPECT_FALSE(budget.TryCharge(101, 0));
  EXPECT_TRUE(budget.TryCharge(100, 0)) << "one message may be all that there is room for";
}

// One peer begins the longest message that there is and brings it byte by byte: others' go on, and it is
// given up.
TEST(PartialTest, ATrickleLeavesMemoryToOthersAndIsGivenUp) {
  ByteBudget budget(2 * kLongest);
  ChannelOptions options = SmallArenas();
  options.budget = &budget;
  Trickler trickler(options);
  ChannelPair honest(SmallArenas(), options);
  std::unique_ptr<Poller> poller = MakePoller();
  ASSERT_TRUE(poller->AddDoorbell(&*trickler.bell).ok());
  ASSERT_TRUE(poller->AddChannel(trickler.victim.get()).ok());
  ASSERT_TRUE(poller->AddDoorbell(&*honest.b_bell).ok());
  ASSERT_TRUE(poller->AddChannel(honest.b.get()).ok());
  KeepingHandler handler;
  KeepingSink& bad = handler.sinks[trickler.victim.get()];
  KeepingSink& good = handler.sinks[honest.b.get()];

  for (uint32_t slot = 0; slot < kPartialsMax; ++slot) trickler.Push(slot, kLongest, 0, 1);
  while (trickler.victim->Ready()) poller->PollOnce(handler);
  EXPECT_EQ(bad.begun, 1) << "it gets half";
  EXPECT_EQ(bad.no_budget.size(), kPartialsMax - 1);
  EXPECT_EQ(budget.used_bytes(), kLongest);

  const std::string large = Pattern(1, 1 << 20);
  SendStream stream;
  ASSERT_TRUE(honest.a->TryStart(stream, Request(1), BytesOf(large), Lane::kRequest, NowNs()));
  const uint64_t give_up_ns = NowNs() + 9 * kNsPerSecond;
  uint32_t position = 1;
  uint64_t push_ns = 0;
  bool sending = true;
  while (bad.aborted.empty() && NowNs() < give_up_ns) {
    if (const uint64_t now_ns = NowNs(); now_ns >= push_ns) {
      trickler.Push(0, kLongest, position++, 1);
      push_ns = now_ns + 20 * kNsPerMs;
    }
    if (sending) sending = honest.a->Pump(stream, NowNs()) == StreamState::kMoreToSend;
    poller->Wait(handler, NowNs() + (sending ? 0 : 10 * kNsPerMs));
  }
  ASSERT_EQ(good.messages.size(), 1u);
  EXPECT_EQ(good.messages[0].payload, large);
  ASSERT_EQ(bad.aborted.size(), 1u);
  EXPECT_EQ(bad.aborted[0].request_id, 0u);
  EXPECT_EQ(budget.used_bytes(), 0u);
  EXPECT_EQ(trickler.victim->state(), ChannelState::kOpen);
  trickler.Push(0, kLongest, position, 1);
  while (trickler.victim->Ready()) poller->PollOnce(handler);
  EXPECT_EQ(trickler.victim->state(), ChannelState::kOpen) << "what comes of it late is dropped";
  EXPECT_EQ(budget.used_bytes(), 0u);
  poller->RemoveChannel(trickler.victim.get());
  poller->RemoveChannel(honest.b.get());
}

TEST(PartialTest, AMessageIsGivenUpAtItsOwnDeadline) {
  ByteBudget budget(kLongest);
  ChannelOptions options = SmallArenas();
  options.budget = &budget;
  Trickler trickler(options);
  KeepingSink sink;
  const uint64_t now_ns = NowNs();
  trickler.Push(0, 1000, 0, 1, now_ns + kNsPerMs);
  trickler.Push(1, 1000, 0, 1, 0);
  trickler.victim->Poll(sink, 8);
  trickler.victim->ExpireStalled(now_ns + kNsPerMs - 1, sink);
  EXPECT_TRUE(sink.aborted.empty());
  trickler.victim->ExpireStalled(now_ns + kNsPerMs, sink);
  ASSERT_EQ(sink.aborted.size(), 1u);
  EXPECT_EQ(sink.aborted[0].request_id, 0u) << "the other has none";
  EXPECT_EQ(budget.used_bytes(), 1000u);
}

// It comes too slowly while others keep the ring filled, all of which this side takes.
TEST(PartialTest, AMessageBetweenOthersIsGivenUpOnceThisSideHasLookedLongEnough) {
  Trickler trickler(SmallArenas());
  KeepingSink sink;
  trickler.Push(0, kLongest, 0, 1);
  trickler.victim->Poll(sink, 1);
  trickler.PushSmall();
  uint64_t now_ns = NowNs();
  const auto look = [&] {
    trickler.victim->ExpireStalled(now_ns, sink);
    trickler.PushSmall();
    trickler.victim->Poll(sink, 1);
  };
  constexpr int kLooks = static_cast<int>(kStreamSlowNs / kStreamLookNs);
  for (int i = 0; i < kLooks - 1; ++i) {
    look();
    now_ns += 10 * kNsPerSecond;  // In which this side did not run.
  }
  EXPECT_TRUE(sink.aborted.empty());
  for (int i = 0; i < 2; ++i) {
    now_ns += kStreamLookNs;
    look();
  }
  EXPECT_EQ(sink.aborted.size(), 1u);
}

// Where this side is late with what stands before the rest of a message, that is not its sender's fault; but
// each pass through the ring counts, whatever the peer says that the ring holds.
TEST(PartialTest, LooksAtAMessageBehindOthersThatAreNotTakenYetDoNotCount) {
  for (const uint32_t lie : {0u, 1000u, 1u << 31}) {
    Trickler trickler(SmallArenas());
    KeepingSink sink;
    trickler.Push(0, kLongest, 0, 1);
    trickler.victim->Poll(sink, 1);
    for (int i = 0; i < 8; ++i) trickler.PushSmall(lie);
    uint64_t now_ns = NowNs();
    const auto look = [&] { trickler.victim->ExpireStalled(now_ns += kStreamLookNs, sink); };
    constexpr int kLooks = static_cast<int>(kStreamSlowNs / kStreamLookNs);
    if (lie == 0) {
      for (int i = 0; i < 10 * kLooks; ++i) look();
      EXPECT_TRUE(sink.aborted.empty());
    }
    for (int pass = 0; pass < kLooks; ++pass) {
      for (int i = 0; i < 8; ++i) trickler.PushSmall(lie);
      trickler.victim->Poll(sink, 8);
      look();
    }
    EXPECT_EQ(sink.aborted.size(), 1u) << lie;
  }
}

// A sender that brings little more than the least pace, with others' messages between: of a small arena a
// quarter, of a large one the same as of one of 1 MiB.
TEST(PartialTest, AMessageThatComesSlowlyIsTaken) {
  for (const auto& [arena_bytes, step_bytes] :
       {std::pair{kArenaBytesMin, kArenaBytesMin / 4}, std::pair{1u << 20, kStreamPaceBytes},
        std::pair{kArenaBytesMax, kStreamPaceBytes}}) {
    ChannelOptions options;
    options.arena_bytes = options.peer_arena_bytes = arena_bytes;
    Trickler trickler(options);
    KeepingSink sink;
    constexpr uint32_t kSteps = 8;
    const uint32_t chunk_bytes = std::min(step_bytes, kChunkBytesMax);
    uint64_t now_ns = NowNs();
    trickler.PushSmall();
    for (uint32_t position = 0; position < kSteps * step_bytes; position += chunk_bytes) {
      trickler.Push(0, kSteps * step_bytes, position, chunk_bytes);
      trickler.victim->Poll(sink, 1);
      if ((position + chunk_bytes) % step_bytes != 0) continue;
      for (uint64_t passed = 0; passed < kStreamSlowNs * 9 / 10; passed += kStreamLookNs) {
        trickler.victim->ExpireStalled(now_ns += kStreamLookNs, sink);
        trickler.PushSmall();
        trickler.victim->Poll(sink, 1);
      }
    }
    trickler.victim->Poll(sink, 1);
    EXPECT_TRUE(sink.aborted.empty()) << arena_bytes;
    EXPECT_EQ(std::count_if(sink.messages.begin(), sink.messages.end(),
                            [&](const auto& message) { return !message.payload.empty(); }),
              1)
        << arena_bytes;
  }
}

TEST(PartialTest, AMessageOfAParkedChannelIsGivenUp) {
  ByteBudget budget(kLongest);
  ChannelOptions small;
  small.arena_bytes = small.peer_arena_bytes = kArenaBytesMin;
  small.budget = &budget;
  std::unique_ptr<Poller> poller = MakePoller();
  std::vector<std::unique_ptr<ChannelPair>> pairs;
  KeepingHandler handler;
  const std::string large = Pattern(1, 100'000);
  SendStream stream;
  for (int i = 0; i < Poller::kActiveMax + 1; ++i) {
    pairs.push_back(std::make_unique<ChannelPair>(small, small));
    ASSERT_TRUE(poller->AddDoorbell(&*pairs[i]->b_bell).ok());
    ASSERT_TRUE(poller->AddChannel(pairs[i]->b.get()).ok());
    if (i != 0) continue;
    ASSERT_TRUE(pairs[0]->a->TryStart(stream, Request(1), BytesOf(large), Lane::kRequest, NowNs()));
    pairs[0]->a->Pump(stream, NowNs());
    while (pairs[0]->b->Ready()) poller->PollOnce(handler);
  }
  Channel& parked = *pairs[0]->b;
  EXPECT_LT(parked.hook.active_index, 0);
  EXPECT_EQ(budget.used_bytes(), large.size());
  const uint64_t give_up_ns = NowNs() + 9 * kNsPerSecond;
  while (handler.sinks[&parked].aborted.empty() && NowNs() < give_up_ns) {
    poller->Wait(handler, NowNs() + 20 * kNsPerMs);
  }
  EXPECT_EQ(handler.sinks[&parked].aborted.size(), 1u);
  EXPECT_EQ(budget.used_bytes(), 0u);
  EXPECT_LT(parked.hook.active_index, 0);
  const uint64_t sleeps = poller->counters().sleeps;
  poller->Wait(handler, NowNs() + 200 * kNsPerMs);
  EXPECT_LE(poller->counters().sleeps, sleeps + 3) << "no periodic wakes";
  for (auto& pair : pairs) {
    poller->RemoveChannel(pair->b.get());
    poller->RemoveDoorbell(&*pair->b_bell);
  }
}

}  // namespace
}  // namespace weft
