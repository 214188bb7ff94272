// SPDX-License-Identifier: Apache-2.0
#include "dataplane/transport/frame.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "dataplane/base/random.h"

namespace weft::transport {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes Written(const std::function<void(FrameWriter&)>& write) {
  Bytes text(16 * 1024);
  FrameWriter writer(text.data(), text.size());
  write(writer);
  text.resize(writer.bytes());
  return text;
}

bool Valid(const Bytes& text) { return FramesAreValid(text.data(), text.size()); }

const DataTarget kTarget{0x1122334455667788, 250, 0};

Bytes DataText(MessageKind kind, DataFrame frame, uint32_t payload_bytes, uint8_t flags = 0) {
  const Bytes payload(payload_bytes, 0x5a);
  return Written([&](FrameWriter& writer) {
    writer.Data(kind, flags, frame, kind == MessageKind::kResponse ? nullptr : &kTarget, payload.data(),
                payload_bytes);
  });
}

// Each case is refused whole; the text differs from a valid frame in one thing.
TEST(FrameTest, InvalidDataIsRefused) {
  const DataFrame good{{}, 3000, 7, 1400, 1400, 0};
  ASSERT_TRUE(Valid(DataText(MessageKind::kRequest, good, 1400)));
  auto with = [&](auto change, uint32_t payload, MessageKind kind = MessageKind::kRequest,
                  uint8_t flags = 0) {
    DataFrame frame = good;
    change(frame);
    return Valid(DataText(kind, frame, payload, flags));
  };
  EXPECT_FALSE(with([](DataFrame& f) { f.offset = 1399; }, 1400)) << "offset off the segment grid";
  EXPECT_FALSE(with([](DataFrame& f) { f.offset = 4200; }, 1400)) << "offset behind the end";
  EXPECT_FALSE(with([](DataFrame& f) { f.offset = 2800; }, 1400)) << "tail longer than the message";
  EXPECT_FALSE(with([](DataFrame&) {}, 1399)) << "short middle segment";
  EXPECT_FALSE(with([](DataFrame&) {}, 0)) << "announcement away from offset 0";
  EXPECT_FALSE(with([](DataFrame& f) { f.message_bytes = kMessageBytesMax + 1; }, 1400)) << "too large";
  EXPECT_FALSE(with([](DataFrame& f) { f.segment_bytes = 0; }, 1400)) << "segment of no bytes";
  EXPECT_FALSE(with([](DataFrame& f) { f.segment_bytes = kSegmentBytesMax + 1; }, 1400));
  EXPECT_FALSE(with([](DataFrame& f) { f.code = 1; }, 1400)) << "a request has no status";
  EXPECT_FALSE(with([](DataFrame& f) { f.code = 17; }, 1400, MessageKind::kResponse)) << "no such status";
  EXPECT_FALSE(with([](DataFrame&) {}, 1400, MessageKind::kRequest, 0x10)) << "unknown flag";
  EXPECT_FALSE(with([](DataFrame&) {}, 1400, MessageKind::kRequest, 0x03)) << "no such kind";
  EXPECT_TRUE(with([](DataFrame& f) { f.code = 16; }, 1400, MessageKind::kResponse));
  EXPECT_TRUE(with([](DataFrame& f) { f.offset = 2800; }, 200));
  EXPECT_TRUE(with([](DataFrame& f) { f.offset = 0; }, 0)) << "announcement";
  EXPECT_TRUE(with([](DataFrame& f) { f.offset = 0, f.message_bytes = 0; }, 0)) << "empty message";
}

TEST(FrameTest, InvalidOtherFramesAreRefused) {
  EXPECT_FALSE(Valid({})) << "no frame at all";
  EXPECT_FALSE(Valid({0, 0, 4, 0})) << "type 0";
  EXPECT_FALSE(Valid({10, 0, 4, 0})) << "type above CLOSE";
  EXPECT_FALSE(Valid({8, 1, 4, 0})) << "PING with a flag";
  EXPECT_FALSE(Valid({8, 0, 5, 0, 0})) << "PING with a body";
  EXPECT_FALSE(Valid({8, 0, 4})) << "half a frame header";
  EXPECT_FALSE(Valid({8, 0, 8, 0})) << "length behind the end";
  EXPECT_FALSE(Valid({8, 0, 0, 0})) << "length below the header: a reader would never end";
  EXPECT_TRUE(Valid({8, 0, 4, 0, 9, 0, 4, 0}));
  auto notice = [](FrameType type, uint32_t code) {
    return Valid(Written([&](FrameWriter& w) { w.Notice(type, MessageKind::kRequest, 1, code); }));
  };
  EXPECT_FALSE(notice(FrameType::kReject, 0));
  EXPECT_FALSE(notice(FrameType::kReject, 17));
  EXPECT_FALSE(notice(FrameType::kBusy, 1));
  EXPECT_TRUE(notice(FrameType::kReject, 8));
  EXPECT_TRUE(notice(FrameType::kUnknown, 0));
  auto resend = [](uint32_t offset, uint32_t bytes) {
    return Valid(Written([&](FrameWriter& w) { w.Resend(MessageKind::kOneWay, 1, offset, bytes); }));
  };
  EXPECT_FALSE(resend(kMessageBytesMax, 1)) << "range behind the largest message";
  EXPECT_FALSE(resend(0xffffffff, 2)) << "range that wraps";
  EXPECT_TRUE(resend(kMessageBytesMax, 0));
}

TEST(FrameTest, InvalidAcksAreRefused) {
  auto ack = [](uint64_t largest, std::vector<uint64_t> words) {
    return Valid(Written([&](FrameWriter& w) {
      w.Ack(10, 1000, largest, words.data(), static_cast<uint32_t>(words.size()));
    }));
  };
  EXPECT_FALSE(ack(5, {})) << "no word";
  EXPECT_FALSE(ack(5, std::vector<uint64_t>(kAckWordsMax + 1, 1ull << 5)));
  EXPECT_FALSE(ack(5, {1ull << 4})) << "largest itself is not in the word";
  EXPECT_FALSE(ack(5, {3ull << 5})) << "a packet above the largest";
  EXPECT_FALSE(ack(5, {1ull << 5, 0})) << "a word below counter 0";
  EXPECT_TRUE(ack(63, {~0ull}));
  EXPECT_TRUE(ack(64, {1, ~0ull}));
}

TEST(FrameTest, SeveralFramesOfADatagramAreReadBackAsWritten) {
  const std::array<uint64_t, 2> words = {0x1f, 0xf0f0};
  const Bytes payload(300, 9);
  const Bytes text = Written([&](FrameWriter& writer) {
    writer.Ack(123, 40'000, 68, words.data(), 2);
    writer.Grant(MessageKind::kOneWay, MessageId(5, 6), 70'000);
    writer.Data(MessageKind::kRequest, kFlagCongested, {{}, 300, MessageId(1, 2), 0, 1400, 0}, &kTarget,
                payload.data(), 300);
    writer.Resend(MessageKind::kResponse, 77, 1400, 2800);
    writer.Data(MessageKind::kResponse, 0, {{}, 0, 78, 0, 1400, 14}, nullptr, nullptr, 0);
  });
  FrameReader reader(text.data(), text.size());
  ParsedFrame frame;
  ASSERT_EQ(reader.Next(&frame), FrameReader::Result::kFrame);
  EXPECT_EQ(frame.type, FrameType::kAck);
  EXPECT_EQ(+frame.ack.largest, 68u);
  EXPECT_EQ(+frame.ack.delay_ns, 123u);
  EXPECT_EQ(frame.payload_bytes, 16u);
  ASSERT_EQ(reader.Next(&frame), FrameReader::Result::kFrame);
  EXPECT_EQ(frame.type, FrameType::kGrant);
  EXPECT_EQ(frame.kind, MessageKind::kOneWay);
  EXPECT_EQ(+frame.grant.granted_bytes, 70'000u);
  EXPECT_EQ(SlotOf(frame.grant.id), 6u);
  EXPECT_EQ(SequenceOf(frame.grant.id), 5u);
  ASSERT_EQ(reader.Next(&frame), FrameReader::Result::kFrame);
  EXPECT_EQ(frame.type, FrameType::kData);
  EXPECT_EQ(frame.flags & kFlagCongested, kFlagCongested);
  EXPECT_EQ(+frame.target.function, +kTarget.function);
  EXPECT_EQ(frame.payload_bytes, 300u);
  EXPECT_EQ(frame.payload[299], 9);
  ASSERT_EQ(reader.Next(&frame), FrameReader::Result::kFrame);
  EXPECT_EQ(+frame.resend.bytes, 2800u);
  ASSERT_EQ(reader.Next(&frame), FrameReader::Result::kFrame);
  EXPECT_EQ(+frame.data.code, 14);
  EXPECT_EQ(frame.payload_bytes, 0u);
  EXPECT_EQ(reader.Next(&frame), FrameReader::Result::kEnd);
}

// Bytes at random, and valid datagrams with some bytes changed: the reader ends, stays inside the text (ASan
// watches in the sanitizer build) and hands out only frames that keep their own rules.
TEST(FrameTest, RandomAndMutatedTextNeverEscapesTheChecks) {
  Random random(11);
  const Bytes seedling = DataText(MessageKind::kRequest, {{}, 3000, 7, 1400, 1400, 0}, 1400);
  for (int round = 0; round < 20'000; ++round) {
    Bytes text = round % 2 == 0 ? seedling : Bytes(random.Below(64));
    const uint64_t changes = round % 2 == 0 ? 1 + random.Below(4) : text.size();
    for (uint64_t i = 0; i < changes && !text.empty(); ++i) {
      text[random.Below(std::min<size_t>(text.size(), 48))] = static_cast<uint8_t>(random.Next());
    }
    FrameReader reader(text.data(), text.size());
    ParsedFrame frame;
    while (reader.Next(&frame) == FrameReader::Result::kFrame) {
      if (frame.type == FrameType::kData) {
        ASSERT_LE(frame.data.offset + frame.payload_bytes, +frame.data.message_bytes);
        ASSERT_LE(frame.payload + frame.payload_bytes, text.data() + text.size());
      }
    }
  }
}

}  // namespace
}  // namespace weft::transport
