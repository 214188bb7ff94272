// SPDX-License-Identifier: Apache-2.0
// What an honest pair may rely on: order, content, room, lanes, streams, death.
#include "dataplane/channel/channel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "dataplane/base/random.h"
#include "tests/dataplane/channel/channel_pair.h"

namespace weft {
namespace {

bool Send(Channel& channel, uint32_t id, const std::string& payload, Lane lane = Lane::kRequest) {
  const bool sent = channel.TrySend(Request(id), BytesOf(payload), lane);
  channel.Publish();
  return sent;
}

TEST(ChannelTest, EverySizeUpToAWholeMessageArrivesAsSent) {
  ChannelPair pair;
  KeepingSink sink;
  uint32_t id = 0;
  std::vector<std::size_t> sizes;
  for (std::size_t bytes = 0; bytes <= 130; ++bytes) sizes.push_back(bytes);
  for (std::size_t bytes : {1000, 4096, 65535, 65536}) sizes.push_back(bytes);
  for (const std::size_t bytes : sizes) {
    ++id;
    const std::string payload = Pattern(id, bytes);
    ASSERT_TRUE(Send(*pair.a, id, payload)) << bytes;
    ASSERT_EQ(pair.b->Poll(sink, 8), 1) << bytes;
    ASSERT_EQ(sink.messages.size(), id);
    EXPECT_EQ(sink.messages.back().payload, payload) << bytes;
    const MessageHeader& header = sink.messages.back().header;
    EXPECT_EQ(header.request_id, id);
    EXPECT_EQ(header.function_id, Request(id).function_id);
    EXPECT_EQ(header.deadline_ns, kFarDeadlineNs);
    EXPECT_EQ(header.caller_index, id);
    EXPECT_EQ(header.flags, static_cast<uint8_t>(id));
  }
}

TEST(ChannelTest, PrefixAndBodyArriveAsOnePayload) {
  ChannelPair pair;
  KeepingSink sink;
  for (const std::size_t body : {0, 10, 69, 70, 71, 5000}) {
    const std::string first = Pattern(1, 26);
    const std::string second = Pattern(2, body);
    ASSERT_TRUE(pair.a->TrySend(Request(1), Payload(BytesOf(first), BytesOf(second)), Lane::kRequest));
    pair.a->Publish();
    ASSERT_EQ(pair.b->Poll(sink, 8), 1);
    EXPECT_EQ(sink.messages.back().payload, first + second);
  }
}

TEST(ChannelTest, NothingIsVisibleBeforePublish) {
  ChannelPair pair;
  KeepingSink sink;
  const std::string payload = Pattern(1, 64);
  for (uint32_t id = 0; id < 5; ++id) {
    ASSERT_TRUE(pair.a->TrySend(Request(id), BytesOf(payload), Lane::kRequest));
  }
  EXPECT_EQ(pair.b->Poll(sink, 8), 0);
  pair.a->Publish();
  while (pair.b->Poll(sink, 8) != 0) {
  }
  ASSERT_EQ(sink.messages.size(), 5u);
  for (uint32_t id = 0; id < 5; ++id) EXPECT_EQ(sink.messages[id].header.request_id, id);
}

// From the third message of a publication on, small messages share a block: order, headers and payloads stay
// theirs, also where chunks, other lanes and other deadlines come between.
TEST(ChannelTest, BatchesKeepOrderHeadersAndPayloads) {
  ChannelPair pair;
  KeepingSink sink;
  weft::Random random(3);
  std::vector<std::string> sent;
  std::vector<MessageHeader> headers;
  for (int round = 0; round < 2000; ++round) {
    for (uint64_t burst = random.Below(70); burst > 0; --burst) {
      const auto id = static_cast<uint32_t>(sent.size());
      std::string payload = Pattern(id, random.Below(30) == 0 ? random.Below(5000) : random.Below(97));
      MessageHeader header = Request(id);
      header.function_id = random.Below(3);
      header.deadline_ns = random.Below(2) * id;
      header.kind = static_cast<MessageKind>(1 + random.Below(4));
      const Lane lane = random.Below(3) == 0 ? Lane::kReply : Lane::kRequest;
      const std::size_t prefix = std::min<std::size_t>(payload.size(), random.Below(2) * 26);
      const auto bytes = BytesOf(payload);
      if (!pair.a->TrySend(header, Payload(bytes.first(prefix), bytes.subspan(prefix)), lane)) break;
      sent.push_back(std::move(payload));
      headers.push_back(header);
    }
    pair.a->Publish();
    const int budget = static_cast<int>(1 + random.Below(90));
    EXPECT_LE(pair.b->Poll(sink, budget), budget);
  }
  while (pair.b->Poll(sink, 64) != 0) {
  }
  ASSERT_EQ(pair.b->poison_reason(), PoisonReason::kNone);
  ASSERT_EQ(sink.messages.size(), sent.size());
  for (std::size_t i = 0; i < sent.size(); ++i) {
    ASSERT_EQ(sink.messages[i].payload, sent[i]) << i;
    EXPECT_EQ(std::memcmp(&sink.messages[i].header, &headers[i], sizeof(MessageHeader)), 0) << i;
  }
}

TEST(ChannelTest, ABatchTakesFewerCellsThanMessages) {
  ChannelPair pair;
  KeepingSink sink;
  for (uint32_t id = 0; id < 32; ++id) {
    ASSERT_TRUE(pair.a->TrySend(Request(1), BytesOf(Pattern(id, 64)), Lane::kRequest));
  }
  pair.a->Publish();
  EXPECT_LE(pair.a->producer().unread_cells(), 5u);
}

TEST(ChannelTest, FullRingRefusesAndLeavesReplyRoom) {
  ChannelPair pair;
  KeepingSink sink;
  const std::string payload = Pattern(1, 64);
  uint32_t sent = 0;
  while (Send(*pair.a, sent, payload)) ++sent;
  EXPECT_EQ(sent, kCells - kReplyCells);
  while (Send(*pair.a, sent, payload, Lane::kReply)) ++sent;
  EXPECT_EQ(sent, kCells);
  EXPECT_EQ(pair.b->Poll(sink, 1000), static_cast<int>(kCells));
  EXPECT_TRUE(Send(*pair.a, sent, payload));
  EXPECT_EQ(pair.b->Poll(sink, 1000), 1);
  for (uint32_t id = 0; id <= sent; ++id) EXPECT_EQ(sink.messages[id].header.request_id, id);
}

TEST(ChannelTest, FullArenaRefusesAndLeavesReplyRoom) {
  ChannelPair pair;
  KeepingSink sink;
  const std::string payload = Pattern(1, kChunkBytesMax);
  uint32_t sent = 0;
  while (Send(*pair.a, sent, payload)) ++sent;
  EXPECT_EQ(sent, 3u);
  EXPECT_TRUE(Send(*pair.a, sent, payload, Lane::kReply));
  EXPECT_FALSE(Send(*pair.a, sent, payload, Lane::kReply));
  EXPECT_TRUE(Send(*pair.a, sent, Pattern(2, 96), Lane::kReply)) << "inline needs no arena";
  EXPECT_EQ(pair.b->Poll(sink, 1000), 5);
  EXPECT_TRUE(Send(*pair.a, sent, payload));
}

TEST(ChannelTest, AWholeMessageAlwaysFitsOnceThePeerHasReadEverything) {
  ChannelPair pair;
  KeepingSink sink;
  weft::Random random(7);
  for (uint32_t id = 0; id < 20'000; ++id) {
    const std::string payload = Pattern(id, random.Below(kChunkBytesMax + 1));
    ASSERT_TRUE(Send(*pair.a, id, payload)) << id;
    ASSERT_EQ(pair.b->Poll(sink, 8), 1);
    ASSERT_EQ(sink.messages.back().payload, payload);
    sink.messages.clear();
    sink.buffers.clear();
  }
}

TEST(ChannelTest, PositionsWrapAround) {
  // The lap words are 32 bits wide; laps that repeat after 2^32 cells are covered by the arithmetic alone.
  // Here: the ring itself, thousands of times.
  ChannelPair pair;
  KeepingSink sink;
  for (uint32_t id = 0; id < 100 * kCells; ++id) {
    ASSERT_TRUE(Send(*pair.a, id, Pattern(id, id % 97)));
    ASSERT_EQ(pair.b->Poll(sink, 8), 1);
    ASSERT_EQ(sink.messages.back().payload, Pattern(id, id % 97));
    sink.buffers.clear();
  }
}

TEST(ChannelTest, StreamsLargerThanTheArenaArriveAmongSmallMessages) {
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

TEST(ChannelTest, SixteenMebibytesPassAndOneByteMoreIsPoison) {
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

TEST(ChannelTest, PeerDeathDrainsWhatWasPublished) {
  ChannelPair pair;
  KeepingSink sink;
  for (uint32_t id = 0; id < 40; ++id) ASSERT_TRUE(Send(*pair.a, id, Pattern(id, 64)));
  SendStream stream;
  const std::string large = Pattern(9, 200'000);
  ASSERT_TRUE(pair.a->TryStart(stream, Request(77), BytesOf(large), Lane::kRequest, NowNs()));
  ASSERT_EQ(pair.a->Pump(stream, NowNs()), StreamState::kMoreToSend);
  pair.b->MarkPeerDead();
  while (pair.b->Poll(sink, 16) != 0) {
  }
  EXPECT_EQ(pair.b->state(), ChannelState::kPeerDead);
  EXPECT_EQ(sink.messages.size(), 40u);
  ASSERT_EQ(sink.aborted.size(), 1u);
  EXPECT_EQ(sink.aborted[0].request_id, 77u);
}

TEST(ChannelTest, PeerDeathDrainsMoreMessagesThanCells) {
  ChannelPair pair;
  KeepingSink sink;
  for (uint32_t id = 0; id < 2 * kCells; ++id) {
    ASSERT_TRUE(pair.a->TrySend(Request(id), BytesOf(Pattern(id, 64)), Lane::kRequest)) << id;
  }
  pair.a->Publish();
  pair.b->MarkPeerDead();
  pair.b->Finish(sink);
  EXPECT_EQ(pair.b->state(), ChannelState::kPeerDead);
  EXPECT_EQ(sink.messages.size(), 2u * kCells);
}

TEST(ChannelTest, ARefusedMessageIsDroppedWhole) {
  ChannelPair pair;
  KeepingSink sink;
  sink.refuse = true;
  ASSERT_TRUE(Send(*pair.a, 1, Pattern(1, 64)));
  ASSERT_TRUE(Send(*pair.a, 2, Pattern(1, 60'000)));
  SendStream stream;
  const std::string large = Pattern(9, 120'000);
  ASSERT_TRUE(pair.a->TryStart(stream, Request(3), BytesOf(large), Lane::kReply, NowNs()));
  ASSERT_EQ(pair.a->Pump(stream, NowNs()), StreamState::kDone);
  pair.b->Poll(sink, 16);
  EXPECT_TRUE(sink.messages.empty());
  sink.refuse = false;
  ASSERT_TRUE(Send(*pair.a, 4, Pattern(1, 64)));
  pair.b->Poll(sink, 16);
  ASSERT_EQ(sink.messages.size(), 1u);
  EXPECT_EQ(sink.messages[0].header.request_id, 4u);
  EXPECT_TRUE(sink.aborted.empty());
}

TEST(ChannelTest, AnAbortedStreamIsDroppedAndItsSlotUsableAgain) {
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

TEST(ChannelTest, StreamSlotsAreBoundedAndTheLastAreForReplies) {
  ChannelPair pair;
  const std::string large = Pattern(9, 500'000);
  SendStream streams[kPartialsMax + 1];
  uint32_t started = 0;
  while (pair.a->TryStart(streams[started], Request(started), BytesOf(large), Lane::kRequest, 1)) ++started;
  EXPECT_EQ(started, kPartialsMax - kReplyPartials);
  while (pair.a->TryStart(streams[started], Request(started), BytesOf(large), Lane::kReply, 1)) ++started;
  EXPECT_EQ(started, kPartialsMax);
}

TEST(ChannelTest, AStreamStalledFor100MsFailsOnBothSidesAndFreesTheBuffer) {
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

TEST(ChannelTest, AStreamBeyondTheBudgetIsRefusedAndCharged) {
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

TEST(ChannelTest, TwoPeersThatFloodEachOtherWithLargeMessagesBothFinish) {
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

TEST(ChannelTest, AConsumerThatStopsReadingBoundsItsProducer) {
  ChannelPair pair;
  uint32_t sent = 0;
  for (int i = 0; i < 1'000'000; ++i) sent += Send(*pair.a, 1, Pattern(1, 64), Lane::kReply) ? 1 : 0;
  EXPECT_EQ(sent, kCells);
  EXPECT_TRUE(pair.a->producer().wants_space());
}

TEST(ChannelTest, SmallArenasWork) {
  ChannelOptions options;
  options.arena_bytes = options.peer_arena_bytes = kArenaBytesMin;
  ChannelPair pair(options, options);
  KeepingSink sink;
  EXPECT_EQ(pair.a->whole_bytes_max(), kArenaBytesMin / 4);
  for (uint32_t id = 0; id < 5000; ++id) {
    ASSERT_TRUE(Send(*pair.a, id, Pattern(id, id % (kArenaBytesMin / 4 + 1)))) << id;
    ASSERT_EQ(pair.b->Poll(sink, 8), 1);
    ASSERT_EQ(sink.messages.back().payload, Pattern(id, id % (kArenaBytesMin / 4 + 1)));
    sink.buffers.clear();
  }
}

TEST(ChannelTest, AWholeMessageFitsASmallArenaThatWasReadWhateverItHeld) {
  for (const uint32_t arena_bytes : {kArenaBytesMin, 2 * kArenaBytesMin}) {
    ChannelOptions options;
    options.arena_bytes = options.peer_arena_bytes = arena_bytes;
    ChannelPair pair(options, options);
    KeepingSink sink;
    const uint32_t whole = pair.a->whole_bytes_max();
    uint64_t random = 1;
    for (uint32_t id = 0; id < 20'000; ++id) {
      random = random * 6364136223846793005 + 1442695040888963407;
      // Mostly one byte more than a line or two, which take a line more than they have bytes.
      const uint32_t sizes[] = {kInlineBytesMax + 1, 2 * 64 + 1, 2 * 64 + 1, whole};
      const uint32_t any = 97 + static_cast<uint32_t>(random >> 40) % (whole - 96);
      const uint32_t bytes = random >> 62 != 0 ? sizes[random >> 60 & 3] : any;
      ASSERT_TRUE(Send(*pair.a, id, std::string(bytes, 'x'))) << id << ", " << bytes << " of " << arena_bytes;
      ASSERT_EQ(pair.b->Poll(sink, 8), 1);
      sink.buffers.clear();
      sink.messages.clear();
    }
  }
}

TEST(ChannelTest, BadOptionsAreRefused) {
  ChannelOptions options;
  options.arena_bytes = 5000;
  EXPECT_EQ(Channel::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.arena_bytes = 2048;
  EXPECT_EQ(Channel::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = {};
  options.message_bytes_max = 10;
  EXPECT_EQ(Channel::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace weft
