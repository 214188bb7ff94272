// SPDX-License-Identifier: Apache-2.0
// The sealed part of a datagram: frames, one behind the other. Layouts are fixed, little-endian and packed
// without padding; each begins with type, flags and its whole length, so that one datagram carries several.
// The reader trusts nothing: a frame is handed out only after every field of it has been checked, and a
// datagram with one bad frame is refused whole. Pure functions, any thread.
#ifndef WEFT_DATAPLANE_TRANSPORT_FRAME_H_
#define WEFT_DATAPLANE_TRANSPORT_FRAME_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bpf/abi/packet.h"
#include "dataplane/base/words.h"

namespace weft::transport {

static_assert(std::endian::native == std::endian::little, "frames are copied as they lie in memory");

enum class FrameType : uint8_t {
  kData = 1,     // Bytes of a message, or its announcement where it carries none of them yet.
  kGrant = 2,    // The receiver allows a message's bytes up to an offset.
  kAck = 3,      // Which packets have been taken, and how much may be sent unasked.
  kResend = 4,   // Asks for bytes of a message, or what became of a call.
  kBusy = 5,     // Answer to RESEND: the request is being executed.
  kReject = 6,   // A message is not wanted; the code says why. What was rejected is not executed.
  kUnknown = 7,  // Answer to RESEND: no such message here.
  kPing = 8,     // Asks for an ACK at once.
  kClose = 9,    // The sender ends the session.
};

// Whose id a frame names. Ids are given by the caller of a request and by the sender of a one-way message.
enum class MessageKind : uint8_t { kRequest = 0, kResponse = 1, kOneWay = 2 };

// Low two bits of `flags` of all frames that name a message: MessageKind.
inline constexpr uint8_t kFlagKindMask = 0x03;
// DATA: the sender holds more grants than it can use now; the receiver lowers this sender's share.
inline constexpr uint8_t kFlagCongested = 0x04;
// DATA: these bytes were sent before.
inline constexpr uint8_t kFlagRetransmission = 0x08;

// The largest message: 16 MiB of payload and 64 KiB for what the call layer puts in front of it.
inline constexpr uint32_t kMessageBytesMax = 16 * 1024 * 1024 + 64 * 1024;
// Segment sizes: all segments of a message but the last have one size, so that a bit tells one. The smallest
// fits the IPv6 minimum MTU (1,280 - 48 - 32 - 40 = 1,160) with room for tunnels; the largest a jumbo frame.
inline constexpr uint32_t kSegmentBytesMin = 1024;
inline constexpr uint32_t kSegmentBytesMax = 8896;
// 8 words of 64 packets: an ACK tells of the last 449 to 512 packets.
inline constexpr uint32_t kAckWordsMax = 8;

#pragma pack(push, 1)
struct FrameHeader {
  uint8_t type;
  uint8_t flags;
  uint16_t bytes;  // Of the whole frame.
};
// Identity of a call or a one-way message within a session: a slot and how often the slot was used.
struct DataFrame {
  FrameHeader header;
  uint32_t message_bytes;
  uint64_t id;
  uint32_t offset;
  uint16_t segment_bytes;
  uint16_t code;  // Responses: the status code. Otherwise zero.
};
// Follows DataFrame in requests and one-way messages, in each of their frames, since any may arrive first.
struct DataTarget {
  uint64_t function;    // Wire id of the callee.
  uint32_t timeout_us;  // Time left when the frame was made; 0: none.
  uint32_t reserved;    // Zero.
};
struct GrantFrame {
  FrameHeader header;
  uint32_t granted_bytes;  // From the beginning of the message; never falls.
  uint64_t id;
};
struct AckFrame {
  FrameHeader header;
  uint32_t delay_ns;     // From the arrival of `largest` to this frame.
  uint32_t share_bytes;  // What this peer may send unasked, per message.
  uint32_t reserved;     // Zero.
  uint64_t largest;      // Highest counter taken.
  // Followed by 1 to kAckWordsMax words. Word i tells of the 64 counters from (largest / 64 - i) * 64.
};
struct ResendFrame {
  FrameHeader header;
  uint32_t offset;
  uint64_t id;
  uint32_t bytes;
  uint32_t reserved;  // Zero.
};
// BUSY, REJECT and UNKNOWN.
struct NoticeFrame {
  FrameHeader header;
  uint32_t code;  // REJECT: an absl::StatusCode. Otherwise zero.
  uint64_t id;
};
#pragma pack(pop)

static_assert(sizeof(FrameHeader) == 4 && sizeof(DataFrame) == 24 && sizeof(DataTarget) == 16);
static_assert(sizeof(GrantFrame) == 16 && sizeof(AckFrame) == 24 && sizeof(ResendFrame) == 24);
static_assert(sizeof(NoticeFrame) == 16);
static_assert(offsetof(DataFrame, message_bytes) == 4 && offsetof(DataFrame, id) == 8 &&
              offsetof(DataFrame, offset) == 16 && offsetof(DataFrame, segment_bytes) == 20 &&
              offsetof(DataFrame, code) == 22 && offsetof(DataTarget, timeout_us) == 8);

// Bytes of a datagram that are not payload when it carries one segment of a request.
inline constexpr uint32_t kDataOverheadBytes =
    WEFT_PACKET_HEADER_BYTES + sizeof(DataFrame) + sizeof(DataTarget) + WEFT_PACKET_TAG_BYTES;
// The smallest datagram that a path has to carry.
inline constexpr uint32_t kDatagramBytesLeast = kSegmentBytesMin + kDataOverheadBytes;

// One checked frame. Which members hold something depends on `type`; pointers are into the datagram's text.
struct ParsedFrame {
  FrameType type;
  MessageKind kind;
  uint8_t flags;
  union {
    DataFrame data;
    GrantFrame grant;
    AckFrame ack;
    ResendFrame resend;
    NoticeFrame notice;
  };
  DataTarget target;       // DATA of requests and one-way messages; else zero.
  const uint8_t* payload;  // DATA: payload_bytes; ACK: payload_bytes / 8 words.
  uint32_t payload_bytes;
};

// Reads frames one by one from text[0, bytes). Copies each fixed part before it looks at it.
class FrameReader {
 public:
  FrameReader(const uint8_t* text, std::size_t bytes) : at_(text), end_(text + bytes) {}

  enum class Result { kFrame, kEnd, kMalformed };
  // Fills `frame` where the result is kFrame. After kEnd or kMalformed it is not called again.
  Result Next(ParsedFrame* frame);

  // Whether all that has not been read yet is valid frames. Reads nothing.
  bool RestIsValid() const;

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

// Whether text[0, bytes) is at least one frame and every one is valid.
bool FramesAreValid(const uint8_t* text, std::size_t bytes);

// Writes frames into a buffer; the caller has checked with room() that they fit.
class FrameWriter {
 public:
  FrameWriter(uint8_t* text, std::size_t capacity) : text_(text), capacity_(capacity) {}

  std::size_t bytes() const { return bytes_; }
  std::size_t room() const { return capacity_ - bytes_; }

  void Put(const void* part, std::size_t bytes) {
    if (bytes != 0) std::memcpy(text_ + bytes_, part, bytes);  // `part` may be nullptr then.
    bytes_ += bytes;
  }
  void Grant(MessageKind kind, uint64_t id, uint32_t granted_bytes);
  void Resend(MessageKind kind, uint64_t id, uint32_t offset, uint32_t bytes);
  void Notice(FrameType type, MessageKind kind, uint64_t id, uint32_t code);
  void Bare(FrameType type);  // PING and CLOSE.
  void Ack(uint32_t delay_ns, uint32_t share_bytes, uint64_t largest, const uint64_t* words, uint32_t count);
  // `frame.header` is made here; `target` is null for responses. Inline, so that the words are made of the
  // caller's registers.
  void Data(MessageKind kind, uint8_t flags, const DataFrame& frame, const DataTarget* target,
            const uint8_t* payload, uint32_t payload_bytes) {
    const uint64_t bytes = sizeof(DataFrame) + (target == nullptr ? 0 : sizeof(DataTarget)) + payload_bytes;
    uint8_t* const at = text_ + bytes_;
    StoreWords(at,
               static_cast<uint64_t>(FrameType::kData) | (static_cast<uint64_t>(kind) | flags) << 8 |
                   bytes << 16 | uint64_t{frame.message_bytes} << 32,
               frame.id);
    const uint64_t place = frame.offset | uint64_t{frame.segment_bytes} << 32 | uint64_t{frame.code} << 48;
    if (target == nullptr) {
      std::memcpy(at + 16, &place, sizeof(place));
    } else {
      const uint64_t last = target->timeout_us | uint64_t{target->reserved} << 32;
      StoreWords(at + 16, place, target->function);
      std::memcpy(at + 32, &last, sizeof(last));
    }
    bytes_ += bytes - payload_bytes;
    Put(payload, payload_bytes);
  }

 private:
  uint8_t* const text_;
  const std::size_t capacity_;
  std::size_t bytes_ = 0;
};

// Splits and joins message ids: the slot, and how often it was used.
inline constexpr uint32_t kIdSlotBits = 16;
constexpr uint64_t MessageId(uint64_t sequence, uint32_t slot) { return sequence << kIdSlotBits | slot; }
constexpr uint32_t SlotOf(uint64_t id) { return static_cast<uint32_t>(id & ((1u << kIdSlotBits) - 1)); }
constexpr uint64_t SequenceOf(uint64_t id) { return id >> kIdSlotBits; }

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_FRAME_H_
