// SPDX-License-Identifier: Apache-2.0
// What an honest pair may rely on of messages that are sent in parts: content, bounds, an end in any case.
#include <gtest/gtest.h>

#include <string>

#include "dataplane/channel/channel.h"
#include "tests/dataplane/channel/channel_pair.h"

namespace weft {
namespace {

TEST(ChannelStreamTest, StreamsLargerThanTheArenaArriveAmongSmallMessages) {
  ChannelPair pair;
  KeepingSink sink;
  const std::string large = Pattern(1, 3'000'001);
  const std::string small = Pattern(2, 64);
  SendStream stream;
  ASSERT_TRUE(pair.a->TryStart(stream, Request(1), BytesOf(large), Lane::kRequest, NowNs()));
  uint32_t smalls = 0;
  while (pair.a->Pump(stream, NowNs()) == StreamState::kMoreToSend) {
    ASSERT_TRUE(Send(*pair.a, 100 + smalls, small, Lane::kReply));
    ++smalls;
    pair.b->Poll(sink, 64);
  }
  pair.b->Poll(sink, 64);
  ASSERT_EQ(sink.messages.size(), smalls + 1);
  EXPECT_EQ(sink.messages.front().header.request_id, 100u) << "small messages overtake the large one";
  EXPECT_EQ(sink.messages.back().payload, large);
}

TEST(ChannelStreamTest, SixteenMebibytesPassAndOneByteMoreIsPoison) {
  ChannelOptions larger = SmallArenas();
  larger.message_bytes_max = kMessageBytesMaxDefault + 1;
  for (const uint32_t extra : {0u, 1u}) {
    ChannelPair pair(larger, SmallArenas());
    KeepingSink sink;
    const std::string large = Pattern(3, kMessageBytesMaxDefault + extra);
    SendStream stream;
    ASSERT_TRUE(pair.a->TryStart(stream, Request(1), BytesOf(large), Lane::kRequest, NowNs()));
    while (pair.a->Pump(stream, NowNs()) == StreamState::kMoreToSend && !pair.b->closing())
      pair.b->Poll(sink, 64);
    pair.b->Poll(sink, 64);
    pair.b->Poll(sink, 64);
    if (extra == 0) {
      ASSERT_EQ(sink.messages.size(), 1u);
      EXPECT_EQ(sink.messages[0].payload, large);
    } else {
      EXPECT_EQ(sink.begun, 0) << "nothing was allocated for it";
      EXPECT_EQ(pair.b->state(), ChannelState::kPoisoned);
      EXPECT_EQ(pair.b->poison_reason(), PoisonReason::kBadLength);
    }
  }
}

TEST(ChannelStreamTest, AnAbortedStreamIsDroppedAndItsSlotUsableAgain) {
  ChannelPair pair;
  KeepingSink sink;
  const std::string large = Pattern(9, 500'000);
  for (uint32_t round = 0; round < 30; ++round) {
    SendStream stream;
    ASSERT_TRUE(pair.a->TryStart(stream, Request(round), BytesOf(large), Lane::kRequest, NowNs()));
    ASSERT_EQ(pair.a->Pump(stream, NowNs()), StreamState::kMoreToSend);
    pair.a->Abort(stream);
    pair.b->Poll(sink, 64);
    ASSERT_EQ(sink.aborted.size(), round + 1);
  }
  EXPECT_EQ(pair.b->state(), ChannelState::kOpen);
  EXPECT_TRUE(sink.messages.empty());
}

TEST(ChannelStreamTest, StreamSlotsAreBoundedAndTheLastAreForReplies) {
  ChannelPair pair;
  const std::string large = Pattern(9, 500'000);
  SendStream streams[kPartialsMax + 1];
  uint32_t started = 0;
  while (pair.a->TryStart(streams[started], Request(started), BytesOf(large), Lane::kRequest, 1)) ++started;
  EXPECT_EQ(started, kPartialsMax - kReplyPartials);
  while (pair.a->TryStart(streams[started], Request(started), BytesOf(large), Lane::kReply, 1)) ++started;
  EXPECT_EQ(started, kPartialsMax);
}

TEST(ChannelStreamTest, AStreamStalledFor100MsFailsOnBothSidesAndFreesTheBuffer) {
  ByteBudget budget(1'000'000);
  ChannelOptions with_budget = SmallArenas();
  with_budget.budget = &budget;
  ChannelPair pair(SmallArenas(), with_budget);
  KeepingSink sink;
  const std::string large = Pattern(9, 900'000);
  SendStream stream;
  const uint64_t start_ns = NowNs();
  ASSERT_TRUE(pair.a->TryStart(stream, Request(5), BytesOf(large), Lane::kRequest, start_ns));
  ASSERT_EQ(pair.a->Pump(stream, start_ns), StreamState::kMoreToSend);
  pair.b->Poll(sink, 64);
  EXPECT_EQ(budget.used_bytes(), 900'000u);
  const uint64_t now_ns = NowNs();
  pair.b->ExpireStalled(now_ns + kStreamStallNs - 50 * kNsPerMs, sink);
  EXPECT_TRUE(sink.aborted.empty());
  pair.b->ExpireStalled(now_ns + kStreamStallNs, sink);
  ASSERT_EQ(sink.aborted.size(), 1u);
  EXPECT_EQ(budget.used_bytes(), 0u);
  // The sender's side: the ring is full for it, and time passes.
  const uint64_t last_ns = start_ns + 50 * kNsPerMs;
  EXPECT_EQ(pair.a->Pump(stream, last_ns), StreamState::kMoreToSend);
  EXPECT_EQ(pair.a->Pump(stream, last_ns + kStreamStallNs - 1), StreamState::kMoreToSend);
  EXPECT_EQ(pair.a->Pump(stream, last_ns + kStreamStallNs), StreamState::kStalled);
  pair.b->Poll(sink, 64);
  EXPECT_EQ(pair.b->state(), ChannelState::kOpen)
      << "late chunks and the abort of a failed stream are no offence";
  ASSERT_TRUE(Send(*pair.a, 6, Pattern(6, 64)));
  pair.b->Poll(sink, 64);
  ASSERT_EQ(sink.messages.size(), 1u);
}

TEST(ChannelStreamTest, AStreamBeyondTheBudgetIsRefusedAndCharged) {
  ByteBudget budget(600'000);
  ChannelOptions with_budget = SmallArenas();
  with_budget.budget = &budget;
  ChannelPair pair(SmallArenas(), with_budget);
  KeepingSink sink;
  const std::string large = Pattern(9, 400'000);
  SendStream first;
  SendStream second;
  ASSERT_TRUE(pair.a->TryStart(first, Request(1), BytesOf(large), Lane::kRequest, NowNs()));
  ASSERT_TRUE(pair.a->TryStart(second, Request(2), BytesOf(large), Lane::kReply, NowNs()));
  for (bool more = true; more;) {
    const bool first_more = pair.a->Pump(first, NowNs()) == StreamState::kMoreToSend;
    const bool second_more = pair.a->Pump(second, NowNs()) == StreamState::kMoreToSend;
    more = first_more || second_more;
    pair.b->Poll(sink, 1);
  }
  pair.b->Poll(sink, 64);
  ASSERT_EQ(sink.messages.size(), 1u);
  EXPECT_EQ(sink.messages[0].payload, large);
  ASSERT_EQ(sink.no_budget.size(), 1u);
  EXPECT_EQ(sink.no_budget[0].request_id, 2u);
  EXPECT_EQ(budget.used_bytes(), 0u);
}

TEST(ChannelStreamTest, TwoPeersThatFloodEachOtherWithLargeMessagesBothFinish) {
  ChannelPair pair;
  KeepingSink a_sink;
  KeepingSink b_sink;
  // More than the arena, little enough that no stream stalls for 100 ms under a sanitizer.
  const std::string large = Pattern(9, 400'000);
  constexpr int kStreams = 6;
  SendStream a_streams[kStreams];
  SendStream b_streams[kStreams];
  for (int i = 0; i < kStreams; ++i) {
    ASSERT_TRUE(pair.a->TryStart(a_streams[i], Request(i), BytesOf(large), Lane::kRequest, NowNs()));
    ASSERT_TRUE(pair.b->TryStart(b_streams[i], Request(i), BytesOf(large), Lane::kRequest, NowNs()));
  }
  bool more = true;
  while (more) {
    more = false;
    for (int i = 0; i < kStreams; ++i) {
      more |= pair.a->Pump(a_streams[i], NowNs()) == StreamState::kMoreToSend;
      more |= pair.b->Pump(b_streams[i], NowNs()) == StreamState::kMoreToSend;
    }
    pair.a->Poll(a_sink, 4);
    pair.b->Poll(b_sink, 4);
  }
  while (pair.a->Poll(a_sink, 64) + pair.b->Poll(b_sink, 64) != 0) {
  }
  ASSERT_EQ(a_sink.messages.size(), static_cast<std::size_t>(kStreams));
  ASSERT_EQ(b_sink.messages.size(), static_cast<std::size_t>(kStreams));
  for (int i = 0; i < kStreams; ++i) {
    EXPECT_EQ(a_sink.messages[i].payload, large);
    EXPECT_EQ(b_sink.messages[i].payload, large);
  }
}

}  // namespace
}  // namespace weft
