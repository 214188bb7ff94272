// SPDX-License-Identifier: Apache-2.0
// Runs: many one-way messages that one cell names. They arrive whole at a sink that takes them so and one by
// one at any other, among everything else; and what a hostile producer may write in their place is refused.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "dataplane/base/random.h"
#include "tests/dataplane/channel/channel_pair.h"
#include "tests/dataplane/channel/guarded_side.h"

namespace weft {
namespace {

// Takes runs whole, but for those that it wants one by one.
struct RunSink : KeepingSink {
  std::byte* OnRunBegin(const MessageHeader&, const MessageRun& run) {
    if (random.Below(100) < one_by_one_percent) return nullptr;
    ++whole;
    buffers.push_back(std::make_unique<std::byte[]>(run.bytes + 1));
    return buffers.back().get();
  }
  void OnRun(const MessageHeader& first, const MessageRun& run, std::byte* payload) {
    MessageHeader header = first;
    for (uint32_t i = 0; i < run.count; ++i, ++header.request_id) {
      messages.push_back({header, std::string(reinterpret_cast<char*>(payload), run.lengths[i])});
      payload += RunStride(run.lengths[i]);
    }
  }

  Random random{7};
  uint64_t one_by_one_percent = 0;
  int whole = 0;
};

MessageHeader OneWay(uint32_t id) {
  MessageHeader header = Request(0);
  header.request_id = id;
  header.kind = MessageKind::kOneWay;
  return header;
}

struct Batch {
  Batch(uint32_t first_id, uint32_t count, uint64_t lengths_seed) {
    Random random(lengths_seed);
    for (uint32_t i = 0; i < count; ++i) texts.push_back(Pattern(first_id + i, random.Below(97)));
    for (const std::string& text : texts) spans.push_back(BytesOf(text));
  }
  std::vector<std::string> texts;
  std::vector<std::span<const std::byte>> spans;
};

TEST(RunTest, ArrivesWholeWithRisingIds) {
  ChannelPair pair;
  RunSink sink;
  const Batch batch(100, 32, 1);
  ASSERT_EQ(pair.a->TrySendRun(OneWay(100), batch.spans, Lane::kRequest), 32u);
  EXPECT_EQ(pair.b->Poll(sink, 8), 0) << "visible before it was published";
  pair.a->Publish();
  EXPECT_EQ(pair.a->producer().unread_cells(), 1u);
  EXPECT_EQ(pair.b->Poll(sink, 8), 32);
  ASSERT_EQ(sink.messages.size(), 32u);
  EXPECT_EQ(sink.whole, 1);
  for (uint32_t i = 0; i < 32; ++i) {
    EXPECT_EQ(sink.messages[i].payload, batch.texts[i]);
    const MessageHeader expected = OneWay(100 + i);
    EXPECT_EQ(std::memcmp(&sink.messages[i].header, &expected, sizeof(expected)), 0) << i;
  }
}

TEST(RunTest, TakesAsManyAsFitAndEndsBeforeALongMessage) {
  ChannelPair pair;
  const std::string small = Pattern(1, 96);
  const std::string large = Pattern(1, 97);
  const std::vector<std::span<const std::byte>> many(200, BytesOf(small));
  EXPECT_EQ(pair.a->TrySendRun(OneWay(1), many, Lane::kRequest), kRunBytesMax / 96);
  const std::vector<std::span<const std::byte>> empty(200, std::span<const std::byte>());
  EXPECT_EQ(pair.a->TrySendRun(OneWay(1), empty, Lane::kRequest), kRunMessagesMax);
  EXPECT_EQ(pair.a->TrySendRun(OneWay(1), std::vector{BytesOf(small), BytesOf(small), BytesOf(large)},
                               Lane::kRequest),
            2u);
  pair.a->Publish();
  KeepingSink sink;
  while (pair.b->Poll(sink, 7) != 0) {
  }
  EXPECT_EQ(pair.b->poison_reason(), PoisonReason::kNone);
  EXPECT_EQ(sink.messages.size(), kRunBytesMax / 96 + kRunMessagesMax + 2);
}

TEST(RunTest, AFullArenaRefusesAndTakesAgainOncePeerHasRead) {
  ChannelPair pair;
  RunSink sink;
  const Batch batch(0, 40, 5);
  uint32_t sent = 0;
  while (const uint32_t count = pair.a->TrySendRun(OneWay(sent), batch.spans, Lane::kRequest)) {
    sent += count;
    pair.a->Publish();
    ASSERT_LT(sent, 100'000u);
  }
  EXPECT_TRUE(pair.a->producer().wants_space());
  EXPECT_TRUE(pair.a->TrySend(Request(1), BytesOf("reply"), Lane::kReply)) << "requests took its room";
  pair.a->Publish();
  while (pair.b->Poll(sink, 64) != 0) {
  }
  EXPECT_EQ(sink.messages.size(), sent + 1);
  EXPECT_NE(pair.a->TrySendRun(OneWay(sent), batch.spans, Lane::kRequest), 0u);
}

// Among cells, blocks of records, chunks; taken whole or one by one, with every budget; small arenas too.
TEST(RunTest, OrderHeadersAndPayloadsStayTheirsAmongEverythingElse) {
  for (const uint32_t arena_bytes : {kArenaBytesMin, 64 * 1024u}) {
    ChannelOptions options;
    options.arena_bytes = options.peer_arena_bytes = arena_bytes;
    ChannelPair pair(options, options);
    RunSink sink;
    sink.one_by_one_percent = 40;
    Random random(11);
    std::vector<std::string> sent;
    std::vector<MessageHeader> headers;
    for (int round = 0; round < 3000; ++round) {
      for (uint64_t turn = random.Below(4); turn > 0; --turn) {
        const auto id = static_cast<uint32_t>(sent.size());
        if (random.Below(2) == 0) {
          const Batch batch(id, static_cast<uint32_t>(1 + random.Below(90)), random.Next());
          const uint32_t count = pair.a->TrySendRun(OneWay(id), batch.spans, Lane::kRequest);
          for (uint32_t i = 0; i < count; ++i) {
            sent.push_back(batch.texts[i]);
            headers.push_back(OneWay(id + i));
          }
          continue;
        }
        std::string payload = Pattern(id, random.Below(20) == 0 ? random.Below(1000) : random.Below(97));
        const Lane lane = random.Below(3) == 0 ? Lane::kReply : Lane::kRequest;
        if (!pair.a->TrySend(Request(id), BytesOf(payload), lane)) break;
        sent.push_back(std::move(payload));
        headers.push_back(Request(id));
      }
      if (random.Below(3) != 0) pair.a->Publish();
      pair.b->Poll(sink, static_cast<int>(1 + random.Below(60)));
    }
    pair.a->Publish();
    while (pair.b->Poll(sink, 64) != 0) {
    }
    ASSERT_EQ(pair.b->poison_reason(), PoisonReason::kNone);
    ASSERT_GT(sink.whole, 500);
    ASSERT_EQ(sink.messages.size(), sent.size());
    for (std::size_t i = 0; i < sent.size(); ++i) {
      ASSERT_EQ(sink.messages[i].payload, sent[i]) << i;
      ASSERT_EQ(std::memcmp(&sink.messages[i].header, &headers[i], sizeof(MessageHeader)), 0) << i;
    }
  }
}

// A sink that polls again from within a message of a run that it takes one by one.
TEST(RunTest, ASinkMayPollFromWithinARun) {
  struct NestedSink : KeepingSink {
    void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
      KeepingSink::OnMessage(header, payload, bytes);
      if (messages.size() % 3 == 0) channel->Poll(*this, 2);
    }
    Channel* channel = nullptr;
  };
  ChannelPair pair;
  NestedSink sink;
  sink.channel = pair.b.get();
  uint32_t id = 0;
  for (int i = 0; i < 6; ++i) {
    const Batch batch(id, 10, static_cast<uint64_t>(i));
    id += pair.a->TrySendRun(OneWay(id), batch.spans, Lane::kRequest);
    for (int k = 0; k < 5; ++k) ASSERT_TRUE(pair.a->TrySend(OneWay(id++), BytesOf("x"), Lane::kRequest));
    pair.a->Publish();
  }
  while (pair.b->Poll(sink, 4) != 0) {
  }
  ASSERT_EQ(sink.messages.size(), 90u);
  for (uint32_t i = 0; i < 90; ++i) EXPECT_EQ(sink.messages[i].header.request_id, i);
}

// Each way in which a run's cell can be wrong, written by hand into the peer's memory.
TEST(RunTest, AWrongRunIsPoisonOfItsName) {
  constexpr uint32_t kArena = kArenaBytesMin;
  struct Wrong {
    const char* what;
    MessageKind kind;
    uint32_t count, offset, bytes;
    std::vector<uint8_t> lengths;
    PoisonReason reason;
  };
  const std::vector<uint8_t> two = {8, 16};
  const Wrong wrongs[] = {
      {"nothing wrong", MessageKind::kOneWay, 2, 0, 24, two, PoisonReason::kNone},
      {"up to the arena's end", MessageKind::kOneWay, 2, kArena - 24, 24, two, PoisonReason::kNone},
      {"wants an answer", MessageKind::kRequest, 2, 0, 24, two, PoisonReason::kBadKind},
      {"no message", MessageKind::kOneWay, 0, 0, 0, two, PoisonReason::kBadLength},
      {"too many messages", MessageKind::kOneWay, 65, 0, 24, two, PoisonReason::kBadLength},
      {"a message too long", MessageKind::kOneWay, 2, 0, 8 + 104, {8, 97}, PoisonReason::kBadLength},
      {"a block too long", MessageKind::kOneWay, 2, 0, kRunBytesMax + 8, two, PoisonReason::kBadLength},
      {"a block shorter than its messages", MessageKind::kOneWay, 2, 0, 16, two, PoisonReason::kBadLength},
      {"a block longer than its messages", MessageKind::kOneWay, 2, 0, 32, two, PoisonReason::kBadLength},
      {"beyond the arena", MessageKind::kOneWay, 2, kArena - 16, 24, two, PoisonReason::kBadOffset},
      {"far beyond the arena", MessageKind::kOneWay, 2, ~0u - 7, 24, two, PoisonReason::kBadOffset},
  };
  for (const Wrong& wrong : wrongs) {
    GuardedSide own(kArena);
    GuardedSide peer(kArena);
    BasicConsumer<SharedAccess> consumer(own.own(), peer.peer(), kArena, kMessageBytesMaxDefault, nullptr);
    Cell& cell = peer.own().cells[0];
    cell.header = OneWay(1);
    cell.header.kind = wrong.kind;
    cell.length = kRunBit | wrong.bytes;
    const ChunkDescriptor descriptor{wrong.offset, wrong.bytes, wrong.count, 0};
    std::memcpy(cell.payload, &descriptor, sizeof(descriptor));
    std::memcpy(cell.payload + sizeof(descriptor), wrong.lengths.data(), wrong.lengths.size());
    cell.lap.store(1, std::memory_order_release);
    RunSink sink;
    consumer.Poll(sink, 64, [](uint64_t) {});
    EXPECT_EQ(consumer.poison_reason(), wrong.reason) << wrong.what;
    EXPECT_EQ(sink.messages.size(), wrong.reason == PoisonReason::kNone ? 2u : 0u) << wrong.what;
  }
}

}  // namespace
}  // namespace weft
