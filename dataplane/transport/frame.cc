// SPDX-License-Identifier: Apache-2.0
#include "dataplane/transport/frame.h"

#include <algorithm>

#include "dataplane/base/attributes.h"

namespace weft::transport {
namespace {

constexpr uint32_t kStatusCodeMax = 16;  // absl::StatusCode::kUnauthenticated.

bool KindIsValid(uint8_t flags) { return (flags & kFlagKindMask) <= 2; }

// `rest` is what lies behind the fixed part: target and payload.
bool CheckData(ParsedFrame* frame, const uint8_t* rest, uint32_t rest_bytes) {
  const DataFrame& data = frame->data;
  if ((data.header.flags & ~(kFlagKindMask | kFlagCongested | kFlagRetransmission)) != 0) return false;
  frame->target = DataTarget{};
  if (frame->kind != MessageKind::kResponse) {
    if (rest_bytes < sizeof(DataTarget) || data.code != 0) return false;
    std::memcpy(&frame->target, rest, sizeof(DataTarget));
    if (frame->target.reserved != 0) return false;
    rest += sizeof(DataTarget);
    rest_bytes -= sizeof(DataTarget);
  }
  frame->payload = rest;
  frame->payload_bytes = rest_bytes;
  if (data.message_bytes > kMessageBytesMax || data.code > kStatusCodeMax) return false;
  if (data.segment_bytes < kSegmentBytesMin || data.segment_bytes > kSegmentBytesMax) return false;
  if (data.offset != 0 && data.offset % data.segment_bytes != 0) return false;
  if (rest_bytes == 0) return data.offset == 0;  // An announcement, or an empty message.
  if (data.offset >= data.message_bytes) return false;
  return rest_bytes == std::min<uint32_t>(data.segment_bytes, data.message_bytes - data.offset);
}

bool CheckAck(ParsedFrame* frame, const uint8_t* rest, uint32_t rest_bytes) {
  if (frame->ack.header.flags != 0 || frame->ack.reserved != 0) return false;
  if (rest_bytes == 0 || rest_bytes % 8 != 0 || rest_bytes / 8 > kAckWordsMax) return false;
  frame->payload = rest;
  frame->payload_bytes = rest_bytes;
  uint64_t newest;
  std::memcpy(&newest, rest, sizeof(newest));
  // The newest word holds `largest` itself and nothing above it, and no word lies below counter 0.
  const uint32_t top = frame->ack.largest % 64;
  if ((newest >> top) != 1) return false;
  return frame->ack.largest / 64 + 1 >= rest_bytes / 8;
}

uint32_t FixedBytes(FrameType type) {
  switch (type) {
    case FrameType::kData:
      return sizeof(DataFrame);
    case FrameType::kGrant:
      return sizeof(GrantFrame);
    case FrameType::kAck:
      return sizeof(AckFrame);
    case FrameType::kResend:
      return sizeof(ResendFrame);
    case FrameType::kBusy:
    case FrameType::kReject:
    case FrameType::kUnknown:
      return sizeof(NoticeFrame);
    case FrameType::kPing:
    case FrameType::kClose:
      return sizeof(FrameHeader);
  }
  return 0;
}

bool CheckOther(ParsedFrame* frame, const uint8_t* rest, uint32_t rest_bytes) {
  if (frame->type == FrameType::kAck) return CheckAck(frame, rest, rest_bytes);
  if (rest_bytes != 0) return false;
  switch (frame->type) {
    case FrameType::kGrant:
      return (frame->flags & ~kFlagKindMask) == 0 && frame->grant.granted_bytes <= kMessageBytesMax;
    case FrameType::kResend:
      return (frame->flags & ~kFlagKindMask) == 0 && frame->resend.reserved == 0 &&
             frame->resend.offset <= kMessageBytesMax &&
             frame->resend.bytes <= kMessageBytesMax - frame->resend.offset;
    case FrameType::kReject:
      return (frame->flags & ~kFlagKindMask) == 0 && frame->notice.code != 0 &&
             frame->notice.code <= kStatusCodeMax;
    case FrameType::kBusy:
    case FrameType::kUnknown:
      return (frame->flags & ~kFlagKindMask) == 0 && frame->notice.code == 0;
    default:
      return frame->flags == 0;  // PING and CLOSE.
  }
}

}  // namespace

WEFT_HOT FrameReader::Result FrameReader::Next(ParsedFrame* frame) {
  if (at_ == end_) return Result::kEnd;
  const auto left = static_cast<std::size_t>(end_ - at_);
  FrameHeader header;
  if (left < sizeof(header)) return Result::kMalformed;
  std::memcpy(&header, at_, sizeof(header));
  frame->type = static_cast<FrameType>(header.type);
  frame->flags = header.flags;
  if (header.bytes > left || !KindIsValid(header.flags)) return Result::kMalformed;
  frame->kind = static_cast<MessageKind>(header.flags & kFlagKindMask);
  // All members of the union begin with the frame's first byte. DATA, the most frequent, by itself: its copy
  // has a fixed size.
  if (frame->type == FrameType::kData) [[likely]] {
    if (header.bytes < sizeof(DataFrame)) return Result::kMalformed;
    std::memcpy(&frame->data, at_, sizeof(DataFrame));
    if (!CheckData(frame, at_ + sizeof(DataFrame), static_cast<uint32_t>(header.bytes - sizeof(DataFrame)))) {
      return Result::kMalformed;
    }
  } else {
    const uint32_t fixed = FixedBytes(frame->type);
    if (fixed == 0 || header.bytes < fixed) return Result::kMalformed;
    std::memcpy(&frame->data, at_, fixed);
    frame->payload = nullptr;
    frame->payload_bytes = 0;
    if (!CheckOther(frame, at_ + fixed, header.bytes - fixed)) return Result::kMalformed;
  }
  at_ += header.bytes;
  return Result::kFrame;
}

bool FrameReader::RestIsValid() const {
  FrameReader rest = *this;
  ParsedFrame frame;
  Result result;
  while ((result = rest.Next(&frame)) == Result::kFrame) {
  }
  return result == Result::kEnd;
}

WEFT_HOT bool FramesAreValid(const uint8_t* text, std::size_t bytes) {
  FrameReader reader(text, bytes);
  ParsedFrame frame;
  if (bytes == 0) return false;
  while (true) {
    const FrameReader::Result result = reader.Next(&frame);
    if (result != FrameReader::Result::kFrame) return result == FrameReader::Result::kEnd;
  }
}

namespace {
FrameHeader HeaderOf(FrameType type, uint8_t flags, std::size_t bytes) {
  return {static_cast<uint8_t>(type), flags, static_cast<uint16_t>(bytes)};
}
}  // namespace

void FrameWriter::Grant(MessageKind kind, uint64_t id, uint32_t granted_bytes) {
  const GrantFrame frame{HeaderOf(FrameType::kGrant, static_cast<uint8_t>(kind), sizeof(frame)),
                         granted_bytes, id};
  Put(&frame, sizeof(frame));
}

void FrameWriter::Resend(MessageKind kind, uint64_t id, uint32_t offset, uint32_t bytes) {
  const ResendFrame frame{HeaderOf(FrameType::kResend, static_cast<uint8_t>(kind), sizeof(frame)), offset, id,
                          bytes, 0};
  Put(&frame, sizeof(frame));
}

void FrameWriter::Notice(FrameType type, MessageKind kind, uint64_t id, uint32_t code) {
  const NoticeFrame frame{HeaderOf(type, static_cast<uint8_t>(kind), sizeof(frame)), code, id};
  Put(&frame, sizeof(frame));
}

void FrameWriter::Bare(FrameType type) {
  const FrameHeader frame = HeaderOf(type, 0, sizeof(frame));
  Put(&frame, sizeof(frame));
}

void FrameWriter::Ack(uint32_t delay_ns, uint32_t share_bytes, uint64_t largest, const uint64_t* words,
                      uint32_t count) {
  const AckFrame frame{HeaderOf(FrameType::kAck, 0, sizeof(frame) + count * sizeof(uint64_t)), delay_ns,
                       share_bytes, 0, largest};
  Put(&frame, sizeof(frame));
  Put(words, count * sizeof(uint64_t));
}

}  // namespace weft::transport
