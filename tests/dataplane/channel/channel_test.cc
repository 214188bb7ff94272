// SPDX-License-Identifier: Apache-2.0
// What an honest pair may rely on: order, content, room, lanes, death. Streams: stream_test.cc.
#include "dataplane/channel/channel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "dataplane/base/random.h"
#include "tests/dataplane/channel/channel_pair.h"

namespace weft {
namespace {

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
